"""The adapter engine, over a LlamaIndex embedding that nobody can see into."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from adapter_helpers import as_arguments
from llama_index.core import VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.schema import TextNode

from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
from llama_index_embft.embeddings import (
    AdapterEmbedding,
    ModelIdentity,
    apply_adapter,
    linear_adapter,
    load_embed_model,
)
from llama_index_embft.errors import ConfigError, DatasetError, ModelError, TrainingError
from llama_index_embft.finetune import EmbeddingAdapterFinetuneEngine
from llama_index_embft.finetune.adapter import AdapterOptions, AdapterSettings, train_adapter

DIM, CLASSES = 16, 40


class RotatedEmbedding(BaseEmbedding):
    """Queries live in a rotated copy of the documents' space, with noise: a linear map can learn the rotation."""

    _calls: int = PrivateAttr(default=0)

    def identity(self, side, given=None):
        """A class that knows what decides its vectors speaks for itself."""
        return ModelIdentity.of(self.model_name, type(self).__name__, self.model_name, side)

    def _vector(self, text: str) -> np.ndarray:
        return np.random.default_rng(int(text.split()[-1])).standard_normal(DIM)

    def _get_text_embedding(self, text):
        self._calls += 1
        return self._vector(text).tolist()

    def _get_query_embedding(self, query):
        self._calls += 1
        turn = np.linalg.qr(np.random.default_rng(7).standard_normal((DIM, DIM)))[0]
        noise = np.random.default_rng(abs(hash(query)) % 2**32).standard_normal(DIM) * 0.1
        return (self._vector(query) @ turn + noise).tolist()

    async def _aget_query_embedding(self, query):
        return self._get_query_embedding(query)


def dataset(form: str) -> EmbeddingQAFinetuneDataset:
    return EmbeddingQAFinetuneDataset(
        queries={f"q{i}": f"{form} {i}" for i in range(CLASSES)},
        corpus={f"d{i}": f"document {i}" for i in range(CLASSES)},
        relevant_docs={f"q{i}": [f"d{i}"] for i in range(CLASSES)},
    )


@pytest.fixture
def base():
    return RotatedEmbedding(model_name="rotated")


def engine(base, out, **options):
    options = {"epochs": 40, "batch_size": 8, "learning_rate": 2e-2, "cache": None, "device": "cpu"} | options
    return EmbeddingAdapterFinetuneEngine(dataset("train"), base, model_output_path=str(out), **as_arguments(**options))


def test_learns_what_a_linear_map_can_and_plugs_into_an_existing_index(base, tmp_path):
    tuner = engine(base, tmp_path / "a", val_dataset=dataset("val"), patience=40)
    result = tuner.finetune()
    assert result.base_score < 0.4
    assert result.best_score > 0.9
    nodes = [TextNode(id_=i, text=t) for i, t in dataset("x").corpus.items()]
    index = VectorStoreIndex(nodes, embed_model=base)
    tuned = tuner.get_finetuned_model()
    hits = index.as_retriever(similarity_top_k=1, embed_model=tuned).retrieve("new 12")
    assert hits[0].node.node_id == "d12"


def test_each_distinct_text_is_embedded_once(base, tmp_path):
    engine(base, tmp_path / "a", val_dataset=dataset("val")).finetune()
    assert base._calls <= 3 * CLASSES + CLASSES  # train and val queries, and the corpus for each side


def test_never_worse_than_the_identity_on_validation(base, tmp_path):
    result = engine(base, tmp_path / "a", val_dataset=dataset("val"), learning_rate=1e3, epochs=2).finetune()
    assert result.best_score >= result.base_score
    if result.best_step == 0:
        weights = load_embed_model(tmp_path / "a", base_embed_model=base).adapter.weight
        assert torch.equal(weights, torch.eye(DIM))


def test_sync_async_and_batch_calls_agree_and_documents_pass_through(base, tmp_path):
    tuner = engine(base, tmp_path / "a", epochs=3)
    tuner.finetune()
    model = tuner.get_finetuned_model()
    import asyncio

    sync = model.get_query_embedding("q 3")
    assert asyncio.run(model.aget_query_embedding("q 3")) == pytest.approx(sync)
    assert sync != pytest.approx(base.get_query_embedding("q 3"))
    assert model.get_text_embedding("d 3") == pytest.approx(base.get_text_embedding("d 3"))
    assert model.get_text_embedding_batch(["d 3"])[0] == pytest.approx(base.get_text_embedding("d 3"))


def test_saved_as_safetensors_and_json(base, tmp_path):
    engine(base, tmp_path / "a", epochs=1, bias=True).finetune()
    names = sorted(f.name for f in (tmp_path / "a").iterdir())
    assert names == [".embft-files.json", "adapter.safetensors", "config.json", "embft.json"]
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    assert (config["kind"], config["bias"], config["in_features"]) == ("linear", True, DIM)
    record = json.loads((tmp_path / "a" / "embft.json").read_text())
    assert record["data"]["train_queries"] == CLASSES


def test_refuses_another_base_unless_forced(base, tmp_path):
    engine(base, tmp_path / "a", epochs=1).finetune()
    other = RotatedEmbedding(model_name="other")
    with pytest.raises(ModelError, match="trained on another base model"):
        AdapterEmbedding(other, tmp_path / "a")
    assert AdapterEmbedding(other, tmp_path / "a", force=True).base_embed_model is other


def test_a_base_that_cannot_be_rebuilt_must_be_given(base, tmp_path):
    engine(base, tmp_path / "a", epochs=1).finetune()
    with pytest.raises(ModelError, match="pass it: load_embed_model"):
        load_embed_model(tmp_path / "a")


def test_damaged_weights(base, tmp_path):
    engine(base, tmp_path / "a", epochs=1).finetune()
    weights = tmp_path / "a" / "adapter.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match="cut short or belongs to another adapter"):
        load_embed_model(tmp_path / "a", base_embed_model=base)
    (tmp_path / "a" / "config.json").write_text("{")
    with pytest.raises(ModelError, match="is damaged"):
        load_embed_model(tmp_path / "a", base_embed_model=base)


def test_custom_module_trains_and_loads(base, tmp_path):
    class Residual(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = torch.nn.Linear(DIM, DIM)

        def forward(self, x):
            return x + self.inner(x)

    tuner = engine(base, tmp_path / "a", adapter_model=Residual(), epochs=2)
    tuner.finetune()
    expected = tuner.get_finetuned_model().get_query_embedding("q 1")
    again = load_embed_model(tmp_path / "a", base_embed_model=base, adapter_model=Residual())
    assert again.get_query_embedding("q 1") == pytest.approx(expected)
    with pytest.raises(ConfigError, match="a module of your own"):
        load_embed_model(tmp_path / "a", base_embed_model=base)


def test_only_documents_with_a_query_are_negatives_unless_asked_otherwise(base, tmp_path):
    """A document nobody asks about in training may be what the next user asks for: it must not be pushed away."""
    more = {f"e{i}": f"unasked {i}" for i in range(100, 110)}
    data = dataset("train")
    wide = EmbeddingQAFinetuneDataset(
        queries=data.queries, corpus={**data.corpus, **more}, relevant_docs=data.relevant_docs
    )
    embedded = {}
    for negatives in ("asked", "corpus"):
        fresh = RotatedEmbedding(model_name="rotated")
        EmbeddingAdapterFinetuneEngine(
            wide,
            fresh,
            model_output_path=str(tmp_path / negatives),
            training=AdapterSettings(negatives=negatives),
            cache=None,
            epochs=1,
        ).finetune()
        embedded[negatives] = fresh._calls
    assert embedded == {"asked": 2 * CLASSES, "corpus": 2 * CLASSES + 10}
    with pytest.raises(ConfigError, match="`negatives` is 'all'; it must be one of 'asked', 'corpus'"):
        engine(base, tmp_path / "a", negatives="all")


def test_optimizer_of_choice_is_used(base, tmp_path):
    made = []

    class Recording(torch.optim.SGD):
        def __init__(self, params, **options):
            made.append(options)
            super().__init__(params, **options)

    tuner = engine(base, tmp_path / "a", epochs=1, optimizer_class=Recording, optimizer_params={"lr": 0.5})
    tuner.finetune()
    assert made == [{"lr": 0.5}]


def test_checkpoints_are_loadable_adapters(base, tmp_path):
    engine(
        base, tmp_path / "a", epochs=2, model_checkpoint_path=str(tmp_path / "c"), checkpoint_save_steps=5
    ).finetune()
    assert sorted(f.name for f in (tmp_path / "c").iterdir()) == ["step_10", "step_5"]
    load_embed_model(tmp_path / "c" / "step_5", base_embed_model=base)
    more = EmbeddingAdapterFinetuneEngine.from_model_path(
        dataset("train"),
        base,
        str(tmp_path / "c" / "step_5"),
        model_output_path=str(tmp_path / "b"),
        epochs=1,
        cache=None,
    )
    assert more.finetune().steps == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "`epochs` is 0"),
        ({"rank": 8}, "`rank` is 8, which means nothing to kind='linear'; use kind='low-rank'"),
        ({"hidden_dim": 8, "kind": "low-rank"}, "`hidden_dim` is 8, which means nothing to kind='low-rank'"),
        ({"ridge": 0.5}, "`ridge` is 0.5, which is for start='ridge'"),
        ({"folds": 3}, "`search` .* is how kind='auto' chooses, and `kind` is 'linear'"),
        ({"temperature": -1.0}, "`temperature` is -1.0"),
        ({"optimizer_params": {"lr": 0.0}}, r"`optimizer_params\['lr'\]` is 0.0; it must be above 0"),
        ({"learning_rate": float("nan")}, "`learning_rate` is nan; it must be above 0"),
    ],
)
def test_bad_arguments(base, tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        engine(base, tmp_path / "a", **options)


def test_bad_dimension_and_empty_sets(base, tmp_path):
    with pytest.raises(ConfigError, match="`dim` is 3; it must be 16"):
        engine(base, tmp_path / "a", dim=3).finetune()
    empty = EmbeddingQAFinetuneDataset(queries={}, corpus={"a": "x 1"}, relevant_docs={})
    with pytest.raises(DatasetError, match="validation set has no query"):
        engine(base, tmp_path / "a", val_dataset=empty)
    with pytest.raises(DatasetError, match="training set has no queries"):
        EmbeddingAdapterFinetuneEngine(empty, base)
    assert not (tmp_path / "a").exists()


def how(*, epochs=3, batch_size=4, seed=0, **settings):
    options = AdapterOptions(epochs=epochs, batch_size=batch_size, learning_rate=1e-2, seed=seed)
    return options, AdapterSettings(**({"temperature": 0.05} | settings))


def test_other_positives_and_their_duplicates_are_not_negatives():
    """The query's second positive and a copy of it attract no push: with nothing else there, the loss is zero."""
    corpus = np.eye(4, dtype=np.float32)[[0, 1, 1]]
    queries = np.ones((1, 4), dtype=np.float32)
    adapter = linear_adapter(4)
    best, steps = train_adapter(adapter, queries, corpus, [[0, 1]], *how())
    assert steps == 3
    assert all(entry["loss"] == 0.0 for entry in best.history)
    assert torch.equal(adapter.weight, torch.eye(4))


def test_sampled_negatives_learn_too():
    rng = np.random.default_rng(0)
    corpus = rng.standard_normal((300, 8)).astype(np.float32)
    turn = np.linalg.qr(rng.standard_normal((8, 8)))[0].astype(np.float32)
    adapter = linear_adapter(8)
    train_adapter(
        adapter, corpus @ turn, corpus, [[i] for i in range(300)], *how(epochs=30, max_negatives=50, batch_size=32)
    )
    scores = apply_adapter(adapter, corpus @ turn) @ (corpus / np.linalg.norm(corpus, axis=1, keepdims=True)).T
    assert (scores.argmax(axis=1) == np.arange(300)).mean() > 0.8


def test_pull_to_start_keeps_the_weights_close():
    rng = np.random.default_rng(0)
    corpus = rng.standard_normal((50, 8)).astype(np.float32)
    queries = rng.standard_normal((50, 8)).astype(np.float32)
    far, near = linear_adapter(8), linear_adapter(8)
    train_adapter(far, queries, corpus, [[i] for i in range(50)], *how(epochs=20))
    train_adapter(near, queries, corpus, [[i] for i in range(50)], *how(epochs=20, pull_to_start=10.0))
    assert torch.dist(near.weight, torch.eye(8)) < 0.7 * torch.dist(far.weight, torch.eye(8))


def test_nan_loss_names_the_step():
    corpus = np.eye(4, dtype=np.float32)
    broken = linear_adapter(4)
    with torch.no_grad():
        broken.weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match="The loss is nan at step 1"):
        train_adapter(broken, corpus, corpus, [[0], [1], [2], [3]], *how())
