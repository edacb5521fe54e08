"""Rewrite the imports of one piece of Python, and nothing else: every other byte stays where it is."""

from __future__ import annotations

import ast
import re
import warnings
from typing import Final, NamedTuple

from llama_index_embft.migration.names import OUR_PACKAGE, home_of, is_gone
from llama_index_embft.migration.notes import Note

_IMPORT: Final = re.compile(
    rb"(?m)^[ \t]*(from[ \t]+llama_index[\w.]*[ \t]+import[ \t]*(?:\([^)]*\)|(?:[^\n\r(\\;#]|\\\r?\n)+)"
    rb"|import[ \t]+llama_index[\w. \t]*)"
)
_MAGIC: Final = re.compile(r"\s*(?:[%!?]|[\w, ]+=\s*[%!]\w|.*\?\s*$)")
# Cell magics whose cell is still Python.
_PYTHON_CELLS: Final = ("%%time", "%%timeit", "%%capture", "%%prun")
_PIP: Final = re.compile(r"\s*[%!].*\bpip3?\s+install\b")
_OLD_PACKAGE: Final = re.compile(
    r"(?<![\w-])llama[-_]index[-_]finetuning(?:\[[\w,-]*\])?(?:[=<>~!]=?[\w.*,<>=!]+)?(?![\w-])"
)
_FINETUNING: Final = ("llama_index.finetuning", "llama_index.legacy.finetuning")


class Rewritten(NamedTuple):
    """A piece of code with its imports rewritten, what could not be rewritten, and what is to be installed."""

    code: str
    notes: list[Note]
    packages: set[str]


def rewrite(code: str, place: str = "", *, cell: bool = False) -> Rewritten:
    """Make old imports ours.

    Args:
        code: A script or a cell.
        place: Put before ``line n`` in notes.
        cell: The code is a notebook's cell, where lines may be magics of IPython.
    """
    notes: list[Note] = []
    packages: set[str] = set()
    start = code.lstrip()
    if cell and start.startswith("%%") and not start.startswith(_PYTHON_CELLS):
        return Rewritten(code, notes, packages)  # another language, or a file to be written
    data = code.encode("utf-8", "surrogatepass")
    spans = _imports(code, data, cell)
    if spans is None:
        spans = [match.span(1) for match in _IMPORT.finditer(data)]
        text = "This code does not parse; its import lines were changed one by one."
        notes += [Note(place.rstrip(", "), text)] if spans else []
    pieces, end = [], 0
    for first, last in sorted(spans):
        before = re.split(rb"\r\n|\r|\n", data[:first])
        indent = re.match(r"[ \t]*", before[-1].decode("utf-8", "replace"))
        new, said = _changed(data[first:last].decode(), indent[0] if indent else "", packages)
        notes += [Note(f"{place}line {len(before)}", text) for text in said]
        pieces += [data[end:first], new.encode()]
        end = last
    made = b"".join([*pieces, data[end:]]).decode("utf-8", "surrogatepass")
    if cell:
        lines = made.splitlines(keepends=True)
        made = "".join(_OLD_PACKAGE.sub("llama-index-embft", line) if _PIP.match(line) else line for line in lines)
    return Rewritten(made, notes, packages)


def _imports(code: str, data: bytes, cell: bool) -> list[tuple[int, int]] | None:
    """First and last byte of each import statement; None if the code does not parse."""
    starts = [0, *(match.end() for match in re.finditer(rb"\r\n|\r|\n", data))]
    for attempt in [code, _masked(code)] if cell else [code]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # an invalid escape in the user's string is not our business
                tree = ast.parse(attempt)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        return [
            (starts[n.lineno - 1] + n.col_offset, starts[(n.end_lineno or 1) - 1] + (n.end_col_offset or 0))
            for n in ast.walk(tree)
            if isinstance(n, (ast.Import, ast.ImportFrom))
        ]
    return None


def _masked(code: str) -> str:
    """The code with IPython's magics replaced by `pass`; line numbers stay."""
    lines, continued = code.split("\n"), False
    for number, line in enumerate(lines):
        if continued or _MAGIC.match(line):
            continued = line.rstrip().endswith("\\")
            lines[number] = line[: len(line) - len(line.lstrip())] + "pass"
    return "\n".join(lines)


def _changed(text: str, indent: str, packages: set[str]) -> tuple[str, list[str]]:
    """One import statement as it should be, and what cannot be said by an import."""
    try:
        node = ast.parse(text).body[0]
    except (SyntaxError, ValueError, IndexError):
        return text, []
    if isinstance(node, ast.Import):
        old = [alias for alias in node.names if alias.name.startswith(_FINETUNING)]
        if len(node.names) == 1 and old and old[0].asname:
            packages.add("llama-index-embft")
            return text.replace(old[0].name, OUR_PACKAGE, 1), []
        return text, [f"Write `import {OUR_PACKAGE}` and use its names instead of {alias.name}'s." for alias in old]
    if not isinstance(node, ast.ImportFrom) or node.level or node.module is None:
        return text, []
    module = node.module
    if node.names[0].name == "*":
        said = [f"Star import of {module}: name what you use, from {OUR_PACKAGE}."]
        return text, said if module.startswith(_FINETUNING) else []
    homes = [(alias, home_of(module, alias.name)) for alias in node.names]
    packages.update(home.package for _, home in homes if home is not None and home.package)
    gone = [alias.name for alias, home in homes if home is None and is_gone(module, alias.name)]
    said = [f"{module}.{name} has no counterpart here; its import was left as it is." for name in gone]
    groups: dict[str, list[str]] = {}
    for alias, home in homes:
        name, bound = home.name if home else alias.name, alias.asname or alias.name
        groups.setdefault(home.module if home else module, []).append(name if name == bound else f"{name} as {bound}")
    if len(groups) == 1 and all(home is None or home.name == alias.name for alias, home in homes):
        return text.replace(module, next(iter(groups)), 1), said  # formatting and comments stay
    return f"\n{indent}".join(f"from {to} import {', '.join(names)}" for to, names in groups.items()), said
