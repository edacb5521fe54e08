"""Is a difference between two systems more than chance? One test that holds from one document to ten thousand.

Questions about one document are not independent: a model that embeds the document badly fails all of them. So the
observation is the document (the cluster), and a cluster of one query each gives the paired test of single queries. The
mean difference is divided by a standard error that is robust to this dependence, and held against `NullDistribution`.
To that error is added one query that moves by a whole point: with n queries, changes rarer than one in n have not been
seen, and a set where every query changes by the same amount is not without error. p, interval and detectable difference
come from this one test, so they cannot contradict each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from llama_index_embft.errors import EvaluationError
from llama_index_embft.evaluation.statistics.null_distribution import null_distribution, variance_weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from llama_index_embft.evaluation.statistics.null_distribution import NullDistribution

LEVEL: Final = 0.05
POWER: Final = 0.8
_SAME: Final = 1e-9  # scores closer than this are a tie: they differ by rounding, not by a rank
_CAUTION: Final = 2.5  # standard errors by which the true skewness may be worse than the one seen
_DRAWS: Final = 10_000


@dataclass(frozen=True)
class PairedResult:
    """What the paired queries say about one metric.

    Attributes:
        difference: Mean of tuned minus base.
        interval: Interval of the difference, of 95 % at the usual level; infinite where the clusters are too few to
            tell, at the usual level fewer than six. It leaves out 0 exactly where `p` is under the level of the tests.
        p: Two-sided p, never 0; 1 with fewer than two clusters.
        standard_error: Of the difference, robust to dependence inside clusters.
        effect_size: Mean difference over the standard deviation of the differences (Cohen's d for pairs).
        detectable: The smallest true difference that this test shows with 80 % power on a set like this one at this
            level; infinite where none is shown, as in `interval`.
        n: Number of queries.
        n_clusters: Number of independent groups of queries.
        wins: Queries on which the tuned system scores higher; `losses` and `ties` accordingly.
        level: How often such intervals hold the true difference: 0.95 at the usual level of the tests.
    """

    difference: float
    interval: tuple[float, float]
    p: float
    standard_error: float
    effect_size: float
    detectable: float
    n: int
    n_clusters: int
    wins: int
    losses: int
    ties: int
    level: float = 1 - LEVEL

    @property
    def interval_key(self) -> str:
        """What the interval is called in JSON: ``"ci95"`` at the usual level."""
        return f"ci{100 * self.level:.4g}"


def paired_tests(
    differences: NDArray[np.float64],
    clusters: ArrayLike | None = None,
    *,
    folds: int = 1,
    n_resamples: int = _DRAWS,
    seed: int = 0,
    alpha: float = LEVEL,
) -> list[PairedResult]:
    """Test the mean of per-query differences, for several metrics at once.

    Args:
        differences: Shape ``(n_queries, n_metrics)``: tuned minus base, of scores between 0 and 1.
        clusters: Shape ``(n_queries,)``, a label a query; queries with equal labels are dependent. None: none are.
        folds: Models of a cross-fit that the queries were divided among; 1 for one model. Such models share most of
            their training data, so the standard error is multiplied by ``sqrt(1 + folds / (folds - 1))``.
        n_resamples: Draws of the distribution that chance is read from.
        seed: Same seed, same result.
        alpha: Level of the tests; intervals are of ``1 - alpha``.

    Returns:
        One result a metric.

    Raises:
        EvaluationError: The differences are no matrix of numbers, or not every query has a cluster.
    """
    differences = np.asarray(differences, dtype=np.float64)
    if differences.ndim != 2 or not len(differences) or not np.isfinite(differences).all():
        raise EvaluationError(
            "`differences` must be finite numbers of shape (n_queries, n_metrics), of at least one query; they have "
            f"the shape {differences.shape}, or hold NaN."
        )
    if clusters is not None and np.shape(clusters) != (len(differences),):
        raise EvaluationError(f"`clusters` must be one label for each of the {len(differences)} queries.")
    n_queries, n_metrics = differences.shape
    means, sizes = _cluster_means(differences, clusters)
    mean = differences.mean(axis=0)
    known = len(sizes) > 1  # one independent observation has no spread to judge by
    errors = _standard_errors(means, sizes) * _shared_training(folds) if known else np.full(n_metrics, np.nan)
    null = null_distribution(sizes, draws=n_resamples, seed=seed) if known else None
    spread = differences.std(axis=0, ddof=1) if n_queries > 1 else np.zeros(n_metrics)
    wins, losses = (differences > _SAME).sum(axis=0), (differences < -_SAME).sum(axis=0)
    results = []
    for m in range(n_metrics):
        error = float(np.hypot(errors[m], 1 / n_queries))
        p, interval, detectable = 1.0, (-np.inf, np.inf), np.inf
        if null is not None:
            skewness = _skewness(means[:, m], sizes)
            low, high = _possible(skewness, null.effective)
            p, interval, critical = _judged(float(mean[m]), error, low, high, null, alpha)
            detectable = null.detectable(
                critical, POWER, error=float(errors[m]), unseen=1 / n_queries, skewness=skewness
            )
        results.append(
            PairedResult(
                difference=float(mean[m]),
                interval=interval,
                p=p,
                standard_error=error,
                effect_size=float(mean[m] / spread[m]) if spread[m] > _SAME else float("nan"),
                detectable=detectable,
                n=n_queries,
                n_clusters=len(sizes),
                wins=int(wins[m]),
                losses=int(losses[m]),
                ties=n_queries - int(wins[m]) - int(losses[m]),
                level=1 - alpha,
            )
        )
    return results


def detectable_difference(standard_error: float, clusters: int | ArrayLike, *, power: float = POWER) -> float:
    """The smallest true difference that the test finds with probability `power`, before there is any data.

    Args:
        standard_error: Of the difference, expected in a set like the one that will be used.
        clusters: Number of clusters of equal size, or the sizes of unequal ones.
        power: Wanted probability of finding a difference that is there.

    Returns:
        In the unit of the metric; infinite with fewer than six clusters, where nothing can be found.
    """
    sizes = np.ones(clusters) if isinstance(clusters, int) else np.asarray(clusters, dtype=np.float64)
    if len(sizes) < 2:
        return float("inf")
    null = null_distribution(sizes, draws=_DRAWS, seed=0)
    low, high = _possible(0.0, null.effective)
    true_error = standard_error * null.bias_of_error()
    return null.detectable(null.critical(LEVEL / 2, low, high), power, error=true_error, unseen=0.0, skewness=0.0)


def clusters_to_show(test: PairedResult, difference: float, *, power: float = POWER) -> int | None:
    """About how many clusters like these would show a true difference of this size.

    Args:
        test: Result on the clusters at hand.
        difference: Size of the difference, in the unit of the metric.
        power: Wanted probability of finding it.

    Returns:
        A number from a coarse scale; None where the clusters at hand are too few to say, or over 10,000 are wanted.
    """
    if test.n_clusters < 2:
        return None
    for wanted in (6, 8, 10, 12, 15, 20, 30, 40, 60, 80, 100, 150, 200, 300, 500, 1_000, 2_000, 5_000, 10_000):
        error = test.standard_error * (test.n_clusters / wanted) ** 0.5
        if wanted > test.n_clusters and detectable_difference(error, wanted, power=power) <= difference:
            return wanted
    return None


def non_inferiority_p(
    differences: NDArray[np.float64],
    clusters: ArrayLike | None = None,
    *,
    margin: float,
    folds: int = 1,
    n_resamples: int = _DRAWS,
    seed: int = 0,
    alpha: float = LEVEL,
) -> float:
    """One-sided p that the tuned system is worse than the base by `margin` or more; small p: it is not.

    It is the same test with the margin added to every difference. So p is under ``alpha / 2`` exactly where the lower
    end of the interval lies above ``-margin``.

    Args:
        differences: Shape ``(n_queries,)``: tuned minus base.
        clusters: As in `paired_tests`.
        margin: The loss that would matter, above 0, in the unit of the metric (0.01 is one point).
        folds: As in `paired_tests`.
        n_resamples: As in `paired_tests`.
        seed: As in `paired_tests`.
        alpha: As in `paired_tests`.
    """
    (test,) = paired_tests(
        differences[:, None] + margin, clusters, folds=folds, n_resamples=n_resamples, seed=seed, alpha=alpha
    )
    return test.p / 2 if test.difference > 0 else 1 - test.p / 2


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: p values of several tests, adjusted so that each can be held against 0.05."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = list(p_values)
    highest = 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted


def _judged(
    mean: float, error: float, low: float, high: float, null: NullDistribution, alpha: float
) -> tuple[float, tuple[float, float], float]:
    """p, interval, and the ratio that a gain must pass, of one metric whose skewness is from `low` to `high`."""
    # A loss is a gain of the mirrored data, whose skewness has the other sign.
    gain, loss = null.critical(alpha / 2, low, high), null.critical(alpha / 2, -high, -low)
    tail = null.upper_tail(mean / error, low, high) if mean >= 0 else null.upper_tail(-mean / error, -high, -low)
    return min(1.0, 2 * tail), (mean - gain * error, mean + loss * error), gain


def _standard_errors(means: NDArray[np.float64], sizes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cluster-robust standard error of the mean over queries, shape ``(n_metrics,)``."""
    weights = sizes / sizes.sum()
    errors: NDArray[np.float64] = np.sqrt(variance_weights(weights) @ (means - weights @ means) ** 2)
    return errors


def _shared_training(folds: int) -> float:
    """What models of a cross-fit that share training data add to the standard error.

    Nadeau and Bengio (2003), "Inference for the generalization error", Machine Learning 52: the variance over folds
    grows by the ratio of the tested to the trained share, 1 / (folds - 1), once for every fold.
    """
    return float(np.sqrt(1 + folds / (folds - 1))) if folds > 1 else 1.0


def _skewness(means: NDArray[np.float64], sizes: NDArray[np.float64]) -> float:
    """Skewness of the clusters' means, unbiased for normal data (Joanes and Gill 1998) where there are enough."""
    weights = sizes / sizes.sum()
    effective = float(1 / (weights**2).sum())
    residuals = means - weights @ means
    variance = float(weights @ residuals**2)
    if variance <= _SAME**2 or effective <= 2.5:
        return 0.0
    return float(weights @ residuals**3 / variance**1.5 * np.sqrt(effective * (effective - 1)) / (effective - 2))


def _possible(seen: float, effective: float) -> tuple[float, float]:
    """A range around the skewness seen in so many effective clusters; it always holds 0.

    A few clusters say next to nothing about skewness, so there the range ends where the exponential distribution
    begins (2, less what the drawn family reaches in the tail with few clusters). What was seen beyond that counts.
    """
    reach, bound = float(_CAUTION * np.sqrt(6 / effective)), 2 - 1 / effective
    return min(0.0, seen, max(-bound, seen - reach)), max(0.0, seen, min(bound, seen + reach))


def _cluster_means(
    values: NDArray[np.float64], clusters: ArrayLike | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean of the rows of each cluster ``(n_clusters, n_metrics)`` and their number ``(n_clusters,)``."""
    if clusters is None:
        return values, np.ones(len(values))
    _, owner = np.unique(np.asarray(clusters), return_inverse=True)
    sizes: NDArray[np.float64] = np.bincount(owner).astype(np.float64)
    sums = np.column_stack([np.bincount(owner, weights=column) for column in values.T])
    return sums / sizes[:, None], sizes
