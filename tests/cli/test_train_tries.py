"""embft train says what was tried before it chose, and how far NUDGE can reach."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from llama_index_embft.cli import app
from llama_index_embft.cli.train import command, tries as _tries
from llama_index_embft.cli.train.tries import show_tries
from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
from llama_index_embft.finetune import FinetuneResult


def make_dataset(template: str, asked: range) -> EmbeddingQAFinetuneDataset:
    return EmbeddingQAFinetuneDataset(
        queries={f"q{n}": template.format(n) for n in asked},
        corpus={f"d{n}": f"thing {n} is here, item {n * 7 % 12}" for n in range(12)},
        relevant_docs={f"q{n}": [f"d{n}"] for n in asked},
    )


@pytest.fixture
def embft(tmp_path, monkeypatch, capsys, tiny_model_path):
    make_dataset("where is thing {}", range(9)).save_json(tmp_path / "train.json")
    make_dataset("find the thing {} please", range(4, 12)).save_json(tmp_path / "val.json")
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> str:
        flags = ["--embed-model", tiny_model_path, "--device", "cpu", "--no-progress", "--out", "m"]
        monkeypatch.setattr(sys, "argv", ["embft", "train", "train.json", *flags, *arguments])
        monkeypatch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as stopped:
            app.main()
        said = capsys.readouterr()
        assert stopped.value.code == 0, said.err
        return said.out

    return call


@pytest.mark.parametrize("val", [(), ("--val", "val.json")], ids=["folds alone", "folds, then validation"])
def test_an_automatic_adapter_shows_its_tries(embft, val):
    out = embft("--method", "adapter", "--kind", "auto", "--epochs", "2", "--folds", "3", "--time-budget", "60", *val)
    assert "\nTried, ndcg@10 on 3 folds " in out
    table = out.partition("Tried, ")[2].partition("└")[0]
    for tried in ("base model", "linear", "low-rank", "mlp", "ridge", "procrustes"):
        assert tried in table
    assert table.count("chosen") == 1
    assert "bias" not in table
    assert out.count("│ best │") == 1


def test_one_adapter_has_no_table(embft):
    assert "Tried" not in embft("--method", "adapter", "--epochs", "1", "--val", "val.json")


def test_nudge_says_how_many_validation_queries_it_can_reach(embft):
    out = embft("--method", "nudge", "--val", "val.json", "--steps", "4")
    assert "5 of 8 validation queries are about a document that has a training query" in out


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("┃│").replace("┃", "│").split("│")]


def test_no_value_of_a_try_is_left_out(embft, monkeypatch):
    """The columns are named in one place and the rows are made in another."""
    seen: list[FinetuneResult] = []
    monkeypatch.setattr(command, "show_tries", seen.append)
    embft("--method", "adapter", "--kind", "auto", "--epochs", "1", "--folds", "2", "--val", "val.json")
    known = {*_tries._SETTINGS, *_tries._OUTCOME, seen[0].metric}
    assert {name for row in seen[0].tries for name in row} <= known


def test_the_table_on_validation_with_a_row_that_was_not_tried(capsys, monkeypatch):
    chosen = {"kind": "linear", "start": "ridge", "bias": True, "ndcg@10": 0.62345, "step": 40, "seconds": 1.26}
    late = {"kind": "mlp", "start": "identity", "bias": False, "learning_rate": 1e-4}
    tries = [
        {"kind": "base model", "ndcg@10": 0.5},
        {**chosen, "ridge": 1.0, "note": "chosen"},
        {**late, "note": "not tried: the time was up"},
    ]
    result = FinetuneResult(Path("m"), "adapter", "ndcg@10", 0.5, 0.62345, 40, 40, tries=tries, selection="validation")
    monkeypatch.setenv("COLUMNS", "200")
    show_tries(result)
    out = capsys.readouterr().out
    title, _, head, *rows = out.splitlines()
    assert title.rstrip() == "Tried, ndcg@10 on validation"
    assert cells(head) == ["kind", "start", "bias", "learning_rate", "ndcg@10", "step", "ridge", "seconds", ""]
    assert cells(rows[2]) == ["linear", "ridge", "yes", "", "0.6234", "40", "1", "1.3", "chosen"]
    assert "not tried: the time was up" in rows[3]
