"""Names and folders to embedding models."""

from __future__ import annotations

import json
import shutil
import time
from types import SimpleNamespace

import numpy as np
import pytest

from llama_index_embft._core import environment
from llama_index_embft.embeddings import (
    as_encoder,
    linear_adapter,
    load_cross_encoder,
    load_embed_model,
    resolve_model_name,
    save_adapter,
)
from llama_index_embft.embeddings.describe import DEMO_MODEL, describe_base
from llama_index_embft.errors import ModelError


def test_a_sentence_transformer_folder_keeps_its_saved_prompts(tiny_model_path, tmp_path):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(tiny_model_path, device="cpu", prompts={"query": "query: ", "passage": "passage: "})
    model.save_pretrained(str(tmp_path / "e5"), create_model_card=False)
    backend = as_encoder(load_embed_model(tmp_path / "e5", device="cpu"), cache=None).backend
    assert (backend.prompt("query"), backend.prompt("document")) == ("query: ", "passage: ")
    given = as_encoder(load_embed_model(tmp_path / "e5", query_prompt="ask: ", device="cpu"), cache=None).backend
    assert given.prompt("query") == "ask: "


def test_llama_index_style_local_prefix(tiny_model_path):
    assert resolve_model_name(f"local:{tiny_model_path}") == tiny_model_path


def test_a_folder_loads_without_a_home_to_write_to(tiny_model_path, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder can be made below a file")
    monkeypatch.setenv("LLAMA_INDEX_CACHE_DIR", str(tmp_path / "file" / "cache"))
    assert len(load_embed_model(tiny_model_path).get_text_embedding("hello")) == 32


def test_hub_names_pass_through():
    assert resolve_model_name("BAAI/bge-small-en-v1.5") == "BAAI/bge-small-en-v1.5"


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "a/b/c", "~/no-model", "", "  "])
def test_paths_that_do_not_exist(name):
    with pytest.raises(ModelError, match=r"does not exist; check the path"):
        load_embed_model(name)


def test_a_file_an_empty_folder_and_an_unreachable_hub_name(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ModelError, match="is a file; give the folder"):
        load_embed_model(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="holds no model"):
        load_embed_model(tmp_path / "empty")
    with pytest.raises(ModelError, match=r"cannot be loaded.*Check the name, the network, or give a local folder"):
        load_embed_model("nobody/no-such-model")


@pytest.fixture
def _hub_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub at whose address nobody listens."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")


@pytest.mark.usefixtures("_hub_gone")
@pytest.mark.parametrize("load", [load_embed_model, load_cross_encoder])
def test_without_the_hub_a_name_is_refused_at_once_instead_of_after_minutes(load):
    started = time.monotonic()
    with pytest.raises(ModelError, match=r"nobody/no-such-model is not on this disk, and the hub cannot be reached"):
        load("nobody/no-such-model")
    assert time.monotonic() - started < 30  # the hub itself tries for two minutes


@pytest.mark.usefixtures("_hub_gone")
def test_without_the_hub_what_is_in_its_cache_is_loaded(tiny_model_path, tmp_path, monkeypatch):
    repository = tmp_path / "models--nobody--tiny"
    shutil.copytree(tiny_model_path, repository / "snapshots" / "0123abcd")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123abcd")
    monkeypatch.setenv("LLAMA_INDEX_CACHE_DIR", str(tmp_path))
    started = time.monotonic()
    model = load_embed_model("nobody/tiny")
    assert time.monotonic() - started < 30  # the hub itself tries for two minutes
    assert model.get_text_embedding("lamp") == load_embed_model(tiny_model_path).get_text_embedding("lamp")


def test_the_hub_is_asked_once_and_again_a_minute_after_it_failed(monkeypatch):
    from huggingface_hub import constants, utils

    now, asked, broken = [1000.0], [], [True]

    def head(address, timeout):
        asked.append(timeout)
        if broken[0]:
            raise OSError("no route")

    monkeypatch.setattr(environment, "_hub_answers", {})
    monkeypatch.setattr(environment.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(utils, "get_session", lambda: SimpleNamespace(head=head))
    assert environment.hub_failure() is None  # switched off, as in all tests
    assert asked == []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert [environment.hub_failure(), environment.hub_failure(3)] == ["no route"] * 2
    assert asked == [constants.HF_HUB_ETAG_TIMEOUT]
    now[0], broken[0] = 1061.0, False
    assert environment.hub_failure(3) is None
    now[0], broken[0] = 1e9, True
    assert environment.hub_failure() is None
    assert len(asked) == 2


def test_damaged_weights(tiny_model_path, tmp_path):
    shutil.copytree(tiny_model_path, tmp_path / "m")
    weights = tmp_path / "m" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="The folder is damaged"):
        load_embed_model(tmp_path / "m")


def test_the_demo_model_is_named_not_located(minilm_path):
    model = load_embed_model(DEMO_MODEL, device="cpu")
    assert len(model.get_query_embedding("hello")) == 384
    assert describe_base(model)["model_name"] == DEMO_MODEL


def test_a_relative_folder_is_found_from_another_working_folder(tiny_model_path, tmp_path, monkeypatch):
    shutil.copytree(tiny_model_path, tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    base = load_embed_model("./model", device="cpu")
    who = as_encoder(base).fingerprint
    save_adapter("adapter", linear_adapter(32), base=describe_base(base), base_fingerprint=who, record={})
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert len(load_embed_model("../adapter", device="cpu").get_query_embedding("a")) == 32


def test_half_a_character_is_read_as_a_question_mark(tiny_model_path):
    model = load_embed_model(tiny_model_path, device="cpu")
    expected = model.get_text_embedding("a?b")
    assert model.get_text_embedding("a\ud800b") == expected
    for size in (None, 4):
        found = as_encoder(model, cache=None, batch_size=size).encode_documents(np.array(["a\ud800b"]))
        assert found[0].tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("kind", "words"),
    [("CrossEncoder", "it scores pairs of texts; use it with load_reranker"), ("SparseEncoder", "vectors are sparse")],
)
def test_what_was_saved_as_something_else_is_not_made_an_embedding_model_of(kind, words, tiny_model_path, tmp_path):
    folder = shutil.copytree(tiny_model_path, tmp_path / "m")
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"model_type": kind}))
    with pytest.raises(ModelError, match=f"m is no embedding model: .*{words}"):
        load_embed_model(folder)
