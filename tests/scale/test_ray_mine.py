"""Mining with the corpus in parts: the identical data set, whatever the parts, and with a worker lost."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest

pytest.importorskip("ray")

from scale_models import HashEmbedding, MakeHashEmbedding

from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
from llama_index_embft.errors import ConfigError, OutputError
from llama_index_embft.mining import MiningSettings, mine_hard_negatives as mine_alone
from llama_index_embft.scale.ray import MiningWorkers, mine_hard_negatives
from llama_index_embft.scale.ray.index import CorpusPart, PartSettings, ShardedIndex
from llama_index_embft.search import ExactIndex, descending

pytestmark = pytest.mark.e2e


def make(n_queries: int = 30, n_docs: int = 90):
    """Query i is answered by document i; every vector occurs three times, so that ties are everywhere."""
    rng = np.random.default_rng(0)
    words = [f"w{n}" for n in range(400)]
    dataset = EmbeddingQAFinetuneDataset(
        queries={f"q{i}": "which " + " ".join(rng.choice(words, 6)) for i in range(n_queries)},
        corpus={f"d{i * 7919 % 1000}": f"{i} " + " ".join(rng.choice(words, 12)) for i in range(n_docs)},
        relevant_docs={f"q{i}": [f"d{i * 7919 % 1000}"] for i in range(n_queries)},
    )
    corpus = np.tile(rng.integers(-3, 4, size=(n_docs // 3, 8)) + 0.5, (3, 1)).astype(np.float32)
    queries = (corpus[:n_queries] + rng.integers(-1, 2, size=(n_queries, 8))).astype(np.float32)
    return dataset, (queries, corpus)


def test_the_identical_data_set(cluster):
    dataset, vectors = make()
    for strategies in (
        ("rank:1-100", "margin:0.95"),
        ("rank:2-20:random", "score:-0.5-0.9", "random", "least-similar"),
    ):
        alone = mine_alone(dataset, vectors, strategies, 5, settings=MiningSettings(pad=True))
        for parts in (1, 3):
            workers = MiningWorkers(parts=parts)
            found = mine_hard_negatives(
                dataset, vectors, strategies, 5, settings=MiningSettings(pad=True), workers=workers
            )
            assert found == alone
            assert found.report.headline() == alone.report.headline()
            np.testing.assert_array_equal(found.report.negative_scores, alone.report.negative_scores)


def test_faiss_in_parts_says_its_recall(cluster):
    pytest.importorskip("faiss")
    dataset, vectors = make()
    found = mine_hard_negatives(
        dataset, vectors, "rank:1-10", 5, settings=MiningSettings(search="hnsw"), workers=MiningWorkers(parts=2)
    )
    assert "Approximate search (hnsw, 2 parts) finds 100.0% of the exact 10 best documents." in found.report.notes
    assert found == mine_alone(dataset, vectors, "rank:1-10", 5)  # with as little to find as here


def test_a_lost_worker_is_replaced(cluster):
    import ray

    _, (queries, corpus) = make()
    ids = [f"d{n}" for n in range(len(corpus))]
    alone = ExactIndex(corpus, tie_order=descending(ids)).search(queries, 20)
    parts = [CorpusPart(low, ids[low : low + 30], ray.put(corpus[low : low + 30])) for low in (0, 30, 60)]
    index = ShardedIndex(parts, PartSettings("exact", "cosine", 64 << 20, "cpu"))
    try:
        pid = ray.get(index._actors[1].__ray_call__.remote(lambda _: os.getpid()))
        os.kill(pid, signal.SIGKILL)
        found = index.search(queries, 20)
        np.testing.assert_array_equal(found.rows, alone.rows)
        np.testing.assert_array_equal(found.scores, alone.scores)
    finally:
        index.close()


def test_from_the_model_on_and_again(cluster, tmp_path):
    dataset, _ = make()
    log = tmp_path / "log"
    log.mkdir()
    model = MakeHashEmbedding(log=str(log))
    options = {"work_path": tmp_path / "work", "workers": MiningWorkers(rows_per_shard=20, parts=2)}
    found = mine_hard_negatives(dataset, model, num_negatives=3, **options)
    assert found == mine_alone(dataset, HashEmbedding(model_name="hash"), num_negatives=3)
    embedded = {file.name: file.read_text() for file in log.iterdir()}
    assert len(embedded) == 120
    assert mine_hard_negatives(dataset, model, num_negatives=3, **options) == found
    assert {file.name: file.read_text() for file in log.iterdir()} == embedded
    other = dataset.model_copy(update={"queries": {**dataset.queries, "q0": "another question"}})
    with pytest.raises(OutputError, match="embeddings of another job"):
        mine_hard_negatives(other, model, num_negatives=3, **options)


def test_bad_vectors_and_arguments(cluster):
    dataset, (queries, corpus) = make()
    broken = corpus.copy()
    broken[70, 2] = np.nan
    with pytest.raises(ConfigError, match=r"Rows 45 to 89 of the corpus: .* NaN or infinity in 1 of 45 rows"):
        mine_hard_negatives(dataset, (queries, broken), workers=MiningWorkers(parts=2))
    with pytest.raises(ConfigError, match="`queries` have 7 dimensions and `corpus` 8"):
        mine_hard_negatives(dataset, (queries[:, :7], corpus), workers=MiningWorkers(parts=1))
    with pytest.raises(ConfigError, match="Give a `work_path` for the embeddings"):
        mine_hard_negatives(dataset, "model")
    with pytest.raises(ConfigError, match="`parts` is 0; it must be at least 1"):
        mine_hard_negatives(dataset, (queries, corpus), workers=MiningWorkers(parts=0))
