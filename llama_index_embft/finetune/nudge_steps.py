"""NUDGE's mathematics: where each document moves, how far, and what that does to the ranking. Arrays in, arrays out.

Zeighami et al., "NUDGE: Lightweight Non-Parametric Fine-Tuning of Embeddings for Retrieval", arXiv 2409.02343.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from llama_index_embft.search.topk import ExactIndex, TopK, top_k

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

Variant: TypeAlias = Literal["N", "M"]


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


class StepSearch:
    """Searches the corpus as it would be after a step; what does not move is searched once.

    Args:
        queries: Shape ``(n_queries, dim)``.
        corpus: Shape ``(n_docs, dim)``, before the movement, in the order that settles ties: the lower row wins.
        moves: The movement, of rows of this corpus.
        depth: Hits to find.
        device: Torch device of the search.
    """

    def __init__(
        self, queries: NDArray[np.float32], corpus: NDArray[np.float32], moves: Movement, depth: int, device: Any = None
    ) -> None:
        self._queries, self._moves, self._depth, self._device = queries, moves, depth, device
        self._metric: Literal["cosine", "dot"] = "cosine" if moves.variant == "N" else "dot"
        self._still = np.setdiff1d(np.arange(len(corpus)), moves.rows)
        if len(self._still):
            index = ExactIndex(corpus[self._still], metric=self._metric, device=device)
            hits = index.search(queries, min(depth, len(self._still)))
            self._fixed = TopK(self._still[hits.rows], hits.scores)

    def after(self, step: float) -> NDArray[np.int64]:
        """Corpus rows of the best hits of each query after a step, best first; shape ``(n_queries, <= depth)``."""
        moved = self._moves.at(step)
        hits = top_k(self._queries, moved, min(self._depth, len(moved)), metric=self._metric, device=self._device)
        rows, scores = self._moves.rows[hits.rows], hits.scores
        if len(self._still):
            rows = np.concatenate([rows, self._fixed.rows], axis=1)
            scores = np.concatenate([scores, self._fixed.scores], axis=1)
        order = np.lexsort((rows, -scores), axis=1)[:, : self._depth]
        result: NDArray[np.int64] = np.take_along_axis(rows, order, axis=1)
        return result


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


def closed_form_step(
    queries: NDArray[np.float32],
    corpus: NDArray[np.float32],
    positives: Sequence[Sequence[int]],
    moves: Movement,
    *,
    block: int = 256,
) -> tuple[float, int]:
    """The step of variant M that puts a relevant document first for the most queries, exactly.

    Every score is a straight line over the step, so a relevant document is ahead of all others on one interval; the
    answer is a point in which the most intervals overlap, as the paper chooses it.

    Args:
        queries: Shape ``(n_queries, dim)``: validation queries.
        corpus: Shape ``(n_docs, dim)``, before the movement.
        positives: Corpus rows relevant to each query.
        moves: The movement, of variant M.
        block: Queries a time; a block needs ``2 * block * n_docs`` floats.

    Returns:
        The smallest such step (in the middle of the overlap, or 0 where that is as good), and how many queries have a
        relevant document first there.
    """
    slope_of = np.full(len(corpus), -1, dtype=np.int64)
    slope_of[moves.rows] = np.arange(len(moves.rows))
    intervals: list[tuple[float, float]] = []
    for first in range(0, len(queries), block):
        some = queries[first : first + block].astype(np.float64)
        heights = some @ corpus.T.astype(np.float64)
        slopes = np.zeros_like(heights)
        slopes[:, moves.rows] = some @ moves.towards.T.astype(np.float64)
        for height, slope, wanted in zip(heights, slopes, positives[first : first + block], strict=True):
            intervals += [_ahead(height, slope, row) for row in wanted]
    return _most_overlap(intervals)


def _ahead(height: NDArray[np.float64], slope: NDArray[np.float64], row: int) -> tuple[float, float]:
    """Steps ``(low, high)`` between which the line of one document is above those of all others."""
    lead, gain = height[row] - np.delete(height, row), slope[row] - np.delete(slope, row)
    if (lead[gain == 0] <= 0).any():
        return (np.inf, -np.inf)
    with np.errstate(divide="ignore"):
        low = np.max(-lead[gain > 0] / gain[gain > 0], initial=0.0)
        high = np.min(-lead[gain < 0] / gain[gain < 0], initial=np.inf)
    return (float(low), float(high))


def _most_overlap(intervals: list[tuple[float, float]]) -> tuple[float, int]:
    """A point that the most intervals cover; those of one query do not overlap, since one document is first."""
    events = sorted(event for low, high in intervals if low < high for event in ((low, 1), (high, -1)))
    best, best_step, covered = 0, 0.0, 0
    for n, (where, change) in enumerate(events):
        covered += change
        after = events[n + 1][0] if n + 1 < len(events) else where
        if covered > best and after > where:
            best = covered
            best_step = 0.0 if where == 0.0 else (where + after) / 2 if np.isfinite(after) else 2 * where
    return best_step, best


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(length > 0, length, 1.0)).astype(np.float32, copy=False)
