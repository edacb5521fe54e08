"""Geometry of the report's plots: numbers in, SVG coordinates out. The templates draw them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from llama_index_embft.evaluation.records import RetrievalReport
    from llama_index_embft.evaluation.statistics.findings import SystemComparison

# All plots share one drawing area, so that they line up in the page's grid; units are SVG user units.
WIDTH: Final = 460
HEIGHT: Final = 270
LEFT, RIGHT, TOP, BOTTOM = 46, 16, 14, 40
_MOST_POINTS: Final = 600  # more bars than pixels only make the page heavier
_MOST_RANKS: Final = 100


class Axis:
    """A linear scale from data to drawing units, with round tick values."""

    def __init__(self, low: float, high: float, start: float, end: float, ticks: int = 5) -> None:
        if not high > low:
            low, high = low - 0.5, low + 0.5
        self.low, self.high, self.start, self.end = low, high, start, end
        step = _round_step((high - low) / ticks)
        first = math.ceil(low / step - 1e-9)
        last = math.floor(high / step + 1e-9)
        self.values = [i * step for i in range(first, last + 1)]
        self.decimals = max(0, -math.floor(math.log10(step) + 1e-9))

    def __call__(self, value: float) -> float:
        """Where a value lies."""
        return round(self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start), 2)

    @property
    def ticks(self) -> list[dict[str, Any]]:
        """Position and label of each tick."""
        return [{"at": self(value), "label": f"{value:.{self.decimals}f}"} for value in self.values]


def recall_curves(reports: Sequence[RetrievalReport]) -> dict[str, Any] | None:
    """Recall at every rank, a line a system; None where only one hit was asked for."""
    depth = min(max(report.depth for report in reports), _MOST_RANKS)
    if depth < 2:
        return None
    curves = [_recall_at_every_rank(report, min(depth, report.depth)) for report in reports]
    low = math.floor(min(curve.min() for curve in curves) * 10 - 1e-9) / 10
    high = math.ceil(max(curve.max() for curve in curves) * 10 + 1e-9) / 10
    y = Axis(max(0.0, low), min(1.0, high), HEIGHT - BOTTOM, TOP)
    x = Axis(1, depth, LEFT, WIDTH - RIGHT)
    ranks = sorted({1, *(round(value) for value in x.values if 1 <= value <= depth), depth})
    ranks = [rank for rank in ranks if rank == depth or x(depth) - x(rank) > 18]
    return {
        "x": [{"at": x(rank), "label": str(rank)} for rank in ranks],
        "y": y.ticks,
        "lines": [
            {
                "label": report.label,
                "points": " ".join(f"{x(k)},{y(value)}" for k, value in enumerate(curve, 1)),
                "dots": [{"x": x(k), "y": y(value), "title": f"recall@{k} {value:.3f}"} for k, value in _few(curve)],
            }
            for report, curve in zip(reports, curves, strict=True)
        ],
    }


def difference_bars(system: SystemComparison) -> dict[str, Any]:
    """Each query's change, sorted: how much is gained, lost and left alone."""
    values = np.array([change.difference for change in system.changes])
    reach = max(0.1, float(np.abs(values).max(initial=0)))
    y = Axis(-reach, reach, HEIGHT - BOTTOM, TOP, ticks=4)
    if len(values) > _MOST_POINTS:
        values = values[np.linspace(0, len(values) - 1, _MOST_POINTS).round().astype(int)]
    width = (WIDTH - RIGHT - LEFT) / len(values)
    zero = y(0)

    def area(mask: NDArray[np.bool_]) -> str:
        places = np.flatnonzero(mask)
        return "".join(f"M{LEFT + i * width:.2f} {zero}V{y(values[i])}h{width:.2f}V{zero}Z" for i in places.tolist())

    return {"y": y.ticks, "zero": zero, "gains": area(values > 1e-9), "losses": area(values < -1e-9)}


def rank_moves(base: RetrievalReport, tuned: RetrievalReport) -> dict[str, Any]:
    """How many queries moved from one band of ranks to another: rows before, columns after."""
    depth = min(base.depth, tuned.depth)  # deeper, one of them was not asked
    bands = [(low, min(high, depth)) for low, high in ((1, 1), (2, 3), (4, 5), (6, 10), (11, 20)) if low <= depth]
    if depth > 20:
        bands.append((21, depth))
    names = [str(low) if low == high else f"{low}–{high}" for low, high in bands] + ["none"]

    def band(ranks: NDArray[np.int64]) -> NDArray[np.int64]:
        tops = np.array([high for _, high in bands])
        return np.where(ranks == 0, len(bands), np.searchsorted(tops, ranks))

    counts = np.zeros((len(names), len(names)), dtype=int)
    np.add.at(counts, (band(base.first_ranks(depth)), band(tuned.first_ranks(depth))), 1)
    strongest = max(1, int((counts - np.diag(np.diag(counts))).max()))
    return {
        "names": names,
        "rows": [
            {
                "name": names[i],
                "cells": [
                    {
                        "count": int(counts[i, j]),
                        "kind": "same" if i == j else "better" if j < i else "worse",
                        "strength": round(min(1.0, counts[i, j] / strongest), 3),
                    }
                    for j in range(len(names))
                ],
                "total": int(counts[i].sum()),
            }
            for i in range(len(names))
        ],
        "totals": counts.sum(axis=0).tolist(),
    }


def score_histogram(report: RetrievalReport, bins: int = 28) -> dict[str, Any] | None:
    """Scores of relevant and of other hits: the less they overlap, the better a threshold works."""
    relevant: list[float] = []
    others: list[float] = []
    for ids, scores, wanted in zip(report.hit_ids, report.hit_scores, report.relevant, strict=True):
        for doc, score in zip(ids, scores, strict=False):
            (relevant if doc in wanted else others).append(score)
    if not relevant and not others:
        return None
    low, high = float(min(relevant + others)), float(max(relevant + others))
    x = Axis(low, high, LEFT, WIDTH - RIGHT)
    shares = [np.histogram(part, bins, (x.low, x.high))[0] / max(1, len(part)) for part in (others, relevant)]
    y = Axis(0.0, max(0.05, float(max(share.max() for share in shares))), HEIGHT - BOTTOM, TOP, ticks=4)
    width = (WIDTH - RIGHT - LEFT) / bins

    def outline(share: NDArray[np.float64]) -> str:
        steps = "".join(f"V{y(value)}h{width:.2f}" for value in share)
        return f"M{LEFT} {y(0)}{steps}V{y(0)}Z"

    return {
        "label": report.label,
        "x": x.ticks,
        "y": [{"at": tick["at"], "label": f"{float(tick['label']):.0%}"} for tick in y.ticks],
        "others": outline(shares[0]),
        "relevant": outline(shares[1]),
        "n_relevant": len(relevant),
        "n_others": len(others),
    }


class Forest:
    """Differences with their intervals on one scale, a small plot in each row of a table.

    Args:
        ends: The intervals that set the scale; others may be drawn too and are cut at the edge.
    """

    width: Final = 168
    height: Final = 22

    def __init__(self, ends: Sequence[tuple[float, float]]) -> None:
        known = [abs(end) for pair in ends for end in pair if math.isfinite(end)]
        self.reach = max(0.005, *known) if known else 0.005
        self.axis = Axis(-self.reach, self.reach, 6, self.width - 6)

    def row(self, difference: float, ends: tuple[float, float]) -> dict[str, float] | None:
        """Coordinates of one interval; None where there is none."""
        if not all(math.isfinite(end) for end in ends):
            return None
        low, high, at = (self.axis(min(self.reach, max(-self.reach, value))) for value in (*ends, difference))
        return {"zero": self.axis(0), "low": low, "high": high, "at": at}


def _recall_at_every_rank(report: RetrievalReport, depth: int) -> NDArray[np.float64]:
    found = np.zeros(depth)
    for ids, relevant in zip(report.hit_ids, report.relevant, strict=True):
        for rank, doc in enumerate(ids[:depth]):
            if doc in relevant:
                found[rank] += 1 / len(relevant)
    recall: NDArray[np.float64] = np.cumsum(found) / len(report.query_ids)
    return recall


def _few(curve: NDArray[np.float64]) -> list[tuple[int, float]]:
    """Rank and value of at most ten points to mark with a dot."""
    n = len(curve)
    ranks = range(1, n + 1) if n <= 10 else sorted({1, *np.linspace(1, n, 10).round().astype(int).tolist()})
    return [(rank, float(curve[rank - 1])) for rank in ranks]


def _round_step(raw: float) -> float:
    magnitude = 10.0 ** math.floor(math.log10(raw))
    for factor in (1, 2, 2.5, 5, 10):
        if raw <= factor * magnitude * (1 + 1e-9):
            return float(factor * magnitude)
    return 10 * magnitude
