"""From rows to a data set: ids for what has none, and every rule checked where its row still has a line number."""

from __future__ import annotations

import hashlib
import logging
import math
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Literal

from llama_index_embft.dataset.checks import DropReport
from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
from llama_index_embft.dataset.sources import At, FaultError, shown
from llama_index_embft.errors import ConfigError, DatasetError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

logger = logging.getLogger(__name__)

OnError = Literal["raise", "drop"]

_DIGITS: Final = 20  # 80 bits: two of a billion texts meet with a chance of one in a million


def content_id(text: str, prefix: str = "") -> str:
    """The id of a text in formats that have none: the same text has the same id, in any file and on any day.

    Args:
        text: The text; not normalised in any way.
        prefix: Put before the 20 hexadecimal digits of the SHA-256; ``"q-"`` for queries and ``"d-"`` for documents.
    """
    return prefix + hashlib.sha256(text.encode("utf-8")).hexdigest()[:_DIGITS]


class Builder:
    """Collects queries, documents and links, and makes a data set of them.

    Args:
        source: What is read, for messages.
        on_error: ``"raise"`` stops at the first fault. ``"drop"`` leaves the faulty row out and counts it.

    Raises:
        ConfigError: `on_error` is neither.
    """

    def __init__(self, source: str, *, on_error: OnError = "raise") -> None:
        if on_error not in ("raise", "drop"):
            raise ConfigError(f"`on_error` must be 'raise' or 'drop', got {on_error!r}.")
        self.source, self.on_error = source, on_error
        self.queries: dict[str, str] = {}
        self.corpus: dict[str, str] = {}
        self.grades: dict[str, dict[str, int]] = {}
        self.negatives: dict[str, dict[str, None]] = {}
        self.answers: dict[str, str] = {}
        self.scores: dict[str, dict[str, float]] = {}
        self.bare_texts: dict[str, str] = {}
        self.sources: dict[str, str] = {}
        self.lost = Counter[str]()
        self.ignored = Counter[str]()
        self._counts = Counter[str]()
        self._examples: dict[str, str] = {}

    @contextmanager
    def row(self) -> Iterator[None]:
        """A row: a fault in it stops the reading, or leaves the row out, as `on_error` says."""
        try:
            yield
        except FaultError as fault:
            if self.on_error == "raise":
                raise
            self.count(fault.reason, str(fault))

    def count_like(self, other: Builder) -> None:
        """Add what another builder has left out."""
        self._counts.update(other._counts)
        self._examples = {**other._examples, **self._examples}

    def count(self, reason: str, example: str) -> None:
        """Count something that is left out."""
        self._counts[reason] += 1
        self._examples.setdefault(reason, example)

    # --- parts --------------------------------------------------------------------------------------------------------

    def add_query(self, text: str, at: At, id_: str | None = None) -> str:
        """Add a query; one without an id gets that of its text. Returns its id."""
        return _add(self.queries, text, content_id(text, "q-") if id_ is None else id_, at, "query")

    def add_document(
        self, text: str, at: At, id_: str | None = None, *, bare: str | None = None, source: str | None = None
    ) -> str:
        """Add a document; one without an id gets that of its text. Returns its id."""
        doc = _add(self.corpus, text, content_id(text, "d-") if id_ is None else id_, at, "document")
        if bare is not None:
            self._one_of(self.bare_texts, doc, bare, at, "bare text")
        if source is not None:
            self._one_of(self.sources, doc, source, at, "source document")
        return doc

    def add_answer(self, query: str, answer: str, at: At) -> None:
        """Give a query its answer in words. A second, different one is left out and counted: a query has one."""
        if self.answers.setdefault(query, answer) != answer:
            self.count("second answer of a query", f"{at}: the query {query!r} has another answer already.")

    def link(self, query: str, doc: str, grade: int, at: At) -> None:
        """Say how relevant a document is; 0 and below makes it a negative.

        Raises:
            FaultError: One of the two is unknown, or the document is judged differently elsewhere.
        """
        if query not in self.queries:
            raise FaultError(at, "judgement of an unknown query", f"judges the query {query!r}, which is not there")
        if doc not in self.corpus:
            raise FaultError(
                at,
                "judgement of an unknown document",
                f"the query {query!r} names the document {doc!r}, which is not there",
            )
        relevant, negative = self.grades.setdefault(query, {}), self.negatives.setdefault(query, {})
        if (doc in negative and grade > 0) or (doc in relevant and grade <= 0):
            raise FaultError(
                at,
                "document both relevant and negative",
                f"the document {doc!r} is both relevant and negative for the query {query!r}; keep it in one",
            )
        if grade <= 0:
            negative[doc] = None
        elif relevant.setdefault(doc, grade) != grade:
            raise FaultError(
                at,
                "document with two grades",
                f"the document {doc!r} has the grades {relevant[doc]} and {grade} for the query {query!r}; keep one",
            )

    def score(self, query: str, doc: str, value: float) -> None:
        """Keep a teacher's score."""
        self.scores.setdefault(query, {})[doc] = value

    def ignore(self, row: Mapping[str, Any], known: frozenset[str]) -> None:
        """Count the fields of a row that a data set has no place for, if they hold anything."""
        if row.keys() <= known:
            return
        self.ignored.update(
            str(name) for name, value in row.items() if name not in known and value not in (None, "", {})
        )

    def _one_of(self, section: dict[str, str], id_: str, value: str, at: At, what: str) -> None:
        if section.setdefault(id_, value) != value:
            raise FaultError(
                at, f"two values of a {what}", f"the document {id_!r} has another {what} already; keep one"
            )

    # --- the whole ----------------------------------------------------------------------------------------------------

    def finish(self, *, leave_out_unjudged: str | None = None) -> EmbeddingQAFinetuneDataset:
        """Make the data set.

        Args:
            leave_out_unjudged: Queries without a relevant document are left out and counted under this name, as belongs
                to formats whose queries are shared by several splits. None makes them a fault.

        Raises:
            DatasetError: No query is left, or (without `leave_out_unjudged`) one has no relevant document.
        """
        unjudged = [query for query in self.queries if not self.grades.get(query)]
        for query in unjudged:
            message = f"{self.source}: the query {query!r} has no relevant document."
            if leave_out_unjudged is None and self.on_error == "raise":
                more = f" ({len(unjudged) - 1} more have none.)" if len(unjudged) > 1 else ""
                raise DatasetError(f"{message}{more} Name its document or take the query out.")
            self.count(leave_out_unjudged or "query without a relevant document", message)
        kept = {query: text for query, text in self.queries.items() if self.grades.get(query)}
        if not kept:
            first = next(iter(self._examples.values()), "")
            raise DatasetError(f"{self.source}: there is no query with a relevant document in it. {first}".rstrip())
        for name, count in self.ignored.items():
            self.lost[f"field {name!r}"] += count
        try:
            made = EmbeddingQAFinetuneDataset(
                queries=kept,
                corpus=self.corpus,
                relevant_docs={query: list(self.grades[query]) for query in kept},
                negative_docs={query: list(self.negatives[query]) for query in kept if self.negatives.get(query)},
                reference_answers={query: self.answers[query] for query in kept if query in self.answers},
                relevance_grades=_graded({query: self.grades[query] for query in kept}),
                teacher_scores={query: self.scores[query] for query in kept if query in self.scores},
                bare_texts=self.bare_texts,
                source_documents=self.sources,
            )
        except DatasetError as err:
            raise DatasetError(f"{self.source}: {err}") from err
        made.with_dropped(DropReport(dict(self._counts), dict(self._examples)))
        if made.dropped:
            logger.warning("%s: left out %s.", self.source, made.dropped)
        if self.lost:
            logger.warning("%s: not kept: %s.", self.source, counted(self.lost))
        return made


def counted(lost: Mapping[str, int]) -> str:
    """Counts in words: ``12 grades, 3 reference answers``."""
    return ", ".join(f"{count:,} {what}" for what, count in lost.items())


def _graded(grades: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    """Only what is not 1: that is the grade of a document without one."""
    above = {query: {doc: grade for doc, grade in docs.items() if grade != 1} for query, docs in grades.items()}
    return {query: docs for query, docs in above.items() if docs}


def _add(section: dict[str, str], text: str, id_: str, at: At, what: str) -> str:
    known = section.setdefault(id_, text)
    if known is not text and known != text:
        raise FaultError(
            at,
            "id given twice with different contents",
            f"the {what} id {id_!r} stands for another text already; rename it",
        )
    return id_


# --- values -----------------------------------------------------------------------------------------------------------


def as_text(value: Any, name: str, at: At) -> str:
    """A text that can be embedded.

    Raises:
        FaultError: It is no string, is empty, or holds half of a surrogate pair.
    """
    if not isinstance(value, str):
        raise FaultError(at, "wrong type", f"{name} should be a string, got {shown(value)}")
    if not value.strip():
        raise FaultError(at, "empty text", f"{name} is empty; give it a text")
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as err:
            raise FaultError(at, "broken text", f"{name} contains an unpaired surrogate") from err
    return value


def as_texts(value: Any, name: str, at: At) -> list[str]:
    """A list of texts; one text alone counts as a list of one, and none (null) as an empty list."""
    if value is None:
        return []
    values = value if isinstance(value, (list, tuple)) else [value]
    return [as_text(item, name if len(values) == 1 else f"{name}[{n}]", at) for n, item in enumerate(values)]


def as_id(value: Any, name: str, at: At) -> str:
    """An id: a string that is not empty, or a whole number, which many files have in its place.

    Raises:
        FaultError: It is anything else.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return as_text(shown(value).rpartition(" ")[0] if abs(value) > 1 << 256 else str(value), name, at)
    if not isinstance(value, str):
        raise FaultError(at, "wrong type", f"{name} should be a string or a whole number, got {shown(value)}")
    return as_text(value, name, at)


def as_number(value: Any, name: str, at: At) -> float:
    """A finite number, given as one or in words of digits (CSV has nothing else).

    Raises:
        FaultError: It is none, or NaN or infinite.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise FaultError(at, "wrong type", f"{name} should be a number, got {shown(value)}")
    try:
        number = float(value)
    except (ValueError, OverflowError) as err:
        raise FaultError(at, "wrong type", f"{name} should be a number, got {shown(value)}") from err
    if not math.isfinite(number):
        raise FaultError(at, "score that is no number", f"{name} is {number}, which is no score; remove the line")
    return number


def as_grade(value: Any, name: str, at: At) -> int:
    """A whole number; 0 and below say "judged, and not relevant".

    Raises:
        FaultError: It is no whole number.
    """
    number = as_number(value, name, at)
    if number != int(number):
        raise FaultError(at, "grade that is no whole number", f"{name} should be a whole number, got {shown(value)}")
    return int(number)
