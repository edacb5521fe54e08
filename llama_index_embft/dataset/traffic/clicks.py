"""From real traffic to a data set: what users clicked is relevant, what they passed over on the way there is not.

A click says that a document looked better than those above it which were read and not clicked. Joachims, "Optimizing
search engines using clickthrough data" (KDD 2002), trains on such pairs; Joachims et al., "Accurately interpreting
clickthrough data as implicit feedback" (SIGIR 2005), compare with what eyes and judges said: "click > skip above" holds
up best, clicks as absolute judgements do not. So a negative here is a document that stood above a clicked one and was
passed over; what stood below the last click may never have been looked at, and says nothing.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from math import isnan
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pydantic import PrivateAttr

from llama_index_embft._core.checks import check_number
from llama_index_embft.dataset.formats.build import Builder, OnError, as_id, as_text, content_id, counted
from llama_index_embft.dataset.formats.retrieval import add_document
from llama_index_embft.dataset.formats.rows import Row, is_table, read_rows
from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
from llama_index_embft.dataset.sources import At, FaultError, one_sentence, shown
from llama_index_embft.errors import ConfigError, DatasetError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_NAMES: Final = {
    "query": ("query", "question", "q", "search", "search_query"),
    "shown": ("shown", "results", "shown_ids", "result_ids", "doc_ids", "retrieved", "impressions"),
    "clicked": ("clicked", "clicks", "clicked_ids", "clicked_doc_ids"),
    "feedback": ("feedback", "thumbs", "thumb", "rating"),
    "id": ("id", "log_id", "event_id"),
}
_UP: Final = frozenset(["up", "thumbs_up", "👍", "+1", "1", "1.0", "true", "yes", "positive", "like", "good"])
_DOWN: Final = frozenset(
    ["down", "thumbs_down", "👎", "-1", "-1.0", "0", "0.0", "false", "no", "negative", "dislike", "bad"]
)


class Impression(NamedTuple):
    """One answer of a search to one question.

    Attributes:
        query: The question.
        shown: Ids of the documents, in the order in which they were shown.
        clicked: Those of them that were clicked; those above the last click have been passed over.
        liked: Those that were found good in some other way, which says nothing about those above them.
        rejected: Those that were found bad.
    """

    query: str
    shown: tuple[str, ...]
    clicked: frozenset[str] = frozenset()
    liked: frozenset[str] = frozenset()
    rejected: frozenset[str] = frozenset()


@dataclass(frozen=True)
class TrafficReport:
    """What became of the traffic.

    Attributes:
        impressions: Answers in the log.
        queries: Different questions in it (white space and case apart).
        kept_queries: Those with a positive.
        positives: Pairs of a question and a document that was clicked often enough.
        negatives: Pairs of a question and a document that was passed over often enough.
        clicks_by_rank: Clicks on the first place, the second, …; a clicked document is most often one that stood high.
        left_out: Reason -> how many.
    """

    impressions: int = 0
    queries: int = 0
    kept_queries: int = 0
    positives: int = 0
    negatives: int = 0
    clicks_by_rank: tuple[int, ...] = ()
    left_out: dict[str, int] = field(default_factory=dict)

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know before believing in it."""
        clicks = sum(self.clicks_by_rank)
        if not clicks:
            return ()
        first = self.clicks_by_rank[0] / clicks
        return (
            f"{first:.0%} of the clicks went to the first place. Users click what stands high, and nobody can click "
            "what was never shown: a model tuned on clicks learns the old ranking too. Hold judged queries back to "
            "test it.",
        )

    def __str__(self) -> str:
        lines = [
            f"{self.impressions:,} answers to {self.queries:,} questions: {self.kept_queries:,} questions kept, with "
            f"{self.positives:,} positives and {self.negatives:,} negatives"
        ]
        if self.left_out:
            lines.append(f"left out: {counted(self.left_out)}")
        return "\n".join([*lines, *self.notes])


class TrafficDataset(EmbeddingQAFinetuneDataset):
    """A data set made of traffic; `report` says what became of the traffic."""

    _report: TrafficReport = PrivateAttr(default_factory=TrafficReport)

    @property
    def report(self) -> TrafficReport:
        """What became of the traffic; empty for a part or a copy of the data set."""
        return self._report


def dataset_from_clicks(
    log: Any,
    corpus: Mapping[str, str] | EmbeddingQAFinetuneDataset | str | os.PathLike[str] | None = None,
    *,
    min_clicks: int = 2,
    min_skips: int = 2,
    max_negatives: int = 10,
    answer_depth: int = 1,
    columns: Mapping[str, str] | None = None,
    on_error: OnError = "raise",
) -> TrafficDataset:
    """Make a data set of a query log with clicks or thumbs.

    A row is one answer: ``query``, ``shown`` (ids in order, or objects with ``id`` and ``text``), ``clicked`` (ids)
    and/or ``feedback``: up or down for the whole answer, or an object with one for each id. In CSV, lists are JSON, or
    ids parted by ``|``, commas or spaces. A row with an ``id`` may get its clicks and feedback in later rows, which
    have that ``id`` and no query.

    Args:
        log: A .jsonl, .json, .csv, .tsv or .parquet file, a `datasets.Dataset`, or an iterable of dicts.
        corpus: Id -> text, a data set, or a file of rows with ``_id``/``id`` and ``text``; all of it becomes the
            corpus. None where ``shown`` brings the texts.
        min_clicks: Clicks on a document for a question that make it relevant. One click may be a slip.
        min_skips: How often a document must have been passed over (or disliked) to be a negative. One that has been
            clicked for the question, even once, never is.
        max_negatives: Most negatives of a question; those passed over most often, and then shown highest, come first.
        answer_depth: An up or down for a whole answer counts for so many of its first documents. It is a weak sign: the
            answer may be good without them, or bad in spite of them.
        columns: ``query``, ``shown``, ``clicked``, ``feedback``, ``id`` -> the name of the column, if it is another.
        on_error: ``"raise"`` stops at a broken row; ``"drop"`` leaves it out and counts it.

    Returns:
        The data set; its `report` counts what was kept and left out.

    Raises:
        DatasetError: A row is broken, a shown document has no text, or no question has a positive.
        ConfigError: An argument has a value that is not allowed.
    """
    check_counts(min_clicks=min_clicks, min_skips=min_skips, max_negatives=max_negatives, answer_depth=answer_depth)
    source = os.fspath(log) if isinstance(log, (str, os.PathLike)) else "the given log"
    build = Builder(source, on_error=on_error)
    with one_sentence(f"{source} cannot be read as a log"):
        add_corpus(build, corpus, on_error)
        if not isinstance(log, (str, os.PathLike)) and not is_table(log):
            log = list(log)  # read twice
        impressions = _impressions(log, build, columns or {}, answer_depth)
        return from_impressions(
            impressions, build, min_clicks=min_clicks, min_skips=min_skips, max_negatives=max_negatives
        )


def check_counts(**counts: int) -> None:
    """Raise if a number is too low: ``min_…`` from 1, others from 0.

    Raises:
        ConfigError: One is.
    """
    for name, value in counts.items():
        check_number(name, value, at_least=int(name.startswith("min_")))


def from_impressions(
    impressions: Iterable[Impression],
    build: Builder,
    *,
    min_clicks: int,
    min_skips: int,
    max_negatives: int,
) -> TrafficDataset:
    """Count clicks and skips, and make the data set; see `dataset_from_clicks`. Memory: counts, not rows."""
    spelt: dict[str, str] = {}
    clicks: defaultdict[str, Counter[str]] = defaultdict(Counter)
    skips: defaultdict[str, Counter[str]] = defaultdict(Counter)
    ranks: defaultdict[str, dict[str, int]] = defaultdict(dict)
    by_rank = Counter[int]()
    seen = n_positives = n_negatives = 0
    for one in impressions:
        seen += 1
        key = " ".join(one.query.split()).casefold()
        spelt.setdefault(key, one.query)
        last = max((place for place, doc in enumerate(one.shown) if doc in one.clicked), default=-1)
        for place, doc in enumerate(one.shown):
            ranks[key][doc] = min(place, ranks[key].get(doc, place))
            by_rank[place] += doc in one.clicked
            if doc in one.clicked or doc in one.liked:
                clicks[key][doc] += 1
            elif doc in one.rejected or place < last:
                skips[key][doc] += 1
    left_out = Counter[str]()
    at = At(build.source)
    for key, text in spelt.items():
        positives = [doc for doc, count in clicks[key].most_common() if count >= min_clicks and count > skips[key][doc]]
        left_out["clicked documents with too few clicks"] += len(clicks[key]) - len(positives)
        if not positives:
            left_out["questions without a positive"] += 1
            continue
        query = build.add_query(text, at, content_id(key, "q-"))
        passed = [doc for doc, count in skips[key].items() if count >= min_skips and not clicks[key][doc]]
        passed.sort(key=lambda doc: (-skips[key][doc], ranks[key][doc], doc))
        left_out[f"negatives beyond {max_negatives} a question"] += len(passed[max_negatives:])
        for grade, docs in ((1, positives), (0, passed[:max_negatives])):
            for doc in docs:
                build.link(query, doc, grade, at)
        n_positives += len(positives)
        n_negatives += len(passed[:max_negatives])
    if not build.queries:
        raise DatasetError(
            f"{build.source}: of {len(spelt)} questions none has a document with {min_clicks} clicks or more "
            f"({sum(map(len, clicks.values()))} documents were clicked); lower `min_clicks` or take a longer log."
        )
    whole = build.finish()
    made = TrafficDataset.from_dict(whole.to_dict()).with_dropped(whole.dropped)
    made._report = TrafficReport(
        impressions=seen,
        queries=len(spelt),
        kept_queries=len(build.queries),
        positives=n_positives,
        negatives=n_negatives,
        clicks_by_rank=tuple(by_rank[place] for place in range(max(+by_rank, default=-1) + 1)),
        left_out=dict(+left_out),
    )
    return made


# --- reading a log ----------------------------------------------------------------------------------------------------


def add_corpus(build: Builder, corpus: Any, on_error: OnError) -> None:
    """Add the documents of a mapping, a data set or a file of rows; see `dataset_from_clicks`."""
    if corpus is None:
        return
    if isinstance(corpus, (str, os.PathLike)):
        rows = Builder(os.fspath(corpus), on_error=on_error)
        for at, row in read_rows(corpus, rows):
            with rows.row():
                add_document(rows, row, at)
        build.corpus, build.bare_texts, build.sources = rows.corpus, rows.bare_texts, rows.sources
        build.count_like(rows)
        return
    if isinstance(corpus, EmbeddingQAFinetuneDataset):
        build.bare_texts, build.sources = dict(corpus.bare_texts), dict(corpus.source_documents)
        corpus = corpus.corpus
    at = At("the given corpus")
    for id_, text in corpus.items():
        with build.row():
            build.add_document(as_text(text, f"the document {id_!r}", at), at, as_id(id_, "an id", at))


def _impressions(log: Any, build: Builder, columns: Mapping[str, str], depth: int) -> Iterator[Impression]:
    unknown = [part for part in columns if part not in _NAMES]
    if unknown:
        raise ConfigError(f"`columns` has the parts {', '.join(_NAMES)}; got {unknown[0]!r}.")
    later = _later(log, build.source, columns)
    seen: set[str] = set()
    for at, row in read_rows(log, build):
        made = None
        with build.row():
            cells = {part: _cell(row, part, columns) for part in _NAMES}
            id_ = None if cells["id"] is None else as_id(cells["id"], "the id", at)
            if cells["query"] is None and id_ is not None:
                if id_ not in seen:
                    raise FaultError(at, "feedback on an unknown row", f"there is no row {id_!r} above it")
                continue
            query = as_text(cells["query"], "the query", at)
            docs = [_shown(item, build, at) for item in _items(cells["shown"], "shown", at)]
            if len(set(docs)) < len(docs):
                raise FaultError(at, "document shown twice", "`shown` names a document twice")
            rest = later.get(id_, []) if id_ is not None else []
            if id_ is not None:
                seen.add(id_)
            clicked, liked, rejected = set[str](), set[str](), set[str]()
            for place, cell in [(at, cells), *rest]:
                clicked |= _clicked(cell["clicked"], docs, place)
                up, down = _feedback(cell["feedback"], docs, depth, place)
                liked |= up
                rejected |= down
            made = Impression(
                query, tuple(docs), frozenset(clicked), frozenset(liked), frozenset(rejected - clicked - liked)
            )
        if made is not None:
            yield made


def _later(log: Any, source: str, columns: Mapping[str, str]) -> dict[str, list[tuple[At, dict[str, Any]]]]:
    """Rows of feedback alone, by the id of the row that they belong to. Faults are found in the second reading."""
    found: defaultdict[str, list[tuple[At, dict[str, Any]]]] = defaultdict(list)
    for at, row in read_rows(log, Builder(source, on_error="drop")):
        cells = {part: _cell(row, part, columns) for part in _NAMES}
        if cells["query"] is None and isinstance(cells["id"], (str, int)):
            found[str(cells["id"])].append((at, cells))
    return found


def _cell(row: Row, part: str, columns: Mapping[str, str]) -> Any:
    for name in (columns[part],) if part in columns else _NAMES[part]:
        value = row.get(name)
        if value not in (None, "") and not (isinstance(value, float) and isnan(value)):  # as pandas leaves it out
            return value
    return None


def _items(value: Any, name: str, at: At) -> list[Any]:
    if value is None:
        return []
    if isinstance(value, str):
        text = value.strip()
        if text.startswith("["):
            try:
                value = json.loads(text)
            except (ValueError, RecursionError) as err:
                raise FaultError(at, "wrong type", f"`{name}` is no list: {shown(value)}") from err
        else:
            return [part for part in re.split(r"\|" if "|" in text else r"[,\s]+", text) if part]
    if not isinstance(value, (list, tuple)):
        raise FaultError(at, "wrong type", f"`{name}` should be a list of ids, got {shown(value)}")
    return list(value)


def _shown(item: Any, build: Builder, at: At) -> str:
    if isinstance(item, dict):
        id_ = item.get("id", item.get("_id"))
        text = as_text(item.get("text"), f"the text of the shown document {id_!r}", at)
        return build.add_document(text, at, None if id_ is None else as_id(id_, "the id of a shown document", at))
    id_ = as_id(item, "the id of a shown document", at)
    if id_ not in build.corpus:
        raise FaultError(
            at, "shown document without a text", f"the shown document {id_!r} is not in the corpus; give `corpus`"
        )
    return id_


def _clicked(value: Any, docs: list[str], at: At) -> set[str]:
    alone = isinstance(value, int) or (isinstance(value, str) and value in docs)  # an id may hold spaces
    items = [value] if alone else _items(value, "clicked", at)
    ids = {as_id(item, "a clicked id", at) for item in items}
    stray = ids.difference(docs)
    if stray:
        raise FaultError(at, "clicked, but not shown", f"the clicked document {min(stray)!r} was not shown")
    return ids


def _feedback(value: Any, docs: list[str], depth: int, at: At) -> tuple[set[str], set[str]]:
    """What feedback says: ids that are liked, and disliked."""
    if isinstance(value, str) and value.strip().startswith("{"):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as err:
            raise FaultError(at, "wrong type", f"the feedback is no JSON: {shown(value)}") from err
    verdicts = dict.fromkeys(docs[:depth], value) if not isinstance(value, dict) else value
    up, down = set[str](), set[str]()
    if not isinstance(value, dict):
        _is_up(value, at)  # a word that is not understood is a fault, though nothing was shown
    for doc, verdict in verdicts.items():
        if doc not in docs:
            raise FaultError(at, "clicked, but not shown", f"there is feedback on {doc!r}, which was not shown")
        liked = _is_up(verdict, at)
        if liked is not None:
            (up if liked else down).add(doc)
    return up, down


def _is_up(value: Any, at: At) -> bool | None:
    word = str(value).strip().lower()
    if value is None or word == "":
        return None
    if isinstance(value, (str, int, float)) and word in _UP | _DOWN:
        return word in _UP
    if re.fullmatch(r"\d+([.,]\d+)?", word):  # and no row of it may be left out: its 1 is no thumb up
        raise DatasetError(f"{at}: the feedback {shown(value)} is of a scale; say up or down of each value.")
    raise FaultError(at, "feedback that is not understood", f"the feedback {shown(value)} is neither up nor down")
