"""A saved drift map: files, damage, and the wrong model."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest
from llama_index.embeddings.huggingface import HuggingFaceEmbedding

from llama_index_embft._core.vectors import unit_rows
from llama_index_embft.embeddings import DriftEmbedding, DriftMap, as_encoder, load_embed_model
from llama_index_embft.embeddings.drift import read_drift, save_drift
from llama_index_embft.embeddings.identity import ModelIdentity, identify
from llama_index_embft.errors import ModelError

OLD = ModelIdentity("0" * 32, "the old one")


@pytest.fixture
def model(tiny_model_path: str) -> HuggingFaceEmbedding:
    return HuggingFaceEmbedding(model_name=tiny_model_path, device="cpu")


@pytest.fixture
def folder(model: HuggingFaceEmbedding, tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    shapes = {"weight": (32, 48), "bias": (48,), "hidden_weight": (32, 5), "hidden_bias": (5,), "out_weight": (5, 48)}
    tensors = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    save_drift(
        tmp_path / "d", DriftMap("mlp", tensors), old=OLD, new=identify(model, "query"), record={"kind": "drift"}
    )
    return tmp_path / "d"


def test_every_call_gives_the_mapped_vector(model: HuggingFaceEmbedding, folder: Path) -> None:
    drift = DriftEmbedding(model, folder)
    expected = drift.drift_map(np.array([model.get_text_embedding("a fox")], dtype=np.float32))[0]
    assert expected.shape == (48,)
    assert np.isclose(np.linalg.norm(expected), 1.0, atol=1e-5)
    for vector in (
        drift.get_text_embedding("a fox"),
        drift.get_text_embedding_batch(["a hen", "a fox"])[1],
        asyncio.run(drift.aget_text_embedding("a fox")),
        asyncio.run(drift.aget_text_embedding_batch(["a hen", "a fox"]))[1],
        drift.get_query_embedding("a fox"),
        asyncio.run(drift.aget_query_embedding("a fox")),
        as_encoder(drift).encode_queries(["a fox"])[0],
    ):
        np.testing.assert_allclose(vector, expected, atol=1e-5)


def test_the_map_serves_as_torch_trains_it(folder: Path) -> None:
    import torch

    _, drift_map = read_drift(folder)
    x = unit_rows(np.random.default_rng(1).normal(size=(4, 32)).astype(np.float32))
    t = {name: torch.from_numpy(tensor) for name, tensor in drift_map.tensors.items()}
    inner = torch.nn.functional.gelu(torch.from_numpy(x) @ t["hidden_weight"] + t["hidden_bias"], approximate="tanh")
    y = torch.from_numpy(x) @ t["weight"] + t["bias"] + inner @ t["out_weight"]
    np.testing.assert_allclose(drift_map(x), torch.nn.functional.normalize(y).numpy(), atol=1e-5)
    assert drift_map(x[:0]).shape == (0, 48)


def test_identity_and_cache_tell_maps_apart(model: HuggingFaceEmbedding, folder: Path) -> None:
    one = DriftEmbedding(model, folder)
    assert one.identity("document") == OLD
    config, drift_map = read_drift(folder)
    tensors = {**drift_map.tensors, "bias": drift_map.tensors["bias"] + 1}
    save_drift(folder, DriftMap("mlp", tensors), old=OLD, new=identify(model, "query"), record={})
    two = DriftEmbedding(model, folder)  # another map in the same folder
    assert one.identity("query") != two.identity("query")
    assert as_encoder(one).fingerprint != as_encoder(two).fingerprint
    assert config["old"]["name"] == "the old one"


def test_it_serializes_with_llama_index(model: HuggingFaceEmbedding, folder: Path) -> None:
    drift = DriftEmbedding(model, folder)
    data = json.loads(json.dumps(drift.to_dict()))
    again = DriftEmbedding.from_dict(data)
    assert again.get_query_embedding("a fox") == drift.get_query_embedding("a fox")
    assert again.model_name == drift.model_name
    assert DriftEmbedding.from_dict(data, base_embed_model=model).identity("query") == drift.identity("query")


def test_another_model_is_refused(folder: Path, tiny_model_path: str) -> None:
    prompted = HuggingFaceEmbedding(model_name=tiny_model_path, device="cpu", query_instruction="query: ")
    with pytest.raises(ModelError, match=r"was fitted on .* not on .* pass force=True"):
        DriftEmbedding(prompted, folder)
    assert len(DriftEmbedding(prompted, folder, force=True).get_query_embedding("a fox")) == 48


def test_damaged_files(model: HuggingFaceEmbedding, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds no drift map"):
        DriftEmbedding(model, tmp_path)
    weights = folder / "adapter.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])  # cut short
    with pytest.raises(ModelError, match=r"is damaged|cut short"):
        read_drift(folder)
    weights.write_bytes(whole)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "old": {"name": "x"}}))
    with pytest.raises(ModelError, match="do not belong together"):
        read_drift(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"is damaged|cut short"):
        read_drift(folder)
    (folder / "config.json").write_text(json.dumps(config))
    _, drift_map = read_drift(folder)
    bad = {**drift_map.tensors, "bias": np.full(48, np.nan, dtype=np.float32)}
    save_drift(folder, DriftMap("mlp", bad), old=OLD, new=OLD, record={})
    with pytest.raises(ModelError, match="hold NaN"):
        read_drift(folder)


def test_load_embed_model_asks_for_the_new_model(model: HuggingFaceEmbedding, folder: Path) -> None:
    with pytest.raises(ModelError, match="pass the new model"):
        load_embed_model(folder)
    loaded = load_embed_model(folder, base_embed_model=model)
    assert isinstance(loaded, DriftEmbedding)
    assert loaded.get_query_embedding("a fox") == DriftEmbedding(model, folder).get_query_embedding("a fox")
