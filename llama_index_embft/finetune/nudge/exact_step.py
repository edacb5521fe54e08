"""The step of NUDGE that puts a relevant document first for the most validation queries: found exactly, not by trying.

Each document's score is a known curve over the step: a straight line for variant M, a sinusoid that ends in a constant
for variant N. So the steps at which a relevant document is ahead of all others are intervals whose ends are crossings
of two curves, and the answer is a point that the most intervals cover. Zeighami et al. (arXiv 2409.02343) do so for M;
their code tries 25 steps for N.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from llama_index_embft.finetune.nudge.steps import search_still

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any, TypeAlias

    from numpy.typing import NDArray

    from llama_index_embft.finetune.nudge.steps import Movement

    Interval: TypeAlias = tuple[float, float]

_ROWS_AT_ONCE: Final = 8192  # vectors turned to float64 at a time
# Documents with the same queries arrive at the same place: ahead is who leads by more than the rounding of vectors.
_LEVEL: Final = 1e-7
# Angles closer than this are one: the arc cosine near 1 knows no more, and vectors in float32 hardly differ.
_NARROW: Final = 1e-6


def closed_form_step(
    queries: NDArray[np.float32],
    corpus: NDArray[np.float32],
    positives: Sequence[Sequence[int]],
    moves: Movement,
    *,
    block: int = 32,
    device: Any = None,
) -> tuple[float, int]:
    """The step that puts a relevant document first for the most queries, exactly.

    Args:
        queries: Shape ``(n_queries, dim)``: validation queries.
        corpus: Shape ``(n_docs, dim)``, before the movement; may be memory-mapped.
        positives: Corpus rows relevant to each query. They do not compete with each other.
        moves: The movement.
        block: Queries a time; a block needs about ``48 * block * n_moved`` bytes.
        device: Torch device of the search in what does not move.

    Returns:
        The smallest such step (in the middle of the overlap, or 0 where that is as good), and how many queries have a
        relevant document first there. An angle in radians for variant N, a length for M, as in `Movement.at`.
    """
    cosine = moves.variant == "N"
    place = np.full(len(corpus), -1, dtype=np.int64)
    place[moves.rows] = np.arange(len(moves.rows))
    wanted = [np.unique(np.asarray(rows, dtype=np.int64)) for rows in positives]
    still = search_still(queries, corpus, moves, 1, exclude=wanted, device=device).scores[:, 0].astype(np.float64)
    end = float(moves.furthest.max()) if cosine and len(moves.rows) else np.inf
    intervals: list[Interval] = []
    for first in range(0, len(queries), block):
        some = queries[first : first + block].astype(np.float64)
        if cosine:
            some /= np.maximum(np.linalg.norm(some, axis=1, keepdims=True), 1e-30)
        heights, slopes = _products(some, moves.start), _products(some, moves.towards)
        curves = _Arcs.of(heights, slopes, moves.furthest) if cosine else None
        for row in range(len(some)):
            rows = wanted[first + row]
            moving = place[rows][place[rows] >= 0]
            fixed = _fixed_scores(some[row], corpus, rows[place[rows] < 0], cosine)
            best_fixed = float(fixed.max()) if len(fixed) else None
            if curves is not None:
                found = _ahead_on_arcs(curves, row, moving, best_fixed, still[first + row], end)
            else:
                found = _ahead_on_lines(heights[row], slopes[row], moving, best_fixed, still[first + row])
            intervals += _union(found)
    return most_overlap(intervals)


def most_overlap(intervals: list[Interval]) -> tuple[float, int]:
    """A point that the most intervals cover, and how many do; the intervals of one query must not overlap."""
    events = sorted(event for low, high in intervals if low < high for event in ((low, 1), (high, -1)))
    best, best_step, covered = 0, 0.0, 0
    for n, (where, change) in enumerate(events):
        covered += change
        after = events[n + 1][0] if n + 1 < len(events) else where
        if covered > best and after > where:
            best = covered
            best_step = 0.0 if where == 0.0 else (where + after) / 2 if np.isfinite(after) else 2 * where
    return best_step, best


# --- variant M: straight lines ----------------------------------------------------------------------------------------


def _ahead_on_lines(
    heights: NDArray[np.float64],
    slopes: NDArray[np.float64],
    moving: NDArray[np.int64],
    best_fixed: float | None,
    still: float,
) -> Iterator[Interval]:
    """Steps at which one relevant document is above all others; one interval for each that has any."""
    others = np.ones(len(heights), dtype=bool)
    others[moving] = False
    other_heights, other_slopes = np.append(heights[others], still), np.append(slopes[others], 0.0)
    candidates = [(heights[row], slopes[row]) for row in moving.tolist()]
    if best_fixed is not None:
        candidates.append((best_fixed, 0.0))
    for height, slope in candidates:
        lead, gain = height - other_heights, slope - other_slopes
        if (lead[gain == 0] <= 0).any():
            continue
        rising, falling = gain > 0, gain < 0
        low = float(np.max(-lead[rising] / gain[rising], initial=0.0))
        high = float(np.min(-lead[falling] / gain[falling], initial=np.inf))
        if low < high:
            yield low, high


# --- variant N: arcs --------------------------------------------------------------------------------------------------


class _Arcs(NamedTuple):
    """Scores ``height * cos(x) + slope * sin(x)`` with ``x = min(step, furthest)``; all ``(n_queries, n_moved)``."""

    heights: NDArray[np.float64]
    slopes: NDArray[np.float64]
    furthest: NDArray[np.float64]  # (n_moved,)
    final: NDArray[np.float64]  # the score from `furthest` on
    peak: NDArray[np.float64]  # the highest score on the way

    @classmethod
    def of(cls, heights: NDArray[np.float64], slopes: NDArray[np.float64], furthest: NDArray[np.float32]) -> _Arcs:
        end = furthest.astype(np.float64)
        cos, sin = np.cos(end), np.sin(end)
        final = heights * cos + slopes * sin
        peak = np.maximum(heights, final)
        passes_top = (slopes > 0) & (slopes * cos < heights * sin)
        peak[passes_top] = np.hypot(heights[passes_top], slopes[passes_top])
        return cls(heights, slopes, end, final, peak)


def _ahead_on_arcs(
    arcs: _Arcs, row: int, moving: NDArray[np.int64], best_fixed: float | None, still: float, end: float
) -> Iterator[Interval]:
    """Steps in ``[0, end]`` at which one relevant document is above all others; open intervals."""
    others = np.ones(arcs.heights.shape[1], dtype=bool)
    others[moving] = False
    height, slope, last, peak = arcs.heights[row], arcs.slopes[row], arcs.furthest, arcs.peak[row]
    candidates = [(height[n], slope[n], last[n], arcs.final[row, n]) for n in moving.tolist()]
    if best_fixed is not None:
        candidates.append((best_fixed, 0.0, 0.0, best_fixed))
    for h, s, until, final in candidates:
        bottom = min(h, final)
        if s < 0 and s * np.cos(until) > h * np.sin(until):  # passes its lowest point on the way
            bottom = -float(np.hypot(h, s))
        rivals = np.flatnonzero(others & (peak >= bottom - _LEVEL))  # no other one can ever be ahead
        behind = _behind(
            (h, s, until),
            np.append(height[rivals], still),
            np.append(slope[rivals], 0.0),
            np.append(last[rivals], 0.0),  # what does not move is an arc of length zero
            end,
        )
        yield from _gaps(behind, end)


def _behind(
    arc: tuple[float, float, float],
    heights: NDArray[np.float64],
    slopes: NDArray[np.float64],
    furthest: NDArray[np.float64],
    end: float,
) -> NDArray[np.float64]:
    """Closed intervals of steps at which another document is level or above; shape ``(n, 2)``."""
    height, slope, until = arc
    sooner, later = np.minimum(furthest, until), np.maximum(furthest, until)
    zero = np.zeros_like(heights)
    level = np.full_like(heights, -_LEVEL)
    mine = height * np.cos(until) + slope * np.sin(until)
    theirs = heights * np.cos(furthest) + slopes * np.sin(furthest)
    # 1. Both on their way: the difference is a sinusoid too.
    found = [_above(heights - height, slopes - slope, level, zero, sooner)]
    # 2. One has arrived.
    they_move = furthest > until
    side = np.where(they_move, 1.0, -1.0)
    found.append(
        _above(
            np.where(they_move, heights, -height),
            np.where(they_move, slopes, -slope),
            side * np.where(they_move, mine, theirs) - _LEVEL,
            sooner,
            later,
        )
    )
    # 3. Both have.
    stays = theirs >= mine - _LEVEL
    found.append(np.stack([later[stays], np.full(int(stays.sum()), end)], axis=1))
    return np.concatenate(found)


def _above(
    cosine: NDArray[np.float64],
    sine: NDArray[np.float64],
    bound: NDArray[np.float64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Where ``cosine * cos(x) + sine * sin(x) >= bound`` in ``[low, high]``, within ``[0, pi]``; shape ``(n, 2)``."""
    size, top = np.hypot(cosine, sine), np.arctan2(sine, cosine)
    with np.errstate(divide="ignore", invalid="ignore"):
        half = np.arccos(np.clip(np.where(size > 0, bound / size, np.where(bound <= 0, -1.0, 2.0)), -1.0, 1.0))
    possible = np.where(size > 0, bound <= size, bound <= 0)
    parts = []
    for turn in (-2 * np.pi, 0.0, 2 * np.pi):
        start, stop = np.maximum(top + turn - half, low), np.minimum(top + turn + half, high)
        kept = possible & (start <= stop)
        parts.append(np.stack([start[kept], stop[kept]], axis=1))
    return np.concatenate(parts)


def _gaps(closed: NDArray[np.float64], end: float) -> Iterator[Interval]:
    """What closed intervals leave of ``[0, end]``."""
    ordered = closed[np.argsort(closed[:, 0], kind="stable")]
    reached = np.maximum.accumulate(ordered[:, 1]) if len(ordered) else np.empty(0)
    lows = np.concatenate([[0.0], reached])
    highs = np.concatenate([ordered[:, 0], [end]])
    wide = highs - lows > _NARROW
    yield from zip(lows[wide].tolist(), highs[wide].tolist(), strict=True)


# --- shared -----------------------------------------------------------------------------------------------------------


def _union(intervals: Iterator[Interval]) -> list[Interval]:
    """Overlapping intervals made one."""
    merged: list[Interval] = []
    for low, high in sorted(intervals):
        if merged and low <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return merged


def _products(queries: NDArray[np.float64], vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Inner products in float64 without a float64 copy of all vectors."""
    result = np.empty((len(queries), len(vectors)))
    for start in range(0, len(vectors), _ROWS_AT_ONCE):
        result[:, start : start + _ROWS_AT_ONCE] = queries @ vectors[start : start + _ROWS_AT_ONCE].T.astype(np.float64)
    return result


def _fixed_scores(
    query: NDArray[np.float64], corpus: NDArray[np.float32], rows: NDArray[np.int64], cosine: bool
) -> NDArray[np.float64]:
    vectors = corpus[rows].astype(np.float64)
    if cosine:
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-30)
    scores: NDArray[np.float64] = vectors @ query
    return scores
