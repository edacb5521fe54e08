"""The plots of a report: figures in, shapes out. `_core.svg` writes them, `plots_png` too."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from llama_index_embft._core.svg import Area, Circle, Drawing, Frame, Polyline, Scale, Shape, fragment, histogram

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from llama_index_embft.evaluation.records import RetrievalReport
    from llama_index_embft.evaluation.statistics.findings import ComparisonRecord, SystemComparison

# All plots share one size, so that they line up in the page's grid.
_FRAME: Final = Frame()
_MOST_POINTS: Final = 600  # more bars than pixels only make the page heavier
_MOST_RANKS: Final = 100


@dataclass(frozen=True)
class Plot:
    """One plot, ready to be drawn.

    Attributes:
        name: File name without its ending.
        title: Heading.
        description: What it shows, for those who cannot see it.
        shapes: What is drawn.
        keys: Series and name of each thing shown; a remark has no series.
    """

    name: str
    title: str
    description: str
    shapes: tuple[Shape, ...]
    keys: tuple[tuple[str, str], ...]

    def to_fragment(self) -> str:
        """As an element of a page."""
        return fragment(self.shapes, _FRAME.width, _FRAME.height, self.description)

    def to_drawing(self) -> Drawing:
        """As a picture of its own, with heading and legend."""
        return Drawing.of(self.title, [self.shapes], _FRAME, [key for key in self.keys if key[0]])


def plots_of(comparison: ComparisonRecord) -> list[Plot]:
    """Recall curves, each system's change query by query, and each report's score histogram."""
    reports = [comparison.base, *(system.report for system in comparison.systems)]
    several = len(comparison.systems) > 1
    plots = [recall_curves(reports)]
    for i, system in enumerate(comparison.systems, 1):
        plot = difference_bars(system, comparison.primary)
        if several:
            plot = replace(plot, name=f"differences-{i}", title=f"{plot.title}: {system.label}")
        plots.append(plot)
    for i, report in enumerate(reports):
        scores = score_histogram(report)
        name = "base" if i == 0 else f"tuned-{i}" if several else "tuned"
        plots.append(scores and replace(scores, name=f"scores-{name}"))
    return [plot for plot in plots if plot is not None]


def recall_curves(reports: Sequence[RetrievalReport]) -> Plot | None:
    """Recall at every rank, a line a system; None where only one hit was asked for."""
    depth = min(max(report.depth for report in reports), _MOST_RANKS)
    if depth < 2:
        return None
    curves = [_recall_at_every_rank(report, min(depth, report.depth)) for report in reports]
    low = math.floor(min(curve.min() for curve in curves) * 10 - 1e-9) / 10
    high = math.ceil(max(curve.max() for curve in curves) * 10 + 1e-9) / 10
    y = _FRAME.y(max(0.0, low), min(1.0, high))
    x = _FRAME.x(1, depth)
    ranks = sorted({1, *(round(value) for value in x.values if 1 <= value <= depth), depth})
    ranks = [rank for rank in ranks if rank == depth or x(depth) - x(rank) > 18]
    shapes = _FRAME.axes([(x(rank), str(rank)) for rank in ranks], y.ticks(), "hits looked at")
    keys = []
    for i, (report, curve) in enumerate(zip(reports, curves, strict=True)):
        series = "c-base" if i == 0 else f"c-t{(i - 1) % 6}"
        keys.append((series, report.label))
        shapes.append(Polyline(tuple((x(k), y(value)) for k, value in enumerate(curve, 1)), f"{series} line"))
        shapes += [
            Circle((x(k), y(value)), 3.4, f"{series} dot", f"{report.label}: recall@{k} {value:.3f}")
            for k, value in _few(curve)
        ]
    names = " and ".join(report.label for report in reports)
    return Plot("recall", "Recall by number of hits", f"Recall at each rank for {names}", tuple(shapes), tuple(keys))


def difference_bars(system: SystemComparison, metric: str) -> Plot:
    """Each query's change, sorted: how much is gained, lost and left alone."""
    values = np.array([change.difference for change in system.changes])
    reach = max(0.1, float(np.abs(values).max(initial=0)))
    y = _FRAME.y(-reach, reach, ticks=4)
    if len(values) > _MOST_POINTS:
        values = values[np.linspace(0, len(values) - 1, _MOST_POINTS).round().astype(int)]
    edges = np.linspace(_FRAME.left, _FRAME.width - _FRAME.right, len(values) + 1).round(2).tolist()
    zero = y(0)

    def bars(mask: NDArray[np.bool_], series: str) -> Area:
        tops = [(edges[i], edges[i + 1], y(values[i])) for i in np.flatnonzero(mask).tolist()]
        return Area(tuple(((x0, zero), (x0, top), (x1, top), (x1, zero)) for x0, x1, top in tops), series)

    test = system.metrics[metric].test
    return Plot(
        "differences",
        f"Change of {metric}, query by query",
        f"{test.wins} queries gained, {test.losses} lost, {test.ties} did not change",
        (
            *_FRAME.axes((), y.ticks(), "queries, from most improved to most harmed"),
            bars(values > 1e-9, "better"),
            bars(values < -1e-9, "worse"),
            _FRAME.level(zero, "zero"),
        ),
        (("better", f"{test.wins} improved"), ("worse", f"{test.losses} harmed"), ("", f"{test.ties} unchanged")),
    )


def score_histogram(report: RetrievalReport) -> Plot | None:
    """Scores of relevant and of other hits: the less they overlap, the better a threshold works."""
    scores: dict[str, list[float]] = {"others": [], "relevant": []}
    for ids, values, wanted in zip(report.hit_ids, report.hit_scores, report.relevant, strict=True):
        for doc, score in zip(ids, values, strict=False):
            scores["relevant" if doc in wanted else "others"].append(score)
    n_others, n_relevant = map(len, scores.values())
    if not n_others + n_relevant:
        return None
    shapes = histogram({k: np.array(v) for k, v in scores.items()}, _FRAME, bins=28, x_title="score")
    return Plot(
        "scores",
        f"Scores of hits: {report.label}",
        f"Scores of {n_relevant} relevant and {n_others} other hits of {report.label}",
        tuple(shapes),
        (("relevant", f"{n_relevant} relevant"), ("others", f"{n_others} others"), ("", "share of each")),
    )


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

    def cells(i: int) -> Iterator[dict[str, Any]]:
        for j in range(len(names)):
            kind = "same" if i == j else "better" if j < i else "worse"
            strength = round(min(1.0, counts[i, j] / strongest), 3)
            yield {"count": int(counts[i, j]), "kind": kind, "strength": strength}

    rows = [{"name": name, "cells": list(cells(i)), "total": int(counts[i].sum())} for i, name in enumerate(names)]
    return {"names": names, "rows": rows, "totals": counts.sum(axis=0).tolist()}


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
        self._scale = Scale(-self.reach, self.reach, 6, self.width - 6)

    def row(self, difference: float, ends: tuple[float, float]) -> str | None:
        """One interval as an element of a page; None where there is none."""
        if not all(math.isfinite(end) for end in ends):
            return None
        low, high, at = (self._scale(min(self.reach, max(-self.reach, value))) for value in (*ends, difference))
        zero, middle = self._scale(0), self.height / 2
        shapes = (
            Polyline(((zero, 1), (zero, self.height - 1)), "zero"),
            Polyline(((low, middle), (high, middle)), "ci"),
            Circle((at, middle), 4, "at"),
        )
        return fragment(shapes, self.width, self.height, style="forest")


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
