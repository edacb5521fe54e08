"""One table, three ways to show it: Markdown, plain text, a terminal; and CSV, to and fro."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import rich.table

_LONGEST_CELL: Final = 1 << 26


@dataclass(frozen=True)
class TextTable:
    """Cells that are already text.

    Attributes:
        header: A name a column.
        rows: Rows of as many cells.
        left: Columns aligned to the left, counted from the first; the others hold numbers and go to the right.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1

    def to_markdown(self) -> str:
        """A Markdown table; a cell cannot break out of it or become HTML."""
        rule = ["---" if column < self.left else "---:" for column in range(len(self.header))]
        lines = [self.header, rule, *self.rows]
        return "\n".join("| " + " | ".join(_plain(cell) for cell in line) + " |" for line in lines)

    def to_text(self) -> str:
        """Columns padded with spaces, for a log or ``print``."""
        lines = [self.header, *self.rows]
        widths = [max(len(line[column]) for line in lines) for column in range(len(self.header))]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if column < self.left else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        )

    def to_html(self, caption: str = "") -> str:
        """An HTML table; every cell is escaped."""

        def line(tag: str, cells: Sequence[str]) -> str:
            sides = ("left" if column < self.left else "right" for column in range(len(cells)))
            return "".join(
                f"<{tag} style='text-align:{side}'>{escape(cell)}</{tag}>"
                for side, cell in zip(sides, cells, strict=True)
            )

        rows = "".join(f"<tr>{line('td', row)}</tr>" for row in self.rows)
        above = f"<caption>{caption}</caption>" if caption else ""
        return f"<table>{above}<thead><tr>{line('th', self.header)}</tr></thead><tbody>{rows}</tbody></table>"

    def to_rich(self, styles: Mapping[str, str] | None = None) -> rich.table.Table:
        """A table for `rich`; markup inside a cell is shown and not interpreted.

        Args:
            styles: Text of a cell -> its style, such as ``"green"``.
        """
        from rich.box import SIMPLE_HEAD
        from rich.markup import escape as shown
        from rich.table import Table
        from rich.text import Text

        table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
        for column, name in enumerate(self.header):
            table.add_column(shown(name), justify="left" if column < self.left else "right", no_wrap=column == 0)
        for row in self.rows:
            table.add_row(*(Text(cell, style=(styles or {}).get(cell, "")) for cell in row))
        return table


def _plain(cell: str) -> str:
    return escape(cell, quote=False).replace("|", "\\|").replace("\n", " ")


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """Rows as CSV, each ended by a line feed, whatever line ends stand in its cells."""
    text = io.StringIO()
    for cells in rows:
        # Pythons before 3.13 do not see that a carriage return needs quotes.
        odd = any(isinstance(cell, str) and "\r" in cell for cell in cells)
        csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL if odd else csv.QUOTE_MINIMAL).writerow(cells)
    return text.getvalue()


def allow_long_cells() -> None:
    """Let `csv` read cells of up to 64 MiB.

    Its own bound of 131,072 characters is one of the whole process. It is raised and never put back, for another thread
    may be reading.
    """
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_CELL))


def spreadsheet_cell(text: str) -> str:
    """A text for a CSV file: spreadsheets take one that begins with one of these signs for a formula and run it.

    No two texts have one cell: a text that looks like such a cell gets an apostrophe too.
    """
    if text.lstrip("'")[:1] not in ("=", "+", "-", "@", "\t", "\r"):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


def from_spreadsheet_cell(cell: str) -> str:
    """The text that `spreadsheet_cell` made a cell of."""
    return cell[1:] if cell[:1] == "'" and spreadsheet_cell(cell[1:]) == cell else cell
