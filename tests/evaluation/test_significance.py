"""The statistics keep their promises: checked against scipy and by simulation."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest

from llama_index_embft.errors import EvaluationError
from llama_index_embft.evaluation.statistics import (
    clusters_to_show,
    detectable_difference,
    holm,
    non_inferiority_p,
    paired_tests,
)
from llama_index_embft.evaluation.statistics.null_distribution import NullDistribution, variance_weights


def scores_like_ndcg(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Differences as evaluation makes them: most queries unchanged, some a little better or worse, some by a lot."""
    size = rng.choice([0.0, 0.37, 0.13, 1.0], p=[0.6, 0.2, 0.15, 0.05], size=shape)
    return size * rng.choice([-1.0, 1.0], size=shape)


def by_document(rng: np.random.Generator, documents: np.ndarray, columns: int) -> np.ndarray:
    """Normal differences, a third of whose variance the queries about one document share."""
    shared = rng.normal(0, 0.1, size=(documents.max() + 1, columns))[documents]
    return shared + rng.normal(0, 0.14, size=(len(documents), columns))


def skewed(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Many small gains and a few large losses, mean 0."""
    return 0.3 * (1 - rng.exponential(size=shape))


@pytest.mark.simulation
@pytest.mark.parametrize("n", [25, 400])
def test_two_equal_systems_differ_significantly_in_at_most_five_percent_of_cases(n: int) -> None:
    experiments = scores_like_ndcg(np.random.default_rng(1), (n, 2000))  # a column an experiment
    results = paired_tests(experiments, n_resamples=2000, seed=2)
    assert 0.005 < np.mean([r.p < 0.05 for r in results]) < 0.062
    assert np.mean([r.interval[0] <= 0 <= r.interval[1] for r in results]) > 0.94


@pytest.mark.simulation
@pytest.mark.parametrize("n_documents", [3, 8, 20])
def test_skewed_differences_of_few_documents_are_not_taken_for_gains(n_documents: int) -> None:
    # The plain t-test calls 5 to 9 % of these a gain.
    documents = np.repeat(np.arange(n_documents), 10)
    means = skewed(np.random.default_rng(3), (n_documents, 2000))
    results = paired_tests(means[documents], documents)
    assert np.mean([r.p < 0.05 and r.difference > 0 for r in results]) < 0.035
    assert np.mean([r.interval[0] <= 0 <= r.interval[1] for r in results]) > 0.94


@pytest.mark.simulation
def test_many_skewed_queries_are_judged_by_the_expansion() -> None:
    results = paired_tests(skewed(np.random.default_rng(4), (900, 3000)))
    assert np.mean([r.p < 0.05 and r.difference > 0 for r in results]) == pytest.approx(0.025, abs=0.009)
    assert 0.005 < np.mean([r.p < 0.05 and r.difference < 0 for r in results]) < 0.034


@pytest.mark.simulation
def test_dependent_queries_fool_the_plain_test_and_not_the_clustered_one() -> None:
    rng = np.random.default_rng(3)
    documents = np.repeat(np.arange(30), 10)
    experiments = rng.normal(size=(30, 1500))[documents] + 0.5 * rng.normal(size=(300, 1500))
    plain = paired_tests(experiments, n_resamples=2000)
    clustered = paired_tests(experiments, documents, n_resamples=2000)
    assert np.mean([r.p < 0.05 for r in plain]) > 0.4
    assert 0.01 < np.mean([r.p < 0.05 for r in clustered]) < 0.06
    assert clustered[0].standard_error > 2 * plain[0].standard_error
    assert (clustered[0].n, clustered[0].n_clusters) == (300, 30)


@pytest.mark.simulation
@pytest.mark.parametrize("n_documents", [6, 8, 15, 60])
def test_power_at_the_detectable_difference_is_eighty_percent(n_documents: int) -> None:
    documents = np.repeat(np.arange(n_documents), 15)
    experiments = by_document(np.random.default_rng(4), documents, 1500)
    claimed = np.mean([r.detectable for r in paired_tests(experiments, documents)])
    results = paired_tests(experiments + claimed, documents)
    assert np.mean([r.p < 0.05 and r.difference > 0 for r in results]) == pytest.approx(0.8, abs=0.05)
    true_error = math.sqrt((0.1**2 + 0.14**2 / 15) / n_documents)
    assert claimed == pytest.approx(detectable_difference(true_error, n_documents), rel=0.1)


@pytest.mark.parametrize("sizes", [[20] * 7, [40, 13, 9, 5, 12, 8, 20], [90] + [10] * 9, [1] * 12, [1] * 500], ids=str)
def test_p_and_interval_never_contradict_each_other(sizes: list[int]) -> None:
    documents = np.repeat(np.arange(len(sizes)), sizes)
    experiments = by_document(np.random.default_rng(5), documents, 300) + np.linspace(-0.4, 0.4, 300)
    results = paired_tests(experiments, documents, n_resamples=4000)
    assert {r.p < 0.05 for r in results} == {True, False}
    assert all((r.p < 0.05) == (r.interval[0] > 0 or r.interval[1] < 0) for r in results)
    # Nor does the limit: what was not found is smaller than what can be found.
    assert all(r.p < 0.05 or abs(r.difference) < r.detectable for r in results if r.difference > 0)


@pytest.mark.simulation
def test_non_inferiority_is_the_lower_end_of_the_interval() -> None:
    rng = np.random.default_rng(5)
    experiments = rng.normal(-0.02, 0.3, size=(200, 200))
    results = paired_tests(experiments, n_resamples=4000)
    for column, test in zip(experiments.T, results, strict=True):
        p = non_inferiority_p(column, margin=0.06, n_resamples=4000)
        assert (p < 0.025) == (test.interval[0] > -0.06)
    worse = [non_inferiority_p(c, margin=0.06) for c in rng.normal(-0.06, 0.3, size=(200, 1000)).T]
    equal = [non_inferiority_p(c, margin=0.06) for c in rng.normal(0, 0.3, size=(200, 1000)).T]
    assert np.mean(np.array(worse) < 0.025) < 0.035
    assert np.mean(np.array(equal) < 0.025) > 0.7


def test_parity_with_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(6)
    base = rng.random(3000)
    tuned = base + rng.normal(0.003, 0.1, 3000)
    (got,) = paired_tests((tuned - base)[:, None])
    assert got.standard_error == pytest.approx(math.hypot(stats.sem(tuned - base), 1 / 3000), rel=1e-9)
    assert got.p == pytest.approx(stats.ttest_rel(tuned, base).pvalue, rel=0.25)
    assert got.interval == pytest.approx(stats.ttest_rel(tuned, base).confidence_interval(0.95), abs=0.0004)


def test_drawn_ratios_of_normal_data_follow_student_and_exponential_ones_are_covered() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(7)
    for n in (9, 20, 40):
        null = NullDistribution(np.ones(n), draws=40_000, seed=0)
        assert null.critical(0.025, 0.0, 0.0) == pytest.approx(stats.t.ppf(0.975, n - 1), rel=0.04)
        assert null.upper_tail(2.0, 0.0, 0.0) == pytest.approx(stats.t.sf(2.0, n - 1), abs=0.004)
        sample = 1 - rng.exponential(size=(40_000, n))
        ratios = sample.mean(axis=1) / (sample.std(axis=1, ddof=1) / math.sqrt(n))
        assert null.critical(0.025, -(2 - 1 / n), 2 - 1 / n) == pytest.approx(np.quantile(ratios, 0.975), rel=0.15)


def test_draws_and_expansion_meet() -> None:
    drawn, expanded = (NullDistribution(np.ones(n), draws=10_000, seed=0) for n in (400, 401))
    for skewness in (0.0, 1.0, 2.0):
        assert drawn.critical(0.025, -skewness, 0) == pytest.approx(expanded.critical(0.025, -skewness, 0), rel=0.03)
        ratio = expanded.critical(0.025, -skewness, 0)
        assert expanded.upper_tail(ratio, -skewness, 0) == pytest.approx(0.025, rel=1e-6)


def test_equal_clusters_get_the_usual_correction() -> None:
    assert variance_weights(np.full(5, 0.2)) == pytest.approx(np.full(5, 0.2**2 * 5 / 4))


def test_a_few_equal_changes_prove_nothing_and_many_do() -> None:
    # Three wins of equal size have no spread; that is not certainty.
    (result,) = paired_tests(np.array([[1.0], [1.0], [1.0], [0.0]]))
    assert result.p > 0.05
    assert (result.wins, result.losses, result.ties, result.n) == (3, 0, 1, 4)
    assert paired_tests(np.ones((3, 1)))[0].p > 0.05
    assert paired_tests(np.ones((12, 1)))[0].p < 0.05


def test_p_is_never_zero() -> None:
    for n in (50, 500):
        (result,) = paired_tests(np.full((n, 1), 0.9) + np.linspace(0, 0.01, n)[:, None], n_resamples=999)
        assert result.p == pytest.approx(2 / 1000)


def test_nothing_changed() -> None:
    (result,) = paired_tests(np.zeros((50, 1)))
    assert (result.difference, result.p) == (0.0, 1.0)
    assert result.interval == pytest.approx((-0.0406, 0.0406), abs=0.005)  # one query in 50 could have changed
    assert result.detectable > 1 / 50
    assert math.isnan(result.effect_size)


@pytest.mark.parametrize("clusters", [None, ["a"]], ids=["one query", "one document"])
def test_one_observation_proves_nothing(clusters: list[str] | None) -> None:
    with np.errstate(all="raise"):  # nothing is divided by 0 on the way
        (result,) = paired_tests(np.array([[0.5]]), clusters)
    assert result.p == 1.0
    assert result.interval == (-math.inf, math.inf)
    assert non_inferiority_p(np.array([0.5]), clusters, margin=0.1) == 0.5
    assert detectable_difference(0.1, 1) == math.inf
    assert clusters_to_show(result, 0.05) is None


@pytest.mark.simulation
def test_how_many_clusters_would_show_a_gain() -> None:
    documents = np.repeat(np.arange(4), 20)
    (result,) = paired_tests(by_document(np.random.default_rng(8), documents, 1), documents)
    wanted = clusters_to_show(result, 0.05)
    assert wanted is not None
    assert wanted > 10
    assert detectable_difference(result.standard_error * math.sqrt(4 / wanted), wanted) <= 0.05
    assert clusters_to_show(result, 1e-6) is None


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_same_seed_same_result() -> None:
    differences = scores_like_ndcg(np.random.default_rng(8), (100, 2))
    documents = np.repeat(np.arange(20), 5)
    assert paired_tests(differences, documents, seed=3) == paired_tests(differences, documents, seed=3)
    assert paired_tests(differences, documents, seed=3) != paired_tests(differences, documents, seed=4)


@pytest.mark.simulation
def test_ten_thousand_queries_take_well_under_a_second() -> None:
    differences = scores_like_ndcg(np.random.default_rng(9), (10_000, 20))
    paired_tests(differences[:100])  # scipy is imported at the first call
    start = time.perf_counter()
    paired_tests(differences)
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize(
    ("differences", "clusters", "message"),
    [
        (np.array([[np.nan], [0.1]]), None, "finite numbers"),
        (np.ones(5), None, "shape"),
        (np.zeros((0, 1)), None, "at least one query"),
        (np.ones((5, 1)), ["a"], "each of the 5 queries"),
    ],
)
def test_what_is_no_difference_gets_no_p(differences, clusters, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        paired_tests(differences, clusters)


def test_lists_are_taken_too() -> None:
    assert paired_tests([[0.1], [0.2]])[0] == paired_tests(np.array([[0.1], [0.2]]))[0]
