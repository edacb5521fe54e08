"""The Python of the README runs as it stands; only the library that it reads is a smaller one."""

from __future__ import annotations

import shutil
import sysconfig
from functools import partial
from pathlib import Path

import pytest
from doc_pages import blocks

import llama_index_embft.dataset as dataset_face

MODULES = ("calendar", "cmd", "configparser", "fractions", "getpass", "random", "statistics")


@pytest.mark.e2e
@pytest.mark.system  # trains for a minute
def test_the_ten_lines_of_the_readme_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EMBFT_CACHE_DIR", str(tmp_path / "cache"))
    library = Path(sysconfig.get_paths()["stdlib"])
    (tmp_path / "library").mkdir()
    for name in MODULES:
        shutil.copy(library / f"{name}.py", tmp_path / "library")
    smaller = partial(dataset_face.build_stdlib_dataset, tmp_path / "library")
    monkeypatch.setattr(dataset_face, "build_stdlib_dataset", smaller)

    (block,) = [block for block in blocks("python") if block.place.startswith("README.md")]
    exec(compile(block.text, block.place, "exec"), {})

    *before, first, _, _ = capsys.readouterr().out.splitlines()
    assert any("questions" in line for line in before)
    assert first.split()[1].startswith("getpass:")
    assert (tmp_path / "best" / "report.html").is_file()
    assert len(block.text.split("\n")) <= 10
