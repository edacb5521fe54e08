"""The rules that every data set keeps.

One list of rules serves both ways of dealing with a breach: `first_breach` gives the sentence that stops the
construction, `drop_breaches` takes the broken parts out and counts them by reason.
"""

from __future__ import annotations

from collections import Counter
from copy import copy
from dataclasses import dataclass, field
from sys import float_info
from typing import TYPE_CHECKING, Any, NamedTuple

from llama_index_embft.dataset.sources import Repeated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

Fields = dict[str, Any]
"""Field name of the data set -> its value."""

SECTIONS: tuple[str, ...] = (
    "queries",
    "corpus",
    "relevant_docs",
    "negative_docs",
    "reference_answers",
    "relevance_grades",
    "teacher_scores",
    "bare_texts",
    "source_documents",
)
_OF_QUERIES = ("relevant_docs", "negative_docs", "reference_answers", "relevance_grades", "teacher_scores")
_BY_DOCUMENT = ("relevance_grades", "teacher_scores")  # query id -> document id -> number
_OF_DOCS = ("bare_texts", "source_documents")

_MOST = float_info.max  # a whole number of JSON may lie beyond what a float holds


class Place(NamedTuple):
    """One broken part: an entry of a section, or one item of that entry."""

    section: str
    id: Any
    item: Any = None
    """Position in the entry's list, or key of the entry's dict; None for the whole entry."""


class Rule(NamedTuple):
    """What must hold, and how to speak about a breach of it."""

    reason: str  # the key of the counts in a `DropReport`
    advice: str
    find: Callable[[Fields], Iterator[Place]]
    describe: Callable[[Fields, Place], str]


@dataclass(frozen=True)
class DropReport:
    """What ``on_error="drop"`` took out of a data set.

    Attributes:
        counts: Reason -> number of parts dropped for it; empty when nothing was wrong.
        examples: Reason -> a sentence about the first part dropped for it.
    """

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.counts)

    def __str__(self) -> str:
        if not self:
            return "nothing dropped"
        return "; ".join(
            f"{count} x {reason} (first: {self.examples[reason]})" for reason, count in self.counts.items()
        )


class Breach(NamedTuple):
    """The first broken rule of a data set."""

    statement: str
    advice: str


def first_breach(fields: Fields, rules: tuple[Rule, ...] | None = None) -> Breach | None:
    """Find the first rule that does not hold, with its first place and the number of further places."""
    for rule in RULES if rules is None else rules:
        places = rule.find(fields)
        first = next(places, None)
        if first is not None:
            more = sum(1 for _ in places)
            others = f" (and {more} more like it)" if more else ""
            return Breach(rule.describe(fields, first) + others, rule.advice)
    return None


def drop_breaches(fields: Mapping[str, Any]) -> tuple[Fields, DropReport]:
    """Take out every part that breaks a rule, and what hangs on it.

    Returns:
        The fields without the broken parts, and the counts by reason. What goes because the query or document it
        belongs to has gone is not counted again, except a query that has lost its last relevant document.
    """
    kept: Fields = {name: copy(fields.get(name, {})) for name in SECTIONS}  # `dict()` would forget what is `Repeated`
    kept.update({name: value for name, value in fields.items() if name not in SECTIONS})
    report = DropReport()
    for rule in (_CONFLICTS, _TYPES, *RULES):
        places = list(rule.find(kept))
        if not places:
            continue
        report.counts[rule.reason] = len(places)
        report.examples[rule.reason] = rule.describe(kept, places[0])
        _remove(kept, places)
    return kept, report


def _remove(fields: Fields, places: list[Place]) -> None:
    items: dict[tuple[str, Any], set[Any]] = {}
    for place in places:
        if place.item is None:
            fields[place.section].pop(place.id, None)
        else:
            items.setdefault((place.section, place.id), set()).add(place.item)
    for (section, id_), gone in items.items():
        entry = fields[section][id_]
        if isinstance(entry, dict):
            fields[section][id_] = {key: value for key, value in entry.items() if key not in gone}
        else:
            fields[section][id_] = [value for n, value in enumerate(entry) if n not in gone]
    queries = {place.id for place in places if place.section == "queries"}
    docs = {place.id for place in places if place.section == "corpus"}
    for section in _OF_QUERIES if queries else ():
        fields[section] = {id_: entry for id_, entry in fields[section].items() if id_ not in queries}
    if docs:
        _remove_docs(fields, docs)


def _remove_docs(fields: Fields, docs: set[str]) -> None:
    for section in _OF_DOCS:
        fields[section] = {id_: entry for id_, entry in fields[section].items() if id_ not in docs}
    for section in ("relevant_docs", "negative_docs"):
        for id_, entry in fields[section].items():
            if not docs.isdisjoint(entry):
                fields[section][id_] = [doc for doc in entry if doc not in docs]
    for section in _BY_DOCUMENT:
        for id_, entry in fields[section].items():
            if not docs.isdisjoint(entry):
                fields[section][id_] = {doc: number for doc, number in entry.items() if doc not in docs}


# --- the rules, in the order in which they are checked ------------------------------------------------------------


def _repeats(*, conflicting_only: bool) -> Callable[[Fields], Iterator[Place]]:
    def keys(value: Any) -> Any:
        if not isinstance(value, Repeated):
            return ()
        return sorted(value.conflicting) if conflicting_only else value.extra

    def find(fields: Fields) -> Iterator[Place]:
        for section in SECTIONS:
            entries = fields.get(section, {})
            yield from (Place(section, id_) for id_ in keys(entries))
            if section in _BY_DOCUMENT and isinstance(entries, dict):
                for id_, numbers in entries.items():
                    yield from (Place(section, id_, doc) for doc in keys(numbers))

    return find


def _describe_repeat(_: Fields, place: Place) -> str:
    if place.item is not None:
        return f"`{place.section}` of the query {place.id!r} holds the document {place.item!r} more than once"
    return f"`{place.section}` holds the id {place.id!r} more than once"


def _wrong_types(fields: Fields) -> Iterator[Place]:
    for section in ("queries", "corpus", "reference_answers", "bare_texts", "source_documents"):
        for id_, value in fields[section].items():
            if not isinstance(id_, str) or not isinstance(value, str):
                yield Place(section, id_)
    for section in ("relevant_docs", "negative_docs"):
        for id_, value in fields[section].items():
            if not isinstance(id_, str) or not isinstance(value, (list, tuple)):
                yield Place(section, id_)
            else:
                yield from (Place(section, id_, n) for n, doc in enumerate(value) if not isinstance(doc, str))
    for section, types in (("relevance_grades", (int,)), ("teacher_scores", (int, float))):
        for id_, value in fields[section].items():
            if not isinstance(id_, str) or not isinstance(value, dict):
                yield Place(section, id_)
            else:
                for doc, number in value.items():
                    if not isinstance(doc, str) or type(number) not in types:
                        yield Place(section, id_, doc)


def _bad_texts(section: str) -> Callable[[Fields], Iterator[Place]]:
    def find(fields: Fields) -> Iterator[Place]:
        return (Place(section, id_) for id_, text in fields[section].items() if not text.strip() or _is_broken(text))

    return find


def _is_broken(text: str) -> bool:
    """Tell whether a text holds half of a surrogate pair, which no tokenizer and no file takes."""
    if text.isascii():
        return False
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def _unknown_ids(section: str, known: str) -> Callable[[Fields], Iterator[Place]]:
    return lambda fields: (Place(section, id_) for id_ in fields[section] if id_ not in fields[known])


def _unknown_docs(section: str) -> Callable[[Fields], Iterator[Place]]:
    def find(fields: Fields) -> Iterator[Place]:
        corpus = fields["corpus"]
        for id_, docs in fields[section].items():
            for n, doc in enumerate(docs):
                if doc not in corpus:
                    yield Place(section, id_, doc if isinstance(docs, dict) else n)

    return find


def _repeated_docs(section: str) -> Callable[[Fields], Iterator[Place]]:
    def find(fields: Fields) -> Iterator[Place]:
        for id_, docs in fields[section].items():
            if len(docs) > 1 and len(set(docs)) < len(docs):
                seen: Counter[str] = Counter()
                for n, doc in enumerate(docs):
                    seen[doc] += 1
                    if seen[doc] > 1:
                        yield Place(section, id_, n)

    return find


def _contradictions(fields: Fields) -> Iterator[Place]:
    for id_, docs in fields["negative_docs"].items():
        relevant = set(fields["relevant_docs"].get(id_, ()))
        for n, doc in enumerate(docs):
            if doc in relevant:
                yield Place("negative_docs", id_, n)


def _without_relevant(fields: Fields) -> Iterator[Place]:
    return (Place("queries", id_) for id_ in fields["queries"] if not fields["relevant_docs"].get(id_))


def _bad_grades(fields: Fields) -> Iterator[Place]:
    for id_, grades in fields["relevance_grades"].items():
        relevant = set(fields["relevant_docs"].get(id_, ()))
        for doc, grade in grades.items():
            if doc not in relevant or grade < 1:
                yield Place("relevance_grades", id_, doc)


def _bad_scores(fields: Fields) -> Iterator[Place]:
    for id_, scores in fields["teacher_scores"].items():
        yield from (Place("teacher_scores", id_, doc) for doc, score in scores.items() if not abs(score) <= _MOST)


def _text_rule(section: str, what: str) -> Rule:
    def describe(fields: Fields, place: Place) -> str:
        fault = "is empty" if not fields[section][place.id].strip() else "contains an unpaired surrogate"
        return f"the {what} {place.id!r} in `{section}` {fault}"

    return Rule(f"{what} without usable text", "give it a text", _bad_texts(section), describe)


def _owner_rule(section: str, known: str, what: str) -> Rule:
    return Rule(
        f"unknown {what} in `{section}`",
        f"add it to `{known}`",
        _unknown_ids(section, known),
        lambda _, place: f"`{section}` names the {what} {place.id!r}, which is not in `{known}`",
    )


def _doc_rule(section: str) -> Rule:
    def describe(fields: Fields, place: Place) -> str:
        docs = fields[section][place.id]
        doc = place.item if isinstance(docs, dict) else docs[place.item]
        return f"`{section}` of the query {place.id!r} names the document {doc!r}, which is not in `corpus`"

    return Rule(f"unknown document in `{section}`", "add it to `corpus`", _unknown_docs(section), describe)


def _repeat_rule(section: str) -> Rule:
    return Rule(
        f"repeated document in `{section}`",
        "name each document once",
        _repeated_docs(section),
        lambda fields, place: (
            f"`{section}` of the query {place.id!r} names the document {fields[section][place.id][place.item]!r} twice"
        ),
    )


def _describe_grade(fields: Fields, place: Place) -> str:
    grade = fields["relevance_grades"][place.id][place.item]
    head = f"`relevance_grades` of the query {place.id!r} gives the document {place.item!r} the grade {grade}"
    if place.item not in fields["relevant_docs"].get(place.id, ()):
        return f"{head}, but the document is not in its `relevant_docs`"
    return f"{head}, and a grade is a whole number from 1"


REPEATS = Rule("", "give every entry an id of its own", _repeats(conflicting_only=False), _describe_repeat)
# The same entry twice loses nothing when one is kept; of two different ones nobody knows which is right.
_CONFLICTS = Rule("id given twice with different contents", "", _repeats(conflicting_only=True), _describe_repeat)

_TYPES = Rule(
    "wrong type",
    "",
    _wrong_types,
    lambda fields, place: (
        f"`{place.section}` has under {place.id!r} a value of the wrong type "
        f"({type(fields[place.section][place.id]).__name__})"
    ),
)

RULES: tuple[Rule, ...] = (
    _text_rule("queries", "query"),
    _text_rule("corpus", "document"),
    *(_owner_rule(section, "queries", "query") for section in _OF_QUERIES),
    *(_owner_rule(section, "corpus", "document") for section in _OF_DOCS),
    _doc_rule("relevant_docs"),
    _doc_rule("negative_docs"),
    _doc_rule("teacher_scores"),
    _repeat_rule("relevant_docs"),
    _repeat_rule("negative_docs"),
    Rule(
        "document both relevant and negative",
        "keep it in one of `relevant_docs` and `negative_docs`",
        _contradictions,
        lambda fields, place: (
            f"the document {fields['negative_docs'][place.id][place.item]!r} is both relevant and negative for the "
            f"query {place.id!r}"
        ),
    ),
    Rule(
        "query without a relevant document",
        "name its document in `relevant_docs` or take the query out",
        _without_relevant,
        lambda _, place: f"the query {place.id!r} has no relevant document",
    ),
    Rule(
        "grade of a document that is not relevant, or below 1",
        "grade only documents of `relevant_docs`",
        _bad_grades,
        _describe_grade,
    ),
    Rule(
        "teacher score that is no finite number",
        "score it again or leave the score out",
        _bad_scores,
        lambda fields, place: (
            f"`teacher_scores` of the query {place.id!r} gives the document {place.item!r} the score "
            f"{fields['teacher_scores'][place.id][place.item]}"
        ),
    ),
)
