"""Read a script or a notebook, find what to change, and write it back whole or not at all."""

from __future__ import annotations

import difflib
import io
import json
import re
import tokenize
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index_embft._core.checks import first_line
from llama_index_embft._core.files import atomic_write_bytes
from llama_index_embft.errors import DocumentError
from llama_index_embft.migration.code import Note, notes_on, rewrite

if TYPE_CHECKING:
    import os


@dataclass(frozen=True)
class Migration:
    """What would change in a file: its bytes, and the code of changed cells; notes, and what pip has to install."""

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
        lines: list[str] = []
        for name, (before, after) in self.blocks.items():
            old, new = (io.StringIO(text).readlines() for text in (before, after))
            lines += difflib.unified_diff(old, new, name, name, n=1)
        return "".join(line if line.endswith("\n") else line + "\n" for line in lines)

    def write(self) -> None:
        """Write the file, whole or not at all.

        Raises:
            DocumentError: The file has changed since it was read: an open Jupyter, for example.
            OutputError: It cannot be written.
        """
        if self.path.read_bytes() != self.before:
            raise DocumentError(f"{self.path} has changed since it was read; close it elsewhere and try again.")
        if self.changed:
            atomic_write_bytes(self.path, self.after)


def migrate_file(path: str | os.PathLike[str]) -> Migration:
    """Find what to change in a script (``.py``) or a notebook (``.ipynb``); nothing is written.

    Imports of `llama_index.finetuning`, of `EmbeddingQAFinetuneDataset` from wherever it once lived, of adapters, of
    `llama_index.legacy`, and of the one-package LlamaIndex up to 0.9 are rewritten, as are pip lines in cells. The rest
    of the file stays byte for byte: formatting, comments, outputs, metadata.

    Raises:
        DocumentError: The file cannot be read, is no notebook, or has another ending.
    """
    file = Path(path)
    if file.suffix.lower() not in (".py", ".ipynb"):
        raise DocumentError(f"{file} is neither a script (.py) nor a notebook (.ipynb); save it as one of them.")
    notebook = file.suffix.lower() == ".ipynb"
    before, text, encoding = _read(file, notebook=notebook)
    content = _notebook(file, text) if notebook else {"cells": [{"cell_type": "code", "source": text}]}
    blocks, notes, packages, said = {}, [], set[str](), set[str]()
    for number, cell in enumerate(content["cells"], 1):
        place = f"cell {number}, " if notebook else ""
        code = _source(cell, file, number)
        result = rewrite(code, place, cell=notebook)
        notes += [*result.notes, *notes_on(code, place, said)]
        packages |= result.packages
        if result.code != code:
            blocks[f"{file}, cell {number}" if notebook else str(file)] = (code, result.code)
            cell["source"] = result.code.splitlines(keepends=True) if isinstance(cell["source"], list) else result.code
    changed = _in_its_style(content, text) if notebook else content["cells"][0]["source"]
    after = changed.encode(encoding) if blocks else before
    return Migration(file, before, after, blocks, tuple(notes), tuple(sorted(packages)))


def _notebook(file: Path, text: str) -> Any:
    try:
        content = json.loads(text)
        json.dumps(content)  # what cannot be written back is found out now
    except (RecursionError, ValueError) as err:
        reason = "it is nested too deeply" if isinstance(err, RecursionError) else f"it is not JSON ({first_line(err)})"
        raise DocumentError(f"{file} is not a notebook: {reason}; save it again in Jupyter.") from err
    cells = content.get("cells") if isinstance(content, dict) else None
    if not isinstance(cells, list) or not all(isinstance(cell, dict) for cell in cells):
        advice = "if it is of before 2015, convert it: jupyter nbconvert --to notebook"
        raise DocumentError(f"{file} is not a notebook that can be read: no `cells` ({advice}).")
    return content


def _source(cell: dict[str, Any], file: Path, number: int) -> str:
    source = cell.get("source") or ""
    if cell.get("cell_type") != "code":
        return ""
    lines = source if isinstance(source, list) else [source]
    if not all(isinstance(line, str) for line in lines):
        raise DocumentError(f"{file}: the source of cell {number} is not text; save the notebook again in Jupyter.")
    return "".join(lines)


def _in_its_style(content: Any, text: str) -> str:
    """A changed notebook as JSON with the file's own indentation, spaces, escapes and line ends."""
    bare = text.strip("\ufeff \t\r\n")
    start = re.match(r'\{(?:\r?\n([ \t]+))?\s*"(?:[^"\\]|\\.)*":( ?)', bare)
    indent, space = start.groups() if start else (" ", " ")
    separators = ("," if indent else f",{space}", f":{space}")
    made = json.dumps(content, indent=indent, ensure_ascii=bare.isascii(), separators=separators)
    return text.replace(bare, made.replace("\n", "\r\n" if "\r\n" in text else "\n"), 1)


def _read(file: Path, *, notebook: bool) -> tuple[bytes, str, str]:
    """The bytes, the text without a byte order mark, and the encoding that gives the same bytes back."""
    try:
        data = file.read_bytes()
        encoding = "utf-8-sig" if data.startswith(b"\xef\xbb\xbf") else "utf-8"
        if not notebook:
            encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        text = data.decode(encoding)
    except OSError as err:
        raise DocumentError(f"Cannot read {file}: {err.strerror or err}; check the path.") from err
    except (UnicodeDecodeError, SyntaxError, LookupError) as err:
        raise DocumentError(f"{file} is not text in its encoding ({first_line(err)}); save it as UTF-8.") from err
    if "\0" in text:
        raise DocumentError(f"{file} holds zero bytes, as no text does; save it as UTF-8.")
    return data, text, encoding
