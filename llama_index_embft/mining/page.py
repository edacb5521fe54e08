"""A mining report as one HTML page with an inline SVG histogram; every text is escaped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from llama_index_embft._core.svg import Frame, fragment, histogram, stylesheet

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    import numpy as np
    from numpy.typing import NDArray

    from llama_index_embft._core.tables import TextTable

_BINS: Final = 60

_PAGE: Final = """\
<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Hard negatives</title><style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: 1rem 0; } td, th { padding: .2rem .7rem; text-align: right; }
td:first-child, th:first-child { text-align: left; } tr:nth-child(even) { background: #f4f4f2; }
.query { font-weight: 600; margin: 1.2rem 0 .2rem; } .document { margin: .15rem 0 .15rem 1.2rem; }
.score { font-variant-numeric: tabular-nums; } .positive { color: #2a7f62; } .negative { color: #b3441e; }
.source { color: #777; } svg { width: 100%; height: auto; }
{{ style | safe }}
</style></head><body>
<h1>Hard negatives</h1>
<p>{{ headline }}.</p>
{% for warning in warnings %}<p><strong>Note:</strong> {{ warning }}</p>{% endfor %}
<h2>Similarity to the query</h2>
{{ histogram | safe }}
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

    shown = {name: some for name, some in scores.items() if len(some)}
    frame = Frame(width=640)
    drawn = ""
    if shown:
        shapes = histogram(shown, frame, bins=_BINS, x_title="similarity: positives green, negatives red")
        drawn = fragment(shapes, frame.width, frame.height, "Histogram of similarities")
    page = Environment(autoescape=True, undefined=StrictUndefined).from_string(_PAGE)
    return page.render(
        headline=headline, warnings=warnings, tables=tables, examples=examples, histogram=drawn, style=stylesheet()
    )
