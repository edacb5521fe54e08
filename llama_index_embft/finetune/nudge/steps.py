"""NUDGE's mathematics: where each document moves, how far, and what that does to the ranking. Arrays in, arrays out.

Zeighami et al., "NUDGE: Lightweight Non-Parametric Fine-Tuning of Embeddings for Retrieval", arXiv 2409.02343.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from llama_index_embft.search.topk import TopK, top_k

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from llama_index_embft.finetune.nudge.settings import Variant

_ROWS_PER_BLOCK: Final = 131_072


@dataclass(frozen=True)
class Movement:
    """The line, or the great circle, on which each document moves.

    Attributes:
        rows: Shape ``(n_moved,)``: corpus rows that have a training query, ascending.
        start: Shape ``(n_moved, dim)``: their vectors; of length 1 for variant N.
        towards: Shape ``(n_moved, dim)``: unit vectors. M: the sum of the queries. N: what of it is at right angles to
            the document.
        furthest: Shape ``(n_moved,)``: N: the angle in radians to the sum of the queries, where a document stops.
            M: infinity.
        variant: ``"N"`` or ``"M"``.
    """

    rows: NDArray[np.int64]
    start: NDArray[np.float32]
    towards: NDArray[np.float32]
    furthest: NDArray[np.float32]
    variant: Variant

    @property
    def metric(self) -> Literal["cosine", "dot"]:
        """What the variant ranks by."""
        return "cosine" if self.variant == "N" else "dot"

    def at(self, step: float) -> NDArray[np.float32]:
        """Vectors after a step, shape ``(n_moved, dim)``.

        Args:
            step: M: the length added. N: the angle in radians, the same for all but those that have arrived.
        """
        if self.variant == "M":
            moved: NDArray[np.float32] = self.start + np.float32(step) * self.towards
            return moved
        angle = np.minimum(np.float32(step), self.furthest)[:, None]
        result: NDArray[np.float32] = np.cos(angle) * self.start + np.sin(angle) * self.towards
        return result


def movement(
    corpus: NDArray[np.float32],
    queries: NDArray[np.float32],
    positives: Sequence[Sequence[int]],
    variant: Variant,
) -> Movement:
    """Find where each document with a training query goes: towards the sum of its queries.

    For a bound on how far a document may move, this is the movement that raises the similarity of training queries and
    their documents most (equations 3 to 5 of the paper), freely (M) or on the unit sphere (N).

    Args:
        corpus: Shape ``(n_docs, dim)``.
        queries: Shape ``(n_queries, dim)``.
        positives: Corpus rows relevant to each query.
        variant: ``"N"`` keeps vectors at length 1, right for cosine; ``"M"`` does not, and is for the inner product.
    """
    owners = np.repeat(np.arange(len(positives)), [len(rows) for rows in positives])
    targets = np.concatenate([np.asarray(rows, dtype=np.int64) for rows in positives])
    rows, inverse = np.unique(targets, return_inverse=True)
    unit = queries if variant == "M" else _unit(queries)
    total = np.zeros((len(rows), queries.shape[1]), dtype=np.float32)
    np.add.at(total, inverse, unit[owners])
    length = np.linalg.norm(total, axis=1)
    start = corpus[rows] if variant == "M" else _unit(corpus[rows])
    goal = _unit(total)
    if variant == "M":
        kept = length > 0
        endless = np.full(int(kept.sum()), np.inf, dtype=np.float32)
        return Movement(rows[kept], start[kept], goal[kept], endless, variant)
    cosine = np.einsum("nd,nd->n", start, goal)
    across = goal - cosine[:, None] * start
    angle = np.arctan2(np.linalg.norm(across, axis=1), cosine).astype(np.float32)
    # A document that points where its queries do already has nowhere to go, nor has one whose queries cancel out.
    kept = (length > 0) & (angle > 1e-5)
    return Movement(rows[kept], start[kept], _unit(across[kept]), angle[kept], variant)


def search_still(
    queries: NDArray[np.float32],
    corpus: NDArray[np.float32],
    moves: Movement,
    depth: int,
    *,
    exclude: Sequence[NDArray[np.int64]] | None = None,
    device: Any = None,
) -> TopK:
    """The best hits among the documents that do not move, in blocks of 131,072: the corpus may be memory-mapped.

    Args:
        queries: Shape ``(n_queries, dim)``.
        corpus: Shape ``(n_docs, dim)``.
        moves: The movement, of rows of this corpus.
        depth: Hits to find; where there are fewer, the rest is row -1 with score -inf.
        exclude: For each query the corpus rows that it must not return.
        device: Torch device of the search.
    """
    best = TopK(
        np.full((len(queries), depth), -1, dtype=np.int64), np.full((len(queries), depth), -np.inf, dtype=np.float32)
    )
    moving = np.zeros(len(corpus), dtype=bool)
    moving[moves.rows] = True
    for first in range(0, len(corpus), _ROWS_PER_BLOCK):
        rows = first + np.flatnonzero(~moving[first : first + _ROWS_PER_BLOCK])
        if not len(rows):
            continue
        barred = None
        if exclude is not None:
            barred = [_places(rows, out) for out in exclude]
        hits = top_k(queries, corpus[rows], depth, similarity=moves.metric, exclude=barred, device=device)
        found = np.where(hits.rows >= 0, rows[hits.rows], -1)
        best = _best_of(
            np.concatenate([best.rows, found], axis=1), np.concatenate([best.scores, hits.scores], axis=1), depth
        )
    return best


class StepSearch:
    """Searches the corpus as it would be after a step; what does not move is searched once.

    Args:
        queries: Shape ``(n_queries, dim)``.
        corpus: Shape ``(n_docs, dim)``, before the movement, in the order that settles ties: the lower row wins. May be
            memory-mapped; it is not kept.
        moves: The movement, of rows of this corpus.
        depth: Hits to find.
        device: Torch device of the search.
    """

    def __init__(
        self, queries: NDArray[np.float32], corpus: NDArray[np.float32], moves: Movement, depth: int, device: Any = None
    ) -> None:
        self._queries, self._moves, self._depth, self._device = queries, moves, depth, device
        self._fixed = search_still(queries, corpus, moves, depth, device=device)

    def after(self, step: float) -> TopK:
        """The best hits of each query after a step, best first; shape ``(n_queries, depth)``.

        A place that nothing fills is row -1 with score -inf.
        """
        if not len(self._moves.rows):
            return self._fixed
        moved = self._moves.at(step)
        hits = top_k(
            self._queries, moved, min(self._depth, len(moved)), similarity=self._moves.metric, device=self._device
        )
        rows = np.concatenate([np.where(hits.rows >= 0, self._moves.rows[hits.rows], -1), self._fixed.rows], axis=1)
        return _best_of(rows, np.concatenate([hits.scores, self._fixed.scores], axis=1), self._depth)


def own_scores(
    queries: NDArray[np.float32], corpus: NDArray[np.float32], positives: Sequence[Sequence[int]], moves: Movement
) -> NDArray[np.float32]:
    """Score of each query's best relevant document where it stands before the movement, shape ``(n_queries,)``."""
    cosine = moves.metric == "cosine"
    best = np.empty(len(queries), dtype=np.float32)
    for number, rows in enumerate(positives):
        query, documents = queries[number], corpus[list(rows)]
        best[number] = (_unit(documents) @ _unit(query[None])[0] if cosine else documents @ query).max()
    return best


def ndcg_if_not_moved(
    hits: TopK, own: NDArray[np.float32], positives: Sequence[Sequence[int]], cutoff: int = 10
) -> float:
    """Mean nDCG@10 if a query's own documents had stayed and all others had moved.

    It tells, from queries that are at hand, what happens to a query about a document without a training query: such a
    document stays where it is, among others that came nearer. One relevant document counts, the best.

    Args:
        hits: After the step; at least `cutoff` of each query beside its own documents.
        own: From `own_scores`.
        positives: Corpus rows relevant to each query.
        cutoff: Ranks that count.
    """
    gains = np.zeros(len(own))
    for number, rows in enumerate(positives):
        others = ~np.isin(hits.rows[number], list(rows))
        rank = 1 + int((others & (hits.scores[number] > own[number])).sum())
        gains[number] = 1 / np.log2(1 + rank) if rank <= cutoff else 0.0
    return float(gains.mean())


def _places(rows: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where some of the wanted rows stand in ascending rows; the others are left out."""
    place = np.minimum(np.searchsorted(rows, wanted), len(rows) - 1)
    found: NDArray[np.int64] = place[rows[place] == wanted]
    return found


def _best_of(rows: NDArray[np.int64], scores: NDArray[np.float32], depth: int) -> TopK:
    order = np.lexsort((rows, -scores), axis=1)[:, :depth]
    return TopK(np.take_along_axis(rows, order, axis=1), np.take_along_axis(scores, order, axis=1))


def steps_to_try(moves: Movement, number: int) -> NDArray[np.float64]:
    """Steps at which a ranking is worth looking at: 0 is not among them.

    Args:
        moves: The movement.
        number: How many. N: evenly spaced angles up to the furthest that any document goes. M: lengths in geometric
            progression from a hundredth of a typical document's length to ten times it.
    """
    if moves.variant == "M":
        typical = float(np.median(np.linalg.norm(moves.start, axis=1))) or 1.0
        return np.geomspace(0.01 * typical, 10 * typical, number)
    return np.linspace(0.0, float(moves.furthest.max()), number + 1)[1:]


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(length > 0, length, 1.0)).astype(np.float32, copy=False)
