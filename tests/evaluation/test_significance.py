"""The statistics keep their promises: checked against scipy and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from llama_index_embft.evaluation.statistics import significance as s


def scores_like_ndcg(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Differences as evaluation makes them: most queries unchanged, some a little better or worse, some by a lot."""
    size = rng.choice([0.0, 0.37, 0.13, 1.0], p=[0.6, 0.2, 0.15, 0.05], size=shape)
    return size * rng.choice([-1.0, 1.0], size=shape)


@pytest.mark.parametrize("n", [25, 400])
def test_two_equal_systems_differ_significantly_in_five_percent_of_cases(n: int) -> None:
    experiments = scores_like_ndcg(np.random.default_rng(1), (n, 2000))  # a column an experiment
    results = s.paired_tests(experiments, n_resamples=1000, seed=2)
    assert np.mean([r.p < 0.05 for r in results]) == pytest.approx(0.05, abs=0.016)
    assert np.mean([r.p_t < 0.05 for r in results]) == pytest.approx(0.05, abs=0.016)
    assert np.mean([not r.ci95[0] <= 0 <= r.ci95[1] for r in results]) == pytest.approx(0.05, abs=0.02)


def test_dependent_queries_fool_the_plain_test_and_not_the_clustered_one() -> None:
    rng = np.random.default_rng(3)
    documents = np.repeat(np.arange(30), 10)
    by_document = rng.normal(size=(30, 1500))[documents]  # all questions on a document share its luck
    experiments = by_document + 0.5 * rng.normal(size=(300, 1500))
    plain = s.paired_tests(experiments, n_resamples=500)
    clustered = s.paired_tests(experiments, documents, n_resamples=500)
    assert np.mean([r.p < 0.05 for r in plain]) > 0.4
    assert np.mean([r.p < 0.05 for r in clustered]) == pytest.approx(0.05, abs=0.018)
    assert np.mean([r.p_t < 0.05 for r in clustered]) == pytest.approx(0.05, abs=0.018)
    assert np.mean([r.ci95[0] <= 0 <= r.ci95[1] for r in clustered]) == pytest.approx(0.95, abs=0.02)
    assert clustered[0].standard_error > 2 * plain[0].standard_error
    assert (clustered[0].n, clustered[0].n_clusters) == (300, 30)


def test_power_at_the_detectable_difference_is_eighty_percent() -> None:
    rng = np.random.default_rng(4)
    true = s.detectable_difference(0.3 / math.sqrt(150), 150)
    results = s.paired_tests(rng.normal(true, 0.3, size=(150, 1500)), n_resamples=500)
    assert np.mean([r.p < 0.05 for r in results]) == pytest.approx(0.8, abs=0.04)
    assert np.mean([r.detectable for r in results]) == pytest.approx(true, rel=0.02)


def test_non_inferiority_errs_in_five_percent_at_the_margin_and_finds_equality() -> None:
    rng = np.random.default_rng(5)

    def share_called_not_inferior(true: float) -> float:
        results = s.paired_tests(rng.normal(true, 0.3, size=(200, 1500)), n_resamples=1)
        found = [s.non_inferiority_p(r.difference, r.standard_error, r.n_clusters, margin=0.06) < 0.05 for r in results]
        return float(np.mean(found))

    assert share_called_not_inferior(-0.06) == pytest.approx(0.05, abs=0.018)
    assert share_called_not_inferior(0.0) > 0.85


def test_parity_with_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(6)
    base = rng.random(80)
    tuned = base + rng.normal(0.03, 0.1, 80)
    (got,) = s.paired_tests((tuned - base)[:, None], n_resamples=40_000)
    assert got.p_t == pytest.approx(stats.ttest_rel(tuned, base).pvalue, rel=1e-9)
    assert got.standard_error == pytest.approx(stats.sem(tuned - base), rel=1e-9)
    permuted = stats.permutation_test(
        (tuned, base), lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples", vectorized=True, n_resamples=40_000, rng=np.random.default_rng(0),
    )  # fmt: skip
    assert got.p == pytest.approx(permuted.pvalue, abs=0.003)
    plain = stats.bootstrap(
        (tuned - base,), np.mean, confidence_level=0.95, method="percentile", n_resamples=40_000, rng=1
    ).confidence_interval
    means = s.bootstrap_means(
        (tuned - base)[:, None], np.ones(80), n_resamples=40_000, rng=np.random.default_rng(2)
    ).ravel()
    np.testing.assert_allclose(np.quantile(means, [0.025, 0.975]), plain, atol=0.0006)
    assert got.ci95[0] < plain.low  # ours is a little wider: honest for 80 queries
    assert plain.high < got.ci95[1]


def test_counting_kinds_is_the_same_as_drawing_queries() -> None:
    rng = np.random.default_rng(7)
    few_kinds = rng.choice([0.0, 1.0, -1.0], p=[0.8, 0.15, 0.05], size=(600, 1))
    with_noise = few_kinds + rng.normal(0, 1e-7, size=(600, 1))  # all distinct now: the other way of drawing
    (kinds,) = s.paired_tests(few_kinds, n_resamples=20_000)
    (single,) = s.paired_tests(with_noise, n_resamples=20_000)
    np.testing.assert_allclose(kinds.ci95, single.ci95, atol=0.002)
    assert kinds.p_t == pytest.approx(single.p_t, rel=1e-3)


def test_few_flips_are_enumerated_rightly() -> None:
    # Three wins of equal size: of 8 sign patterns 2 are as extreme, so p is 0.25 and never below 2 / 8.
    (result,) = s.paired_tests(np.array([[1.0], [1.0], [1.0], [0.0]]), n_resamples=20_000)
    assert result.p == pytest.approx(0.25, abs=0.01)
    assert (result.wins, result.losses, result.ties, result.n) == (3, 0, 1, 4)


def test_p_is_never_zero() -> None:
    (result,) = s.paired_tests(np.full((500, 1), 0.1) + np.linspace(0, 0.01, 500)[:, None], n_resamples=999)
    assert result.p == pytest.approx(1 / 1000)


def test_nothing_changed() -> None:
    (result,) = s.paired_tests(np.zeros((50, 1)))
    assert (result.difference, result.ci95, result.p, result.p_t) == (0.0, (0.0, 0.0), 1.0, 1.0)
    assert math.isnan(result.detectable)
    assert math.isnan(result.effect_size)
    assert s.non_inferiority_p(0.0, 0.0, 50, margin=0.01) == 0.0


@pytest.mark.parametrize("clusters", [None, ["a"]], ids=["one query", "one document"])
def test_one_observation_proves_nothing(clusters: list[str] | None) -> None:
    (result,) = s.paired_tests(np.array([[0.5]]), clusters)
    assert (result.p, result.p_t) == (1.0, 1.0)
    assert all(math.isnan(end) for end in result.ci95)
    assert s.non_inferiority_p(0.5, result.standard_error, result.n_clusters, margin=0.1) == 1.0


def test_same_seed_same_result_and_other_seed_nearly() -> None:
    differences = scores_like_ndcg(np.random.default_rng(8), (200, 3)) + 0.02
    assert s.paired_tests(differences, seed=1) == s.paired_tests(differences, seed=1)
    other = s.paired_tests(differences, seed=2)[0].ci95
    assert other != s.paired_tests(differences, seed=1)[0].ci95
    np.testing.assert_allclose(other, s.paired_tests(differences, seed=1)[0].ci95, atol=0.005)


def test_holm() -> None:
    assert s.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert s.holm([0.9, 0.5]) == pytest.approx([1.0, 1.0])
    assert s.holm([]) == []
