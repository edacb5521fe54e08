"""From figures to words: what may be said of a difference, and whether to adopt the system."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llama_index_embft.evaluation.statistics.findings import Decision, GuardResult, MetricComparison, Outcome
    from llama_index_embft.evaluation.statistics.significance import PairedResult

_DECISION_OF: Final[dict[str, Decision]] = {"gain": "adopt", "loss": "do not adopt"}


def outcome_of(test: PairedResult, p: float, alpha: float) -> Outcome:
    """What may be said of a difference: a gain or loss only where p *and* the interval agree on it."""
    if test.wins == test.losses == 0:
        return "same"
    if p < alpha and test.ci95[0] > 0:
        return "gain"
    if p < alpha and test.ci95[1] < 0:
        return "loss"
    return "not significant"


def decide(
    row: MetricComparison, outcome: Outcome, p: float, guards: Iterable[GuardResult], clustered: str
) -> tuple[Decision, tuple[str, ...]]:
    """A decision and the sentences behind it. Only a proven gain with every guard kept is adopted."""
    reasons = [_sentence(row, outcome, p, clustered)]
    decision: Decision = _DECISION_OF.get(outcome, "not proven")
    for guard in guards:
        reasons.append(_guard_sentence(guard))
        if guard.kept is False:
            decision = "do not adopt"
        elif guard.kept is None and decision == "adopt":
            decision = "not proven"
    return decision, tuple(reasons)


def _sentence(row: MetricComparison, outcome: Outcome, p: float, clustered: str) -> str:
    test = row.test
    size = f"{test.n:,} queries" + {
        "document": f" about {test.n_clusters:,} documents",
        "chunk": f" about {test.n_clusters:,} chunks",
        "given": f" in {test.n_clusters:,} groups",
    }.get(clustered, "")
    if outcome == "same":
        return f"No difference in {row.metric}: every one of {size} scores the same."
    if math.isnan(test.ci95[0]):
        return f"Not significant: {size} cannot be told from chance; evaluate more documents."
    figures = (
        f"{row.metric} {row.base:.3f} → {row.tuned:.3f}, {points(test.difference)} points "
        f"(95 % interval {points(test.ci95[0])} to {points(test.ci95[1])}, {p_equals(p)}, {size})"
    )
    if outcome == "not significant":
        limit = f"{100 * test.detectable:.1f}"
        return f"Not significant: {figures} may be chance; this set cannot show a gain under {limit} points."
    return f"Significant {outcome}: {figures}."


def _guard_sentence(guard: GuardResult) -> str:
    figures = (
        f"{guard.metric} {guard.base:.3f} → {guard.tuned:.3f}, {points(guard.test.difference)} points on {guard.name}"
    )
    limit = f"{100 * guard.margin:g} points"
    if guard.kept:
        return f"Kept: {figures}; a loss of {limit} is ruled out ({p_equals(guard.p_non_inferior)})."
    if guard.kept is False:
        return f"Forgotten: {figures} ({p_equals(guard.test.p)}); a loss of {limit} is not ruled out."
    return f"Unclear: {figures}; its {guard.test.n:,} queries cannot rule out a loss of {limit}."


def points(difference: float) -> str:
    """A difference in points, 100 to the whole scale, with its sign."""
    return f"{100 * difference:+.1f}"


def p_value(p: float) -> str:
    """A p value for tables; never a bare 0."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def p_equals(p: float) -> str:
    """A p value for sentences."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
