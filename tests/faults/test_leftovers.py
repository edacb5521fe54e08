"""What a killed process leaves behind: it is known as its own, and the next one clears it away."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import llama_index_embft
from llama_index_embft._core.temporary import scratch_folder, temporary_beside
from llama_index_embft.calls.journal import Journal

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
