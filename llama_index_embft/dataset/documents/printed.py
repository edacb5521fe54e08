"""From a page as it is printed to its text: columns in order, words made whole, running lines left out."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

# Ligatures of Latin and Armenian, and the forms in which Hebrew and Arabic letters are printed.
_PRINTED_FORMS: Final = re.compile("[\ufb00-\ufb06\ufb13-\ufb17\ufb1d-\ufbb1\ufbd3-\ufd3d\ufd50-\ufdfc\ufe70-\ufefc]+")
_LINE_END_HYPHEN: Final = re.compile(r"(\w+)[-\u2010][ \t]*\r?\n[ \t]*(\w+)")
# Behind a hyphen they say that half a word is left out: "short- and long-term", "Haupt- und Nebenkosten".
_BETWEEN: Final = frozenset(["and", "or", "und", "oder", "bzw", "sowie"])
_SOFT_HYPHEN: Final = re.compile("\u00ad[ \t]*(?:\r?\n[ \t]*)?")
_GAP: Final = re.compile(r" {2,}")
_LEAST_LINES: Final = 8  # of a column
_LEAST_COLUMN: Final = 20  # characters of a line of a column, in the middle; a table's cells are shorter
_LEAST_LETTERS: Final = 0.7  # of the characters in a column; a table holds numbers
_MOST_ACROSS: Final = 0.5  # of the lines that may go over both columns: titles, tables, notes
_EDGE: Final = 3  # lines at the top and at the bottom of a page that may be running lines
_LEAST_PAGES: Final = 3
_LEAST_SHARE: Final = 0.4  # of the pages from its first to its last; left and right pages may have different ones
_LONGEST: Final = 200  # characters of a running line
_LEAST_STEADY: Final = 0.6  # of the steps from page to page; chapters and gaps break the others
_NUMBER: Final = re.compile(r"\d+|(?<![^\W_])[ivxl]{1,7}(?![^\W_])")  # pages of a preface have Roman numbers
_ROMAN: Final = {"i": 1, "v": 5, "x": 10, "l": 50}


def printed_to_plain(text: str, words: frozenset[str]) -> str:
    """Take back what setting a page does to words: ligatures, soft hyphens, and words broken at the end of a line.

    A hyphen that the word has elsewhere in the file ("long-term"), or that stands before a capital, a digit or an
    "and", stays.

    Args:
        text: A page.
        words: Words of the whole file, with their hyphens.
    """
    text = _PRINTED_FORMS.sub(lambda match: unicodedata.normalize("NFKC", match[0]), text)
    text = _SOFT_HYPHEN.sub("", text)

    def joined(match: re.Match[str]) -> str:
        first, rest = match[1], match[2]
        if rest in _BETWEEN and first + rest not in words:
            return f"{first}- {rest}"
        keep = not rest[0].islower() or (f"{first}-{rest}" in words and first + rest not in words)
        return f"{first}-{rest}" if keep else first + rest

    return _LINE_END_HYPHEN.sub(joined, text)


def columns_to_lines(layout: str) -> str:
    """Take columns apart, one after the other, and spaces down to one.

    A gutter is where many lines begin a second text; what lies on both sides must be prose, for else it is a table,
    whose rows stay together. Lines across the gutter stand where they stood: what is above them comes first.

    Args:
        layout: A page in lines of fixed width, as pypdf's layout mode gives it.
    """
    lines = _in_order([line.expandtabs().replace("\xa0", " ").rstrip() for line in layout.splitlines()])
    return re.sub(r"\n{3,}", "\n\n", "\n".join(" ".join(line.split()) for line in lines)).strip()


def _in_order(lines: list[str]) -> list[str]:
    starts = Counter(match.end() for line in lines for match in _GAP.finditer(line))
    gutter = next((start for start, count in starts.most_common(3) if _is_gutter(lines, start, count)), None)
    if gutter is None:
        return lines
    ordered: list[str] = []
    left: list[str] = []
    right: list[str] = []
    for line in [*lines, None]:
        if line is not None and not _crosses(line, gutter):
            left.append(line[:gutter].rstrip())
            right.append(line[gutter:])
            continue
        ordered += _in_order(left) + _in_order(right)
        left, right = [], []
        ordered += [] if line is None else [line]
    return ordered


def _crosses(line: str, gutter: int) -> bool:
    return bool(line[gutter - 2 : gutter].strip()) and len(line) > gutter


def _is_gutter(lines: list[str], gutter: int, count: int) -> bool:
    if count < _LEAST_LINES:
        return False
    filled = [line for line in lines if line.strip()]
    apart = [line for line in filled if not _crosses(line, gutter)]
    left = [side for line in apart if (side := line[:gutter].strip())]
    right = [side for line in apart if (side := line[gutter:].strip())]
    return len(apart) >= (1 - _MOST_ACROSS) * len(filled) and _is_prose(left) and _is_prose(right)


def _is_prose(lines: list[str]) -> bool:
    if len(lines) < _LEAST_LINES or sorted(map(len, lines))[len(lines) // 2] < _LEAST_COLUMN:
        return False
    characters = "".join("".join(lines).split())
    return sum(character.isalpha() for character in characters) >= _LEAST_LETTERS * len(characters)


def without_running_lines(pages: Sequence[str]) -> list[str]:
    """Leave out the headers, footers and page numbers that pages repeat.

    A running line stands among the first or last three of at least three pages, and of 40 % of those between the first
    and the last that has it, alike but for its numbers. These stay the same or count the pages, as those of the last
    line of a table do not. A header stands above something: where most of the pages with a line would keep less than
    they lose, as certificates and cards do, it is their text.

    Args:
        pages: Text of each page, in order.
    """
    places: dict[str, dict[int, list[int]]] = defaultdict(dict)  # shape of a line -> page -> numbers in it
    for number, page in enumerate(pages):
        for line in _edges(page):
            places[_shape(line)].setdefault(number, _numbers(line))
    running = {shape for shape, where in places.items() if _runs(where)}
    thin = {at for at, page in enumerate(pages) if _letters(page) > 2 * _letters(_trimmed(page, running))}
    running = {shape for shape in running if 2 * len(thin.intersection(places[shape])) <= len(places[shape])}
    return [_trimmed(page, running) for page in pages]


def _letters(page: str) -> int:
    return sum(map(str.isalpha, page))


def _runs(where: dict[int, list[int]]) -> bool:
    pages = list(where)
    if len(pages) < _LEAST_PAGES or len(pages) < _LEAST_SHARE * (pages[-1] - pages[0] + 1):
        return False
    steps = list(itertools.pairwise(pages))
    for values in range(min(map(len, where.values()))):
        grown = [(where[after][values] - where[before][values], after - before) for before, after in steps]
        if sum(step in (0, turned) for step, turned in grown) < _LEAST_STEADY * len(steps):
            return False
    return True


def _numbers(line: str) -> list[int]:
    return [int(found[:9]) if found.isdecimal() else _roman(found) for found in _NUMBER.findall(_lowered(line))]


def _roman(number: str) -> int:
    values = [_ROMAN[letter] for letter in number]
    return sum(-value if value < max(values[at:]) else value for at, value in enumerate(values))


def _lowered(line: str) -> str:
    return line.casefold() if len(line) <= _LONGEST else ""


def _edges(page: str) -> list[str]:
    lines = [line.strip() for line in page.splitlines() if line.strip()]
    return lines if len(lines) <= 2 * _EDGE else lines[:_EDGE] + lines[-_EDGE:]


def _shape(line: str) -> str:
    """A line without its numbers and spaces; one too long to be a running line is itself."""
    return "".join(_NUMBER.sub("#", _lowered(line)).split()) or line


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
