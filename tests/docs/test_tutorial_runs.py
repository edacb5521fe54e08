"""The Python of the tutorials runs as it stands, in English and in Chinese; only the model is a tiny one."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from doc_pages import blocks
from llama_index.core import VectorStoreIndex
from llama_index.core.schema import TextNode

from llama_index_embft import load_embed_model, tune

PLACES = [
    "Norway",
    "Chile",
    "Kenya",
    "Japan",
    "Malta",
    "Peru",
    "Estonia",
    "Canada",
    "Nepal",
    "Portugal",
    "Ghana",
    "Fiji",
]
THINGS = ["bridge", "violin", "glacier", "printer", "orchard", "volcano", "lighthouse", "tractor"]


def write_documents(folder: Path) -> None:
    chance = random.Random(0)
    folder.mkdir()
    for place in PLACES:
        parts = [
            f"The {thing} of {place} was finished in {chance.randint(1850, 2020)} because the people there "
            f"needed a {thing} with {chance.randint(3, 99)} rooms. Its annual cost is {chance.randint(10, 900)} "
            "million dollars."
            for thing in chance.sample(THINGS, 5)
        ]
        (folder / f"{place}.txt").write_text("\n\n".join(parts), encoding="utf-8")


def run(page: str, names: dict[str, object], model: str) -> dict[str, object]:
    found = [block for block in blocks("python") if block.place.startswith(f"docs/{page}:")]
    assert found
    for block in found:
        text = re.sub(r'"BAAI/bge-small-\w\w-v1.5"', repr(model), block.text)
        exec(compile(text, block.place, "exec"), names)
    return names


@pytest.fixture
def index(tiny_model_path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> VectorStoreIndex:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EMBFT_CACHE_DIR", str(tmp_path / "cache"))
    write_documents(tmp_path / "docs")
    nodes = [TextNode(text=f"{place} is far away.", id_=place) for place in PLACES]
    return VectorStoreIndex(nodes, embed_model=load_embed_model(tiny_model_path))


def test_the_tutorial_runs(index: VectorStoreIndex, tiny_model_path: str) -> None:
    names = run("tutorial.md", {"index": index}, tiny_model_path)
    assert "queries" in str(names["result"].verdict)  # type: ignore[attr-defined]
    assert len(names["retriever"].retrieve("Where is Norway?")) == 5  # type: ignore[attr-defined]
    assert Path("report.html").stat().st_size > 1000


def test_the_chinese_tutorial_runs(index: VectorStoreIndex, tiny_model_path: str) -> None:
    del index  # it is made by the tutorial itself
    tune("docs", model=tiny_model_path, methods="none", output_path="runs/latest", show_progress=False)
    names = run("zh/tutorial.md", {}, tiny_model_path)
    assert names["hits"]
    assert Path("report.html").stat().st_size > 1000
