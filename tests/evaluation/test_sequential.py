"""Means that may be looked at after every value."""

from __future__ import annotations

import math

import numpy as np
import pytest

from llama_index_embft.errors import ConfigError, EvaluationError
from llama_index_embft.evaluation import AnytimeMean, MeanSequence, anytime_mean


def first_miss(values, truth, **options):
    """The number of values at which an interval excluded the truth; None if none of them did."""
    sequence = MeanSequence(**options)
    for n, value in enumerate(values, 1):
        sequence.add(value)
        if sequence.result.excludes(truth):
            return n
    return None


@pytest.mark.simulation
def test_intervals_at_all_looks_hold_the_mean_where_usual_ones_do_not():
    rng = np.random.default_rng(0)
    streams = (rng.random((60, 200)) < 0.3).astype(float)
    missed = sum(first_miss(stream, 0.3) is not None for stream in streams)
    n = np.arange(1, 201)
    means = np.cumsum(streams, axis=1) / n
    usual = np.abs(means - 0.3) > 1.96 * np.sqrt(np.maximum(means * (1 - means), 1e-9) / n)
    assert missed <= 6  # 5 % of 60 are 3
    assert usual[:, 20:].any(axis=1).sum() >= 15


def test_what_is_excluded_stays_excluded_and_a_gain_is_found():
    rng = np.random.default_rng(1)
    differences = rng.choice([-1.0, 0.0, 0.0, 1.0, 1.0], size=600)  # on average +0.2
    at = first_miss(differences, 0.0, lowest=-1.0)
    assert at is not None
    found = anytime_mean(differences, lowest=-1)
    assert found.excludes(0)
    assert found.interval[0] > 0
    assert found.interval[0] <= 0.2 <= found.interval[1]
    assert found.estimate == pytest.approx(differences.mean())
    assert found.to_dict()["n"] == 600


def test_a_constant_and_a_mean_that_changes():
    assert anytime_mean([]).interval == (0.0, 1.0)
    assert anytime_mean([]).estimate is None
    low, high = anytime_mean([1.0] * 200).interval
    assert low > 0.9
    assert high == 1.0
    changed = anytime_mean([0.0] * 400 + [1.0] * 4000)
    assert changed.interval is None  # no mean fits
    assert not changed.excludes(0.5)


@pytest.mark.parametrize("value", [1.5, -0.1, float("nan"), "0.5", None])
def test_a_value_outside_its_bounds_is_refused(value):
    with pytest.raises(EvaluationError, match=r"must be between 0\.0 and 1\.0"):
        anytime_mean([0.5, value])


def test_bounds_and_level_are_checked():
    with pytest.raises(ConfigError, match=r"`highest` is 0\.0; it must be above 1"):
        MeanSequence(1.0, 0.0)
    with pytest.raises(ConfigError, match="`highest` is inf"):
        MeanSequence(0.0, float("inf"))
    for level in (0, 1):
        with pytest.raises(ConfigError, match=f"`level` is {level}"):
            MeanSequence(level=level)
    with pytest.raises(ConfigError, match="`lowest` is -inf"):
        MeanSequence(-math.inf)


def test_candidates_at_the_ends_divide_by_zero_in_silence():
    with np.errstate(divide="raise"):
        assert anytime_mean([0.0, 1.0]).estimate == 0.5


def stakes_of(values, level):
    """What is bet on each value, before it is cut; values between 0 and 1."""
    stakes = []
    for t in range(1, len(values) + 1):
        before = values[: t - 1]
        means = [(0.5 + sum(values[: i + 1])) / (i + 2) for i in range(t - 1)]
        variance = (0.25 + sum((x_i - mean) ** 2 for x_i, mean in zip(before, means, strict=True))) / t
        stakes.append(math.sqrt(2 * math.log(2 / (1 - level)) / (variance * t * math.log(t + 1))))
    return stakes


def capital_interval(values, level):
    """The hedged capital process of the paper, candidate by candidate, for values between 0 and 1."""
    stakes, fits = stakes_of(values, level), []
    for step in range(1001):
        m, above, below, out = step / 1000, 1.0, 1.0, False
        for x, stake in zip(values, stakes, strict=True):
            above *= 1 + (min(stake, 0.5 / m) if m else stake) * (x - m)
            below *= 1 - (min(stake, 0.5 / (1 - m)) if m < 1 else stake) * (x - m)
            out = out or max(above, below) / 2 >= 1 / (1 - level)
        if not out:
            fits.append(m)
    return max(fits[0] - 0.001, 0.0), min(fits[-1] + 0.001, 1.0)


@pytest.mark.parametrize("level", [0.95, 0.8])
def test_the_interval_is_that_of_the_paper(level):
    values = [1.0, 0.75, 1.0, 0.9, 1.0, 1.0, 0.8, 1.0, 1.0, 0.25, 0.95, 1.0]
    expected = capital_interval(values, level)
    assert 0 < expected[0] < 0.8
    found = anytime_mean(values, level=level)
    assert found.interval == pytest.approx(expected)
    assert (found.n, found.level) == (12, level)
    assert found.estimate == pytest.approx(np.mean(values))
    low, high = anytime_mean([1 - value for value in values], level=level).interval  # the other side
    assert (1 - high, 1 - low) == pytest.approx(expected)
    assert low < 0.001 < 1.0 - expected[0] <= high + 1e-12


def test_stakes_follow_the_spread_of_the_past():
    values = np.random.default_rng(0).random(60).round(3).tolist()  # so many that no stake is cut
    assert anytime_mean(values).interval == pytest.approx(capital_interval(values, 0.95))
    sequence, stakes = MeanSequence().extend(values), stakes_of(values, 0.95)
    above = sum(math.log1p(min(stake, 0.5 / 0.4) * (x - 0.4)) for x, stake in zip(values, stakes, strict=True))
    assert sequence._above[400] == pytest.approx(above, rel=1e-9)
    assert anytime_mean(values[:25]).interval == pytest.approx(capital_interval(values[:25], 0.95))


def test_values_of_another_range_are_told_in_their_own_unit():
    values = [1.0, 0.75, 1.0, 0.9, 1.0, 1.0, 0.8, 1.0, 1.0, 0.25, 0.95, 1.0]
    low, high = capital_interval(values, 0.95)
    found = anytime_mean([10 + 4 * value for value in values], lowest=10, highest=14)
    assert found.interval == pytest.approx((10 + 4 * low, 10 + 4 * high))
    assert found.estimate == pytest.approx(10 + 4 * np.mean(values))
    assert MeanSequence().extend([0.5]).result.interval == anytime_mean([0.5]).interval == (0.0, 1.0)


def test_the_ends_of_an_interval_are_not_excluded():
    found = AnytimeMean(3, 0.5, (0.25, 0.75), 0.95)
    assert [found.excludes(value) for value in (0.2, 0.25, 0.5, 0.75, 0.8)] == [True, False, False, False, True]
    assert not AnytimeMean(3, 0.5, None, 0.95).excludes(0.5)


@pytest.mark.parametrize("value", [-1e-10, 1 + 1e-10])
def test_what_leaves_the_bounds_by_rounding_counts_as_the_bound(value):
    assert anytime_mean([value]).estimate == round(value)
