"""The Python of the guide runs as it stands there, and its figures are those of the benchmark."""

from __future__ import annotations

import json
import re
from pathlib import Path

from llama_index.core.llms import MockLLM

from llama_index_embft.dataset import EmbeddingQAFinetuneDataset

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "how-to" / "hybrid-retriever.md").read_text(encoding="utf-8")


def test_the_guide_runs(index, nodes, embed_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dataset = EmbeddingQAFinetuneDataset(
        queries={"a": "the owl near the river", "b": "wolf harbour"},
        corpus={node.node_id: node.text for node in nodes},
        relevant_docs={"a": ["n06"], "b": ["n59"]},
    )
    names = {"index": index, "dataset": dataset, "embed_model": embed_model, "llm": MockLLM()}
    blocks = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        exec(compile(block, "hybrid-retriever.md", "exec"), names)
    assert len(names["engine"].query("owl").source_nodes) == 5
    assert names["report"].mean("recall@5") == 1.0
    assert 0 <= names["choice"].weight <= 1
    assert names["retriever"].retrieve("wolf harbour number 59")[0].node.node_id == "n59"


def test_its_table_of_words_is_the_benchmark_s():
    rows = json.loads((ROOT / "benchmarks" / "results" / "stack_words.json").read_text())["rows"]
    table = re.search(r"\| words \| covidqa .*?\n\n", GUIDE, re.DOTALL)
    assert table is not None
    lines = [re.findall(r"\.\d{3}", line) for line in table[0].strip().splitlines()[2:]]
    assert len(lines) == len(rows)
    for line, row in zip(lines, rows, strict=True):
        assert line == [f"{value:.3f}"[1:] for name, value in row.items() if name != "tokens"]


def test_its_cost_is_the_benchmark_s():
    row = json.loads((ROOT / "benchmarks" / "results" / "stack.json").read_text())["rows"][0]
    assert row["nodes"] == 10_000
    assert f"{row['adds (ms)']:.1f} ms a query" in GUIDE
    assert row["adds, p95 (ms)"] < 3
