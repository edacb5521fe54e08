"""Read a script or a notebook, find what to change, and write it back whole or not at all."""

from __future__ import annotations

import difflib
import io
import tokenize
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llama_index_embft._core.files import atomic_write_bytes
from llama_index_embft.errors import DocumentError
from llama_index_embft.migration.code import apply, rewrite
from llama_index_embft.migration.notebook import code_cells, edits_in_file
from llama_index_embft.migration.notes import Note, notes_on

if TYPE_CHECKING:
    import os


@dataclass(frozen=True)
class Migration:
    """What would change in a file, and what its user should know.

    Attributes:
        path: The file.
        before: Its bytes when it was read.
        after: Its bytes with old imports rewritten; all others are as they were.
        blocks: Name of a changed block (the file, or a cell) -> its code before and after.
        notes: What is different beyond the imports.
        packages: What the new imports need, as names for pip.
    """

    path: Path
    before: bytes
    after: bytes
    blocks: dict[str, tuple[str, str]]
    notes: tuple[Note, ...]
    packages: tuple[str, ...]

    @property
    def changed(self) -> bool:
        """Whether anything would be rewritten."""
        return self.before != self.after

    def diff(self) -> str:
        """A unified diff of the code; of a notebook, cell by cell."""
        parts = []
        for name, (before, after) in self.blocks.items():
            old, new = (io.StringIO(code).readlines() for code in (before, after))
            lines = difflib.unified_diff(old, new, name, name, n=1)
            parts += [line if line.endswith("\n") else line + "\n" for line in lines]
        return "".join(parts)

    def write(self) -> None:
        """Write the file, whole or not at all.

        Raises:
            DocumentError: The file has changed since it was read: an open Jupyter, for example.
            OutputError: It cannot be written.
        """
        if _read(self.path) != self.before:
            raise DocumentError(f"{self.path} has changed since it was read; close it elsewhere and try again.")
        if self.changed:
            atomic_write_bytes(self.path, self.after)


def migrate_file(path: str | os.PathLike[str]) -> Migration:
    """Find what to change in a script (``.py``) or a notebook (``.ipynb``); nothing is written.

    Imports of `llama_index.finetuning`, of `EmbeddingQAFinetuneDataset` from wherever it once lived, of
    `llama_index.legacy`, and of the one-package LlamaIndex up to 0.9 are rewritten, as are pip lines in cells. The rest
    of the file stays byte for byte: formatting, comments, outputs, metadata.

    Raises:
        DocumentError: The file cannot be read, is no notebook, or has another ending.
    """
    file = Path(path)
    suffix = file.suffix.lower()
    if suffix not in (".py", ".ipynb"):
        raise DocumentError(f"{file} is neither a script (.py) nor a notebook (.ipynb); save it as one of them.")
    before = _read(file)
    text, encoding = _decoded(file, before, notebook=suffix == ".ipynb")
    return (_notebook if suffix == ".ipynb" else _script)(file, before, text, encoding)


def _script(file: Path, before: bytes, text: str, encoding: str) -> Migration:
    result = rewrite(text)
    after = apply(text, result.edits)
    notes = [*result.notes, *notes_on(text, "", set())]
    blocks = {str(file): (text, after)} if after != text else {}
    return Migration(file, before, after.encode(encoding), blocks, tuple(notes), tuple(sorted(result.packages)))


def _notebook(file: Path, before: bytes, text: str, encoding: str) -> Migration:
    edits, notes, packages, said = [], [], set(), set[str]()
    blocks = {}
    for cell in code_cells(text, str(file)):
        place = f"cell {cell.number}, "
        result = rewrite(cell.code, place, cell=True)
        notes += [*result.notes, *notes_on(cell.code, place, said)]
        packages |= result.packages
        if result.edits:
            edits += edits_in_file(text, cell, result.edits)
            blocks[f"{file}, cell {cell.number}"] = (cell.code, apply(cell.code, result.edits))
    after = apply(text, edits).encode(encoding) if edits else before
    return Migration(file, before, after, blocks, tuple(notes), tuple(sorted(packages)))


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as err:
        raise DocumentError(f"Cannot read {file}: {err.strerror or err}; check the path.") from err


def _decoded(file: Path, data: bytes, *, notebook: bool) -> tuple[str, str]:
    """The text, without a byte order mark, and the encoding that gives the same bytes back."""
    if b"\0" in data:
        raise DocumentError(f"{file} holds zero bytes, as no text does; save it as UTF-8.")
    try:
        if notebook:
            encoding = "utf-8-sig" if data.startswith(b"\xef\xbb\xbf") else "utf-8"
        else:
            encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        return data.decode(encoding), encoding
    except (UnicodeDecodeError, SyntaxError, LookupError) as err:
        raise DocumentError(f"{file} is not text in its encoding ({err}); save it as UTF-8.") from err
