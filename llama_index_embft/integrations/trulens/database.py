"""The file of a TruLens database, looked at without TruLens: its address, and the rows that make it unreadable."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Final

from llama_index_embft.errors import EvaluationError

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


def refuse_broken_rows(url: str) -> None:
    """Raise if a SQLite database holds rows with NaN.

    TruLens stores what a metric returns as JSON, and Python writes ``NaN`` there; SQLite before 3.42 then fails to read
    anything at all.

    Raises:
        EvaluationError: It does, or the file is no TruLens database.
    """
    file = sqlite_file(url)
    broken = _count_broken_rows(file)
    if broken:
        raise EvaluationError(
            f"{file} holds {broken} rows with NaN, which SQLite before 3.42 cannot read (a TruLens metric returned "
            "NaN); `embft dashboard --repair` or `repair_database` removes them."
        )


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
        raise EvaluationError(f"{file} is not a TruLens database ({err}).") from err
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
        raise EvaluationError(f"{file} is not a TruLens database ({err}); choose another file.") from err
