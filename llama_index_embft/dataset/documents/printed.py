"""From a page as it is printed to its text: words made whole, and lines that every page repeats left out."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

# Ligatures of Latin and Armenian, and the forms in which Hebrew and Arabic letters are printed.
_PRINTED_FORMS: Final = re.compile("[\ufb00-\ufb06\ufb13-\ufb17\ufb1d-\ufbb1\ufbd3-\ufd3d\ufd50-\ufdfc\ufe70-\ufefc]+")
_LINE_END_HYPHEN: Final = re.compile(r"(\w+)[-\u2010][ \t]*\r?\n[ \t]*(\w+)")
_SOFT_HYPHEN: Final = re.compile("\u00ad[ \t]*(?:\r?\n[ \t]*)?")
_EDGE: Final = 3  # lines at the top and at the bottom of a page that may be running lines
_LEAST_PAGES: Final = 3
_LEAST_SHARE: Final = 0.4  # of the pages from its first to its last; left and right pages may have different ones
_LONGEST: Final = 200  # characters of a running line
_NUMBER: Final = re.compile(r"\d+")
_ROMAN: Final = re.compile(r"(?<![\w.])[ivxl]{1,6}(?![\w.])")


def printed_to_plain(text: str, words: frozenset[str]) -> str:
    """Take back what setting a page does to words: ligatures, soft hyphens, and words broken at the end of a line.

    A hyphen that the word has elsewhere in the file ("long-term"), or that stands before a capital or a digit, stays.

    Args:
        text: A page.
        words: Words of the whole file, with their hyphens.
    """
    text = _PRINTED_FORMS.sub(lambda match: unicodedata.normalize("NFKC", match[0]), text)
    text = _SOFT_HYPHEN.sub("", text)

    def joined(match: re.Match[str]) -> str:
        first, rest = match[1], match[2]
        keep = not rest[0].islower() or (f"{first}-{rest}" in words and first + rest not in words)
        return f"{first}-{rest}" if keep else first + rest

    return _LINE_END_HYPHEN.sub(joined, text)


def without_running_lines(pages: Sequence[str]) -> list[str]:
    """Leave out the headers, footers and page numbers that pages repeat.

    A running line stands among the first or last three of at least three pages, and of 40 % of those between the first
    and the last that has it, alike but for its numbers. A line of nothing but a number must count the pages, since a
    column of a table may end in one too.

    Args:
        pages: Text of each page, in order.
    """
    edges = [_edges(page) for page in pages]
    places: dict[str, list[int]] = defaultdict(list)
    numbers: dict[tuple[str, int], list[int]] = defaultdict(list)
    for number, page in enumerate(edges):
        for line in dict.fromkeys(page):
            shape = _shape(line)
            places[shape].append(number)
            if found := _NUMBER.search(line):
                numbers[shape, number].append(int(found[0][:9]))
    running = {shape for shape, where in places.items() if _runs(shape, sorted(set(where)), numbers)}
    return [_trimmed(page, running) for page in pages]


def _runs(shape: str, where: list[int], numbers: dict[tuple[str, int], list[int]]) -> bool:
    if len(where) < _LEAST_PAGES or len(where) < _LEAST_SHARE * (where[-1] - where[0] + 1):
        return False
    if any(character.isalpha() for character in shape.replace("#", "")) or "#" not in shape:
        return True
    offsets = [number - page for page in where for number in numbers[shape, page]]
    usual = max(set(offsets), key=offsets.count, default=0)
    return offsets.count(usual) >= 0.6 * len(where)


def _edges(page: str) -> list[str]:
    lines = [line.strip() for line in page.splitlines() if line.strip()]
    return lines if len(lines) <= 2 * _EDGE else lines[:_EDGE] + lines[-_EDGE:]


def _shape(line: str) -> str:
    """A line without its numbers and spaces; lines too long to be running ones are told apart by their length."""
    if len(line) > _LONGEST:
        return line
    line = _ROMAN.sub("#", line) if len(line) < 30 else line
    return "".join(_NUMBER.sub("#", line).split()).casefold()


def _trimmed(page: str, running: set[str]) -> str:
    """Take running lines from both ends, up to the first line that is none."""
    if not running:
        return page
    lines = page.splitlines()
    for end in (0, -1):
        taken = 0
        while lines and taken < _EDGE and (not lines[end].strip() or _shape(lines[end].strip()) in running):
            taken += bool(lines[end].strip())
            del lines[end]
    return "\n".join(lines)
