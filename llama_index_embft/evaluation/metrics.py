"""Retrieval metrics over whole runs at once, with trec_eval's definitions.

Only the places where a relevant document was found matter, and they are few. So a run of 100,000 queries and 1,000
hits each is first reduced to its `Hits`, by vectorised comparison, and every metric at every cut-off is then a sum
over those.

Conventions, where tools differ: a query without a hit scores 0 and counts; nDCG's gain is the grade itself (linear)
and its ideal goes over the best k grades; MAP@k divides by the number of relevant documents, not by min(k, that
number); precision@k divides by k also where fewer came back; hit rate is trec_eval's ``success``.
"""

from __future__ import annotations

import re
from functools import cached_property
from numbers import Integral
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from llama_index_embft.errors import EvaluationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

FAMILIES: Final = ("hit_rate", "mrr", "ndcg", "map", "recall", "precision")
"""Metrics that have a cut-off, in the order in which tables show them."""

DEFAULT_KS: Final = (1, 3, 5, 10)

_FEW_RELEVANT: Final = 3  # measured: up to this many relevant documents a query, comparing beats looking up
_BLOCK_CELLS: Final = 1 << 18  # cells of a run that are compared at a time: the booleans stay in the cache
_SIEVE: Final = 1 << 14  # bytes of one query's table, a power of two
_SIEVE_BLOCK: Final = 64  # queries at a time


class Judgements(NamedTuple):
    """Which documents are relevant to which query, as arrays; within a query the highest grade comes first.

    Attributes:
        offsets: Shape ``(n_queries + 1,)``; query ``q`` owns the slice ``offsets[q]:offsets[q + 1]`` of the others.
        rows: Shape ``(n_judged,)``, row of the document in the corpus; -1 for one that the corpus lacks.
        grades: Shape ``(n_judged,)``, relevance grade, at least 1.
    """

    offsets: NDArray[np.int64]
    rows: NDArray[np.int64]
    grades: NDArray[np.float64]

    @property
    def n_relevant(self) -> NDArray[np.int64]:
        """Number of relevant documents of each query, shape ``(n_queries,)``."""
        return np.diff(self.offsets)

    @classmethod
    def from_qrels(
        cls, qrels: Mapping[str, Mapping[str, int]], query_ids: Sequence[str], row_of: Mapping[str, int]
    ) -> Judgements:
        """Turn ``{query id: {document id: grade}}`` into arrays.

        Args:
            qrels: Grades of 0 and below mean "judged, not relevant" and are left out, as in trec_eval.
            query_ids: The queries, in the order of the run's rows; one without an entry has nothing relevant.
            row_of: Corpus id -> row. A relevant document that is not in it can never be found, and still counts.
        """
        counts = [0]
        rows: list[int] = []
        grades: list[float] = []
        for query_id in query_ids:
            judged = [(grade, doc) for doc, grade in qrels.get(query_id, {}).items() if grade > 0]
            judged.sort(key=lambda pair: -pair[0])
            counts.append(len(judged))
            rows.extend(row_of.get(doc, -1) for _, doc in judged)
            grades.extend(float(grade) for grade, _ in judged)
        return cls(
            np.cumsum(counts, dtype=np.int64), np.array(rows, dtype=np.int64), np.array(grades, dtype=np.float64)
        )


class Hits(NamedTuple):
    """Where the relevant documents were found, ordered by query and then rank.

    Attributes:
        query: Shape ``(n_hits,)``, row of the query.
        rank: Shape ``(n_hits,)``, 0 for the first place.
        grade: Shape ``(n_hits,)``, relevance grade.
    """

    query: NDArray[np.int64]
    rank: NDArray[np.int64]
    grade: NDArray[np.float64]


def find_hits(rows: NDArray[np.int64], judgements: Judgements, n_documents: int) -> Hits:
    """Find the relevant documents in ranked lists.

    Works in blocks: besides the result it needs a few megabytes.

    Args:
        rows: Shape ``(n_queries, depth)``: corpus rows, best first, none twice in a row; -1 where nothing came back.
        judgements: For the same queries in the same order.
        n_documents: Size of the corpus.

    Raises:
        EvaluationError: The run and the judgements are over different numbers of queries.
    """
    n_queries = len(judgements.n_relevant)
    if rows.ndim != 2 or len(rows) != n_queries:
        raise EvaluationError(
            f"The run has shape {rows.shape}, the judgements are over {n_queries} queries; pass one row a query."
        )
    if not rows.size or not (judgements.rows >= 0).any():
        return Hits(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
    few = len(judgements.rows) <= _FEW_RELEVANT * n_queries
    query, rank, grade = (_by_comparing if few else _by_lookup)(rows, judgements, n_documents)
    order = np.lexsort((rank, query))
    return Hits(query[order], rank[order], grade[order])


def _by_comparing(
    rows: NDArray[np.int64], judgements: Judgements, _: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Hold each relevant document against its query's list; fastest where there are few of them."""
    n_relevant, starts = judgements.n_relevant, judgements.offsets[:-1]
    found: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]] = []
    step = max(1, _BLOCK_CELLS // rows.shape[1])
    for nth in range(int(n_relevant.max())):
        queries = np.flatnonzero(n_relevant > nth)
        for begin in range(0, len(queries), step):
            block = queries[begin : begin + step]
            # Neighbouring queries are taken as a view: no copy of the run in the usual case.
            contiguous = block[-1] - block[0] + 1 == len(block)
            lists = rows[block[0] : block[-1] + 1] if contiguous else rows[block]
            judged = starts[block] + nth
            wanted = judgements.rows[judged]
            place = (lists == wanted[:, None]).argmax(axis=1)
            hit = (lists[np.arange(len(block)), place] == wanted) & (wanted >= 0)
            found.append((block[hit], place[hit], judged[hit]))
    query, rank, judged = (np.concatenate(part) for part in zip(*found, strict=True))
    return query, rank, judgements.grades[judged]


def _by_lookup(
    rows: NDArray[np.int64], judgements: Judgements, n_documents: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Sieve the lists through small tables of the relevant documents' last bits, then check what is left exactly.

    Costs the same however many are relevant. The tables stay in the processor's cache, which a table over the whole
    corpus would not.
    """
    known = np.flatnonzero(judgements.rows >= 0)
    owner = np.repeat(np.arange(len(rows)), judgements.n_relevant)[known]
    wanted = judgements.rows[known]
    starts = np.searchsorted(owner, np.arange(len(rows) + 1))
    step = max(1, min(_SIEVE_BLOCK, len(rows)))
    sieve = np.zeros(step * _SIEVE, dtype=np.bool_)
    shift = (np.arange(step) * _SIEVE)[:, None]
    candidates: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    for begin in range(0, len(rows), step):
        lists = rows[begin : begin + step]
        mine = slice(starts[begin], starts[begin + len(lists)])
        holes = (owner[mine] - begin) * _SIEVE + (wanted[mine] & (_SIEVE - 1))
        sieve[holes] = True
        passed = np.flatnonzero(sieve.take((lists & (_SIEVE - 1)) + shift[: len(lists)], mode="clip"))
        sieve[holes] = False
        query, rank = np.divmod(passed, rows.shape[1])
        candidates.append((query + begin, rank))
    query, rank = (np.concatenate(part) for part in zip(*candidates, strict=True))
    keys = owner * n_documents + wanted  # one number a pair of query and document
    order = np.argsort(keys)
    found = rows[query, rank]
    place = np.searchsorted(keys, query * n_documents + found, sorter=order)
    judged = order[np.minimum(place, len(order) - 1)]
    hit = (found >= 0) & (keys[judged] == query * n_documents + found)
    return query[hit], rank[hit], judgements.grades[known[judged[hit]]]


def metric_names(ks: int | Iterable[int] = DEFAULT_KS, families: str | Iterable[str] = FAMILIES) -> tuple[str, ...]:
    """Column names in table order, for example ``("hit_rate@1", "hit_rate@3", ...)``; `families` may hold full names.

    Args:
        ks: Cut-offs, or one.
        families: Families or full names, or one.

    Raises:
        EvaluationError: A name is unknown, a cut-off is no whole number of at least 1, or no metric is named.
    """
    cuts = dict.fromkeys(map(_cut_off, _several("ks", ks, "whole numbers such as (1, 10)")))
    names: dict[str, None] = {}
    for family in _several("metrics", families, "names such as ('ndcg', 'recall@50')"):
        full = not isinstance(family, str) or "@" in family or family == "r_precision"
        for name in [family] if full else [f"{family}@{k}" for k in cuts]:
            parse_metric(name)
            names[name] = None
    if not names:
        raise EvaluationError("No metric is named: give `ks` and `metrics` at least one value each.")
    return tuple(names)


def _several(name: str, given: Any, such_as: str) -> tuple[Any, ...]:
    """One value, or several, as a tuple: a name is one value, not its letters."""
    if isinstance(given, str | Integral):
        return (given,)
    try:
        return tuple(given)
    except TypeError:
        raise EvaluationError(f"`{name}` is {given!r}; give one value, or several {such_as}.") from None


def _cut_off(k: Any) -> int:
    if isinstance(k, Integral) and not isinstance(k, bool) and int(k) >= 1:
        return int(k)
    raise EvaluationError(f"`ks` holds {k!r}; a cut-off is a whole number of at least 1.")


def parse_metric(name: str) -> tuple[str, int | None]:
    """Split ``"ndcg@10"`` into ``("ndcg", 10)``; ``"r_precision"`` has no cut-off.

    Raises:
        EvaluationError: The name is unknown or the cut-off is below 1.
    """
    if name == "r_precision":
        return name, None
    match = re.fullmatch(r"([a-z_]+)@([1-9][0-9]*)", name) if isinstance(name, str) else None
    if match is None or match[1] not in METRICS:
        raise EvaluationError(
            f"Unknown metric {name!r}: write one of {', '.join(FAMILIES)} with a cut-off of at least 1, "
            f"for example 'ndcg@10', or 'r_precision'."
        )
    return match[1], int(match[2])


def needed_depth(names: Iterable[str], judgements: Judgements) -> int:
    """Hits a query that the metrics look at."""
    cuts = [parse_metric(name)[1] for name in names]
    deepest = max((k for k in cuts if k is not None), default=1)
    return max(deepest, int(judgements.n_relevant.max(initial=1))) if None in cuts else deepest


def score_hits(hits: Hits, judgements: Judgements, names: Iterable[str]) -> dict[str, NDArray[np.float64]]:
    """Compute metrics for each query.

    Args:
        hits: Where relevant documents were found; ranks beyond the largest cut-off do no harm.
        judgements: The judgements the hits were found with.
        names: For example ``metric_names(ks=(1, 10))``.

    Returns:
        Metric name -> shape ``(n_queries,)``, each in [0, 1].

    Raises:
        EvaluationError: A name is unknown.
    """
    found = RankedHits(hits, judgements)
    scores: dict[str, NDArray[np.float64]] = {}
    for name in names:
        family, k = parse_metric(name)
        scores[name] = METRICS[family](found, k)
    return scores


class RankedHits:
    """What the formulas of metrics share: where relevant documents stand, and sums over each query's hits.

    Attributes:
        hits: The relevant documents that were found.
        judgements: What they were found with.
        n_relevant: Relevant documents of each query, at least 1 (with none there are no hits either, and 0 / 1 is the 0
            that is wanted), shape ``(n_queries,)``.
        nth: The how manieth hit of its query each hit is, from 0, shape ``(n_hits,)``.
    """

    def __init__(self, hits: Hits, judgements: Judgements) -> None:
        self.hits, self.judgements = hits, judgements
        self.n_relevant = np.maximum(judgements.n_relevant, 1)
        starts = np.searchsorted(hits.query, np.arange(len(self.n_relevant)))
        self.nth = np.arange(len(hits.query)) - starts[hits.query]

    def within(self, k: int | None) -> NDArray[np.bool_]:
        """Which hits stand among the first ``k``; None: among as many as the query has relevant documents."""
        return self.hits.rank < (self.n_relevant[self.hits.query] if k is None else k)

    def total(self, mask: NDArray[np.bool_], weights: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        """Sum of the weights (default 1) of the hits that are marked, for each query."""
        n_queries = len(self.n_relevant)
        if mask.all():  # the usual case of a large cut-off: nothing to copy
            return np.bincount(self.hits.query, weights=weights, minlength=n_queries).astype(float)
        part = None if weights is None else weights[mask]
        return np.bincount(self.hits.query[mask], weights=part, minlength=n_queries).astype(float)

    @cached_property
    def discount(self) -> NDArray[np.float64]:
        """The logarithm by which nDCG divides, by place from 0."""
        places = max(int(self.hits.rank.max(initial=0)) + 1, int(self.n_relevant.max(initial=1)))
        return np.log2(np.arange(2, 2 + places))


def _recall(found: RankedHits, k: int | None) -> NDArray[np.float64]:
    return found.total(found.within(k)) / found.n_relevant


def _precision(found: RankedHits, k: int | None) -> NDArray[np.float64]:
    return found.total(found.within(k)) / float(k or 1)


def _hit_rate(found: RankedHits, k: int | None) -> NDArray[np.float64]:
    return found.total(found.within(k) & (found.nth == 0))


def _mrr(found: RankedHits, k: int | None) -> NDArray[np.float64]:
    return found.total(found.within(k) & (found.nth == 0), 1.0 / (found.hits.rank + 1))


def _map(found: RankedHits, k: int | None) -> NDArray[np.float64]:
    return found.total(found.within(k), (found.nth + 1) / (found.hits.rank + 1)) / found.n_relevant


def _ndcg(found: RankedHits, k: int | None) -> NDArray[np.float64]:
    judgements = found.judgements
    place = np.arange(len(judgements.rows)) - np.repeat(judgements.offsets[:-1], judgements.n_relevant)
    owner = np.repeat(np.arange(len(found.n_relevant)), judgements.n_relevant)
    counted = place < (k or 0)
    best = (judgements.grades / found.discount[place])[counted]
    ideal = np.bincount(owner[counted], weights=best, minlength=len(found.n_relevant))
    gained = found.total(found.within(k), found.hits.grade / found.discount[found.hits.rank])
    return gained / np.where(ideal > 0, ideal, 1.0)


# Family -> each query's score within the first k. A new metric is a formula, in a file of its own, and one line here.
METRICS: Final[dict[str, Callable[[RankedHits, int | None], NDArray[np.float64]]]] = {
    "hit_rate": _hit_rate,
    "mrr": _mrr,
    "ndcg": _ndcg,
    "map": _map,
    "recall": _recall,
    "precision": _precision,
    "r_precision": _recall,
}


def rank_order(ids: Sequence[str], scores: NDArray[np.floating] | Sequence[float]) -> list[int]:
    """Positions in trec_eval's order: score, then id, both descending; a repeated id keeps its best place only.

    Scores are compared in single precision, because trec_eval stores them so: what differs less is a tie.

    Raises:
        EvaluationError: A score is not a number.
    """
    try:
        values = np.asarray(scores, dtype=np.float32)
    except (TypeError, ValueError) as err:
        raise EvaluationError(f"The scores of {', '.join(map(repr, ids[:3]))} … are not all numbers: {err}.") from None
    if np.isnan(values).any():
        bad = ids[int(np.flatnonzero(np.isnan(values))[0])]
        raise EvaluationError(f"The score of document {bad!r} is not a number; remove such hits before scoring a run.")
    order = sorted(range(len(ids)), key=lambda i: (values[i], ids[i]), reverse=True)
    seen: set[str] = set()
    return [i for i in order if not (ids[i] in seen or seen.add(ids[i]))]  # type: ignore[func-returns-value]
