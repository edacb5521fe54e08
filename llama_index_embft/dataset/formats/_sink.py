"""Files written line by line, that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import stat
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from llama_index_embft._core import files as _files
from llama_index_embft.errors import DatasetError, OutputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@contextmanager
def open_atomically(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file to fill piece by piece; it appears under its name when the block ends, or not at all.

    As `llama_index_embft._core.files.atomic_write_bytes`, for what need not fit into memory.

    Raises:
        OutputError: The file cannot be written. An older file of that name is untouched.
        DatasetError: A text holds half of a character, which UTF-8 cannot hold.
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise OutputError(f"Cannot write {path}: it is a folder; give the name of a file.")
    try:
        if target.exists() and not stat.S_ISREG(target.stat().st_mode):
            with target.open("wb") as device:  # renaming over a device would destroy the device
                yield device
            return
        with _files._parents_of(target, shown=path):
            temporary = _files._temporary_beside(target)
            try:
                with temporary.open("xb") as file:
                    yield file
                    file.flush()
                    os.fsync(file.fileno())
                if target.exists():
                    shutil.copymode(target, temporary)
                temporary.replace(target)
            except BaseException:
                with suppress(OSError):
                    temporary.unlink()
                raise
            _files._sync_folder(target.parent)
    except UnicodeEncodeError as err:
        raise DatasetError(
            f"Cannot write {path}: a text holds half of a character (a lone surrogate, {err.object[err.start]!r}); "
            "correct it in the data set."
        ) from err
    except OutputError:
        raise
    except OSError as err:
        raise OutputError(_files._cannot_write(path, err)) from err


def write_pieces(path: str | os.PathLike[str], pieces: Iterable[str]) -> int:
    """Write texts one after the other as UTF-8, whole or not at all; returns how many there were."""
    count = 0
    with open_atomically(path) as file:
        for piece in pieces:
            file.write(piece.encode("utf-8"))
            count += 1
    return count
