"""A comparison for readers who know no metric: what changes for a hundred questions, and what each metric says.

The sentence follows the decision, never a figure alone: only a system that is adopted is said to find *more*.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from llama_index_embft.evaluation.statistics.verdict import interval_name

if TYPE_CHECKING:
    from llama_index_embft.evaluation.statistics.findings import (
        ComparisonRecord,
        Decision,
        MetricComparison,
        SystemComparison,
    )

_NUMBERS: Final = ("", "", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_MEANINGS: Final = {
    "hit_rate": "Share of the questions that find a right page {place}.",
    "mrr": "How high the first right page stands: 1 in first place, ½ in second, 0 if it is not {place}; the mean.",
    "ndcg": "How well the pages {place} are ordered: the higher the right ones stand, the nearer to 1.",
    "map": "How high all right pages stand together, looking {place}; 1 is perfect.",
    "recall": "Share of all right pages that stand {place}.",
    "precision": "Share of the pages {place} that are right.",
    "r_precision": "Of a question with three right pages, the share of the first three that are right; the mean.",
    "answer_f1": "How many words the answer shares with the reference answer; 1 is all of them.",
    "answer_similarity": "How close the answer's meaning is to the reference answer's; 1 is the same.",
}
_MOVES: Final = {
    "ndcg": ("right pages stand higher", "right pages stand lower"),
    "mrr": ("the first right page stands higher", "the first right page stands lower"),
    "map": ("right pages stand higher", "right pages stand lower"),
    "recall": ("more of the right pages are found", "fewer of the right pages are found"),
}


def meaning_of(metric: str) -> str:
    """What a metric says, in one plain sentence; empty for one that is not known."""
    return _MEANINGS.get(metric.partition("@")[0], "").format(place=place_of(metric))


def place_of(metric: str) -> str:
    """Where a metric looks, in words: ``"in the first ten"``."""
    k = metric.partition("@")[2]
    if not k.isdecimal():
        return "among the results"
    if int(k) == 1:
        return "in first place"
    return f"in the first {_NUMBERS[int(k)] if int(k) < len(_NUMBERS) else f'{int(k):,}'}"


def hit_rate_shown(system: SystemComparison, primary: str) -> MetricComparison | None:
    """The hit rate that readers are told about: the deciding one, at 10, or at the largest cut-off; None: no such."""
    if primary.startswith("hit_rate@"):
        return system.metrics[primary]
    cuts = [int(name.partition("@")[2]) for name in system.metrics if name.startswith("hit_rate@")]
    return system.metrics[f"hit_rate@{10 if 10 in cuts else max(cuts)}"] if cuts else None


def in_words(system: SystemComparison, primary: str) -> str:
    """The decision on a system as a sentence about questions and pages.

    "More" is said only of a system that is adopted, "fewer" only of one that is turned down, and both only with an
    interval that leaves out 0; else both levels are given, and what keeps them from being a result. That interval is
    not corrected for other metrics: which hit rate is told was fixed beforehand, and the decision rests on `primary`.

    Args:
        system: What was found about it.
        primary: The metric that decided.

    Returns:
        The sentence; empty where no hit rate was compared.
    """
    row = hit_rate_shown(system, primary)
    if row is None:
        return ""
    if (system.decision, _direction(row)) in (("adopt", 1), ("do not adopt", -1)):
        return _change(row)
    if system.decision == "adopt":
        clause = _adopted(system, row, primary)
    elif system.decision == "do not adopt":
        clause = _turned_down(system, primary)
    else:
        clause = _unproven(system, row, primary)
    return f"{_levels(row, system.label)}{clause}."


def summary(comparison: ComparisonRecord) -> str:
    """Which of several systems are better than the base, in words; empty for one system alone."""
    systems = comparison.systems
    if len(systems) < 2:
        return ""
    groups: dict[Decision, list[str]] = {"adopt": [], "do not adopt": [], "not proven": []}
    for system in systems:
        groups[system.decision].append(system.label)
    base = comparison.base.label
    words: dict[Decision, str] = {
        "adopt": f"Proven better than {base}",
        "do not adopt": "Not to be adopted",
        "not proven": "Not proven",
    }
    found = [f"{words[decision]}: {', '.join(labels)}." for decision, labels in groups.items() if labels]
    if not groups["adopt"]:
        found.insert(0, f"Of {len(systems)} systems none is proven better than {base}.")
    elif len(groups["adopt"]) > 1:
        rows = {system.label: system.metrics[comparison.primary].tuned for system in systems}
        best = max(groups["adopt"], key=rows.__getitem__)
        found.append(
            f"The highest {comparison.primary} among these has {best} ({rows[best]:.3f}); whether it is better than "
            "the others, too, was not tested."
        )
    return " ".join(found)


def _adopted(system: SystemComparison, row: MetricComparison, primary: str) -> str:
    if system.outcome != "gain":  # decided by more than these figures
        return ""
    joint = {0: ", which alone is not proven;", -1: ", but"}[_direction(row)] if row.outcome != "same" else ";"
    return f"{joint} a gain in {primary} is proven{_moved(primary, 0)}"


def _turned_down(system: SystemComparison, primary: str) -> str:
    forgotten = [guard.name for guard in system.guards if guard.kept is False]
    if system.outcome == "loss":
        return f"; a loss in {primary} is proven{_moved(primary, 1)}"
    if forgotten:
        return f", but what is lost on {', '.join(forgotten)} rules {system.label} out"
    if system.on_these is not None and system.on_these.difference < 0:
        return f"; a loss in {primary} is proven for these documents{_moved(primary, 1)}"
    return "; the reasons given speak against it"


def _unproven(system: SystemComparison, row: MetricComparison, primary: str) -> str:
    if system.outcome == "gain":
        return ", which proves no gain here, for the reasons given"
    if row.outcome == "same":
        return "" if system.outcome == "same" else f"; in {primary}, too, no difference is proven"
    if _direction(row):
        return f"; in {primary}, which decides, no difference is proven"
    return "; a difference like this may be chance"


def _direction(row: MetricComparison) -> int:
    """1 or -1 where the interval leaves out 0 on that side; 0 where it holds it or there is none."""
    low, high = row.test.interval
    return int(low > 0) - int(high < 0)


def _moved(primary: str, way: int) -> str:
    words = _MOVES.get(primary.partition("@")[0])
    return f": {words[way]}" if words else ""


def _change(row: MetricComparison) -> str:
    """A difference that is proven, for 100 questions, or for as many as it takes to see it."""
    test = row.test
    scale = next((scale for scale in (100, 1_000) if abs(test.difference) * scale >= 1), 10_000)
    count = _rounded(scale * abs(test.difference))
    find, word = "finds its" if count == 1 else "find their", "more" if test.difference > 0 else "fewer"
    low, high = (scale * max(-1.0, min(1.0, end)) for end in test.interval)
    known = f"; {interval_name(1 - test.level)}: {_between(low, high)}" if math.isfinite(low + high) else ""
    asked = f"{_count(row.tuned, test.n)} of the {test.n:,} asked, {_count(row.base, test.n)} before"
    return f"Of {scale:,} questions, {count:,} {word} {find} page {place_of(row.metric)} ({asked}{known})."


def _levels(row: MetricComparison, label: str) -> str:
    """Both levels for 100 questions, without calling the difference anything."""
    base, tuned, n = _rounded(100 * row.base), _rounded(100 * row.tuned), row.test.n
    start = f"Of 100 questions, {base} {'finds its' if base == 1 else 'find their'} page {place_of(row.metric)}"
    counts = _count(row.base, n), _count(row.tuned, n)
    asked = f"{counts[0]} of the {n:,} asked" if len(set(counts)) == 1 else f"{' and '.join(counts)} of the {n:,} asked"
    if base == tuned:
        return f"{start} with the base as with {label} ({asked})"
    return f"{start} with the base and {tuned} with {label} ({asked})"


def _between(low: float, high: float) -> str:
    """An interval of a count: ``"12 to 22 more"``, ``"3 fewer to 5 more"``; decimals where its ends are near 0."""
    digits = 0 if min(abs(low), abs(high)) >= 1 else 1
    ends = [(f"{abs(end):.{digits}f}", "fewer" if end < 0 else "more") for end in (low, high)]
    if ends[0][1] == ends[1][1]:
        (near, word), (far, _) = sorted(ends, key=lambda end: float(end[0]))
        return f"{near} to {far} {word}"
    return " to ".join(" ".join(end) for end in ends)


def _count(share: float, n: int) -> str:
    return f"{_rounded(share * n):,}"


def _rounded(value: float) -> int:
    return math.floor(value + 0.5 + 1e-9)  # 0.145 * 100 is 14.499999999999998
