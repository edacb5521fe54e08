"""The mining report as one HTML page with an inline SVG histogram; every text is escaped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from llama_index_embft._core.svg import Frame, fragment, histogram, stylesheet

if TYPE_CHECKING:
    from llama_index_embft.mining.report import MiningReport

_BINS: Final = 60

_PAGE: Final = """\
<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Hard negatives</title><style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: 1rem 0; } td, th { padding: .2rem .7rem; text-align: right; }
td:first-child, th:first-child { text-align: left; } tr:nth-child(even) { background: #f4f4f2; }
.query { font-weight: 600; margin: 1.2rem 0 .2rem; } .reading { margin: .15rem 0 .15rem 1.2rem; }
.score { font-variant-numeric: tabular-nums; } .positive { color: #2a7f62; } .negative { color: #b3441e; }
.source { color: #777; } svg { width: 100%; height: auto; }
{{ style | safe }}
</style></head><body>
<h1>Hard negatives</h1>
<p>{{ report.n_negatives }} negatives for {{ report.n_queries }} queries among {{ report.n_documents }} documents, by
{{ report.strategies | join(", ") }}.</p>
{% for warning in report.warnings() %}<p><strong>Note:</strong> {{ warning }}</p>{% endfor %}
<h2>Similarity to the query</h2>
{{ histogram | safe }}
<table><tr><th></th><th>n</th>{% for q in (0, 5, 25, 50, 75, 95, 100) %}<th>{{ q }} %</th>{% endfor %}</tr>
{% for kind in report.distributions() %}<tr><td>{{ kind.name }}</td><td>{{ kind.n }}</td>
{% for x in kind.quantiles %}<td>{{ "%.3f" | format(x) }}</td>{% endfor %}</tr>{% endfor %}</table>
<h2>Candidates</h2>
<table>{% for name, count in counts %}<tr><td>{{ name }}</td><td>{{ count }}</td></tr>{% endfor %}</table>
<h2>Examples</h2>
{% for example in report.examples %}<p class="query">{{ example.query }}</p>
{% for reading in example.positives %}<p class="reading"><span class="score positive">+ \
{{ "%.3f" | format(reading.score) }}</span> {{ reading.text | truncate(400) }}</p>{% endfor %}
{% for reading in example.negatives %}<p class="reading"><span class="score negative">− \
{{ "%.3f" | format(reading.score) }}</span> \
<span class="source">{{ reading.source }}</span> {{ reading.text | truncate(400) }}</p>{% endfor %}
{% endfor %}
</body></html>
"""


def render(report: MiningReport) -> str:
    """Render the page."""
    from jinja2 import Environment, StrictUndefined

    kinds = {
        "positives": report.positive_scores,
        "negatives": report.negative_scores[np.isfinite(report.negative_scores)],
    }
    shown = {name: scores for name, scores in kinds.items() if len(scores)}
    frame = Frame(width=640)
    drawn = ""
    if shown:
        shapes = histogram(shown, frame, bins=_BINS, x_title="similarity: positives green, negatives red")
        drawn = fragment(shapes, frame.width, frame.height, "Histogram of similarities")
    page = Environment(autoescape=True, undefined=StrictUndefined).from_string(_PAGE)
    return page.render(report=report, histogram=drawn, style=stylesheet(), counts=report._counts())
