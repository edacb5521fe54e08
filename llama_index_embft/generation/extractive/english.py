"""English question templates, by the form of a sentence; no parser, so each template asks little of the grammar."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

QUESTION_STARTS: Final = ("what", "how", "which", "why", "what is", "how does", "what are")

_PAIR_TEMPLATES: Final = (
    "How does {a} relate to {b}?",
    "What is the role of {a} in {b}?",
    "How does {a} affect {b}?",
    "What is said about {a} and {b}?",
)
_SINGLE_TEMPLATES: Final = ("What is {a}?", "How is {a} described?", "What is said about {a}?", "Why is {a} important?")

_MONTH: Final = "(?:January|February|March|April|May|June|July|August|September|October|November|December)"
_DATE: Final = re.compile(
    r",? ?\b(?:in|on|since|during|by|until|as of) (?:early |late |mid-)?"
    rf"(?:{_MONTH}(?: \d{{1,2}},)? )?(?:19|20)\d\d\b,?"
)
_MONEY: Final = re.compile(
    r"\b(?:by |of |to |for |was |were )?(?:US)?[$€£] ?\d[\d.,]*\d?(?: (?:thousand|million|billion|trillion))?"
)
_PERCENT: Final = re.compile(r"\b(?:by |of |to |for )?\d[\d.]* ?(?:%|percent)")
_COUNT: Final = re.compile(
    r"\b(?:approximately |about |over |more than )?\d[\d.,]*(?: (?:hundred|thousand|million|billion))?"
    r" ((?:[a-z]+ )?[a-z]{3,}s)\b"
)
_CAUSE: Final = re.compile(
    r",? (?:primarily |mainly |in part |largely )?(?:because|due to|as a result of|owing to|attributable to)\b"
)
_AUXILIARY: Final = re.compile(
    r"^(?P<subject>[^,;:()]{3,90}?) (?P<aux>is|are|was|were|has|have|had|can|could|may|might|must|will|would|should)"
    r" (?P<rest>(?!as follows|not\b).{8,})$"
)
_MODALS: Final = frozenset(["can", "could", "may", "might", "must", "will", "would", "should"])
_DEFINITION: Final = re.compile(
    r"^(?:(?:The|A|An) )?(?P<name>[^,;:()]{3,60}?)(?: \([^)]*\))?"
    r" (?P<aux>is|are|was|were) (?:an?|the|one of|defined as)\b"
)
_MEANS: Final = re.compile(r"[“\"](?P<name>[^”\"]{3,60})[”\"] (?:means|refers to|shall mean|is defined)")
_CONDITION: Final = re.compile(r"(?:^|, )[Ii]f (?P<if>[^,;]{15,140}), (?P<then>.{15,})$")
# Verbs whose base form is the form without -s: enough to ask with "does" and "do" without a parser.
_VERB: Final = (
    "(?:represent|include|provide|require|contain|describe|involve|allow|enable|offer|use|define|support|depend on"
    "|consist of|refer to|apply to|relate to|result in|lead to|affect|cover|show|suggest|indicate|create|produce)"
)
_STATEMENT: Final = re.compile(
    rf"^(?P<subject>[^,;:()]{{3,80}}?) (?P<adverb>(?:primarily|generally|also|typically|currently|mainly) )?"
    rf"(?P<verb>{_VERB})(?P<s>s)? (?P<rest>.{{8,}})$"
)
_LEAD_IN: Final = re.compile(r"^(?:[A-Z][\w’'-]*(?: [\w’'-]+){0,4}), (?=[a-zA-Z])")
_CLAUSE_END: Final = re.compile(
    r";|, (?:which|who|where|including|such as|and|but|or|as well)\b| (?:which|because|whereas|although)\b|[.!?]$"
)
_LINKS: Final = re.compile(r"\b(?:that|which|who|if|when|because|as|while|unless|whether|although)\b", re.IGNORECASE)
# A subject with a verb of its own, or one that begins a subordinate clause, is none.
_NO_SUBJECT: Final = re.compile(
    rf"{_LINKS.pattern}|\b(?:is|are|was|were|has|have|had|can|could|may|might|must|will|would|should)\b", re.IGNORECASE
)
_EMPTY_SUBJECT: Final = re.compile(
    r"^(?:it|this|that|these|those|they|there|he|she|we|you|i|such|both|many|some|most|all|others?)$", re.IGNORECASE
)
_LINKING_WORDS: Final = frozenset(
    ["and", "as", "at", "by", "for", "from", "in", "of", "on", "or", "that", "to", "under", "which", "with"]
)
_LONGEST: Final = 24  # words of a question


def phrase_questions(phrases: Sequence[str], rng: random.Random, limit: int) -> list[str]:
    """Fill templates with one key phrase or two, best phrases first."""
    made = []
    for i, phrase in enumerate(phrases[:limit]):
        others = [p for p in phrases if p != phrase]
        if others and i % 2 == 0:
            made.append(rng.choice(_PAIR_TEMPLATES).format(a=phrase, b=rng.choice(others)))
        else:
            made.append(rng.choice(_SINGLE_TEMPLATES).format(a=phrase))
    return made


def sentence_questions(sentence: str) -> list[str]:
    """Make every question that the form of the sentence allows; the sentence answers each of them."""
    clause = main_clause(sentence)
    made = [*_definition(sentence), *_cause(clause), *_date(clause), *_figure(clause), *_inversion(clause)]
    made += [*_condition(sentence), *_statement(clause)]
    return [q for q in map(_shorten, made) if len(q.split()) >= 4]


def main_clause(sentence: str) -> str:
    """Cut the lead-in ("In addition, ") and what follows the main clause."""
    clause = _LEAD_IN.sub("", sentence, count=1)
    end = _CLAUSE_END.search(clause, 25) if len(clause) > 25 else None
    cause = _CAUSE.search(clause)
    if end and not (cause and cause.start() < end.end()):
        clause = clause[: end.start()]
    return clause.rstrip(" .!?;,")


def _ask(word: str, clause: str) -> str:
    """Put a question word before a clause, with the auxiliary verb moved where there is one."""
    clause = re.sub(r"\s+", " ", clause).strip(" ,.;")
    if len(clause.split()) < 3 or _LINKS.match(clause):
        return ""
    match = _AUXILIARY.match(clause)
    if match and not _LINKS.search(match["subject"]):
        return f"{word} {match['aux']} {_lower_first(match['subject'])} {match['rest']}?"
    return f"{word} {_lower_first(clause)}?"


def _definition(sentence: str) -> list[str]:
    if match := _MEANS.search(sentence):
        return [f'What does "{match["name"]}" mean?', f"What is the definition of {match['name']}?"]
    match = _DEFINITION.match(sentence)
    if (
        not match
        or _EMPTY_SUBJECT.match(match["name"])
        or _LINKS.search(match["name"])
        or len(match["name"].split()) > 7
    ):
        return []
    return [f"What {match['aux']} {_lower_first(match['name'])}?"]


def _cause(clause: str) -> list[str]:
    match = _CAUSE.search(clause)
    return [_ask("Why", clause[: match.start()])] if match and match.start() > 15 else []


def _date(clause: str) -> list[str]:
    match = _DATE.search(clause)
    return [_ask("When", clause[: match.start()] + " " + clause[match.end() :])] if match else []


def _figure(clause: str) -> list[str]:
    for form, word in ((_MONEY, "How much"), (_PERCENT, "What percentage")):
        if match := form.search(clause):
            return [_ask(word, clause[: match.start()] + " " + clause[match.end() :])]
    if match := _COUNT.search(clause):
        return [_ask(f"How many {match[1]}", clause[: match.start()] + " " + clause[match.end() :])]
    return []


def _inversion(clause: str) -> list[str]:
    match = _AUXILIARY.match(clause)
    if not match or _LINKS.search(match["subject"]) or match["subject"].lower() in ("there", "it"):
        return []
    subject, aux, rest = match["subject"], match["aux"], match["rest"]
    made = []
    if not _EMPTY_SUBJECT.match(subject):
        made += [f"What {aux} {rest}?", f"{aux.capitalize()} {_lower_first(subject)} {rest}?"]
    if aux in _MODALS:
        made.append(f"How {aux} {_lower_first(subject)} {rest}?")
    return made


def _condition(sentence: str) -> list[str]:
    match = _CONDITION.search(sentence)
    return [f"What happens if {match['if']}?"] if match else []


def _statement(clause: str) -> list[str]:
    match = _STATEMENT.match(clause)
    if not match or _EMPTY_SUBJECT.match(match["subject"]) or _NO_SUBJECT.search(match["subject"]):
        return []
    does = "does" if match["s"] else "do"
    return [
        f"What {does} {_lower_first(match['subject'])} {match['verb']}?",
        f"What {match['verb']}{match['s'] or ''} {match['rest']}?",
    ]


def _shorten(question: str) -> str:
    """Cut an overlong question before a preposition or conjunction, as near to the limit as one stands."""
    found = question.rstrip("?").split()
    if len(found) > _LONGEST:
        ends = [i for i in range(8, _LONGEST) if found[i].lower() in _LINKING_WORDS]
        found = found[: ends[-1] if ends else _LONGEST]
    while found and found[-1].lower() in _LINKING_WORDS:
        found.pop()
    return " ".join(found).rstrip(",;:") + "?"


def _lower_first(text: str) -> str:
    """Lower-case the first letter, unless the word looks like a name or an abbreviation."""
    first = text.split(" ", 1)[0]
    return text if first == "I" or any(c.isupper() for c in first[1:]) else text[:1].lower() + text[1:]
