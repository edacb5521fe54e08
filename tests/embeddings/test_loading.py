"""Names and folders to embedding models."""

from __future__ import annotations

import pytest

from llama_index_embft.embeddings import as_encoder, load_embed_model, resolve_model_name
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


def test_damaged_weights(tiny_model_path, tmp_path):
    import shutil

    shutil.copytree(tiny_model_path, tmp_path / "m")
    weights = tmp_path / "m" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="The folder is damaged"):
        load_embed_model(tmp_path / "m")


def test_the_demo_model_is_named_not_located(minilm_path):
    model = load_embed_model(DEMO_MODEL, device="cpu")
    assert len(model.get_query_embedding("hello")) == 384
    assert describe_base(model)["model_name"] == DEMO_MODEL
