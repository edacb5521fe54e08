"""Runs get folders of their own, and `latest` leads to the newest."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from llama_index_embft.cli.shared.dated import dated_folder, point_latest

NOON = datetime(2026, 1, 2, 12, 0, 5)


def test_two_runs_in_one_second_have_two_folders(tmp_path: Path) -> None:
    one = dated_folder(tmp_path, now=NOON)
    assert one.name == "2026-01-02_12-00-05"
    one.mkdir()
    assert dated_folder(tmp_path, now=NOON).name == "2026-01-02_12-00-05_2"


def test_latest_leads_to_the_newest_and_moves_with_the_folder_above(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "file").write_text(name)
        assert point_latest(tmp_path / "runs" / name) == tmp_path / "runs" / "latest"
    (tmp_path / "runs").rename(tmp_path / "moved")
    assert (tmp_path / "moved" / "latest" / "file").read_text() == "two"


def test_a_folder_of_the_users_own_named_latest_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "latest").mkdir()
    (tmp_path / "latest" / "thesis").touch()
    (tmp_path / "new").mkdir()
    assert point_latest(tmp_path / "new").read_text() == "new\n"
    assert (tmp_path / "latest" / "thesis").exists()


def test_without_links_a_file_names_the_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, *args: object, **kwargs: object) -> None:
        raise OSError("A required privilege is not held by the client")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    (tmp_path / "new").mkdir()
    assert point_latest(tmp_path / "new") == tmp_path / "latest.txt"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest.txt", "new"]
