"""Means that may be looked at after every value."""

from __future__ import annotations

import numpy as np
import pytest

from llama_index_embft.errors import ConfigError, EvaluationError
from llama_index_embft.evaluation import MeanSequence, anytime_mean


def first_miss(values, truth, **options):
    """The number of values at which an interval excluded the truth; None if none of them did."""
    sequence = MeanSequence(**options)
    for n, value in enumerate(values, 1):
        sequence.add(value)
        if sequence.result.excludes(truth):
            return n
    return None


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
    with pytest.raises(ConfigError, match="`level` is 1"):
        MeanSequence(level=1)
