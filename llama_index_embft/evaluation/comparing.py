"""Compare systems on the same queries, and say what the data can carry and no more."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import numpy as np

from llama_index_embft._core.checks import check_number
from llama_index_embft.errors import ConfigError, EvaluationError
from llama_index_embft.evaluation.comparison import Comparison
from llama_index_embft.evaluation.records import RetrievalReport
from llama_index_embft.evaluation.statistics.clusters import ClusterBy, clusters_of, tested_on_these
from llama_index_embft.evaluation.statistics.findings import (
    GuardResult,
    MetricComparison,
    QueryChange,
    SliceComparison,
    SystemComparison,
    order_of_change,
)
from llama_index_embft.evaluation.statistics.significance import holm, non_inferiority_p, paired_tests
from llama_index_embft.evaluation.statistics.slices import Slicer, slice_labels
from llama_index_embft.evaluation.statistics.verdict import decide, outcome_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llama_index_embft.evaluation.statistics.findings import Decision

GuardReports = Mapping[str, Sequence["RetrievalReport | str | os.PathLike[str]"]]


def compare(
    base: RetrievalReport | str | os.PathLike[str],
    *tuned: RetrievalReport | str | os.PathLike[str],
    metrics: Iterable[str] | None = None,
    primary: str | None = None,
    cluster_by: ClusterBy = "document",
    slices: Iterable[Slicer] | Mapping[str, Slicer] = (),
    guard: GuardReports | None = None,
    max_loss: float = 0.01,
    n_resamples: int = 10_000,
    seed: int = 0,
    alpha: float = 0.05,
) -> Comparison:
    """Test whether systems differ from a base system on the same queries.

    The verdict rests on `primary`, chosen beforehand and corrected only for the number of systems; the p values of all
    other metrics are Holm-corrected together, so that one lucky metric of many is not taken for a finding.

    Args:
        base: The report of the system in use, or a file with it.
        *tuned: The reports of the systems that might replace it.
        metrics: Metrics to compare; None: all that every report has.
        primary: The metric that decides. None: ``"ndcg@10"``; where no report has it the last nDCG that all have, else
            their last metric, and a note says so.
        cluster_by: What counts as one independent observation. ``"document"``: all queries about one source document
            (or one chunk, where sources are not known); of a single document nothing about others can be shown.
            ``"query"`` or None: each query. A mapping gives a label for each query id.
        slices: Parts of the queries to look at: ``"document"``, ``"length"``, ``"language"``, ``"kind"``, or a mapping
            of query ids to labels; a mapping of names to these names the divisions.
        guard: Name of a guard set -> reports on it, base first and then each tuned system in the same order.
        max_loss: The loss on a guard set that would matter: 0.01 is one point.
        n_resamples: Draws of the distribution that chance is read from.
        seed: Same seed, same result.
        alpha: Level of the tests.

    Raises:
        EvaluationError: The reports are over different queries or judgements, share no metric, or have no `primary`.
        ConfigError: An argument has a value that is not allowed.
    """
    if not tuned:
        raise ConfigError("`compare` needs a base report and at least one other.")
    if n_resamples < 1 or not 0 < alpha < 1 or not max_loss > 0:
        raise ConfigError(
            f"Expected `n_resamples` of at least 1, `alpha` between 0 and 1 and `max_loss` above 0; "
            f"got {n_resamples}, {alpha} and {max_loss}."
        )
    check_number("seed", seed, at_least=0)
    base_report, *reports = _distinct_labels(_aligned([_load(report) for report in (base, *tuned)]))
    names = _shared_metrics([base_report, *reports], metrics)
    deciding, notes = _primary(primary, names, [base_report, *reports])
    labels, clustered, more = clusters_of(base_report, cluster_by)
    notes += more
    notes += _differences_in_setting([base_report, *reports])

    columns = np.column_stack([report.values[name] - base_report.values[name] for report in reports for name in names])
    folds = max(report.folds for report in (base_report, *reports))
    settings: dict[str, Any] = {"n_resamples": n_resamples, "seed": seed, "alpha": alpha}
    tests = paired_tests(columns, labels, folds=folds, **settings)
    width = len(names)
    at = names.index(deciding)
    decisive = holm([tests[i * width + at].p for i in range(len(reports))])
    # The deciding metric was chosen beforehand, so the number of others costs it nothing; they are corrected together.
    others = [column for column in range(len(tests)) if column % width != at]
    corrected = [decisive[column // width] for column in range(len(tests))]
    for column, p in zip(others, _holm_distinct(columns[:, others], [tests[c].p for c in others]), strict=True):
        corrected[column] = p
    finer = tested_on_these(base_report, labels, clustered)
    divisions = slice_labels(base_report, slices)
    guards = _guards(guard or {}, len(reports), deciding, max_loss, settings)

    systems = []
    for i, report in enumerate(reports):
        part = slice(i * width, (i + 1) * width)
        compared = {
            name: MetricComparison(
                metric=name,
                base=base_report.mean(name),
                tuned=report.mean(name),
                test=test,
                p_holm=p,
                outcome=outcome_of(test, p, alpha),
            )
            for name, test, p in zip(names, tests[part], corrected[part], strict=True)
        }
        outcome = outcome_of(compared[deciding].test, decisive[i], alpha)
        on_these = None
        if finer is not None:
            moved = columns[:, [i * width + at]]
            (on_these,) = paired_tests(moved, finer, folds=folds, **settings)
        decision, reasons = decide(
            compared[deciding], outcome, decisive[i], guards[i], clustered, on_these=on_these, alpha=alpha
        )
        decision, reasons = _without_seen(report, decision, reasons)
        systems.append(
            SystemComparison(
                report=report,
                metrics=compared,
                changes=_changes(base_report, report, deciding),
                slices=_slices(base_report, report, deciding, divisions, labels, settings),
                guards=guards[i],
                outcome=outcome,
                p=decisive[i],
                on_these=on_these,
                decision=decision,
                reasons=reasons,
            )
        )
    return Comparison(
        base=base_report,
        systems=tuple(systems),
        primary=deciding,
        cluster_by=clustered,
        n_resamples=n_resamples,
        seed=seed,
        alpha=alpha,
        notes=tuple(notes),
    )


def _load(report: RetrievalReport | str | os.PathLike[str]) -> RetrievalReport:
    if isinstance(report, RetrievalReport):
        return report
    if not isinstance(report, str | os.PathLike):
        raise ConfigError(
            f"A {type(report).__name__} is no report; give reports or their files one by one: compare(base, *tuned)."
        )
    return RetrievalReport.from_json(report)


def _aligned(reports: list[RetrievalReport]) -> list[RetrievalReport]:
    """The reports with their queries in the base's order.

    Raises:
        EvaluationError: They are not over the same queries and judgements.
    """
    base = reports[0]
    aligned = [base]
    for report in reports[1:]:
        missing = sorted(base.row_of.keys() - report.row_of.keys())
        added = sorted(report.row_of.keys() - base.row_of.keys())
        if missing or added:
            query, owner = (missing[0], base.label) if missing else (added[0], report.label)
            raise EvaluationError(
                f"The reports are over different queries: {len(missing) + len(added)} are not in both, for example "
                f"{query!r} is only in {owner!r}; evaluate both systems on the same data set."
            )
        rows = [report.row_of[query] for query in base.query_ids]
        for query_id, row, relevant in zip(base.query_ids, rows, base.relevant, strict=True):
            if relevant != report.relevant[row]:
                raise EvaluationError(
                    f"The reports judge query {query_id!r} by different relevant documents; evaluate both on the "
                    "same data set."
                )
        aligned.append(report if rows == list(range(len(rows))) else _reordered(report, rows))
    return aligned


def _distinct_labels(reports: list[RetrievalReport]) -> list[RetrievalReport]:
    """The reports under labels that tell them apart: a second "model" becomes "model (2)"."""
    seen: Counter[str] = Counter()
    named = []
    for report in reports:
        seen[report.label] += 1
        count = seen[report.label]
        named.append(report if count == 1 else replace(report, label=f"{report.label} ({count})"))
    return named


def _reordered(report: RetrievalReport, rows: list[int]) -> RetrievalReport:
    per_query = ("query_ids", "queries", "documents", "relevant", "hit_ids", "hit_scores")
    fields: dict[str, Any] = {name: tuple(getattr(report, name)[row] for row in rows) for name in per_query}
    fields |= {
        name: tuple(getattr(report, name)[row] for row in rows)
        for name in ("latencies", "answers")
        if getattr(report, name)
    }
    values = {name: column[rows] for name, column in report.values.items()}
    return replace(report, **fields, values=values)


def _shared_metrics(reports: list[RetrievalReport], wanted: Iterable[str] | None) -> list[str]:
    shared = [name for name in reports[0].metrics if all(name in report.values for report in reports)]
    if wanted is None:
        if not shared:
            raise EvaluationError("The reports share no metric; evaluate them with the same `ks` and `metrics`.")
        return shared
    names = list(dict.fromkeys([wanted] if isinstance(wanted, str) else wanted))
    for name in names:
        lacking = [report.label for report in reports if name not in report.values]
        if lacking:
            raise EvaluationError(
                f"Report {lacking[0]!r} has no metric {name!r}; the reports share {', '.join(shared)}."
            )
    if not names:
        raise ConfigError("`metrics` is empty; name at least one, or leave it out to compare all.")
    return names


def _primary(wanted: str | None, names: list[str], reports: list[RetrievalReport]) -> tuple[str, list[str]]:
    """The metric that decides, and what to say where it is not the usual one.

    Raises:
        EvaluationError: Not all reports have it, or some have the usual one and others do not.
    """
    usual = "ndcg@10"
    name = usual if wanted is None else wanted
    if name in names:
        return name, []
    lacking = [report for report in reports if name not in report.values]
    if wanted is None and len(lacking) in (0, len(reports)):  # nobody has it, or it was not asked for in `metrics`
        found = next((name for name in reversed(names) if name.startswith("ndcg@")), names[-1])
        return found, [f"The reports have no {usual}; {found} decides."] if lacking else []
    shallow = "".join(f" ({report.label!r} has {report.depth} hits a query)" for report in lacking[:1])
    near = get_close_matches(name.lower(), names, n=1)
    guess = f"did you mean {near[0]!r}? " if near else ""
    what = f"`primary` is {name!r}, which" if wanted is not None else f"The usual metric, {usual},"
    raise EvaluationError(
        f"{what} {lacking[0].label if lacking else 'this comparison'!r} does not have{shallow}; {guess}All share "
        f"{', '.join(names)}: evaluate the systems alike, or name one of these."
    )


def _without_seen(
    report: RetrievalReport, decision: Decision, reasons: tuple[str, ...]
) -> tuple[Decision, tuple[str, ...]]:
    """A gain on questions that the system was trained or chosen on proves nothing."""
    seen = {use: report.overlap.get(f"{use}_queries", 0) for use in ("trained_on", "chosen_on")}
    if not any(seen.values()):
        return decision, reasons
    n = len(report.query_ids)
    words = {"trained_on": "was trained on", "chosen_on": "was chosen by"}
    parts = " and ".join(f"{words[use]} {count} of these {n} questions" for use, count in seen.items() if count)
    sentence = f"{report.label} {parts}, so no gain on them is proven; evaluate it on questions it has not seen."
    return ("not proven" if decision == "adopt" else decision), (sentence, *reasons)


def _differences_in_setting(reports: list[RetrievalReport]) -> list[str]:
    notes = [f"{report.label}: {note}" for report in reports for note in report.notes]
    base = reports[0]
    notes += [
        f"{report.label!r} searched other texts ({report.text}) than {base.label!r} ({base.text}); the difference is "
        "not the model's alone."
        for report in reports[1:]
        if base.corpus_hash and report.corpus_hash and base.corpus_hash != report.corpus_hash
    ]
    for report in reports[1:]:
        # A run read from a file has ids for texts, which says nothing.
        pairs = zip(base.query_ids, base.queries, report.queries, strict=True)
        other = [query for query, one, two in pairs if one != two and query not in (one, two)]
        if other:
            notes.append(f"{len(other)} queries have other texts in {report.label!r}, for example {other[0]!r}.")
    depths = {report.label: report.depth for report in reports}
    if len(set(depths.values())) > 1 and min(depths.values()) < max(max(report.ks, default=1) for report in reports):
        shown = ", ".join(f"{label!r} {depth}" for label, depth in depths.items())
        notes.append(
            f"The systems returned different numbers of hits a query ({shown}); metrics that look deeper than "
            "the least of them favour the others."
        )
    for report in reports:
        if report.errors:
            query, error = next(iter(report.errors.items()))
            notes.append(
                f"{report.label}: {len(report.errors)} queries failed and score 0 (first: {query!r}: {error})."
            )
    return notes


def _holm_distinct(columns: NDArray[np.float64], p_values: list[float]) -> list[float]:
    """Holm over distinct tests: with one relevant document recall@k is hit rate@k, and that is one test, not two."""
    group_of: dict[bytes, int] = {}
    rows = np.ascontiguousarray(columns.T) + 0.0  # -0.0 becomes 0.0, which has other bytes
    groups = [group_of.setdefault(row.tobytes(), len(group_of)) for row in rows]
    adjusted = holm([p_values[groups.index(group)] for group in range(len(group_of))])
    return [adjusted[group] for group in groups]


def _changes(base: RetrievalReport, tuned: RetrievalReport, metric: str) -> tuple[QueryChange, ...]:
    depth = min(base.depth, tuned.depth)
    columns = zip(
        base.query_ids,
        base.queries,
        base.values[metric].tolist(),
        tuned.values[metric].tolist(),
        (rank or None for rank in base.first_ranks(depth).tolist()),
        (rank or None for rank in tuned.first_ranks(depth).tolist()),
        strict=True,
    )
    return tuple(sorted((QueryChange(*row) for row in columns), key=order_of_change, reverse=True))


def _slices(
    base: RetrievalReport,
    tuned: RetrievalReport,
    metric: str,
    divisions: Mapping[str, list[str]],
    labels: list[Any] | None,
    settings: dict[str, Any],
) -> tuple[SliceComparison, ...]:
    found: list[SliceComparison] = []
    for by, names in divisions.items():
        parts = []
        for name in sorted(dict.fromkeys(names), key=lambda part: -names.count(part)):
            rows = [row for row, other in enumerate(names) if other == name]
            before, after = base.values[metric][rows], tuned.values[metric][rows]
            part_labels = None if labels is None else [labels[row] for row in rows]
            folds = max(base.folds, tuned.folds)
            (test,) = paired_tests((after - before)[:, None], part_labels, folds=folds, **settings)
            parts.append((name, float(before.mean()), float(after.mean()), test))
        corrected = holm([test.p for *_, test in parts])
        found += [SliceComparison(by, *part, p_holm=p) for part, p in zip(parts, corrected, strict=True)]
    return tuple(found)


def _guards(
    guard: GuardReports, n_systems: int, metric: str, margin: float, settings: dict[str, Any]
) -> list[tuple[GuardResult, ...]]:
    results: list[list[GuardResult]] = [[] for _ in range(n_systems)]
    for name, given in guard.items():
        given = [given] if isinstance(given, RetrievalReport | str) else given
        if len(given) != n_systems + 1:
            raise ConfigError(
                f"Guard {name!r} has {len(given)} reports; give {n_systems + 1}: the base's, then each tuned system's."
            )
        base, *reports = _aligned([_load(report) for report in given])
        judged_by, _ = _primary(
            metric if metric in base.values else None, _shared_metrics([base, *reports], None), [base, *reports]
        )
        labels, clustered, _ = clusters_of(base, "document")
        finer = tested_on_these(base, labels, clustered)
        for i, report in enumerate(reports):
            difference = (report.values[judged_by] - base.values[judged_by])[:, None]
            tested = {"folds": max(base.folds, report.folds), **settings}
            (test,) = paired_tests(difference, labels, **tested)
            p = non_inferiority_p(difference[:, 0], labels, margin=margin, **tested)
            outcome = outcome_of(test, test.p, settings["alpha"])
            if outcome == "same":  # as everywhere: what changed no query lost nothing on this set
                p = 0.0
            on_these = None if finer is None else paired_tests(difference, finer, **tested)[0]
            kept: bool | None = None
            if p < settings["alpha"] / 2:
                kept = True
            elif outcome == "loss" or (
                on_these is not None and outcome_of(on_these, on_these.p, settings["alpha"]) == "loss"
            ):
                kept = False
            means = base.mean(judged_by), report.mean(judged_by)
            results[i].append(GuardResult(name, judged_by, *means, test, margin, p, kept, on_these))
    return [tuple(found) for found in results]
