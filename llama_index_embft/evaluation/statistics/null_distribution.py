"""How far from 0 the studentised mean of document differences strays by chance: the reference for p and interval.

Student's t is right where the differences of documents are normal. They are not: training helps many documents a little
and harms a few a lot, or the other way round, and the mean of five such documents over its own standard error is far
more often large than Student's table says. So the reference is drawn, not looked up: a maximised Monte Carlo test
(Dufour 2006, "Monte Carlo tests with nuisance parameters", Journal of Econometrics 133) takes, of all skewnesses that
the data leave possible, the one that makes chance look largest. Beside these stands the plainest chance of all:
documents that are won or lost whole, by the toss of a coin. It is what a sign-flip test knows, and it alone makes the
rule silent with fewer than six documents, which agree by luck in more than one case of forty.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_BLOCK_CELLS: Final = 1 << 20  # normal numbers held at a time: about 8 MB, four times over for the powers
_MOST_CELLS: Final = 20_000_000  # drawn at most; very many unequal clusters get fewer draws instead of more seconds
_FEWEST_DRAWS: Final = 2_000
_MANY: Final = 400  # effective clusters from which the expansion in 1 / sqrt(n) replaces the draws
_STEP: Final = 0.05  # skewness is rounded outwards to multiples of this, so that metrics share sorted draws
_STEEPEST: Final = 52  # steps: a skewness of 2.6; the family below ends at 2.83
# Share of the variance that the queries about one document have in common. Unequal clusters behave differently at
# either end; the drawn reference covers both and a value between that real question sets have.
_SHARED: Final = (1.0, 0.1, 0.0)

_NO_VARIANCE: Final = 1e-9  # of the largest there could be; rounding leaves 1e-16

_BENDS: Final = np.linspace(0.0, 3.0, 3001)
_SKEWNESS_OF_BENDS: Final = (6 * _BENDS + 8 * _BENDS**3) / (1 + 2 * _BENDS**2) ** 1.5


class NullDistribution:
    """Distribution of ``mean / standard error`` over clusters of given sizes when the true mean is 0.

    Differences of clusters are drawn as ``z + a (z² - 1)``, z normal, which has every skewness up to 2.8 as ``a``
    grows; because sums of powers of the same z serve every ``a``, all skewnesses cost one set of draws. The signs of z
    alone give clusters that are won or lost whole; where all agree, the ratio is infinite.

    Attributes:
        sizes: Queries in each cluster, shape ``(n_clusters,)``, at least two clusters.
        effective: How many clusters of equal size would have as steady a mean: 1 / Σ (share of queries)².
    """

    def __init__(self, sizes: Array, *, draws: int, seed: int) -> None:
        weights = sizes / sizes.sum()
        self.sizes = sizes
        self.effective = float(1 / (weights**2).sum())
        self._moments = variance_weights(weights)
        # Rounded: at 400 equal clusters the last digit, which differs between machines, would choose the method.
        self._expanded = round(float((weights**2).sum() ** 3 / (weights**3).sum() ** 2), 6) > _MANY
        self._root = float((weights**3).sum() / (weights**2).sum() ** 1.5)
        self._freedom = float((weights**2).sum() ** 2 / (weights**4).sum()) - 1
        self._sorted: dict[int, list[Array]] = {}
        self._critical: dict[tuple[float, int, int], float] = {}
        self._means_and_errors: dict[int, tuple[Array, Array]] = {}
        self._detectables: dict[tuple[float, float, int, float], float] = {}
        self.draws = draws
        if self._expanded:
            return
        self.draws = min(draws, max(_FEWEST_DRAWS, _MOST_CELLS // len(sizes)))
        equal = bool((sizes == sizes[0]).all())
        spreads = [np.sqrt(shared + (1 - shared) / sizes) for shared in (_SHARED[:1] if equal else _SHARED)]
        self._power_sums = [_PowerSums(weights, self._moments, spread) for spread in spreads]
        rng = np.random.default_rng(seed)
        step = max(1, _BLOCK_CELLS // len(sizes))
        won_or_lost = []
        for begin in range(0, self.draws, step):
            normal = rng.standard_normal((min(step, self.draws - begin), len(sizes)))
            squares = normal * normal
            won_or_lost.append(_ratios_of_signs(np.where(normal < 0, -1.0, 1.0), weights, self._moments))
            for sums in self._power_sums:
                sums.add(normal, squares)
        patterns = 2 ** len(sizes)
        if patterns <= self.draws:  # few enough to take each as often as every other, and none by luck
            lost = np.arange(patterns)[:, None] >> np.arange(len(sizes)) & 1
            signs = np.where(lost == 1, -1.0, 1.0)
            every = np.sort(_ratios_of_signs(signs, weights, self._moments))
            self._won_or_lost = every[np.arange(self.draws) * patterns // self.draws]
        else:
            self._won_or_lost = np.sort(np.concatenate(won_or_lost))

    def upper_tail(self, ratio: float, low: float, high: float) -> float:
        """The largest chance, over skewnesses from `low` to `high`, that the ratio is at least `ratio` (0 or more)."""
        if self._expanded:
            tail = max(self._expanded_tail(ratio, skewness) for skewness in (low, 0.0, high))
            return max(tail, 1 / (self.draws + 1))  # no more certain than a smaller set could be
        fewest = min(int(np.searchsorted(values, ratio)) for values in self._references(low, high))
        return (self.draws - fewest + 1) / (self.draws + 1)

    def critical(self, level: float, low: float, high: float) -> float:
        """The ratio above which `upper_tail` is under `level`; infinite where too few clusters or draws do."""
        beyond = int(np.ceil(level * (self.draws + 1))) - 2  # (beyond + 1) / (draws + 1) < level
        if beyond < 0:
            return float("inf")
        if self._expanded:
            return max(self._expanded_quantile(level, skewness) for skewness in (low, 0.0, high))
        key = (level, _outwards(low), _outwards(high))
        if key not in self._critical:
            self._critical[key] = max(float(values[self.draws - 1 - beyond]) for values in self._references(low, high))
        return self._critical[key]

    def detectable(self, critical: float, power: float, *, error: float, unseen: float, skewness: float) -> float:
        """True difference at which the ratio passes `critical` with probability `power`.

        Args:
            critical: From `critical`.
            power: Wanted probability.
            error: Standard error of the mean as estimated from a sample, without `unseen`.
            unseen: What the test adds to it, root of the sum of squares.
            skewness: Of the clusters, as it is expected.
        """
        if not np.isfinite(critical):
            return float("inf")
        if self._expanded:
            from scipy.special import stdtrit

            return float(critical * np.hypot(error, unseen) + stdtrit(self._freedom, power) * error)
        step = round(min(max(skewness / _STEP, -_STEEPEST), _STEEPEST))
        mean, errors = self._standardised(step)
        true_error = error / self.bias_of_error()  # few clusters show too small an error on average
        if true_error <= unseen * 1e-6:
            return critical * unseen
        # Two digits of the share are plenty, and let the metrics of one set share what was worked out.
        share = float(f"{unseen / true_error:.2g}")
        key = (critical, power, step, share)
        if key not in self._detectables:
            self._detectables[key] = float(np.quantile(critical * np.hypot(errors, share) - mean, power))
        return self._detectables[key] * true_error

    def bias_of_error(self) -> float:
        """Mean of the estimated standard error of normal data over the true one: below 1 for few clusters."""
        return 1.0 if self._expanded else float(self._standardised(0)[1].mean())

    def _references(self, low: float, high: float) -> list[Array]:
        bent = [values for step in {_outwards(low), 0, _outwards(high)} for values in self._sorted_ratios(step)]
        return [*bent, self._won_or_lost]

    def _sorted_ratios(self, step: int) -> list[Array]:
        if step not in self._sorted:
            self._sorted[step] = [np.sort(sums.ratios(_bend(step))) for sums in self._power_sums]
        return self._sorted[step]

    def _standardised(self, step: int) -> tuple[Array, Array]:
        if step not in self._means_and_errors:
            self._means_and_errors[step] = self._power_sums[0].means_and_errors(_bend(step))
        return self._means_and_errors[step]

    # With many clusters the ratio is N + b (2 N² + 1), N Student's t and b = -skewness / (6 sqrt(n)): Johnson (1978),
    # "Modified t tests and confidence intervals for asymmetrical populations", JASA 73.

    def _expanded_quantile(self, level: float, skewness: float) -> float:
        from scipy.special import stdtrit

        bend = -skewness * self._root / 6
        normal = float(stdtrit(self._freedom, 1 - level))
        return normal + bend * (2 * normal**2 + 1)

    def _expanded_tail(self, ratio: float, skewness: float) -> float:
        from scipy.special import stdtr

        bend = -skewness * self._root / 6
        inside = 1 + 8 * bend * (ratio - bend)
        if abs(bend) < 1e-9:
            normal = ratio
        elif inside <= 0:  # past the turn of the parabola, which lies beyond every level in use
            normal = -1 / (4 * bend)
        else:
            normal = (np.sqrt(inside) - 1) / (4 * bend)
        return float(stdtr(self._freedom, -normal))


class _PowerSums:
    """Weighted sums of powers of the drawn normals, from which the ratio follows for any skewness."""

    def __init__(self, weights: Array, moments: Array, spread: Array) -> None:
        # Columns: the mean, the cross term of the variance, its square term.
        self._factors = np.column_stack([weights * spread, moments * spread, moments * spread**2])
        self._totals = self._factors.sum(axis=0)
        self._moment_total = float(moments.sum())
        self._true_error = float(np.sqrt(((weights * spread) ** 2).sum()))
        self._blocks: list[Array] = []

    def add(self, normal: Array, squares: Array) -> None:
        square_term = self._factors[:, 2]
        self._blocks.append(
            np.column_stack(
                [
                    normal @ self._factors,
                    squares @ self._factors,
                    (squares * normal) @ square_term,
                    (squares * squares) @ square_term,
                ]
            )
        )

    def ratios(self, bend: float) -> Array:
        mean, variance = self._mean_and_variance(bend)
        return mean / np.sqrt(np.maximum(variance, np.finfo(float).tiny))

    def means_and_errors(self, bend: float) -> tuple[Array, Array]:
        """Means and estimated standard errors, in units of the true standard error of the mean."""
        mean, variance = self._mean_and_variance(bend)
        scale = self._true_error * np.sqrt(1 + 2 * bend**2)
        return mean / scale, np.sqrt(np.maximum(variance, 0.0)) / scale

    def _mean_and_variance(self, bend: float) -> tuple[Array, Array]:
        sums = np.concatenate(self._blocks).T
        (mean1, cross1, square1), (mean2, cross2, square2), square3, square4 = sums[:3], sums[3:6], sums[6], sums[7]
        mean = mean1 + bend * (mean2 - self._totals[0])
        cross = cross1 + bend * (cross2 - self._totals[1])
        square = square2 + 2 * bend * (square3 - square1) + bend**2 * (square4 - 2 * square2 + self._totals[2])
        return mean, square - 2 * mean * cross + mean**2 * self._moment_total


def _ratios_of_signs(signs: Array, weights: Array, moments: Array) -> Array:
    """Ratios of clusters that are won (1) or lost (-1) whole, shape ``(n_draws,)``; infinite where all agree."""
    mean, total = signs @ weights, float(moments.sum())
    variance = total - 2 * mean * (signs @ moments) + mean**2 * total
    agree = variance <= _NO_VARIANCE * total
    return np.where(agree, np.where(mean < 0, -np.inf, np.inf), mean / np.sqrt(np.where(agree, 1.0, variance)))


def _outwards(skewness: float) -> int:
    """The step of a skewness, rounded away from 0."""
    step = int(np.ceil(abs(skewness) / _STEP - 1e-9))
    return min(step, _STEEPEST) * (1 if skewness > 0 else -1)


def _bend(step: int) -> float:
    """The ``a`` of ``z + a (z² - 1)`` that has the step's skewness."""
    return float(np.sign(step) * np.interp(abs(step) * _STEP, _SKEWNESS_OF_BENDS, _BENDS))


def variance_weights(weights: Array) -> Array:
    """What each cluster's squared residual counts in the variance of the mean.

    The residual of a large cluster is too small, because the cluster pulls the mean towards itself. The factor that
    makes its square unbiased, where clusters have equal variances, is the CR2 correction of Bell and McCaffrey
    (2002), "Bias reduction in standard errors for linear regression with multi-stage samples", Survey Methodology 28.
    Equal clusters get the usual n / (n - 1).

    Args:
        weights: Share of the queries in each cluster, shape ``(n_clusters,)``.
    """
    corrected: Array = weights**2 / (1 - 2 * weights + (weights**2).sum())
    return corrected


@lru_cache(maxsize=16)
def _cached(sizes: bytes, draws: int, seed: int) -> NullDistribution:
    return NullDistribution(np.frombuffer(sizes, dtype=np.float64), draws=draws, seed=seed)


def null_distribution(sizes: Array, *, draws: int, seed: int) -> NullDistribution:
    """The `NullDistribution` of these cluster sizes, in whatever order; the last few are kept."""
    return _cached(np.sort(sizes.astype(np.float64)).tobytes(), draws, seed)
