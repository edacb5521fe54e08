"""Files written line by line, that appear whole or not at all."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

from llama_index_embft._core import files
from llama_index_embft.errors import DatasetError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator


@contextmanager
def open_atomically(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """As `llama_index_embft._core.files.open_atomically`.

    Raises:
        OutputError: The file cannot be written. An older file of that name is untouched.
        DatasetError: A text holds half of a character, which UTF-8 cannot hold.
    """
    try:
        with files.open_atomically(path) as file:
            yield file
    except UnicodeEncodeError as err:
        raise DatasetError(
            f"Cannot write {path}: a text holds half of a character (a lone surrogate, {err.object[err.start]!r}); "
            "correct it in the data set."
        ) from err


def write_pieces(path: str | os.PathLike[str], pieces: Iterable[str]) -> int:
    """Write texts one after the other as UTF-8, whole or not at all; returns how many there were."""
    count = 0
    with open_atomically(path) as file:
        for piece in pieces:
            file.write(piece.encode("utf-8"))
            count += 1
    return count
