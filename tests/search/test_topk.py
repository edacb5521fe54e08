"""The search's contract: exact, the same on every device and in any blocks, ties by row, exclusions inside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from llama_index_embft.errors import ConfigError
from llama_index_embft.search import ExactIndex, descending, top_k

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def reference(queries, corpus, k, similarity="cosine", exclude=None):
    """Brute force in float64."""
    queries, corpus = np.asarray(queries, dtype=np.float64), np.asarray(corpus, dtype=np.float64)
    if similarity == "cosine":
        queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
        corpus = corpus / np.linalg.norm(corpus, axis=1, keepdims=True)
    scores = queries @ corpus.T
    for line, rows in enumerate(exclude or []):
        scores[line, rows] = -np.inf
    rows = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return rows, np.take_along_axis(scores, rows, axis=1), scores


def assert_same(hits, queries, corpus, k, similarity="cosine", exclude=None, tolerance=1e-6):
    """Same hits as the reference, but for documents whose scores are within the tolerance."""
    rows, best, every = reference(queries, corpus, k, similarity, exclude)
    np.testing.assert_allclose(hits.scores, best, atol=tolerance)
    lines, places = np.nonzero(hits.rows != rows)
    gap = np.abs(every[lines, hits.rows[lines, places]] - every[lines, rows[lines, places]])
    assert (gap <= tolerance).all()
    assert all(len(set(line)) == len(line) for line in hits.rows.tolist())


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(137, 48)).astype(np.float32), rng.normal(size=(3001, 48)).astype(np.float32)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
@pytest.mark.parametrize("k", [1, 10, 210])
def test_finds_what_brute_force_in_float64_finds(data, device, similarity, k):
    queries, corpus = data
    hits = top_k(queries, corpus, k, similarity=similarity, device=device)
    assert hits.rows.shape == hits.scores.shape == (137, k)
    assert hits.rows.dtype == np.int64
    assert hits.scores.dtype == np.float32
    assert_same(hits, queries, corpus, k, similarity, tolerance=1e-6 if similarity == "cosine" else 1e-4)


@pytest.mark.parametrize("device", DEVICES)
def test_equal_scores_keep_corpus_order(device):
    corpus = np.tile(np.array([[0.6, 0.8], [1.0, 0.0]], dtype=np.float32), (50, 1))
    hits = top_k(np.array([[1.0, 0.0]], dtype=np.float32), corpus, 60, device=device)
    assert hits.rows[0].tolist() == [*range(1, 100, 2), *range(0, 20, 2)]


@pytest.mark.parametrize("device", DEVICES)
def test_excluded_rows_never_come_back_and_leave_a_gap_only_when_too_few_are_left(data, device):
    queries, corpus = data
    first = top_k(queries, corpus, 5, device=device)
    exclude = [rows[: line % 4] for line, rows in enumerate(first.rows)]
    assert_same(top_k(queries, corpus, 5, exclude=exclude, device=device), queries, corpus, 5, exclude=exclude)
    few = top_k(queries[:1], corpus[:4], 4, exclude=[np.array([0, 3])], device=device)
    assert sorted(few.rows[0].tolist()) == [-1, -1, 1, 2]
    assert few.rows[0, 2:].tolist() == [-1, -1]
    assert np.isneginf(few.scores[0, 2:]).all()


def test_k_above_the_corpus_pads_with_minus_one(data):
    hits = top_k(data[0], data[1][:3], 5)
    assert (hits.rows[:, 3:] == -1).all()
    assert (hits.rows[:, :3] >= 0).all()


def test_a_memory_mapped_corpus_gives_the_same(data, tmp_path: Path):
    queries, corpus = data
    np.save(tmp_path / "corpus.npy", corpus)
    mapped = np.load(tmp_path / "corpus.npy", mmap_mode="r")
    for first, second in zip(top_k(queries, mapped, 7), top_k(queries, corpus, 7), strict=True):
        np.testing.assert_array_equal(first, second)


def test_torch_tensors_of_half_width_are_taken(data):
    queries, corpus = (torch.from_numpy(x).to(torch.float16) for x in data)
    assert_same(top_k(queries, corpus, 3), queries.numpy(), corpus.numpy(), 3)


def test_ids_come_back_in_trec_evals_order():
    corpus = np.array([[1, 0], [1, 0], [0, 1], [1, 0]], dtype=np.float32)
    ids = ["d1", "d10", "d2", "d9"]
    hits = ExactIndex(corpus, tie_order=descending(ids)).search(corpus[:1], 4, exclude=[np.array([3])])
    assert [ids[row] for row in hits.rows[0] if row >= 0] == ["d10", "d1", "d2"]


@pytest.mark.parametrize(
    ("queries", "corpus", "k", "options", "message"),
    [
        (np.ones((2, 3)), np.ones((2, 4)), 1, {}, "3 dimensions and `corpus` 4"),
        (np.ones(3), np.ones((2, 3)), 1, {}, "`queries` must be a matrix"),
        (np.ones((2, 3)), np.array([[1.0, 1, 1], [1, np.nan, 1]]), 1, {}, "NaN or infinity in 1 of 2 rows.*row 1"),
        (np.array([[1.0, np.inf, 1]]), np.ones((2, 3)), 1, {}, "`queries` holds NaN or infinity"),
        (np.ones((2, 3)), np.ones((2, 3)), 0, {}, "`k` is 0; it must be at least 1"),
        (
            np.ones((2, 3)),
            np.ones((2, 3)),
            1,
            {"similarity": "l2"},
            "`similarity` is 'l2'; it must be one of 'cosine', 'dot'",
        ),
        (np.ones((1, 3)), np.ones((2, 3)), 1, {"exclude": [np.array([2])]}, "names row 2; corpus has 2"),
        (np.ones((1, 3)), np.ones((2, 3)), 1, {"exclude": []}, "0 arrays, 1 queries"),
        (np.ones((1, 3)), np.ones((2, 3)), 1, {"device": ""}, "`device` is '', which torch cannot use here"),
        (np.ones((1, 3)), np.ones((2, 3)), 1, {"device": "cuda:99"}, "`device` is 'cuda:99', which torch cannot use"),
    ],
)
def test_bad_input_is_named(queries, corpus, k, options, message):
    with pytest.raises(ConfigError, match=message):
        top_k(queries, corpus, k, **options)


def test_rows_of_zeros_score_zero_with_a_counted_warning():
    corpus = np.array([[0, 0], [1, 0], [-1, 0]], dtype=np.float32)
    with pytest.warns(UserWarning, match="`corpus`: 1 of 3 rows are all zeros"):
        hits = top_k(np.array([[1, 0]], dtype=np.float32), corpus, 3)
    assert hits.rows[0].tolist() == [1, 0, 2]
    assert hits.scores[0].tolist() == [1.0, 0.0, -1.0]


@pytest.mark.parametrize("device", DEVICES)
def test_an_index_scores_chosen_pairs_as_it_searches(data, device):
    queries, corpus = data
    index = ExactIndex(corpus, device=device)
    hits = index.search(queries, 9)
    np.testing.assert_array_equal(index.scores(queries, hits.rows), hits.scores)
    some = np.array([[-1, 4]])
    assert np.isneginf(index.scores(queries[:1], some)[0, 0])
    with pytest.raises(ConfigError, match="outside the corpus, which has 3001"):
        index.scores(queries[:1], np.array([[3001]]))
    with pytest.raises(ConfigError, match=r"shape \(n_queries, m\)"):
        index.scores(queries[:1], np.array([[0], [1]]))


def test_an_index_refuses_options_that_do_not_exist(data):
    with pytest.raises(ConfigError, match="'float8'"):
        ExactIndex(data[1], precision="float8")
    with pytest.raises(ConfigError, match="`memory` is 512; it must be at least 1048576: it is in bytes"):
        ExactIndex(data[1], memory=512)


@pytest.mark.parametrize("low", ["float32", "bfloat16"])
@pytest.mark.parametrize("device", DEVICES)
def test_ties_go_to_whoever_the_order_names_first(low, device):
    rng = np.random.default_rng(0)
    corpus = np.repeat(rng.normal(size=(3000, 8)), 3, axis=0).astype(np.float32)
    queries = rng.normal(size=(600, 8)).astype(np.float32)
    order = rng.permutation(9000)
    hits = ExactIndex(corpus, precision=low, device=device, tie_order=order).search(queries, 7)
    shuffled = top_k(queries, corpus[order], 7, device="cpu")
    np.testing.assert_array_equal(hits.rows, order[shuffled.rows])
    np.testing.assert_array_equal(hits.scores, shuffled.scores)
    with pytest.raises(ConfigError, match="each of the 9000 row numbers once"):
        ExactIndex(corpus, tie_order=order[1:])
