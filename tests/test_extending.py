"""A format, an adapter kind, a store, a strategy and a metric: each is one new file and one line of registration.

What the new file would hold stands here; the line is the entry in the registry that CONTRIBUTING names.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from llama_index_embft import (
    EmbeddingAdapterFinetuneEngine,
    EmbeddingQAFinetuneDataset,
    evaluate_embed_model,
    load_embed_model,
    mine_hard_negatives,
    read_dataset,
    stamp_index,
    write_dataset,
)
from llama_index_embft.dataset.formats import FORMATS, Format
from llama_index_embft.dataset.sources import At
from llama_index_embft.embeddings.adapter import ADAPTER_FORMS, AdapterForm
from llama_index_embft.evaluation import METRICS, RankedHits
from llama_index_embft.index.stores import TABLES
from llama_index_embft.mining import STRATEGY_FORMS


@pytest.fixture
def dataset() -> EmbeddingQAFinetuneDataset:
    texts = [
        f"passage {n} about {word} and nothing else"
        for n, word in enumerate(["red", "blue", "green", "old", "new", "big"])
    ]
    return EmbeddingQAFinetuneDataset(
        queries={f"q{n}": f"what of {text.split()[3]}" for n, text in enumerate(texts)},
        corpus={f"d{n}": text for n, text in enumerate(texts)},
        relevant_docs={f"q{n}": [f"d{n}"] for n in range(len(texts))},
    )


def test_a_format(dataset, tmp_path, monkeypatch):
    def read(source, build):
        for number, (query, passage) in enumerate(json.loads(source.read_text()), 1):
            at = At(build.source, number, "pair")
            build.link(build.add_query(query, at), build.add_document(passage, at), 1, at)
        return build.finish()

    def write(dataset, path, loss):
        del loss
        rows = [(query, dataset.corpus[dataset.relevant_docs[i][0]]) for i, query in dataset.queries.items()]
        path.write_text(json.dumps(rows))
        return len(rows)

    monkeypatch.setitem(FORMATS, "duets", Format("duets", "two texts a row", ".json", frozenset(), read, write))
    write_dataset(dataset, tmp_path / "data.json", "duets")
    again = read_dataset(tmp_path / "data.json", "duets")
    assert list(again.queries.values()) == list(dataset.queries.values())
    assert set(again.corpus.values()) == set(dataset.corpus.values())


class Scaling(nn.Module):
    """One factor a dimension."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(dim))

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        return vectors * self.factor


def test_an_adapter_kind(dataset, tiny_model_path, tmp_path, monkeypatch):
    form = AdapterForm(
        owns=lambda module: isinstance(module, Scaling),
        describe=lambda module: {"in_features": len(module.factor)},
        build=lambda config: Scaling(config["in_features"]),
        start=lambda dim, **_: Scaling(dim),
    )
    monkeypatch.setitem(ADAPTER_FORMS, "scaling", form)
    base = load_embed_model(tiny_model_path, device="cpu")
    out = tmp_path / "scaled"
    engine = EmbeddingAdapterFinetuneEngine(dataset, base, kind="scaling", epochs=2, model_output_path=str(out))
    engine.finetune()
    tuned = load_embed_model(out)
    trained = engine.get_finetuned_model().get_query_embedding("what of red")
    assert np.allclose(tuned.get_query_embedding("what of red"), trained, atol=1e-6)
    assert not np.allclose(trained, base.get_query_embedding("what of red"), atol=1e-5)


def test_a_store(tiny_model_path, monkeypatch):
    from llama_index.core import VectorStoreIndex
    from llama_index.core.schema import TextNode
    from llama_index.core.vector_stores import SimpleVectorStore

    class ShelfVectorStore(SimpleVectorStore):
        """Somebody's store; as LlamaIndex asks its stores by class, a subclass is found by its own name first."""

    monkeypatch.setitem(TABLES, "ShelfVectorStore", "llama_index_embft.index.stores.memory:SimpleTable")
    monkeypatch.delitem(TABLES, "SimpleVectorStore")
    model = load_embed_model(tiny_model_path, device="cpu")
    from llama_index.core import StorageContext

    storage = StorageContext.from_defaults(vector_store=ShelfVectorStore())
    index = VectorStoreIndex([TextNode(text="red", id_="n")], embed_model=model, storage_context=storage)
    assert stamp_index(index, model) is not None


def test_a_strategy(dataset, tiny_model_path, monkeypatch):
    from llama_index_embft.mining import RankWindow

    monkeypatch.setitem(STRATEGY_FORMS, "best:3", (r"best:(\d+)", lambda last: RankWindow(1, int(last))))
    base = load_embed_model(tiny_model_path, device="cpu")
    mined = mine_hard_negatives(dataset, base, ["best:3"], 2, seed=0, show_progress=False)
    same = mine_hard_negatives(dataset, base, ["rank:1-3"], 2, seed=0, show_progress=False)
    assert mined.negative_docs == same.negative_docs
    assert mined.negative_docs


def test_a_metric(dataset, tiny_model_path, monkeypatch):
    def best_rank(found: RankedHits, k: int | None) -> np.ndarray:
        """1 for the first place, falling evenly to 0 behind place k."""
        first = found.within(k) & (found.nth == 0)
        return found.total(first, 1.0 - found.hits.rank / float(k or 1))

    monkeypatch.setitem(METRICS, "best_rank", best_rank)
    base = load_embed_model(tiny_model_path, device="cpu")
    report = evaluate_embed_model(dataset, base, metrics=["best_rank@4", "hit_rate@4"], ks=[4], show_progress=False)
    assert 0 < report.mean("best_rank@4") <= report.mean("hit_rate@4")
