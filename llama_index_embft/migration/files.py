"""Read a script or a notebook, find what to change, and write it back whole or not at all."""

from __future__ import annotations

import difflib
import io
import itertools
import json
import tokenize
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index_embft._core.checks import first_line
from llama_index_embft._core.files import atomic_write_bytes
from llama_index_embft.errors import DocumentError
from llama_index_embft.migration.code import rewrite
from llama_index_embft.migration.notes import Note, notes_on

if TYPE_CHECKING:
    import os


@dataclass(frozen=True)
class Migration:
    """What would change in a file, and what its user should know.

    `before` and `after` are the file's bytes; `blocks` has the code of each changed cell, or of the script, before and
    after; `notes` say what is different beyond the imports, and `packages` what pip has to install.
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
    content = _notebook(file, text) if notebook else None
    blocks, notes, packages, said = {}, [], set[str](), set[str]()
    for number, cell in enumerate(content["cells"] if content else [{"cell_type": "code", "source": text}], 1):
        place = f"cell {number}, " if content else ""
        code = _source(cell, file, number)
        result = rewrite(code, place, cell=notebook)
        notes += [*result.notes, *notes_on(code, place, said)]
        packages |= result.packages
        if result.code != code:
            blocks[f"{file}, cell {number}" if content else str(file)] = (code, result.code)
            is_list = isinstance(cell["source"], list)
            cell["source"] = result.code.splitlines(keepends=True) if is_list else result.code
    after = before
    if blocks:
        changed = _in_its_style(content, text) if content else next(iter(blocks.values()))[1]
        after = changed.encode(encoding)
    return Migration(file, before, after, blocks, tuple(notes), tuple(sorted(packages)))


def _notebook(file: Path, text: str) -> Any:
    try:
        content = json.loads(text)
        json.dumps(content)  # what cannot be written back is found out now
    except RecursionError as err:
        raise DocumentError(f"{file} is not a notebook: it is nested too deeply.") from err
    except ValueError as err:
        reason = first_line(err)
        raise DocumentError(f"{file} is not a notebook: it is not JSON ({reason}); save it again in Jupyter.") from err
    cells = content.get("cells") if isinstance(content, dict) else None
    if not isinstance(cells, list) or not all(isinstance(cell, dict) for cell in cells):
        advice = "no `cells` (if it is of before 2015, convert it: jupyter nbconvert --to notebook)"
        raise DocumentError(f"{file} is not a notebook that can be read: {advice}.")
    return content


def _source(cell: dict[str, Any], file: Path, number: int) -> str:
    source = cell.get("source") or ""
    if cell.get("cell_type") != "code":
        return ""
    lines = source if isinstance(source, list) else [source]
    if not all(isinstance(line, str) for line in lines):
        raise DocumentError(f"{file}: the source of cell {number} is no text; save the notebook again in Jupyter.")
    return "".join(lines)


def _in_its_style(content: Any, text: str) -> str:
    """A changed notebook as JSON of the file's own style; a file that no writer wrote gets that of Jupyter."""
    bare = text.strip("\ufeff \t\r\n")
    old, line_end = json.loads(text), "\r\n" if "\r\n" in text else "\n"
    for indent, ascii_only, tight in itertools.product((1, 2, 4, "\t", 3, 8, None), (False, True), (False, True)):
        style: dict[str, Any] = {"indent": indent, "ensure_ascii": ascii_only}
        style["separators"] = (",", ":" if tight else ": ") if indent or tight else (", ", ": ")
        if json.dumps(old, **style).replace("\n", line_end) == bare:
            break
    else:
        style = {"indent": 1, "ensure_ascii": False}
    start = text.index(bare)
    made = json.dumps(content, **style).replace("\n", line_end)
    return text[:start] + made + text[start + len(bare) :]


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
