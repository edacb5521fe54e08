"""Questions in German, Norwegian, French, Spanish and Portuguese, from the word lists of `grammars`.

Without a parser only forms are used whose question needs no new form of the verb. In German and Norwegian the verb
stands second, so "Im Jahr 1999 wurde X gegründet" and "X wurde im Jahr 1999 gegründet" give "Wann wurde X gegründet?";
French asks with "est-ce que", and Spanish and Portuguese with the question word before the sentence.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from llama_index_embft.generation.extractive.grammars import (
    ADVERB_END,
    GRAMMARS,
    INDEFINITE,
    MONTH_NAMES,
    NEGATIONS,
    OF,
    SUBJECT_PRONOUNS,
    YEAR,
    Grammar,
)

_LONGEST_SUBJECT: Final = 7  # words
_LONGEST: Final = 20
_SHORTEST: Final = 3
_SHORTEST_REST: Final = 1
_LEAST_ASKED: Final = 4  # words behind the verb that make the whole clause worth asking
_NOUN_WITH_ADJECTIVE: Final = 2
_VOWEL: Final = "[aeéèêiouyhAEÉIOUYH]"
_PARTICIPLE: Final = re.compile(r"^\w+[aiu]d[oa]s?$|^\w+(?:uest|ert|rit|ech|est|ost|eit|ast)[oa]s?$")
# They lean on the date that is taken out: "erst 1861", "seit 1992".
_BESIDE_DATE: Final = re.compile(r"\b(?:erst|bereits|schon|først|allerede|seulement|dès|apenas|só|já)\s*$")
_NOT_THEN: Final = re.compile(
    r"\b(?:seit|ab|bis|vor|nach|um|von|zwischen|siden|før|etter|fra|innen|depuis|avant|vers|desde|hasta|até)\s*$"
)


class _Parts(NamedTuple):
    subject: str
    verb: str
    rest: str


def sentence_questions(sentence: str, language: str) -> list[str]:
    """Make every question that the form of the sentence allows; none in a language without a grammar here."""
    grammar = GRAMMARS.get(language)
    if grammar is None:
        return []
    text = re.sub(r"\s*(?:\([^()]*\)|\[[^\[\]]*\])", "", sentence).strip()
    text = re.sub(r"\s+", " ", text).rstrip(" .!")
    if re.search(r"[()\[\]|=<>:;?!•…\"„“”«»]", text):
        return []
    cause = grammar.cause.search(text, 15)
    main = _main_clause(text[: cause.start()] if cause else text, grammar)
    made = _fronted_date(main, grammar)
    parts = _parts(main, grammar)
    if parts is not None:
        made += _definition(parts, grammar) + _how_many(parts, grammar) + _when(parts, grammar)
        if place := grammar.place.match(f"{parts.verb} {parts.rest}"):
            verb, _, others = place["verb"].partition(" ")
            subject = _lower(parts.subject, grammar)
            behind = (
                f"{verb} {others} {subject}" if grammar.verb_second else f"{verb} {others} {subject}".replace("  ", " ")
            )
            made.append(grammar.where.format(v=behind.removesuffix(f" {subject}"), s=subject))
        if cause and not grammar.date.search(parts.rest):
            made.append(_asked(grammar.why, parts, grammar))
        if not any(made):
            made.append(_whether(parts, grammar))
    made = [re.sub(r"\s+", " ", question) for question in made]
    return [question for question in made if _SHORTEST <= len(question.rstrip(" ?").split()) <= _LONGEST]


def _main_clause(text: str, grammar: Grammar) -> str:
    """Cut at the first comma or link behind the beginning."""
    end = text.find(",", 12)
    tokens = (text[:end] if end > 0 else text).split(" ")
    cut = next((i for i, word in enumerate(tokens) if i > 3 and word in grammar.links), len(tokens))
    return " ".join(tokens[:cut])


def _parts(text: str, grammar: Grammar) -> _Parts | None:
    """Subject, verb and rest; None where the words before the first verb are no plain noun phrase."""
    tokens = _without_heading(text.split(" "), grammar)
    place = next((i for i, word in enumerate(tokens) if i and word in grammar.verbs), 0)
    reflexive = place > 1 and tokens[place - 1] == "se"
    if not 0 < place <= _LONGEST_SUBJECT or len(tokens) - place - 1 < _SHORTEST_REST or reflexive:
        return None
    if not _is_subject(tokens[:place], grammar):
        return None
    rest = _one_clause(tokens[place + 1 :], grammar)
    if len(rest) < _SHORTEST_REST or rest[0].lower() in NEGATIONS:
        return None
    return _Parts(" ".join(tokens[:place]), tokens[place], " ".join(rest))


def _without_heading(tokens: list[str], grammar: Grammar) -> list[str]:
    """Cut a heading that ran into its paragraph: "Karl Marx Karl Marx var …", "Komet En komet er …"."""
    for place in range(1, min(8, len(tokens))):
        word = tokens[place]
        if word[:1].isupper() and (word in tokens[:place] or word.lower() in grammar.determiners):
            return tokens[place:]
    return tokens


def _is_subject(subject: list[str], grammar: Grammar) -> bool:
    first, inner = subject[0].lower(), [word.lower() for word in subject[1:]]
    if not subject[0][:1].isalnum() or set(inner) & (grammar.not_subject - OF):
        return False
    capitals = [word for word in subject if word[0].isupper()]
    if (inner and inner[-1] in OF | grammar.not_subject) or len(set(capitals)) != len(capitals):
        return False
    if first in grammar.determiners or subject[0].isdigit() or first in grammar.numbers:
        return len(subject) > 1
    if first in grammar.not_subject or not subject[0][0].isupper() or ADVERB_END.search(first):
        return False
    if grammar.nouns_capital:  # so the last word must be one
        return subject[-1][0].isupper()
    # A name; else a noun alone, or one with its adjective.
    return all(word[0].isupper() or word in OF for word in subject) or len(subject) <= _NOUN_WITH_ADJECTIVE


def _one_clause(rest: list[str], grammar: Grammar) -> list[str]:
    """Cut a second clause that "and" ties on."""
    for place, word in enumerate(rest):
        if place and word in ("und", "og", "et", "y", "e"):
            following = {other.lower() for other in rest[place + 1 : place + 4]}
            if following & (grammar.verbs | SUBJECT_PRONOUNS):
                return rest[:place]
    return rest


def _asked(template: str, parts: _Parts, grammar: Grammar) -> str:
    """A clause in question order behind its question word."""
    subject, (_, verb, rest) = _lower(parts.subject, grammar), parts
    first, _, others = rest.partition(" ")
    if grammar.verb_second:
        clause = f"{verb} {subject} {rest}"
    elif "est-ce que" not in template.lower() and template != grammar.whether and _PARTICIPLE.match(first):
        clause = f"{verb} {first} {subject} {others}"  # "¿Cuándo fue inaugurada la presa?"
    else:
        clause = f"{subject} {verb} {rest}"
    return _elided(template.format(c=re.sub(r"\s+", " ", clause).strip(" ,")))


def _elided(question: str) -> str:
    """French: "que" and "de" lose their vowel before another."""
    if "est-ce que" not in question.lower() and not question.startswith("Combien de"):
        return question
    return re.sub(
        rf"(est-ce qu)e (?={_VOWEL})", r"\1'", re.sub(rf"^(Combien d)e (?={_VOWEL})", r"\1'", question), flags=re.I
    )


def _lower(subject: str, grammar: Grammar) -> str:
    first, _, others = subject.partition(" ")
    return f"{first.lower()} {others}" if first.lower() in grammar.determiners | grammar.numbers and others else subject


def _whether(parts: _Parts, grammar: Grammar) -> str:
    """The whole clause as a question."""
    if len(parts.rest.split()) < _LEAST_ASKED:
        return ""
    question = _asked(grammar.whether, parts, grammar)
    first = 1 if question[0] == "¿" else 0
    return question[:first] + question[first].upper() + question[first + 1 :]


def _definition(parts: _Parts, grammar: Grammar) -> list[str]:
    words = parts.subject.split()
    determined = words[0].lower() in grammar.determiners
    if parts.verb not in grammar.be or parts.rest.split(" ", 1)[0].lower() not in INDEFINITE or len(words) > 5:
        return []
    if determined and len(words) < 3 and words[0].lower() not in INDEFINITE:
        return []  # "the river": of another sentence
    role = grammar.roles.search(" ".join(parts.rest.split()[:5]))
    names = sum(word[0].isupper() for word in words)
    if role and (names < 2 or determined):
        return []  # a name of one word may be a thing with a role
    if not role and names >= 2 and not determined:
        return []  # a person of a role that is not known, or a thing
    template = grammar.who if role else grammar.what
    return [_elided(template.format(s=_lower(parts.subject, grammar), v=parts.verb))]


def _how_many(parts: _Parts, grammar: Grammar) -> list[str]:
    number, _, noun = parts.subject.partition(" ")
    if not re.fullmatch(r"\d[\d.]*", number) and number.lower() not in grammar.numbers:
        return []
    words = noun.lower().split()
    if not words or len(words) > 3 or len(words[0]) < 4 or set(words) & (MONTH_NAMES | (grammar.not_subject - OF)):
        return []
    if re.match(
        r"(?:prozent|prosent|millionen|millioner|millions|millones|milhões|milliarden|pour|por)\b", noun.lower()
    ):
        return []
    if "{g}" in grammar.how_many:
        if not words[0].endswith(("os", "as")):
            return []
        return [grammar.how_many.format(g=words[0][-2], c=f"{noun} {parts.verb} {parts.rest}")]
    return [_elided(grammar.how_many.format(c=f"{noun} {parts.verb} {parts.rest}"))]


def _when(parts: _Parts, grammar: Grammar) -> list[str]:
    rest = f" {parts.rest}"
    found = list(grammar.date.finditer(rest))
    if len(found) != 1 or parts.verb in grammar.present or re.search(rf"\b{YEAR}\b", parts.subject):
        return []
    before, after = rest[: found[0].start()], rest[found[0].end() :]
    if _NOT_THEN.search(before):
        return []
    left = re.sub(r"\s+", " ", _BESIDE_DATE.sub("", before) + " " + after).strip(" ,")
    if not left or re.search(rf"\b{YEAR}\b", left) or left.split()[-1] in grammar.not_subject:
        return []
    return [_asked(grammar.when, parts._replace(rest=left), grammar)]


def _fronted_date(text: str, grammar: Grammar) -> list[str]:
    """A sentence that begins with its date: "I 1905 ble unionen oppløst" asks "Når ble unionen oppløst?"."""
    match = grammar.date.match(text)
    if not match:
        return []
    tokens = _one_clause(text[match.end() :].strip(" ,").split(" "), grammar)
    rest = " ".join(tokens)
    if len(tokens) < _SHORTEST or re.search(rf"\b{YEAR}\b", rest):
        return []
    if not grammar.verb_second:
        parts = _parts(rest[:1].upper() + rest[1:], grammar)
        return [_asked(grammar.when, parts, grammar)] if parts else []
    pronoun = tokens[1].lower() in grammar.not_subject - grammar.determiners
    if pronoun or not tokens[0].islower() or tokens[0] in grammar.not_subject | grammar.determiners:
        return []
    return [grammar.when.format(c=rest)]
