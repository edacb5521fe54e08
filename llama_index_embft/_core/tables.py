"""One table, three ways to show it: Markdown, plain text, a terminal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import rich.table


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
        """A Markdown table; a vertical bar inside a cell is escaped."""
        rule = ["---" if column < self.left else "---:" for column in range(len(self.header))]
        lines = [self.header, rule, *self.rows]
        return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)

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

    def to_rich(self) -> rich.table.Table:
        """A table for `rich`; markup inside a cell is shown and not interpreted."""
        from rich.box import SIMPLE_HEAD
        from rich.markup import escape
        from rich.table import Table

        table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
        for column, name in enumerate(self.header):
            table.add_column(escape(name), justify="left" if column < self.left else "right", no_wrap=column == 0)
        for row in self.rows:
            table.add_row(*map(escape, row))
        return table
