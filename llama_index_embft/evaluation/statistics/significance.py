"""Is a difference between two systems more than chance? Paired statistics over the same queries.

Questions about one document are not independent: a model that embeds the document badly fails all of them. So whole
clusters of queries are resampled, sign-flipped and counted, not single queries; a cluster of one query each gives the
textbook test. Everything works on many metrics at once, because all of them share the same resamples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

_BLOCK_CELLS: Final = 1 << 20  # resampled clusters held at a time: about 16 MB of working memory
_SAME: Final = 1e-9  # scores closer than this are a tie: they differ by rounding, not by a rank


@dataclass(frozen=True)
class PairedResult:
    """What the paired queries say about one metric.

    Attributes:
        difference: Mean of tuned minus base.
        ci95: 95 % bootstrap interval of the difference; not a number with fewer than two clusters.
        p: Two-sided randomisation test, ``(b + 1) / (m + 1)``, so never 0.
        p_t: Two-sided paired t-test; with clusters, on the cluster-robust standard error.
        standard_error: Of the difference, cluster-robust.
        effect_size: Mean difference over the standard deviation of the differences (Cohen's d for pairs).
        detectable: The smallest true difference that a set like this one shows with 80 % power at level 0.05.
        n: Number of queries.
        n_clusters: Number of independent groups of queries.
        wins: Queries on which the tuned system scores higher; `losses` and `ties` accordingly.
    """

    difference: float
    ci95: tuple[float, float]
    p: float
    p_t: float
    standard_error: float
    effect_size: float
    detectable: float
    n: int
    n_clusters: int
    wins: int
    losses: int
    ties: int


def paired_tests(
    differences: NDArray[np.float64],
    clusters: ArrayLike | None = None,
    *,
    n_resamples: int = 10_000,
    seed: int = 0,
) -> list[PairedResult]:
    """Test the mean of per-query differences, for several metrics with the same resamples.

    Args:
        differences: Shape ``(n_queries, n_metrics)``: tuned minus base.
        clusters: Shape ``(n_queries,)``, a label a query; queries with equal labels are dependent. None: none are.
        n_resamples: Bootstrap resamples, and sign flips of the randomisation test.
        seed: Same seed, same result.

    Returns:
        One result a metric.
    """
    n_queries, n_metrics = differences.shape
    sums, sizes = _by_cluster(differences, clusters)
    n_clusters = len(sizes)
    error = standard_errors(differences, clusters)
    rng = np.random.default_rng(seed)
    if n_clusters < 2:  # one independent observation has no spread to judge by
        low = high = np.full(n_metrics, np.nan)
        p = p_t = np.ones(n_metrics)
    else:
        means = bootstrap_means(sums, sizes, n_resamples=n_resamples, rng=rng)
        low, high = np.quantile(means, _interval_levels(n_clusters), axis=0)
        p = randomisation_p(sums, n_resamples=n_resamples, rng=rng)
        p_t = _two_sided_t(differences.mean(axis=0), error, n_clusters - 1)
    spread = differences.std(axis=0, ddof=1) if n_queries > 1 else np.zeros(n_metrics)
    results = []
    for m in range(n_metrics):
        column = differences[:, m]
        wins, losses = int((column > _SAME).sum()), int((column < -_SAME).sum())
        results.append(
            PairedResult(
                difference=float(column.mean()),
                ci95=(float(low[m]), float(high[m])),
                p=float(p[m]),
                p_t=float(p_t[m]),
                standard_error=float(error[m]),
                effect_size=float(column.mean() / spread[m]) if spread[m] > _SAME else float("nan"),
                detectable=detectable_difference(float(error[m]), n_clusters),
                n=n_queries,
                n_clusters=n_clusters,
                wins=wins,
                losses=losses,
                ties=n_queries - wins - losses,
            )
        )
    return results


def bootstrap_means(
    sums: NDArray[np.float64], sizes: NDArray[np.float64], *, n_resamples: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Means of resamples of whole clusters, drawn with replacement.

    Args:
        sums: Shape ``(n_clusters, n_metrics)``, sum of the differences in each cluster.
        sizes: Shape ``(n_clusters,)``, number of queries in each cluster.
        n_resamples: Number of resamples.
        rng: Source of the draws.

    Returns:
        Shape ``(n_resamples, n_metrics)``. Working memory is about 16 MB, whatever the sizes.
    """
    table, counts = _distinct(np.column_stack([sums, sizes]))
    n_clusters, n_rows = len(sizes), len(table)
    drawn = np.empty((n_resamples, table.shape[1]))
    # Equal clusters are interchangeable: where few distinct ones exist, drawing how often each *kind* comes up has the
    # same distribution and costs less. A kind's count takes about as long as sixteen single draws.
    by_kind = n_rows * 16 < n_clusters
    step = max(1, _BLOCK_CELLS // (n_rows if by_kind else n_clusters))
    cluster_kind = None if n_rows == n_clusters else np.repeat(np.arange(n_rows), counts)
    for begin in range(0, n_resamples, step):
        size = min(step, n_resamples - begin)
        if by_kind:
            times = rng.multinomial(n_clusters, counts / n_clusters, size=size).astype(np.float64)
        else:
            picks = rng.integers(0, n_clusters, size=(size, n_clusters), dtype=np.int32)
            kinds = picks if cluster_kind is None else cluster_kind[picks]
            flat = kinds + (np.arange(size, dtype=np.int64) * n_rows)[:, None]
            times = np.bincount(flat.ravel(), minlength=size * n_rows).reshape(size, n_rows).astype(np.float64)
        drawn[begin : begin + size] = times @ table
    means: NDArray[np.float64] = drawn[:, :-1] / drawn[:, -1:]
    return means


def randomisation_p(sums: NDArray[np.float64], *, n_resamples: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Fisher's randomisation test: could the two systems' scores be swapped, cluster by cluster?

    Args:
        sums: Shape ``(n_clusters, n_metrics)``, sum of the differences in each cluster.
        n_resamples: Number of random swaps.
        rng: Source of the signs.

    Returns:
        Two-sided p, shape ``(n_metrics,)``: ``(b + 1) / (m + 1)``, where b swaps are at least as far from 0.
    """
    observed = np.abs(sums.sum(axis=0))
    # Sums of the same numbers in another order differ in the last digits; on 0/1 metrics exact ties are common.
    observed = observed - 1e-12 * np.abs(sums).sum(axis=0)
    table, counts = _distinct(sums[np.any(sums != 0, axis=1)])
    if not len(table):
        return np.ones(sums.shape[1])
    by_kind = len(table) * 8 < counts.sum()
    rows = table if by_kind else np.repeat(table, counts, axis=0)
    step = max(1, _BLOCK_CELLS // len(rows))
    beyond = np.zeros(sums.shape[1])
    for begin in range(0, n_resamples, step):
        size = min(step, n_resamples - begin)
        if by_kind:
            signs = 2.0 * rng.binomial(counts, 0.5, size=(size, len(counts))) - counts
        else:
            bits = np.frombuffer(rng.bytes((size * len(rows) + 7) // 8), dtype=np.uint8)
            signs = np.unpackbits(bits)[: size * len(rows)].reshape(size, len(rows)) * 2.0 - 1.0
        beyond += (np.abs(signs @ rows) >= observed).sum(axis=0)
    p: NDArray[np.float64] = (beyond + 1) / (n_resamples + 1)
    return p


def standard_errors(differences: NDArray[np.float64], clusters: ArrayLike | None = None) -> NDArray[np.float64]:
    """Standard error of the mean of each column, robust to dependence inside clusters.

    Args:
        differences: Shape ``(n_queries, n_metrics)``.
        clusters: Shape ``(n_queries,)``, or None where every query stands alone: then it is the usual ``s / sqrt(n)``.

    Returns:
        Shape ``(n_metrics,)``; not a number with fewer than two clusters.
    """
    n_queries = len(differences)
    residuals, _ = _by_cluster(differences - differences.mean(axis=0), clusters)
    n_clusters = len(residuals)
    if n_clusters < 2:
        return np.full(differences.shape[1], np.nan)
    errors: NDArray[np.float64] = np.sqrt(n_clusters / (n_clusters - 1) * (residuals**2).sum(axis=0)) / n_queries
    return errors


def detectable_difference(standard_error: float, n_clusters: int, *, power: float = 0.8, alpha: float = 0.05) -> float:
    """The smallest true difference that a test at level `alpha` finds with probability `power`.

    Args:
        standard_error: Of the difference, from a set like the one that will be used.
        n_clusters: Independent groups of queries behind it.
        power: Wanted probability of finding a difference that is there.
        alpha: Two-sided level of the test.

    Returns:
        In the unit of the metric; not a number if the standard error is 0 or unknown (no query changed).
    """
    from scipy.special import stdtrit

    if n_clusters < 2 or not standard_error > 0:
        return float("nan")
    freedom = n_clusters - 1
    return float((stdtrit(freedom, 1 - alpha / 2) + stdtrit(freedom, power)) * standard_error)


def non_inferiority_p(difference: float, standard_error: float, n_clusters: int, *, margin: float) -> float:
    """One-sided p that the tuned system is worse than the base by `margin` or more; small p: it is not.

    Args:
        difference: Mean of tuned minus base.
        standard_error: Of the difference.
        n_clusters: Independent groups of queries behind it.
        margin: The loss that would matter, above 0, in the unit of the metric (0.01 is one point).

    Returns:
        p in [0, 1]. If no query changed it is 0: the tuned system is the same as the base on this set.
    """
    from scipy.special import stdtr

    if n_clusters < 2:
        return 1.0
    if not standard_error > 0:
        return 0.0 if difference > -margin else 1.0
    return float(stdtr(n_clusters - 1, -(difference + margin) / standard_error))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: p values of several tests, adjusted so that each can be held against 0.05."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted


def _by_cluster(
    values: NDArray[np.float64], clusters: ArrayLike | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum the rows of each cluster; returns sums ``(n_clusters, n_metrics)`` and sizes ``(n_clusters,)``."""
    if clusters is None:
        return values, np.ones(len(values))
    _, owner = np.unique(np.asarray(clusters), return_inverse=True)
    sizes: NDArray[np.float64] = np.bincount(owner).astype(np.float64)
    sums: NDArray[np.float64] = np.column_stack(
        [np.bincount(owner, weights=column, minlength=len(sizes)) for column in values.T]
    )
    return sums, sizes


def _distinct(table: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Distinct rows and how often each occurs."""
    if not len(table):
        return table, np.empty(0, dtype=np.int64)
    order = np.lexsort(table.T)
    ordered = table[order]
    first = np.concatenate([[True], np.any(ordered[1:] != ordered[:-1], axis=1)])
    counts = np.diff(np.append(np.flatnonzero(first), len(ordered)))
    return ordered[first], counts.astype(np.int64)


def _interval_levels(n_clusters: int, confidence: float = 0.95) -> tuple[float, float]:
    """Quantile levels of the bootstrap means that make the interval honest for few clusters.

    The plain percentile interval is too narrow for small samples: it uses the normal quantile and the biased variance.
    Widening the levels by ``t * sqrt(n / (n - 1))`` mends that (Hesterberg 2015, "expanded percentile"); with
    many clusters nothing changes.
    """
    from scipy.special import ndtr, stdtrit

    reach = stdtrit(n_clusters - 1, (1 + confidence) / 2) * np.sqrt(n_clusters / (n_clusters - 1))
    return float(ndtr(-reach)), float(ndtr(reach))


def _two_sided_t(mean: NDArray[np.float64], error: NDArray[np.float64], freedom: int) -> NDArray[np.float64]:
    from scipy.special import stdtr

    ratio = np.divide(np.abs(mean), error, out=np.zeros_like(mean), where=error > 0)
    # No spread at all: every query changed by the same amount (certain), or none changed (nothing to see).
    ratio[(error <= 0) & (np.abs(mean) > _SAME)] = np.inf
    p: NDArray[np.float64] = 2 * stdtr(freedom, -ratio)
    return p
