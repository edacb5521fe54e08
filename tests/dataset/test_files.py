"""Files and folders appear whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from llama_index_embft._core.files import atomic_write_bytes, atomic_write_text, write_folder_atomically
from llama_index_embft.errors import OutputError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", fsync)


def test_a_file_is_written_with_its_parents_and_nothing_else(tmp_path: Path) -> None:
    atomic_write_text(tmp_path / "a" / "b" / "file.txt", "Grüße\n")
    assert (tmp_path / "a" / "b" / "file.txt").read_bytes() == "Grüße\n".encode()
    assert names(tmp_path / "a" / "b") == ["file.txt"]


def test_an_existing_file_is_replaced_and_keeps_its_permissions(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("old")
    path.chmod(0o640)
    atomic_write_bytes(str(path), b"new")
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_new_file_has_ordinary_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    atomic_write_text(tmp_path / "x", "new")
    assert (tmp_path / "x").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_link_keeps_pointing_where_it_did(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    atomic_write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


def test_a_device_is_written_to_and_not_replaced() -> None:
    atomic_write_text("/dev/null", "gone")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_a_long_name_fits(tmp_path: Path) -> None:
    atomic_write_text(tmp_path / ("x" * 250), "new")


def test_a_full_disk_leaves_the_old_file_and_no_leftovers(tmp_path: Path, full_disk: None) -> None:
    path = tmp_path / "x"
    path.write_text("old")
    message = (
        r"Cannot write .*x: No space left on device; free some space or choose another disk\. Nothing was changed\."
    )
    with pytest.raises(OutputError, match=message):
        atomic_write_text(path, "new")
    assert path.read_text() == "old"
    with pytest.raises(OutputError):
        atomic_write_text(tmp_path / "new" / "deep" / "x", "new")
    assert names(tmp_path) == ["x"]


def test_a_real_full_disk() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    with pytest.raises(OutputError, match="No space left on device"):
        atomic_write_text("/dev/full", "new")


def test_places_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    for write in (lambda path: atomic_write_text(path, "x"), lambda path: write_folder_atomically(path).__enter__()):
        with pytest.raises(
            OutputError, match=r"Cannot write .*inside: (Not a directory|File exists); choose another place"
        ):
            write(tmp_path / "file" / "inside")
        with pytest.raises(OutputError):
            write("/proc/nowhere/x")

    def refuse(self: Path, *args: object, **kwargs: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(OutputError, match="Permission denied; choose a folder that you may write to"):
        atomic_write_text(tmp_path / "x", "x")


def test_an_interrupt_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        atomic_write_text(tmp_path / "x", "x")
    assert names(tmp_path) == []


# --- folders ----------------------------------------------------------------------------------------------------------


def test_a_folder_appears_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "runs" / "one"
    with write_folder_atomically(target) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "file").write_text("x")
        assert not target.exists()
        assert folder.parent == target.parent
    assert (target / "sub" / "file").read_text() == "x"
    assert names(target.parent) == ["one"]


def test_an_earlier_result_is_replaced_whole(tmp_path: Path) -> None:
    for content in ("first", "second"):
        with write_folder_atomically(tmp_path / "model") as folder:
            (folder / "embft.json").write_text(content)
            (folder / content).touch()
    assert names(tmp_path / "model") == ["embft.json", "second"]
    assert names(tmp_path) == ["model"]


def test_other_peoples_folders_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("years of work")
    with pytest.raises(
        OutputError, match=r"Will not replace the folder .*thesis: it holds 1 entries \(first: chapter1"
    ):
        write_folder_atomically(tmp_path / "thesis").__enter__()
    (tmp_path / "empty").mkdir()
    with write_folder_atomically(tmp_path / "empty") as folder:
        (folder / "x").touch()
    assert names(tmp_path / "empty") == ["x"]
    with write_folder_atomically(tmp_path / "empty", replaceable=("x",)) as folder:
        (folder / "y").touch()
    assert names(tmp_path / "empty") == ["y"]


def test_a_file_or_mount_point_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="a file of that name exists; move it or choose another name"):
        write_folder_atomically(tmp_path / "file").__enter__()
    with pytest.raises(OutputError, match="it is a mount point, which cannot be replaced; name a folder inside it"):
        write_folder_atomically("/proc").__enter__()


def test_a_failure_in_the_block_leaves_the_old_result(tmp_path: Path) -> None:
    with write_folder_atomically(tmp_path / "model") as folder:
        (folder / "embft.json").write_text("old")
    for error in (ValueError("bad"), KeyboardInterrupt(), FileNotFoundError(errno.ENOENT, "No such file", "/in/put")):
        with pytest.raises(type(error)):  # noqa: PT012, SIM117 - the block is what is tested
            with write_folder_atomically(tmp_path / "model") as folder:
                (folder / "embft.json").write_text("half")
                raise error
    assert (tmp_path / "model" / "embft.json").read_text() == "old"
    assert names(tmp_path) == ["model"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_in_the_block_is_an_output_error(tmp_path: Path, error: Exception) -> None:
    with (
        pytest.raises(OutputError, match="No space left on device; free some space or choose another disk"),
        write_folder_atomically(tmp_path / "new" / "model"),
    ):
        raise error
    assert names(tmp_path) == []


def test_a_failed_rename_puts_the_old_result_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with write_folder_atomically(tmp_path / "model") as folder:
        (folder / "embft.json").write_text("old")
    rename, calls = Path.rename, iter(range(9))

    def second_fails(self: Path, target: Path) -> Path:
        if next(calls) == 1:
            raise OSError(errno.EIO, "Input/output error", str(self))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", second_fails)
    with pytest.raises(OutputError, match="Input/output error"), write_folder_atomically(tmp_path / "model") as folder:
        (folder / "embft.json").write_text("new")
    assert (tmp_path / "model" / "embft.json").read_text() == "old"
    assert names(tmp_path) == ["model"]
