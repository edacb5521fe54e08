"""The Python of the how-to guide runs as it stands there."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest_generation import make_nodes
from llama_index.core import Document
from llama_index.core.embeddings import MockEmbedding
from loopback_llm import Behaviour, LoopbackLLM

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "generate.md"


def test_every_block_of_the_guide_runs(
    serve: Callable[..., LoopbackLLM], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    server = serve(script=lambda request: Behaviour(text="5") if "\n5 - " in request.prompt else None)
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 9
    asked = ["How long does a driver wait for the money?", "When is a ride free?"]
    names: dict[str, object] = {"nodes": make_nodes(8), "embed_model": MockEmbedding(8), "real_questions": asked}
    names["documents"] = [Document(text="The harbour master opens the harbour at noon, and closes it at night.")]
    for block in blocks:
        exec(compile(block.replace("http://localhost:8000/v1", server.api_base), "generate.md", "exec"), names)
        if "generate_negatives" in block:
            assert names["dataset"].negative_docs  # type: ignore[attr-defined]
    assert names["samples"].report.relevant == 2  # type: ignore[attr-defined]
