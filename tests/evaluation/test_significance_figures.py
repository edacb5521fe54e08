"""The figures of a paired test where theory has a formula, worked out beside it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import nct, skew, t as student

from llama_index_embft.evaluation.statistics import (
    PairedResult,
    clusters_to_show,
    detectable_difference,
    holm,
    non_inferiority_p,
    paired_tests,
    significance as module,
)
from llama_index_embft.evaluation.statistics.null_distribution import NullDistribution

N = 900


def possible(seen: float, effective: float) -> tuple[float, float]:
    """Skewnesses that so many clusters leave possible: 2.5 standard errors about the one seen, and always 0."""
    reach, bound = 2.5 * math.sqrt(6 / effective), 2 - 1 / effective
    return min(0, seen, max(-bound, seen - reach)), max(0, seen, min(bound, seen + reach))


def johnson(skewness: float) -> float:
    """The ratio's 97.5th percentile with that skewness: Johnson (1978), for many clusters."""
    normal = student.ppf(0.975, N - 1)
    return normal - skewness / (6 * math.sqrt(N)) * (2 * normal**2 + 1)


def johnson_tail(ratio: float, skewness: float) -> float:
    bend = -skewness / (6 * math.sqrt(N))
    return student.sf(brentq(lambda x: x + bend * (2 * x**2 + 1) - ratio, -5, 20), N - 1)


def symmetric(mean: float) -> np.ndarray:
    values = np.linspace(-0.3, 0.3, N)
    return values + mean


def leaning(mean: float) -> np.ndarray:
    values = np.random.default_rng(1).exponential(0.2, N)
    return values - values.mean() + mean


@pytest.mark.parametrize("mean", [0.02, -0.02, 0.0], ids=["gain", "loss", "none"])
@pytest.mark.parametrize("made", [symmetric, leaning])
@pytest.mark.parametrize("per_document", [1, 4])
def test_many_clusters(made, mean: float, per_document: int) -> None:
    documents = np.repeat(np.arange(N), per_document)[::-1]
    rng = np.random.default_rng(2)
    within = rng.normal(0, 0.1, (N, per_document))
    within -= within.mean(axis=1, keepdims=True)  # what differs inside of a document says nothing
    values = (made(mean)[:, None] + (within if per_document > 1 else 0.0)).ravel()[::-1]
    (result,) = paired_tests(values[:, None], None if per_document == 1 else documents)
    means, queries = made(mean), N * per_document
    seen = skew(means, bias=False)
    low, high = possible(seen, N)
    spread = means.std(ddof=1) / math.sqrt(N)
    error = math.hypot(spread, 1 / queries)
    assert result.difference == pytest.approx(mean, abs=1e-12)
    assert result.standard_error == pytest.approx(error)
    gain, loss = johnson(low), johnson(-high)
    assert result.interval == pytest.approx((mean - gain * error, mean + loss * error))
    worst = low if mean >= 0 else -high
    assert result.p == pytest.approx(min(1.0, 2 * johnson_tail(abs(mean) / error, worst)), rel=1e-6)
    assert result.detectable == pytest.approx(gain * error + student.ppf(0.8, N - 1) * spread)
    assert result.effect_size == pytest.approx(mean / values.std(ddof=1))
    assert (result.n, result.n_clusters, result.level) == (queries, N, 0.95)
    assert result.wins == (values > 1e-9).sum()
    assert result.losses == (values < -1e-9).sum()
    assert result.ties == queries - result.wins - result.losses


def test_unequal_documents_by_hand() -> None:
    # Shares 1/6, 2/6, 3/6; of means 0.3, 0, 0.1 the weighted one is 0.1. Each squared residual counts
    # share² / (1 - 2 share + 14/36): 0.02632, 0.15385, 0.64286.
    values = np.array([0.1, -0.2, 0.3, 0.2, 0.0, 0.2])
    (result,) = paired_tests(values[:, None], ["b", "a", "c", "a", "b", "b"])
    assert result.difference == pytest.approx(0.1)
    variance = 0.04 * 0.0277778 / 1.0555556 + 0.01 * 0.1111111 / 0.7222222
    assert result.standard_error == pytest.approx(math.sqrt(variance + 1 / 36), rel=1e-6)
    assert (result.n, result.n_clusters, result.wins, result.losses, result.ties) == (6, 3, 4, 1, 1)


def test_several_metrics_are_tested_each_by_itself() -> None:
    values = np.column_stack([symmetric(0.02), leaning(-0.01), np.zeros(N)])
    for together, column in zip(paired_tests(values), values.T, strict=True):
        (alone,) = paired_tests(column[:, None])
        assert together.interval == pytest.approx(alone.interval)
        assert (together.wins, together.losses) == (alone.wins, alone.losses)
    nothing = paired_tests(values)[2]
    assert math.isnan(nothing.effect_size)
    assert (nothing.p, nothing.wins, nothing.losses, nothing.ties) == (1.0, 0, 0, N)


def test_differences_by_rounding_are_ties() -> None:
    values = np.array([2e-9, -2e-9, 5e-10, -5e-10, 0.0, 0.5])
    (result,) = paired_tests(values[:, None])
    assert (result.wins, result.losses, result.ties) == (2, 1, 3)


@pytest.mark.parametrize(("folds", "factor"), [(1, 1.0), (2, math.sqrt(3)), (5, 1.5)])
def test_folds_that_share_their_training_widen_the_error(folds: int, factor: float) -> None:
    values = symmetric(0.02)
    (result,) = paired_tests(values[:, None], folds=folds)
    assert result.standard_error == pytest.approx(math.hypot(factor * values.std(ddof=1) / 30, 1 / N))
    assert non_inferiority_p(values, margin=0.01, folds=folds) == pytest.approx(
        paired_tests(values[:, None] + 0.01, folds=folds)[0].p / 2
    )


def test_the_level_moves_the_interval_and_not_p() -> None:
    usual, strict = (paired_tests(symmetric(0.02)[:, None], alpha=alpha)[0] for alpha in (0.05, 0.01))
    assert strict.p == usual.p
    assert (strict.level, strict.interval_key, usual.interval_key) == (0.99, "ci99", "ci95")
    normal = student.ppf(0.995, N - 1)
    widest = normal + possible(0.0, N)[1] / 180 * (2 * normal**2 + 1)
    ends = 0.02 - widest * strict.standard_error, 0.02 + widest * strict.standard_error
    assert strict.interval == pytest.approx(ends, abs=1e-6)
    (passed,) = paired_tests(symmetric(0.02)[:, None], alpha=0.01, n_resamples=300)
    assert passed.interval == strict.interval  # many clusters need no draws


def test_few_clusters_are_held_against_what_they_leave_possible() -> None:
    values = np.random.default_rng(3).exponential(0.2, (12, 1)) - 0.1
    (result,) = paired_tests(values, seed=5, n_resamples=4000)
    null = NullDistribution(np.ones(12), draws=4000, seed=5)
    low, high = possible(skew(values[:, 0], bias=False), 12)
    mean, error = values.mean(), math.hypot(values.std(ddof=1) / math.sqrt(12), 1 / 12)
    gain, loss = null.critical(0.025, low, high), null.critical(0.025, -high, -low)
    assert gain != loss
    assert result.interval == pytest.approx((mean - gain * error, mean + loss * error))
    assert result.p == pytest.approx(2 * null.upper_tail(mean / error, low, high))
    (mirrored,) = paired_tests(-values, seed=5, n_resamples=4000)
    assert mirrored.p == pytest.approx(2 * null.upper_tail(mean / error, low, high))
    assert non_inferiority_p(values[:, 0] - 0.1, margin=0.1, seed=5, n_resamples=4000) == pytest.approx(result.p / 2)


def test_two_and_three_clusters_have_no_skewness() -> None:
    # Of two or three nothing can be said about it; the bound for the smallest sets is what counts.
    for values in ([0.1, 0.4], [0.1, 0.1, 0.4]):
        (result,) = paired_tests(np.array(values)[:, None])
        assert result.interval == (-math.inf, math.inf)
        assert result.detectable == math.inf
        assert 0.2 < result.p <= 1.0


def test_two_clusters_have_an_error_and_equal_differences_no_effect_size() -> None:
    (result,) = paired_tests(np.array([[0.1], [0.4]]))
    assert result.standard_error == pytest.approx(math.hypot(0.15, 1 / 2))
    assert result.effect_size == pytest.approx(0.25 / np.std([0.1, 0.4], ddof=1))
    assert math.isnan(paired_tests(np.full((9, 1), 0.25))[0].effect_size)


def test_skewness_does_not_depend_on_the_unit_and_rounding_has_none() -> None:
    values, sizes = np.array([0.1, 0.1, 0.4]), np.ones(3)
    expected = skew(values, bias=False)
    assert [module._skewness(values * unit, sizes) for unit in (1.0, 1e-5)] == pytest.approx([expected] * 2)
    assert module._skewness(values * 1e-10, sizes) == 0.0
    assert module._skewness(values[1:], sizes[1:]) == 0.0


def test_what_was_seen_and_nothing_are_always_possible() -> None:
    assert module._possible(5.0, 1000.0) == (0.0, 5.0)
    assert module._possible(-5.0, 1000.0) == (-5.0, 0.0)


def test_non_inferiority_is_one_sided() -> None:
    values = symmetric(0.0)
    error = math.hypot(values.std(ddof=1) / 30, 1 / N)
    low, high = possible(0.0, N)
    assert non_inferiority_p(values, margin=0.01) == pytest.approx(johnson_tail(0.01 / error, low), rel=1e-4)
    worse = non_inferiority_p(values - 0.02, margin=0.01)
    assert worse == pytest.approx(1 - johnson_tail(0.01 / error, -high), rel=1e-6)
    assert non_inferiority_p(symmetric(-0.01), margin=0.01) == pytest.approx(0.5, abs=0.01)


def test_non_inferiority_is_tested_as_everything_else() -> None:
    values = np.random.default_rng(6).normal(0.0, 0.2, 36)
    documents = np.repeat(np.arange(9), 4)
    for options in ({}, {"seed": 3}, {"n_resamples": 2500}, {"folds": 3}, {"alpha": 0.2}):
        (test,) = paired_tests(values[:, None] + 0.1, documents, **options)
        assert test.difference > 0
        assert non_inferiority_p(values, documents, margin=0.1, **options) == test.p / 2


def test_holm_by_hand() -> None:
    assert holm([0.04, 0.01, 0.03, 0.5]) == pytest.approx([0.09, 0.04, 0.09, 0.5])
    assert holm([0.6, 0.4]) == pytest.approx([0.8, 0.8])
    assert holm([0.9, 0.8, 0.7]) == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("power", [0.8, 0.5])
def test_what_many_clusters_could_show(power: float) -> None:
    expected = johnson(possible(0.0, N)[0]) + student.ppf(power, N - 1)
    assert detectable_difference(0.01, N, power=power) == pytest.approx(0.01 * expected)
    assert detectable_difference(0.01, [7.0] * N, power=power) == pytest.approx(0.01 * expected)


@pytest.mark.parametrize(("sizes", "seed"), [(12, 0), ([3] * 12, 0), (30, 0)])
def test_what_few_clusters_could_show_is_told_by_the_noncentral_t(sizes, seed: int) -> None:
    n = sizes if isinstance(sizes, int) else len(sizes)
    null = NullDistribution(np.ones(n), draws=10_000, seed=seed)
    passed = null.critical(0.025, *possible(0.0, n))
    needed = brentq(lambda shift: nct.sf(passed, n - 1, shift) - 0.8, 0.1, 30)
    assert detectable_difference(0.02, sizes) == pytest.approx(0.02 * needed, rel=0.02)


def test_fewer_than_six_clusters_show_nothing() -> None:
    assert [detectable_difference(0.01, n) for n in (0, 1, 2, 5)] == [math.inf] * 4
    assert detectable_difference(0.01, 6) < math.inf


def seen(n_clusters: int, standard_error: float = 0.01) -> PairedResult:
    return PairedResult(0.0, (-0.1, 0.1), 0.5, standard_error, 0.1, 0.03, 5000, n_clusters, 1, 1, 4998)


def test_clusters_that_would_show_a_gain_shrink_the_error_with_their_root() -> None:
    # With 600 clusters the error is 0.01; 2.8 errors are needed, so 0.0156 of 2,000 clusters is the first under 0.016.
    shown = {wanted: detectable_difference(0.01 * math.sqrt(600 / wanted), wanted) for wanted in (1000, 2000, 5000)}
    assert [clusters_to_show(seen(600), difference) for difference in shown.values()] == [1000, 2000, 5000]
    assert clusters_to_show(seen(600), shown[1000] - 1e-9) == 2000
    assert clusters_to_show(seen(600), 0.005) is None
    assert clusters_to_show(seen(600), 0.005, power=0.1) == 2000
    assert clusters_to_show(seen(500), 1.0) == clusters_to_show(seen(999), 1.0) == 1000
    assert clusters_to_show(seen(1000), 1.0) == 2000
    assert clusters_to_show(seen(10_000), 1.0) is None
    assert clusters_to_show(seen(1), 1.0) is None
    assert clusters_to_show(seen(2, 0.001), 1.0) == 6  # with fewer nothing could be shown
    scale = [6, 8, 10, 12, 15, 20, 30, 40, 60, 80, 100, 150, 200, 300, 500]
    assert [clusters_to_show(seen(n), 1.0) for n in scale[:-1]] == scale[1:]
