"""Fusion by its definition, document by document, and the weight that questions teach."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from llama_index_embft.errors import ConfigError, EvaluationError
from llama_index_embft.evaluation import Judgements
from llama_index_embft.retrievers import StackSettings, learn_weight
from llama_index_embft.search import TopK, fuse

METHODS = ("zscore", "tmm", "minmax", "dbsf", "rrf")


def hits(*lists: dict[int, float], width: int | None = None) -> TopK:
    """Hits of some queries from row -> score, best first."""
    width = width or max(1, *map(len, lists))
    rows = np.full((len(lists), width), -1, dtype=np.int64)
    scores = np.full((len(lists), width), -np.inf, dtype=np.float32)
    for line, found in enumerate(lists):
        ordered = sorted(found.items(), key=lambda item: (-item[1], item[0]))
        rows[line, : len(found)] = [row for row, _ in ordered]
        scores[line, : len(found)] = [score for _, score in ordered]
    return TopK(rows, scores)


def plainly(dense: dict[int, float], lexical: dict[int, float], weight: float, method: str) -> dict[int, float]:
    """The definition, one document at a time."""

    def part(found: dict[int, float], least: int, possible: float):
        ranked = sorted(found, key=lambda row: (-found[row], row))
        values = [*found.values(), *[0.0] * (least - len(found))] or [0.0]
        mean, deviation, low, high = np.mean(values), np.std(values), min(values), max(values)
        flat = high - low <= 1e-9 * max(abs(high), abs(low))

        def score(row: int) -> float:
            if method == "rrf":
                return 1 / (61 + ranked.index(row)) if row in found else 0.0
            if method == "tmm":
                return (found.get(row, low) - possible) / (high - possible) if high > possible else 0.0
            if method == "minmax":
                return (1.0 if flat else (found[row] - low) / (high - low)) if row in found else 0.0
            if method == "dbsf":
                return min(1, max(0, (0 if flat else (found[row] - mean) / deviation) / 6 + 0.5)) if row in found else 0
            return 0.0 if flat else (found.get(row, low) - mean) / deviation

        return score

    left, right = part(dense, len(dense), -1), part(lexical, len(dense), 0)
    return {row: weight * left(row) + (1 - weight) * right(row) for row in {*dense, *lexical}}


score_lists = st.dictionaries(st.integers(0, 30), st.integers(1, 400).map(lambda n: n / 16), max_size=12)


@settings(max_examples=300, deadline=None)
@given(score_lists, score_lists, st.sampled_from([0.1, 0.5, 0.8]), st.sampled_from(METHODS))
def test_it_is_the_definition(dense, lexical, weight, method):
    fused = fuse(hits(dense), hits(lexical), weight, method)
    expected = plainly(dense, lexical, weight, method)
    found = fused.rows[0][fused.rows[0] >= 0]
    assert sorted(found.tolist()) == sorted(expected)
    np.testing.assert_allclose(
        fused.scores[0][: len(found)], [expected[row] for row in found.tolist()], rtol=1e-5, atol=1e-5
    )
    assert (np.diff(fused.scores[0][: len(found)]) <= 0).all()
    assert np.isneginf(fused.scores[0][len(found) :]).all()


@pytest.mark.parametrize("method", METHODS)
def test_weight_0_and_1_are_the_parts_as_they_are(method):
    dense, lexical = hits({4: 0.9, 2: 0.9, 7: 0.1}), hits({2: 8.0, 3: 1.0})
    for weight, part in ((1, dense), (0, lexical)):
        fused = fuse(dense, lexical, weight, method)
        np.testing.assert_array_equal(fused.rows, part.rows)
        np.testing.assert_array_equal(fused.scores, part.scores)
    assert fuse(dense, lexical, 1, method, depth=2).rows.tolist() == [[2, 4]]


@pytest.mark.parametrize("method", METHODS)
def test_queries_do_not_touch_each_other(method):
    lists = [({1: 0.9, 2: 0.5}, {2: 9.0}), ({5: 0.3}, {}), ({3: 0.2, 1: 0.1, 4: 0.05}, {7: 1.0, 3: 0.5})]
    together = fuse(hits(*(a for a, _ in lists)), hits(*(b for _, b in lists)), 0.4, method)
    for line, (dense, lexical) in enumerate(lists):
        alone = fuse(hits(dense), hits(lexical), 0.4, method)
        n = int((alone.rows[0] >= 0).sum())
        np.testing.assert_array_equal(together.rows[line, :n], alone.rows[0, :n])
        np.testing.assert_allclose(together.scores[line, :n], alone.scores[0, :n], rtol=1e-6)
        assert (together.rows[line, n:] == -1).all()


def test_the_only_text_with_the_part_number_wins_however_alike_the_others_are():
    dense = hits({row: 0.5 + row / 1000 for row in range(100)})
    assert fuse(dense, hits({300: 7.5}), 0.5).rows[0, 0] == 300


def test_depth_limits_what_takes_part():
    dense, lexical = hits({row: 1 - row / 10 for row in range(6)}), hits({row: 20.0 - row for row in range(5, 12)})
    fused = fuse(dense, lexical, 0.5, depth=3)
    assert sorted(row for row in fused.rows[0].tolist() if row >= 0) == [0, 1, 2, 5, 6, 7]


def test_of_equal_scores_the_better_dense_rank_comes_first():
    fused = fuse(hits({9: 2.0, 1: 1.0}), hits({1: 2.0, 9: 1.0}), 0.5, "minmax")
    assert fused.rows[0, :2].tolist() == [9, 1]


def judged(*relevant: dict[int, int]) -> Judgements:
    names = [str(query) for query in range(len(relevant))]
    qrels = {name: {str(row): grade for row, grade in some.items()} for name, some in zip(names, relevant, strict=True)}
    return Judgements.from_qrels(qrels, names, {str(row): row for row in range(1000)})


def both_parts(n: int, lexical_right: float, seed: int = 0) -> tuple[TopK, TopK, Judgements]:
    """Questions of which the lexical part answers a share and the dense one the rest, each without a doubt."""
    rng = np.random.default_rng(seed)
    dense, lexical, relevant = [], [], []
    for _ in range(n):
        rows = rng.permutation(1000)[:30].tolist()
        right = rng.random() < lexical_right
        noise = {row: 0.5 + 0.01 * rng.random() for row in rows[1:20]}
        dense.append({**noise, rows[0]: 0.3 if right else 0.9})
        lexical.append({row: 5 + rng.random() for row in rows[10:]} | {rows[0]: 30.0 if right else 1.0})
        relevant.append({rows[0]: 1})
    return hits(*dense), hits(*lexical), judged(*relevant)


def test_the_weight_goes_to_the_part_that_answers():
    for share, low, high in ((1.0, 0.0, 0.5), (0.0, 0.5, 1.0)):
        choice = learn_weight(*both_parts(60, share))
        assert low <= choice.weight <= high
        assert choice.scores[choice.weight] == max(choice.scores.values()) == 1.0
    assert choice.n == 60
    assert list(choice.scores) == [step / 20 for step in range(21)]


def test_few_questions_leave_the_weight_near_the_prior_and_many_decide():
    dense, lexical, judgements = both_parts(60, 1.0)
    flat = [weight for weight, score in learn_weight(dense, lexical, judgements).scores.items() if score == 1.0]
    assert len(flat) > 2
    # Of weights that are equally good the prior decides, and never for one that is clearly worse.
    low, high = (learn_weight(dense, lexical, judgements, prior=prior).weight for prior in (0.0, 1.0))
    assert flat[0] <= low < high <= flat[-1]
    dense, lexical, judgements = both_parts(1, 1.0)
    assert learn_weight(dense, lexical, judgements, prior=0.9).weight > 0.7


def test_its_scores_are_those_of_the_fused_rankings():
    dense, lexical, judgements = both_parts(20, 0.5)
    choice = learn_weight(dense, lexical, judgements, metric="mrr@10", method="rrf", steps=5)
    for weight, score in choice.scores.items():
        fused = fuse(dense, lexical, weight, "rrf").rows
        ranks = [
            fused[q].tolist().index(judgements.rows[q]) if judgements.rows[q] in fused[q] else 99 for q in range(20)
        ]
        assert score == pytest.approx(np.mean([1 / (rank + 1) if rank < 10 else 0 for rank in ranks]))


def test_bad_input_is_named():
    dense, lexical = hits({1: 1.0}), hits({1: 1.0})
    for weight in (-0.1, 1.1, float("nan")):
        with pytest.raises(ConfigError, match="`weight` is"):
            fuse(dense, lexical, weight)
    with pytest.raises(ConfigError, match="did you mean 'zscore'"):
        fuse(dense, lexical, 0.5, "zscores")
    with pytest.raises(ConfigError, match="dense hits of 1 queries and lexical hits of 2"):
        fuse(dense, hits({}, {1: 1.0}), 0.5)
    with pytest.raises(EvaluationError, match="answers to 0 questions"):
        learn_weight(dense, lexical, judged())
    for metric in ("ndgc@10", "ndcg"):
        with pytest.raises(EvaluationError, match="Unknown metric"):
            learn_weight(dense, lexical, judged({1: 1}), metric=metric)
    for wrong in ({"dense_weight": 2}, {"fusion": "sum"}, {"depth": 0}, {"rerank_depth": 0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            StackSettings(**wrong)
