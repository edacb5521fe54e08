"""Readers of text, source code and notebooks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from llama_index_embft.dataset.documents.base import LeftOut, Piece, ReadingJob, UnreadableError
from llama_index_embft.dataset.documents.encoding import decode

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from llama_index_embft.dataset.documents.encoding import TextEncoding


def read_text(path: Path, job: ReadingJob) -> Iterator[Piece | LeftOut]:
    """Read a file of plain text, Markdown or source code."""
    text, encoding = decode(job.whole(path))
    yield Piece(text)
    yield from encoding_note(encoding)


def encoding_note(encoding: TextEncoding) -> Iterator[LeftOut]:
    """What to say of a file that is not UTF-8: it was read, and may be wrong."""
    if encoding.note:
        yield LeftOut(encoding.note, "in an older encoding")


def read_notebook(path: Path, job: ReadingJob) -> Iterator[Piece | LeftOut]:
    """Read the Markdown and code cells of a Jupyter notebook; what they printed is left out."""
    text, encoding = decode(job.whole(path))
    try:
        notebook = json.loads(text)
        cells = notebook.get("cells") or [cell for sheet in notebook["worksheets"] for cell in sheet["cells"]]
        told = (notebook.get("metadata") or {}).get("language_info") or {}
        texts = [_cell(cell, str(told.get("name", ""))) for cell in cells]
    except (ValueError, KeyError, TypeError, AttributeError) as err:
        raise UnreadableError("is no Jupyter notebook (version 3 or 4); save it again from Jupyter") from err
    yield Piece("\n\n".join(filter(None, texts)))
    yield from encoding_note(encoding)


def _cell(cell: dict[str, object], language: str) -> str:
    source = cell.get("source", cell.get("input", ""))
    text = ("".join(map(str, source)) if isinstance(source, list) else str(source)).strip()
    if not text or cell.get("cell_type") != "code":
        return text
    return f"```{language}\n{text}\n```"
