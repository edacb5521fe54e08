"""English questions by the form of a sentence: grammatical, or not made at all.

There is no parser. A sentence gives a question only where its main clause falls into subject, verb and rest by the
words of `english_words`, where the subject agrees with the verb, and where no word points outside ("this", "such").
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from llama_index_embft.generation.extractive.english_clauses import (
    Clause,
    in_place_of_we,
    lower_first,
    main_clause,
    parse_clause,
    without_asides,
)
from llama_index_embft.generation.extractive.english_words import (
    ARTICLES,
    BASES,
    CHANGES,
    DETERMINERS,
    LINKS,
    MODALS,
    PERSONS,
    POINTERS,
    PREPOSITIONS,
    is_plural,
)
from llama_index_embft.generation.extractive.text import word_set

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

QUESTION_STARTS: Final = ("what", "how", "which", "why", "what is", "how does", "what are")

_PAIR_TEMPLATES: Final = ("How are {a} and {b} related?", "What is said about {a} and {b}?")
_SINGLE_TEMPLATES: Final = ("What is known about {a}?", "What is said about {a}?")

_MONTH: Final = "(?:January|February|March|April|May|June|July|August|September|October|November|December)"
_DATE: Final = re.compile(
    rf",? ?\b(?:in|on) (?:early |late |mid-)?(?:{_MONTH}(?: \d{{1,2}},)? ?)?(?:19|20)\d\d"
    r"(?! ?[-–,]? ?(?:and|or|\d))\b,?"
    r"(?! (?:million|billion|compared))"
)
_AMOUNT: Final = re.compile(
    r"^(?:approximately |about |roughly |nearly |over |more than |only )?"
    r"(?P<number>(?:US|HK|A|C)?[$€£¥] ?\d[\d.,]*\d?(?: (?:thousand|million|billion|trillion))?"
    r"|\d[\d.,]* ?(?:%|percent|per cent)|\d+(?:[.,]\d+)*)"
    r"(?P<tail>$|[ ,].*$)"
)
_NUMBER: Final = re.compile(
    r"^(?:approximately |about |roughly |nearly |over |more than |only |at least |the )?"
    r"(?:\d{1,3}(?:,\d{3})+|\d+|two|three|four|five|six|seven|eight|nine|ten|twelve|twenty) (?=[a-z])"
)
_LONGEST_COUNTED: Final = 3  # words
_UNITS: Final = frozenset(["percent", "million", "billion", "thousand", "times", "basis", "points", "hundred", "fold"])
_CAUSE: Final = re.compile(
    r",? (?:primarily |mainly |largely |partly |in part |probably |simply )?"
    r"(?:because(?: of)?|due to|as a result of|owing to|attributable to) (?=\w)"
)
_MEANS: Final = re.compile(r"[“\"](?P<name>[^”\"]{3,60})[”\"] (?:means|refers to|shall mean|is defined)")
_CONDITION: Final = re.compile(r"(?:^|, )[Ii]f (?P<if>[^,;]{15,120}), (?=\w)")
_TAIL: Final = re.compile(r"^(?:in|during|for|at|on|from|as of|with|under) ")
_SHORTEST: Final = 4  # words
_LONGEST: Final = 22  # words of a question
_HANGING: Final = frozenset(
    [
        "and",
        "or",
        "also",
        "both",
        "including",
        "using",
        "due",
        "to",
        "not",
        "even",
        "according",
        "depending",
        "resulting",
        "associated",
        "among",
        "be",
        "etc",
        "etc.",
        "especially",
        "particularly",
    ]
)
# Nobody asks about "the results" of nothing.
_GENERAL: Final = word_set(
    """
    analysis approach author authors data evidence example examples experiment experiments factors figures
    findings information investigation method methods model models paper problem report result results review
    studies study tables test tests theory work present first second third last next main current additional
    following
    """
)
_AGENTS: Final = frozenset(
    ["company", "board", "committee", "management", "government", "team", "group", "court", "agency"]
)
_STRANDED: Final = re.compile(
    r"(?P<what>(?:\w+ly )?"
    r"(?:based on|associated with|caused by|derived from|composed of|compared with|compared to|subject to"
    r"|comprised of|used for|attributable to|related to|driven by|equal to|similar to|located in|responsible for"
    r"|followed by|infected with|treated with|dependent on|included in|excluded from)) \w"
)
_DONE_BY: Final = re.compile(
    r"(?P<what>(?:\w+ly )?(?!based|caused|driven|followed|used|given|represented|required|affected|approved)\w+ed) "
    r"(?:by \w+ing|using|through|via|by means of) "
)
_LEADS_TO: Final = {
    "consist": ("of", "in"), "depend": ("on", "upon"), "rely": ("on", "upon"), "refer": ("to",), "relate": ("to",),
    "belong": ("to",), "contribute": ("to",), "lead": ("to",), "result": ("in",), "apply": ("to",),
    "differ": ("from",), "arise": ("from",), "focus": ("on",), "participate": ("in",), "operate": ("in",),
}  # fmt: skip
_INCOMPLETE_ALONE: Final = frozenset(
    ["depend", "rely", "consist", "refer", "belong", "tend", "apply", "lead", "relate"]
)
_BE: Final = frozenset(["is", "are", "was", "were"])


def phrase_questions(phrases: Sequence[str], rng: random.Random, limit: int) -> list[str]:
    """Fill templates with one key phrase or two, best phrases first; they fit any noun, with an article or without."""
    made = []
    for i, phrase in enumerate(phrases[:limit]):
        others = [p for p in phrases if p != phrase]
        if others and i % 2 == 0:
            made.append(rng.choice(_PAIR_TEMPLATES).format(a=phrase, b=rng.choice(others)))
        else:
            made.append(rng.choice(_SINGLE_TEMPLATES).format(a=phrase))
    return made


def sentence_questions(sentence: str, organisation: str = "") -> list[str]:
    """Make every question that the form of the sentence allows; the sentence answers each of them.

    Args:
        sentence: One sentence.
        organisation: Who "we" is, such as "Lyft"; empty: sentences with "we" and "our" give nothing.
    """
    text = in_place_of_we(without_asides(sentence), organisation)
    if not text:
        return []
    made = _meaning(text) + _condition(text)
    clause_text, cause = main_clause(text), _CAUSE.search(text)
    if cause and cause.start() > 15:
        because = parse_clause(main_clause(text[: cause.start()]))
        if because is not None and not because.rest.startswith("not "):
            made += _why(because)
        # What stands behind a cause belongs to it.
        clause_text = main_clause(text[: cause.start()])
    clause = parse_clause(clause_text)
    if clause is not None:
        made += [*_definition(clause), *_when(clause), *_how_much(clause), *_how_many(clause)]
        made += [*_what_stranded(clause), *_how_done(clause), *_about_subject(clause), *_what_object(clause)]
    finished = [question for question in map(_finished, made) if question]
    if finished or clause is None:
        return finished
    return [question for question in map(_finished, _yes_or_no(clause)) if question]


def _finished(question: str) -> str:
    """The question in clean writing; empty where it is too short, too long, or points outside."""
    question = re.sub(r"\s+", " ", question).replace(" ,", ",").strip(" ,;:")
    words = question.split()
    if len(words) > _LONGEST:
        words = _shortened(words)
        if {word.lower() for word in words[1:]} & (LINKS - {"as", "than"}):
            return ""  # what a link word began may be cut off
    if len(words) < _SHORTEST:
        return ""
    complete = words[-1].endswith("?")  # "What does income consist of?"
    while not complete and words[-1].strip(",").lower() in PREPOSITIONS | LINKS | DETERMINERS | _HANGING:
        words.pop()
        if len(words) < _SHORTEST:
            return ""
    return " ".join(words).rstrip(",;:?") + "?"


def _shortened(words: list[str]) -> list[str]:
    """Cut an overlong question before a preposition, as near to the limit as one stands; none, where none does."""
    ends = [i for i in range(9, _LONGEST) if words[i].lower() in PREPOSITIONS - {"of"} and words[i - 1][-1] != ","]
    return words[: ends[-1]] if ends else []


def _ask(word: str, clause: Clause, rest: str) -> str:
    """A question word before the clause, its auxiliary verb moved, or "do" put in."""
    subject = lower_first(clause.subject)
    if clause.verb is None and not clause.owns:
        return f"{word} {clause.word} {subject} {rest}"
    if clause.verb is None:
        return f"{word} {clause.do} {subject} have {rest}"
    return f"{word} {clause.do} {subject} {clause.verb.base} {rest}"


def _meaning(sentence: str) -> list[str]:
    match = _MEANS.search(sentence)
    return [f'What does "{match["name"]}" mean', f'What is the definition of "{match["name"]}"'] if match else []


def _condition(sentence: str) -> list[str]:
    match = _CONDITION.search(sentence)
    if not match or " were " in match["if"] or parse_clause(match["if"]) is None:
        return []
    if parse_clause(main_clause(sentence[match.end() :])) is None:  # else the comma may stand within the condition
        return []
    return [f"What happens if {match['if']}"]


def _definition(clause: Clause) -> list[str]:
    words = clause.subject.split()
    if (
        clause.word not in _BE
        or clause.verb
        or not re.match(r"(?:an?|one of the|defined as|the \w+ \w+) ", clause.rest)
    ):
        return []
    specific = words[0].lower() in ("a", "an") or any(c.isupper() for c in clause.subject[1:]) or len(words) >= 3
    if len(words) > 6 or not specific or " of " in clause.subject or {w.lower() for w in words} & _GENERAL:
        return []
    someone = any(word.lower().strip(",") in PERSONS for word in clause.rest.split()[:5])
    named = words[0][0].isupper() and words[0].lower() not in ARTICLES
    return [f"{'Who' if someone and named else 'What'} {clause.word} {lower_first(clause.subject)}"]


def _when(clause: Clause) -> list[str]:
    match = _DATE.search(" " + clause.rest)
    past = clause.word in ("was", "were") or (clause.verb is not None and clause.verb.tense == "past")
    if not match or not (past or clause.word == "will") or len(_DATE.findall(clause.rest)) > 1:
        return []
    rest = (" " + clause.rest)[: match.start()] + " " + (" " + clause.rest)[match.end() :]
    if clause.verb is None and not re.match(
        r"\s*(?:\w+ly )?(?:be )?(?:\w+ed|\w+en|made|held|sold|built|born|found)\b", rest
    ):
        return []
    if len(rest.split()) < 1 or re.search(r"\d", rest):
        return []
    return [_ask("When", clause, rest.strip())]


def _why(clause: Clause) -> list[str]:
    alone = clause.verb is not None and (clause.verb.base in _INCOMPLETE_ALONE or not clause.rest)
    changes = clause.verb is not None and clause.verb.base in CHANGES
    if changes and re.search(r"\band\b", clause.rest):
        return []  # "… increased 2% and higher prices contributed …"
    return [] if alone and len(clause.rest.split()) < 2 else [_ask("Why", clause, clause.rest)]


def _how_much(clause: Clause) -> list[str]:
    if clause.verb is None:
        match = _AMOUNT.match(clause.rest) if clause.word in _BE else None
        tail = _tail(match["tail"]) if match else None
        if match is None or tail is None or re.search(r"\b(?:number|amount) of\b", clause.subject):
            return []
        money = re.search(r"[$€£¥]", match["number"])
        if not money and not tail and "%" not in match["number"]:
            return []
        word = "How much" if money and not clause.plural_verb else "What"
        return [f"{word} {clause.word} {lower_first(clause.subject)} {tail}"]
    base = clause.verb.base
    rest = clause.rest.removeprefix("by ")
    match = _AMOUNT.match(rest)
    tail = _tail(match["tail"]) if match else None
    if match is None or tail is None:
        return []
    percent = "%" in match["number"] or "cent" in match["number"]
    if base in CHANGES:
        return [_ask("By what percentage" if percent else "By how much", clause, tail)]
    money = re.search(r"[$€£¥]", match["number"])
    return [_ask("How much", clause, tail)] if money and tail and not clause.rest.startswith("by ") else []


def _how_many(clause: Clause) -> list[str]:
    made = []
    if (counted := _counted(clause.subject)) and clause.plural_verb:
        made.append(f"How many {counted[0]} {counted[1]} {clause.word} {clause.rest}")
    if (counted := _counted(clause.rest)) and (clause.verb is not None or clause.owns):
        noun, tail = counted[0], _tail(counted[1])
        if tail is not None and clause.owns:
            made.append(f"How many {noun} {clause.do} {lower_first(clause.subject)} have {tail}")
        elif tail is not None and clause.verb is not None and clause.verb.base not in CHANGES:
            made.append(_ask(f"How many {noun}", clause, tail))
    return made


def _counted(text: str) -> tuple[str, str] | None:
    """What is counted ("full-time employees" of "45 full-time employees in Canada"), and what follows."""
    match = _NUMBER.match(text)
    if not match:
        return None
    words = text[match.end() :].split(" ")
    for place, word in enumerate(words[:_LONGEST_COUNTED]):
        if word in _UNITS | PREPOSITIONS | LINKS | {"and", "or"} or not re.fullmatch(r"[a-z-]{3,},?", word):
            return None
        if is_plural(word.rstrip(",")):
            return " ".join(words[: place + 1]).rstrip(","), " ".join(words[place + 1 :])
    return None


def _tail(text: str) -> str | None:
    """What follows a figure and stays in the question; None where the sentence goes on otherwise."""
    text = re.sub(r",? (?:compared|as compared|versus|up from|down from|respectively).*$", "", text).strip(" ,")
    if not text:
        return ""
    return text if _TAIL.match(text) and not re.search(r"[$€£%]", text) else None


def _about_subject(clause: Clause) -> list[str]:
    """Ask for the subject: "Who" for persons, "Which" with the noun for several things, "What" for one."""
    if len(clause.rest.split()) < _SHORTEST or re.match(r"(?:an?|the|not|no|\W?\d[\d.,]*|one of)\b", clause.rest):
        return []
    if clause.verb is not None and clause.rest.split()[0].lower() in PREPOSITIONS:
        return []
    head = [word for word in clause.head.split() if word.lower() not in DETERMINERS]
    if not head or any("’s" in word or "'s" in word for word in head) or re.search(r"\d", clause.head):
        return []
    if re.search(r"\b(?:its|their|it|they)\b", clause.rest) or head[-1].lower() in _AGENTS or head[-1][0].isupper():
        return []  # "What believes that …": nobody would ask for the company, and a name may be a person's
    head[0] = lower_first(f"{head[0]} {head[1]}" if len(head) > 1 else head[0]).split()[0]
    if head[-1].lower() in PERSONS:
        return [f"Which {' '.join(head)} {clause.word} {clause.rest}" if clause.plural_verb or clause.word in MODALS
                else f"Who {clause.word} {clause.rest}"]  # fmt: skip
    if is_plural(head[-1]):
        several = " and " not in clause.subject and len(head) >= 2 and clause.word not in MODALS
        return [f"Which {' '.join(head)} {clause.word} {clause.rest}"] if several else []
    return [f"What {clause.word} {clause.rest}"] if clause.word not in ("are", "were", "have") else []


def _yes_or_no(clause: Clause) -> list[str]:
    if re.match(r"(?:not|no|only|[$€£]?\d)", clause.rest) or len(clause.rest.split()) < 3:
        return []
    subject = lower_first(clause.subject)
    if clause.verb is None and clause.owns:
        return [f"{clause.do.capitalize()} {subject} have {clause.rest}"]
    if clause.verb is None:
        return [f"{clause.word.capitalize()} {subject} {clause.rest}"]
    return [f"{clause.do.capitalize()} {subject} {clause.verb.base} {clause.rest}"]


def _what_stranded(clause: Clause) -> list[str]:
    """Ask for what a preposition leads to: "What is revenue based on?", "What does income consist of?"."""
    if clause.verb is None:
        match = _STRANDED.match(clause.rest) if clause.word in _BE else None
        asked = f"What {clause.word} {lower_first(clause.subject)} {match['what']}?" if match else ""
    else:
        preposition = clause.rest.split(" ", 1)[0]
        leads = preposition in _LEADS_TO.get(clause.verb.base, ())
        asked = _ask("What", clause, preposition) + "?" if leads else ""
    return [asked] if asked and _specific(clause.subject) else []


def _how_done(clause: Clause) -> list[str]:
    """Ask how something is done: "How is revenue per rider calculated?"."""
    match = _DONE_BY.match(clause.rest) if clause.word in _BE and clause.verb is None else None
    if not match or not _specific(clause.subject):
        return []
    return [f"How {clause.word} {lower_first(clause.subject)} {match['what']}"]


def _specific(phrase: str) -> bool:
    """Whether a phrase names a thing of its own: two words or more besides articles and general nouns."""
    return len([word for word in phrase.split() if word.lower() not in DETERMINERS | PREPOSITIONS | _GENERAL]) >= 2


def _what_object(clause: Clause) -> list[str]:
    """Ask for what an action is done to, or how it can be done."""
    words = clause.rest.lower().split()
    if clause.word in ("can", "could", "will", "may", "might") and words and words[0] in BASES - {"be", "have"}:
        return [_ask("How", clause, clause.rest)] if len(words) >= 3 and "by" not in words else []
    if clause.verb is None or not words or clause.verb.base in CHANGES or len(clause.subject.split()) < 2:
        return []
    takes_object = words[0] in ARTICLES | DETERMINERS | {"that"} or (words[0] not in PREPOSITIONS and len(words) < 8)
    if not takes_object or words[0] in POINTERS:
        return []
    named = all(word[0].isupper() or word.lower() in ARTICLES for word in clause.subject.split())
    return [_ask("What", clause, "")] if _specific(clause.subject) and not named else []
