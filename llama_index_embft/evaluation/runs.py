"""Score ranked lists of ids, wherever they come from: a retriever, a TREC file, another report."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from llama_index_embft._core.checks import check_number
from llama_index_embft.errors import ConfigError, EvaluationError
from llama_index_embft.evaluation.metrics import (
    DEFAULT_KS,
    FAMILIES,
    METRICS,
    Judgements,
    find_hits,
    metric_names,
    needed_depth,
    parse_metric,
    rank_order,
    score_hits,
)
from llama_index_embft.evaluation.records import RetrievalReport
from llama_index_embft.evaluation.tasks import RetrievalTask, own_note

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset


@dataclass(frozen=True)
class Rankings:
    """What a system returned for each query of a task, best first, no id twice.

    Attributes:
        ids: Ids per query.
        scores: Scores per query, as long as `ids`, or empty where the system gives none.
        latencies: Seconds a query, if measured.
        seconds: Seconds by phase.
        errors: Query id -> what went wrong.
        notes: Things a reader should know.
        depth: Hits a query that were asked for, or at most returned; None: as many as the longest list has.
    """

    ids: tuple[tuple[str, ...], ...]
    scores: tuple[tuple[float, ...], ...]
    latencies: tuple[float, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    depth: int | None = None


def evaluate_run(
    judged: EmbeddingQAFinetuneDataset | Mapping[str, Mapping[str, int]],
    run: Mapping[str, Mapping[str, float]],
    *,
    ks: int | Iterable[int] = DEFAULT_KS,
    metrics: str | Iterable[str] = FAMILIES,
    top_k: int | None = None,
    label: str = "run",
    ignore_identical: bool = True,
) -> RetrievalReport:
    """Score a run: for each query the documents a system returned, with their scores.

    Ranked as trec_eval ranks: by score, equal ones by id, both descending. Two means differ from trec_eval's: a judged
    query that the run lacks scores 0 and counts here (trec_eval leaves it out), and a query of which no document is
    relevant is left out here (trec_eval counts it with 0). Queries that are not judged are left out. All are noted with
    their number.

    Args:
        judged: A data set, or qrels: query id -> document id -> grade.
        run: Query id -> document id -> score.
        ks: Cut-offs, or one.
        metrics: Families or full names.
        top_k: Hits to keep per query, at least as many as the metrics look at; None: all.
        label: Name in tables.
        ignore_identical: A hit that is the query itself (its own text, or with bare judgements its own id) is left out
            and counted, as BEIR does; False counts it as any other.

    Raises:
        EvaluationError: A score is not a number, no query of the run is judged, or a metric is unknown.
        ConfigError: `top_k` is less than a metric looks at.
    """
    if isinstance(judged, Mapping):
        task, n_judged = RetrievalTask.of_qrels(judged, ignore_identical=ignore_identical), len(judged)
    else:
        task, n_judged = RetrievalTask.of(judged, ignore_identical=ignore_identical), len(judged.queries)
    names = metric_names(ks, metrics)
    if top_k is not None:
        qrels = dict(zip(task.query_ids, task.relevant, strict=True))
        check_depth(top_k, names, Judgements.from_qrels(qrels, task.query_ids, {}))
    missing = [query for query in task.query_ids if query not in run]
    known = set(task.query_ids)
    added = [query for query in run if query not in known]
    if len(missing) == len(task.query_ids):
        raise EvaluationError(
            f"The run has none of the {len(missing)} judged queries, for example {missing[0]!r}; are the ids the same?"
        )
    notes = []
    empty = n_judged - len(task.query_ids)
    if empty:
        notes.append(
            f"{empty} judged queries have no relevant document and were left out; trec_eval counts them with 0, so its "
            f"means are {len(task.query_ids) / n_judged:.4f} times these."
        )
    if missing:
        notes.append(f"{len(missing)} judged queries are not in the run and score 0, for example {missing[0]!r}.")
    if added:
        notes.append(f"{len(added)} queries of the run are not judged and were left out, for example {added[0]!r}.")
    ids, scores = [], []
    for query in task.query_ids:
        found = run.get(query, {})
        if not isinstance(found, Mapping):
            raise EvaluationError(
                f"The run has a {type(found).__name__} for query {query!r}; give document ids with their scores, "
                "{'doc': 1.0}."
            )
        docs, values = list(found), list(found.values())
        order = rank_order(docs, values)
        ids.append(tuple(docs[i] for i in order))
        scores.append(tuple(float(values[i]) for i in order))
    longest, needed = max(map(len, ids)), max(parse_metric(name)[1] or 1 for name in names)
    if longest < needed and len({len(found) for found in ids if found}) == 1:
        notes.append(
            f"Every query has {longest} hits, so metrics at deeper cut-offs, up to {needed}, look at these alone."
        )
    depth = None if top_k is None else max(1, min(top_k, longest))
    rankings = Rankings(tuple(ids), tuple(scores), notes=tuple(notes), depth=depth)
    return report_on(task, rankings, ks=(), metrics=names, label=label)


def check_depth(top_k: int | None, names: Iterable[str], judgements: Judgements) -> int:
    """Hits to ask for: what the metrics look at, or more.

    Raises:
        ConfigError: `top_k` is less.
    """
    needed = needed_depth(names, judgements)
    if top_k is not None:
        check_number("top_k", top_k)
    if top_k is not None and top_k < needed:
        raise ConfigError(f"`top_k` is {top_k}, but the metrics look at {needed} hits; raise it or lower `ks`.")
    return top_k or needed


def report_on(
    task: RetrievalTask,
    rankings: Rankings,
    *,
    label: str,
    ks: int | Iterable[int] = DEFAULT_KS,
    metrics: str | Iterable[str] = FAMILIES,
    shallow: Literal["rename", "note", "keep"] = "keep",
) -> RetrievalReport:
    """Score ranked ids, without those that are the query itself.

    Args:
        task: Queries and judgements.
        rankings: What the system returned.
        label: Name in tables.
        ks: Cut-offs, or one.
        metrics: Families or full names.
        shallow: Where the system never returned as many hits as a metric looks at, though there are more documents:
            ``"rename"`` gives the metric under the depth that was measured, ``"ndcg@2"`` for ``"ndcg@10"``; ``"note"``
            says so; ``"keep"`` says nothing.

    Raises:
        EvaluationError: A metric is unknown.
    """
    names = metric_names(ks, metrics)
    rankings = _with_finite_scores(_without_own(task, rankings))
    row_of: dict[str, int] = {}
    depth = max(1, max(map(len, rankings.ids), default=1))
    measured = rankings.depth or depth
    if shallow != "keep" and (task.corpus_size is None or measured < task.corpus_size):
        renamed, note = _measured_names(names, measured, rename=shallow == "rename")
        names = renamed if shallow == "rename" else names
        rankings = replace(rankings, notes=(*rankings.notes, *note))
    rows = np.full((len(task.query_ids), depth), -1, dtype=np.int64)
    for query, ids in enumerate(rankings.ids):
        rows[query, : len(ids)] = [row_of.setdefault(doc, len(row_of)) for doc in ids]
    qrels = dict(zip(task.query_ids, task.relevant, strict=True))
    judgements = Judgements.from_qrels(qrels, task.query_ids, row_of)
    return RetrievalReport(
        label=label,
        ks=tuple(sorted({k for k in (parse_metric(name)[1] for name in names) if k is not None})),
        depth=rankings.depth or depth,
        query_ids=task.query_ids,
        queries=task.queries,
        documents=task.documents,
        relevant=task.relevant,
        hit_ids=rankings.ids,
        hit_scores=rankings.scores,
        values=score_hits(find_hits(rows, judgements, len(row_of)), judgements, names),
        corpus_size=task.corpus_size,
        data_hash=task.data_hash,
        corpus_hash=task.corpus_hash,
        text=task.text,
        seconds=rankings.seconds,
        latencies=rankings.latencies,
        errors=rankings.errors,
        notes=rankings.notes,
    )


def _without_own(task: RetrievalTask, rankings: Rankings) -> Rankings:
    """Leave out hits that are the query itself, and what then lies deeper than was asked for."""
    ids, scores, dropped = [], [], 0
    own = task.own or (frozenset[str](),) * len(rankings.ids)
    for found, values, mine in zip(rankings.ids, rankings.scores, own, strict=True):
        kept = [i for i, doc in enumerate(found) if doc not in mine]
        dropped += len(kept) < len(found)
        kept = kept[: rankings.depth]
        ids.append(tuple(found[i] for i in kept))
        scores.append(tuple(values[i] for i in kept) if values else ())
    notes = rankings.notes
    if dropped:
        notes = (*notes, own_note(dropped))
    return replace(rankings, ids=tuple(ids), scores=tuple(scores), notes=notes)


def _with_finite_scores(rankings: Rankings) -> Rankings:
    """Leave out the scores of a query where one is infinite or no number: no report could be saved with it."""
    scores = tuple(values if np.isfinite(values).all() else () for values in rankings.scores)
    dropped = sum(kept != given for kept, given in zip(scores, rankings.scores, strict=True))
    if not dropped:
        return rankings
    note = f"{dropped} queries have scores that are no finite numbers; the order was kept and the scores left out."
    return replace(rankings, scores=scores, notes=(*rankings.notes, note))


def _measured_names(names: tuple[str, ...], depth: int, *, rename: bool) -> tuple[tuple[str, ...], list[str]]:
    """Names of what was measured by a system that returns at most `depth` hits, and what to say about it."""
    measured: dict[str, str] = {}
    for name in names:
        family, k = parse_metric(name)
        measured[name] = f"{family}@{depth}" if k is not None and k > depth else name
    changed = [name for name, other in measured.items() if name != other]
    if not changed:
        return names, []
    deepest = max(parse_metric(name)[1] or 0 for name in changed)
    how = "given at that depth" if rename else "no more than those at that depth"
    note = (
        f"At most {depth} hits came back for any query, so {len(changed)} metrics are {how} "
        f"({changed[-1]} as {measured[changed[-1]]}); let the system return {deepest} (`similarity_top_k={deepest}`)."
    )
    return tuple(dict.fromkeys(measured.values())), [note]


def fuse_runs(
    reports: Sequence[RetrievalReport],
    *,
    weights: Sequence[float] | None = None,
    k: int = 60,
    top_k: int | None = None,
    label: str | None = None,
) -> RetrievalReport:
    """Join several systems' hits by reciprocal rank fusion: what a hybrid of them would return.

    Args:
        reports: Over the same queries. Give them deeper hits than the metrics need (``top_k=100``), or there is little
            to fuse.
        weights: One a report; None: all equal.
        k: The constant of the method, 60 by custom; larger values trust high ranks less.
        top_k: Hits to keep; None: as many as the deepest report was asked for. Metrics that look deeper are given
            under the depth that is left, see `evaluate_retriever`.
        label: Name in tables.

    Raises:
        EvaluationError: The reports are over different queries.
        ConfigError: There are fewer than two reports, another number of weights, or a number is out of range.
    """
    shares = _checked_shares(reports, weights, k, top_k)
    first = reports[0]
    for report in reports[1:]:
        if report.row_of.keys() != first.row_of.keys():
            raise EvaluationError(
                f"{first.label!r} and {report.label!r} are over different queries; fuse like with like."
            )
    depth = top_k or max(report.depth for report in reports)
    ids, scores = [], []
    for query in first.query_ids:
        fused: dict[str, float] = {}
        for report, share in zip(reports, shares, strict=True):
            for rank, doc in enumerate(report.hit_ids[report.row_of[query]], 1):
                fused[doc] = fused.get(doc, 0.0) + share / (k + rank)
        docs = list(fused)
        order = rank_order(docs, list(fused.values()))[:depth]
        ids.append(tuple(docs[i] for i in order))
        scores.append(tuple(fused[docs[i]] for i in order))
    seconds: dict[str, float] = {}
    for report in reports:
        for phase, value in report.seconds.items():
            seconds[phase] = seconds.get(phase, 0.0) + value
    latencies: tuple[float, ...] = ()
    if all(report.latencies for report in reports):
        columns = [[report.latencies[report.row_of[query]] for query in first.query_ids] for report in reports]
        latencies = tuple(map(sum, zip(*columns, strict=True)))
    notes = [f"{report.label}: {note}" for report in reports for note in report.notes]
    errors = {query: error for query, error in first.errors.items() if all(query in other.errors for other in reports)}
    for report in reports:
        failed = [query for query in report.errors if query not in errors]
        if failed:
            notes.append(
                f"{report.label}: {len(failed)} queries failed and stand on other hits alone (first: "
                f"{failed[0]!r}: {report.errors[failed[0]]})."
            )
    rankings = Rankings(tuple(ids), tuple(scores), latencies, seconds, errors, tuple(notes), depth)
    name = label or " + ".join(report.label for report in reports)
    shallow: Literal["rename", "keep"] = "keep" if top_k is None else "rename"
    made = report_on(task_of(first), rankings, metrics=retrieval_metrics(first), label=name, shallow=shallow)
    return carried_over(made, *reports)


def _checked_shares(
    reports: Sequence[RetrievalReport], weights: Sequence[float] | None, k: int, top_k: int | None
) -> list[float]:
    """The weight of each report.

    Raises:
        ConfigError: An argument of `fuse_runs` is out of range.
    """
    shares = list(weights) if weights is not None else [1.0] * len(reports)
    if len(reports) < 2 or len(shares) != len(reports):
        raise ConfigError(
            f"Fusion needs two or more reports and as many weights; got {len(reports)} and {len(shares)}."
        )
    check_number("k", k, at_least=0)
    for share in shares:
        check_number("weights", share, at_least=0, below=math.inf)
    if not any(shares):
        raise ConfigError("All `weights` are 0, so no ranking is left; give at least one report a share.")
    if top_k is not None:
        check_number("top_k", top_k, at_least=1)
    return shares


def retrieval_metrics(report: RetrievalReport) -> list[str]:
    """The metrics of a report that hits are scored by; those of answers, and a judge's, say nothing of other hits."""
    return [name for name in report.metrics if name.partition("@")[0] in METRICS]


def carried_over(made: RetrievalReport, *sources: RetrievalReport) -> RetrievalReport:
    """The report, with what was known of those it was made from: questions seen in training, and folds.

    Args:
        made: The new report.
        sources: Over the same queries.
    """
    uses = {use for source in sources for use in source.overlap}
    overlap = {use: max(source.overlap.get(use, 0) for source in sources) for use in sorted(uses)}
    return replace(made, overlap=overlap, folds=max(source.folds for source in sources))


def task_of(report: RetrievalReport) -> RetrievalTask:
    """The task that a report was scored against."""
    return RetrievalTask(
        query_ids=report.query_ids,
        queries=report.queries,
        relevant=report.relevant,
        documents=report.documents,
        corpus_size=report.corpus_size,
        data_hash=report.data_hash,
        corpus_hash=report.corpus_hash,
        text=report.text,
    )
