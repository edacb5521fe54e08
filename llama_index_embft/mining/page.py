"""A mining report as one HTML page with an inline SVG histogram; every text is escaped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from llama_index_embft._core.tables import TextTable

_WIDTH: Final = 640
_HEIGHT: Final = 220
_BINS: Final = 60
_COLOURS: Final = {"positives": "#2a7f62", "negatives": "#b3441e"}

_PAGE: Final = """\
<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Hard negatives</title><style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: 1rem 0; } td, th { padding: .2rem .7rem; text-align: right; }
td:first-child, th:first-child { text-align: left; } tr:nth-child(even) { background: #f4f4f2; }
.query { font-weight: 600; margin: 1.2rem 0 .2rem; } .document { margin: .15rem 0 .15rem 1.2rem; }
.score { font-variant-numeric: tabular-nums; } .positive { color: #2a7f62; } .negative { color: #b3441e; }
.source { color: #777; } svg { width: 100%; height: auto; }
</style></head><body>
<h1>Hard negatives</h1>
<p>{{ headline }}.</p>
{% for warning in warnings %}<p><strong>Note:</strong> {{ warning }}</p>{% endfor %}
<h2>Similarity to the query</h2>
<svg viewBox="0 0 {{ width }} {{ height + 24 }}" role="img" aria-label="Histogram of similarities">
{% for curve in curves %}<path d="{{ curve.path }}" fill="{{ curve.colour }}" fill-opacity=".35"
 stroke="{{ curve.colour }}"><title>{{ curve.name }}</title></path>{% endfor %}
<line x1="0" x2="{{ width }}" y1="{{ height }}" y2="{{ height }}" stroke="#222"/>
{% for tick in ticks %}<text x="{{ tick.x }}" y="{{ height + 16 }}" font-size="11" text-anchor="{{ tick.anchor }}">\
{{ tick.label }}</text>{% endfor %}
{% for curve in curves %}<text x="{{ width - 4 }}" y="{{ 16 * loop.index }}" font-size="12" text-anchor="end"
 fill="{{ curve.colour }}">{{ curve.name }}</text>{% endfor %}
</svg>
{% for title, table in tables %}{% if not loop.first %}<h2>{{ title }}</h2>
{% endif %}<table><tr>{% for name in table.header %}<th>{{ name }}</th>{% endfor %}</tr>
{% for row in table.rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>{% endfor %}</table>
{% endfor %}<h2>Examples</h2>
{% for example in examples %}<p class="query">{{ example.query }}</p>
{% for document in example.positives %}<p class="document"><span class="score positive">+ \
{{ "%.3f" | format(document.score) }}</span> {{ document.text | truncate(400) }}</p>{% endfor %}
{% for document in example.negatives %}<p class="document"><span class="score negative">− \
{{ "%.3f" | format(document.score) }}</span> \
<span class="source">{{ document.source }}</span> {{ document.text | truncate(400) }}</p>{% endfor %}
{% endfor %}
</body></html>
"""


def render(
    headline: str,
    warnings: Sequence[str],
    scores: Mapping[str, NDArray[np.float32]],
    tables: Sequence[tuple[str, TextTable]],
    examples: Sequence[Any],
) -> str:
    """Render the page.

    Args:
        headline: One sentence without its full stop.
        warnings: What a user should know.
        scores: ``positives`` and ``negatives`` -> similarities, drawn as a histogram.
        tables: Titles and tables; the first stands under the histogram.
        examples: Queries with their ``positives`` and ``negatives``, each with ``text``, ``score`` and ``source``.
    """
    from jinja2 import Environment, StrictUndefined

    curves, ticks = _histogram({name: some for name, some in scores.items() if len(some)})
    page = Environment(autoescape=True, undefined=StrictUndefined).from_string(_PAGE)
    return page.render(
        headline=headline,
        warnings=warnings,
        tables=tables,
        examples=examples,
        curves=curves,
        ticks=ticks,
        width=_WIDTH,
        height=_HEIGHT,
    )


def _histogram(kinds: dict[str, NDArray[np.float32]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Outlines of the shares of scores in each of 60 bins, drawn to one scale."""
    if not kinds:
        return [], []
    low = min(float(scores.min()) for scores in kinds.values())
    high = max(float(scores.max()) for scores in kinds.values())
    if high - low < 1e-6:
        low, high = low - 0.5, high + 0.5
    shares = {}
    for name, scores in kinds.items():
        counts, _ = np.histogram(scores, bins=_BINS, range=(low, high))
        shares[name] = counts / counts.sum()
    top = max(share.max() for share in shares.values())
    step = _WIDTH / _BINS
    curves = []
    for name, share in shares.items():
        points = [f"M0,{_HEIGHT}"]
        for place, value in enumerate(share):
            y = round(_HEIGHT - value / top * (_HEIGHT - 10), 1)
            points.append(f"L{round(place * step, 1)},{y} L{round((place + 1) * step, 1)},{y}")
        curves.append({"name": name, "colour": _COLOURS[name], "path": " ".join([*points, f"L{_WIDTH},{_HEIGHT}Z"])})
    ticks = [
        {
            "x": round(part / 4 * _WIDTH),
            "label": f"{low + part / 4 * (high - low):.2f}",
            "anchor": ("start", "middle", "middle", "middle", "end")[part],
        }
        for part in range(5)
    ]
    return curves, ticks
