"""From figures to words: what may be said of a difference, and whether to adopt the system."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from llama_index_embft.evaluation.statistics.significance import clusters_to_show

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llama_index_embft.evaluation.statistics.findings import Decision, GuardResult, MetricComparison, Outcome
    from llama_index_embft.evaluation.statistics.significance import PairedResult

_WORTHWHILE: Final = 0.05  # a gain that most would take: five points
_FEWEST: Final = 8  # documents from which the limit of the test is within twice that of very many
_WORDS: Final = {"document": "document", "chunk": "chunk", "given": "group"}  # of what is clustered by; else queries
_DECISION_OF: Final[dict[str, Decision]] = {"gain": "adopt", "loss": "do not adopt"}


def outcome_of(test: PairedResult, p: float, alpha: float) -> Outcome:
    """What may be said of a difference: a gain or a loss where `p`, perhaps corrected, is under `alpha`."""
    if test.wins == test.losses == 0:
        return "same"
    if p < alpha:
        return "gain" if test.difference > 0 else "loss"
    return "not significant"


def decide(
    row: MetricComparison,
    outcome: Outcome,
    p: float,
    guards: Iterable[GuardResult],
    clustered: str,
    *,
    alpha: float,
    on_these: PairedResult | None = None,
) -> tuple[Decision, tuple[str, ...]]:
    """A decision and the sentences behind it.

    Only a gain that is proven for documents in general, with every guard kept, is adopted. A loss need not be general:
    where documents are too few to speak of others, a loss that is proven on these very documents is enough.

    Args:
        row: The deciding metric.
        outcome: What it says, from `outcome_of`.
        p: The p that `outcome` rests on.
        guards: Results on the guard sets.
        clustered: What the clusters of `row` are: ``"document"``, ``"chunk"``, ``"query"`` or ``"given"``.
        alpha: Level of the tests.
        on_these: The same metric tested by chunk or query: whether it moved on these documents. None: there are enough
            of them.
    """
    reasons = [_sentence(row, outcome, p, clustered, alpha)]
    decision: Decision = _DECISION_OF.get(outcome, "not proven")
    if on_these is not None and outcome == "not significant":
        worse = outcome_of(on_these, on_these.p, alpha) == "loss"
        if worse:
            decision = "do not adopt"
        reasons.append(_sentence_on_these(row, on_these, clustered, worse=worse))
    for guard in guards:
        reasons.append(_guard_sentence(guard))
        if guard.kept is False:
            decision = "do not adopt"
        elif guard.kept is None and decision == "adopt":
            decision = "not proven"
    return decision, tuple(reasons)


def unseen_loss(row: MetricComparison, on_these: PairedResult | None = None, clustered: str = "document") -> str:
    """What loss a gate on this comparison would let through, in one sentence."""
    general = on_these is None or row.test.detectable <= on_these.detectable
    test = row.test if general or on_these is None else on_these
    limit = _limit(test)
    size = _size(row.test, clustered) if on_these is not None else f"{test.n:,} queries"
    if limit is None:
        return f"Blind: {size} cannot show a loss in {row.metric} of any size; evaluate more queries and documents."
    return f"Blind under {limit} points: a smaller loss in {row.metric} passes {size} more often than one time in five."


def _size(test: PairedResult, clustered: str) -> str:
    word = _WORDS.get(clustered)
    if word is None:
        return f"{test.n:,} queries"
    plural = "" if test.n_clusters == 1 else "s"
    return f"{test.n:,} queries {'in' if clustered == 'given' else 'about'} {test.n_clusters:,} {word}{plural}"


def _limit(test: PairedResult) -> str | None:
    """The detectable difference in points; None where it lies beyond the whole scale or is not known."""
    return f"{100 * test.detectable:.1f}" if test.detectable < 1 else None


def _sentence(row: MetricComparison, outcome: Outcome, p: float, clustered: str, alpha: float) -> str:
    test, size = row.test, _size(row.test, clustered)
    change = f"{row.metric} {row.base:.3f} → {row.tuned:.3f}, {points(test.difference)} points"
    if outcome == "same":
        return f"No difference in {row.metric}: every one of {size} scores the same."
    if math.isinf(test.interval[0]):
        return f"Not significant: {change}, but {size} cannot be told from chance; {_more(test, clustered)}."
    low, high = (max(-1.0, min(1.0, end)) for end in test.interval)  # scores lie between 0 and 1
    corrected = "" if p == test.p else " after Holm's correction"
    figures = f"{change} ({interval_name(alpha)} {points(low)} to {points(high)}, {p_equals(p)}{corrected}, {size})"
    if outcome != "not significant":
        return f"Significant {outcome}: {figures}."
    limit = _limit(test)
    if limit is None:
        shown = f"this set cannot show a gain of any size; {_more(test, clustered)}"
        return f"Not significant: {figures} may be chance; {shown}."
    return f"Not significant: {figures} may be chance; this set cannot show a gain under {limit} points."


def _more(test: PairedResult, clustered: str) -> str:
    """The next step where a set shows nothing: how much more would."""
    word = f"{_WORDS[clustered]}s" if clustered in _WORDS else "queries"
    wanted = clusters_to_show(test, _WORTHWHILE)
    if wanted is None:
        return f"evaluate {'queries about ' if clustered in _WORDS else ''}more {word}, at least {_FEWEST}"
    return f"about {wanted:,} {word} like these would show a gain of {100 * _WORTHWHILE:g} points"


def _sentence_on_these(row: MetricComparison, test: PairedResult, clustered: str, *, worse: bool) -> str:
    n, word = row.test.n_clusters, _WORDS[clustered]
    unit = "query" if test.n_clusters == test.n else "chunk"
    few = f"this {word} itself" if n == 1 else f"these {n:,} {word}s themselves"
    if not worse:
        return f"On {few} no loss is proven either."
    return (
        f"On {few} the loss is proven: {points(test.difference)} points, {p_equals(test.p)}, "
        f"{_size(test, unit)}; whether other {word}s lose too is not shown."
    )


def _guard_sentence(guard: GuardResult) -> str:
    figures = (
        f"{guard.metric} {guard.base:.3f} → {guard.tuned:.3f}, {points(guard.test.difference)} points on {guard.name}"
    )
    limit = f"{100 * guard.margin:g} points"
    if guard.kept:
        return f"Kept: {figures}; a loss of {limit} is ruled out ({p_equals(guard.p_non_inferior)})."
    if guard.kept is False:
        p = min(test.p for test in (guard.test, guard.on_these) if test is not None)
        return f"Forgotten: {figures} ({p_equals(p)}); a loss of {limit} is not ruled out."
    return f"Unclear: {figures}; its {guard.test.n:,} queries cannot rule out a loss of {limit}."


def points(difference: float) -> str:
    """A difference in points, 100 to the whole scale, with its sign."""
    return f"{100 * difference:+.1f}"


def interval_name(alpha: float) -> str:
    """What an interval is called at a level: ``95 % interval`` for 0.05."""
    return f"{100 * (1 - alpha):.4g} % interval"


def p_value(p: float) -> str:
    """A p value for tables; never a bare 0."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def p_equals(p: float) -> str:
    """A p value for sentences."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
