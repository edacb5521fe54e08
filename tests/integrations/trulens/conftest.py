"""Each test has a cache folder of its own: a judge's journal there would answer for another test's judge."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _own_journals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBFT_CACHE_DIR", str(tmp_path / "cache-of-this-test"))
