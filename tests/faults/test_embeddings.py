"""Embeddings: vectors are this model's, prompts are its own, every kind of model loads, and damage is named."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import pickle
import shutil
import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from embedding_models import on_the_hub, router, static, transformer, with_prompts
from llama_index.core import Document
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.ingestion import IngestionCache, IngestionPipeline
from llama_index.embeddings.huggingface import HuggingFaceEmbedding
from llama_index.embeddings.openai import OpenAIEmbedding
from sentence_transformers import SentenceTransformer

from llama_index_embft.embeddings import (
    AdapterEmbedding,
    DriftEmbedding,
    DriftMap,
    EmbeddingCache,
    NudgedEmbedding,
    as_encoder,
    identify,
    linear_adapter,
    load_embed_model,
    load_exported,
    save_adapter,
)
from llama_index_embft.embeddings.drift import save_drift
from llama_index_embft.embeddings.nudge import save_nudge
from llama_index_embft.errors import ModelError

EARLIER = Path(__file__).parents[1] / "embeddings" / "earlier"


class Served(BaseEmbedding):
    """A client of a server behind one name: no field says which model answers."""

    answer: float = 1.0

    def _get_text_embedding(self, text):
        return [self.answer, float(len(text))]

    def _get_query_embedding(self, query):
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query):
        return self._get_query_embedding(query)


def loaded(folder, **options) -> BaseEmbedding:
    return load_embed_model(folder, device="cpu", **options)


def prompts(model) -> tuple[str, str]:
    backend = as_encoder(model, cache=None).backend
    return backend.prompt("query"), backend.prompt("document")


def put_adapter(folder: Path, base: BaseEmbedding, shift: float, **options) -> Path:
    module = linear_adapter(32)
    with torch.no_grad():
        module.weight[0, 1] = shift
    fingerprint = as_encoder(base, cache=None).fingerprint
    save_adapter(folder, module, base={}, base_fingerprint=fingerprint, record={}, **options)
    return folder


# --- A1 to A5: whose vectors ------------------------------------------------------------------------------------------


def test_a1_what_has_no_identity_never_reaches_the_disk(tmp_path, caplog):
    cache = EmbeddingCache(tmp_path / "c.sqlite")
    with caplog.at_level(logging.WARNING):
        for answer in (1.0, 0.1):
            found = as_encoder(Served(model_name="m", answer=answer), cache=cache).encode_documents(["a"])
            assert found[0, 0] == pytest.approx(answer)
    assert not cache.path.exists()
    assert sum("Served" in record.message for record in caplog.records) <= 1  # said once
    # In memory it is kept for as long as the object says the same of itself.
    model = Served(model_name="m")
    as_encoder(model, cache=cache).encode_documents(["a"])
    again = as_encoder(model, cache=cache)
    again.encode_documents(["a"])
    assert again.embedded_texts == 0
    model.answer = 7.0
    assert as_encoder(model, cache=cache).encode_documents(["a"])[0, 0] == 7.0
    with pytest.raises(ModelError, match="identity="):
        identify(model)
    assert identify(model, identity="v1") != identify(model, identity="v2")


@pytest.mark.parametrize(
    "changes",
    [
        {"truncate_dim": 4},
        {"max_length": 8},
        {"normalize": False},
        {"text_instruction": "passage: "},
        {"model_kwargs": {"dtype": torch.bfloat16}},
    ],
)
def test_a2_each_setting_that_decides_vectors_has_vectors_of_its_own(tiny_model_path, tmp_path, changes):
    cache = EmbeddingCache(tmp_path / "c.sqlite")
    text = "a text that is longer than eight tokens in any case"
    plain, other = (HuggingFaceEmbedding(tiny_model_path, device="cpu", **kwargs) for kwargs in ({}, changes))
    as_encoder(plain, cache=cache).encode_documents([text])
    served = as_encoder(other, cache=cache).encode_documents([text])[0]
    assert served == pytest.approx(other.get_text_embedding(text), abs=1e-2)
    assert identify(plain) != identify(other)


def test_a2_the_transformers_configuration_and_the_tokenizer_decide(tiny_model_path, tmp_path):
    def fingerprint(change) -> str | None:
        model = SentenceTransformer(tiny_model_path, device="cpu")
        change(model)
        return as_encoder(model, cache=None).fingerprint

    def config(name, value):
        return lambda model: setattr(model[0].auto_model.config, name, value)

    def truncation_side(model):
        model.tokenizer.truncation_side = "left"

    def normalizer(model):
        model.tokenizer.backend_tokenizer.normalizer = None

    same = fingerprint(lambda model: model.encode(["two", "texts that are longer"]))  # a call leaves it as it was
    changes = [config("hidden_act", "relu"), config("num_attention_heads", 4), truncation_side, normalizer]
    assert same == fingerprint(lambda model: None)
    assert len({same, *map(fingerprint, changes)}) == 1 + len(changes)
    # Kernels of attention differ in rounding only.
    assert fingerprint(config("_attn_implementation", "eager")) == same


def test_a2_a_graph_that_torch_does_not_hold_has_no_identity(tiny_model_path):
    class Opaque:
        def __init__(self, inner):
            self.config = inner.config

    model = SentenceTransformer(tiny_model_path, device="cpu")
    inner = model[0]._modules.pop("model")
    object.__setattr__(model[0], "model", Opaque(inner))
    assert as_encoder(model, cache=None).fingerprint is None


def test_a2_dimensions_of_a_hosted_model_wherever_they_are_given():
    def who(**options):
        return identify(OpenAIEmbedding(model_name="m", api_key="x", **options))

    assert who() != who(dimensions=64)
    assert who(additional_kwargs={"dimensions": 64}) == who(dimensions=64)
    assert who() != who(api_base="http://localhost:1/v1")


def test_a3_what_does_not_decide_vectors_is_no_part_of_it():
    def hosted(module: str, extra: bool, key: str = "x"):
        body = {"__module__": module, "__qualname__": "OpenAIEmbedding", "__annotations__": {}}
        if extra:
            body |= {"encoding": "float", "__annotations__": {"encoding": str}}
        made = type("OpenAIEmbedding", (OpenAIEmbedding,), body)
        return identify(made(model_name="m", api_key=key, timeout=3.0 if extra else 60.0))

    one = hosted("llama_index.embeddings.openai.base", False)
    assert one == hosted("llama_index.embeddings.openai", True, key="another")
    # A class of somebody else may do more than its parent, whatever it is called.
    with pytest.raises(ModelError, match="not known here"):
        hosted("my.own", False)


@pytest.mark.parametrize("kind", ["adapter", "nudge"])
def test_a4_a_base_without_identity_is_refused_below_a_saved_result(tmp_path, kind):
    base = MockEmbedding(embed_dim=32)
    options = {"base": {}, "base_fingerprint": None, "record": {}}
    if kind == "adapter":
        save_adapter(tmp_path / "a", linear_adapter(32), **options)
    else:
        save_nudge(tmp_path / "a", ["d"], ["one"], np.eye(1, 32, dtype=np.float32), variant="N", step=1.0, **options)
    with pytest.raises(ModelError, match=r"class that is not known here.*force=True"):
        load_embed_model(tmp_path / "a", base_embed_model=base)
    assert load_embed_model(tmp_path / "a", base_embed_model=base, force=True).get_query_embedding("x")


def ingested(cache: IngestionCache, model: BaseEmbedding) -> list[float]:
    pipeline = IngestionPipeline(transformations=[model], cache=cache)
    return pipeline.run(documents=[Document(text="one", id_="d")])[0].embedding


def test_a5_an_ingestion_cache_sees_what_changed_in_a_folder(tiny_model_path, tmp_path):
    base, cache, folder = loaded(tiny_model_path), IngestionCache(), tmp_path / "m"

    def nudged(row: int) -> BaseEmbedding:
        vectors = np.eye(32, dtype=np.float32)[[row]]
        whole = as_encoder(base, cache=None).fingerprint
        save_nudge(folder, ["d"], ["one"], vectors, variant="N", step=1.0, base={}, base_fingerprint=whole, record={})
        return NudgedEmbedding(base, folder)

    def drift(row: int) -> BaseEmbedding:
        weight = np.roll(np.eye(32, dtype=np.float32), row, axis=0)
        who = identify(base, "query")
        save_drift(folder, DriftMap("procrustes", {"weight": weight}), old=identify(base), new=who, record={})
        return DriftEmbedding(base, folder)

    def adapted(row: int) -> BaseEmbedding:
        return AdapterEmbedding(base, put_adapter(folder, base, float(row), transform_documents=True))

    def whole(row: int) -> BaseEmbedding:
        shutil.rmtree(folder)
        shutil.copytree(transformer(tiny_model_path, tmp_path / f"seed{row}", seed=row), folder)
        return loaded(folder)

    for make in (nudged, drift, adapted, whole):
        first, second = make(1), None
        before = ingested(cache, first)
        second = make(2)
        assert ingested(cache, second) == pytest.approx(second.get_text_embedding("one"), abs=1e-5)
        assert before != pytest.approx(second.get_text_embedding("one"), abs=1e-5)


# --- A7, A22, C9: prompts ---------------------------------------------------------------------------------------------

SHAPES = {
    "none": ({}, None, ("", "")),
    "e5": ({"query": "query: ", "passage": "passage: "}, None, ("query: ", "passage: ")),
    "bge": ({"query": "Represent this sentence: "}, None, ("Represent this sentence: ", "")),
    "arctic": ({"query": "Represent: "}, None, ("Represent: ", "")),
    "qwen3": ({"query": "Instruct: find\nQuery:", "document": ""}, None, ("Instruct: find\nQuery:", "")),
    "gemma": (
        {
            "query": "task: search result | query: ",
            "document": "title: none | text: ",
            "Clustering": "task: clustering | query: ",
            "Retrieval-query": "task: search result | query: ",
            "STS": "task: sentence similarity | query: ",
        },
        None,
        ("task: search result | query: ", "title: none | text: "),
    ),
    "nomic": ({"search_query": "sq: ", "search_document": "sd: ", "clustering": "c: "}, None, ("sq: ", "sd: ")),
    "stella": ({"s2p_query": "Instruct: p. ", "s2s_query": "Instruct: s. "}, "s2p_query", ("Instruct: p. ", "")),
    "default passage": ({"query": "q: ", "passage": "p: "}, "passage", ("q: ", "p: ")),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a7_a22_one_rule_of_prompts_for_folder_hub_and_object(tiny_model_path, tmp_path, monkeypatch, shape):
    named, default, expected = SHAPES[shape]
    folder = with_prompts(tiny_model_path, tmp_path / "m", named, default)
    monkeypatch.setenv("LLAMA_INDEX_CACHE_DIR", str(tmp_path / "hub"))
    on_the_hub(folder, tmp_path / "hub", "org/small-embed")
    ours, plain = loaded(folder), SentenceTransformer(str(folder), device="cpu")
    assert prompts(ours) == prompts(plain) == prompts(loaded("org/small-embed")) == expected
    for text in ("where is it", "a passage"):
        assert ours.get_query_embedding(text) == pytest.approx(
            plain.encode(expected[0] + text, prompt="", normalize_embeddings=True), abs=1e-5
        )
        assert as_encoder(plain, cache=None).encode_documents([text])[0] == pytest.approx(
            ours.get_text_embedding(text), abs=1e-5
        )
    assert prompts(loaded(folder, query_prompt="", document_prompt="")) == ("", "")


def test_a7_an_empty_prompt_switches_off_what_the_model_brings(tiny_model_path, tmp_path, monkeypatch):
    monkeypatch.setenv("LLAMA_INDEX_CACHE_DIR", str(tmp_path / "hub"))
    folder = with_prompts(tiny_model_path, tmp_path / "m", {"query": "Represent this sentence: "})
    on_the_hub(folder, tmp_path / "hub", "BAAI/bge-small-en-v1.5")
    for name in ("BAAI/bge-small-en-v1.5", folder):
        assert prompts(loaded(name)) == ("Represent this sentence: ", "")
        assert prompts(loaded(name, query_prompt="")) == ("", "")


@pytest.mark.parametrize(
    "named", [{"STS": "sts: "}, {"instruction": "do: "}, {"sts_query": "a: ", "summarization_query": "b: "}]
)
def test_a7_names_that_do_not_say_what_they_are_for_are_refused(tiny_model_path, tmp_path, named):
    folder = with_prompts(tiny_model_path, tmp_path / "m", named)
    for load in (lambda: loaded(folder), lambda: as_encoder(SentenceTransformer(str(folder), device="cpu"))):
        with pytest.raises(ModelError, match="_prompt="):
            load()
    assert prompts(loaded(folder, query_prompt="q: ", document_prompt="")) == ("q: ", "")


def test_a22_a_router_keeps_both_branches(tiny_model_path, tmp_path):
    folder = router(tiny_model_path, tmp_path)
    ours, plain = loaded(folder), SentenceTransformer(str(folder), device="cpu")
    query, document = ours.get_query_embedding("a text"), ours.get_text_embedding("a text")
    assert query == pytest.approx(plain.encode_query("a text"), abs=1e-5)
    assert document == pytest.approx(plain.encode_document("a text"), abs=1e-5)
    assert np.abs(np.subtract(query, document)).max() > 0.01
    cache = EmbeddingCache(tmp_path / "c.sqlite")
    for model in (ours, plain):
        encoder = as_encoder(model, cache=cache)
        assert encoder.encode_queries(["a text"])[0] == pytest.approx(query, abs=1e-5)
        assert encoder.encode_documents(["a text"])[0] == pytest.approx(document, abs=1e-5)
    assert identify(ours, "query") != identify(ours, "document")


def test_c9_a_default_prompt_that_is_gone_does_not_keep_a_model_from_loading(tiny_model_path, tmp_path):
    folder = with_prompts(tiny_model_path, tmp_path / "m", {"query": "q: ", "document": "d: "}, "s2p_query")
    model = loaded(folder)
    assert prompts(model) == ("q: ", "d: ")
    model._model.save_pretrained(str(tmp_path / "again"), create_model_card=False)
    assert SentenceTransformer(str(tmp_path / "again"), device="cpu").prompts == {"query": "q: ", "document": "d: "}


# --- C10, E14: the cache ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [384, 1024, 1536])
def test_c10_the_cache_is_as_large_as_its_numbers(tmp_path, dim):
    cache = EmbeddingCache(tmp_path / "c.sqlite")
    rng = np.random.default_rng(0)
    for _ in range(4):
        cache.put_many((rng.bytes(16), vector) for vector in rng.standard_normal((512, dim)).astype(np.float32))
    cache.close()
    assert (tmp_path / "c.sqlite").stat().st_size < 1.25 * 2048 * dim * 4


@pytest.mark.parametrize("damage", ["nan", "short", "zeros", "empty"])
def test_e14_a_damaged_row_is_computed_again(tiny_model_path, tmp_path, damage):
    cache = EmbeddingCache(tmp_path / "c.sqlite")
    model = SentenceTransformer(tiny_model_path, device="cpu")
    good = as_encoder(model, cache=cache).encode_documents(["one", "two"])
    cache.close()
    bad = {"nan": np.full(32, np.nan), "short": np.ones(8), "zeros": np.zeros(32), "empty": np.ones(0)}[damage]
    with sqlite3.connect(cache.path) as file:
        key = file.execute("SELECT key FROM vectors").fetchone()[0]
        file.execute("UPDATE vectors SET vector = ? WHERE key = ?", (bad.astype("<f4").tobytes(), key))
    assert as_encoder(model, cache=cache).encode_documents(["one", "two"]) == pytest.approx(good, abs=1e-6)
    cache.put_many([(key, np.full(32, np.nan, dtype=np.float32))])  # whole, and of no use
    assert as_encoder(model, cache=cache).encode_documents(["one", "two"]) == pytest.approx(good, abs=1e-6)
    with sqlite3.connect(cache.path) as file:
        file.execute("UPDATE vectors SET vector = 0.5 WHERE key = ?", (key,))  # no bytes at all
    assert as_encoder(model, cache=cache).encode_documents(["one", "two"]) == pytest.approx(good, abs=1e-6)
    cache.put_many([(key, np.ones(8, dtype=np.float32))])
    assert as_encoder(model, cache=cache).encode_documents(["one", "two"]) == pytest.approx(good, abs=1e-6)


@pytest.mark.parametrize("name", ["transform_queries", "transform_documents", "normalize"])
def test_e12_a_damaged_configuration_of_an_adapter_is_one_sentence(name, tiny_model_path, tmp_path):
    base = loaded(tiny_model_path)
    folder = put_adapter(tmp_path / "a", base, 1.0)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {name: " "}), "utf-8")
    with pytest.raises(ModelError, match="is damaged"):
        AdapterEmbedding(base, folder)


def test_e12_a_model_that_loads_and_cannot_embed_is_one_sentence(tiny_model_path, tmp_path, monkeypatch):
    model = loaded(tiny_model_path)

    def broken(*_, **__):
        raise TypeError("unhashable type: 'dict'\nmore")

    monkeypatch.setattr(model._model, "forward", broken)
    for embed in (
        lambda: model.get_query_embedding("one"),
        lambda: model.get_text_embedding_batch(["one", "two"]),
        lambda: as_encoder(model, cache=None).encode_documents(["one"]),
    ):
        with pytest.raises(ModelError, match=r"cannot embed these texts: unhashable type: 'dict'\. Load it with"):
            embed()


def test_e14_weights_that_are_not_numbers_are_refused(tiny_model_path, tmp_path):
    base = loaded(tiny_model_path)
    with pytest.raises(ModelError, match="NaN or infinity"):
        AdapterEmbedding(base, put_adapter(tmp_path / "a", base, float("nan")))
    with pytest.raises(ModelError, match="NaN or infinity"):
        AdapterEmbedding(base, put_adapter(tmp_path / "a", base, float("inf")))
    model = SentenceTransformer(tiny_model_path, device="cpu")
    with torch.no_grad():
        next(model.parameters())[0, 0] = float("nan")
    model.save_pretrained(str(tmp_path / "m"), create_model_card=False)
    with pytest.raises(ModelError, match="hold NaN or infinity"):
        loaded(tmp_path / "m")


# --- D: loading -------------------------------------------------------------------------------------------------------


def test_d1_code_of_a_model_runs_on_every_path_where_it_is_asked_for_and_on_none_else(tiny_model_path, tmp_path):
    folder = tmp_path / "m"
    shutil.copytree(tiny_model_path, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own_bert", "architectures": ["OwnModel"]}
    config["auto_map"] = {"AutoConfig": "own_code.OwnConfig", "AutoModel": "own_code.OwnModel"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own_code.py").write_text(
        "from transformers import BertConfig, BertModel\n"
        "class OwnConfig(BertConfig):\n    model_type = 'own_bert'\n"
        "class OwnModel(BertModel):\n    config_class = OwnConfig\n"
    )
    with pytest.raises(ModelError, match="trust_remote_code=True") as caught:
        loaded(folder)
    assert "damaged" not in str(caught.value)
    model = loaded(folder, trust_remote_code=True)
    description = {"class_name": "HuggingFaceEmbedding", "model_name": str(folder)}
    save_adapter(
        tmp_path / "a",
        linear_adapter(32),
        base=description,
        base_fingerprint=as_encoder(model, cache=None).fingerprint,
        record={},
    )
    with pytest.raises(ModelError, match="trust_remote_code=True"):
        loaded(tmp_path / "a")
    over = loaded(tmp_path / "a", trust_remote_code=True)
    assert over.get_query_embedding("x") == pytest.approx(model.get_query_embedding("x"), abs=1e-5)
    again = pickle.loads(pickle.dumps(model))
    assert again.get_query_embedding("x") == pytest.approx(model.get_query_embedding("x"), abs=1e-5)
    assert "trust_remote_code" not in model.to_dict()  # a dict does not make code run


def test_d2_static_models_load_and_damage_is_said_of_damage_alone(tiny_model_path, tmp_path):
    folder = static(tiny_model_path, tmp_path / "static")
    model, plain = loaded(folder), SentenceTransformer(str(folder), device="cpu")
    assert model.get_text_embedding("red cat") == pytest.approx(
        plain.encode("red cat", normalize_embeddings=True), abs=1e-5
    )
    assert as_encoder(model, cache=None).encode_documents(["red cat"])[0] == pytest.approx(
        model.get_text_embedding("red cat"), abs=1e-5
    )
    assert identify(model) == identify(loaded(folder))
    broken = tmp_path / "kind"
    shutil.copytree(tiny_model_path, broken)
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps({**config, "model_type": "of_tomorrow"}))
    with pytest.raises(ModelError, match="cannot be loaded") as caught:
        loaded(broken)
    assert "damaged" not in str(caught.value)


def test_d3_texts_are_cut_where_positions_end(tmp_path, tiny_model_path):
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import AutoTokenizer, XLMRobertaConfig, XLMRobertaModel

    config = XLMRobertaConfig(
        vocab_size=100, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=34, pad_token_id=0,
    )  # fmt: skip
    XLMRobertaModel(config).save_pretrained(tmp_path / "raw")
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_path)
    tokenizer.model_max_length = int(1e30)
    tokenizer.save_pretrained(tmp_path / "raw")
    plain = SentenceTransformer(modules=[Transformer(str(tmp_path / "raw")), Pooling(32)], device="cpu")
    plain.max_seq_length = None
    plain.save_pretrained(str(tmp_path / "m"), create_model_card=False)
    long = "river stone " * 100
    model = loaded(tmp_path / "m")
    assert model.max_length == 33
    assert np.isfinite(model.get_text_embedding(long)).all()
    assert np.isfinite(as_encoder(plain, cache=None).encode_documents([long])).all()
    asked = loaded(tmp_path / "m")
    asked._model.max_seq_length = 400
    assert np.isfinite(as_encoder(asked, cache=None).encode_documents([long])).all()


@pytest.fixture(scope="module")
def graph(tiny_model_path, tmp_path_factory) -> Path:
    pytest.importorskip("onnxruntime")
    from llama_index_embft.export import export_model

    folder = tmp_path_factory.mktemp("graph") / "onnx"
    export_model(tiny_model_path, folder, "onnx")
    return folder


def test_d4_graphs_are_copied_pickled_and_described(graph):
    model = load_exported(graph, query_prompt="ask: ", num_threads=1)
    expected = model.get_query_embedding("where")
    for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model), type(model).from_dict(model.to_dict())):
        assert again.get_query_embedding("where") == pytest.approx(expected, abs=1e-6)
        assert again.num_threads == 1


def test_d4_async_texts_go_in_batches_and_off_the_event_loop(graph, monkeypatch):
    import threading

    model = load_exported(graph)
    sizes, threads = [], set()

    def run(inputs):
        sizes.append(len(inputs["input_ids"]))
        threads.add(threading.current_thread())
        return np.ones((sizes[-1], 32), dtype=np.float32)

    monkeypatch.setattr(type(model), "_run", lambda self, inputs: run(inputs))
    asyncio.run(model.aget_text_embedding_batch(["hello world"] * 40))
    assert sizes == [8] * 5
    assert threading.main_thread() not in threads


def test_a5_an_exported_graph_in_the_same_folder(graph, tiny_model_path, tmp_path):
    from llama_index_embft.export import export_model

    cache = IngestionCache()
    shutil.copytree(graph, tmp_path / "g")
    first = ingested(cache, load_exported(tmp_path / "g"))
    shutil.rmtree(tmp_path / "g")
    export_model(transformer(tiny_model_path, tmp_path / "other", seed=5), tmp_path / "g", "onnx")
    model = load_exported(tmp_path / "g")
    assert ingested(cache, model) == pytest.approx(model.get_text_embedding("one"), abs=1e-6)
    assert first != pytest.approx(model.get_text_embedding("one"), abs=1e-3)


def test_d4_an_embedding_is_reported_once(tiny_model_path, tmp_path):
    from llama_index.core.instrumentation import get_dispatcher
    from llama_index.core.instrumentation.event_handlers import BaseEventHandler

    seen = []

    class Handler(BaseEventHandler):
        @classmethod
        def class_name(cls):
            return "Handler"

        def handle(self, event, **kwargs):
            seen.append(type(event).__name__)

    base = loaded(tiny_model_path)
    model = AdapterEmbedding(base, put_adapter(tmp_path / "a", base, 0.5, transform_documents=True))
    root = get_dispatcher("root")
    root.add_event_handler(Handler())
    try:
        model.get_query_embedding("x")
        assert seen.count("EmbeddingStartEvent") == seen.count("EmbeddingEndEvent") == 1
        seen.clear()
        model.get_text_embedding_batch(["x", "y"])
        asyncio.run(model.aget_text_embedding_batch(["x", "y"]))
        assert seen.count("EmbeddingStartEvent") == 2
    finally:
        root.event_handlers.pop()


def test_d9_a_drift_map_is_served_in_batches(tiny_model_path, tmp_path):
    base = loaded(tiny_model_path)
    weight = np.eye(32, dtype=np.float32)
    who = identify(base, "query")
    save_drift(tmp_path / "d", DriftMap("procrustes", {"weight": weight}), old=identify(base), new=who, record={})
    passes = []
    inner = base._model
    inner.register_forward_pre_hook(lambda module, args: passes.append(len(args[0]["input_ids"])))
    as_encoder(DriftEmbedding(base, tmp_path / "d"), cache=None).encode_queries([f"text {n}" for n in range(99)])
    assert sum(passes) == 99
    assert len(passes) < 20


def test_d13_the_wait_is_for_the_stream_of_the_vectors(monkeypatch):
    """Without a GPU: the event of a copy must be recorded on the stream of the device that the vectors are on."""
    from llama_index_embft.embeddings.encoding import batching

    recorded = []

    class Event:
        def record(self, stream=None):
            recorded.append(stream)

        def synchronize(self):
            pass

    class Vectors:
        shape, dtype, device = (2, 3), torch.float32, torch.device("cuda:1")

    empty = torch.empty
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: ("stream of", device))
    monkeypatch.setattr(torch, "empty", lambda *args, pin_memory=False, **kwargs: Host(empty(*args, **kwargs)))

    class Host:
        def __init__(self, tensor):
            self.tensor = tensor

        def copy_(self, vectors, non_blocking):
            pass

    batching._Fetch(Vectors())
    assert recorded == [("stream of", torch.device("cuda:1"))]


# --- What an earlier version saved ------------------------------------------------------------------------------------


def test_earlier_adapters_moved_vectors_and_maps_are_recognized(tiny_model_path, tmp_path):
    base = loaded(tiny_model_path)
    expected = np.array(base.get_query_embedding("one"))
    for name in ("adapter", "nudged", "drift"):
        with pytest.raises(ModelError, match=r"saved by an earlier version.*force=True"):
            load_embed_model(EARLIER / name, base_embed_model=base)
    adapted, nudged, drift = (
        load_embed_model(EARLIER / name, base_embed_model=base, force=True) for name in ("adapter", "nudged", "drift")
    )
    assert adapted.get_query_embedding("one")[1:] == pytest.approx(expected[1:], abs=1e-5)
    assert nudged.get_text_embedding("one") == np.eye(1, 32)[0].tolist()
    assert drift.get_query_embedding("one") == pytest.approx(expected[::-1], abs=1e-5)


def test_an_earlier_cache_is_emptied_and_filled_anew(tiny_model_path, tmp_path, caplog):
    shutil.copy(EARLIER / "cache.sqlite", tmp_path / "c.sqlite")
    model = loaded(tiny_model_path)
    first = as_encoder(model, cache=EmbeddingCache(tmp_path / "c.sqlite"))
    first.encode_documents(["one", "two"])
    assert first.embedded_texts == 2
    assert "earlier version" in caplog.text
    second = as_encoder(model, cache=EmbeddingCache(tmp_path / "c.sqlite"))
    second.encode_documents(["one", "two"])
    assert second.embedded_texts == 0
    tables = sqlite3.connect(tmp_path / "c.sqlite").execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    assert [name for (name,) in tables] == ["vectors", "models"]


def test_an_earlier_stamp_asks_to_be_made_again(tiny_model_path, tmp_path):
    from llama_index.core import StorageContext, load_index_from_storage

    from llama_index_embft import check_index, stamp_index

    shutil.copytree(EARLIER / "index", tmp_path / "index")
    model = loaded(tiny_model_path)
    context = StorageContext.from_defaults(persist_dir=str(tmp_path / "index"))
    index = load_index_from_storage(context, embed_model=model)
    with pytest.raises(ModelError, match=r"stamped by an earlier version.*stamp_index"):
        check_index(index, model)
    stamp_index(index, model, verify=0, overwrite=True)
    assert check_index(index, model).model == identify(model)


class Odd(BaseEmbedding):
    """A class of somebody's own whose vectors are none."""

    vectors: list

    def _get_text_embedding(self, text):
        return self.vectors[len(text) % len(self.vectors)]

    def _get_query_embedding(self, query):
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query):
        return self._get_query_embedding(query)


@pytest.mark.parametrize(
    ("vectors", "what"),
    [
        ([[1.0, 2.0], [1.0]], "vectors of 1 to 2 numbers for 3 texts"),
        ([None], "vectors that hold something else than numbers"),
        ([["a", "b"]], "vectors that hold something else than numbers"),
        ([[]], "vectors"),
        ([[[1.0], [2.0]]], "vectors that hold something else than numbers"),
        ([1.0], "vectors that hold something else than numbers"),
        ([[10**400, 1]], "vectors that hold something else than numbers"),
    ],
    ids=["ragged", "none", "texts", "empty", "nested", "number", "huge"],
)
@pytest.mark.parametrize("kind", ["queries", "documents"])
def test_e14_what_is_no_vector_is_one_sentence(vectors, what, kind):
    encoder = as_encoder(Odd(model_name="odd", vectors=vectors), cache=None)
    with pytest.raises(ModelError, match=rf"Odd\(odd\) returned .*{what}.* must return one vector") as caught:
        getattr(encoder, f"encode_{kind}")(["a", "bb", "ccc"])
    assert "\n" not in str(caught.value)


def test_e14_what_the_class_itself_raises_stays_as_it_is():
    encoder = as_encoder(Odd(model_name="odd", vectors=[]), cache=None)
    with pytest.raises(ZeroDivisionError):
        encoder.encode_documents(["a"])


class Fitted(Served):
    """A model that is fitted anew in place: the object stays, and so do all that it is made of."""

    _parts: Any = PrivateAttr()

    def __init__(self, **fields):
        super().__init__(**fields)
        self._parts = SimpleNamespace(weights=SimpleNamespace(values=np.ones(2)), shift=torch.zeros(2))

    def _get_text_embedding(self, text):
        return (self._parts.weights.values + self._parts.shift.numpy() + len(text)).tolist()


def test_a1_a_model_that_was_fitted_anew_in_place_does_not_get_its_old_vectors(tmp_path):
    model = Fitted(model_name="m")

    def vector() -> list[float]:
        return as_encoder(model, cache=EmbeddingCache(tmp_path / "c.sqlite")).encode_documents(["a"])[0].tolist()

    assert vector() == [2.0, 2.0]
    model._parts.weights.values[:] = 5.0
    assert vector() == [6.0, 6.0]
    model._parts.shift += 1.0
    assert vector() == [7.0, 7.0]
    again = as_encoder(model, cache=EmbeddingCache(tmp_path / "c.sqlite"))
    again.encode_documents(["a"])
    assert again.embedded_texts == 0
