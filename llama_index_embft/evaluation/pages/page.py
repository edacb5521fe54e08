"""The report page: one HTML file that needs no network, with every text escaped."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from llama_index_embft._core.svg import series_rules
from llama_index_embft.evaluation.pages import charts
from llama_index_embft.evaluation.statistics.findings import interval
from llama_index_embft.evaluation.statistics.verdict import interval_name, p_value, points

if TYPE_CHECKING:
    from jinja2 import Environment

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.evaluation.records import RetrievalReport
    from llama_index_embft.evaluation.statistics.findings import ComparisonRecord, MetricComparison, SystemComparison

_SHOWN_HITS: Final = 10
_FEW_CLUSTERS: Final = 10
_MOST_QUERIES: Final = 5_000  # the table holds the most changed of these; more would make browsers slow
_TEXT_BUDGET: Final = 24_000_000  # characters of corpus text in one page


def render_comparison(comparison: ComparisonRecord, dataset: EmbeddingQAFinetuneDataset | None = None) -> str:
    """The page of a comparison, as HTML.

    Args:
        comparison: What `compare` found.
        dataset: Gives the texts of the hits, without metadata where it has them; None shows ids.
    """
    base = comparison.base
    reports = [base, *(system.report for system in comparison.systems)]
    data, notes = _query_data(comparison, dataset)
    return str(
        environment()
        .get_template("comparison.html.j2")
        .render(
            comparison=comparison,
            base=base,
            facts=_facts(comparison),
            notes=[*comparison.notes, *notes],
            leaderboard=_leaderboard(comparison) if len(comparison.systems) > 1 else None,
            recall=charts.recall_curves(reports),
            histograms=[plot for plot in map(charts.score_histogram, reports) if plot],
            systems=[_system(comparison, system) for system in comparison.systems],
            costs=_costs(reports),
            interval_name=interval_name(comparison.alpha),
            data=data,
            series_rules=series_rules(),
        )
    )


@cache
def environment() -> Environment:
    """Where the templates are; every value they show is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _facts(comparison: ComparisonRecord) -> list[tuple[str, str]]:
    base = comparison.base
    groups = next(iter(comparison.metrics.values())).test.n_clusters
    facts = [("Queries", f"{len(base.query_ids):,}")]
    if comparison.cluster_by != "query":
        name = {"document": "Documents asked about", "chunk": "Chunks asked about", "given": "Groups of queries"}
        facts.append((name[comparison.cluster_by], f"{groups:,}"))
    if base.corpus_size is not None:
        facts.append(("Chunks searched", f"{base.corpus_size:,}"))
    if base.text:
        facts.append(("Text searched", base.text))
    facts.append(("Statistics", f"{comparison.n_resamples:,} resamples, seed {comparison.seed}"))
    if base.data_hash:
        facts.append(("Data", base.data_hash))
    facts.append(("Made", f"{comparison.date}, llama-index-embft {comparison.versions['llama-index-embft']}"))
    if comparison.command:
        facts.append(("Command", comparison.command))
    return facts


def _leaderboard(comparison: ComparisonRecord) -> dict[str, Any]:
    names = comparison.headline()
    reports = [comparison.base, *(system.report for system in comparison.systems)]
    best = {name: max(report.mean(name) for report in reports) for name in names}
    tests = [None, *(system.metrics[comparison.primary].test for system in comparison.systems)]
    forest = charts.Forest([test.interval for test in tests if test is not None])
    rows = [
        {
            "label": label,
            "decision": decision,
            "plot": forest.row(test.difference, test.interval) if test is not None else None,
            "cells": [
                {"value": f"{report.mean(name):.4f}", "best": report.mean(name) >= best[name] - 1e-12} for name in names
            ],
        }
        for label, decision, report, test in zip(
            [report.label for report in reports],
            ["base", *(system.decision for system in comparison.systems)],
            reports,
            tests,
            strict=True,
        )
    ]
    return {"names": names, "rows": rows}


def _system(comparison: ComparisonRecord, system: SystemComparison) -> dict[str, Any]:
    rows = list(system.metrics.values())
    forest = charts.Forest([row.test.interval for row in rows])
    headline = comparison.headline()
    return {
        "system": system,
        "headline": [_metric_row(system.metrics[name], forest) for name in headline],
        "others": [_metric_row(row, forest) for row in rows if row.metric not in headline],
        "reach": points(forest.reach),
        "bars": charts.difference_bars(system, comparison.primary),
        "moves": charts.rank_moves(comparison.base, system.report),
        "slices": _slices(system),
        "guards": _guards(system),
        "primary": system.metrics[comparison.primary],
    }


def _metric_row(row: MetricComparison, forest: charts.Forest) -> dict[str, Any]:
    return {
        "name": row.metric,
        "base": f"{row.base:.4f}",
        "tuned": f"{row.tuned:.4f}",
        "difference": f"{row.test.difference:+.4f}",
        "interval": interval(row.test.interval),
        "plot": forest.row(row.test.difference, row.test.interval),
        "p": p_value(row.p_holm),
        "counts": (row.test.wins, row.test.losses, row.test.ties),
        "outcome": row.outcome,
    }


def _slices(system: SystemComparison) -> list[dict[str, Any]]:
    # A part of two queries has an interval that would squeeze all others into a dot.
    telling = [part.test.interval for part in system.slices if part.test.n_clusters >= _FEW_CLUSTERS]
    forest = charts.Forest(telling or [part.test.interval for part in system.slices])
    return [
        {
            "by": part.by,
            "name": part.name,
            "n": part.test.n,
            "base": f"{part.base:.4f}",
            "tuned": f"{part.tuned:.4f}",
            "difference": f"{part.test.difference:+.4f}",
            "plot": forest.row(part.test.difference, part.test.interval),
            "p": p_value(part.p_holm),
        }
        for part in system.slices
    ]


def _guards(system: SystemComparison) -> list[dict[str, Any]]:
    forest = charts.Forest([guard.test.interval for guard in system.guards])
    words = {True: "kept", False: "forgotten", None: "unclear"}
    return [
        {
            "name": guard.name,
            "metric": guard.metric,
            "base": f"{guard.base:.4f}",
            "tuned": f"{guard.tuned:.4f}",
            "difference": f"{guard.test.difference:+.4f}",
            "plot": forest.row(guard.test.difference, guard.test.interval),
            "kept": words[guard.kept],
        }
        for guard in system.guards
    ]


def _costs(reports: list[RetrievalReport]) -> list[dict[str, str]]:
    """Time a system needed, where it was measured."""
    rows = []
    for report in reports:
        row = {"label": report.label}
        row |= {f"{phase} in all": f"{seconds:,.2f} s" for phase, seconds in report.seconds.items()}
        if report.latencies:
            middle, slow = np.quantile(report.latencies, [0.5, 0.95])
            row |= {"median a query": f"{1000 * middle:,.1f} ms", "95 % of queries under": f"{1000 * slow:,.1f} ms"}
        if len(row) > 1:
            rows.append(row)
    return rows


def _query_data(
    comparison: ComparisonRecord, dataset: EmbeddingQAFinetuneDataset | None
) -> tuple[dict[str, Any], list[str]]:
    """What the page's script needs for the table of queries, and what to say where it is not everything."""
    base, systems = comparison.base, comparison.systems
    notes: list[str] = []
    if dataset is not None and not any(query in dataset.queries for query in base.query_ids):
        notes.append("The data set given for the texts has none of these queries; ids are shown instead.")
        dataset = None
    rows = list(range(len(base.query_ids)))
    if len(rows) > _MOST_QUERIES:
        change = np.max(
            [np.abs(s.report.values[comparison.primary] - base.values[comparison.primary]) for s in systems], 0
        )
        rows = sorted(np.argsort(-change, kind="stable")[:_MOST_QUERIES].tolist())
        notes.append(
            f"The table below holds the {_MOST_QUERIES:,} queries that changed most, of {len(base.query_ids):,}; "
            "all figures and plots are over all of them."
        )
    docs: dict[str, int] = {}

    def hits(report: RetrievalReport, row: int) -> list[list[Any]]:
        ids = report.hit_ids[row][:_SHOWN_HITS]
        scores = report.hit_scores[row][:_SHOWN_HITS] or (None,) * len(ids)
        return [[docs.setdefault(doc, len(docs)), _rounded(score)] for doc, score in zip(ids, scores, strict=True)]

    reports = [base, *(system.report for system in systems)]
    depth = min(report.depth for report in reports)
    ranks = [report.first_ranks(depth) for report in reports]
    queries = [
        {
            "id": base.query_ids[row],
            "text": base.queries[row],
            "source": base.documents[row],
            "relevant": [[docs.setdefault(doc, len(docs)), grade] for doc, grade in base.relevant[row].items()],
            "runs": [
                [_rounded(float(report.values[comparison.primary][row])), int(rank[row]), hits(report, row)]
                for report, rank in zip(reports, ranks, strict=True)
            ],
        }
        for row in rows
    ]
    texts, cut = _texts(list(docs), dataset)
    if cut:
        notes.append(f"Texts are cut after {cut:,} characters, to keep this page small.")
    documents = [[doc, text] for doc, text in zip(docs, texts, strict=True)]
    data = {
        "primary": comparison.primary,
        "labels": [report.label for report in reports],
        "queries": queries,
        "documents": documents,
    }
    return data, notes


def _texts(ids: list[str], dataset: EmbeddingQAFinetuneDataset | None) -> tuple[list[str | None], int | None]:
    """Texts for display, and after how many characters they were cut, if they were."""
    if dataset is None:
        return [None] * len(ids), None
    texts = [dataset.bare_text(doc) if doc in dataset.corpus else None for doc in ids]
    limit = max((len(text) for text in texts if text), default=0)
    whole = limit
    while limit > 500 and sum(min(len(text), limit) for text in texts if text) > _TEXT_BUDGET:
        limit //= 2
    if limit == whole:
        return texts, None
    return [text if text is None or len(text) <= limit else text[:limit] + " …" for text in texts], limit


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
