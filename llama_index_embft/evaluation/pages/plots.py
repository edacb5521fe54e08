"""The report's plots as files of their own, for pull requests and papers.

SVG follows the reader's dark mode; PNG goes wherever SVG does not.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llama_index_embft._core.files import atomic_write_bytes
from llama_index_embft.errors import ConfigError
from llama_index_embft.evaluation.pages import charts

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from llama_index_embft.evaluation.comparison import Comparison

PlotFormat = Literal["svg", "png"]


@dataclass(frozen=True)
class Plot:
    """One plot, ready to be drawn.

    Attributes:
        name: File name without its ending.
        kind: ``"recall"``, ``"differences"`` or ``"scores"``.
        title: Heading.
        chart: Geometry, from `charts`.
        keys: Colour class and label of each thing shown.
        x_title: What the horizontal axis shows.
        more: What the SVG template wants besides.
    """

    name: str
    kind: Literal["recall", "differences", "scores"]
    title: str
    chart: dict[str, Any]
    keys: list[tuple[str, str]]
    x_title: str
    more: dict[str, Any] = field(default_factory=dict)


def plots_of(comparison: Comparison) -> list[Plot]:
    """Recall curves, each system's change query by query, and each report's score histogram."""
    reports = [comparison.base, *(system.report for system in comparison.systems)]
    plots: list[Plot] = []
    recall = charts.recall_curves(reports)
    if recall is not None:
        keys = [("c-base" if i == 0 else f"c-t{(i - 1) % 6}", report.label) for i, report in enumerate(reports)]
        plots.append(Plot("recall", "recall", "Recall by number of hits", recall, keys, "hits looked at"))
    several = len(comparison.systems) > 1
    for i, system in enumerate(comparison.systems, 1):
        test = system.metrics[comparison.primary].test
        plots.append(
            Plot(
                f"differences-{i}" if several else "differences",
                "differences",
                f"Change of {comparison.primary}, query by query" + (f": {system.label}" if several else ""),
                charts.difference_bars(system),
                [("better", f"{test.wins} improved"), ("worse", f"{test.losses} harmed")],
                "queries, from most improved to most harmed",
                {"system": system, "primary": comparison.primary},
            )
        )
    for i, report in enumerate(reports):
        histogram = charts.score_histogram(report)
        if histogram is not None:
            name = "base" if i == 0 else f"tuned-{i}" if several else "tuned"
            counts = [
                ("relevant", f"{histogram['n_relevant']} relevant"),
                ("others", f"{histogram['n_others']} others"),
            ]
            plots.append(
                Plot(f"scores-{name}", "scores", f"Scores of hits: {report.label}", histogram, counts, "score")
            )
    return plots


def draw_plots(comparison: Comparison) -> dict[str, str]:
    """File name -> SVG."""
    return {f"{plot.name}.svg": _render(plot) for plot in plots_of(comparison)}


def save_plots(
    comparison: Comparison, folder: str | os.PathLike[str], formats: Sequence[PlotFormat] = ("svg", "png")
) -> list[Path]:
    """Write the plots into a folder, each file whole or not at all; returns their paths.

    Args:
        comparison: What to draw.
        folder: Made where it is missing.
        formats: ``"svg"`` and ``"png"`` (1,000 pixels wide, light).

    Raises:
        ConfigError: A format is neither.
        OutputError: A file cannot be written.
    """
    from llama_index_embft.evaluation.pages.plots_png import render_png

    unknown = [name for name in formats if name not in ("svg", "png")]
    if unknown:
        raise ConfigError(f"Plots are written as 'svg' or 'png', not as {unknown[0]!r}.")
    paths = []
    for plot in plots_of(comparison):
        for ending in formats:
            path = Path(folder) / f"{plot.name}.{ending}"
            atomic_write_bytes(path, render_png(plot) if ending == "png" else _render(plot).encode())
            paths.append(path)
    return paths


def _render(plot: Plot) -> str:
    from llama_index_embft.evaluation.pages.page import environment

    more = {"system": None, "primary": None} | plot.more
    template = environment().get_template("plot.svg.j2")
    drawn = template.render(kind=plot.kind, title=plot.title, chart=plot.chart, keys=plot.keys, size=charts, **more)
    return drawn.strip() + "\n"
