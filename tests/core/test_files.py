"""Files and folders appear whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from llama_index_embft._core import files
from llama_index_embft._core.files import (
    MARK,
    atomic_write_bytes,
    atomic_write_text,
    check_output_folder,
    files_of,
    open_atomically,
    write_folder_atomically,
)
from llama_index_embft._core.temporary import aside_of, temporary_beside
from llama_index_embft.errors import OutputError


def names(folder: Path) -> list[str]:
    """Names in a folder, without the list of our own files."""
    return sorted(path.name for path in folder.iterdir() if path.name != MARK)


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
    assert names(tmp_path) == ["x" * 250]
    assert (tmp_path / ("x" * 250)).read_text() == "new"


def test_a_full_disk_leaves_the_old_file_and_no_leftovers(tmp_path: Path, full_disk: None) -> None:
    path = tmp_path / "x"
    path.write_text("old")
    message = r"Cannot write .*x: No space left on device; free some space or choose another disk\. What stood "
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


def test_what_a_result_needs_is_not_replaced_by_it(tmp_path: Path) -> None:
    with write_folder_atomically(tmp_path / "run") as folder:
        (folder / "model").mkdir()
    (tmp_path / "latest").symlink_to(tmp_path / "run")
    for needed in ("run", "run/model", "latest/model"):
        with pytest.raises(OutputError, match="the model that the result is made from lies there"):
            check_output_folder(tmp_path / "run", keep=[tmp_path / needed])
    check_output_folder(tmp_path / "run", keep=[tmp_path / "runs", tmp_path])


def test_other_peoples_folders_are_not_replaced(tmp_path: Path) -> None:
    for name in ("report.json", "embft.json", "model.safetensors", "corpus.jsonl"):
        theirs = tmp_path / name.partition(".")[0]
        theirs.mkdir()
        (theirs / name).write_text("{}")
        (theirs / "thesis.tex").write_text("years of work")
        with pytest.raises(
            OutputError, match=rf"is not a result of llama-index-embft \({name} and 1 more\); move them"
        ):
            check_output_folder(theirs)
        assert names(theirs) == [name, "thesis.tex"]
    (tmp_path / "empty").mkdir()
    with write_folder_atomically(tmp_path / "empty") as folder:
        (folder / "x").touch()
    assert names(tmp_path / "empty") == ["x"]


def test_a_result_to_which_somebody_added_files_is_not_replaced(tmp_path: Path) -> None:
    with write_folder_atomically(tmp_path / "model") as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "weights").touch()
    assert files_of(tmp_path / "model") == {"sub/weights"}
    atomic_write_text(tmp_path / "model" / "README.md", "ours: it joins the list")
    check_output_folder(tmp_path / "model")
    for added in ("notes.md", "sub/notes.md", ".git/"):
        path = tmp_path / "model" / added
        path.mkdir() if added.endswith("/") else path.write_text("mine")
        with pytest.raises(OutputError, match=rf"files that somebody added to the result \({added}\)"):
            check_output_folder(tmp_path / "model")
        path.rmdir() if added.endswith("/") else path.unlink()
    check_output_folder(tmp_path / "model")


@pytest.mark.parametrize("mark", ["", "[]", "null", '{"files": 3}', '{"files": [1]}', "\x00"])
def test_a_damaged_list_is_no_proof_of_ownership(tmp_path: Path, mark: str) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / MARK).write_text(mark)
    (tmp_path / "model" / "weights").touch()
    with pytest.raises(OutputError, match="Will not replace"):
        check_output_folder(tmp_path / "model")


def test_a_file_or_mount_point_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="a file has that name; move it or choose another name"):
        write_folder_atomically(tmp_path / "file").__enter__()
    with pytest.raises(OutputError, match="it is a mount point; name a folder inside it"):
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


@pytest.fixture(params=["exchange", "two renames"])
def way_of_swapping(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "two renames":
        monkeypatch.setattr(files, "exchange", lambda one, other: False)
    return request.param


def test_both_ways_of_swapping_replace_the_whole_folder(tmp_path: Path, way_of_swapping: str) -> None:
    for content in ("first", "second"):
        with write_folder_atomically(tmp_path / "model") as folder:
            (folder / content).touch()
    assert names(tmp_path / "model") == ["second"]
    assert names(tmp_path) == ["model"]


def test_a_refused_swap_keeps_the_old_result_and_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with write_folder_atomically(tmp_path / "model") as folder:
        (folder / "weights").write_text("old")
    monkeypatch.setattr(files, "exchange", lambda one, other: False)
    rename = Path.rename

    def held_open(self: Path, target: Path) -> Path:
        if self.name == "model":
            raise PermissionError(errno.EACCES, "Access is denied", str(self))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", held_open)
    monkeypatch.setattr("llama_index_embft._core.renaming._WAITS", (0.0, 0.0))
    with (
        pytest.raises(OutputError, match=r"Access is denied\. The finished result lies in .*model\.new1; rename it"),
        write_folder_atomically(tmp_path / "model") as folder,
    ):
        (folder / "weights").write_text("hours of training")
    assert (tmp_path / "model" / "weights").read_text() == "old"
    assert (tmp_path / "model.new1" / "weights").read_text() == "hours of training"


def test_a_disk_that_fills_up_at_the_last_step_costs_no_training(tmp_path: Path, full_disk: None) -> None:
    with (
        pytest.raises(OutputError, match=r"No space left on device.* The finished result lies in .*model\.new1"),
        write_folder_atomically(tmp_path / "model") as folder,
    ):
        (folder / "weights").write_text("hours of training")
    assert (tmp_path / "model.new1" / "weights").read_text() == "hours of training"


def test_files_that_appear_in_the_way_while_training_are_kept_and_so_is_the_result(tmp_path: Path) -> None:
    with (  # noqa: PT012 - the block is what is tested
        pytest.raises(OutputError, match=r"Will not replace .* The finished result lies in .*model\.new1"),
        write_folder_atomically(tmp_path / "model") as folder,
    ):
        (folder / "weights").touch()
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "notes").touch()
    assert names(tmp_path / "model") == ["notes"]
    assert names(tmp_path / "model.new1") == ["weights"]


def test_the_first_rename_that_is_refused_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace, calls = Path.replace, []

    def scanned(self: Path, target: Path) -> Path:
        calls.append(self)
        if len(calls) < 3:
            raise PermissionError(errno.EACCES, "Access is denied", str(self))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", scanned)
    monkeypatch.setattr("llama_index_embft._core.renaming._WAITS", (0.0, 0.0, 0.0))
    atomic_write_text(tmp_path / "x", "new")
    assert len(calls) == 3
    assert (tmp_path / "x").read_text() == "new"


def test_an_older_result_that_a_killed_process_moved_aside_comes_back(tmp_path: Path) -> None:
    with write_folder_atomically(tmp_path / "model") as folder:
        (folder / "weights").write_text("old")
    (tmp_path / "model").rename(aside_of(tmp_path / "model"))  # killed between the two renames
    check_output_folder(tmp_path / "model")
    assert (tmp_path / "model" / "weights").read_text() == "old"
    assert names(tmp_path) == ["model"]


def test_what_dead_processes_left_is_cleared_away_and_what_live_ones_write_is_not(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from llama_index_embft._core.files import *;"
        f"context = write_folder_atomically(Path({str(tmp_path)!r}) / 'other'); context.__enter__();"
        "print('ready', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    mine = temporary_beside(tmp_path / "x")
    mine.mkdir()
    check_output_folder(tmp_path / "model")
    assert len(names(tmp_path)) == 2  # both are alive
    child.kill()
    child.wait()
    check_output_folder(tmp_path / "model")
    assert names(tmp_path) == [mine.name]


def test_windows_flushes_only_what_is_open_for_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")
    fsync, flushed = os.fsync, []

    def windows_fsync(descriptor: int) -> None:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        flushed.append(descriptor)
        fsync(descriptor)

    monkeypatch.setattr("os.fsync", windows_fsync)
    with write_folder_atomically(tmp_path / "model") as folder:
        (folder / "weights").write_text("x")
        (folder / "read-only").write_text("x")
        (folder / "read-only").chmod(0o444)
    assert names(tmp_path / "model") == ["read-only", "weights"]
    assert flushed


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"])
def test_names_that_no_disk_can_hold(tmp_path: Path, name: str) -> None:
    for write in (lambda path: atomic_write_text(path, "x"), check_output_folder):
        with pytest.raises(OutputError, match="Cannot write"):
            write(f"{tmp_path}/{name}")
    assert names(tmp_path) == []


def test_a_file_can_be_filled_piece_by_piece(tmp_path: Path) -> None:
    with open_atomically(tmp_path / "x") as file:
        file.write(b"one ")
        assert names(tmp_path) != ["x"]
        file.write(b"two")
    assert (tmp_path / "x").read_bytes() == b"one two"
    assert names(tmp_path) == ["x"]


def test_a_name_that_is_no_text_is_written_to_and_written_down(tmp_path):
    name = os.fsdecode(b"m\xf6dell")  # Latin-1, as an old archive unpacks it
    with write_folder_atomically(tmp_path / name) as folder:
        atomic_write_text(folder / "card.md", f"made by {name}, from {chr(0xDCC3)}{chr(0xDCB6)} and ö\n")
    # What is UTF-8 after all, as every name is in a locale of ASCII, stays what it is; the rest has no letters.
    assert (tmp_path / name / "card.md").read_text(encoding="utf-8") == "made by m?dell, from ?? and ö\n"
    atomic_write_text(tmp_path / "ascii.md", f"from {chr(0xDCC3)}{chr(0xDCB6)} and ö\n")
    assert (tmp_path / "ascii.md").read_text(encoding="utf-8") == "from ö and ö\n"


@pytest.mark.skipif(os.name != "posix", reason="/dev/stdout")
def test_a_pipe_behind_dev_stdout_is_written_to():
    code = "from llama_index_embft._core.files import atomic_write_text; atomic_write_text('/dev/stdout', 'all of it')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "all of it"), done.stderr
