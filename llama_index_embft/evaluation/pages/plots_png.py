"""The plots as PNG: the shapes of the SVG files, drawn with Pillow, which LlamaIndex brings.

Characters that the machine's DejaVu font or Pillow's own does not have, Chinese ones for instance, come out as boxes;
they can stand in the names of systems alone, and the SVG has them.
"""

from __future__ import annotations

import io
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from llama_index_embft._core.svg import (
    COLOUR_OF,
    DASHED,
    PALETTE,
    TRANSLUCENT,
    Area,
    Circle,
    Drawing,
    Group,
    Point,
    Polyline,
    Words,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from llama_index_embft._core.svg import Shape

_SCALE: Final = 2  # pixels a unit in the file
_FINER: Final = 2  # drawn this much larger and then reduced, which smooths the edges
_COLOURS: Final = {"heading": "ink", "grid": "line"} | COLOUR_OF  # what is not named is soft
_ANCHORS: Final = {"start": "ls", "middle": "ms", "end": "rs"}


def to_png(drawing: Drawing) -> bytes:
    """Draw on white; two pixels a unit."""
    from PIL import Image, ImageDraw

    size = (round(drawing.width * _SCALE), round(drawing.height * _SCALE))
    image = Image.new("RGB", (size[0] * _FINER, size[1] * _FINER), "#fff")
    _draw(ImageDraw.Draw(image, "RGBA"), drawing.shapes, (0, 0))
    file = io.BytesIO()
    image.resize(size, Image.Resampling.LANCZOS).save(file, "PNG", optimize=True)
    return file.getvalue()


def _draw(canvas: Any, shapes: Iterable[Shape], origin: Point) -> None:
    unit = _SCALE * _FINER

    def place(point: Point) -> Point:
        return (point[0] + origin[0]) * unit, (point[1] + origin[1]) * unit

    for shape in shapes:
        if isinstance(shape, Group):
            _draw(canvas, shape.shapes, (origin[0] + shape.at[0], origin[1] + shape.at[1]))
            continue
        series, _, kind = shape.style.partition(" ")
        colour = PALETTE[_COLOURS.get(series, "soft")][0]
        if isinstance(shape, Words):
            font = _font(round((15 if series == "heading" else 12.5) * unit))
            canvas.text(place(shape.at), shape.text, fill=colour, font=font, anchor=_ANCHORS[shape.anchor])
        elif isinstance(shape, Circle):
            (x, y), r = place(shape.centre), shape.radius * unit
            canvas.ellipse((x - r, y - r, x + r, y + r), fill=colour)
        elif isinstance(shape, Area):
            opacity = 1.0 if kind == "swatch" else TRANSLUCENT.get(series, 1.0)
            shade = (*(int(colour[i : i + 2], 16) for i in (1, 3, 5)), round(255 * opacity))
            for outline in shape.outlines:
                canvas.polygon([place(point) for point in outline], fill=shade)
        else:
            _draw_line(canvas, shape, [place(point) for point in shape.points], colour)


def _draw_line(canvas: Any, line: Polyline, points: Sequence[Point], colour: str) -> None:
    unit = _SCALE * _FINER
    series, _, kind = line.style.partition(" ")
    for part in _dashes(points, 6 * unit, 4 * unit) if series in DASHED else (points,):
        canvas.line(list(part), fill=colour, width=round((2.5 if kind == "line" else 1) * unit), joint="curve")


def _dashes(points: Sequence[Point], on: float, off: float) -> Iterator[list[Point]]:
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


@lru_cache
def _font(size: int) -> Any:
    from PIL import ImageFont

    try:
        return ImageFont.truetype("DejaVuSans.ttf", size)
    except OSError:
        return ImageFont.load_default(size)
