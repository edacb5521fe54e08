"""The arithmetic of docs/scale.md: its tables are what the script prints, and its formulas are what arrays weigh."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("scale_simulation", ROOT / "benchmarks" / "scale_simulation.py")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))
    return module


def vectors(n, dim, seed=0):
    made = np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def test_the_table_in_the_docs_is_what_the_command_beside_it_prints(script, monkeypatch, capsys):
    text = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    command = re.search(r"python benchmarks/scale_simulation\.py (--plan .*--flops \S+)", text)
    monkeypatch.setattr(sys, "argv", ["scale_simulation.py", *command[1].split()])
    script.main()
    printed = [re.split(r"\s{2,}", line.strip()) for line in capsys.readouterr().out.splitlines() if "1e" in line[:3]]
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:4] == "| 1e"]
    assert len(printed) == 3
    assert table == printed


def test_hours_follow_the_rate_and_the_number_of_machines(script):
    plan = script.Plan(243, 8951, 1, 384, 48, 100_000, 1e12, 0.02)
    assert script.embed_hours(10**6, plan) == pytest.approx(243e6 / 8951 / 3600)
    assert script.embed_hours(10**8, plan._replace(machines=64)) == pytest.approx(243e8 / 8951 / 64 / 3600)
    row = script.plan_rows(plan._replace(machines=10), price=3.0)[0]
    assert row["embed cost"] == f"{script.embed_hours(10**6, plan) * 3:,.0f}"
    assert "embed cost" not in script.plan_rows(plan, price=None)[0]


def test_bytes_are_those_of_arrays(script):
    data = vectors(300, 64)
    found = script.store_bytes(300, 64, 8)
    assert found["fp32"] == data.nbytes
    assert found["fp16"] == data.astype(np.float16).nbytes
    assert found["int8"] == script.to_int8(data).nbytes
    assert found["binary"] == np.packbits(data > 0, axis=1).nbytes
    assert found["binary + int8 rescoring"] == found["binary"] + found["int8"]


def test_bytes_of_the_index_are_those_of_the_file(script, tmp_path):
    faiss = pytest.importorskip("faiss")
    data = vectors(3000, 32)
    faiss.write_index(script.ivf_pq(data, 8), str(tmp_path / "index"))
    assert script.ivf_pq_bytes(3000, 32, 8) == pytest.approx((tmp_path / "index").stat().st_size, rel=0.05)


def test_recall_falls_with_precision_and_rescoring_brings_it_back(script):
    pytest.importorskip("faiss")
    rng = np.random.default_rng(1)
    middle = vectors(60, 64, seed=2)
    data = middle[rng.integers(60, size=2050)] + 0.5 * vectors(2050, 64, seed=3)  # clusters, as texts have
    data = (data / np.linalg.norm(data, axis=1, keepdims=True)).astype(np.float32)
    rows = script.recall_rows("clusters", data[:-50], data[-50:], 16, 0.05)
    recall = {row["what"].split(": ")[1]: row["measured"] for row in rows}
    assert recall["int8"] > 0.95
    assert recall["binary"] < recall["binary + int8 rescoring"] <= 1.0
    names = [name for name in recall if name.startswith("IVF-PQ")]
    assert recall[names[0]] <= recall[names[1]] <= recall[names[2]]


def test_the_plan_alone_asks_for_a_rate(script, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["scale_simulation.py", "--plan"])
    with pytest.raises(SystemExit, match="needs --tokens-per-second"):
        script.main()


@pytest.mark.data
def test_sentences_are_distinct_and_in_a_fixed_order(script, shared_data):
    texts = script.sentences(shared_data)
    assert len(texts) == len(set(texts)) > 10_000
    assert texts == script.sentences(shared_data)
