"""Where a command runs: unusual locales, names, pipes and disks cost a sentence at most, never a result."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="locales, devices and limits of POSIX")
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "größe 阀门.json"
    texts = {f"d{n}": f"The lamp {n} – 灯 – stands in room {n}." for n in range(4)}
    queries = {f"q{n}": f"Where is the lamp {n} – 灯?" for n in range(4)}
    relevant = {f"q{n}": [f"d{n}"] for n in range(4)}
    path.write_text(json.dumps({"queries": queries, "corpus": texts, "relevant_docs": relevant}), encoding="utf-8")
    return path


def embft(*words: object, before: str = "", **options: object) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, as a shell starts it."""
    code = f"{before}\nfrom llama_index_embft.cli.app import main; main()"
    environment = {**os.environ, **options.pop("env", {})}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "encoding": "utf-8", "errors": "replace"}
    return subprocess.run([sys.executable, "-c", code, *map(str, words)], env=environment, **streams | options)


def test_letters_that_the_terminal_cannot_take_become_question_marks(data):
    said = embft("inspect", data.name, cwd=data.parent, env=ASCII)
    assert said.returncode == 0, said.stderr
    assert "lamp 0 ? ? ?" in said.stdout
    assert said.stderr == ""


def test_what_is_written_in_a_locale_of_ascii_has_its_letters(data):
    said = embft("convert", data.name, "päare 中.jsonl", "--to", "pairs", cwd=data.parent, env=ASCII)
    assert said.returncode == 0, said.stderr
    rows = (data.parent / "päare 中.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(rows[0])["anchor"] == "Where is the lamp 0 – 灯?"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has this device")
def test_a_full_disk_behind_the_output_is_a_sentence(data):
    with Path("/dev/full").open("w") as full:
        said = embft("inspect", data, stdout=full)
    assert said.returncode == 2
    assert said.stderr.strip() == (
        "Error: Cannot write the output: No space left on device; free some space or choose another disk. What stood "
        "there is unchanged."
    )


def test_a_file_that_may_not_grow_leaves_nothing_behind(data, tmp_path):
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))"
    (tmp_path / "out").mkdir()
    said = embft("convert", data, tmp_path / "out" / "pairs.jsonl", "--to", "pairs", before=limit)
    assert said.returncode == 2
    assert said.stderr.startswith("Error: Cannot write ")
    assert "File too large" in said.stderr
    assert list((tmp_path / "out").iterdir()) == []


def test_a_reader_that_goes_away_is_no_error_to_speak_of(data):
    code = "from llama_index_embft.cli.app import main; main()"
    words = [sys.executable, "-c", code, "inspect", str(data)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_a_path_that_a_library_cannot_take_is_a_sentence():
    before = "import llama_index_embft.cli.app as app\ndef broken(): 'm\\udcf6dell'.encode()\napp.app = broken"
    said = embft(before=before)
    assert said.returncode == 2
    assert said.stderr.strip() == (
        "Error: A path holds bytes that are no letters in this locale (\\udcf6); set PYTHONUTF8=1 or LANG=C.UTF-8, or "
        "rename it."
    )


def test_a_cache_that_cannot_be_written_is_said_before_any_work(data, tiny_model_path, tmp_path):
    (tmp_path / "file").write_text("no folder can be made below a file", encoding="utf-8")
    here = {"EMBFT_CACHE_DIR": str(tmp_path / "file" / "cache")}
    said = embft("run", data, "--embed-model", tiny_model_path, "--out", tmp_path / "out", env=here)
    assert said.returncode == 2
    assert said.stderr.splitlines()[-1].startswith("Error: Cannot write the cache folder ")
    assert "set EMBFT_CACHE_DIR to a folder that you may write to." in said.stderr
    assert not (tmp_path / "out").exists()


def test_the_demo_says_at_once_that_it_cannot_write(tmp_path):
    (tmp_path / "file").write_text("no folder can be made below a file", encoding="utf-8")
    said = embft("demo", "--out", tmp_path / "file" / "demo")
    assert said.returncode == 2
    assert said.stderr.startswith(f"Error: Cannot write {tmp_path / 'file' / 'demo'}: ")
    assert said.stdout == ""
