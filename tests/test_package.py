"""The package as a whole: light to import, complete in its names, true in its metadata."""

from __future__ import annotations

import subprocess
import sys
import time
from importlib import metadata

import pytest

import llama_index_embft
from llama_index_embft._core.optional import EXTRA_OF, require
from llama_index_embft.errors import EmbftError, MissingExtraError


def test_import_loads_neither_torch_nor_transformers_and_is_quick():
    heavy = ["torch", "transformers", "sentence_transformers", "llama_index", "numpy", "pandas"]
    code = (
        "import sys, time; t = time.perf_counter(); import llama_index_embft; s = time.perf_counter() - t;"
        f"print(s, sorted(set({heavy}) & set(sys.modules)))"
    )
    best = None
    for _ in range(3):  # the machine may be busy: the quickest of three is what the import costs
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        seconds, loaded = out.split(" ", 1)
        assert loaded.strip() == "[]"
        best = min(float(seconds), best or 9.0)
    assert best < 0.3


@pytest.mark.parametrize("name", llama_index_embft.__all__)
def test_every_public_name_can_be_imported_and_is_documented(name):
    assert getattr(llama_index_embft, name).__doc__


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="fine_tune"):
        _ = llama_index_embft.fine_tune


def test_version_is_that_of_the_metadata():
    assert llama_index_embft.__version__ == metadata.version("llama-index-embft")


def test_extras_named_in_messages_exist():
    extras = set(metadata.metadata("llama-index-embft").get_all("Provides-Extra"))
    assert set(EXTRA_OF.values()) <= extras


def test_a_missing_package_names_the_pip_command(monkeypatch):
    monkeypatch.setitem(EXTRA_OF, "no_such_package", "demo")
    with pytest.raises(MissingExtraError, match=r'pip install "llama-index-embft\[demo\]"') as caught:
        require("no_such_package.inner", feature="This test")
    assert isinstance(caught.value, (ImportError, EmbftError))


def test_an_installed_but_broken_package_shows_its_own_error(monkeypatch, tmp_path):
    (tmp_path / "broken_package.py").write_text("import something_it_needs")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(EXTRA_OF, "broken_package", "demo")
    with pytest.raises(ModuleNotFoundError, match="something_it_needs") as caught:
        require("broken_package", feature="This test")
    assert not isinstance(caught.value, EmbftError)


def test_start_of_the_command_line_is_quick_too():
    started = time.perf_counter()
    out = subprocess.run([sys.executable, "-m", "llama_index_embft.cli.app", "--help"], capture_output=True, text=True)
    assert "demo" in out.stdout
    assert time.perf_counter() - started < 10
