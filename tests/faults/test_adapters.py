"""Adapters, moved documents and drift maps: each fault that was found, and the right value in its place."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from llama_index.core.base.embeddings.base import BaseEmbedding

from llama_index_embft import EmbeddingQAFinetuneDataset
from llama_index_embft.embeddings import (
    AdapterEmbedding,
    AdapterEmbeddingModel,
    DriftEmbedding,
    ModelIdentity,
    NudgedEmbedding,
    load_embed_model,
)
from llama_index_embft.errors import ConfigError, ModelError
from llama_index_embft.finetune import DriftAdapter, EmbeddingAdapterFinetuneEngine, NudgeFinetuneEngine
from llama_index_embft.finetune.adapter.data import VectorValidation, in_search_order

DIM = 8


class UnknownEmbedding(BaseEmbedding):
    """A class that is not known: nothing says what decides its vectors."""

    def _get_text_embedding(self, text: str) -> list[float]:
        seed = sum(ord(letter) * 31**place for place, letter in enumerate(f"{self.model_name} {text}")) % 2**32
        vector = np.random.default_rng(seed).normal(size=DIM)
        return (vector / np.linalg.norm(vector)).tolist()

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


def data(n: int = 12) -> EmbeddingQAFinetuneDataset:
    return EmbeddingQAFinetuneDataset(
        queries={f"{form}{i}": f"{form} {i}" for i in range(n) for form in "ab"},
        corpus={f"d{i}": f"document {i}" for i in range(n)},
        relevant_docs={f"{form}{i}": [f"d{i}"] for i in range(n) for form in "ab"},
    )


# --- A4: over a class that is not known -------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["adapter", "nudge"])
def test_a4_over_a_model_without_an_identity_only_by_force(tmp_path, what) -> None:
    mine, folder = UnknownEmbedding(model_name="mine"), tmp_path / "r"
    options = {"model_output_path": str(folder), "cache": None, "device": "cpu"}
    if what == "adapter":
        engine = EmbeddingAdapterFinetuneEngine(data(), mine, epochs=1, **options)
        wrapper = AdapterEmbedding
    else:
        engine = NudgeFinetuneEngine(data(), mine, **options)
        wrapper = NudgedEmbedding
    engine.finetune()
    assert isinstance(engine.get_finetuned_model(), wrapper)  # over the very model that it was made on
    for base in (mine, UnknownEmbedding(model_name="another")):
        with pytest.raises(ModelError, match="pass force=True"):
            load_embed_model(folder, base_embed_model=base)
        with pytest.raises(ModelError, match="pass force=True"):
            wrapper(base, folder)
    assert load_embed_model(folder, base_embed_model=mine, force=True).get_query_embedding("a 1")


# --- A6: half precision -----------------------------------------------------------------------------------------------


def test_a6_a_frozen_base_stays_what_it_is_and_the_record_says_so(tiny_model_path, tmp_path) -> None:
    from sentence_transformers import SentenceTransformer

    SentenceTransformer(tiny_model_path, device="cpu").half().save_pretrained(str(tmp_path / "half"))
    base = load_embed_model(tmp_path / "half", device="cpu")
    out = tmp_path / "a"
    options = {"val_dataset": data(4), "epochs": 2, "learning_rate": 1e-3, "cache": None, "device": "cpu"}
    engine = EmbeddingAdapterFinetuneEngine(data(), base, model_output_path=str(out), **options)
    result = engine.finetune()
    assert all(np.isfinite(entry["ndcg@10"]) for entry in result.history)
    tuned = load_embed_model(out, device="cpu")  # the base is loaded as it was, so it is not refused
    assert {parameter.dtype for parameter in tuned.adapter.parameters()} == {torch.float32}
    held = {str(p.dtype).removeprefix("torch.") for p in base._model.parameters()}
    assert {json.loads((out / "embft.json").read_text())["base_precision"]} == held
    assert tuned.get_query_embedding("a 1") == pytest.approx(engine.get_finetuned_model().get_query_embedding("a 1"))


# --- D6: the stock package's arguments --------------------------------------------------------------------------------


def test_d6_the_tuned_model_takes_the_stock_arguments(tmp_path) -> None:
    from llama_index.embeddings.adapter.utils import LinearLayer, TwoLayerNN

    base = UnknownEmbedding(model_name="mine")
    options = {"epochs": 1, "cache": None, "device": "cpu"}
    two = EmbeddingAdapterFinetuneEngine(
        data(), base, adapter_model=TwoLayerNN(DIM, 16, DIM, bias=True, add_residual=True),
        model_output_path=str(tmp_path / "two"), **options,
    )  # fmt: skip
    two.finetune()
    expected = two.get_finetuned_model().get_query_embedding("a 1")
    assert two.get_finetuned_model(adapter_cls=TwoLayerNN).get_query_embedding("a 1") == pytest.approx(expected)
    with pytest.raises(ConfigError, match="`adapter_cls` is LinearLayer"):
        two.get_finetuned_model(adapter_cls=LinearLayer)
    one = EmbeddingAdapterFinetuneEngine(data(), base, model_output_path=str(tmp_path / "one"), **options)
    one.finetune()
    tuned = one.get_finetuned_model(adapter_cls=LinearLayer, embed_batch_size=3)
    assert tuned.embed_batch_size == 3
    plain = one.get_finetuned_model(transform_query=False)
    assert plain.get_query_embedding("a 1") == base.get_query_embedding("a 1")
    with pytest.raises(ConfigError, match="`nonsense` is not an argument"):
        one.get_finetuned_model(nonsense=1)
    again = EmbeddingAdapterFinetuneEngine.from_model_path(
        data(), base, str(tmp_path / "two"), adapter_model=TwoLayerNN(DIM, 16, DIM, bias=True, add_residual=True),
        model_output_path=str(tmp_path / "again"), **options,
    )  # fmt: skip
    again.finetune()


def test_d6_a_class_that_is_given_is_used_or_refused(tmp_path, tiny_model_path) -> None:
    """As the stock package does: the class is built from ``config.json``, and its weights are read."""
    from llama_index.embeddings.adapter.utils import BaseAdapter, LinearLayer, TwoLayerNN

    class Scaled(BaseAdapter):
        def __init__(self, size: int) -> None:
            super().__init__()
            self.size, self.factor = size, torch.nn.Parameter(torch.ones(size))

        def get_config_dict(self) -> dict:
            return {"size": self.size}

        def forward(self, embed: torch.Tensor) -> torch.Tensor:
            return embed * self.factor

    base = load_embed_model(tiny_model_path, device="cpu")
    plain = np.array(base.get_query_embedding("a 1"))
    scaled = Scaled(32)
    with torch.no_grad():
        scaled.factor.copy_(torch.arange(32.0))
    scaled.save(str(tmp_path / "s"))
    for given in (Scaled, Scaled(32)):
        model = AdapterEmbeddingModel(base, str(tmp_path / "s"), given, device="cpu")
        assert model.get_query_embedding("a 1") == pytest.approx(plain * np.arange(32.0), abs=1e-6)
    with pytest.raises(ConfigError, match="pass an instance"):
        AdapterEmbeddingModel(base, str(tmp_path / "s"))
    TwoLayerNN(32, 8, 32, bias=True, add_residual=True).save(str(tmp_path / "two"))
    AdapterEmbeddingModel(base, str(tmp_path / "two"), TwoLayerNN)
    for wrong in (LinearLayer, Scaled):
        with pytest.raises(ConfigError, match=f"`adapter_cls` is {wrong.__name__}"):
            AdapterEmbeddingModel(base, str(tmp_path / "two"), wrong)


def test_a4_what_does_not_name_its_base_is_refused_over_a_known_model(tmp_path, tiny_model_path) -> None:
    mine, known = UnknownEmbedding(model_name="mine"), load_embed_model(tiny_model_path, device="cpu")
    options = {"model_output_path": str(tmp_path / "r"), "cache": None, "device": "cpu", "epochs": 1}
    EmbeddingAdapterFinetuneEngine(data(), mine, **options).finetune()
    with pytest.raises(ModelError, match=r"does not say which model it was made on.*force=True"):
        load_embed_model(tmp_path / "r", base_embed_model=known)
    NudgeFinetuneEngine(data(), mine, model_output_path=str(tmp_path / "n"), cache=None).finetune()
    with pytest.raises(ModelError, match=r"does not say which model it was made on.*force=True"):
        load_embed_model(tmp_path / "n", base_embed_model=known)


# --- D9: validation ---------------------------------------------------------------------------------------------------


def test_d9_documents_that_stay_are_made_ready_once(monkeypatch) -> None:
    from llama_index_embft.search import rows

    made = []
    whole = rows.EmbeddingRows.__init__

    def counted(self, vectors, metric, device, name) -> None:
        made.append((name, len(vectors)))
        whole(self, vectors, metric, device, name)

    monkeypatch.setattr(rows.EmbeddingRows, "__init__", counted)
    dataset = data()
    model = UnknownEmbedding(model_name="mine")
    queries = np.array([model.get_query_embedding(text) for text in dataset.queries.values()], dtype=np.float32)
    texts = [dataset.corpus[doc_id] for doc_id in in_search_order(dataset)]
    documents = np.array(model.get_text_embedding_batch(texts), dtype=np.float32)
    validation = VectorValidation(dataset, queries, documents)
    identity = torch.nn.Linear(DIM, DIM, bias=False)
    with torch.no_grad():
        identity.weight.copy_(torch.eye(DIM))
    assert [validation(identity) for _ in range(5)] == [validation.base()] * 5
    assert [n for name, n in made if name == "corpus"] == [len(documents)]


# --- E14: NaN ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_e14_weights_that_are_no_numbers_are_refused(tmp_path, value) -> None:
    from safetensors.numpy import load_file, save_file

    base = UnknownEmbedding(model_name="mine")
    options = {"cache": None, "device": "cpu"}
    EmbeddingAdapterFinetuneEngine(data(), base, epochs=1, model_output_path=str(tmp_path / "a"), **options).finetune()
    NudgeFinetuneEngine(data(), base, model_output_path=str(tmp_path / "n"), **options).finetune()
    old, new = TwoModels().vectors(60)
    DriftAdapter.fit(
        old, new, [str(i) for i in range(60)], kind="procrustes", old_identity=ModelIdentity("f" * 32, "old")
    ).save(tmp_path / "d")
    for folder, load in (("a", AdapterEmbedding), ("n", NudgedEmbedding), ("d", DriftEmbedding)):
        [file] = (tmp_path / folder).glob("*.safetensors")
        tensors = load_file(str(file))
        name = next(iter(tensors))
        if not tensors[name].size:
            continue
        tensors[name].flat[0] = value
        save_file(tensors, str(file))
        with pytest.raises(ModelError, match=re.compile("NaN|infin", re.IGNORECASE)):
            load(base, tmp_path / folder, force=True)
    assert json.loads((tmp_path / "a" / "embft.json").read_text())["kind"] == "adapter"


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


class TwoModels:
    """Two models' vectors of the same texts: shared meaning, each with a noise of its own."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng(0)
        self._maps = [self._rng.standard_normal((16, 48)) for _ in range(2)]

    def vectors(self, n: int) -> list[np.ndarray]:
        meaning = self._rng.standard_normal((n, 16))
        return [unit(meaning @ m + 1.2 * self._rng.standard_normal((n, 48))) for m in self._maps]


@pytest.mark.parametrize("size", [500])
def test_a15_the_drift_report_promises_what_the_whole_index_keeps(size) -> None:
    models = TwoModels()
    old, new = models.vectors(size)
    everything = models.vectors(20_000)
    drift = DriftAdapter.fit(old, new, [str(i) for i in range(size)], kind="low-rank", index_size=20_000)
    score = drift.report.chosen
    assert drift.report.documents == 2 * (size // 5)  # and none of them was fitted on
    queries = models.vectors(200)[1]
    assert score.kept == pytest.approx(
        drift.kept_over(queries, old[: 2 * (size // 5)], new[: 2 * (size // 5)]), abs=0.1
    )
    true = drift.kept_over(queries, *everything)
    assert score.kept > true + 0.1  # over the sample it looks better
    assert score.kept_in_index == pytest.approx(true, abs=0.07)
    low, high = score.kept_in_index_ci95
    assert low < true < high
    assert f"over the 20,000 documents of the index expect {score.kept_in_index:.1%}" in str(drift.report)


def test_a15_without_the_size_of_the_index_the_report_says_that_it_promises_nothing() -> None:
    old, new = TwoModels().vectors(300)
    texts = [str(i) for i in range(300)]
    said = str(DriftAdapter.fit(old, new, texts, kind="procrustes").report)
    assert "over unseen 120 documents of the sample" in said
    assert "pass index_size" in said
    report = DriftAdapter.fit(old, new, texts, kind="procrustes", index_size=300).report
    assert report.documents == 300
    assert report.chosen.kept_in_index == report.chosen.kept
