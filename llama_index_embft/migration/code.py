"""Rewrite the imports of one piece of Python, and nothing else: every other byte stays where it is."""

from __future__ import annotations

import ast
import io
import re
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from llama_index_embft.migration.names import OUR_PACKAGE, Home, home_of, is_gone
from llama_index_embft.migration.notes import Note

if TYPE_CHECKING:
    from collections.abc import Iterator

_IMPORT: Final = re.compile(r"[ \t]*(?:from[ \t]+llama_index[\w.]*[ \t]+import\b|import[ \t]+llama_index\b)")
_MAGIC: Final = re.compile(r"\s*(?:[%!?]|[\w, ]+=\s*[%!]\w|.*\?\s*$)")
# Cell magics whose cell is still Python.
_PYTHON_CELLS: Final = ("%%time", "%%timeit", "%%capture", "%%prun")
_PIP: Final = re.compile(r"\s*[%!].*\bpip3?\s+install\b")
_OLD_PACKAGE: Final = re.compile(
    r"(?<![\w-])llama[-_]index[-_]finetuning(?:\[[\w,-]*\])?(?:[=<>~!]=?[\w.*,<>=!]+)?(?![\w-])"
)
_LONGEST_IMPORT: Final = 80  # lines


@dataclass(frozen=True)
class Edit:
    """Replace the characters from `start` to `end` by `text`."""

    start: int
    end: int
    text: str


@dataclass
class Rewritten:
    """Edits of one piece of code.

    Attributes:
        edits: In order, not overlapping.
        notes: What could not be done by an edit.
        packages: What the rewritten imports need to be installed.
    """

    edits: list[Edit]
    notes: list[Note]
    packages: set[str]


def rewrite(code: str, place: str = "", *, cell: bool = False) -> Rewritten:
    """Find the edits that make old imports ours.

    Args:
        code: A script or a cell.
        place: Put before ``line n`` in notes.
        cell: The code is a notebook's cell, where lines may be magics of IPython.
    """
    lines = io.StringIO(code, newline="").readlines()
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    result = Rewritten([], [], set())
    if cell and lines and lines[0].lstrip().startswith("%%") and not lines[0].lstrip().startswith(_PYTHON_CELLS):
        return result  # another language, or a file to be written
    for node, first in _imports(lines, place, cell, result.notes):
        row = first + node.lineno - 1
        last = first + (node.end_lineno or node.lineno) - 1
        start = starts[row] + _column(lines[row], node.col_offset)
        end = starts[last] + _column(lines[last], node.end_col_offset or 0)
        _rewrite_import(node, code[start:end], start, f"{place}line {row + 1}", result)
    if cell:
        for row, line in enumerate(lines):
            if _PIP.match(line):
                for found in _OLD_PACKAGE.finditer(line):
                    at = starts[row]
                    result.edits.append(Edit(at + found.start(), at + found.end(), "llama-index-embft"))
    result.edits.sort(key=lambda edit: edit.start)
    return result


def apply(code: str, edits: list[Edit]) -> str:
    """The code with its edits made."""
    for edit in reversed(edits):
        code = code[: edit.start] + edit.text + code[edit.end :]
    return code


ImportNode = ast.Import | ast.ImportFrom


def _imports(lines: list[str], place: str, cell: bool, notes: list[Note]) -> Iterator[tuple[ImportNode, int]]:
    """Yield import statements and the row that their line 1 is."""
    tree = _parsed("".join(lines))
    if tree is None and cell:
        tree = _parsed("".join(_masked(lines)))
    if tree is not None:
        for node in ast.walk(tree):
            if isinstance(node, ImportNode):
                yield node, 0
        return
    found = False
    row = 0
    while row < len(lines):  # it does not parse as a whole: look at what looks like an import, one by one
        if _IMPORT.match(lines[row]):
            statement = _statement_at(lines, row)
            if statement is not None:
                found = True
                yield statement, row
                row += (statement.end_lineno or 1) - 1
        row += 1
    if found:
        notes.append(Note(place.rstrip(", "), "This code does not parse; its import lines were changed one by one."))


def _parsed(code: str) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an invalid escape in the user's string is not our business
            return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _masked(lines: list[str]) -> Iterator[str]:
    """Lines with IPython's magics replaced by `pass`; line numbers stay."""
    continued = False
    for line in lines:
        if continued or _MAGIC.match(line):
            continued = line.rstrip().endswith("\\")
            indent = line[: len(line) - len(line.lstrip())] if line.strip() else ""
            yield f"{indent}pass\n"
        else:
            yield line


def _statement_at(lines: list[str], row: int) -> ImportNode | None:
    indent = len(lines[row]) - len(lines[row].lstrip())
    for end in range(row + 1, min(len(lines), row + _LONGEST_IMPORT) + 1):
        # The indent is kept by a block around it, so that columns are those of the file.
        block = "if 1:\n" if indent else ""
        tree = _parsed(block + "".join(lines[row:end]))
        if tree is None:
            continue
        body = tree.body[0].body if indent and isinstance(tree.body[0], ast.If) else tree.body
        node = body[0]
        if isinstance(node, ImportNode):
            if indent:
                ast.increment_lineno(node, -1)
            return node
    return None


def _column(line: str, offset: int) -> int:
    """Characters before a byte offset of the line's UTF-8."""
    return len(line.encode("utf-8", "surrogatepass")[:offset].decode("utf-8", "ignore"))


def _rewrite_import(node: ImportNode, text: str, start: int, where: str, result: Rewritten) -> None:
    if isinstance(node, ast.Import):
        _rewrite_plain(node, text, start, where, result)
        return
    module = node.module or ""
    if node.level or any(alias.name == "*" for alias in node.names):
        if module.startswith("llama_index.finetuning"):
            result.notes.append(Note(where, f"Star import of {module}: name what you use, from {OUR_PACKAGE}."))
        return
    homes = [(alias, home_of(module, alias.name)) for alias in node.names]
    for alias, home in homes:
        if home is not None and home.package:
            result.packages.add(home.package)
        if home is None and is_gone(module, alias.name):
            result.notes.append(
                Note(where, f"{module}.{alias.name} has no counterpart here; its import was left as it is.")
            )
    if all(home is None or (home.module, home.name) == (module, alias.name) for alias, home in homes):
        return
    targets = {home.module if home else module for _, home in homes}
    if len(targets) == 1 and all(home is None or home.name == alias.name for alias, home in homes):
        at = text.index(module, len("from"))
        result.edits.append(Edit(start + at, start + at + len(module), targets.pop()))
        return
    result.edits.append(Edit(start, start + len(text), _regrouped(module, homes, _indent_of(node))))


def _indent_of(node: ast.ImportFrom) -> str:
    return " " * node.col_offset


def _regrouped(module: str, homes: list[tuple[ast.alias, Home | None]], indent: str) -> str:
    """One import statement for each module that the names are found in now."""
    groups: dict[str, list[str]] = {}
    for alias, home in homes:
        name = home.name if home else alias.name
        bound = alias.asname or alias.name
        groups.setdefault(home.module if home else module, []).append(name if name == bound else f"{name} as {bound}")
    return f"\n{indent}".join(f"from {target} import {', '.join(names)}" for target, names in groups.items())


def _rewrite_plain(node: ast.Import, text: str, start: int, where: str, result: Rewritten) -> None:
    for alias in node.names:
        if not alias.name.startswith(("llama_index.finetuning", "llama_index.legacy.finetuning")):
            continue
        if alias.asname and len(node.names) == 1:
            at = text.index(alias.name)
            result.edits.append(Edit(start + at, start + at + len(alias.name), OUR_PACKAGE))
            result.packages.add("llama-index-embft")
        else:
            result.notes.append(
                Note(where, f"Write `import {OUR_PACKAGE}` and use its names instead of {alias.name}'s.")
            )
