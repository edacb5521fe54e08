"""The plots as PNG: the geometry of the SVG files, drawn with Pillow, which LlamaIndex brings.

Characters that the machine's DejaVu font or Pillow's own does not have, Chinese ones for instance, come out as boxes;
they can stand in the names of systems alone, and the SVG has them.
"""

from __future__ import annotations

import io
import re
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from llama_index_embft.evaluation.pages import charts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from llama_index_embft.evaluation.pages.plots import Plot

_SCALE: Final = 2  # pixels a unit in the file
_FINER: Final = 2  # drawn this much larger and then reduced, which smooths the edges
_INSET: Final = (20, 44)  # where the drawing area lies, as in the SVG
_INK, _SOFT, _GRID = "#17202c", "#5b6675", "#dde2e9"
_COLOURS: Final = {
    "c-base": "#66758a", "c-t0": "#1f5fd6", "c-t1": "#8a3fc4", "c-t2": "#00796b", "c-t3": "#b3541e", "c-t4": "#a3195b",
    "c-t5": "#5f6b00", "better": "#0e6f3f", "worse": "#ad3a08", "relevant": "#1f5fd6", "others": "#66758a",
}  # fmt: skip
Point = tuple[float, float]


def render_png(plot: Plot) -> bytes:
    """Draw a plot; 1,000 pixels wide, on white."""
    from PIL import Image

    width, height = charts.WIDTH + 40, charts.HEIGHT + 84
    image = Image.new("RGB", (width * _SCALE * _FINER, height * _SCALE * _FINER), "#fff")
    canvas = _Canvas(image)
    canvas.text((20, 32), plot.title, 15, _INK)
    canvas.origin = _INSET
    _frame(canvas, plot)
    if plot.kind == "recall":
        for (colour, _), line in zip(plot.keys, plot.chart["lines"], strict=True):
            points = [_pair(pair) for pair in line["points"].split()]
            canvas.line(points, _COLOURS[colour], 2.5, dashed=colour == "c-base")
            for dot in line["dots"]:
                canvas.dot((dot["x"], dot["y"]), 3.4, _COLOURS[colour])
    elif plot.kind == "differences":
        canvas.fill(plot.chart["gains"], _COLOURS["better"])
        canvas.fill(plot.chart["losses"], _COLOURS["worse"])
        zero = plot.chart["zero"]
        canvas.line([(charts.LEFT, zero), (charts.WIDTH - charts.RIGHT, zero)], _SOFT, 1)
    else:
        canvas.fill(plot.chart["others"], _COLOURS["others"], opacity=0.3)
        canvas.fill(plot.chart["relevant"], _COLOURS["relevant"], opacity=0.45)
    canvas.origin = (0, 0)
    _keys(canvas, plot.keys)
    file = io.BytesIO()
    image.resize((width * _SCALE, height * _SCALE), Image.Resampling.LANCZOS).save(file, "PNG", optimize=True)
    return file.getvalue()


def _frame(canvas: _Canvas, plot: Plot) -> None:
    right, bottom = charts.WIDTH - charts.RIGHT, charts.HEIGHT - charts.BOTTOM
    for tick in plot.chart["y"]:
        canvas.line([(charts.LEFT, tick["at"]), (right, tick["at"])], _GRID, 1)
        canvas.text((charts.LEFT - 6, tick["at"] + 4), tick["label"], 12.5, _SOFT, "rs")
    for tick in plot.chart.get("x", ()):
        canvas.text((tick["at"], bottom + 18), tick["label"], 12.5, _SOFT, "ms")
    canvas.text(((charts.LEFT + right) / 2, charts.HEIGHT - 4), plot.x_title, 12.5, _SOFT, "ms")


def _keys(canvas: _Canvas, keys: Iterable[tuple[str, str]]) -> None:
    x, top = 20.0, charts.HEIGHT + 58
    for colour, label in keys:
        canvas.fill(f"M{x} {top}h11V{top + 11}h-11V{top}Z", _COLOURS[colour])
        x = canvas.text((x + 17, top + 10), label, 12.5, _SOFT) + 17


class _Canvas:
    """Draws in the units of the SVG."""

    def __init__(self, image: Any) -> None:
        from PIL import ImageDraw

        self._draw = ImageDraw.Draw(image, "RGBA")
        self.origin: Point = (0, 0)

    def text(self, at: Point, words: str, size: float, colour: str, anchor: str = "ls") -> float:
        """Write words; returns where they end."""
        font = _font(round(size * _SCALE * _FINER))
        x, y = self._place(at)
        self._draw.text((x, y), words, fill=colour, font=font, anchor=anchor)
        return at[0] + float(font.getlength(words)) / (_SCALE * _FINER)

    def line(self, points: Sequence[Point], colour: str, width: float, *, dashed: bool = False) -> None:
        """Draw a line through points."""
        for part in _dashes(points) if dashed else (points,):
            placed = [self._place(point) for point in part]
            self._draw.line(placed, fill=colour, width=round(width * _SCALE * _FINER), joint="curve")

    def dot(self, at: Point, radius: float, colour: str) -> None:
        """Draw a filled circle."""
        (x, y), r = self._place(at), radius * _SCALE * _FINER
        self._draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)

    def fill(self, path: str, colour: str, *, opacity: float = 1.0) -> None:
        """Fill the areas of a path."""
        shade = (*(int(colour[i : i + 2], 16) for i in (1, 3, 5)), round(255 * opacity))
        for area in _areas(path):
            self._draw.polygon([self._place(point) for point in area], fill=shade)

    def _place(self, point: Point) -> Point:
        x, y = point[0] + self.origin[0], point[1] + self.origin[1]
        return x * _SCALE * _FINER, y * _SCALE * _FINER


def _areas(path: str) -> Iterator[list[Point]]:
    """Corners of each area of a path; the charts use moves, vertical lines and relative horizontal ones only."""
    corners: list[Point] = []
    for command, numbers in re.findall(r"([MVhZ])([^MVhZ]*)", path):
        if command == "M":
            corners = [_pair(numbers)]
        elif command == "V":
            corners.append((corners[-1][0], float(numbers)))
        elif command == "h":
            corners.append((corners[-1][0] + float(numbers), corners[-1][1]))
        else:
            yield corners


def _dashes(points: Sequence[Point], on: float = 6.0, off: float = 4.0) -> Iterator[list[Point]]:
    """Pieces of a line, `on` units long with gaps of `off`."""
    walked = 0.0
    for (x0, y0), (x1, y1) in pairwise(points):
        length = ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5
        at = 0.0
        while at < length:
            phase = (walked + at) % (on + off)
            step = min(length - at, (on if phase < on else on + off) - phase) or length
            if phase < on:
                ends = [(at / length), min(1.0, (at + step) / length)]
                yield [(x0 + (x1 - x0) * end, y0 + (y1 - y0) * end) for end in ends]
            at += max(step, 1e-6)
        walked += length


def _pair(text: str) -> Point:
    x, y = re.split(r"[ ,]", text.strip())
    return float(x), float(y)


@lru_cache
def _font(size: int) -> Any:
    from PIL import ImageFont

    try:
        return ImageFont.truetype("DejaVuSans.ttf", size)
    except OSError:
        return ImageFont.load_default(size)
