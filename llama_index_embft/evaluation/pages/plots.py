"""The report's plots as files of their own, for pull requests and papers.

SVG follows the reader's dark mode; PNG goes wherever SVG does not. Both are drawn from the same shapes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from llama_index_embft._core.checks import check_choice
from llama_index_embft._core.files import atomic_write_bytes
from llama_index_embft.evaluation.pages.charts import plots_of
from llama_index_embft.evaluation.pages.plots_png import to_png

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from llama_index_embft.evaluation.statistics.findings import ComparisonRecord

PlotFormat = Literal["svg", "png"]


def save_plots(
    comparison: ComparisonRecord, folder: str | os.PathLike[str], formats: Sequence[PlotFormat] = ("svg", "png")
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
    for ending in formats:
        check_choice("formats", ending, ("svg", "png"))
    paths = []
    for plot in plots_of(comparison):
        drawing = plot.to_drawing()
        for ending in formats:
            path = Path(folder) / f"{plot.name}.{ending}"
            atomic_write_bytes(path, to_png(drawing) if ending == "png" else drawing.to_svg().encode())
            paths.append(path)
    return paths
