"""The learning curve as one SVG: loss, validation and guard by step, and the merge curve; follows dark mode."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING, Final

from llama_index_embft.evaluation.pages.charts import Axis

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# SVG user units. Panels stand side by side and share their size.
_WIDTH: Final = 380
_HEIGHT: Final = 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 18, 14, 40
_GAP: Final = 18
_HEAD: Final = 66
_FOOT: Final = 44
# The report's own palette.
_STYLE: Final = """svg { --bg: #fff; --ink: #17202c; --soft: #5b6675; --line: #dde2e9; --loss: #66758a; \
--val: #1f5fd6; --guard: #b3541e; --best: #0e6f3f; \
font-family: system-ui, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
@media (prefers-color-scheme: dark) { svg { --bg: #1a2029; --ink: #e7ecf3; --soft: #9ba8b8; --line: #2f3845; \
--loss: #94a3b8; --val: #7aaaf8; --guard: #f0a06a; --best: #57c98a; } }
.back { fill: var(--bg); } .heading { fill: var(--ink); font-size: 15px; font-weight: 600; }
.name { fill: var(--ink); font-size: 13px; } .tick, .axis, .key { fill: var(--soft); font-size: 12px; }
.grid { stroke: var(--line); } .line { fill: none; stroke-width: 2.5; stroke-linejoin: round; }
.line.loss { stroke: var(--loss); } .line.val { stroke: var(--val); } .line.guard { stroke: var(--guard); \
stroke-dasharray: 6 4; }
.loss.dot, .loss.swatch { fill: var(--loss); } .val.dot, .val.swatch { fill: var(--val); } \
.guard.dot, .guard.swatch { fill: var(--guard); }
.chosen { stroke: var(--best); stroke-width: 1.5; stroke-dasharray: 3 3; } .chosen-name { fill: var(--best); \
font-size: 12px; font-weight: 600; } .mark { fill: none; stroke: var(--best); stroke-width: 2.5; }"""


def training_svg(
    history: Sequence[Mapping[str, float]],
    *,
    metric: str = "ndcg@10",
    best_step: int | None = None,
    losses: Sequence[Mapping[str, float]] | None = None,
    merge_curve: Sequence[Mapping[str, float]] | None = None,
    merge_weight: float | None = None,
    title: str = "Training",
) -> str | None:
    """Draw what is known of a run.

    Args:
        history: Records with ``step`` and any of ``loss``, the metric, and the metric with ``guard_`` in front, as in
            `FinetuneResult.history`. Values that are not finite are left out.
        metric: The metric that chose the best step.
        best_step: Marked in the panel of the metric; None: nothing is marked.
        losses: Records with ``step`` and ``loss``, more of them than evaluations; None: those of `history`.
        merge_curve: Records with ``weight`` and the metrics, as in `MergeChoice.curve`.
        merge_weight: Marked in the panel of the merge.
        title: Heading.

    Returns:
        A standalone SVG; None where there is nothing to draw.
    """
    panels = [
        _panel("Training loss", "step", {"loss": _points(losses or history, "step", "loss")}, None, ""),
        _metric_panel("step", "step", history, metric, best_step, f"best: step {best_step}"),
        _metric_panel(
            "merge weight",
            "share of the trained weights (0: base model)",
            merge_curve or (),
            metric,
            merge_weight,
            f"chosen: {merge_weight}",
        ),
    ]
    drawn = [panel for panel in panels if panel]
    if not drawn:
        return None
    width = len(drawn) * (_WIDTH + _GAP) + _GAP
    height = _HEAD + _HEIGHT + _FOOT
    moved = [f'<g transform="translate({_GAP + i * (_WIDTH + _GAP)} {_HEAD})">{p}</g>' for i, p in enumerate(drawn)]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img" '
            'aria-labelledby="title">',
            f'<title id="title">{escape(title)}</title>',
            f"<style>{_STYLE}</style>",
            '<rect class="back" width="100%" height="100%" rx="8"/>',
            f'<text class="heading" x="{_GAP + 2}" y="28">{escape(title)}</text>',
            *moved,
            _keys("".join(drawn), height - 20),
            "</svg>\n",
        ]
    )


def _points(records: Sequence[Mapping[str, float]], x: str, y: str) -> list[tuple[float, float]]:
    pairs = [(float(r[x]), float(r[y])) for r in records if r.get(x) is not None and r.get(y) is not None]
    return sorted((pair for pair in pairs if all(map(math.isfinite, pair))), key=lambda pair: pair[0])


def _metric_panel(
    by: str, x_name: str, records: Sequence[Mapping[str, float]], metric: str, chosen: float | None, chosen_name: str
) -> str:
    """The metric on validation; with a guard both as changes, since their levels may be far apart."""
    x = "step" if by == "step" else "weight"
    val, guard = _points(records, x, metric), _points(records, x, f"guard_{metric}")
    name = f"{metric} by {by}"
    if val and guard:
        name = f"Change of {metric} by {by} (base: {val[0][1]:.3f}, guard {guard[0][1]:.3f})"
        val, guard = ([(at, value - line[0][1]) for at, value in line] for line in (val, guard))
    return _panel(name, x_name, {"val": val, "guard": guard}, chosen, chosen_name)


def _panel(
    name: str, x_name: str, lines: Mapping[str, list[tuple[float, float]]], chosen: float | None, chosen_name: str
) -> str:
    """One plot: a line a series, the chosen place marked; empty where no series has a point."""
    points = [point for line in lines.values() for point in line]
    if not points:
        return ""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    margin = 0.06 * (max(ys) - min(ys)) or 0.01
    x = Axis(min(xs), max(xs), _LEFT, _WIDTH - _RIGHT, ticks=4)
    y = Axis(min(ys) - margin, max(ys) + margin, _HEIGHT - _BOTTOM, _TOP)
    parts = [f'<text class="name" x="2" y="-8">{escape(name)}</text>']
    for at, label in _ticks(y):
        parts.append(f'<path class="grid" d="M{_LEFT} {at}H{_WIDTH - _RIGHT}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 7}" y="{at + 4}" text-anchor="end">{label}</text>')
    for at, label in _ticks(x, whole=x_name == "step"):
        if x_name != "step" or label.isdigit():
            parts.append(
                f'<text class="tick" x="{at}" y="{_HEIGHT - _BOTTOM + 17}" text-anchor="middle">{label}</text>'
            )
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text class="axis" x="{middle}" y="{_HEIGHT - 4}" text-anchor="middle">{escape(x_name)}</text>')
    if chosen is not None and x.low <= chosen <= x.high:
        parts.append(_mark(x(chosen), chosen_name))
    for kind, line in lines.items():
        parts.append(_line(kind, line, x, y))
    main = next(iter(lines.values()))
    for at, value in main:
        if chosen is not None and math.isclose(at, chosen):
            parts.append(f'<circle class="mark" cx="{x(at)}" cy="{y(value)}" r="7"/>')
    return "".join(parts)


def _ticks(axis: Axis, *, whole: bool = False) -> list[tuple[float, str]]:
    """Place and label of each tick, all with as many decimals as the longest needs."""
    values = [round(value, 10) + 0.0 for value in axis.values]
    values = [value for value in values if not whole or value.is_integer()]
    decimals = max((len(f"{value:.10f}".rstrip("0").partition(".")[2]) for value in values), default=0)
    return [(axis(value), f"{value:.{decimals}f}") for value in values]


def _line(kind: str, points: Sequence[tuple[float, float]], x: Axis, y: Axis) -> str:
    if not points:
        return ""
    places = " ".join(f"{x(at)},{y(value)}" for at, value in points)
    dots = ""
    if len(points) <= 40:  # closer together, dots are no longer dots
        dots = "".join(
            f'<circle class="{kind} dot" cx="{x(at)}" cy="{y(value)}" r="3"><title>{at:g}: {value:.4f}</title></circle>'
            for at, value in points
        )
    return f'<polyline class="{kind} line" points="{places}"/>{dots}'


def _mark(at: float, name: str) -> str:
    anchor, shift = ("end", -6) if at > _WIDTH / 2 else ("start", 6)
    bottom = _HEIGHT - _BOTTOM
    return (
        f'<path class="chosen" d="M{at} {_TOP}V{bottom}"/>'
        f'<text class="chosen-name" x="{at + shift}" y="{bottom - 7}" text-anchor="{anchor}">{escape(name)}</text>'
    )


def _keys(drawn: str, y: float) -> str:
    """The legend: only of what is drawn."""
    at, parts = _GAP + 2, []
    for kind, text in (("loss", "training loss"), ("val", "validation"), ("guard", "guard: must not get worse")):
        if f'class="{kind} line"' in drawn:
            parts.append(f'<rect class="{kind} swatch" x="{at}" y="{y - 10}" width="11" height="11" rx="3"/>')
            parts.append(f'<text class="key" x="{at + 17}" y="{y}">{text}</text>')
            at += 40 + 7 * len(text)
    return "".join(parts)
