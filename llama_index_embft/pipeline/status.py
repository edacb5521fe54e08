"""What a search for the best retriever tells while it works."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from llama_index_embft._core.tables import TextTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console


@dataclass(frozen=True)
class CandidateRow:
    """One candidate, for the table.

    Attributes:
        name: What it is made of.
        score: nDCG@10 on the questions that choose; None: not measured.
        found: Of those questions, the share that finds a relevant text in the first ten; None: not measured.
        seconds: What it took to make and to search.
        note: Why it was left out, or what is special.
    """

    name: str
    score: float | None = None
    found: float | None = None
    seconds: float = 0.0
    note: str = ""


@dataclass(frozen=True)
class TuneStatus:
    """Where a search stands.

    Attributes:
        doing: What is going on, in words.
        rows: The candidates so far.
        spent: Seconds since the start.
        left: Seconds that this step is expected to take; None where that is not known.
    """

    doing: str
    rows: tuple[CandidateRow, ...] = ()
    spent: float = 0.0
    left: float | None = None


Watch: TypeAlias = Callable[[TuneStatus], None]
"""Called whenever something changes."""


def silent(status: TuneStatus) -> None:
    """Say nothing."""


def printed_to(console: Console) -> Watch:
    """Prints each step once, with what it is expected to take, and each candidate once it is measured.

    Lines and no screen that is drawn anew: they can be piped, and stay beside the bars of training.

    Args:
        console: Where to.
    """
    from llama_index_embft.pipeline.budget import in_words

    shown = 0

    def watch(status: TuneStatus) -> None:
        nonlocal shown
        table = candidate_table(status.rows)
        for line in [*([] if shown else [table.header]), *table.rows[shown:]] if table.rows else []:
            name, *figures = line[:4]
            columns = f"{name:<36}" + "".join(f"{figure:>13}" for figure in figures)
            console.print(f"{'':9}{columns}  {' '.join(line[4:])}".rstrip(), markup=False, soft_wrap=True)
        shown = len(status.rows)
        takes = "" if not status.left else f" (about {in_words(status.left)})"
        console.print(f"{in_words(status.spent):>7}  {status.doing}{takes}", markup=False, soft_wrap=True)

    return watch


def printed() -> Watch:
    """Prints to standard error, see `printed_to`."""
    from llama_index_embft._core.terminal import SafeConsole

    return printed_to(SafeConsole(stderr=True))


def candidate_table(rows: Sequence[CandidateRow]) -> TextTable:
    """The candidates as a table."""
    cells = [
        [
            row.name,
            "" if row.score is None else f"{row.score:.3f}",
            "" if row.found is None else f"{row.found:.0%}",
            f"{row.seconds:.0f}" if row.seconds >= 0.5 else "",
            row.note,
        ]
        for row in rows
    ]
    noted = any(row.note for row in rows)
    header = ["candidate", "nDCG@10", "found in 10", "seconds", *(["note"] if noted else [])]
    return TextTable(header, cells if noted else [line[:-1] for line in cells])
