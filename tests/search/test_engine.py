"""The fast path gives what the plain path gives, whatever the sizes, the precision and the data."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from llama_index_embft.search import top_k
from llama_index_embft.search.engine import ExclusionMask, make_plan, search
from llama_index_embft.search.rows import EmbeddingRows
from llama_index_embft.search.sweep import SearchPlan

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
LOW = [torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture(params=DEVICES)
def device(request):
    return request.param


def unit(rng, n, dim, shift=0.0):
    rows = rng.normal(size=(n, dim)) + shift
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def plan(low, *, panel=64, height=32, width=256, capacity=96, sample=0):
    return SearchPlan(panel=panel, height=height, width=width, capacity=capacity, sample=sample, low=low)


def both(device, queries, corpus, k, plan, *, similarity="cosine", exclude=None):
    """Results of the fast path and of the plain one."""
    place = torch.device(device)
    left, right = (
        EmbeddingRows(queries, similarity, place, "queries"),
        EmbeddingRows(corpus, similarity, place, "corpus"),
    )
    exclude = exclude or [[] for _ in range(left.n)]
    owners = np.repeat(np.arange(left.n), [len(rows) for rows in exclude])
    excluded = ExclusionMask(owners, np.array([row for rows in exclude for row in rows], dtype=np.int64))
    return search(left, right, k, excluded, plan), search(left, right, k, excluded, None)


def assert_equal(results):
    fast, plain = results
    torch.testing.assert_close(fast[0], plain[0], rtol=0, atol=0)
    torch.testing.assert_close(fast[1], plain[1], rtol=0, atol=0)


@pytest.mark.parametrize("low", LOW)
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
@pytest.mark.parametrize("sizes", [{}, {"height": 50, "width": 208}, {"panel": 200, "width": 1024}, {"sample": 400}])
def test_every_size_and_precision_gives_the_same_bits(device, low, similarity, sizes):
    rng = np.random.default_rng(1)
    queries, corpus = rng.normal(size=(130, 24)), rng.normal(size=(2113, 24)) * rng.uniform(0.1, 30, size=(2113, 1))
    exclude = [rng.integers(0, 2113, size=line % 5) for line in range(130)]
    assert_equal(both(device, queries, corpus, 11, plan(low, **sizes), similarity=similarity, exclude=exclude))


@pytest.mark.parametrize("low", LOW)
@pytest.mark.parametrize("shift", [0.0, 0.5, 3.0])
def test_embeddings_that_point_one_way_stay_exact(device, low, shift):
    rng = np.random.default_rng(2)
    assert_equal(
        both(device, unit(rng, 70, 64, shift), unit(rng, 5000, 64, shift), 20, plan(low, capacity=256, sample=512))
    )


@pytest.mark.parametrize("low", LOW)
def test_more_equal_documents_than_there_is_space_for(device, low):
    rng = np.random.default_rng(3)
    corpus = np.repeat(unit(rng, 20, 16), 100, axis=0)
    assert_equal(both(device, unit(rng, 40, 16), corpus, 30, plan(low, capacity=64)))


@pytest.mark.parametrize("low", LOW)
def test_scores_below_zero_and_rows_of_zeros(device, low):
    rng = np.random.default_rng(4)
    corpus = -np.abs(rng.normal(size=(1500, 16))).astype(np.float32)
    corpus[::97] = 0
    queries = np.abs(rng.normal(size=(33, 16))).astype(np.float32)
    queries[5] = 0
    with pytest.warns(UserWarning, match="all zeros"):
        assert_equal(both(device, queries, corpus, 12, plan(low)))


@pytest.mark.parametrize("low", LOW)
def test_a_guessed_floor_that_is_too_high_is_noticed(device, low):
    # The excluded rows count in the sample, but not in the result.
    rng = np.random.default_rng(5)
    queries, corpus = unit(rng, 20, 16), unit(rng, 2000, 16)
    best = top_k(queries, corpus, 300).rows
    assert_equal(both(device, queries, corpus, 8, plan(low, sample=64), exclude=list(best)))


@pytest.mark.parametrize("low", LOW)
def test_when_nearly_everything_is_excluded_the_rest_is_empty(device, low):
    rng = np.random.default_rng(6)
    queries, corpus = unit(rng, 5, 16), unit(rng, 1000, 16)
    results = both(device, queries, corpus, 8, plan(low, sample=64), exclude=[np.arange(2, 1000)] * 5)
    assert_equal(results)
    assert (results[0][0][:, 2:] == -1).all()


def test_order_of_the_corpus_does_not_matter_to_the_bound(device):
    """Scores that rise along the corpus let every block through; the pool must be squeezed again and again."""
    rng = np.random.default_rng(7)
    queries, corpus = unit(rng, 16, 8), unit(rng, 4000, 8)
    corpus = corpus[np.argsort(corpus @ queries[0])]
    assert_equal(both(device, queries, corpus, 10, plan(torch.bfloat16, width=64, capacity=48)))


def test_the_whole_search_is_the_same_at_every_precision_and_memory(device):
    rng = np.random.default_rng(8)
    queries, corpus = unit(rng, 150, 32), unit(rng, 34_000, 32)
    expected = top_k(queries, corpus, 15, precision="float32", device="cpu")
    scores = queries.astype(np.float64) @ corpus.astype(np.float64).T
    np.testing.assert_allclose(expected.scores, -np.sort(-scores, axis=1)[:, :15], atol=1e-6)
    for options in ({"precision": "bfloat16"}, {"precision": "float16"}, {"memory": 4 << 20}):
        for first, second in zip(top_k(queries, corpus, 15, device=device, **options), expected, strict=True):
            np.testing.assert_array_equal(first, second)


def test_precision_settings_of_the_caller_are_put_back():
    torch.set_float32_matmul_precision("medium")
    try:
        rng = np.random.default_rng(9)
        queries, corpus = unit(rng, 200, 32), unit(rng, 30_000, 32)
        hits = top_k(queries, corpus, 3, precision="float32")
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    np.testing.assert_array_equal(hits.rows, top_k(queries, corpus, 3).rows)


def test_small_searches_skip_the_first_look():
    rng = np.random.default_rng(10)
    place = torch.device("cpu")
    small = EmbeddingRows(unit(rng, 10, 8), "cosine", place, "queries")
    large = EmbeddingRows(unit(rng, 3000, 8), "cosine", place, "corpus")
    assert make_plan(small, small, 1, torch.float32, 1 << 29) is None
    assert make_plan(large, large, 5, torch.float32, 1 << 29) is not None
