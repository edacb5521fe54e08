"""Plots as data: scales, frames and shapes, and the one writer that turns them into SVG.

A plot is a sequence of shapes in drawing units (SVG user units; y grows downwards). What a shape looks like is said by
its style, a CSS class whose first word names the series; `PALETTE` has the colours of all series in light and dark. A
writer of another kind (PNG) draws the same shapes.
"""

from __future__ import annotations

import math
import unicodedata
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

Point = tuple[float, float]
Tick = tuple[float, str]

# Name -> colour on light, colour on dark.
PALETTE: Final = {
    "bg": ("#ffffff", "#1a2029"), "ink": ("#17202c", "#e7ecf3"), "soft": ("#5b6675", "#9ba8b8"),
    "line": ("#dde2e9", "#2f3845"), "base": ("#66758a", "#94a3b8"), "t0": ("#1f5fd6", "#7aaaf8"),
    "t1": ("#8a3fc4", "#c69bf0"), "t2": ("#00796b", "#4fc9b6"), "t3": ("#b3541e", "#f0a06a"),
    "t4": ("#a3195b", "#f08db8"), "t5": ("#5f6b00", "#c3cf55"), "good": ("#0e6f3f", "#57c98a"),
    "bad": ("#ad3a08", "#f58a5b"),
}  # fmt: skip
# Series -> name in the palette.
COLOUR_OF: Final = {
    "c-base": "base", **{f"c-t{i}": f"t{i}" for i in range(6)}, "better": "good", "worse": "bad", "relevant": "t0",
    "others": "base", "loss": "base", "val": "t0", "guard": "t3", "chosen": "good", "positives": "good",
    "negatives": "bad",
}  # fmt: skip
DASHED: Final = frozenset({"c-base", "guard"})
"""Series whose lines are dashed, so that they can be told apart without colour."""
TRANSLUCENT: Final = {"relevant": 0.45, "others": 0.3, "positives": 0.35, "negatives": 0.35}
"""Series whose areas lie over each other -> their opacity."""
_SWATCH: Final = 11


@dataclass(frozen=True)
class Polyline:
    """A line through points."""

    points: tuple[Point, ...]
    style: str


@dataclass(frozen=True)
class Area:
    """Filled areas, each given by its corners."""

    outlines: tuple[tuple[Point, ...], ...]
    style: str


@dataclass(frozen=True)
class Circle:
    """A circle, with a title that shows under the pointer."""

    centre: Point
    radius: float
    style: str
    title: str = ""


@dataclass(frozen=True)
class Words:
    """One line of text; ``at`` is its baseline."""

    at: Point
    text: str
    style: str
    anchor: Literal["start", "middle", "end"] = "start"


@dataclass(frozen=True)
class Group:
    """Shapes in a coordinate system of their own, whose origin lies at ``at``."""

    at: Point
    shapes: tuple[Shape, ...]


Shape = Polyline | Area | Circle | Words | Group


class Scale:
    """A linear scale from data to drawing units, with round tick values.

    Args:
        low: Least value; where it equals ``high``, the scale reaches 0.5 to both sides.
        high: Greatest value.
        start: Where ``low`` lies.
        end: Where ``high`` lies.
        ticks: About this many.
    """

    def __init__(self, low: float, high: float, start: float, end: float, ticks: int = 5) -> None:
        if not high > low:
            low, high = low - 0.5, low + 0.5
        self.low, self.high, self.start, self.end = low, high, start, end
        step = _round_step((high - low) / ticks)
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        self.values = [round(i * step, 10) + 0.0 for i in range(first, last + 1)]

    def __call__(self, value: float) -> float:
        """Where a value lies."""
        return round(self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start), 2)

    def ticks(self, *, whole: bool = False) -> list[Tick]:
        """Place and label of each tick, all with as many decimals as the longest needs; `whole`: whole numbers only."""
        values = [value for value in self.values if not whole or value.is_integer()]
        decimals = max((len(f"{value:.10f}".rstrip("0").partition(".")[2]) for value in values), default=0)
        return [(self(value), f"{value:.{decimals}f}") for value in values]


@dataclass(frozen=True)
class Frame:
    """Size of a plot and the margins round its drawing area."""

    width: float = 460
    height: float = 270
    left: float = 46
    right: float = 16
    top: float = 14
    bottom: float = 40

    def x(self, low: float, high: float, ticks: int = 5) -> Scale:
        """The horizontal scale."""
        return Scale(low, high, self.left, self.width - self.right, ticks)

    def y(self, low: float, high: float, ticks: int = 5) -> Scale:
        """The vertical scale."""
        return Scale(low, high, self.height - self.bottom, self.top, ticks)

    def level(self, y: float, style: str) -> Polyline:
        """A line across the drawing area."""
        return Polyline(((self.left, y), (self.width - self.right, y)), style)

    def axes(self, x_ticks: Iterable[Tick], y_ticks: Iterable[Tick], x_title: str) -> list[Shape]:
        """Grid lines, labels of both axes, and what the horizontal one shows."""
        shapes: list[Shape] = []
        for at, label in y_ticks:
            shapes.append(self.level(at, "grid"))
            shapes.append(Words((self.left - 6, at + 4), label, "tick", "end"))
        floor = self.height - self.bottom
        shapes += [Words((at, floor + 18), label, "tick", "middle") for at, label in x_ticks]
        middle = (self.left + self.width - self.right) / 2
        return [*shapes, Words((middle, self.height - 4), x_title, "title", "middle")]


def histogram(groups: Mapping[str, NDArray[Any]], frame: Frame, *, bins: int, x_title: str) -> list[Shape]:
    """Outlines of the shares of values in each bin, one a group and all to one scale."""
    known = [values for values in groups.values() if len(values)]
    x = frame.x(min(float(values.min()) for values in known), max(float(values.max()) for values in known))
    shares = {
        name: np.histogram(values, bins, (x.low, x.high))[0] / max(1, len(values)) for name, values in groups.items()
    }
    y = frame.y(0.0, max(0.05, *(float(share.max()) for share in shares.values())), ticks=4)
    edges = [round(float(edge), 2) for edge in np.linspace(x.start, x.end, bins + 1)]
    shapes = frame.axes(x.ticks(), [(y(value), f"{value:.0%}") for value in y.values], x_title)
    for name, share in shares.items():
        steps = [(edges[i + side], y(value)) for i, value in enumerate(share.tolist()) for side in (0, 1)]
        shapes.append(Area((((edges[0], y(0)), *steps, (edges[-1], y(0))),), name))
    return shapes


@dataclass(frozen=True)
class Drawing:
    """A picture of its own: a heading, plots side by side, and what their series are.

    Attributes:
        title: The heading.
        width: Drawing units.
        height: Drawing units.
        shapes: All that is drawn.
    """

    title: str
    width: float
    height: float
    shapes: tuple[Shape, ...]

    @classmethod
    def of(cls, title: str, plots: Sequence[Sequence[Shape]], frame: Frame, keys: Iterable[tuple[str, str]]) -> Drawing:
        """Arrange plots of one size.

        Args:
            title: The heading.
            plots: Shapes of each plot.
            frame: Their size.
            keys: Series and its name, for the legend.
        """
        gap, head, foot = 20.0, 44.0, 40.0
        width, height = gap + len(plots) * (frame.width + gap), head + frame.height + foot
        shapes: list[Shape] = [Words((gap, 32), title, "heading")]
        shapes += [Group((gap + i * (frame.width + gap), head), tuple(plot)) for i, plot in enumerate(plots)]
        at, top = gap, height - 26
        for series, name in keys:
            corners = ((at, top), (at + _SWATCH, top), (at + _SWATCH, top + _SWATCH), (at, top + _SWATCH))
            shapes += [Area((corners,), f"{series} swatch"), Words((at + 17, top + 10), name, "key")]
            at += 34 + sum(13 if unicodedata.east_asian_width(letter) in "WF" else 7 for letter in name)
        return cls(title, width, height, tuple(shapes))

    def to_svg(self) -> str:
        """A file of its own; it follows the reader's dark mode."""
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width:g} {self.height:g}" '
            f'width="{self.width * 4 / 3:.0f}" role="img" aria-labelledby="title">\n'
            f'<title id="title">{escape(self.title)}</title>\n<style>{stylesheet()}</style>\n'
            f'<rect class="back" width="100%" height="100%" rx="8"/>\n{elements(self.shapes)}\n</svg>\n'
        )


def fragment(shapes: Iterable[Shape], width: float, height: float, description: str = "", style: str = "") -> str:
    """An SVG element for a page, which brings the style sheet.

    Args:
        shapes: What is drawn.
        width: Drawing units.
        height: Drawing units.
        description: For those who cannot see it; empty: the picture repeats what stands beside it.
        style: CSS class.
    """
    shown = f'role="img" aria-label="{escape(description)}"' if description else 'aria-hidden="true"'
    size = f' class="{style}" width="{width:g}" height="{height:g}"' if style else ""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}"{size} {shown}>'
        f"{elements(shapes)}</svg>"
    )


def elements(shapes: Iterable[Shape]) -> str:
    """The shapes as SVG elements; every text is escaped."""
    return "".join(map(_element, shapes))


def stylesheet() -> str:
    """CSS of a file of its own: colours in light and dark, texts, axes, series."""
    light, dark = (" ".join(f"--{name}: {pair[i]};" for name, pair in PALETTE.items()) for i in (0, 1))
    rules = [
        f'svg {{ {light} font-family: system-ui, "Segoe UI", Roboto, "Noto Sans", sans-serif; }}',
        f"@media (prefers-color-scheme: dark) {{ svg {{ {dark} }} }}",
        ".back { fill: var(--bg); } .heading { fill: var(--ink); font-size: 15px; font-weight: 600; }",
        ".name { fill: var(--ink); font-size: 13px; } .tick, .title, .key { fill: var(--soft); font-size: 12.5px; }",
        ".grid { stroke: var(--line); } .zero { stroke: var(--soft); }",
        "text.chosen { font-size: 12px; }",
        series_rules(),
    ]
    return "\n".join(rules)


def series_rules() -> str:
    """CSS of lines, areas and series, for a page that defines the colours of `PALETTE` as variables."""
    rules = [
        "polyline { fill: none; } .line { stroke-width: 2.5; stroke-linejoin: round; }",
        ".mark { fill: none; stroke: var(--good); stroke-width: 2.5; }",
    ]
    for series, colour in COLOUR_OF.items():
        dashes = " stroke-dasharray: 6 4;" if series in DASHED else ""
        rules.append(f"polyline.{series} {{ stroke: var(--{colour});{dashes} }}")
        rules.append(f".{series}:not(polyline) {{ fill: var(--{colour}); }}")
    for series, opacity in TRANSLUCENT.items():
        rules.append(f"path.{series}:not(.swatch) {{ fill-opacity: {opacity}; stroke: var(--{COLOUR_OF[series]}); }}")
    rules.append("polyline.chosen { stroke-width: 1.5; stroke-dasharray: 3 3; }")
    return "\n".join(rules)


def _element(shape: Shape) -> str:
    if isinstance(shape, Group):
        return f'<g transform="translate({shape.at[0]:g} {shape.at[1]:g})">{elements(shape.shapes)}</g>'
    if isinstance(shape, Words):
        anchor = "" if shape.anchor == "start" else f' text-anchor="{shape.anchor}"'
        x, y = shape.at
        return f'<text class="{shape.style}" x="{x:g}" y="{y:g}"{anchor}>{escape(shape.text)}</text>'
    if isinstance(shape, Circle):
        title = f"<title>{escape(shape.title)}</title>" if shape.title else ""
        x, y = shape.centre
        return f'<circle class="{shape.style}" cx="{x}" cy="{y}" r="{shape.radius:g}">{title}</circle>'
    if isinstance(shape, Area):
        path = "".join(f"M{'L'.join(f'{x:g} {y:g}' for x, y in outline)}Z" for outline in shape.outlines)
        return f'<path class="{shape.style}" d="{path}"/>'
    return f'<polyline class="{shape.style}" points="{" ".join(f"{x},{y}" for x, y in shape.points)}"/>'


def _round_step(raw: float) -> float:
    magnitude = 10.0 ** math.floor(math.log10(raw))
    for factor in (1, 2, 2.5, 5, 10):
        if raw <= factor * magnitude * (1 + 1e-9):
            return float(factor * magnitude)
    return 10 * magnitude
