"""The inequalities behind the exact search (docs/explanation/search.md), on vectors that try to break them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from llama_index_embft.search import ExactIndex, top_k
from llama_index_embft.search.engine import _full_precision, make_plan
from llama_index_embft.search.rows import EmbeddingRows
from llama_index_embft.search.sweep import CandidatePool, LowBlock, LowQueries, SearchPlan

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "search.md"
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
LOW = [torch.float32, torch.bfloat16, torch.float16]


def vectors(kind, dim, n=256):
    """Rows that are hard in one way."""
    rng = np.random.default_rng(dim)
    plain = rng.normal(size=(n, dim))
    return {
        "random": plain,
        "narrow cone": plain * 0.02 + rng.normal(size=dim),  # all documents nearly alike
        "one copy": np.repeat(plain[:1], n, axis=0) * (1 + 1e-7 * np.arange(n)[:, None]),
        "steep": plain * 2.0 ** -rng.integers(0, 24, size=dim),  # most components vanish in half precision
        "one sign": np.abs(plain),  # rounding errors of the sum add up
        "powers": 2.0 ** rng.integers(-20, 20, size=(n, 1)) * plain,
    }[kind]


@pytest.mark.parametrize("low", LOW)
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
@pytest.mark.parametrize("kind", ["random", "narrow cone", "one copy", "steep", "one sign", "powers"])
@pytest.mark.parametrize("dim", [1, 48, 1024])
@pytest.mark.parametrize("device", DEVICES)
def test_the_error_of_a_low_score_is_within_its_bound_with_room_for_the_last_rounding(
    low, similarity, kind, dim, device
):
    place = torch.device(device)
    data = vectors(kind, dim)
    queries = EmbeddingRows(data[:64], similarity, place, "queries").take(slice(0, 64))
    corpus = EmbeddingRows(data[64:], similarity, place, "corpus")
    documents, mean = corpus.take(slice(0, corpus.n)), corpus.take(slice(0, corpus.n)).mean(dim=0)
    scale = 2.0**-corpus.exponent
    left, block = LowQueries(queries, low), LowBlock(documents, mean, scale, low)
    assert float(block.longest) < 2.01 or not (low.itemsize < 4)
    plan = SearchPlan(panel=64, height=64, width=corpus.n, capacity=144, sample=0, low=low)
    pool = CandidatePool(left, 4, plan, corpus.n)
    with _full_precision():
        found = (left.rows @ block.rows.T)[:, : corpus.n]
    # The same scores without any rounding, in the units of the low ones.
    half = low.itemsize < 4
    exponent = (
        torch.frexp(torch.linalg.vector_norm(queries, dim=1) * 1.001)[1] if half else torch.zeros(64, device=place)
    )
    unit = torch.ldexp(queries.double(), -exponent.to(torch.int32).unsqueeze(1))
    shift, factor = (mean.double(), scale) if half else (torch.zeros_like(mean).double(), 1.0)
    truth = unit @ ((documents.double() - shift) * factor).T
    score = (unit @ (documents.double() * factor).T).abs()
    error = pool._error(slice(0, 64), block).double().unsqueeze(1)
    value = found.double()
    assert ((value - truth).abs() + 2.0**-24 * score <= error + pool.unit * value.abs()).all()
    # Both directions that the look uses, for the bound at each score itself.
    pool.error[:] = error.squeeze(1).float()
    for column in range(0, corpus.n, 37):
        some = value[:, column].float()
        assert (pool._surely(slice(0, 64), some).double() <= truth[:, column] - 2.0**-24 * score[:, column]).all()
        pool.bound[:] = torch.nextafter(truth[:, column].float(), torch.full((64,), -torch.inf, device=place))
        assert (pool._reach(slice(0, 64), pool.error).double() <= value[:, column]).all()


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
@pytest.mark.parametrize("kind", ["random", "narrow cone", "one copy", "powers"])
def test_a_float64_dot_product_is_the_same_in_any_order(similarity, kind):
    rows = EmbeddingRows(vectors(kind, 300), similarity, torch.device("cpu"), "rows")
    exact = rows.take(slice(0, rows.n)).double()
    products = exact[:1] * exact
    forwards = products.cumsum(dim=1)[:, -1]
    rng = np.random.default_rng(0)
    for _ in range(5):
        shuffled = products[:, torch.from_numpy(rng.permutation(300))]
        assert torch.equal(shuffled.cumsum(dim=1)[:, -1], forwards)
        assert torch.equal(shuffled.view(len(exact), 20, 15).sum(dim=1).sum(dim=1), forwards)


@pytest.mark.parametrize("low", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("kind", ["narrow cone", "steep"])
def test_neighbours_in_the_last_bit_are_told_apart_as_a_plain_search_does(low, kind):
    data = vectors(kind, 48, n=9000).astype(np.float32)
    queries, corpus = data[:600], data[600:]
    index = ExactIndex(corpus, device="cpu", precision=low)
    left = EmbeddingRows(queries, "cosine", torch.device("cpu"), "queries")
    assert make_plan(left, index.corpus, 7, index.low, index.memory) is not None  # the look is really taken
    found = index.search(queries, 7)
    scores = index.products(queries, np.arange(len(corpus)))
    order = np.lexsort((np.broadcast_to(np.arange(len(corpus)), scores.shape), -scores), axis=1)[:, :7]
    np.testing.assert_array_equal(found.rows, order)
    np.testing.assert_array_equal(found.scores, np.take_along_axis(scores, order, axis=1))


def test_a_search_leaves_the_precision_of_later_products_to_the_caller():
    backends = torch.backends
    if not hasattr(backends, "fp32_precision"):
        pytest.skip("torch before 2.9 has one setting for all products")
    before = backends.fp32_precision
    top_k(np.ones((2, 3), dtype=np.float32), np.eye(3, dtype=np.float32), 1)
    with _full_precision():
        assert backends.cuda.matmul.fp32_precision == "ieee"
    backends.cuda.matmul.fp32_precision = "none"  # other tests may have asked for one of its own
    try:
        backends.fp32_precision = "tf32"  # as transformers does for TrainingArguments(tf32=True)
        assert backends.cuda.matmul.fp32_precision == "tf32"
        with _full_precision():
            assert backends.cuda.matmul.fp32_precision == "ieee"
        backends.fp32_precision = "ieee"
        assert backends.cuda.matmul.fp32_precision == "ieee"
    finally:
        backends.fp32_precision = before


def test_the_page_names_code_that_exists():
    import llama_index_embft.search as package

    folder = Path(package.__file__).parent
    source = "\n".join(file.read_text("utf-8") for file in folder.glob("*.py"))
    names = {
        name.rsplit(".", 1)[-1] for name in re.findall(r"`((?:[A-Z]\w+\.)?_?[A-Za-z]\w+)`", PAGE.read_text("utf-8"))
    }
    prose = {"cosine", "dot", "frexp", "sums", "u_low"}
    assert not [name for name in sorted(names - prose) if not re.search(rf"\b{name}\b", source)]
