"""Rows of named columns, wherever they are kept: JSON Lines, JSON, CSV, TSV, Parquet, `datasets.Dataset`.

Reading holds one row (Parquet and tables: at most 64, JSON: the file) in memory, writing one row (Parquet: 1,000).
JSON Lines and CSV are read line by line, by `json` and `csv`: pyarrow and pandas would take texts that look like dates
for dates, fill short rows up, and know no line numbers.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import logging
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from llama_index_embft._core.files import open_atomically, write_folder_atomically
from llama_index_embft._core.tables import allow_long_cells
from llama_index_embft.dataset import sources
from llama_index_embft.dataset.sources import At, FaultError, one_sentence, parse_json, read_json, read_lines, shown
from llama_index_embft.errors import ConfigError, DatasetError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from llama_index_embft.dataset.formats.build import Builder

logger = logging.getLogger(__name__)

Row = dict[str, Any]

_SUFFIXES: Final = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}
_DELIMITER: Final = {"csv": ",", "tsv": "\t"}
_ENDINGS: Final = "known are .jsonl, .json, .csv, .tsv (each also .gz), .parquet, and folders of `save_to_disk`"
FOLDER_MARKS: Final = ("dataset_info.json", "dataset_dict.json")
"""Files by which a folder of ``save_to_disk`` is known."""
_FORMULA: Final = re.compile(r"[=+@\t\r]|-[^\s\-]")
_NUMBER: Final = re.compile(r"[+-]?[\d.,]+(?:[eE][+-]?\d+)?")
_READ_ROWS, _WRITE_ROWS = 64, 1000
PARQUET_FREE: Final = 1 << 28
"""Unpacked bytes below which the ratio is not looked at: a Parquet file of one repeated text is small and honest."""


def container_of(path: str | os.PathLike[str]) -> str | None:
    """How a file keeps its rows, by its ending (``.gz`` apart): jsonl, json, csv, tsv, parquet; None for others."""
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    return _SUFFIXES.get(suffixes[-1]) if suffixes else None


def is_table(source: object) -> bool:
    """Whether something is a `datasets.Dataset` or `DatasetDict` (told without importing `datasets`)."""
    return any(kind.__module__.partition(".")[0] == "datasets" for kind in type(source).__mro__)


# --- reading ----------------------------------------------------------------------------------------------------------


def read_rows(source: Any, build: Builder, *, split: str | None = None) -> Iterator[tuple[At, Row]]:
    """Rows of a file, a folder of ``save_to_disk``, a `datasets.Dataset` or `DatasetDict`, or an iterable of dicts.

    A line that is no row is a fault of ``build``: it stops the reading or is counted.

    Raises:
        DatasetError: The source cannot be read; a `DatasetDict` has several splits and ``split`` names none of them.
        ConfigError: A ``split`` is given for something that has none.
    """
    if isinstance(source, (str, os.PathLike)):
        path, container = Path(source), container_of(source)
        if path.is_dir():
            yield from _table_rows(load_folder(path), os.fspath(path), split, build)
            return
        if split is not None:
            raise ConfigError(f"{path} has no splits; leave out split={split!r}.")
        if container is None:
            raise DatasetError(f"{path}: the rows of a file ending in {path.suffix!r} cannot be read; {_ENDINGS}.")
        if container == "jsonl":
            yield from _read_jsonl(path, build)
        elif container == "json":
            yield from _checked(_json_list(path), os.fspath(path), "entry", build)
        elif container == "parquet":
            yield from _read_parquet(path, build)
        else:
            yield from _read_separated(path, _DELIMITER[container], build)
    elif is_table(source):
        yield from _table_rows(source, f"datasets.{type(source).__name__}", split, build)
    else:
        yield from _checked(source, "rows", "row", build)


def _checked(rows: Iterable[Any], name: str, unit: str, build: Builder) -> Iterator[tuple[At, Row]]:
    for number, row in enumerate(rows, 1):
        at = At(name, number, unit)
        if isinstance(row, dict):
            # Scalars and arrays of NumPy, as pandas and `datasets` hand them out.
            yield at, {key: cell.tolist() if hasattr(cell, "tolist") else cell for key, cell in row.items()}
        else:
            with build.row():
                raise FaultError(at, "wrong type", f"a row should be an object with names, got {shown(row)}")


def _json_list(path: Path) -> list[Any]:
    rows = read_json(path)
    if not isinstance(rows, list):
        raise DatasetError(f"{path} should hold a list of rows as JSON, got {shown(rows)}.")
    return rows


def _read_jsonl(path: Path, build: Builder) -> Iterator[tuple[At, Row]]:
    for number, line in read_lines(path):
        if line.strip():
            at, row = At(os.fspath(path), number), None
            with build.row():
                row = parse_json(line, at)
                if not isinstance(row, dict):
                    raise FaultError(at, "wrong type", f"a line should be an object with names, got {shown(row)}")
            if isinstance(row, dict):
                yield at, row


def _read_separated(path: Path, delimiter: str, build: Builder) -> Iterator[tuple[At, Row]]:
    allow_long_cells()
    reader = csv.reader((line for _, line in read_lines(path)), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    file, line = os.fspath(path), 1
    try:
        for cells in reader:
            at, line = At(file, line), reader.line_num + 1
            if not cells:
                continue
            if header is None:
                header = cells
                mark = next((mark for mark in ";\t|" if len(header) == 1 and mark in header[0]), None)
                if mark is not None:
                    raise DatasetError(
                        f"{at}: the columns are parted by {mark!r}; save the file with commas, or with tabs as .tsv."
                    )
                twice = next((name for name in header if header.count(name) > 1), None) if len(header) < 1000 else None
                if twice is not None or len(set(header)) < len(header):
                    raise DatasetError(f"{at}: the column {twice!r} appears twice; rename one.")
            elif len(cells) == len(header):
                yield at, dict(zip(header, cells, strict=True))
            else:
                with build.row():
                    statement = f"{len(cells)} cells in a table of {len(header)} columns"
                    raise FaultError(at, "line of a wrong length", statement)
    except csv.Error as err:
        raise DatasetError(f"{file}, line {line}: not well-formed CSV ({err}); quote the cells that need it.") from err
    if header is None:
        raise DatasetError(f"{file} is empty; its first line should name the columns.")


def _read_parquet(path: Path, build: Builder) -> Iterator[tuple[At, Row]]:
    from pyarrow import parquet  # type: ignore[import-untyped, unused-ignore]

    if not path.is_file():
        raise DatasetError(f"There is no file {path}; check the path.")
    allowed = max(PARQUET_FREE, sources.MAX_RATIO * path.stat().st_size)
    with one_sentence(f"{path} cannot be read as Parquet"), parquet.ParquetFile(path) as file:
        chunks = [
            file.metadata.row_group(group).column(column).total_uncompressed_size
            for group in range(file.metadata.num_row_groups)
            for column in range(file.metadata.num_columns)
        ]
        # A dictionary holds a text once and hands it to every row: no more rows at a time than a chunk's size allows.
        at_a_time = max(1, min(_READ_ROWS, PARQUET_FREE // 4 // max(chunks, default=1))) if any(chunks) else _READ_ROWS
        batches = file.iter_batches(batch_size=at_a_time)
        bomb = DatasetError(f"{path} unpacks to more than {sources.MAX_RATIO} times its size (a zip bomb?).")
        if max(chunks, default=0) > allowed:
            raise bomb
        number = 0
        for batch in batches:
            allowed -= batch.nbytes
            if allowed < 0:
                raise bomb
            batch.validate(full=True)
            for row in _rows_of(batch, build):
                number += 1
                yield At(os.fspath(path), number, "row"), row


def _rows_of(batch: Any, build: Builder) -> Iterator[Row]:
    """Rows of a record batch or table; a column that Python cannot hold (a date in the year 30,000) is none."""
    columns = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            columns[name] = column.to_pylist()
        # Whatever it is, it matters only if somebody asks for this column, who then finds nothing there.
        except Exception:  # noqa: BLE001, PERF203
            columns[name] = [None] * batch.num_rows
            build.lost[f"field {name!r} (values that Python cannot hold)"] += batch.num_rows
    for values in zip(*columns.values(), strict=True):
        yield dict(zip(columns, values, strict=True))


def load_folder(path: Path) -> Any:
    """A folder of ``save_to_disk`` as a `Dataset` or `DatasetDict`.

    Raises:
        DatasetError: It is none, or a broken one.
    """
    from datasets import load_from_disk

    if not any((path / mark).is_file() for mark in FOLDER_MARKS):
        raise DatasetError(f"{path} is not a folder of `datasets` (it has no {' or '.join(FOLDER_MARKS)}).")
    with one_sentence(f"{path} cannot be loaded by `datasets`"):
        loaded = load_from_disk(str(path))
        for table in loaded.values() if isinstance(loaded, dict) else [loaded]:
            table.data.validate(full=True)  # Arrow trusts its files: a wrong offset would read beyond them
    return loaded


def _table_rows(table: Any, name: str, split: str | None, build: Builder) -> Iterator[tuple[At, Row]]:
    """Rows of a Dataset, or of the split of a DatasetDict."""
    if isinstance(table, dict):
        if split is None and len(table) == 1:
            split = next(iter(table))
        if split not in table:
            asked = f"there is no split {split!r}" if split is not None else "it has several splits"
            raise DatasetError(f"{name}: {asked}; give one of them as `split`: {', '.join(map(str, table))}.")
        table, name = table[split], f"{name}[{split!r}]"
    elif split is not None:
        raise ConfigError(f"{name} has no splits; leave out split={split!r}.")
    number = 0
    with one_sentence(f"{name} cannot be read"):
        for batch in table.with_format("arrow").iter(_READ_ROWS) if len(table) else ():
            for row in _rows_of(batch, build):
                number += 1
                yield At(name, number, "row"), row


# --- writing ----------------------------------------------------------------------------------------------------------


def json_line(row: Row) -> str:
    """A row as a line of JSON Lines."""
    return json.dumps(row, ensure_ascii=False) + "\n"


def write_pieces(path: str | os.PathLike[str], pieces: Iterable[str]) -> int:
    """Write texts one after the other as UTF-8, whole or not at all; returns how many there were.

    Raises:
        OutputError: The file cannot be written. An older file of that name is untouched.
        DatasetError: A text holds half of a character, which UTF-8 cannot hold.
    """
    count = 0
    try:
        with open_atomically(path) as file:
            for piece in pieces:
                file.write(piece.encode("utf-8"))
                count += 1
    except UnicodeEncodeError as err:
        raise _half_character(err) from err
    return count


def write_rows(rows: Iterable[Row], path: str | os.PathLike[str], columns: Sequence[str] | None = None) -> int:
    """Write rows as the file's ending says, whole or not at all; a path without an ending becomes a `datasets` folder.

    Args:
        rows: Rows with the same columns each.
        path: A .jsonl, .json, .csv, .tsv or .parquet file, or a new folder.
        columns: The columns, for tables; None: those of the first row.

    Returns:
        How many rows there were.

    Raises:
        ConfigError: The ending is not known.
        DatasetError: A text holds half of a character.
        OutputError: It cannot be written.
    """
    container = container_of(path)
    if Path(path).suffix.lower() == ".gz":
        raise ConfigError(f"Cannot write {path}: packed files are only read; leave out `.gz`.")
    if container == "jsonl":
        return write_pieces(path, map(json_line, rows))
    if container == "json":
        lines = (("[\n", ",\n")[number > 0] + json_line(row)[:-1] for number, row in enumerate(rows))
        return write_pieces(path, itertools.chain(lines, ["\n]\n"])) - 1
    if container in ("csv", "tsv"):
        return write_pieces(path, _separated(rows, columns, _DELIMITER[container])) - 1
    if container == "parquet":
        return _write_parquet(rows, path, columns)
    if Path(path).suffix and not Path(path).is_dir():
        raise ConfigError(f"Cannot write rows as {path}: {_ENDINGS}.")
    table = to_table(rows, columns)
    with write_folder_atomically(path) as folder:
        table.save_to_disk(str(folder))
    return len(table)


def _separated(rows: Iterable[Row], columns: Sequence[str] | None, delimiter: str) -> Iterator[str]:
    head, ordered = _columns(rows, columns)
    lines: Iterable[list[Any]] = ([row.get(name) for name in head] for row in ordered)
    formulas = 0
    for cells in itertools.chain([head], lines):
        # Older Pythons do not see that a carriage return needs quotes, nor that an empty line is a row of one cell.
        odd = any(isinstance(cell, str) and "\r" in cell for cell in cells) or cells in ([""], [None])
        formulas += sum(isinstance(cell, str) and is_formula(cell) for cell in cells)
        line = io.StringIO(newline="")
        try:
            csv.writer(
                line,
                delimiter=delimiter,
                lineterminator="\n",
                quoting=csv.QUOTE_ALL if odd else csv.QUOTE_MINIMAL,
            ).writerow(cells)
        except csv.Error as err:
            # Python 3.10 neither writes nor reads the character U+0000.
            raise DatasetError(f"A text cannot be written as CSV ({err}); write .jsonl.") from err
        yield line.getvalue()
    if formulas:
        logger.warning(
            "%d cells begin with =, +, @ or a sign before a name, which spreadsheets take for formulas and run; open "
            "the file as text, or write .jsonl.",
            formulas,
        )


def is_formula(cell: str) -> bool:
    """Whether a spreadsheet would run a cell; a number with its sign is none."""
    return _FORMULA.match(cell) is not None and _NUMBER.fullmatch(cell) is None


def _columns(rows: Iterable[Row], columns: Sequence[str] | None) -> tuple[list[str], Iterable[Row]]:
    if columns is not None:
        return list(columns), rows
    iterator = iter(rows)
    first = next(iterator, {})
    return list(first), itertools.chain([first] if first else [], iterator)


def _write_parquet(rows: Iterable[Row], path: str | os.PathLike[str], columns: Sequence[str] | None) -> int:
    from pyarrow import parquet  # type: ignore[import-untyped, unused-ignore]

    names, ordered = _columns(rows, columns)
    iterator, count, writer = iter(ordered), 0, None
    with open_atomically(path) as file:
        try:
            # The first batch decides the types; at least one, so that a table without rows has its columns.
            while (batch := list(itertools.islice(iterator, _WRITE_ROWS))) or writer is None:
                table = _arrow_table(batch, names, None if writer is None else writer.schema)
                writer = writer or parquet.ParquetWriter(file, table.schema)
                writer.write_table(table)
                count += len(batch)
        finally:
            if writer is not None:
                writer.close()
    return count


def _arrow_table(rows: list[Row], names: list[str], schema: Any) -> Any:
    """A table in which a column that has been empty so far is one of texts, or of lists of texts."""
    import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]

    def known(kind: Any) -> Any:
        if pa.types.is_null(kind):
            return pa.string()
        return pa.list_(known(kind.value_type)) if pa.types.is_list(kind) else kind

    try:
        table = pa.table({name: [row.get(name) for row in rows] for name in names}, schema=schema)
    except UnicodeEncodeError as err:
        raise _half_character(err) from err
    return table if schema else table.cast(pa.schema([(field.name, known(field.type)) for field in table.schema]))


def to_table(rows: Iterable[Row], columns: Sequence[str] | None = None) -> Any:
    """Rows as a `datasets.Dataset`, in memory."""
    from datasets import Dataset

    names, ordered = _columns(rows, columns)
    return Dataset(_arrow_table(list(ordered), names, None))


def _half_character(err: UnicodeEncodeError) -> DatasetError:
    half = err.object[err.start]
    return DatasetError(f"A text contains an unpaired surrogate ({half!r}); correct it in the data set.")
