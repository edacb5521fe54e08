"""Rows of named columns, wherever they are kept: JSON Lines, JSON, CSV, TSV, Parquet, `datasets.Dataset`.

Reading holds one row (Parquet: 64 rows, JSON: the file) in memory, writing one row (Parquet: 1,000).
"""

from __future__ import annotations

import csv
import itertools
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from llama_index_embft._core.files import write_folder_atomically
from llama_index_embft.dataset.formats._sink import open_atomically, write_pieces
from llama_index_embft.dataset.formats._source import (
    MAX_LINE,
    MAX_RATIO,
    At,
    FaultError,
    parse_json,
    read_json,
    read_lines,
    shown,
)
from llama_index_embft.errors import ConfigError, DatasetError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from llama_index_embft.dataset.formats._build import Builder

Row = dict[str, Any]

_SUFFIXES: Final = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}
FOLDER_MARKS: Final = ("dataset_info.json", "dataset_dict.json")
"""Files by which a folder of ``save_to_disk`` is known."""
# Few at a time for reading: pages of one repeated text unpack to as many copies of it.
_PARQUET_READ, _PARQUET_WRITE = 64, 1000
_UNPACKED_FREE: Final = 1 << 30  # bytes; a Parquet file of one repeated text may be very small and honest


def container_of(path: str | os.PathLike[str]) -> str | None:
    """How a file keeps its rows, by its ending (``.gz`` apart): jsonl, json, csv, tsv, parquet; None for others."""
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    return _SUFFIXES.get(suffixes[-1]) if suffixes else None


def is_table(source: object) -> bool:
    """Whether something is a `datasets.Dataset` or `DatasetDict` (told without importing `datasets`)."""
    return type(source).__module__.partition(".")[0] == "datasets"


# --- reading ----------------------------------------------------------------------------------------------------------


def read_rows(source: Any, build: Builder, *, split: str | None = None) -> Iterator[tuple[At, Row]]:
    """Rows of a file, a folder of ``save_to_disk``, a `datasets.Dataset` or `DatasetDict`, or an iterable of dicts.

    A line that is no row is a fault of ``build``: it stops the reading or is counted.

    Raises:
        DatasetError: The source cannot be read; a `DatasetDict` has several splits and ``split`` names none of them.
        ConfigError: A ``split`` is given for something that has none.
    """
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        if path.is_dir():
            yield from _table_rows(_load_folder(path), os.fspath(path), split)
            return
        if split is not None:
            raise ConfigError(f"{path} has no splits; leave out split={split!r}.")
        container = container_of(path)
        if container is None:
            raise DatasetError(f"{path}: the rows of a file ending in {path.suffix!r} cannot be read; {_ENDINGS}.")
        yield from _READERS[container](path, build)
    elif is_table(source):
        yield from _table_rows(source, f"datasets.{type(source).__name__}", split)
    else:
        for number, row in enumerate(source, 1):
            yield from _checked(row, At("rows", number, "row"), build)


_ENDINGS: Final = "known are .jsonl, .json, .csv, .tsv (each also .gz), .parquet, and folders of `save_to_disk`"


def _checked(row: Any, at: At, build: Builder) -> Iterator[tuple[At, Row]]:
    with build.row():
        if not isinstance(row, dict):
            raise FaultError(at, "wrong type", f"a row should be an object with names, got {shown(row)}")
        yield at, row


def _read_jsonl(path: Path, build: Builder) -> Iterator[tuple[At, Row]]:
    for number, line in read_lines(path):
        if line.strip():
            at = At(os.fspath(path), number)
            row = None
            with build.row():
                row = parse_json(line, at)
                if not isinstance(row, dict):
                    raise FaultError(at, "wrong type", f"a line should be an object with names, got {shown(row)}")
            if isinstance(row, dict):
                yield at, row


def _read_json(path: Path, build: Builder) -> Iterator[tuple[At, Row]]:
    rows = read_json(path)
    if not isinstance(rows, list):
        raise DatasetError(f"{path} should hold a list of rows as JSON, got {shown(rows)}.")
    for number, row in enumerate(rows, 1):
        yield from _checked(row, At(os.fspath(path), number, "entry"), build)


def _read_csv(path: Path, build: Builder) -> Iterator[tuple[At, Row]]:
    return _separated(path, ",", build)


def _read_tsv(path: Path, build: Builder) -> Iterator[tuple[At, Row]]:
    return _separated(path, "\t", build)


def _separated(path: Path, delimiter: str, build: Builder) -> Iterator[tuple[At, Row]]:
    # The module's bound of 131,072 characters a field is one for the whole process; only ever raised here.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE))
    reader = csv.reader((line for _, line in read_lines(path)), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    file, line = os.fspath(path), 1
    try:
        for cells in reader:
            at, line = At(file, line), reader.line_num + 1
            if not cells:
                continue
            if header is None:
                header = _header(cells, at)
                continue
            with build.row():
                if len(cells) != len(header):
                    raise FaultError(
                        at, "line of a wrong length", f"{len(cells)} cells in a table of {len(header)} columns"
                    )
            if len(cells) == len(header):
                yield at, dict(zip(header, cells, strict=True))
    except csv.Error as err:
        raise DatasetError(f"{file}, line {line}: not well-formed CSV ({err}); quote the cells that need it.") from err
    if header is None:
        raise DatasetError(f"{file} is empty; its first line should name the columns.")


def _header(cells: list[str], at: At) -> list[str]:
    if len(set(cells)) < len(cells):
        twice = next(name for name in cells if cells.count(name) > 1)
        raise DatasetError(f"{at}: the column {twice!r} stands twice; rename one.")
    return cells


def _read_parquet(path: Path, build: Builder) -> Iterator[tuple[At, Row]]:
    import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]
    from pyarrow import parquet  # type: ignore[import-untyped, unused-ignore]

    number = seen = 0
    try:
        if not path.is_file():
            raise DatasetError(f"There is no file {path}; check the path.")
        allowed = max(_UNPACKED_FREE, MAX_RATIO * path.stat().st_size)
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_PARQUET_READ):
                seen += batch.nbytes
                if seen > allowed:
                    raise DatasetError(f"{path} unpacks to more than {MAX_RATIO} times its size (a zip bomb?).")
                batch.validate(full=True)
                for row in batch.to_pylist():
                    number += 1
                    yield from _checked(row, At(os.fspath(path), number, "row"), build)
    except (pa.ArrowException, OSError, UnicodeDecodeError, MemoryError) as err:
        reason = str(err).strip().splitlines()[0][:200] if str(err).strip() else type(err).__name__
        raise DatasetError(f"{path} cannot be read as Parquet after row {number}: {reason}.") from err


def _load_folder(path: Path) -> Any:
    from datasets import load_from_disk

    if not any((path / mark).is_file() for mark in FOLDER_MARKS):
        raise DatasetError(f"{path} is no folder of `datasets` (it has no {' or '.join(FOLDER_MARKS)}).")
    try:
        loaded = load_from_disk(str(path))
        for table in loaded.values() if isinstance(loaded, dict) else [loaded]:
            table.data.validate(full=True)  # Arrow trusts its files: a wrong offset would read beyond them
        return loaded
    # The library parses several JSON and Arrow files there, each with errors of its own.
    except Exception as err:
        reason = str(err).strip().splitlines()[0][:200] if str(err).strip() else type(err).__name__
        raise DatasetError(f"{path} cannot be loaded by `datasets`: {reason}.") from err


def _table_rows(table: Any, name: str, split: str | None) -> Iterator[tuple[At, Row]]:
    """Rows of a Dataset, or of the split of a DatasetDict."""
    if isinstance(table, dict):
        table, name = one_split(table, split, name)
    elif split is not None:
        raise ConfigError(f"{name} has no splits; leave out split={split!r}.")
    rows = enumerate(iter(table), 1)
    while True:
        try:
            number, row = next(rows)
        except StopIteration:
            return
        # Arrow's errors, and those of `datasets`' own feature types.
        except Exception as err:
            raise DatasetError(f"{name} cannot be read: {err}.") from err
        yield At(name, number, "row"), row


def one_split(splits: Any, split: str | None, name: str) -> tuple[Any, str]:
    """The split asked for, or the only one.

    Raises:
        DatasetError: There is no such split, or several and none is asked for.
    """
    if split is None and len(splits) == 1:
        split = next(iter(splits))
    if split not in splits:
        asked = f"there is no split {split!r}" if split is not None else "it has several splits"
        raise DatasetError(f"{name}: {asked}; give one of them as `split`: {', '.join(map(str, splits))}.")
    return splits[split], f"{name}[{split!r}]"


_READERS: Final[dict[str, Callable[[Path, Builder], Iterator[tuple[At, Row]]]]] = {
    "jsonl": _read_jsonl,
    "json": _read_json,
    "csv": _read_csv,
    "tsv": _read_tsv,
    "parquet": _read_parquet,
}


def first_row(path: Path) -> Row | None:
    """The first row of a file, for guessing what it is; None where it has none or cannot be read."""
    from llama_index_embft.dataset.formats._build import Builder

    try:
        return next((row for _, row in read_rows(path, Builder(os.fspath(path)))), None)
    except (DatasetError, ConfigError):
        return None


# --- writing ----------------------------------------------------------------------------------------------------------


def json_line(row: Row) -> str:
    """A row as a line of JSON Lines."""
    return json.dumps(row, ensure_ascii=False) + "\n"


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
    if Path(path).suffix == ".gz":
        raise ConfigError(f"Cannot write {path}: packed files are only read; leave out `.gz`.")
    if container is None and Path(path).suffix and not Path(path).is_dir():
        raise ConfigError(f"Cannot write rows as {path}: {_ENDINGS}.")
    if container is None:
        return _write_table(rows, path, columns)
    return _WRITERS[container](rows, path, columns)


def _write_jsonl(rows: Iterable[Row], path: str | os.PathLike[str], columns: Sequence[str] | None) -> int:
    del columns
    return write_pieces(path, map(json_line, rows))


def _write_json(rows: Iterable[Row], path: str | os.PathLike[str], columns: Sequence[str] | None) -> int:
    del columns

    def pieces() -> Iterator[str]:
        yield "["
        for number, row in enumerate(rows):
            yield (",\n" if number else "\n") + json.dumps(row, ensure_ascii=False)
        yield "\n]\n"

    return write_pieces(path, pieces()) - 2


def _write_csv(rows: Iterable[Row], path: str | os.PathLike[str], columns: Sequence[str] | None) -> int:
    return _write_separated(rows, path, columns, ",")


def _write_tsv(rows: Iterable[Row], path: str | os.PathLike[str], columns: Sequence[str] | None) -> int:
    return _write_separated(rows, path, columns, "\t")


class _Line:
    """What `csv.writer` writes to: keeps the line."""

    text = ""

    def write(self, text: str) -> None:
        self.text = text


def _write_separated(
    rows: Iterable[Row], path: str | os.PathLike[str], columns: Sequence[str] | None, delimiter: str
) -> int:
    line: Any = _Line()
    plain = csv.writer(line, delimiter=delimiter, lineterminator="\n")
    # Older Pythons do not see that a carriage return needs quotes.
    quoted = csv.writer(line, delimiter=delimiter, lineterminator="\n", quoting=csv.QUOTE_ALL)

    def pieces() -> Iterator[str]:
        head, ordered = _columns(rows, columns)
        lines: Iterable[list[Any]] = ([row.get(name) for name in head] for row in ordered)
        for cells in itertools.chain([head], lines):
            odd = any(isinstance(cell, str) and "\r" in cell for cell in cells) or cells in ([""], [None])
            (quoted if odd else plain).writerow(cells)
            yield line.text

    return write_pieces(path, pieces()) - 1


def _columns(rows: Iterable[Row], columns: Sequence[str] | None) -> tuple[list[str], Iterable[Row]]:
    if columns is not None:
        return list(columns), rows
    iterator = iter(rows)
    first = next(iterator, {})
    return list(first), itertools.chain([first] if first else [], iterator)


def _write_parquet(rows: Iterable[Row], path: str | os.PathLike[str], columns: Sequence[str] | None) -> int:
    import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]
    from pyarrow import parquet  # type: ignore[import-untyped, unused-ignore]

    names, ordered = _columns(rows, columns)
    iterator, count, writer = iter(ordered), 0, None
    with open_atomically(path) as file:
        try:
            # The first batch decides the types; at least one, so that a table without rows has its columns.
            while (batch := list(itertools.islice(iterator, _PARQUET_WRITE))) or writer is None:
                data = {name: [row.get(name) for row in batch] for name in names}
                table = pa.table(data, schema=None if writer is None else writer.schema)
                writer = writer or parquet.ParquetWriter(file, _text_where_null(table.schema))
                writer.write_table(table.cast(writer.schema))
                count += len(batch)
        finally:
            if writer is not None:
                writer.close()
    return count


def _text_where_null(schema: Any) -> Any:
    """A schema in which a column that has been empty so far is one of texts, or of lists of texts."""
    import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]

    def known(kind: Any) -> Any:
        if pa.types.is_null(kind):
            return pa.string()
        return pa.list_(known(kind.value_type)) if pa.types.is_list(kind) else kind

    return pa.schema([(field.name, known(field.type)) for field in schema])


def _write_table(rows: Iterable[Row], path: str | os.PathLike[str], columns: Sequence[str] | None) -> int:
    table = to_table(rows, columns)
    with write_folder_atomically(path) as folder:
        table.save_to_disk(str(folder))
    return len(table)


def to_table(rows: Iterable[Row], columns: Sequence[str] | None = None) -> Any:
    """Rows as a `datasets.Dataset`, in memory."""
    import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]
    from datasets import Dataset

    names, ordered = _columns(rows, columns)
    held = list(ordered)
    try:
        table = pa.table({name: [row.get(name) for row in held] for name in names})
        return Dataset(table.cast(_text_where_null(table.schema)))
    except UnicodeEncodeError as err:
        raise DatasetError(f"A text holds half of a character (a lone surrogate, {err.object[err.start]!r}).") from err


_WRITERS: Final[dict[str, Callable[[Iterable[Row], str | os.PathLike[str], Sequence[str] | None], int]]] = {
    "jsonl": _write_jsonl,
    "json": _write_json,
    "csv": _write_csv,
    "tsv": _write_tsv,
    "parquet": _write_parquet,
}
