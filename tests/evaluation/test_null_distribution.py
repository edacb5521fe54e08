"""The drawn reference of the paired test equals one that is drawn the plain way, cluster by cluster."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import t as student

from llama_index_embft.evaluation.statistics import null_distribution as module
from llama_index_embft.evaluation.statistics.null_distribution import NullDistribution, null_distribution

DRAWS = 3000
EQUAL = np.ones(9)
ONE_LARGE = np.array([1.0] * 30 + [100.0])  # here queries that have a little in common are the worst case
UNEQUAL = np.array([1.0, 2.0, 2.0, 4.0, 7.0, 3.0, 5.0, 9.0, 2.0, 1.0, 3.0, 6.0, 2.0])


def bend_of(skewness: float) -> float:
    """The ``a`` with which ``z + a (z² - 1)`` has a skewness, rounded away from 0 to steps of 0.05, at most 2.6."""
    wanted = min(math.ceil(abs(skewness) / 0.05 - 1e-9) * 0.05, 2.6)
    found = brentq(lambda a: (6 * a + 8 * a**3) / (1 + 2 * a * a) ** 1.5 - wanted, 0, 3)
    return math.copysign(found, skewness)


def ratio_of(values: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted mean of each draw, and its standard error by Bell and McCaffrey."""
    shares = sizes / sizes.sum()
    mean = (values * shares).sum(axis=1)
    counted = shares**2 / (1 - 2 * shares + (shares**2).sum())
    return mean, np.sqrt((counted * (values - mean[:, None]) ** 2).sum(axis=1))


def drawn(sizes: np.ndarray, bend: float, shared: float, seed: int = 1) -> np.ndarray:
    normal = np.random.default_rng(seed).standard_normal((DRAWS, len(sizes)))
    return np.sqrt(shared + (1 - shared) / sizes) * (normal + bend * (normal**2 - 1))


def references(sizes: np.ndarray, low: float, high: float) -> list[np.ndarray]:
    shares = (1.0,) if (sizes == sizes[0]).all() else (1.0, 0.1, 0.0)
    found = []
    for skewness in (low, 0.0, high):
        for shared in shares:
            mean, error = ratio_of(drawn(sizes, bend_of(skewness), shared), sizes)
            found.append(mean / error)
    if 2 ** len(sizes) <= DRAWS:  # every way to win or lose
        signs = 1.0 - 2 * (np.arange(2 ** len(sizes))[:, None] >> np.arange(len(sizes)) & 1)
    else:
        signs = np.sign(drawn(np.ones(len(sizes)), 0.0, 1.0))
    with np.errstate(divide="ignore"):
        mean, error = ratio_of(signs, sizes)
        ratios = np.sort(np.where(error < 1e-9, np.copysign(np.inf, mean), mean / error))
    found.append(ratios[np.arange(DRAWS) * len(ratios) // DRAWS])
    return found


@pytest.mark.parametrize("sizes", [EQUAL, UNEQUAL, ONE_LARGE], ids=["equal", "unequal", "one large"])
@pytest.mark.parametrize(("low", "high"), [(0.0, 0.0), (-0.73, 1.2), (-9.0, 0.0), (0.0, 9.0)])
def test_tails_and_limits_are_those_of_the_plainest_draws(sizes, low, high, monkeypatch) -> None:
    monkeypatch.setattr(module, "_BLOCK_CELLS", 7 * len(sizes) * 100)  # several blocks, the last one shorter
    null = NullDistribution(sizes, draws=DRAWS, seed=1)
    plain = references(sizes, low, high)
    assert null.draws == DRAWS
    assert null.effective == pytest.approx(sizes.sum() ** 2 / (sizes**2).sum())
    for ratio in (0.0, 0.7, 1.9, 2.6, 4.0, 12.0):
        most = max(int((values >= ratio).sum()) for values in plain)
        assert null.upper_tail(ratio, low, high) == pytest.approx((most + 1) / (DRAWS + 1), abs=0.0005)
    for level in (0.2, 0.03332, 0.025, 0.005):
        limit = null.critical(level, low, high)
        beyond = math.ceil(level * (DRAWS + 1)) - 2
        assert limit == pytest.approx(max(np.sort(values)[-1 - beyond] for values in plain), rel=1e-3)
        assert null.critical(level, low, high) == limit
        if math.isfinite(limit):
            assert null.upper_tail(limit * (1 + 1e-9), low, high) < level <= null.upper_tail(limit, low, high)


@pytest.mark.parametrize("sizes", [EQUAL, UNEQUAL], ids=["equal", "unequal"])
@pytest.mark.parametrize("skewness", [0.0, 1.21, -0.34, 9.0])
def test_the_difference_that_can_be_found_is_that_of_the_plainest_draws(sizes, skewness: float) -> None:
    null = NullDistribution(sizes, draws=DRAWS, seed=1)
    nearest = min(round(abs(skewness) / 0.05) * 0.05, 2.6)
    shares = sizes / sizes.sum()
    bend = math.copysign(bend_of(nearest), skewness)
    # Documents whose queries agree; in units of the true error of the mean.
    true = math.sqrt((shares**2).sum() * (1 + 2 * bend**2))
    mean, error = (part / true for part in ratio_of(drawn(sizes, bend, 1.0), sizes))
    _, normal_error = ratio_of(drawn(sizes, 0.0, 1.0), sizes)
    bias = (normal_error / math.sqrt((shares**2).sum())).mean()
    assert null.bias_of_error() == pytest.approx(bias)
    for power, unseen in ((0.8, 0.0), (0.8, 0.013), (0.3, 0.05)):
        share = float(f"{unseen / (0.02 / bias):.2g}")
        needed = np.quantile(2.3 * np.hypot(error, share) - mean, power) * 0.02 / bias
        found = null.detectable(2.3, power, error=0.02, unseen=unseen, skewness=skewness)
        assert found == pytest.approx(needed, rel=1e-3)
        assert null.detectable(2.3, power, error=0.02, unseen=unseen, skewness=skewness) == found


def test_the_edges_of_what_can_be_found() -> None:
    null = NullDistribution(EQUAL, draws=DRAWS, seed=1)
    assert null.detectable(math.inf, 0.8, error=0.1, unseen=0.1, skewness=0.0) == math.inf
    assert null.detectable(2.0, 0.8, error=0.0, unseen=0.1, skewness=0.0) == 0.2  # only what was not seen
    twenty = NullDistribution(np.ones(20), draws=DRAWS, seed=1)
    assert twenty.critical(1 / DRAWS, 0.0, 0.0) < math.inf
    assert twenty.critical(1 / (DRAWS + 2), 0.0, 0.0) == math.inf  # no draw is that rare


@pytest.mark.parametrize("n", [9, 500])
def test_no_skewness_is_always_among_those_that_data_leave_possible(n: int) -> None:
    null = NullDistribution(np.ones(n), draws=DRAWS, seed=1)
    assert null.upper_tail(1.9, 0.5, 0.9) == null.upper_tail(1.9, 0.0, 0.9)
    assert null.critical(0.05, 0.5, 0.9) == null.critical(0.05, 0.0, 0.9)


def test_skewness_is_rounded_away_from_zero() -> None:
    assert [module._outwards(value) for value in (0.0, 0.01, 0.05, 0.26, 9.0)] == [0, 1, 1, 6, 52]
    assert [module._outwards(-value) for value in (0.01, 0.05, 0.26, 9.0)] == [-1, -1, -6, -52]


@pytest.mark.parametrize("sizes", [EQUAL, np.ones(10), np.array([1.0, 2.0, 4.0]), np.array([3.0, 7.0, 9.0, 11.0])])
def test_as_many_draws_as_ways_to_win_or_lose_take_each_once(sizes) -> None:
    null = NullDistribution(sizes, draws=2 ** len(sizes), seed=1)
    assert np.isposinf(null._won_or_lost).sum() == np.isneginf(null._won_or_lost).sum() == 1


def test_few_draws_are_taken_of_very_many_unequal_clusters(monkeypatch) -> None:
    monkeypatch.setattr(module, "_MOST_CELLS", 13 * 2500)
    assert NullDistribution(UNEQUAL, draws=4000, seed=0).draws == 2500
    assert NullDistribution(UNEQUAL, draws=2100, seed=0).draws == 2100
    monkeypatch.setattr(module, "_MOST_CELLS", 13)
    assert NullDistribution(UNEQUAL, draws=4000, seed=0).draws == 2000


def expanded(skewness: float, sizes: np.ndarray) -> tuple[float, float]:
    """The bend of Johnson's expansion and the degrees of freedom, for weights."""
    shares = sizes / sizes.sum()
    root = (shares**3).sum() / (shares**2).sum() ** 1.5
    return -skewness * root / 6, (shares**2).sum() ** 2 / (shares**4).sum() - 1


@pytest.mark.parametrize("skewness", [-0.4, 0.0, 0.6])
def test_many_clusters_follow_the_expansion(skewness: float) -> None:
    sizes = np.tile([1.0, 2.0, 3.0], 400)
    null = NullDistribution(sizes, draws=DRAWS, seed=0)
    bend, freedom = expanded(skewness, sizes)
    low, high = min(skewness, 0.0), max(skewness, 0.0)

    def tail(ratio: float) -> float:
        return student.sf(brentq(lambda x: x + bend * (2 * x * x + 1) - ratio, -3, 9), freedom)

    for ratio in (0.3, 1.2, 2.5):
        expected = max(tail(ratio), student.sf(ratio, freedom))
        assert null.upper_tail(ratio, low, high) == pytest.approx(expected, rel=1e-6)
    normal = student.ppf(0.975, freedom)
    limit = max(normal, normal + bend * (2 * normal**2 + 1))
    assert null.critical(0.025, low, high) == pytest.approx(limit)
    assert null.bias_of_error() == 1.0
    needed = 2.1 * math.hypot(0.01, 0.004) + student.ppf(0.7, freedom) * 0.01
    assert null.detectable(2.1, 0.7, error=0.01, unseen=0.004, skewness=skewness) == pytest.approx(needed)
    assert null.upper_tail(99.0, low, high) == 1 / (DRAWS + 1)  # no more certain than a smaller set could be


def test_past_the_turn_of_the_parabola_nothing_is_certain() -> None:
    # With skewness 9 of 500 clusters the ratio is at most 1 / (8 b) + b, which is 1.86: beyond it the tail stays.
    null = NullDistribution(np.ones(500), draws=DRAWS, seed=0)
    bend = -9 / (6 * math.sqrt(500))
    turn = student.sf(-1 / (4 * bend), 499)
    assert null._expanded_tail(3.0, 9.0) == pytest.approx(turn)
    before = student.sf(brentq(lambda x: x + bend * (2 * x * x + 1) - 1.0, -3, -1 / (4 * bend)), 499)
    assert null._expanded_tail(1.0, 9.0) == pytest.approx(before)
    assert null.upper_tail(3.0, 0.0, 9.0) == pytest.approx(max(turn, student.sf(3.0, 499)))


@pytest.mark.parametrize(("n", "drawn_"), [(400, True), (401, False)])
def test_draws_are_taken_up_to_four_hundred_clusters(n: int, drawn_: bool) -> None:
    null = NullDistribution(np.full(n, 2.0), draws=2000, seed=0)
    assert (null.bias_of_error() != 1.0) == drawn_


def test_the_order_of_the_clusters_does_not_matter_and_the_last_ones_are_kept() -> None:
    one = null_distribution(UNEQUAL, draws=500, seed=3)
    assert null_distribution(UNEQUAL[::-1].astype(np.float32), draws=500, seed=3) is one
    assert (one.sizes == np.sort(UNEQUAL)).all()
    assert null_distribution(UNEQUAL, draws=500, seed=4) is not one
    assert null_distribution(UNEQUAL, draws=501, seed=3).draws == 501
