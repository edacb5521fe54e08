"""Where a notebook's code stands in its file, so that it can be changed without writing the rest anew."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from llama_index_embft.errors import DocumentError
from llama_index_embft.migration.code import Edit, apply

if TYPE_CHECKING:
    from collections.abc import Iterator

_DECODER: Final = json.JSONDecoder()
_SPACE: Final = re.compile(r"[ \t\r\n]*")
_SCALAR: Final = re.compile(r"[-+0-9.eE]+|true|false|null|NaN|-?Infinity")


@dataclass(frozen=True)
class Piece:
    """A string of the file: the characters from `start` to `end`, quotes included, mean `value`."""

    start: int
    end: int
    value: str


@dataclass(frozen=True)
class Cell:
    """A code cell.

    Attributes:
        number: From 1, all kinds of cells counted.
        pieces: Its source: a string a line, or a single string.
        is_list: Whether the source is a list.
    """

    number: int
    pieces: tuple[Piece, ...]
    is_list: bool

    @property
    def code(self) -> str:
        """The source as one text."""
        return "".join(piece.value for piece in self.pieces)


def code_cells(text: str, path: str) -> list[Cell]:
    """The code cells of a notebook.

    Raises:
        DocumentError: The text is not JSON, or not a notebook.
    """
    try:
        content = json.loads(text)
    except ValueError as err:
        raise DocumentError(f"{path} is not a notebook: it is not JSON ({err}); save it again in Jupyter.") from err
    except RecursionError as err:
        raise DocumentError(f"{path} is not a notebook: it is nested too deeply.") from err
    cells = content.get("cells") if isinstance(content, dict) else None
    if not isinstance(cells, list) or not all(isinstance(cell, dict) for cell in cells):
        old = isinstance(content, dict) and "worksheets" in content
        advice = (
            "it has the format of before 2015; convert it: jupyter nbconvert --to notebook" if old else "no `cells`"
        )
        raise DocumentError(f"{path} is not a notebook that can be read: {advice}.")
    try:
        sources = _sources(text)
    except RecursionError as err:
        raise DocumentError(f"{path} is not a notebook: it is nested too deeply.") from err
    found = []
    for number, cell in enumerate(cells):
        source = cell.get("source")
        if cell.get("cell_type") != "code" or source in (None, "", []):
            continue
        is_list = isinstance(source, list)
        if not (isinstance(source, str) or (is_list and all(isinstance(line, str) for line in source))):
            raise DocumentError(
                f"{path}: the source of cell {number + 1} is no text; save the notebook again in Jupyter."
            )
        found.append(Cell(number + 1, tuple(sources.get(number, ())), is_list))
    return found


def edits_in_file(text: str, cell: Cell, edits: list[Edit]) -> list[Edit]:
    """Turn edits of a cell's code into edits of the file."""
    done = []
    for group in _by_pieces(cell, edits):
        first, last, begin, inside = group
        old = "".join(piece.value for piece in cell.pieces[first : last + 1])
        new = apply(old, [Edit(e.start - begin, e.end - begin, e.text) for e in inside])
        start, end = cell.pieces[first].start, cell.pieces[last].end
        ascii_only = "\\u" in text[start:end]
        parts = new.splitlines(keepends=True) if cell.is_list else [new]
        separator = _separator(text, cell)
        written = separator.join(json.dumps(part, ensure_ascii=ascii_only) for part in parts)
        done.append(Edit(start, end, written))
    return done


def _by_pieces(cell: Cell, edits: list[Edit]) -> Iterator[tuple[int, int, int, list[Edit]]]:
    """Group edits by the pieces they touch: first piece, last piece, the character the first begins with, edits."""
    starts = [0]
    for piece in cell.pieces:
        starts.append(starts[-1] + len(piece.value))
    groups: list[tuple[int, int, int, list[Edit]]] = []
    for edit in edits:
        first = max(i for i in range(len(cell.pieces)) if starts[i] <= edit.start)
        last = max(i for i in range(len(cell.pieces)) if starts[i] < max(edit.end, edit.start + 1))
        if groups and groups[-1][1] >= first:
            before = groups.pop()
            groups.append((before[0], max(last, before[1]), before[2], [*before[3], edit]))
        else:
            groups.append((first, last, starts[first], [edit]))
    yield from groups


def _separator(text: str, cell: Cell) -> str:
    """What the file has between two lines of this cell."""
    if len(cell.pieces) > 1:
        return text[cell.pieces[0].end : cell.pieces[1].start]
    before = text[: cell.pieces[0].start]
    space = before[len(before.rstrip()) :]
    return "," + (space or " ")


def _sources(text: str) -> dict[int, list[Piece]]:
    """Position of a cell in the list -> the strings of its `source`; the text is known to be JSON."""
    found: dict[int, list[Piece]] = {}
    _walk(text, 0, (), found)
    return found


def _walk(text: str, at: int, path: tuple[Any, ...], found: dict[int, list[Piece]]) -> int:
    """Go through one value and return where it ends."""
    at = _after_space(text, at)
    kind = text[at]
    if kind == '"':
        value, end = _DECODER.raw_decode(text, at)
        if len(path) in (3, 4) and path[0] == "cells" and path[2] == "source":
            found.setdefault(path[1], []).append(Piece(at, end, value))
        return end
    if kind not in "{[":
        scalar = _SCALAR.match(text, at)
        assert scalar is not None
        return scalar.end()
    at = _after_space(text, at + 1)
    number = 0
    while text[at] not in "}]":
        key: Any = number
        if kind == "{":
            key, at = _DECODER.raw_decode(text, at)
            at = _after_space(text, at) + 1  # the colon
            if not path and key == "cells":
                found.clear()  # of a key that is there twice, JSON takes the last
            if len(path) == 2 and key == "source":
                found.pop(path[1], None)
        at = _after_space(text, _walk(text, at, (*path, key), found))
        if text[at] == ",":
            at = _after_space(text, at + 1)
        number += 1
    return at + 1


def _after_space(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    assert space is not None
    return space.end()
