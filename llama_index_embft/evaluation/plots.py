"""The report's plots as SVG files of their own, for pull requests and papers; they follow the reader's dark mode."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index_embft._files import atomic_write_text
from llama_index_embft.evaluation import charts
from llama_index_embft.evaluation.report import environment

if TYPE_CHECKING:
    import os

    from llama_index_embft.evaluation.comparison import Comparison


def draw_plots(comparison: Comparison) -> dict[str, str]:
    """File name -> SVG: recall curves, each system's change query by query, and each report's score histogram."""
    reports = [comparison.base, *(system.report for system in comparison.systems)]
    drawn: dict[str, str] = {}
    recall = charts.recall_curves(reports)
    if recall is not None:
        keys = [("c-base" if i == 0 else f"c-t{(i - 1) % 6}", report.label) for i, report in enumerate(reports)]
        drawn["recall.svg"] = _render("recall", "Recall by number of hits", recall, keys)
    several = len(comparison.systems) > 1
    for i, system in enumerate(comparison.systems, 1):
        test = system.metrics[comparison.primary].test
        drawn[f"differences-{i}.svg" if several else "differences.svg"] = _render(
            "differences",
            f"Change of {comparison.primary}, query by query" + (f": {system.label}" if several else ""),
            charts.difference_bars(system),
            [("better", f"{test.wins} improved"), ("worse", f"{test.losses} harmed")],
            system=system,
            primary=comparison.primary,
        )
    for i, report in enumerate(reports):
        histogram = charts.score_histogram(report)
        if histogram is not None:
            name = "base" if i == 0 else f"tuned-{i}" if several else "tuned"
            drawn[f"scores-{name}.svg"] = _render(
                "scores",
                f"Scores of hits: {report.label}",
                histogram,
                [("relevant", f"{histogram['n_relevant']} relevant"), ("others", f"{histogram['n_others']} others")],
            )
    return drawn


def save_plots(comparison: Comparison, folder: str | os.PathLike[str]) -> list[Path]:
    """Write the plots into a folder, each file whole or not at all; returns their paths.

    Raises:
        OutputError: A file cannot be written.
    """
    paths = []
    for name, svg in draw_plots(comparison).items():
        path = Path(folder) / name
        atomic_write_text(path, svg)
        paths.append(path)
    return paths


def _render(kind: str, title: str, chart: dict[str, Any], keys: list[tuple[str, str]], **more: Any) -> str:
    more = {"system": None, "primary": None} | more
    template = environment().get_template("plot.svg.j2")
    return template.render(kind=kind, title=title, chart=chart, keys=keys, size=charts, **more).strip() + "\n"
