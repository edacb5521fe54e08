"""The learning curve as one SVG: loss, validation and guard by step, and the merge curve; follows dark mode."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from llama_index_embft._core.svg import Circle, Drawing, Frame, Polyline, Scale, Shape, Words

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_FRAME: Final = Frame(width=380, height=272, left=58, right=18, top=36)
_MOST_DOTS: Final = 40  # closer together, dots are no longer dots
_SERIES: Final = {"loss": "training loss", "val": "validation", "guard": "guard: must not get worse"}

Points = list[tuple[float, float]]


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
    share = "share of the trained weights (0: base model)"
    by_step, by_weight = _metric_lines("step", history, metric), _metric_lines("weight", merge_curve or (), metric)
    panels = [
        ("Training loss", "step", {"loss": _points(losses or history, "step", "loss")}, None, ""),
        (_panel_name(metric, "step", by_step), "step", _changes(by_step), best_step, f"best: step {best_step}"),
        (
            _panel_name(metric, "merge weight", by_weight),
            share,
            _changes(by_weight),
            merge_weight,
            f"chosen: {merge_weight}",
        ),
    ]
    drawn = [panel for panel in panels if any(panel[2].values())]
    if not drawn:
        return None
    keys = [(kind, name) for kind, name in _SERIES.items() if any(lines.get(kind) for _, _, lines, _, _ in drawn)]
    return Drawing.of(title, [_panel(*panel) for panel in drawn], _FRAME, keys).to_svg()


def _points(records: Sequence[Mapping[str, float]], x: str, y: str) -> Points:
    pairs = [(float(r[x]), float(r[y])) for r in records if r.get(x) is not None and r.get(y) is not None]
    return sorted((pair for pair in pairs if all(map(math.isfinite, pair))), key=lambda pair: pair[0])


def _metric_lines(x: str, records: Sequence[Mapping[str, float]], metric: str) -> dict[str, Points]:
    return {"val": _points(records, x, metric), "guard": _points(records, x, f"guard_{metric}")}


def _changes(lines: dict[str, Points]) -> dict[str, Points]:
    """With a guard both as changes from the first value, since their levels may be far apart."""
    if not all(lines.values()):
        return lines
    return {kind: [(at, value - line[0][1]) for at, value in line] for kind, line in lines.items()}


def _panel_name(metric: str, by: str, lines: dict[str, Points]) -> str:
    if not all(lines.values()):
        return f"{metric} by {by}"
    return f"Change of {metric} by {by} (base: {lines['val'][0][1]:.3f}, guard {lines['guard'][0][1]:.3f})"


def _panel(name: str, x_name: str, lines: dict[str, Points], chosen: float | None, chosen_name: str) -> list[Shape]:
    """One plot: a line a series, the chosen place marked."""
    xs, ys = zip(*(point for line in lines.values() for point in line), strict=True)
    margin = 0.06 * (max(ys) - min(ys)) or 0.01
    x, y = _FRAME.x(min(xs), max(xs), ticks=4), _FRAME.y(min(ys) - margin, max(ys) + margin)
    shapes: list[Shape] = [Words((2, 14), name, "name")]
    shapes += _FRAME.axes(x.ticks(whole=x_name == "step"), y.ticks(), x_name)
    if chosen is not None and x.low <= chosen <= x.high:
        shapes += _mark(x(chosen), chosen_name)
    for kind, line in lines.items():
        shapes += _line(kind, line, x, y)
    main = next(iter(lines.values()))
    shapes += [
        Circle((x(at), y(value)), 7, "mark") for at, value in main if chosen is not None and math.isclose(at, chosen)
    ]
    return shapes


def _line(kind: str, points: Points, x: Scale, y: Scale) -> list[Shape]:
    if not points:
        return []
    shapes: list[Shape] = [Polyline(tuple((x(at), y(value)) for at, value in points), f"{kind} line")]
    if len(points) <= _MOST_DOTS:
        shapes += [Circle((x(at), y(value)), 3, f"{kind} dot", f"{at:g}: {value:.4f}") for at, value in points]
    return shapes


def _mark(at: float, name: str) -> list[Shape]:
    right = at > _FRAME.width / 2
    bottom = _FRAME.height - _FRAME.bottom
    return [
        Polyline(((at, _FRAME.top), (at, bottom)), "chosen"),
        Words((at - 6 if right else at + 6, bottom - 7), name, "chosen", "end" if right else "start"),
    ]
