"""What the tests of the commands share."""

from __future__ import annotations

import sys

import pytest

from llama_index_embft.cli import app


@pytest.fixture
def embft(monkeypatch, capsys):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["embft", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as stopped:
            app.main()
        said = capsys.readouterr()
        return stopped.value.code, said.out, said.err

    return call
