"""Files and folders that appear whole or not at all, and folders that are replaced only where they are ours.

Everything is written under a temporary name beside its target, flushed to the disk, and renamed. A crash, a full disk
or a kill leaves what was there before. A folder that we write carries a list of its files (`MARK`); a folder without
one, or with a file that is not on it, belongs to the user and is never replaced.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, TypeAlias

from llama_index_embft._core.renaming import exchange, rename_with_patience
from llama_index_embft._core.temporary import aside_of, is_temporary, remove_dead, temporary_beside
from llama_index_embft.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

StrPath: TypeAlias = str | os.PathLike[str]
MARK: Final = ".embft-files.json"
# Errors that are about the disk itself, whoever raised them while a result folder was being filled.
DISK_ERRORS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG})
# safetensors reports the operating system's error in its own exception, as text.
_DISK_FULL_TEXTS: Final = ("No space left on device", "os error 28")


def atomic_write_text(path: StrPath, text: str) -> None:
    """Write a text file as UTF-8, whole or not at all; see `atomic_write_bytes`.

    Bytes of a file name that Python could not read, where the locale is not UTF-8 or the name is not, are written as
    they are if that is UTF-8, else as question marks.
    """
    atomic_write_bytes(path, _utf8(text))


def _utf8(text: str) -> bytes:
    for errors in ("strict", "surrogateescape"):
        with suppress(UnicodeError):
            data = text.encode("utf-8", errors)
            data.decode("utf-8")
            return data
    return text.encode("utf-8", "replace")


def atomic_write_bytes(path: StrPath, data: bytes) -> None:
    """Write a file, whole or not at all; see `open_atomically`."""
    with open_atomically(path) as file:
        file.write(data)


@contextmanager
def open_atomically(path: StrPath) -> Iterator[BinaryIO]:
    """Open a file to fill piece by piece; it appears under its name when the block ends, or not at all.

    Missing parent folders are made. An existing file is replaced and keeps its permissions; a symbolic link keeps
    pointing where it did. A device or a pipe (``/dev/stdout``) is written to directly. Inside one of our own folders
    the file joins the folder's list.

    Raises:
        OutputError: The file cannot be written (permission, full disk, a folder of that name). Nothing has changed.
    """
    target = _real(path)
    if target.is_dir():
        raise OutputError(f"Cannot write {path}: it is a folder; give the name of a file.")
    given = Path(path)  # ``/dev/stdout`` leads to a pipe, which has no place in the file system
    if given.exists() and not stat.S_ISREG(given.stat().st_mode):
        try:
            with given.open("wb") as device:  # renaming over a device would destroy the device
                yield device
        except OSError as err:
            raise OutputError(cannot_write(path, err)) from err
        return
    with _parents_of(target, shown=path):
        with _renamed_at_the_end(target, shown=path) as file:
            yield file
        names = files_of(target.parent)
        if names is not None and target.name not in names:
            _write_mark(target.parent, {*names, target.name})
        _sync_folder(target.parent)


@contextmanager
def write_folder_atomically(path: StrPath) -> Iterator[Path]:
    """Fill a folder that appears at ``path`` whole, when the block ends, or not at all.

    An empty folder is replaced, and so is one of ours (see `check_replaceable`). What a killed process left beside it
    is cleared away first, and an older result that it had moved aside is put back.

    Yields:
        A temporary folder beside ``path`` to write into.

    Raises:
        OutputError: The folder cannot be written or must not be replaced. What was there before is still there; if
            the block had finished and only the last step failed, the message says where the new folder lies.
    """
    target = _real(path)
    _recover(target)
    check_replaceable(target, path)
    with _parents_of(target, shown=path):
        temporary = temporary_beside(target)
        try:
            temporary.mkdir()
            yield temporary
        except BaseException as err:
            shutil.rmtree(temporary, ignore_errors=True)
            if _is_about_output(err, temporary):
                raise OutputError(cannot_write(path, err)) from err
            raise
        _finish(temporary, target, shown=path)
        _sync_folder(target.parent)


def check_output_folder(path: StrPath, *, keep: Iterable[StrPath] = ()) -> None:
    """Find out before the work, and not after it, that `write_folder_atomically` could not write its folder.

    Args:
        path: The folder.
        keep: Folders that the result needs, such as the model below an adapter; they would be gone with it.

    Raises:
        OutputError: It could not. Nothing has changed in any case.
    """
    target = _real(path)
    for needed in map(_real, keep):
        if needed == target or target in needed.parents:
            raise OutputError(
                f"Will not replace the folder {path}: the model that the result is made from lies there, and would be "
                "gone; choose another folder."
            )

    class TriedError(Exception):
        pass

    with suppress(TriedError), write_folder_atomically(path):
        raise TriedError


def check_replaceable(target: Path, shown: StrPath | None = None) -> None:
    """Refuse a folder that we did not write, or to which somebody has added files since.

    One matching file name is no proof of ownership: only the list that we left in the folder is.

    Raises:
        OutputError: It is a file, a mount point, or holds something that is not ours.
    """
    shown = target if shown is None else shown
    try:
        if not target.exists():
            return
        if not target.is_dir():
            raise OutputError(f"Cannot write the folder {shown}: a file has that name; move it or choose another name.")
        if os.path.ismount(target):
            raise OutputError(f"Cannot replace {shown}: it is a mount point; name a folder inside it.")
        # Another run may be about to replace a file in it.
        ours, found = files_of(target), sorted(name for name in _walk(target) if not is_temporary(name))
    except OutputError:
        raise
    except OSError as err:
        raise OutputError(cannot_write(shown, err)) from err
    others = found if ours is None else [name for name in found if name not in ours and name != MARK]
    if not others:
        return
    more = f" and {len(others) - 1} more" if len(others) > 1 else ""
    reason = "is not a result of llama-index-embft" if ours is None else "holds files that somebody added to the result"
    raise OutputError(
        f"Will not replace the folder {shown}: it {reason} ({others[0]}{more}); move them or choose another folder."
    )


def files_of(folder: Path) -> frozenset[str] | None:
    """The files that we wrote into a folder, relative to it, with forward slashes; None if it is not one of ours."""
    try:
        names = json.loads((folder / MARK).read_text(encoding="utf-8"))["files"]
        return frozenset(name for name in names if isinstance(name, str))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_mark(folder: Path, names: set[str]) -> None:
    body = {"written_by": "llama-index-embft", "files": sorted(names)}
    with _renamed_at_the_end(folder / MARK, shown=folder) as file:
        file.write((json.dumps(body, indent=1) + "\n").encode())


def _walk(folder: Path) -> Iterator[str]:
    """Files, links and empty folders below a folder, as relative paths with forward slashes; links are not followed."""
    for root, folders, files in os.walk(folder):
        inside = Path(root).relative_to(folder)
        links = [name for name in folders if Path(root, name).is_symlink()]
        for name in (*files, *links):
            yield (inside / name).as_posix()
        if not (files or folders) and root != str(folder):
            yield inside.as_posix() + "/"


@contextmanager
def _renamed_at_the_end(target: Path, *, shown: StrPath) -> Iterator[BinaryIO]:
    temporary = temporary_beside(target)
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            shutil.copymode(target, temporary)
        rename_with_patience(temporary, target, replace=True)
    except BaseException as err:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(err, OSError) and not isinstance(err, OutputError):
            raise OutputError(cannot_write(shown, err)) from err
        raise


def _recover(target: Path) -> None:
    """Put back an older result that a killed process had moved aside, and clear away what dead processes left."""
    with suppress(OSError):
        if not target.exists() and aside_of(target).is_dir():
            aside_of(target).rename(target)
        remove_dead(target.parent)


def _finish(temporary: Path, target: Path, *, shown: StrPath) -> None:
    """Mark a filled folder as ours and put it in its place. It may hold hours of training: it is never thrown away."""
    try:
        _write_mark(temporary, {name for name in _walk(temporary) if name != MARK})
        _sync_tree(temporary)
        check_replaceable(target, shown)  # filling it may have taken hours
        _swap_in(temporary, target)
    except OSError as err:
        kept = _keep_finished(temporary, target)
        reason = str(err) if isinstance(err, OutputError) else f"Cannot write {shown}: {err.strerror or err}."
        raise OutputError(f"{reason} The finished result lies in {kept}; rename it once that name is free.") from err


def _swap_in(temporary: Path, target: Path) -> None:
    """Put the finished folder in its place. Where the system cannot exchange two names, there are two renames."""
    if not target.exists():
        rename_with_patience(temporary, target)
    elif exchange(temporary, target):
        shutil.rmtree(temporary, ignore_errors=True)
    else:
        aside = aside_of(target)
        shutil.rmtree(aside, ignore_errors=True)
        rename_with_patience(target, aside)
        try:
            rename_with_patience(temporary, target)
        except BaseException:
            rename_with_patience(aside, target)
            raise
        shutil.rmtree(aside, ignore_errors=True)


def _keep_finished(temporary: Path, target: Path) -> Path:
    """Give a finished folder a name that nobody clears away: what was trained is not lost for a rename."""
    for number in range(1, 1000):
        kept = target.with_name(f"{target.name[:200]}.new{number}")
        if not kept.exists():
            with suppress(OSError):
                temporary.rename(kept)
                return kept
    return temporary


def _real(path: StrPath) -> Path:
    """The place that a path means, links followed; a name that the system cannot hold is one sentence."""
    try:
        target = Path(os.path.realpath(path))
        target.exists()
    except (OSError, ValueError) as err:  # too long; a NUL character
        raise OutputError(cannot_write(os.fspath(path), err)) from err
    return target


@contextmanager
def _parents_of(target: Path, *, shown: StrPath) -> Iterator[None]:
    """Make missing parent folders, and take them away again if the block fails."""
    missing = [parent for parent in target.parents if not parent.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        _remove_empty(missing)
        raise OutputError(cannot_write(shown, err)) from err
    try:
        yield
    except BaseException:
        _remove_empty(missing)
        raise


def _remove_empty(folders: list[Path]) -> None:
    with suppress(OSError):
        for folder in folders:  # innermost first
            folder.rmdir()


def _sync_tree(folder: Path) -> None:
    for root, _, names in os.walk(folder):
        for name in names:
            file = Path(root, name)
            # Windows flushes only what is open for writing, and a read-only file cannot be.
            with suppress(PermissionError):
                if not file.is_symlink():
                    with file.open("r+b") as opened:
                        os.fsync(opened.fileno())
        _sync_folder(Path(root))


def _sync_folder(folder: Path) -> None:
    # Windows cannot open a folder, and some network file systems cannot sync one; the rename itself has happened.
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _is_about_output(err: BaseException, folder: Path) -> bool:
    """Tell a failure of the output folder from the caller's other errors, such as an input file that is missing."""
    if isinstance(err, OutputError) or not isinstance(err, Exception):
        return False
    if isinstance(err, OSError):
        names = [str(name) for name in (err.filename, err.filename2) if name is not None]
        return err.errno in DISK_ERRORS or any(name.startswith(str(folder)) for name in names)
    return any(text in str(err) for text in _DISK_FULL_TEXTS)


def cannot_write(path: StrPath, err: BaseException) -> str:
    """One sentence for a failed write: what, why, and what to do. The place as it was before is still there."""
    reason, advice = str(err), "choose another place"
    if isinstance(err, OSError) and err.strerror:
        reason = err.strerror
        if err.errno in (errno.ENOSPC, errno.EDQUOT):
            advice = "free some space or choose another disk"
        elif err.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            advice = "choose a folder that you may write to"
        elif err.errno == errno.ENAMETOOLONG:
            return f"Cannot write {str(path)[:60]}…: the name is too long for this disk; choose a shorter one."
    elif any(text in reason for text in _DISK_FULL_TEXTS):
        reason, advice = "No space left on device", "free some space or choose another disk"
    return f"Cannot write {path}: {reason}; {advice}. What stood there is unchanged."
