"""What stands in the cache folder, of which models, and how to make it smaller."""

from __future__ import annotations

import datetime
import logging
import shutil
import sqlite3
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from llama_index_embft._core.checks import check_number, first_line
from llama_index_embft._core.environment import default_cache_dir
from llama_index_embft.embeddings.encoding.cache import EmbeddingCache
from llama_index_embft.errors import ConfigError, OutputError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

logger = logging.getLogger(__name__)

_SECONDS: Final = 10.0  # to wait for a process that writes
_BESIDE: Final = ("-wal", "-shm", "-journal")  # what SQLite keeps beside a file


@dataclass(frozen=True)
class CachedModel:
    """The vectors of one model.

    Attributes:
        name: Of the model; empty for vectors that were written without it.
        vectors: How many.
        bytes: Their size, without what the file itself takes.
        last_used: ISO date on which a vector of it was last written or read; None where it is not known.
    """

    name: str
    vectors: int
    bytes: int
    last_used: str | None


@dataclass(frozen=True)
class CachedFiles:
    """A part of the cache folder that is no vector.

    Attributes:
        name: ``"journals"``: answers of LLMs, which were paid for. ``"unfinished"``: candidates of searches that were
            interrupted.
        files: How many files, or folders of candidates.
        bytes: Their size.
    """

    name: str
    files: int
    bytes: int


@dataclass(frozen=True)
class CacheContents:
    """What `cache_contents` found.

    Attributes:
        folder: The cache folder.
        bytes: All of it.
        vector_file: The file of the vectors.
        vector_bytes: Its size on the disk.
        models: Largest first.
        others: Journals and unfinished searches.
    """

    folder: Path
    bytes: int
    vector_file: Path
    vector_bytes: int
    models: tuple[CachedModel, ...]
    others: tuple[CachedFiles, ...]


@dataclass(frozen=True)
class Pruned:
    """What `prune_cache` took out, or would.

    Attributes:
        models: Whose vectors.
        searches: Interrupted searches whose candidates went.
        freed_bytes: What the folder is smaller by, 0 while another process reads the file of the vectors; for a dry run
            the size of the vectors and candidates.
    """

    models: tuple[CachedModel, ...]
    searches: int
    freed_bytes: int


def cache_contents(folder: Path | None = None) -> CacheContents:
    """Look into the cache folder; nothing is changed.

    Args:
        folder: Default: that of the user, ``$EMBFT_CACHE_DIR`` or the platform's.

    Raises:
        OutputError: The file of the vectors cannot be read.
    """
    place = default_cache_dir() if folder is None else folder
    vector_file = place / EmbeddingCache.default().path.name
    journals = [path for path in _journals(place) if path.is_file()]
    searches = _searches(place)
    return CacheContents(
        place,
        _size([place]),
        vector_file,
        _size(_with_companions(vector_file)),
        tuple(_models(vector_file)),
        (
            CachedFiles("journals", len(journals), _size(part for path in journals for part in _with_companions(path))),
            CachedFiles("unfinished", len(searches), _size(searches)),
        ),
    )


def prune_cache(
    model: str | None = None, unused_days: int | None = None, *, dry_run: bool = False, folder: Path | None = None
) -> Pruned:
    """Take vectors out of the cache, and candidates of interrupted searches; a later run computes them again.

    Answers of LLMs are left alone: they were paid for. So are the candidates of a search that is running.

    Args:
        model: Only vectors of models with this in their name.
        unused_days: Only of models that were not read or written for so many days, and searches as old. Vectors
            without a date count as older than any number of days.
        dry_run: Change nothing.
        folder: See `cache_contents`.

    Raises:
        ConfigError: Neither ``model`` nor ``unused_days`` is given, or no cached model has that name.
        OutputError: The file cannot be changed, because another process writes or the folder is read-only.
    """
    if model is None and unused_days is None:
        raise ConfigError("Say what to take out of the cache: a model, or what was not used for a number of days.")
    if unused_days is not None:
        check_number("unused_days", unused_days, at_least=0)
    found = cache_contents(folder)
    named = [one for one in found.models if model is None or (model and model in one.name)]
    if model is not None and not named:
        known = ", ".join(sorted({one.name or "(unknown)" for one in found.models})) or "none"
        raise ConfigError(f"No model in the cache has {model!r} in its name; there are: {known}.")
    today = datetime.date.today()
    last = today - datetime.timedelta(days=min(unused_days or 0, today.toordinal() - 1))
    old = [one for one in named if unused_days is None or one.last_used is None or one.last_used <= last.isoformat()]
    searches = [path for path in _searches(found.folder) if _day(path) <= last] if model is None else []
    searches = [path for path in searches if _with_no_search(path, remove=not dry_run)]
    if dry_run:
        return Pruned(tuple(old), len(searches), sum(one.bytes for one in old) + _size(searches))
    _delete(found.vector_file, old)
    return Pruned(tuple(old), len(searches), max(found.bytes - _size([found.folder]), 0))


def _models(file: Path) -> list[CachedModel]:
    if not file.is_file():
        return []
    try:
        with closing(_read_only(file)) as connection:
            if connection.execute("PRAGMA user_version").fetchone()[0] < 3:
                rows = [("", *connection.execute("SELECT count(*), sum(length(vector)) FROM vectors").fetchone(), None)]
            else:
                rows = connection.execute(
                    "SELECT coalesce(name, ''), count(*), sum(length(vector)), used FROM vectors "
                    "LEFT JOIN models ON models.id = vectors.model GROUP BY models.id"
                ).fetchall()
    except sqlite3.Error as err:
        raise OutputError(f"The embedding cache {file} cannot be read: {first_line(err)}; delete the file.") from err
    made = [CachedModel(name, count, size or 0, used) for name, count, size, used in rows if count]
    return sorted(made, key=lambda one: -one.bytes)


def _read_only(file: Path) -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=_SECONDS)
        connection.execute("SELECT 1 FROM sqlite_master")
    except sqlite3.Error:  # in a folder that cannot be written, where SQLite cannot keep its lock
        connection = sqlite3.connect(f"{file.absolute().as_uri()}?immutable=1", uri=True)
    return connection


def _delete(file: Path, models: list[CachedModel]) -> None:
    if not file.is_file():
        return
    cache = EmbeddingCache(file)
    cache.get_many([])  # a file of the format before gets its tables
    cache.close()
    try:
        with closing(sqlite3.connect(file, timeout=_SECONDS)) as connection:
            with connection:
                for one in models:
                    arguments = () if one.last_used is None else (one.name,)
                    chosen = "model IN (SELECT id FROM models WHERE name = ?)"
                    if not arguments:
                        chosen = "model IS NULL OR model NOT IN (SELECT id FROM models)"
                    connection.execute(f"DELETE FROM vectors WHERE {chosen}", arguments)  # noqa: S608 - of two texts
                connection.execute(
                    "DELETE FROM models WHERE id NOT IN (SELECT model FROM vectors WHERE model NOT NULL)"
                )
            _give_back(connection, file)
    except sqlite3.Error as err:
        raise OutputError(
            f"The embedding cache {file} cannot be changed: {first_line(err)}; wait for other runs to end, or delete "
            "the file."
        ) from err


def _give_back(connection: sqlite3.Connection, file: Path) -> None:
    """Make the file as small as what it holds; also where an earlier call was stopped before that."""

    def is_read_by_others() -> bool:
        return bool(connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0])

    if not connection.execute("PRAGMA freelist_count").fetchone()[0]:
        return
    if is_read_by_others():  # the file would only grow
        logger.warning(
            "Another process reads the embedding cache %s, so the file keeps its size; the room is for new vectors, "
            "and the next call to prune gives it back.",
            file,
        )
        return
    connection.execute("VACUUM")
    is_read_by_others()


def _journals(folder: Path) -> list[Path]:
    return [*sorted((folder / "journals").glob("*.sqlite")), *sorted(folder.glob("*.journal.sqlite"))]


def _searches(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in (folder / "tune").iterdir() if path.is_dir())
    except OSError:
        return []


def _with_companions(file: Path) -> list[Path]:
    return [file, *(file.with_name(file.name + end) for end in _BESIDE)]


def _size(paths: Iterable[Path]) -> int:
    """Bytes of files, and of all in folders; what goes away meanwhile counts nothing."""
    total = 0
    for path in paths:
        with suppress(OSError):
            inner = list(path.rglob("*")) if path.is_dir() else [path]
            total += sum(file.stat().st_size for file in inner if file.is_file())
    return total


def _day(path: Path) -> datetime.date:
    """When something was last written in a folder: that of the folder itself is when the first candidate came."""
    newest = 0.0
    for inner in (path, *path.rglob("*")):
        with suppress(OSError):
            newest = max(newest, inner.stat().st_mtime)
    return datetime.date.fromtimestamp(newest)


def _with_no_search(path: Path, *, remove: bool) -> bool:
    """Whether no search is running on these candidates, which are then removed, if they are to be."""
    from filelock import FileLock, Timeout

    lock = path.with_name(f"{path.name}.lock")
    try:
        with FileLock(lock, timeout=0) if lock.exists() else nullcontext():
            if remove:
                shutil.rmtree(path, ignore_errors=True)
                return not path.exists()
            return True
    except (Timeout, OSError):
        return False
