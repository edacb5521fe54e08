"""The report page: one HTML file that needs no network, with every text escaped."""

from __future__ import annotations

from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from llama_index_embft._core.svg import series_rules
from llama_index_embft.evaluation.pages import charts
from llama_index_embft.evaluation.pages.examples import examples_of
from llama_index_embft.evaluation.pages.query_table import build_query_table
from llama_index_embft.evaluation.statistics.findings import interval
from llama_index_embft.evaluation.statistics.plain_words import hit_rate_shown, in_words, meaning_of, place_of, summary
from llama_index_embft.evaluation.statistics.verdict import interval_name, p_value, points

if TYPE_CHECKING:
    from jinja2 import Environment

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.evaluation.records import RetrievalReport
    from llama_index_embft.evaluation.statistics.findings import ComparisonRecord, MetricComparison, SystemComparison

_FEW_CLUSTERS: Final = 10
_MOST_NAMED: Final = 3  # systems that fit into a heading


def render_comparison(comparison: ComparisonRecord, dataset: EmbeddingQAFinetuneDataset | None = None) -> str:
    """The page of a comparison, as HTML.

    Args:
        comparison: What `compare` found.
        dataset: Gives the texts of the hits, without metadata where it has them; None shows ids.
    """
    base = comparison.base
    reports = [base, *(system.report for system in comparison.systems)]
    data, notes = build_query_table(comparison, dataset)
    several = len(comparison.systems) > 1
    systems = [_system(comparison, system, dataset) for system in comparison.systems]
    # Of several systems one is spoken of before the others only where it was chosen before these figures were known.
    foremost = systems[:1] if not several or comparison.chosen else []
    return str(
        environment()
        .get_template("comparison.html.j2")
        .render(
            comparison=comparison,
            base=base,
            title=_title(comparison),
            day=_day(comparison.date),
            subject=_subject(comparison),
            summary=summary(comparison),
            foremost=foremost,
            others=systems[len(foremost) :],
            facts=_facts(comparison),
            notes=[*comparison.notes, *notes],
            leaderboard=_leaderboard(comparison) if several else None,
            recall=charts.recall_curves(reports),
            histograms=[plot for plot in map(charts.score_histogram, reports) if plot],
            systems=systems,
            times=_times(reports),
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


def _title(comparison: ComparisonRecord) -> list[tuple[str, str]]:
    """Label and series of what is compared with the base; a long list is counted."""
    labels = [system.label for system in comparison.systems]
    if comparison.chosen and len(labels) > 1:
        return [(labels[0], "t0")]
    if len(labels) > _MOST_NAMED:
        return [(f"{len(labels)} systems", "")]
    return [(label, f"t{i % 6}") for i, label in enumerate(labels)]


def _day(date: str) -> str:
    """A date as people write it; one that is none stays as it is."""
    try:
        moment = datetime.fromisoformat(date)
    except ValueError:
        return date
    return f"{moment.day} {moment:%B %Y}"


def _subject(comparison: ComparisonRecord) -> str:
    """What was asked and searched, in one sentence."""
    base, groups = comparison.base, next(iter(comparison.metrics.values())).test.n_clusters
    n = len(base.query_ids)
    about = {"document": f" about {groups:,} document{'s' if groups != 1 else ''}", "given": f" in {groups:,} groups"}
    among = f" among {base.corpus_size:,} pages (the chunks of text that are searched)" if base.corpus_size else ""
    source = f" {comparison.data}" if comparison.data else ""
    asked = f"Tested with {n:,} question{'s' if n != 1 else ''}{about.get(comparison.cluster_by, '')}"
    return f"{asked}, each to find its page{among}.{source}"


def _facts(comparison: ComparisonRecord) -> list[tuple[str, str]]:
    base = comparison.base
    facts = [("Base", base.label)]
    names = ", ".join(system.label for system in comparison.systems)
    facts.append(("Compared with it", names))
    if comparison.chosen:
        facts.append(("Chosen on other questions", comparison.chosen))
    groups = next(iter(comparison.metrics.values())).test.n_clusters
    counted = {"document": "about {} documents", "chunk": "about {} chunks", "given": "in {} groups"}
    size = f"{len(base.query_ids):,}"
    if comparison.cluster_by in counted:
        size += f", {counted[comparison.cluster_by].format(f'{groups:,}')}"
    facts.append(("Questions", size))
    if base.corpus_size is not None:
        facts.append(("Pages searched", f"{base.corpus_size:,} chunks"))
    if base.text:
        facts.append(("Text searched", base.text))
    if base.data_hash:
        facts.append(("Data", base.data_hash))
    facts.append(("Statistics", f"{comparison.n_resamples:,} resamples, seed {comparison.seed}"))
    facts.append(("Made", comparison.date))
    versions = comparison.versions
    facts.append(("Version", f"llama-index-embft {versions['llama-index-embft']}"))
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
            "chosen": label == comparison.chosen,
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
    return {"names": names, "meanings": {name: meaning_of(name) for name in names}, "rows": rows}


def _system(
    comparison: ComparisonRecord, system: SystemComparison, dataset: EmbeddingQAFinetuneDataset | None
) -> dict[str, Any]:
    rows = list(system.metrics.values())
    forest = charts.Forest([row.test.interval for row in rows])
    headline = comparison.headline()
    return {
        "system": system,
        "handed_over": system.label == comparison.chosen,
        "words": in_words(system, comparison.primary),
        "found": _found(comparison, system),
        "examples": examples_of(comparison, system, dataset),
        "cost": system.cost.sentences() if system.cost is not None else (),
        "headline": [_metric_row(system.metrics[name], forest) for name in headline],
        "others": [_metric_row(row, forest) for row in rows if row.metric not in headline],
        "reach": points(forest.reach),
        "bars": charts.difference_bars(system, comparison.primary),
        "moves": charts.rank_moves(comparison.base, system.report),
        "slices": _slices(system),
        "guards": _guards(system),
        "primary": system.metrics[comparison.primary],
    }


def _found(comparison: ComparisonRecord, system: SystemComparison) -> dict[str, Any] | None:
    """How many questions find their page with both systems, with one of them, with none."""
    row = hit_rate_shown(system, comparison.primary)
    if row is None:
        return None
    before, after = (report.values[row.metric] > 0.5 for report in (comparison.base, system.report))
    parts = {
        "both": (before & after, "before and after"),
        "gained": (~before & after, "only after"),
        "lost": (before & ~after, "only before"),
        "neither": (~before & ~after, "neither before nor after"),
    }
    rows = [(name, int(mask.sum()), words) for name, (mask, words) in parts.items()]
    return {"place": place_of(row.metric), "rows": rows, "n": row.test.n}


def _metric_row(row: MetricComparison, forest: charts.Forest) -> dict[str, Any]:
    return {
        "name": row.metric,
        "meaning": meaning_of(row.metric),
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


def _times(reports: list[RetrievalReport]) -> list[dict[str, str]]:
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
