"""The Python of the two how-to guides runs as it stands there."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from index_places import Place, PlainEmbedding, make_nodes
from llama_index.core import VectorStoreIndex
from llama_index.core.llms import MockLLM

from llama_index_embft.embeddings import ModelIdentity, as_encoder, linear_adapter, save_adapter

GUIDES = Path(__file__).resolve().parents[2] / "docs" / "how-to"


class ShuffledPlain(PlainEmbedding):
    """The model "old" with its dimensions in another order."""

    def _get_text_embedding(self, text: str) -> list[float]:
        return np.roll(PlainEmbedding(model_name="old").get_text_embedding(text), 5).tolist()

    def identity(self, side: str, given: str | None = None) -> ModelIdentity:
        return ModelIdentity.of(self.model_name, type(self).__name__, self.model_name, given or "")


def run_blocks(guide: str, names: dict[str, object], n: int) -> dict[str, object]:
    blocks = re.findall(r"```python\n(.*?)```", (GUIDES / guide).read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == n
    for block in blocks:
        exec(compile(block, guide, "exec"), names)
    return names


def test_index(place_of: Callable[..., Place], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    model = PlainEmbedding(model_name="old")
    for name, documents in (("adapter", False), ("adapter-both", True)):
        save_adapter(
            name,
            linear_adapter(32, bias=True),
            base={},
            base_fingerprint=as_encoder(model, cache=None).fingerprint,
            record={},
            transform_documents=documents,
        )
    index = place_of("simple").build(make_nodes(20), model)
    run_blocks("index.md", {"index": index, "embed_model": model, "llm": MockLLM()}, 3)
    assert "UpdatePlan(" in capsys.readouterr().out


def test_switch_model(place_of: Callable[..., Place], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    old, new = PlainEmbedding(model_name="old"), ShuffledPlain(model_name="new")
    names = {
        "index": place_of("simple").build(make_nodes(90), old),
        "old_model": old,
        "new_model": new,
        "new_index": VectorStoreIndex([], embed_model=new),
    }
    names = run_blocks("switch-model.md", names, 2)
    assert names["migrating"].served_by["new"] == 1  # type: ignore[attr-defined]
    out = capsys.readouterr().out
    assert "of the full re-embed's 10 hits are kept" in out
    assert "done=20, total=90" in out
