"""A mean from few labels and a judge: figures as theory has them, worked out the slow way."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import t as student

from llama_index_embft.errors import ConfigError, EvaluationError
from llama_index_embft.evaluation.statistics import (
    PredictionPoweredMean,
    few_labels as module,
    prediction_powered_mean,
)

NAN = float("nan")
HUMAN = [0.0, 1.0, 1.0, 0.5, 0.25, 1.0, 0.0, 0.75, 0.5, 1.0, 0.0, 0.25]
M = len(HUMAN)
RNG = np.random.default_rng(5)
JUDGE = [*(0.3 + 0.5 * np.array(HUMAN) + RNG.normal(0, 0.2, M)), *RNG.uniform(0.2, 1.0, 28)]
GROUPS = [f"d{i % 11}" for i in range(M)] + [f"d{i % 17}" for i in range(28)]


def half_width(interval: tuple[float, float], middle: float) -> float:
    low, high = interval
    assert (low + high) / 2 == pytest.approx(middle)
    return (high - low) / 2


def variance(weight: float, human: list[float], judge: list[float], groups: list, *, leverage: bool) -> float:
    """Sum over groups of the squared influence that a group's questions have on the estimate, one after another."""
    m, n = len(human), len(judge)
    y, f = sum(human) / m, sum(judge[:m]) / m
    everywhere, spread = sum(judge) / n, sum((value - f) ** 2 for value in judge[:m])
    shares: defaultdict = defaultdict(float)
    for i in range(m):
        shares[groups[i]] += 1 / m + (((judge[i] - f) ** 2 / spread) if weight and leverage else 0.0)
    influence: defaultdict = defaultdict(float)
    for i in range(m):
        residual = (human[i] - y) - weight * (judge[i] - f)
        influence[groups[i]] += residual / m / (1 - min(shares[groups[i]], 0.9) if leverage else 1)
    for i in range(n):
        influence[groups[i]] += weight * (judge[i] - everywhere) / n
    return sum(value**2 for value in influence.values())


@pytest.mark.parametrize(
    ("groups", "apart"), [(None, 0.0), (GROUPS, 0.0), (GROUPS, 3.0)], ids=["questions", "documents", "one apart"]
)
def test_the_weight_is_the_best_and_the_error_that_of_a_robust_sum(groups: list[str] | None, apart: float) -> None:
    judge = [value + apart * (i in (0, 11)) for i, value in enumerate(JUDGE)]  # one document decides the slope
    result = prediction_powered_mean(HUMAN + [NAN] * 28, judge, groups)
    given = groups or list(range(40))
    best = minimize_scalar(lambda weight: variance(weight, HUMAN, judge, given, leverage=False)).x
    assert result.weight == pytest.approx(best, abs=1e-6)
    assert abs(result.weight) > 0.05
    expected = np.mean(HUMAN) + result.weight * (np.mean(judge) - np.mean(judge[:M]))
    assert result.estimate == pytest.approx(expected)
    error = math.sqrt(variance(result.weight, HUMAN, judge, given, leverage=True))
    alone = math.sqrt(variance(0.0, HUMAN, judge, given, leverage=True))
    clusters = 12 if groups is None else 11
    assert half_width(result.interval, expected) == pytest.approx(student.ppf(0.975, clusters - 2) * error)
    labels_only = half_width(result.labels_interval, np.mean(HUMAN))
    assert labels_only == pytest.approx(student.ppf(0.975, clusters - 1) * alone)
    assert result.gain == pytest.approx(half_width(result.interval, expected) / labels_only)
    assert result.correlation == pytest.approx(np.corrcoef(HUMAN, judge[:M])[0, 1])
    assert (result.n, result.n_labels, result.n_clusters, result.level) == (40, 12, clusters, 0.95)
    assert result.to_dict() == {**{name: getattr(result, name) for name in vars(result)}, "gain": result.gain}


def test_where_the_labelled_stand_does_not_matter() -> None:
    order = RNG.permutation(40)
    human, judge = np.array(HUMAN + [NAN] * 28)[order], np.array(JUDGE)[order]
    one = prediction_powered_mean(HUMAN + [NAN] * 28, JUDGE, GROUPS)
    other = prediction_powered_mean(human, judge, np.array(GROUPS)[order])
    assert other.interval == pytest.approx(one.interval)
    assert other.labels_interval == pytest.approx(one.labels_interval)


def test_without_a_judge_it_is_the_interval_of_a_mean_with_its_leverage() -> None:
    # Each residual is divided by 1 - 1/n: s / sqrt(n) becomes s / sqrt(n - 1).
    result = prediction_powered_mean(HUMAN + [NAN] * 28, [0.6] * 40, level=0.9)
    expected = student.ppf(0.95, 11) * np.std(HUMAN, ddof=1) / math.sqrt(11)
    assert (result.weight, result.correlation, result.gain) == (0.0, None, 1.0)
    assert result.estimate == result.labels_only == pytest.approx(np.mean(HUMAN))
    assert half_width(result.interval, result.estimate) == pytest.approx(expected)
    assert result.interval == result.labels_interval
    assert result.judge_mean == pytest.approx(0.6)
    assert result.bias == pytest.approx(0.6 - np.mean(HUMAN))
    assert result.level == 0.9


@pytest.mark.parametrize(("off_the_line", "believed"), [(4, False), (5, True)])
def test_fewer_than_five_labels_off_the_best_line_are_no_measure_of_the_judge(off_the_line, believed):
    # The judge's zeros are the people's; of those it gives 1 one has 0.96, so the line passes beside all of them.
    human = [0.0] * (40 - off_the_line) + [1.0] * (off_the_line - 1) + [0.96]
    judge = [0.0] * (40 - off_the_line) + [1.0] * off_the_line
    result = prediction_powered_mean(human + [NAN] * 4000, judge + [0.0, 1.0] * 2000)
    width = half_width(result.interval, result.estimate)
    limit = student.ppf(0.975, 38) / 40  # one question of 40 may be off by a whole point
    if believed:
        error = math.sqrt(variance(result.weight, human, judge + [0.0, 1.0] * 2000, range(4040), leverage=True))
        assert width == pytest.approx(student.ppf(0.975, 38) * error)
        assert width < limit
    else:
        assert width == pytest.approx(limit)


def test_a_judge_without_weight_says_nothing_of_the_error() -> None:
    judge = np.arange(12.0)
    measured = 0.5 + judge / 1000  # on a line with the judge, which is not asked
    group, labelled = np.arange(12), np.ones(12, dtype=bool)
    alone = module._error(measured, judge, judge, group, labelled, 0.0)
    assert alone < 1 / 12
    assert module._error(measured, judge, judge, group, labelled, 0.001) == 1 / 12  # all on the line: no proof


def test_the_unit_of_the_judge_does_not_matter() -> None:
    one = prediction_powered_mean(HUMAN + [NAN] * 28, JUDGE)
    other = prediction_powered_mean(HUMAN + [NAN] * 28, 1e-6 * np.array(JUDGE))
    assert other.interval == pytest.approx(one.interval)
    assert other.weight == pytest.approx(1e6 * one.weight)
    assert other.correlation == pytest.approx(one.correlation)


def test_labels_that_differ_a_little_are_believed_where_the_judge_says_nothing() -> None:
    human = 0.5 + 0.001 * np.array(HUMAN)
    result = prediction_powered_mean([*human, *[NAN] * 28], [0.6] * 40)
    expected = student.ppf(0.975, 11) * np.std(human, ddof=1) / math.sqrt(11)
    assert half_width(result.interval, result.estimate) == pytest.approx(expected)


def test_labels_that_all_agree_are_not_without_error() -> None:
    result = prediction_powered_mean([1.0] * 10 + [NAN] * 30, JUDGE)
    assert result.correlation is None
    assert half_width(result.labels_interval, 1.0) == pytest.approx(student.ppf(0.975, 9) / 10)


@pytest.mark.parametrize(("n", "wanted"), [(480, 48), (60, 48), (48, None), (40, None)])
def test_without_a_judge_half_the_interval_takes_four_times_the_labels(n: int, wanted: int | None) -> None:
    assert prediction_powered_mean(HUMAN + [NAN] * (n - M), [0.6] * n).labels_to_halve == wanted


def test_labels_to_halve_leave_a_quarter_of_the_variance() -> None:
    # Of a / m + b, b is what all n labelled would leave: the variance of the labels alone, times m / n.
    judge = [*JUDGE, *RNG.uniform(0.2, 1.0, 960)]
    result = prediction_powered_mean(HUMAN + [NAN] * 988, judge)
    given = list(range(1000))
    now = variance(result.weight, HUMAN, judge, given, leverage=True)
    rest = variance(0.0, HUMAN, judge, given, leverage=True) * M / 1000
    slope = (now - rest) / (1 / M - 1 / 1000)
    assert result.labels_to_halve == math.ceil(1 / ((now / 4 - rest) / slope + 1 / 1000))


def test_all_labelled_is_the_mean_of_the_labels() -> None:
    result = prediction_powered_mean(HUMAN, JUDGE[:M])
    assert (result.weight, result.labels_to_halve) == (0.0, None)
    assert result.interval == result.labels_interval


def test_none_is_no_label_and_no_judgement() -> None:
    given, none = HUMAN + [NAN] * 28, HUMAN + [None] * 28
    assert prediction_powered_mean(none, JUDGE) == prediction_powered_mean(given, JUDGE)
    with pytest.raises(EvaluationError, match="finite value for every question"):
        prediction_powered_mean(HUMAN, [*JUDGE[: M - 1], None])


def test_what_cannot_be_estimated_is_refused() -> None:
    ten = HUMAN[:10]
    assert isinstance(prediction_powered_mean(ten, ten), PredictionPoweredMean)
    with pytest.raises(EvaluationError, match="People labelled 9 independent questions; label at least 10"):
        prediction_powered_mean([*ten[:9], NAN], ten)
    with pytest.raises(EvaluationError, match="People labelled 1 independent documents"):
        prediction_powered_mean(ten, ten, ["a"] * 10)
    for shapes in (([ten], [ten]), (ten, ten[:9]), (ten, [ten])):
        with pytest.raises(EvaluationError, match="must have one shape"):
            prediction_powered_mean(*shapes)
    with pytest.raises(EvaluationError, match="finite value for every question"):
        prediction_powered_mean(ten, [*ten[:9], NAN])
    for level in (0, 1, 1.5):
        with pytest.raises(ConfigError, match="`level` is"):
            prediction_powered_mean(ten, ten, level=level)
