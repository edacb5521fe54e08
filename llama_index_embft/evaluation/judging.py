"""Systems compared by a judge's grades of their pooled results, calibrated on the questions that people graded.

The judge grades every passage that a system found, for every question; people grade the same passages of a few
questions, drawn at random. What is reported is the metric by people's grades, see `statistics.few_labels`.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from llama_index_embft._core.tables import TextTable
from llama_index_embft.errors import ConfigError, EvaluationError
from llama_index_embft.evaluation.metrics import Judgements, find_hits, parse_metric, score_hits
from llama_index_embft.evaluation.statistics.clusters import ClusterBy, clusters_of
from llama_index_embft.evaluation.statistics.few_labels import (
    FEWEST_LABELS,
    PredictionPoweredMean,
    prediction_powered_mean,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from llama_index_embft.evaluation.records import RetrievalReport

    Grades = Mapping[str, Mapping[str, int]]
    Pool = dict[str, tuple[str, ...]]

HIGHEST: Final = 3
"""Grades go from 0 to this: unrelated, on the subject, answers in part, answers."""
_ANSWERS: Final = 2  # the grade from which a passage counts for metrics that know only relevant and not
_MOST_MISSING: Final = 0.05  # of questions that a judge may leave without a grade


@dataclass(frozen=True)
class JudgedSystem:
    """One system by the judge and the labels.

    Attributes:
        label: Its name.
        value: Its mean.
        difference: Of its mean and the base's, question by question; None for the base.
    """

    label: str
    value: PredictionPoweredMean
    difference: PredictionPoweredMean | None

    @property
    def outcome(self) -> str:
        """``"better"``, ``"worse"`` or ``"not proven"`` than the base; empty for the base."""
        if self.difference is None:
            return ""
        low, high = self.difference.interval
        return "better" if low > 0 else "worse" if high < 0 else "not proven"


@dataclass(frozen=True)
class JudgedComparison:
    """What `compare_by_judge` found.

    Attributes:
        systems: The base first.
        metric: What was estimated.
        clustered_by: What counted as one independent observation.
        notes: What a reader should know.
    """

    systems: tuple[JudgedSystem, ...]
    metric: str
    clustered_by: str
    notes: tuple[str, ...]

    def table(self) -> TextTable:
        """A row a system: estimate with interval, the judge alone, the labels alone, and the difference."""
        rows = []
        for system in self.systems:
            value, moved = system.value, system.difference
            rows.append(
                (
                    system.label,
                    f"{value.estimate:.3f} {_ends(value.interval)}",
                    f"{value.judge_mean:.3f}",
                    f"{value.labels_only:.3f} {_ends(value.labels_interval)}",
                    "" if moved is None else f"{moved.estimate:+.3f} {_ends(moved.interval, signed=True)}",
                    system.outcome,
                )
            )
        header = ("system", self.metric, "judge alone", "labels alone", "difference", "")
        return TextTable(header, rows)

    def sentences(self) -> tuple[str, ...]:
        """How far to trust the judge, and what more labels would do."""
        base = self.systems[0].value
        what = "question" if self.clustered_by == "query" else self.clustered_by
        said = [
            f"{base.n:,} questions judged, {base.n_labels:,} of them labelled by people ({base.n_clusters:,} "
            f"independent by {what}); intervals of {base.level:.0%}.",
        ]
        for system in self.systems:
            value = system.value
            way = "higher" if value.bias > 0 else "lower"
            together = "" if value.correlation is None else f", with a correlation of {value.correlation:.2f}"
            said.append(
                f"{system.label}: the judge is {abs(value.bias):.3f} {way} than people{together}; the interval "
                f"is {value.gain:.0%} as wide as by the labels alone."
            )
            moved = system.difference
            if moved is not None and system.outcome == "not proven":
                more = (
                    f"{moved.labels_to_halve:,} labelled questions in all would halve its interval"
                    if moved.labels_to_halve is not None
                    else "no number of labels would halve its interval; judge more questions"
                )
                said.append(f"{system.label}: the difference is not proven; {more}.")
        return tuple(said)

    def to_dict(self) -> dict[str, Any]:
        """The same as plain data; a system has ``label``, ``value``, ``difference`` and ``outcome``."""
        return {
            "metric": self.metric,
            "clustered_by": self.clustered_by,
            "systems": [
                {
                    "label": system.label,
                    "value": system.value.to_dict(),
                    "difference": None if system.difference is None else system.difference.to_dict(),
                    "outcome": system.outcome,
                }
                for system in self.systems
            ],
            "notes": list(self.notes),
        }


def pool_results(reports: Sequence[RetrievalReport], depth: int = 10) -> Pool:
    """The passages that are to be graded: for each question what any system has among its first ``depth``.

    Args:
        reports: Of the systems, over the same questions and passages.
        depth: Hits of each.

    Returns:
        Query id -> document ids, sorted, so that their order says nothing of who found them.

    Raises:
        EvaluationError: The reports are over other questions or passages, one has fewer hits than ``depth`` where the
            corpus has more, or a system has found nothing at all or failed on every question.
        ConfigError: ``depth`` is below 1, or there is no report.
    """
    if not reports or depth < 1:
        raise ConfigError("Give at least one report, and a depth of at least 1.")
    base = reports[0]
    for report in reports:
        if set(report.query_ids) != set(base.query_ids):
            raise EvaluationError(
                f"The reports {base.label!r} and {report.label!r} are over different questions; evaluate both on the "
                "same data set."
            )
        if report.corpus_hash != base.corpus_hash or report.corpus_size != base.corpus_size:
            raise EvaluationError(
                f"The reports {base.label!r} and {report.label!r} searched different passages, so their results make "
                "no common pool; evaluate both on the same corpus."
            )
        if len(report.errors) == len(report.query_ids):
            raise EvaluationError(
                f"{report.label!r} failed on every question and never ran; repair it, and evaluate again."
            )
        if not any(report.hit_ids):
            raise EvaluationError(
                f"{report.label!r} found nothing for any question; look at its retriever before judging."
            )
        reachable = depth if report.corpus_size is None else min(depth, report.corpus_size)
        if report.depth < reachable:
            raise EvaluationError(
                f"{report.label!r} holds {report.depth} hits a question, fewer than the {reachable} to be judged; "
                "evaluate it with a larger `k`, or judge fewer."
            )
    return {
        query_id: tuple(sorted({doc for r in reports for doc in r.hit_ids[r.row_of[query_id]][:depth]}))
        for query_id in base.query_ids
    }


def draw_questions(pool: Pool, n: int, seed: int = 0) -> list[str]:
    """Questions for people to label: a random draw, as the intervals need it.

    Args:
        pool: See `pool_results`.
        n: How many.
        seed: Same seed, same draw; a larger ``n`` continues a smaller one.

    Raises:
        ConfigError: There are fewer questions.
    """
    if not 1 <= n <= len(pool):
        raise ConfigError(f"{n} questions cannot be drawn of {len(pool)}; give a number from 1 to {len(pool)}.")
    order = sorted(pool)
    random.Random(seed).shuffle(order)
    return order[:n]


def compare_by_judge(
    reports: Sequence[RetrievalReport],
    judge: Grades,
    human: Grades,
    *,
    metric: str = "ndcg@10",
    cluster_by: ClusterBy = "document",
    level: float = 0.95,
) -> JudgedComparison:
    """Estimate each system's metric, and its difference to the first, from a judge's grades and a few of people's.

    Args:
        reports: The system in use first.
        judge: Query id -> document id -> grade from 0 to 3, for every passage of `pool_results`. A question for which
            no system found anything needs none: it scores 0.
        human: The same by people, for a random draw of the questions.
        metric: nDCG takes the grades as gains; of others a passage is relevant from grade 2. Its cut-off is the depth
            of the pool.
        cluster_by: What counts as one independent observation, see `compare`.
        level: Of the intervals.

    Raises:
        EvaluationError: The reports do not go together (see `pool_results`), a grade is none from 0 to 3, the judge
            says one thing of everything, or lacks more than 5 % of the questions, people labelled a question in part
            or one that is not there, or too few.
        ConfigError: The metric has no cut-off.
    """
    depth = parse_metric(metric)[1]
    if depth is None:
        raise ConfigError(f"`metric` is {metric!r}, which has no cut-off; take one such as 'ndcg@10'.")
    pool = pool_results(reports, depth)
    notes = _check_grades(pool, judge, human)
    complete = [query_id for query_id, docs in pool.items() if all(doc in judge.get(query_id, {}) for doc in docs)]
    labelled = _labelled(pool, complete, human)
    base = reports[0]
    labels, clustered, more = clusters_of(base, cluster_by)
    groups = None if labels is None else [labels[base.row_of[query_id]] for query_id in complete]
    by_judge = [_values(report, judge, complete, metric) for report in reports]
    by_people = [_values(report, human, labelled, metric) for report in reports]
    at = {query_id: row for row, query_id in enumerate(complete)}
    rows = [at[query_id] for query_id in labelled]

    def estimate(people: NDArray[np.float64], machine: NDArray[np.float64]) -> PredictionPoweredMean:
        human_values = np.full(len(complete), np.nan)
        human_values[rows] = people
        return prediction_powered_mean(human_values, machine, groups, level=level)

    systems: list[JudgedSystem] = []
    for place, report in enumerate(reports):
        difference = None
        if place:
            difference = estimate(by_people[place] - by_people[0], by_judge[place] - by_judge[0])
        name = report.label
        name = name if name not in {one.label for one in systems} else f"{name} ({place + 1})"
        systems.append(JudgedSystem(name, estimate(by_people[place], by_judge[place]), difference))
    return JudgedComparison(tuple(systems), metric, clustered, (*notes, *more))


def _labelled(pool: Pool, complete: Sequence[str], human: Grades) -> list[str]:
    """The questions whose value by people is known.

    Where no system found anything that is 0, and nobody can label it. Of these the same share counts as of the others:
    all of them, or none, would make the draw say another mean.
    """
    empty = [query_id for query_id in complete if not pool[query_id]]
    by_people = [query_id for query_id in complete if query_id in human and pool[query_id]]
    share = len(by_people) / max(len(complete) - len(empty), 1)
    return [*by_people, *empty[: round(share * len(empty))]]


def check_labels(pool: Pool, human: Grades) -> None:
    """Refuse labels that cannot calibrate a judge; to be called before a judge is paid.

    Args:
        pool: See `pool_results`.
        human: Query id -> document id -> grade.

    Raises:
        EvaluationError: A grade is none from 0 to 3, a query is not in the pool, one is labelled in part, or there are
            fewer than ten.
    """
    _check_range("People", human)
    unknown = [query_id for query_id in human if query_id not in pool]
    if unknown:
        raise EvaluationError(
            f"People labelled the query {unknown[0]!r}, which is not in the reports (and {len(unknown) - 1} more); "
            "label what was drawn for these."
        )
    for query_id, of_query in human.items():
        missing = [doc for doc in pool[query_id] if doc not in of_query]
        if missing:
            raise EvaluationError(
                f"Query {query_id!r} is labelled in part: {len(missing)} of its {len(pool[query_id])} passages, such "
                f"as {missing[0]!r}, have no grade; label them too, or leave the query out."
            )
    if len(human) < FEWEST_LABELS:
        raise EvaluationError(
            f"People labelled {len(human)} questions; label at least {FEWEST_LABELS}, better 30 to 100, at random."
        )


def _check_range(who: str, grades: Grades) -> None:
    for query_id, of_query in grades.items():
        for doc, grade in of_query.items():
            if isinstance(grade, bool) or not isinstance(grade, int) or not 0 <= grade <= HIGHEST:
                raise EvaluationError(
                    f"{who} gave {grade!r} to {doc!r} for query {query_id!r}; grades are whole numbers from 0 to "
                    f"{HIGHEST}."
                )


def _check_grades(pool: Pool, judge: Grades, human: Grades) -> list[str]:
    """Refuse grades that mean nothing, and note what was left out."""
    _check_range("The judge", judge)
    check_labels(pool, human)
    ungraded = [q for q, docs in pool.items() if any(doc not in judge.get(q, {}) for doc in docs)]
    if len(ungraded) > _MOST_MISSING * len(pool):
        raise EvaluationError(
            f"The judge left {len(ungraded)} of {len(pool)} questions without all their grades, such as "
            f"{ungraded[0]!r}; one that often says nothing usable cannot be calibrated: take another model or prompt."
        )
    given = {judge[q][doc] for q, docs in pool.items() for doc in docs if doc in judge.get(q, {})}
    if len(given) < 2:
        raise EvaluationError(
            f"The judge gave {next(iter(given), 'no grade')} to everything, so it tells nothing apart; take another "
            "model or prompt."
        )
    notes = []
    if ungraded:
        notes.append(f"{len(ungraded)} questions were left out: the judge gave no grade for all of their passages.")
    empty = sum(not docs for docs in pool.values())
    if empty:
        notes.append(f"For {empty} questions no system found anything; they score 0, by the judge and by people.")
    return notes


def _values(report: RetrievalReport, grades: Grades, query_ids: Sequence[str], metric: str) -> NDArray[np.float64]:
    """The metric of each query by some grades; 0 where nothing is relevant, or was found at all."""
    graded = metric.startswith("ndcg")
    least = 1 if graded else _ANSWERS
    docs = sorted(
        {doc for query_id in query_ids for doc in (*grades.get(query_id, ()), *report.hit_ids[report.row_of[query_id]])}
    )
    row_of = {doc: row for row, doc in enumerate(docs)}
    relevant = {
        query_id: {doc: grade if graded else 1 for doc, grade in grades.get(query_id, {}).items() if grade >= least}
        for query_id in query_ids
    }
    hits = [report.hit_ids[report.row_of[query_id]] for query_id in query_ids]
    width = max(map(len, hits), default=0) or 1
    rows = np.full((len(query_ids), width), -1, dtype=np.int64)
    for place, found in enumerate(hits):
        rows[place, : len(found)] = [row_of[doc] for doc in found]
    judgements = Judgements.from_qrels(relevant, query_ids, row_of)
    return score_hits(find_hits(rows, judgements, len(docs)), judgements, (metric,))[metric]


def _ends(interval: tuple[float, float], *, signed: bool = False) -> str:
    low, high = interval
    return f"[{low:+.3f}, {high:+.3f}]" if signed else f"[{low:.3f}, {high:.3f}]"
