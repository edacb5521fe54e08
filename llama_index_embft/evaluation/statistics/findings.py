"""What a comparison finds: typed records that hold figures and no formatting."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Literal

from llama_index_embft._core.environment import package_versions
from llama_index_embft.errors import EvaluationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from typing_extensions import Self

    from llama_index_embft.evaluation.records import RetrievalReport
    from llama_index_embft.evaluation.statistics.significance import PairedResult
    from llama_index_embft.evaluation.statistics.switching import SwitchingCost

Outcome = Literal["gain", "loss", "not significant", "same"]
Decision = Literal["adopt", "do not adopt", "not proven"]


@dataclass(frozen=True)
class MetricComparison:
    """One metric of one tuned system against the base.

    Attributes:
        metric: Name, for example ``"ndcg@10"``.
        base: Mean of the base system.
        tuned: Mean of the tuned system.
        test: The paired statistics of the difference.
        p_holm: ``test.p``, Holm-corrected: for the deciding metric over the systems, for the others over all of them
            and the systems.
        outcome: ``"gain"`` or ``"loss"`` where the corrected p is under the level; ``"same"`` where no query changed.
    """

    metric: str
    base: float
    tuned: float
    test: PairedResult
    p_holm: float
    outcome: Outcome

    def to_dict(self) -> dict[str, Any]:
        """Plain data; a figure that does not exist is None, because JSON has no NaN."""
        test = self.test
        return {
            "base": self.base,
            "tuned": self.tuned,
            "difference": test.difference,
            test.interval_key: [json_number(end) for end in test.interval],
            "p": test.p,
            "p_holm": self.p_holm,
            "n": test.n,
            "clusters": test.n_clusters,
            "wins": test.wins,
            "losses": test.losses,
            "ties": test.ties,
            "standard_error": json_number(test.standard_error),
            "effect_size": json_number(test.effect_size),
            "detectable": json_number(test.detectable),
            "outcome": self.outcome,
        }


@dataclass(frozen=True)
class QueryChange:
    """What changed for one query.

    Attributes:
        query_id: Id of the query.
        query: Its text.
        base: Score of the primary metric with the base system.
        tuned: Score with the tuned system.
        base_rank: Rank of the best-placed relevant document, from 1; None: not among the hits.
        tuned_rank: Likewise.
    """

    query_id: str
    query: str
    base: float
    tuned: float
    base_rank: int | None
    tuned_rank: int | None

    @property
    def difference(self) -> float:
        """Tuned minus base."""
        return self.tuned - self.base


@dataclass(frozen=True)
class SliceComparison:
    """The primary metric on a part of the queries.

    Attributes:
        by: What the queries were divided by, for example ``"query length"``.
        name: Which part this is, for example ``"up to 8 words"``.
        base: Mean of the base system.
        tuned: Mean of the tuned system.
        test: The paired statistics.
        p_holm: ``test.p``, corrected over the slices of this division.
    """

    by: str
    name: str
    base: float
    tuned: float
    test: PairedResult
    p_holm: float


@dataclass(frozen=True)
class GuardResult:
    """Whether a system kept its quality on a data set that it was not tuned for.

    Attributes:
        name: Name of the guard set.
        metric: The metric it is judged by.
        base: Mean of the base system.
        tuned: Mean of the tuned system.
        test: The paired statistics.
        margin: The loss that would matter.
        p_non_inferior: One-sided p of a loss of `margin` or more; 0 where no query changed.
        kept: True: a loss of `margin` or more is ruled out, which is where the interval lies above it, or no query
            changed. False: a loss is proven, if only on these very documents, and `margin` is not ruled out. None: the
            set is too small to tell.
        on_these: As in `SystemComparison`.
    """

    name: str
    metric: str
    base: float
    tuned: float
    test: PairedResult
    margin: float
    p_non_inferior: float
    kept: bool | None
    on_these: PairedResult | None = None


@dataclass(frozen=True, eq=False)
class SystemComparison:
    """One tuned system against the base.

    Attributes:
        report: The tuned system's report.
        metrics: Metric name -> its comparison.
        changes: Every query, most improved first.
        slices: The primary metric on parts of the queries.
        guards: Results on the guard sets.
        outcome: What the primary metric says, corrected over the systems compared.
        p: The p that `outcome` rests on.
        on_these: The primary metric tested by chunk or by query, where documents are too few to speak of others; else
            None.
        decision: ``"adopt"``, ``"do not adopt"`` or ``"not proven"``.
        reasons: The sentences behind the decision.
        cost: What it costs to switch to it; None: not measured.
    """

    report: RetrievalReport
    metrics: dict[str, MetricComparison]
    changes: tuple[QueryChange, ...]
    slices: tuple[SliceComparison, ...]
    guards: tuple[GuardResult, ...]
    outcome: Outcome
    p: float
    on_these: PairedResult | None
    decision: Decision
    reasons: tuple[str, ...]
    cost: SwitchingCost | None = None

    @property
    def label(self) -> str:
        """Name of the system."""
        return self.report.label

    def improved(self, n: int = 10) -> tuple[QueryChange, ...]:
        """The queries that gained most, best first; fewer where fewer gained."""
        return tuple(change for change in self.changes[:n] if order_of_change(change) > (0, 0))

    def harmed(self, n: int = 10) -> tuple[QueryChange, ...]:
        """The queries that lost most, worst first; fewer where fewer lost."""
        return tuple(change for change in self.changes[: -n - 1 : -1] if order_of_change(change) < (0, 0))


@dataclass(frozen=True, eq=False, repr=False)
class ComparisonRecord:
    """One or more tuned systems against a base, over the same queries: all figures, decisions and remarks.

    Attributes:
        base: The base system's report.
        systems: The tuned systems, in the order given.
        primary: The metric that verdicts rest on.
        cluster_by: What was resampled: ``"document"``, ``"chunk"``, ``"query"`` or ``"given"``.
        n_resamples: Resamples of each test.
        seed: Their seed.
        alpha: Level of the tests.
        notes: Things a reader should know: warnings and settings that differ.
        versions: Of the packages that made it.
        date: When, in ISO 8601, UTC.
        command: The command line that made it; empty in Python.
        data: Where questions and documents are from, in words; empty: not said.
        chosen: Label of the system that was chosen beforehand, on other questions; it then stands first. Empty: none
            was, and no verdict is about one of several systems more than about another.
    """

    base: RetrievalReport
    systems: tuple[SystemComparison, ...]
    primary: str
    cluster_by: str
    n_resamples: int
    seed: int
    alpha: float
    notes: tuple[str, ...]
    versions: dict[str, str] = field(default_factory=package_versions)
    date: str = field(default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="seconds"))
    command: str = ""
    data: str = ""
    chosen: str = ""

    @property
    def metrics(self) -> dict[str, MetricComparison]:
        """The metrics of the first tuned system."""
        return self.systems[0].metrics

    def amended(
        self,
        *,
        decision: Decision | None = None,
        reasons: Iterable[str] = (),
        notes: Iterable[str] = (),
        command: str = "",
        data: str = "",
        chosen: str = "",
        costs: Mapping[str, SwitchingCost] | None = None,
    ) -> Self:
        """The same figures with more that is known: every artefact then says it.

        Args:
            decision: Of the first tuned system, where something beside these figures decides (a guard elsewhere, a base
                that leaves nothing to gain); None: as it is.
            reasons: Sentences about the first tuned system that come first.
            notes: Added at the end.
            command: The command line.
            data: Where questions and documents are from, in words.
            chosen: Label of the system that was chosen on other questions. It becomes the first one, so that `decision`
                and `reasons` are about it.
            costs: Label -> what it costs to switch to that system.

        Raises:
            EvaluationError: `chosen` or `costs` name a system that was not compared.
        """
        systems = self.systems
        for label in (*([chosen] if chosen else []), *(costs or {})):
            if all(system.label != label for system in systems):
                known = ", ".join(repr(system.label) for system in systems)
                raise EvaluationError(f"There is no system {label!r} in this comparison; it has {known}.")
        if costs:
            systems = tuple(replace(system, cost=costs.get(system.label, system.cost)) for system in systems)
        first, *others = sorted(systems, key=lambda system: system.label != chosen) if chosen else systems
        first = replace(first, decision=decision or first.decision, reasons=(*reasons, *first.reasons))
        return replace(
            self,
            systems=(first, *others),
            notes=tuple(dict.fromkeys((*self.notes, *notes))),
            command=command or self.command,
            data=data or self.data,
            chosen=chosen or self.chosen,
        )

    def headline(self) -> tuple[str, ...]:
        """The few metrics a short table shows: the primary one and the best-known others."""
        known = tuple(self.metrics)
        wanted = ("hit_rate@1", "hit_rate@5", "hit_rate@10", "mrr@10", "ndcg@10", "recall@10")
        same_as_hit_rate = "recall@10" in known and "hit_rate@10" in known and self._equal("recall@10", "hit_rate@10")
        shown = [name for name in wanted if name in known and not (name == "recall@10" and same_as_hit_rate)]
        if self.primary not in shown:
            shown.insert(0, self.primary)
        return tuple(shown) if len(shown) > 1 else known

    def _equal(self, one: str, other: str) -> bool:
        reports = [self.base, *(system.report for system in self.systems)]
        return all(bool((report.values[one] == report.values[other]).all()) for report in reports)


def interval(ends: tuple[float, float]) -> str:
    """An interval for tables; one that does not exist is a dash."""
    return "–" if not all(math.isfinite(end) for end in ends) else f"{ends[0]:+.3f} to {ends[1]:+.3f}"


def json_number(value: Any) -> Any:
    """A figure for JSON, which has no NaN: None instead."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def order_of_change(change: QueryChange) -> tuple[float, float]:
    """Order of changes: by the primary metric; where that does not move, by the reciprocal rank."""
    before, after = (1 / rank if rank else 0.0 for rank in (change.base_rank, change.tuned_rank))
    return (change.difference, after - before)
