"""Readers of tables: a row becomes a document, in which each value stands behind the name of its column."""

from __future__ import annotations

import csv
import datetime
import itertools
import json
import re
import warnings
import zipfile
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from llama_index_embft._core.checks import first_line
from llama_index_embft._core.tables import allow_long_cells
from llama_index_embft.dataset.documents.archives import open_office_zip
from llama_index_embft.dataset.documents.base import MEGABYTE, LeftOut, Piece, ReadingJob, UnreadableError, needed
from llama_index_embft.dataset.documents.encoding import TextLines, decode
from llama_index_embft.dataset.documents.text import encoding_note

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_HEAD: Final = 20  # rows in which the names of the columns are looked for
_NAME: Final = 60  # characters of a column's name
_BLANK_ROWS: Final = 10_000  # of a sheet, behind which nothing is expected: some are formatted to the last row
_SPARE_CELLS: Final = 50  # of a row beyond the names of the columns
_EXACT: Final = 10**15  # below it a float that is whole is an integer that the sheet holds as such
_YEAR: Final = re.compile(r"(?:1[5-9]|20|21)\d\d")
_UNCOMPUTED: Final = re.compile(rb"<c\b([^>]*)><f\b(?:[^>]*/>|[^>]*>[^<]*</f>)(?:<v ?/>|<v></v>)?</c>")
_LINE: Final = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
_NUMBER: Final = re.compile(r"[\s$€£¥%+-]*[\d.,:/\s-]*\d[\d.,:/\s%€-]*")


def read_csv(path: Path, job: ReadingJob) -> Iterator[Piece | LeftOut]:
    """Read a file of separated values, line by line; the separator is the one that gives even rows."""
    read = TextLines(path, job.settings.max_file_mb * MEGABYTE)
    # A carriage return alone ends lines too: so Excel writes "CSV (Macintosh)".
    lines = (part for line in read for part in _LINE.findall(line.replace("\x00", "")))
    pending: list[str] = []  # lines of the row that is being read
    ended = False
    unquoted = 0

    def kept() -> Iterator[str]:
        nonlocal ended
        for line in itertools.chain(head, lines):
            pending.append(line)
            yield line
        ended = True

    def rows(separator: str) -> Iterator[list[str]]:
        nonlocal unquoted
        source = kept()
        reader = csv.reader(source, delimiter=separator)
        while True:
            pending.clear()
            try:
                row = next(reader, None)
            except csv.Error:
                if len(pending) < 2:
                    raise
                reader, row = csv.reader(source, delimiter=separator), []
            else:
                if row is None:
                    return
                if not ended:
                    yield row
                    continue
            # A quote that nothing closes swallows all lines behind it.
            unquoted += len(pending) if len(pending) > 1 else 0
            yield from csv.reader(list(pending), delimiter=separator, quoting=csv.QUOTE_NONE)

    allow_long_cells()
    try:
        head = list(itertools.islice(lines, _HEAD))
        yield from _table(rows(_separator(path, head)), job)
    except csv.Error as err:
        raise UnreadableError(f"is a broken table ({first_line(err)}); export it again") from err
    if unquoted:
        yield LeftOut(
            f"has a quote that nothing closes; its last {unquoted:,} lines were read without quotes", "broken"
        )
    yield from encoding_note(read.encoding)


def _separator(path: Path, head: list[str]) -> str:
    if path.suffix.lower() in (".tsv", ".tab"):
        return "\t"

    def evenness(separator: str) -> tuple[int, int]:
        widths = [len(row) for row in csv.reader(head, delimiter=separator) if row]
        usual = max(set(widths), key=widths.count, default=1)
        return (widths.count(usual) if usual > 1 else 0, usual)

    return max(",;\t|", key=evenness)


def read_xlsx(path: Path, job: ReadingJob) -> Iterator[Piece | LeftOut]:
    """Read the sheets of an Excel file row by row: the values that Excel stored, not the formulas."""
    names = open_office_zip(path, job, streamed=True)
    openpyxl = needed("openpyxl")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about parts of Excel that openpyxl leaves out
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        try:
            for sheet in book.worksheets:
                sheet.reset_dimensions()  # what a file says about its size is often wrong
                rows = ([_shown(value) for value in row] for row in sheet.iter_rows(values_only=True))
                yield from _table(rows, job, sheet=str(sheet.title))
        finally:
            book.close()
    if unknown := _uncomputed(path, names):
        yield LeftOut(
            f"holds {unknown:,} formulas without a stored value, which were left out; open and save it in Excel",
            "broken",
        )


def _uncomputed(path: Path, names: list[str]) -> int:
    """Formulas that no program has computed: openpyxl takes their cells for empty ones."""
    found = 0
    with zipfile.ZipFile(path) as archive:
        for name in names:
            if not name.startswith("xl/worksheets/sheet"):
                continue
            with archive.open(name) as file:
                rest = b""
                while block := file.read(MEGABYTE):
                    whole, end, rest = (rest + block).rpartition(b"</c>")
                    found += sum(b't="str"' not in cell for cell in _UNCOMPUTED.findall(whole + end))
    return found


def read_xls(path: Path, job: ReadingJob) -> Iterator[Piece | LeftOut]:
    """Read the sheets of an Excel file of before 2007."""
    xlrd = needed("xlrd")
    raw = job.whole(path)
    if raw.startswith(b"PK\x03\x04"):  # a new file under an old name
        yield from read_xlsx(path, job)
        return
    try:
        book = xlrd.open_workbook(file_contents=raw, on_demand=True)
    except xlrd.XLRDError as err:
        if "encrypted" in str(err):
            raise UnreadableError("is encrypted and needs a password; save it without one", "encrypted") from err
        raise UnreadableError(f"is no Excel file ({first_line(err)}); save it as .xlsx") from err
    for sheet in book.sheets():
        cells = (sheet.row(number) for number in range(sheet.nrows))
        rows = ([_shown(_old_value(xlrd, cell, book.datemode)) for cell in row] for row in cells)
        yield from _table(rows, job, sheet=str(sheet.name))


def _old_value(xlrd: Any, cell: Any, datemode: int) -> Any:
    if cell.ctype == xlrd.XL_CELL_DATE:
        try:
            return xlrd.xldate_as_datetime(cell.value, datemode)
        except (ValueError, OverflowError, xlrd.xldate.XLDateError):
            return cell.value
    if cell.ctype == xlrd.XL_CELL_ERROR:  # "#N/A", which is kept as a number
        return xlrd.error_text_from_code.get(cell.value, "")
    return bool(cell.value) if cell.ctype == xlrd.XL_CELL_BOOLEAN else cell.value


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        value = value.date()
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < _EXACT else f"{value:.15g}"
    return " ".join(str(value).split()) if isinstance(value, str) and "\n" not in value else str(value).strip()


def _table(rows: Iterable[list[str]], job: ReadingJob, **metadata: str) -> Iterator[Piece | LeftOut]:
    """A document a row where the columns have names, and one for the whole table where they have none."""
    wide = 0  # rows with more cells than are read
    stopped = False

    def filled_rows() -> Iterator[list[str]]:
        nonlocal stopped
        blank = 0
        for row in rows:
            if any(cell.strip() for cell in row):
                blank = 0
                yield row
            elif (blank := blank + 1) > _BLANK_ROWS:
                stopped = True
                return

    filled = filled_rows()
    head = list(itertools.islice(filled, _HEAD))
    at = _head_at(head)
    if at is None:
        above, names, body = head, [], filled
    else:
        above, names = head[:at], _numbered([cell.strip() for cell in head[at]])
        body = itertools.chain(head[at + 1 :], filled)
    limit, metadata_of = job.settings.max_rows, dict(metadata)
    if not names:
        above = above + list(itertools.islice(body, max(0, limit - len(above))))
    if above:  # a title over the table, or a sheet that is no table
        yield Piece("\n".join(", ".join(cell.strip() for cell in row if cell.strip()) for row in above), metadata_of)
    if names:
        for row in itertools.islice(body, limit):
            wide += any(cell.strip() for cell in row[len(names) + _SPARE_CELLS :])
            yield Piece(_row(names, row), metadata_of)
    where = f" in the sheet {metadata['sheet']}" if "sheet" in metadata else ""
    if next(iter(body), None) is not None:
        yield LeftOut(
            f"holds more than {limit:,} rows{where}, of which the first {limit:,} were read; raise `max_rows` for more",
            "too large",
        )
    yield from _beyond(where, wide, stopped=stopped)


def _beyond(where: str, wide: int, *, stopped: bool) -> Iterator[LeftOut]:
    if wide:
        yield LeftOut(
            f"holds {wide:,} rows{where} with more than {_SPARE_CELLS} cells beyond the last column that has a name, "
            "which were left out; name the columns",
            "too large",
        )
    if stopped:
        yield LeftOut(
            f"holds more than {_BLANK_ROWS:,} blank rows on end{where}; what may stand behind them was not read",
            "too large",
        )


def _head_at(head: list[list[str]]) -> int | None:
    """Which row names the columns: none below a row with as many cells, which would lose its place to one of data."""
    widest = 0
    for number, (row, below) in enumerate(itertools.pairwise(head)):
        width = sum(bool(cell.strip()) for cell in row)
        if width > widest and _names_columns(row, below):
            return number
        widest = max(widest, width)
    return None


def _numbered(names: list[str]) -> list[str]:
    """Repeated names told apart: ``Capital``, ``Capital 2``."""
    seen = Counter[str]()
    numbered = []
    for name in names:
        seen[name] += 1
        numbered.append(f"{name} {seen[name]}" if name and seen[name] > 1 else name)
    return numbered


def _names_columns(row: list[str], below: list[str]) -> bool:
    """Whether a row is the head of a table: short texts, most of them different, as wide as the next row.

    None is a number; but a year that does not stand above another one is a name.
    """
    cells = [cell.strip() for cell in row]
    while cells and not cells[-1]:
        cells.pop()
    width = max((n + 1 for n, cell in enumerate(below) if cell.strip()), default=0)
    if len(cells) < width or (len(cells) < 2 and (len(row) > 1 or not cells[0].isidentifier())):
        return False
    named = [cell for cell in cells if cell]
    if len(named) < max(1, 0.7 * len(cells)) or 2 * len(set(named)) <= len(named):
        return False
    years = [
        bool(_YEAR.fullmatch(cell)) and not _YEAR.fullmatch(under.strip())
        for cell, under in itertools.zip_longest(cells, below[: len(cells)], fillvalue="")
    ]
    if all(years):
        return False
    return all(
        len(cell) <= _NAME and (year or not _NUMBER.fullmatch(cell))
        for cell, year in zip(cells, years, strict=True)
        if cell
    )


def _row(names: list[str], row: list[str]) -> str:
    pairs = itertools.zip_longest(names, row[: len(names) + _SPARE_CELLS], fillvalue="")
    return "\n".join(f"{name}: {cell}" if name else cell for name, cell in pairs if cell.strip())


# --- JSON -------------------------------------------------------------------------------------------------------------


def read_json(path: Path, job: ReadingJob) -> Iterator[Piece | LeftOut]:
    """Read a list of records (or an object that holds one) as a document a record, and anything else as one."""
    text, encoding = decode(job.whole(path))
    try:
        found = json.loads(text)
    except ValueError as err:
        first, _, rest_of_it = text.lstrip().partition("\n")
        if rest_of_it.strip() and _is_json(first):  # JSON Lines under another name
            yield from read_jsonl(path, job)
            return
        raise UnreadableError(f"is broken JSON ({first_line(err)}); export it again") from err
    del text
    lists = [name for name, value in found.items() if _is_records(value)] if isinstance(found, dict) else []
    rest = found if len(lists) == 1 else {}
    if len(lists) == 1:
        found = found.pop(lists[0])
    yield from _records(found if isinstance(found, list) else [found], job)
    if not all(_NUMBER.fullmatch(value) for _, value in _flat(rest)):  # more than a count or a version of the list
        yield from _records([rest], job)
    yield from encoding_note(encoding)


def read_jsonl(path: Path, job: ReadingJob) -> Iterator[Piece | LeftOut]:
    """Read JSON Lines: a document a line, one line at a time."""
    lines = TextLines(path, job.settings.max_file_mb * MEGABYTE)
    broken = 0

    def records() -> Iterator[Any]:
        nonlocal broken
        for line in lines:
            try:
                if line.strip():
                    yield json.loads(line)
            except (ValueError, RecursionError):  # noqa: PERF203 - one broken line is no reason to lose the others
                broken += 1

    yield from _records(records(), job)
    if broken:
        yield LeftOut(f"holds {broken:,} lines that are no JSON and were left out", "broken")
    yield from encoding_note(lines.encoding)


def _records(records: Iterable[Any], job: ReadingJob) -> Iterator[Piece | LeftOut]:
    limit = job.settings.max_rows
    rest = iter(records)
    for record in itertools.islice(rest, limit):
        yield Piece("\n".join(f"{name}: {value}" if name else value for name, value in _flat(record)))
    if next(rest, None) is not None:
        yield LeftOut(
            f"holds more than {limit:,} records, of which the first {limit:,} were read; raise `max_rows` for more",
            "too large",
        )


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Names such as ``author.city`` with their texts; a list of simple values is one of them."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
        for item in value:
            yield from _flat(item, name)
    elif isinstance(value, list):
        yield name, "; ".join(str(item) for item in value if item is not None)
    elif value is not None and str(value).strip():
        yield name, str(value)


def _is_records(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 0 and all(isinstance(item, dict) for item in value)


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True
