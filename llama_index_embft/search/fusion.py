"""Fusion: one ranking out of a dense and a lexical one.

Pure functions on arrays. What they return for the lists of one query is what `StackRetriever` returns for it, so a
figure measured with them holds for the retriever that is handed over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple, get_args

import numpy as np

from llama_index_embft._core.checks import check_choice, check_number
from llama_index_embft.errors import ConfigError
from llama_index_embft.search.topk import TopK

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

Fusion = Literal["zscore", "tmm", "minmax", "dbsf", "rrf"]
DEFAULT_FUSION: Final[Fusion] = "zscore"
DEFAULT_DEPTH: Final = 100
_RRF: Final = 60  # the constant of reciprocal rank fusion, by custom


def fuse(
    dense: TopK, lexical: TopK, weight: float, method: Fusion = DEFAULT_FUSION, *, depth: int = DEFAULT_DEPTH
) -> TopK:
    """Join the hits of a dense and a lexical search over the same rows.

    Scores are made comparable for each query on its own, then a document's score is ``weight`` times its dense one plus
    ``1 - weight`` times its lexical one. The first ``depth`` hits of each list take part.

    - ``"zscore"``: distance from the list's mean in standard deviations; a document that is missing from a list gets
      the list's lowest.
    - ``"tmm"``, theoretical min-max: the lowest *possible* score is 0 and the list's highest is 1, for cosines
      ``(score + 1) / (highest + 1)`` and for BM25 ``score / highest``; missing is the list's lowest. It keeps how sure
      the dense part is, and needs cosines (or what `StackRetriever` turns into them).
    - ``"minmax"``: from 0 for the list's lowest to 1 for its highest; missing is 0.
    - ``"dbsf"``: as Qdrant does, 0 and 1 lie three standard deviations from the mean; missing is 0.
    - ``"rrf"``: ``1 / (60 + rank)``, whatever the scores; missing is 0.

    A lexical list that is shorter than the dense one is filled up with scores of 0 before its mean is taken: all other
    documents share no word with the query, and 0 is their score.

    Args:
        dense: Hits, shape ``(n, a)``, best first; a row appears once in a list, -1 for none.
        lexical: Hits, shape ``(n, b)``, likewise.
        weight: Share of the dense part, 0 to 1: 0 is the lexical ranking as it is, 1 the dense one.
        method: How scores are made comparable.
        depth: Hits of each list that take part.

    Returns:
        Shape ``(n, m)`` with ``m`` at most ``2 * depth``, best first, of equal scores the better dense rank.

    Raises:
        ConfigError: A value is not allowed, or the lists are over different numbers of queries.
    """
    check_number("weight", weight, at_least=0, at_most=1)
    if len(dense.rows) != len(lexical.rows):
        raise ConfigError(
            f"There are dense hits of {len(dense.rows)} queries and lexical hits of {len(lexical.rows)}; search both "
            "with the same queries."
        )
    return next(fuse_by_each(dense, lexical, [weight], method, depth))


class _AlignedHits(NamedTuple):
    """The documents of both lists, each once, with both scores made comparable; -1 for none."""

    rows: NDArray[np.int64]  # (n, a + b): the dense list, then what the lexical one adds
    dense: NDArray[np.float64]
    lexical: NDArray[np.float64]


def fuse_by_each(dense: TopK, lexical: TopK, weights: Sequence[float], method: Fusion, depth: int) -> Iterator[TopK]:
    """The ranking by each weight; what does not depend on the weight is done once."""
    check_number("depth", depth, at_least=1)
    check_choice("method", method, get_args(Fusion))
    dense, lexical = _first(dense, depth), _first(lexical, depth)
    aligned = None
    for weight in weights:
        if weight in (0, 1):
            yield dense if weight == 1 else lexical
            continue
        aligned = aligned or _align(dense, lexical, method)
        mixed = weight * aligned.dense + (1 - weight) * aligned.lexical
        mixed[aligned.rows < 0] = -np.inf
        order = np.argsort(-mixed, axis=1, kind="stable")
        scores = np.take_along_axis(mixed, order, axis=1).astype(np.float32)
        yield TopK(np.take_along_axis(aligned.rows, order, axis=1), scores)


def _first(hits: TopK, depth: int) -> TopK:
    return TopK(hits.rows[:, :depth], hits.scores[:, :depth])


def _align(dense: TopK, lexical: TopK, method: Fusion) -> _AlignedHits:
    n_dense = (dense.rows >= 0).sum(axis=1, keepdims=True)
    left, none_left = _comparable(dense, n_dense, method, lowest_possible=-1.0)
    right, none_right = _comparable(lexical, n_dense, method, lowest_possible=0.0)
    rows = np.concatenate([dense.rows, lexical.rows], axis=1)
    left = np.concatenate([left, np.broadcast_to(none_left, right.shape)], axis=1)
    right = np.concatenate([np.broadcast_to(none_right, dense.rows.shape), right], axis=1)
    # A document of both lists: its place in the dense one gets both scores, the other falls away.
    order = np.argsort(rows, axis=1, kind="stable")
    ordered = np.take_along_axis(rows, order, axis=1)
    line, column = np.nonzero((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0))
    first, second = order[line, column], order[line, column + 1]
    right[line, first] = right[line, second]
    rows[line, second] = -1
    return _AlignedHits(rows, left, right)


def _comparable(
    hits: TopK, n_least: NDArray[np.int64], method: Fusion, *, lowest_possible: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores of each list on a common scale, and what a document that is missing from it gets.

    Args:
        hits: Shape ``(n, k)``.
        n_least: Shape ``(n, 1)``: a shorter list is filled up to this length with scores of 0.
        method: See `fuse`.
        lowest_possible: Score that nothing can fall below.

    Returns:
        Shapes ``(n, k)`` and ``(n, 1)``.
    """
    there = hits.rows >= 0
    if method == "rrf":
        ranks = 1.0 / (_RRF + np.arange(1, hits.rows.shape[1] + 1))
        return np.where(there, ranks, 0.0), np.zeros_like(n_least, dtype=np.float64)
    scores = np.where(there, hits.scores, 0.0).astype(np.float64)
    n_hits = there.sum(axis=1, keepdims=True)
    zeros = np.maximum(0, n_least - n_hits)
    filled = zeros > 0
    low = np.min(scores, axis=1, keepdims=True, where=there, initial=np.inf)
    low = np.where(filled | (n_hits == 0), np.minimum(low, 0.0), low)
    high = np.max(scores, axis=1, keepdims=True, where=there, initial=-np.inf)
    high = np.where(filled | (n_hits == 0), np.maximum(high, 0.0), high)
    flat = high - low <= 1e-9 * np.maximum(np.abs(high), np.abs(low))
    if method == "tmm":
        span = np.maximum(high - lowest_possible, 1e-9)
        return (scores - lowest_possible) / span, (low - lowest_possible) / span
    if method == "minmax":
        return np.where(flat, 1.0, (scores - low) / np.where(flat, 1.0, high - low)), np.zeros_like(low)
    count = np.maximum(1, n_hits + zeros)
    mean = scores.sum(axis=1, keepdims=True) / count
    spread = np.sum((scores - mean) ** 2, axis=1, keepdims=True, where=there) + zeros * mean**2
    deviation = np.where(flat, np.inf, np.sqrt(spread / count))
    standard = (scores - mean) / deviation
    if method == "dbsf":
        return np.clip(standard / 6 + 0.5, 0.0, 1.0), np.zeros_like(low)
    return standard, (low - mean) / deviation
