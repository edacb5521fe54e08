"""Files and folders that appear whole or not at all.

Everything is written under a temporary name beside its target, flushed to the disk, and renamed. A crash, a full disk
or a kill leaves what was there before.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from llama_index_embft.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Errors that are about the disk itself, whoever raised them while a result folder was being filled.
_DISK_ERRORS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG})
# safetensors reports the operating system's error in its own exception, as text.
_DISK_FULL_TEXTS: Final = ("No space left on device", "os error 28")


def atomic_write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file as UTF-8, whole or not at all; see `atomic_write_bytes`."""
    atomic_write_bytes(path, text.encode("utf-8"))


def atomic_write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file, whole or not at all, and make missing parent folders.

    An existing file is replaced and keeps its permissions; a symbolic link keeps pointing where it did. A device or a
    pipe (``/dev/stdout``) is written to directly.

    Raises:
        OutputError: The file cannot be written (permission, full disk, a folder of that name). Nothing has changed.
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise OutputError(f"Cannot write {path}: it is a folder; give the name of a file.")
    if target.exists() and not stat.S_ISREG(target.stat().st_mode):
        try:
            target.write_bytes(data)  # renaming over a device would destroy the device
        except OSError as err:
            raise OutputError(_cannot_write(path, err)) from err
        return
    with _parents_of(target, shown=path):
        temporary = _temporary_beside(target)
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if target.exists():
                shutil.copymode(target, temporary)
            temporary.replace(target)
        except BaseException as err:
            with suppress(OSError):
                temporary.unlink()
            if isinstance(err, OSError):
                raise OutputError(_cannot_write(path, err)) from err
            raise
        _sync_folder(target.parent)


@contextmanager
def write_folder_atomically(
    path: str | os.PathLike[str], *, replaceable: Sequence[str] = ("embft.json",)
) -> Iterator[Path]:
    """Fill a folder that appears at ``path`` whole, when the block ends, or not at all.

    Args:
        path: The folder to be. Missing parents are made.
        replaceable: File names that mark an older result. An existing folder is replaced if it is empty or holds one of
            these; any other folder is the user's own and is refused, so that a wrong path never deletes data.

    Yields:
        A temporary folder beside ``path`` to write into.

    Raises:
        OutputError: The folder cannot be written or must not be replaced. What was there before is still there.
    """
    target = Path(os.path.realpath(path))
    _check_replaceable(target, path, replaceable)
    with _parents_of(target, shown=path):
        temporary = _temporary_beside(target)
        try:
            temporary.mkdir()
            yield temporary
            _sync_tree(temporary)
            _check_replaceable(target, path, replaceable)  # the block may have taken hours
            _swap_in(temporary, target)
        except BaseException as err:
            shutil.rmtree(temporary, ignore_errors=True)
            if _is_about_output(err, temporary):
                raise OutputError(_cannot_write(path, err)) from err
            raise
        _sync_folder(target.parent)


def check_output_folder(path: str | os.PathLike[str], *, replaceable: Sequence[str] = ("embft.json",)) -> None:
    """Find out before the work, and not after it, that `write_folder_atomically` could not write its folder.

    Raises:
        OutputError: It could not. Nothing has changed in any case.
    """

    class TriedError(Exception):
        pass

    with suppress(TriedError), write_folder_atomically(path, replaceable=replaceable):
        raise TriedError


def _check_replaceable(target: Path, shown: str | os.PathLike[str], replaceable: Sequence[str]) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        raise OutputError(
            f"Cannot write the folder {shown}: a file of that name exists; move it or choose another name."
        )
    if os.path.ismount(target):
        raise OutputError(
            f"Cannot write {shown}: it is a mount point, which cannot be replaced; name a folder inside it."
        )
    try:
        names = {entry.name for entry in target.iterdir()}
    except OSError as err:
        raise OutputError(_cannot_write(shown, err)) from err
    if names and names.isdisjoint(replaceable):
        raise OutputError(
            f"Will not replace the folder {shown}: it holds {len(names)} entries (first: {min(names)}) and is no "
            "earlier result; choose a new or an empty folder."
        )


def _swap_in(temporary: Path, target: Path) -> None:
    """Rename the finished folder to its place; an older result is put back if that fails."""
    if not target.exists():
        temporary.rename(target)
        return
    aside = _temporary_beside(target)
    target.rename(aside)
    try:
        temporary.rename(target)
    except BaseException:
        aside.rename(target)
        raise
    shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def _parents_of(target: Path, *, shown: str | os.PathLike[str]) -> Iterator[None]:
    """Make missing parent folders, and take them away again if the block fails."""
    missing = [parent for parent in target.parents if not parent.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        _remove_empty(missing)
        raise OutputError(_cannot_write(shown, err)) from err
    try:
        yield
    except BaseException:
        _remove_empty(missing)
        raise


def _remove_empty(folders: list[Path]) -> None:
    with suppress(OSError):
        for folder in folders:  # innermost first
            folder.rmdir()


def _temporary_beside(target: Path) -> Path:
    # Not built from the target's name, which may already be as long as the file system allows.
    return target.parent / f".embft-{os.getpid()}-{secrets.token_hex(4)}.tmp"


def _sync_tree(folder: Path) -> None:
    for root, _, names in os.walk(folder):
        for name in names:
            file = Path(root, name)
            if not file.is_symlink():
                descriptor = os.open(file, os.O_RDONLY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
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
        return err.errno in _DISK_ERRORS or any(name.startswith(str(folder)) for name in names)
    return any(text in str(err) for text in _DISK_FULL_TEXTS)


def _cannot_write(path: str | os.PathLike[str], err: BaseException) -> str:
    reason, advice = str(err), "choose another place"
    if isinstance(err, OSError) and err.strerror:
        reason = err.strerror
        if err.errno in (errno.ENOSPC, errno.EDQUOT):
            advice = "free some space or choose another disk"
        elif err.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            advice = "choose a folder that you may write to"
    elif any(text in reason for text in _DISK_FULL_TEXTS):
        reason, advice = "No space left on device", "free some space or choose another disk"
    return f"Cannot write {path}: {reason}; {advice}. Nothing was changed."
