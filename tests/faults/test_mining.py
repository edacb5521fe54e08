"""Faults of mining and search that were found by using the package: the right value of each."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
from llama_index_embft.errors import ConfigError
from llama_index_embft.mining import CrossEncoder, mine_hard_negatives
from llama_index_embft.search import top_k


def symmetric(n=12):
    """Every query is a document too, and its answer is another document; vectors as a model would give them."""
    rng = np.random.default_rng(0)
    queries = {f"q{i}": f"how do i repair part {i} of the engine" for i in range(n)}
    corpus = {f"p{i}": f"mending of component number {i * 7919} is described here" for i in range(n)}
    corpus |= {f"own{i}": f"How do I repair part {i} of the engine?" for i in range(n)}
    dataset = EmbeddingQAFinetuneDataset(
        queries=queries, corpus=corpus, relevant_docs={f"q{i}": [f"p{i}"] for i in range(n)}
    )
    base = rng.normal(size=(n, 16))
    return dataset, (base, np.concatenate([base + rng.normal(size=(n, 16)), base]))


@pytest.mark.parametrize(
    "strategy", [["rank:1-10"], "random", ["bm25:9"], ("rank:1-100", "margin:0.95"), ["least-similar"], ["score:-1-1"]]
)
def test_a14_a_querys_own_text_is_no_negative(strategy):
    dataset, vectors = symmetric()
    mined = mine_hard_negatives(dataset, vectors, strategy, 3)
    itself = [query for query, docs in mined.negative_docs.items() if f"own{query[1:]}" in docs]
    assert itself == []
    assert mined.report.forbidden["the query's own text"] == 12


class _Reranker:
    def predict(self, pairs, batch_size, show_progress_bar):
        return np.array([float(len(text) % 7) - 10 * ("part" in text) for _, text in pairs])


def test_d14_what_mining_writes_holds_the_scores_that_training_reads(tmp_path):
    dataset, vectors = symmetric()
    mined = mine_hard_negatives(dataset, vectors, ["rank:1-9", CrossEncoder(_Reranker(), cache=None)], 2)
    mined.save_json(tmp_path / "mined.json")
    read = EmbeddingQAFinetuneDataset.from_json(tmp_path / "mined.json")
    for query, negatives in read.negative_docs.items():
        assert {*negatives, *read.relevant_docs[query]} <= read.teacher_scores[query].keys()
    assert read.provenance.parent == dataset.content_hash()


def test_d13_a_search_does_not_hide_tf32_that_is_asked_for_later():
    backends = torch.backends
    if not hasattr(backends, "fp32_precision"):
        pytest.skip("torch before 2.9 has one setting for all products")
    before, own = backends.fp32_precision, backends.cuda.matmul.fp32_precision
    backends.cuda.matmul.fp32_precision = "none"  # as in a fresh process
    try:
        rng = np.random.default_rng(0)
        top_k(rng.normal(size=(600, 8)), rng.normal(size=(8000, 8)), 3)
        backends.fp32_precision = "tf32"  # as transformers does for TrainingArguments(tf32=True)
        assert backends.cuda.matmul.fp32_precision == "tf32"
    finally:
        backends.fp32_precision, backends.cuda.matmul.fp32_precision = before, own


def test_e13_a_negative_seed_is_one_sentence(tmp_path):
    dataset, vectors = symmetric()
    with pytest.raises(ConfigError, match="`seed` is -1; it must be at least 0"):
        mine_hard_negatives(dataset, vectors, "random", 3, seed=-1)
    from llama_index_embft.cli.app import app

    dataset.save_json(tmp_path / "data.json")
    for command in (["mine", str(tmp_path / "data.json"), "--embed-model", "m"], ["run", str(tmp_path)], ["demo"]):
        result = CliRunner().invoke(app, [*command, "--seed", "-1"])
        assert result.exit_code == 2
        assert isinstance(result.exception, SystemExit)
