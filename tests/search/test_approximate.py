"""Approximate search: what it finds is scored exactly, what is excluded stays out, and its recall is true."""

from __future__ import annotations

import numpy as np
import pytest

from llama_index_embft.errors import ConfigError
from llama_index_embft.search import ApproximateIndex, ExactIndex

pytest.importorskip("faiss")


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(40, 24))
    corpus = (centres[rng.integers(0, 40, 4000)] + 0.7 * rng.normal(size=(4000, 24))).astype(np.float32)
    return corpus[rng.choice(4000, 60)] + 0.3 * rng.normal(size=(60, 24)).astype(np.float32), corpus


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_scores_are_exact_and_recall_is_what_it_says(data, kind):
    queries, corpus = data
    index = ApproximateIndex(corpus, kind)
    hits = index.search(queries, 10)
    exact = ExactIndex(corpus).search(queries, 10)
    np.testing.assert_array_equal(index.scores(queries, hits.rows), hits.scores)
    assert (np.diff(hits.scores, axis=1) <= 0).all()
    shared = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(hits.rows.tolist(), exact.rows.tolist(), strict=True)])
    assert index.recall(queries, 10) == pytest.approx(shared)
    assert shared > 0.8


def test_more_effort_finds_more(data):
    queries, corpus = data
    assert ApproximateIndex(corpus, "ivf", effort=1).recall(queries, 1) < 0.95
    assert ApproximateIndex(corpus, "ivf", effort=10_000).recall(queries, 10) == 1.0


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_excluded_rows_stay_out_and_are_replaced(data, kind):
    queries, corpus = data
    index = ApproximateIndex(corpus, kind, effort=500)
    best = index.search(queries, 5).rows
    hits = index.search(queries, 5, exclude=list(best[:, :3]))
    assert not np.intersect1d(hits.rows[0], best[0, :3]).size
    np.testing.assert_array_equal(hits.rows[:, :2], best[:, 3:])
    assert (hits.rows >= 0).all()


def test_fewer_documents_than_asked_for(data):
    hits = ApproximateIndex(data[1][:3]).search(data[0], 5)
    assert (hits.rows[:, 3:] == -1).all()
    assert np.isneginf(hits.scores[:, 3:]).all()


def test_bad_input_is_named(data):
    with pytest.raises(ConfigError, match="`kind` is 'flat'; it must be one of 'hnsw', 'ivf'"):
        ApproximateIndex(data[1], "flat")
    with pytest.raises(ConfigError, match="`effort` is 0; it must be at least 1"):
        ApproximateIndex(data[1], effort=0)
    with pytest.raises(ConfigError, match="16 dimensions and `corpus` 24"):
        ApproximateIndex(data[1]).search(data[0][:, :16], 3)
