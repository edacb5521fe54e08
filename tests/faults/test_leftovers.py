"""What a killed process leaves behind is cleared away by the next; runs of one output do not harm each other."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import llama_index_embft
from llama_index_embft._core.files import write_folder_atomically
from llama_index_embft._core.temporary import remove_folder, scratch_folder, temporary_beside
from llama_index_embft.calls.journal import Journal
from llama_index_embft.cli.train.command import _write_more
from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
from llama_index_embft.embeddings import load_embed_model
from llama_index_embft.errors import OutputError
from llama_index_embft.finetune import EmbeddingAdapterFinetuneEngine, FinetuneResult

PACKAGE = Path(llama_index_embft.__file__).parent


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_e16_a_journal_without_a_path_is_cleared_away_after_a_kill(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code = (
        "import time; from llama_index_embft.calls.journal import Journal\n"
        "journal = Journal(); print('ready', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(tmp_path)}
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    alive = names(tmp_path)
    assert len(alive) == 1
    with Journal() as journal:
        assert alive < names(tmp_path)
    assert not journal.path.parent.exists()
    assert names(tmp_path) == alive
    child.send_signal(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
    child.wait()
    with Journal() as journal:
        assert names(tmp_path) == {journal.path.parent.name}
    assert not names(tmp_path)


def test_e16_scratch_lies_where_it_is_wanted_and_goes_after_an_error(tmp_path: Path) -> None:
    other = temporary_beside(tmp_path / "x")
    other.mkdir()

    def fails() -> None:
        with scratch_folder(tmp_path / "model") as folder:
            (folder / "file").write_text("x")
            assert folder.parent == tmp_path
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fails()
    assert names(tmp_path) == {other.name}


def test_e16_no_temporary_folder_is_made_that_the_next_run_would_not_know() -> None:
    makers = ("mkdtemp", "mkstemp", "TemporaryDirectory", "NamedTemporaryFile")
    found = [path for path in PACKAGE.rglob("*.py") if any(maker in path.read_text("utf-8") for maker in makers)]
    assert found == []


def test_e5_a_file_that_another_run_is_writing_is_nobodys_own(tmp_path: Path) -> None:
    with write_folder_atomically(tmp_path / "model") as folder:
        (folder / "weights").write_text("old")
    other = temporary_beside(tmp_path / "model" / "embft.json")
    other.write_text("half")
    with write_folder_atomically(tmp_path / "model") as folder:
        (folder / "weights").write_text("new")
    assert (tmp_path / "model" / "weights").read_text() == "new"
    (tmp_path / "model" / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="somebody added to the result"), write_folder_atomically(tmp_path / "model"):
        pass


def test_e5_a_folder_that_is_removed_is_whole_or_not_there(tmp_path: Path, monkeypatch) -> None:
    folder = tmp_path / "checkpoint-2"
    folder.mkdir()
    (folder / "a").write_text("x")
    seen = []
    monkeypatch.setattr(shutil, "rmtree", lambda path, **options: seen.append((folder.exists(), path != folder)))
    remove_folder(folder)
    assert seen == [(False, True)]


def test_e5_runs_of_one_output_end_whole_and_none_writes_into_anothers_result(tiny_model_path: str, tmp_path) -> None:
    letters = "abcdefghijklmnop"
    corpus = {f"d{i}": f"{letters[i % 16]} {letters[i % 7]} report {i}" for i in range(20)}
    data = EmbeddingQAFinetuneDataset(
        queries={f"q{i}": f"what is {letters[i % 16]} {i}" for i in range(20)},
        corpus=corpus,
        relevant_docs={f"q{i}": [f"d{i}"] for i in range(20)},
    )
    base = load_embed_model(tiny_model_path, device="cpu")

    def run(epochs: int) -> FinetuneResult:
        return EmbeddingAdapterFinetuneEngine(
            data, base, val_dataset=data, model_output_path=str(tmp_path / "m"), epochs=epochs, learning_rate=1e-2
        ).finetune()

    first = run(1)
    later = run(30)
    assert first.best_score != later.best_score
    assert _write_more(first, None, 1) == []  # by now the other run's result stands there
    record = json.loads((tmp_path / "m" / "embft.json").read_text("utf-8"))
    assert record["metrics"]["best"] == later.best_score
    assert "command" not in record
    assert [name for name, _ in _write_more(later, None, 1)][:2] == ["embft.json", "README.md"]
