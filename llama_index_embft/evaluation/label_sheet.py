"""The sheet on which people grade pooled passages: a CSV file for any spreadsheet, and back."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Final

from llama_index_embft._core.checks import first_line
from llama_index_embft._core.files import atomic_write_text
from llama_index_embft._core.tables import allow_long_cells, csv_text, from_spreadsheet_cell, spreadsheet_cell
from llama_index_embft.errors import EvaluationError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Mapping

COLUMNS: Final = ("query_id", "query", "document_id", "passage", "grade")
_LONGEST_CELL: Final = 32_000  # characters; spreadsheets cut what is longer


def write_label_sheet(
    path: str | os.PathLike[str],
    pool: Mapping[str, Iterable[str]],
    query_ids: Iterable[str],
    queries: Mapping[str, str],
    passages: Mapping[str, str],
) -> int:
    """Write the passages that are to be graded, a row each, with an empty column ``grade``.

    Args:
        path: The file; one that exists is left alone, since somebody may have graded it.
        pool: Query id -> document ids, see `pool_results`.
        query_ids: The questions to label, see `draw_questions`.
        queries: Query id -> text.
        passages: Document id -> text.

    Returns:
        Number of rows.

    Raises:
        EvaluationError: The file exists, or a query or passage has no text here.
        OutputError: It cannot be written.
    """
    if Path(path).exists():
        raise EvaluationError(f"{path} exists and may hold grades; give another name, or move it away.")
    rows: list[tuple[str, ...]] = []
    for query_id in query_ids:
        for doc in pool[query_id]:
            if query_id not in queries or doc not in passages:
                what = f"query {query_id!r}" if query_id not in queries else f"passage {doc!r}"
                raise EvaluationError(f"The {what} is not in the data set; give the one that the reports were made on.")
            texts = (query_id, queries[query_id], doc, passages[doc][:_LONGEST_CELL])
            rows.append((*map(spreadsheet_cell, texts), ""))
    atomic_write_text(path, "\ufeff" + csv_text([COLUMNS, *rows]))  # the mark tells spreadsheets that it is UTF-8
    return len(rows)


def read_labels(path: str | os.PathLike[str]) -> dict[str, dict[str, int]]:
    """Grades from a sheet of `write_label_sheet`, or from TREC qrels.

    Args:
        path: A CSV file with the columns ``query_id``, ``document_id`` and ``grade`` (others are ignored; rows without
            a grade are left out), or lines of ``query iteration document grade``.

    Returns:
        Query id -> document id -> grade.

    Raises:
        EvaluationError: The file cannot be read, has no such columns, or a grade is no whole number.
        DatasetError: A line of qrels is broken.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")  # line ends inside a cell are left as they are
    except (OSError, ValueError) as err:
        raise EvaluationError(f"The labels {path} cannot be read: {first_line(err)}; check the path.") from err
    if Path(path).suffix.lower() not in (".csv", ".tsv"):
        from llama_index_embft.dataset import read_qrels

        return {query: dict(grades) for query, grades in read_qrels(path).items()}
    found: dict[str, dict[str, int]] = {}
    for line, row in _rows(path, text):
        given = (row["grade"] or "").strip()
        if not given:
            continue
        query, doc = from_spreadsheet_cell(row["query_id"] or ""), from_spreadsheet_cell(row["document_id"] or "")
        try:
            grade = int(given)
        except ValueError as err:
            raise EvaluationError(
                f"{path}, line {line}: the grade is {given[:40]!r}; it must be a whole number."
            ) from err
        if found.setdefault(query, {}).setdefault(doc, grade) != grade:
            raise EvaluationError(f"{path}, line {line}: {doc!r} has two grades for {query!r}; keep one.")
    if not found:
        raise EvaluationError(f"{path} holds no grade yet; fill in the column `grade`, from 0 to 3.")
    return found


def _rows(path: str | os.PathLike[str], text: str) -> Iterator[tuple[int, dict[str, str | None]]]:
    head = next(iter(text.splitlines()), "")
    delimiter = max(",;\t", key=head.count)  # spreadsheets of some languages write semicolons
    allow_long_cells()
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        missing = [name for name in ("query_id", "document_id", "grade") if name not in (rows.fieldnames or ())]
        if missing:
            raise EvaluationError(f"{path} has no column {missing[0]!r}; the columns are {', '.join(COLUMNS)}.")
        yield from ((rows.line_num, row) for row in rows)
    except csv.Error as err:
        raise EvaluationError(
            f"{path}, after line {rows.line_num} it is no CSV: {first_line(err)}; save the sheet anew."
        ) from err
