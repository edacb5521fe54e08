"""The embedding that carries an adapter: every call applies it, it survives LlamaIndex's dicts, and refuses misfits."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle

import numpy as np
import pytest
import torch
from llama_index.core import Document, VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import Field
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.node_parser import SemanticSplitterNodeParser
from llama_index.core.schema import TextNode

from llama_index_embft.embeddings import (
    AdapterEmbedding,
    AdapterEmbeddingModel,
    ModelIdentity,
    NudgedEmbedding,
    apply_adapter,
    as_encoder,
    identify,
    linear_adapter,
    load_embed_model,
    low_rank_adapter,
    mlp_adapter,
    save_adapter,
)
from llama_index_embft.embeddings.adapter import save_for_llama_index
from llama_index_embft.embeddings.adapter.modules import apply_to_one, build_module, describe_module
from llama_index_embft.embeddings.describe import describe_base
from llama_index_embft.embeddings.identity import whole_fingerprint
from llama_index_embft.embeddings.local import LocalEmbedding
from llama_index_embft.embeddings.nudge import save_nudge
from llama_index_embft.errors import ConfigError, ModelError

DIM = 8


class LetterEmbedding(BaseEmbedding):
    """Unit vectors by letter counts; queries are turned round."""

    dim: int = DIM
    api_key: str = Field(default="sk-secret")

    def _vector(self, text: str) -> np.ndarray:
        found = np.ones(self.dim)
        for letter in text:
            found[ord(letter) % self.dim] += 1
        return found / np.linalg.norm(found)

    def _get_text_embedding(self, text):
        return self._vector(text).tolist()

    def _get_query_embedding(self, query):
        return self._vector(query)[::-1].tolist()

    async def _aget_query_embedding(self, query):
        return self._get_query_embedding(query)

    def identity(self, side, given=None):
        """A class that knows what decides its vectors speaks for itself."""
        return ModelIdentity.of(self.model_name, "letters", self.model_name, side)

    @classmethod
    def class_name(cls) -> str:
        return "LetterEmbedding"


@pytest.fixture
def base():
    return LetterEmbedding(model_name="letters")


def shaken(module: torch.nn.Module) -> torch.nn.Module:
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module


MODULES = {
    "linear": lambda: shaken(linear_adapter(DIM)),
    "linear, bias": lambda: shaken(linear_adapter(DIM, bias=True)),
    "linear, shorter": lambda: shaken(linear_adapter(DIM, 3)),
    "low-rank": lambda: shaken(low_rank_adapter(DIM, 2)),
    "low-rank, bias": lambda: shaken(low_rank_adapter(DIM, 2, bias=True)),
    "mlp": lambda: shaken(mlp_adapter(DIM, 5)),
}


def save(folder, base, module, **options):
    save_adapter(
        folder,
        module,
        base={"class_name": "LetterEmbedding", "model_name": "letters"},
        base_fingerprint=as_encoder(base, cache=None).fingerprint,
        record={"format": 1},
        **options,
    )
    return folder


def vectors_of(model: BaseEmbedding) -> dict[str, list[list[float]]]:
    """The same three texts by each of LlamaIndex's calls."""
    texts = ["one", "two", "three"]

    async def queries():
        return [await model.aget_query_embedding(t) for t in texts]

    async def documents():
        return [await model.aget_text_embedding(t) for t in texts]

    return {
        "query": [model.get_query_embedding(t) for t in texts],
        "query async": asyncio.run(queries()),
        "document": [model.get_text_embedding(t) for t in texts],
        "document async": asyncio.run(documents()),
        "documents": model.get_text_embedding_batch(texts),
        "documents async": asyncio.run(model.aget_text_embedding_batch(texts)),
        "documents, many async": asyncio.run(model.aget_text_embedding_batch(texts * 20))[:3],
        "encoder query": as_encoder(model, cache=None).encode_queries(texts).tolist(),
        "encoder document": as_encoder(model, cache=None).encode_documents(texts).tolist(),
    }


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("normalize", [False, True])
def test_every_call_applies_the_adapter(base, tmp_path, name, both, normalize):
    module = MODULES[name]()
    folder = save(tmp_path / "a", base, module, transform_documents=both, normalize=normalize)
    model = AdapterEmbedding(base, folder, embed_batch_size=64)
    texts = ["one", "two", "three"]
    expected = {}
    for kind, plain in {
        "query": [base.get_query_embedding(t) for t in texts],
        "document": base.get_text_embedding_batch(texts),
    }.items():
        changed = module(torch.tensor(plain)) if kind == "query" or both else torch.tensor(plain)
        expected[kind] = torch.nn.functional.normalize(changed) if normalize else changed
    for call, found in vectors_of(model).items():
        want = expected["query" if "query" in call else "document"].detach().numpy()
        np.testing.assert_allclose(np.array(found), want, atol=1e-5, err_msg=call)


class Doubled(torch.nn.Linear):
    """A user's own layer, which looks like a linear one."""

    def forward(self, vectors):
        return 2 * super().forward(vectors)


def test_one_vector_goes_through_a_layer_of_the_users_own():
    torch.manual_seed(0)
    module, vector = Doubled(DIM, DIM), np.arange(DIM, dtype=np.float32)
    expected = module(torch.from_numpy(vector)).detach().numpy()
    np.testing.assert_allclose(apply_to_one(module, vector), expected, rtol=1e-5)


@pytest.mark.parametrize("name", MODULES)
def test_modules_are_described_and_built_again(name):
    module = MODULES[name]()
    again = build_module(json.loads(json.dumps(describe_module(module))))
    again.load_state_dict(module.state_dict())
    vectors = np.random.default_rng(0).standard_normal((5, DIM)).astype(np.float32)
    assert (apply_adapter(again, vectors) == apply_adapter(module, vectors)).all()


@pytest.mark.parametrize("module", [linear_adapter(DIM, bias=True), low_rank_adapter(DIM, 3), mlp_adapter(DIM)])
def test_before_training_nothing_changes(module):
    vectors = np.random.default_rng(0).standard_normal((5, DIM)).astype(np.float32)
    np.testing.assert_allclose(apply_adapter(module, vectors), vectors, atol=1e-6)


def test_a_memory_mapped_matrix_goes_through_in_blocks(tmp_path, monkeypatch):
    vectors = np.random.default_rng(0).standard_normal((10, DIM)).astype(np.float32)
    np.save(tmp_path / "v.npy", vectors)
    module = MODULES["mlp"]()
    whole = apply_adapter(module, vectors)
    monkeypatch.setattr("llama_index_embft.embeddings.adapter.modules._ROWS_PER_BLOCK", 3)
    np.testing.assert_allclose(apply_adapter(module, np.load(tmp_path / "v.npy", mmap_mode="r")), whole, atol=1e-6)
    assert apply_adapter(module, vectors[:0]).shape == (0, DIM)


# --- LlamaIndex's dicts -----------------------------------------------------------------------------------------------


def test_to_dict_and_from_dict(base, tmp_path):
    folder = save(tmp_path / "a", base, MODULES["mlp"](), transform_documents=True, normalize=True)
    model = AdapterEmbedding(base, folder, embed_batch_size=7)
    data = json.loads(json.dumps(model.to_dict()))
    assert "sk-secret" not in json.dumps(data)
    again = AdapterEmbedding.from_dict(data)
    assert isinstance(again.base_embed_model, LetterEmbedding)
    assert again.embed_batch_size == 7
    assert again.model_name == "letters+adapter"
    assert again.get_query_embedding("x") == model.get_query_embedding("x")
    assert AdapterEmbedding.from_json(model.to_json()).get_text_embedding("x") == model.get_text_embedding("x")
    given = LetterEmbedding(model_name="letters")
    assert AdapterEmbedding.from_dict(data, base_embed_model=given).base_embed_model is given
    assert data["adapter_path"] == str(folder)  # the dict that was passed in is as it was


def test_a_dict_with_an_unknown_base(base, tmp_path):
    folder = save(tmp_path / "a", base, MODULES["linear"]())
    data = AdapterEmbedding(base, folder).to_dict()
    data["base_embed_model"] |= {"class_name": "NeverImported", "python_class": "nowhere.NeverImported"}
    with pytest.raises(ModelError, match=r"NeverImported is not imported; pass it: from_dict"):
        AdapterEmbedding.from_dict(data)
    del data["base_embed_model"]
    with pytest.raises(ModelError, match="names no base model"):
        AdapterEmbedding.from_dict(data)


def test_a_forced_base_stays_forced(base, tmp_path):
    folder = save(tmp_path / "a", base, MODULES["linear"]())
    other = LetterEmbedding(model_name="other")
    with pytest.raises(ModelError, match="trained on another base model"):
        AdapterEmbedding(other, folder)
    forced = AdapterEmbedding(other, folder, force=True)
    assert AdapterEmbedding.from_dict(forced.to_dict()).get_query_embedding("x") == forced.get_query_embedding("x")


def test_an_embedding_that_llama_index_knows_by_name(tmp_path):
    base = MockEmbedding(embed_dim=DIM)
    save_adapter(tmp_path / "a", linear_adapter(DIM), base={}, base_fingerprint=None, record={})
    again = AdapterEmbedding.from_dict(AdapterEmbedding(base, tmp_path / "a", force=True).to_dict())
    assert again.base_embed_model.to_dict() == base.to_dict()


def test_a_hugging_face_base_comes_back_with_its_prompts(tiny_model_path, tmp_path):
    base = load_embed_model(tiny_model_path, query_prompt="ask: ", device="cpu")
    save_adapter(tmp_path / "a", shaken(linear_adapter(32)), base={}, base_fingerprint=None, record={})
    model = AdapterEmbedding(base, tmp_path / "a", embed_batch_size=3, force=True)
    again = AdapterEmbedding.from_dict(json.loads(json.dumps(model.to_dict())))
    assert again.get_query_embedding("hello") == pytest.approx(model.get_query_embedding("hello"), abs=1e-5)


def test_a_base_that_does_not_normalize_or_cuts_dimensions_comes_back_as_it_was(tiny_model_path, tmp_path):
    base = LocalEmbedding(tiny_model_path, normalize=False, device="cpu")
    base._model.truncate_dim = 8
    who = whole_fingerprint(identify(base, "query"), identify(base, "document"))
    save_adapter(tmp_path / "a", linear_adapter(8), base=describe_base(base), base_fingerprint=who, record={})
    model = AdapterEmbedding(base, tmp_path / "a")
    vector = model.get_query_embedding("hello")
    assert len(vector) == 8
    for again in (
        load_embed_model(tmp_path / "a", device="cpu"),
        AdapterEmbedding.from_dict(json.loads(json.dumps(model.to_dict()))),
    ):
        assert again.get_query_embedding("hello") == pytest.approx(vector, abs=1e-6)


def test_an_adapter_computes_where_it_is_told(base, tmp_path):
    save(tmp_path / "a", base, MODULES["linear"]())
    loaded = AdapterEmbeddingModel(base, str(tmp_path / "a"), device="meta")
    assert {weight.device.type for weight in loaded.adapter.parameters()} == {"meta"}


def test_a_dict_says_how_many_dimensions_are_kept(tiny_model_path):
    model = LocalEmbedding(tiny_model_path, device="cpu")
    before = model.to_dict()["identity"]
    model._model.truncate_dim = 8
    assert model.to_dict()["identity"] != before


def test_a_dict_says_that_a_model_was_trained(tiny_model_path):
    model = LocalEmbedding(tiny_model_path, device="cpu")
    before = model.to_dict()["identity"]
    optimizer = torch.optim.AdamW(model._model.parameters(), fused=True)  # which torch's counters do not see
    model._model(model._model.preprocess(["a fox"]))["sentence_embedding"].sum().backward()
    optimizer.step()
    assert model.to_dict()["identity"] != before


def test_nudged_over_adapter_and_back(base, tmp_path):
    folder = save(tmp_path / "a", base, MODULES["linear"]())
    adapted = AdapterEmbedding(base, folder)
    moved = np.eye(1, DIM, dtype=np.float32)
    save_nudge(
        tmp_path / "n",
        ["d"],
        ["one"],
        moved,
        variant="N",
        step=0.1,
        base={},
        base_fingerprint=as_encoder(adapted, cache=None).fingerprint,
        record={},
    )
    model = NudgedEmbedding(adapted, tmp_path / "n")
    again = NudgedEmbedding.from_dict(json.loads(json.dumps(model.to_dict())))
    assert again.get_text_embedding("one") == moved[0].tolist()
    assert again.get_query_embedding("one") == adapted.get_query_embedding("one")


def test_pickle_and_deepcopy(base, tmp_path):
    """LlamaIndex pickles transformations for worker processes, and copies components."""
    model = AdapterEmbedding(base, save(tmp_path / "a", base, MODULES["low-rank"]()))
    for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert again.get_query_embedding("x") == model.get_query_embedding("x")


def test_components_that_hold_the_model_serialize_it_whole(base, tmp_path):
    model = AdapterEmbedding(base, save(tmp_path / "a", base, MODULES["linear"]()))
    data = SemanticSplitterNodeParser(embed_model=model).to_dict()
    assert data["embed_model"]["base_embed_model"]["class_name"] == "LetterEmbedding"


def test_an_ingestion_cache_notices_another_adapter_in_the_same_folder(base, tmp_path):
    folder = save(tmp_path / "a", base, MODULES["linear"](), transform_documents=True)
    pipeline = IngestionPipeline(transformations=[AdapterEmbedding(base, folder)])
    first = pipeline.run(documents=[Document(text="one", id_="d")])[0].embedding
    save(folder, base, MODULES["mlp"](), transform_documents=True)
    pipeline.transformations = [AdapterEmbedding(base, folder)]
    second = pipeline.run(documents=[Document(text="one", id_="d")])[0].embedding
    assert first != second


def test_an_index_persisted_and_loaded_answers_as_before(base, tmp_path):
    from llama_index.core import StorageContext, load_index_from_storage

    model = AdapterEmbedding(base, save(tmp_path / "a", base, MODULES["linear"](), transform_documents=True))
    index = VectorStoreIndex([TextNode(id_=t, text=t) for t in ("one", "two", "three")], embed_model=model)
    index.storage_context.persist(str(tmp_path / "index"))
    data = json.loads(json.dumps(model.to_dict()))
    stored = StorageContext.from_defaults(persist_dir=str(tmp_path / "index"))
    loaded = load_index_from_storage(stored, embed_model=AdapterEmbedding.from_dict(data))
    for query in ("one", "eno", "thr"):
        before, after = (i.as_retriever(similarity_top_k=3).retrieve(query) for i in (index, loaded))
        assert [(h.node_id, h.score) for h in before] == [(h.node_id, h.score) for h in after]


# --- llama-index-embeddings-adapter -----------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [False, True])
def test_reads_what_the_stock_package_saved(base, tmp_path, bias):
    from llama_index.embeddings.adapter import AdapterEmbeddingModel, LinearLayer

    layer = shaken(LinearLayer(DIM, DIM, bias=bias))
    layer.save(str(tmp_path / "stock"))
    stock = AdapterEmbeddingModel(base, str(tmp_path / "stock"), LinearLayer, device="cpu")
    ours = load_embed_model(tmp_path / "stock", base_embed_model=base)
    assert isinstance(ours, AdapterEmbedding)
    assert ours.get_query_embedding("word") == pytest.approx(stock.get_query_embedding("word"), abs=1e-6)
    assert ours.get_text_embedding("word") == stock.get_text_embedding("word")


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid", "leaky_relu"])
def test_reads_the_stock_two_layer_network(base, tmp_path, residual, activation):
    from llama_index.embeddings.adapter import AdapterEmbeddingModel
    from llama_index.embeddings.adapter.utils import TwoLayerNN

    layer = shaken(TwoLayerNN(DIM, 5, DIM, bias=True, activation_fn_str=activation, add_residual=residual))
    layer.save(str(tmp_path / "stock"))
    stock = AdapterEmbeddingModel(base, str(tmp_path / "stock"), TwoLayerNN, device="cpu")
    ours = load_embed_model(tmp_path / "stock", base_embed_model=base)
    assert ours.get_query_embedding("word") == pytest.approx(stock.get_query_embedding("word"), abs=1e-6)


@pytest.mark.parametrize("name", ["linear", "linear, bias", "low-rank", "low-rank, bias", "mlp"])
def test_the_stock_package_loads_what_we_write(base, tmp_path, name):
    from llama_index.embeddings.adapter import LinearAdapterEmbeddingModel
    from llama_index.embeddings.adapter.utils import TwoLayerNN

    ours = AdapterEmbedding(base, save(tmp_path / "a", base, MODULES[name]()))
    ours.save_for_llama_index(tmp_path / "stock")
    ours.save_for_llama_index(tmp_path / "stock")  # an earlier result may be replaced
    cls = {"adapter_cls": TwoLayerNN} if name == "mlp" else {}
    stock = LinearAdapterEmbeddingModel(base, str(tmp_path / "stock"), device="cpu", **cls)
    assert stock.get_query_embedding("word") == pytest.approx(ours.get_query_embedding("word"), abs=1e-5)
    again = load_embed_model(tmp_path / "stock", base_embed_model=base)
    assert again.get_query_embedding("word") == pytest.approx(ours.get_query_embedding("word"), abs=1e-5)


def test_what_the_stock_package_cannot_hold_is_refused(base, tmp_path):
    both = AdapterEmbedding(base, save(tmp_path / "a", base, MODULES["linear"](), transform_documents=True))
    with pytest.raises(ConfigError, match="changes documents too"):
        both.save_for_llama_index(tmp_path / "x")
    with pytest.raises(ConfigError, match="turns 8 dimensions into 3"):
        save_for_llama_index(tmp_path / "x", MODULES["linear, shorter"]())
    with pytest.raises(ConfigError, match="a module of your own"):
        save_for_llama_index(tmp_path / "x", torch.nn.Sequential(torch.nn.Linear(DIM, DIM)))
    assert not (tmp_path / "x").exists()


class _Evil:
    def __reduce__(self):
        return (print, ("run",))


def test_a_foreign_file_runs_no_code(base, tmp_path, capsys):
    folder = tmp_path / "evil"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"in_features": DIM, "out_features": DIM, "bias": False}))
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"linear.weight": _Evil()}))
    with pytest.raises(ModelError, match="cannot be used"):
        load_embed_model(folder, base_embed_model=base)
    torch.save({"linear.weight": _Evil()}, str(folder / "pytorch_model.bin"))
    with pytest.raises(ModelError, match="cannot be used"):
        load_embed_model(folder, base_embed_model=base)
    assert capsys.readouterr().out == ""


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stock", [False, True])
@pytest.mark.parametrize("kept", [0, 10, 0.5, 0.99])
def test_an_adapter_file_cut_short(base, tmp_path, stock, kept):
    folder = save(tmp_path / "a", base, MODULES["linear"]())
    file = folder / "adapter.safetensors"
    if stock:
        AdapterEmbedding(base, folder).save_for_llama_index(tmp_path / "s")
        folder, file = tmp_path / "s", tmp_path / "s" / "pytorch_model.bin"
    whole = file.read_bytes()
    file.write_bytes(whole[: kept if isinstance(kept, int) else int(len(whole) * kept)])
    with pytest.raises(ModelError, match=r"cannot be used \(.*\); the file is cut short or belongs to another adapter"):
        load_embed_model(folder, base_embed_model=base)


@pytest.mark.parametrize("damage", [{"rank": "two"}, {"in_features": None}, {"activation": "swish"}])
def test_a_damaged_configuration(base, tmp_path, damage):
    name = "mlp" if "activation" in damage else "low-rank"
    folder = save(tmp_path / "a", base, MODULES[name]())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | damage))
    with pytest.raises(ModelError, match="is damaged"):
        load_embed_model(folder, base_embed_model=base)


@pytest.mark.parametrize("both", [False, True])
def test_a_base_that_returns_another_dimension_than_it_did(base, tmp_path, both):
    folder = save(tmp_path / "a", base, MODULES["linear"](), transform_documents=both)
    model = AdapterEmbedding(base, folder)
    base.dim = 5
    sentence = r"letters returns 5 dimensions, but the adapter in .* was trained on 8; use the model it was trained on"
    for call in [
        lambda: model.get_query_embedding("x"),
        lambda: asyncio.run(model.aget_query_embedding("x")),
        lambda: as_encoder(model, cache=None).encode_queries(["x"]),
    ] + both * [lambda: model.get_text_embedding("x"), lambda: model.get_text_embedding_batch(["x", "y"])]:
        with pytest.raises(ModelError, match=sentence):
            call()


def test_nan_from_the_base_is_named_and_a_vector_of_zeros_stays_one(base, tmp_path):
    class Broken(LetterEmbedding):
        def _get_query_embedding(self, query):
            return [float("nan") if query == "nan" else 0.0] * DIM

    model = AdapterEmbedding(
        Broken(model_name="broken"), save(tmp_path / "a", base, MODULES["linear"](), normalize=True), force=True
    )
    with pytest.raises(ModelError, match="broken returned a vector with NaN or infinity"):
        model.get_query_embedding("nan")
    assert model.get_query_embedding("zero") == [0.0] * DIM


def test_moved_vectors_of_another_dimension(base, tmp_path):
    save_nudge(
        tmp_path / "n",
        ["d"],
        ["one"],
        np.ones((1, DIM), dtype=np.float32),
        variant="N",
        step=0.1,
        base={},
        base_fingerprint=None,
        record={},
    )
    base.dim = 5
    with pytest.raises(ModelError, match=r"letters returns 5 dimensions, but the vectors in .* have 8"):
        NudgedEmbedding(base, tmp_path / "n", force=True).get_text_embedding("one")
