"""Texts in files, cut into shards: runs of rows that one worker reads, embeds and writes at a time."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from llama_index_embft.errors import DocumentError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_JSONL: Final = (".jsonl", ".ndjson", ".json")
_PARQUET: Final = (".parquet", ".pq")


class ShardColumns(NamedTuple):
    """Where a row has its id and its text; without an id column the row number is the id."""

    id: str | None
    text: str


class ShardRows(NamedTuple):
    """What a shard reads."""

    ids: list[str]
    texts: list[str]


@dataclass(frozen=True)
class Shard:
    """A run of rows of one file.

    Attributes:
        number: Of the shard, from 0, in the order of the input.
        path: The file.
        first_row: Number of the first row, over all files.
        n_rows: Number of rows.
        start: Where they begin: a byte of a JSONL file, a row of a Parquet file.
        first_id: Id of the first row, for messages.
        last_id: Id of the last row.
        digest: Hash of ids and texts.
    """

    number: int
    path: str
    first_row: int
    n_rows: int
    start: int
    first_id: str
    last_id: str
    digest: str

    @property
    def label(self) -> str:
        """What to call it in messages."""
        return f"shard {self.number} (ids {self.first_id!r} to {self.last_id!r} of {Path(self.path).name})"

    def read(self, columns: ShardColumns) -> ShardRows:
        """Ids and texts.

        Raises:
            DocumentError: The file is gone, or is not what it was when the job was planned.
        """
        try:
            rows = next(_pieces(Path(self.path), columns, self.n_rows, self.start, self.first_row))[1]
        except (OSError, StopIteration) as err:
            reason = getattr(err, "strerror", None) or "its rows are gone"
            raise DocumentError(f"Cannot read {self.path}: {reason}.") from err
        if digest_of(rows) != self.digest:
            raise DocumentError(f"{self.path} was changed while it was read; start again when it is finished.")
        return rows

    def as_row(self) -> dict[str, Any]:
        """As a row of a Ray data set."""
        return asdict(self)


def plan_shards(paths: Sequence[str | Path], columns: ShardColumns, size: int) -> list[Shard]:
    """Cut files into shards; all of them are read once, and nothing but the plan is kept in memory.

    Raises:
        DocumentError: A file is missing, is neither, holds no rows, or a row has no text.
    """
    shards: list[Shard] = []
    row = 0
    for path in _files(paths):
        before = row
        try:
            for start, rows in _pieces(path, columns, size, 0, row):
                n = len(rows.ids)
                shards.append(Shard(len(shards), str(path), row, n, start, rows.ids[0], rows.ids[-1], digest_of(rows)))
                row += n
        except OSError as err:
            raise DocumentError(f"Cannot read {path}: {err.strerror or err}.") from err
        if row == before:
            raise DocumentError(f"{path} has no rows; leave it out.")
    return shards


def digest_of(rows: ShardRows) -> str:
    """Hash of ids and texts; 32 hex digits."""
    digest = hashlib.blake2b(digest_size=16)
    for column in rows:
        for text in column:
            data = text.encode("utf-8", "surrogatepass")
            digest.update(len(data).to_bytes(8, "little"))
            digest.update(data)
    return digest.hexdigest()


def _files(paths: Sequence[str | Path]) -> Iterator[Path]:
    given = [paths] if isinstance(paths, (str, Path)) else list(paths)
    if not given:
        raise DocumentError("There is no file to embed; give Parquet or JSONL files, or a folder of them.")
    for item in given:
        path = Path(item).expanduser().resolve()  # workers have other working folders
        if path.is_dir():
            found = sorted(child for child in path.iterdir() if child.suffix.lower() in (*_JSONL, *_PARQUET))
            if not found:
                raise DocumentError(f"The folder {item} holds no Parquet and no JSONL file.")
            yield from found
        elif path.suffix.lower() not in (*_JSONL, *_PARQUET):
            raise DocumentError(f"{item} is neither Parquet (.parquet) nor JSONL (.jsonl); convert it first.")
        elif not path.is_file():
            raise DocumentError(f"The file {item} does not exist.")
        else:
            yield path


def _pieces(
    path: Path, columns: ShardColumns, size: int, start: int, first_row: int
) -> Iterator[tuple[int, ShardRows]]:
    """Runs of rows from a place on, each with the place where it begins."""
    if path.suffix.lower() in _PARQUET:
        return _parquet_pieces(path, columns, size, start, first_row)
    return _jsonl_pieces(path, columns, size, start, first_row)


def _jsonl_pieces(
    path: Path, columns: ShardColumns, size: int, start: int, first_row: int
) -> Iterator[tuple[int, ShardRows]]:
    ids: list[str] = []
    texts: list[str] = []
    row = first_row
    with path.open("rb") as file:
        file.seek(start)
        begin = start
        while line := file.readline():
            if not line.strip():
                continue
            id_, text = _parsed(line, path, columns, row)
            ids.append(id_)
            texts.append(text)
            row += 1
            if len(ids) == size:
                yield begin, ShardRows(ids, texts)
                ids, texts, begin = [], [], file.tell()
    if ids:
        yield begin, ShardRows(ids, texts)


def _parsed(line: bytes, path: Path, columns: ShardColumns, row: int) -> tuple[str, str]:
    try:
        record = json.loads(line)
    except ValueError as err:  # UnicodeDecodeError too
        raise DocumentError(f"{path}: row {row} is not JSON ({err}); each line must hold one object.") from err
    if not isinstance(record, dict):
        raise DocumentError(f"{path}: row {row} is not an object with a field {columns.text!r}.")
    for name in columns:
        if name is not None and name not in record:
            raise DocumentError(f"{path}: row {row} has no {name!r}; its fields are {', '.join(map(repr, record))}.")
    return _checked(record[columns.id] if columns.id else row, record[columns.text], path, row)


def _parquet_pieces(
    path: Path, columns: ShardColumns, size: int, start: int, first_row: int
) -> Iterator[tuple[int, ShardRows]]:
    from pyarrow import ArrowException  # type: ignore[import-untyped, unused-ignore]
    from pyarrow.parquet import ParquetFile  # type: ignore[import-untyped, unused-ignore]

    try:
        with ParquetFile(path) as file:
            names = [name for name in columns if name is not None]
            missing = [name for name in names if name not in file.schema_arrow.names]
            if missing:
                raise DocumentError(
                    f"{path} has no column {missing[0]!r}; its columns are {', '.join(file.schema_arrow.names)}."
                )
            ids: list[str] = []
            texts: list[str] = []
            begin = row = start
            for id_, text in _parquet_rows(file, names, start):
                number = first_row + row - start
                checked = _checked(id_ if columns.id else number, text, path, number)
                ids.append(checked[0])
                texts.append(checked[1])
                row += 1
                if len(ids) == size:
                    yield begin, ShardRows(ids, texts)
                    ids, texts, begin = [], [], row
            if ids:
                yield begin, ShardRows(ids, texts)
    except ArrowException as err:
        raise DocumentError(f"{path} is not a readable Parquet file: {str(err).splitlines()[0]}") from err


def _parquet_rows(file: Any, names: list[str], start: int) -> Iterable[tuple[Any, Any]]:
    """(id, text) from a row on; row groups before it are not read."""
    groups: list[int] = []
    skip = start
    for number in range(file.num_row_groups):
        n = file.metadata.row_group(number).num_rows
        if not groups and skip >= n:
            skip -= n
        else:
            groups.append(number)
    for batch in file.iter_batches(batch_size=8192, row_groups=groups, columns=list(dict.fromkeys(names))):
        if skip >= batch.num_rows:
            skip -= batch.num_rows
            continue
        part = batch.slice(skip)
        skip = 0
        yield from zip(part.column(names[0]).to_pylist(), part.column(names[-1]).to_pylist(), strict=True)


def _checked(id_: Any, text: Any, path: Path, row: int) -> tuple[str, str]:
    if not isinstance(text, str):
        raise DocumentError(f"{path}: the text of row {row} is {type(text).__name__}, not a string.")
    if id_ is None:
        raise DocumentError(f"{path}: row {row} has no id; fill it in, or leave the id column out.")
    return str(id_), text
