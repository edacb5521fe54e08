"""The file of a TruLens database: its address, the rows that make it unreadable, an index of its records."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from llama_index_embft._core.checks import first_line
from llama_index_embft._core.temporary import scratch_folder
from llama_index_embft.errors import EvaluationError

if TYPE_CHECKING:
    from collections.abc import Iterator

DEFAULT_DATABASE: Final = "trulens.sqlite"


def database_url(database: str | os.PathLike[str]) -> str:
    """A path as SQLAlchemy's URL of a SQLite file; a URL stays as it is."""
    text = os.fspath(database)
    if "://" in text:
        return text
    return f"sqlite:///{Path(text).expanduser().absolute()}"


def sqlite_file(url: str) -> Path | None:
    """The file of a SQLite URL; None for other databases and for one in memory."""
    path = url.removeprefix("sqlite:///")
    return Path(path) if url.startswith("sqlite:///") and path not in ("", ":memory:") else None


@contextmanager
def readable_copy(database: str | os.PathLike[str]) -> Iterator[str]:
    """The URL of a copy of a SQLite database, which TruLens may migrate and write as it does whenever it opens one.

    Databases of other kinds are given as they are.

    Raises:
        EvaluationError: There is no such file, it cannot be read, or it holds rows that no reader survives.
    """
    url = database_url(database)
    file = sqlite_file(url)
    if file is None:
        yield url
        return
    if not file.is_file():
        raise EvaluationError(f"There is no TruLens database {file}; check the path.")
    with scratch_folder() as folder:
        copy = folder / "trulens.sqlite"
        try:
            _copy(file, copy)
        except (sqlite3.Error, OSError) as err:
            raise EvaluationError(f"{file} is not a TruLens database ({first_line(err)}).") from err
        _refuse_nan(_count_broken_rows(copy), file)
        yield database_url(copy)


def _copy(file: Path, copy: Path) -> None:
    """Copy a SQLite database as it is between two transactions, without a write to it."""
    try:
        with (
            closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as source,
            closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
    except sqlite3.OperationalError:
        # Its writer was killed. What it left beside the file says how to take half-written pages back: in the copy.
        for end in ("", "-journal", "-wal"):
            if (left := file.with_name(file.name + end)).exists():
                shutil.copyfile(left, copy.with_name(copy.name + end))
        with closing(sqlite3.connect(copy)) as target:
            target.execute("PRAGMA schema_version").fetchone()


def refuse_broken_rows(url: str) -> None:
    """Raise if a SQLite database holds rows with NaN.

    TruLens stores what a metric returns as JSON, and Python writes ``NaN`` there; SQLite before 3.42 then fails to read
    anything at all.

    Raises:
        EvaluationError: It does, or the file is no TruLens database.
    """
    file = sqlite_file(url)
    _refuse_nan(_count_broken_rows(file), file)


def _refuse_nan(broken: int, file: Path | None) -> None:
    if broken:
        raise EvaluationError(
            f"{file} holds {broken} rows with NaN, which SQLite before 3.42 cannot read (a TruLens metric returned "
            "NaN); `embft dashboard --repair` or `repair_database` removes them."
        )


def index_records(database: Any, record_id: str) -> None:
    """Let TruLens find the rows of a record by an index, in SQLite and PostgreSQL.

    It looks for the id inside of the JSON of every row, four times for each answer that is stored: after ten thousand
    answers a live one would take a second. Rows with NaN, which no function for JSON in SQLite reads, have no id there.

    Args:
        database: TruLens' own object; in SQLite its queries are worded as the index is.
        record_id: Name of the id in the attributes of a row.
    """
    import sqlalchemy as sa

    dialect = database.engine.dialect.name
    if dialect == "sqlite":
        of_any = database._json_path_expr
        found = "CASE WHEN json_valid({0}) THEN json_extract({0}, '$.\"" + record_id + "\"') END"
        by_index: Any = sa.literal_column(found.format("trulens_events.record_attributes"), sa.String)

        def of_path(column: Any, path: str) -> Any:
            return by_index if (column.key, path) == ("record_attributes", record_id) else of_any(column, path)

        vars(database)["_json_path_expr"] = of_path
    elif dialect == "postgresql":
        found = f"json_extract_path_text({{0}}, '{record_id}')"
    else:
        return
    # Where it cannot be made (another process writes just now, or it is not allowed) queries read all rows as before.
    with suppress(sa.exc.SQLAlchemyError), database.engine.begin() as connection:
        wanted = f"ON trulens_events ({found.format('record_attributes')})"
        connection.exec_driver_sql(f"CREATE INDEX IF NOT EXISTS embft_record_id {wanted}")


def repair_database(database: str | os.PathLike[str]) -> int:
    """Remove the rows of a SQLite database that hold NaN; returns their number.

    These are verdicts of metrics, which some TruLens metrics return for a query without ground truth; records stay.

    Raises:
        EvaluationError: There is no such file, or it is no TruLens database.
    """
    file = sqlite_file(database_url(database))
    if file is None or not file.exists():
        raise EvaluationError(f"There is no SQLite file {os.fspath(database)} to repair.")
    try:
        with sqlite3.connect(file) as connection:
            removed = connection.execute("DELETE FROM trulens_events WHERE NOT json_valid(record_attributes)").rowcount
        connection.close()
    except sqlite3.Error as err:
        raise EvaluationError(f"{file} is not a TruLens database ({first_line(err)}).") from err
    return removed


def _count_broken_rows(file: Path | None) -> int:
    if file is None or not file.exists() or not file.stat().st_size:
        return 0
    try:
        connection = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)
        try:
            found = connection.execute("SELECT count(*) FROM trulens_events WHERE NOT json_valid(record_attributes)")
            return int(found.fetchone()[0])
        finally:
            connection.close()
    except sqlite3.OperationalError:
        return 0  # no such table: a new database
    except sqlite3.Error as err:
        raise EvaluationError(f"{file} is not a TruLens database ({first_line(err)}); choose another file.") from err
