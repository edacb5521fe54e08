"""Caches of embeddings, addressed by content: on the disk for models that have an identity, in memory for the others.

The key of a vector is a hash of everything that decides its value: the identity of the model, which includes the
prompt, and the text. Nothing ever has to be invalidated: another model, prompt or text simply has another key.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import logging
import sqlite3
import weakref
import zlib
from collections import OrderedDict
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np

from llama_index_embft._core.environment import default_cache_dir

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

_KEYS_PER_SELECT: Final = 500  # SQLite's historic limit on host parameters is 999
_BUSY_SECONDS: Final = 60.0  # another process may be writing a large batch
_FORMAT: Final = 3  # 2 is the same without the models' names
_PAGE: Final = 65_536  # bytes; ten vectors of 1,536 numbers
_PAGES_IN_MEMORY: Final = 512
_MEMORY_BYTES: Final = 256 * 1024 * 1024
_DEPTH: Final = 3  # a matrix of scipy in a transformer in a vectoriser


def cache_key(*parts: str) -> bytes:
    """Hash of what decides a vector: 16 bytes of BLAKE2b, which cannot be shifted from one part into the next.

    Args:
        *parts: Identity of the model, see `embeddings.identity`, and the text itself, before truncation.
    """
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.digest()


class EmbeddingCache:
    """Vectors by key in one SQLite file in write-ahead mode; safe for several processes at once.

    A cache must never be the reason that a job fails: when the file cannot be opened, read or written (no permission,
    full disk, not a database), one warning says so and the cache behaves as if it were empty. A row that is damaged, or
    holds NaN, counts as missing. A file of an earlier format, whose keys say too little, is emptied.

    Args:
        path: The file; made on first use, with its folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._connection: sqlite3.Connection | None = None
        self._broken = False
        self._used_today: set[int] = set()

    @classmethod
    def default(cls) -> EmbeddingCache:
        """The user's cache: ``embeddings.sqlite`` in `default_cache_dir`."""
        return cls(default_cache_dir() / "embeddings.sqlite")

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, NDArray[np.float32]]:
        """Look vectors up; their models count as used today.

        Returns:
            The known keys, each with its vector of shape ``(dim,)``.
        """
        found: dict[bytes, NDArray[np.float32]] = {}
        models: set[int] = set()
        connection = self._open()
        if connection is None:
            return found
        try:
            for start in range(0, len(keys), _KEYS_PER_SELECT):
                part = keys[start : start + _KEYS_PER_SELECT]
                marks = ",".join("?" * len(part))
                query = f"SELECT key, vector, checksum, model FROM vectors WHERE key IN ({marks})"  # noqa: S608 (only marks)
                for key, data, checksum, model in connection.execute(query, part):
                    vector = _checked(data, checksum)
                    if vector is not None:
                        found[key] = vector
                        models.add(model)
        except (sqlite3.Error, ValueError) as err:
            self._give_up(err)
            return {}
        self._mark_used(connection, models - self._used_today - {None})
        return found

    def put_many(self, items: Iterable[tuple[bytes, NDArray[np.float32]]], model: str = "") -> None:
        """Store vectors of shape ``(dim,)``; one transaction, so a killed process leaves all of them or none.

        Args:
            items: Keys and vectors.
            model: Name of the model that they are of; for people who look into the cache, and of no part in a key.
        """
        connection = self._open()
        if connection is None:
            return
        data = ((key, np.ascontiguousarray(vector, dtype="<f4").tobytes()) for key, vector in items)
        try:
            with connection:
                connection.execute(
                    "INSERT INTO models (name, used) VALUES (?, ?) "
                    "ON CONFLICT (name) DO UPDATE SET used = excluded.used",
                    (model, _today()),
                )
                number = connection.execute("SELECT id FROM models WHERE name = ?", (model,)).fetchone()[0]
                rows = ((key, vector, zlib.crc32(vector), number) for key, vector in data)
                connection.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?, ?)", rows)
        except sqlite3.Error as err:
            self._give_up(err)

    def _mark_used(self, connection: sqlite3.Connection, models: set[int]) -> None:
        if not models:
            return
        self._used_today |= models  # once in a process: nobody prunes by the hour
        with contextlib.suppress(sqlite3.Error), connection:  # the vectors are there, whatever becomes of the date
            connection.executemany("UPDATE models SET used = ? WHERE id = ?", [(_today(), model) for model in models])

    def close(self) -> None:
        """Close the file; the next call opens it again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self) -> sqlite3.Connection | None:
        if self._connection is None and not self._broken:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                connection = sqlite3.connect(self.path, timeout=_BUSY_SECONDS, check_same_thread=False)
                _prepare(connection, self.path)
                self._connection = connection
            except (sqlite3.Error, OSError) as err:
                self._give_up(err)
        return self._connection

    def _give_up(self, err: Exception) -> None:
        self._broken = True
        self.close()
        logger.warning(
            "The embedding cache %s cannot be used (%s), so embeddings are computed but not kept. "
            "Free space, delete the file, or set EMBFT_CACHE_DIR to another folder.",
            self.path,
            err,
        )


class MemoryCache:
    """Vectors of one model object that has no identity, for as long as it and this process live; at most 256 MB.

    What the object says of itself is part of the key, so that a changed setting does not bring old vectors.
    """

    _of: ClassVar[dict[int, tuple[Any, MemoryCache]]] = {}

    def __init__(self) -> None:
        self._vectors: OrderedDict[bytes, NDArray[np.float32]] = OrderedDict()
        self._bytes = 0
        self._state = b""

    @classmethod
    def of(cls, model: Any) -> MemoryCache:
        """The vectors of this object."""
        number = id(model)
        known = cls._of.get(number)
        if known is None or known[0]() is not model:
            known = (weakref.ref(model, lambda _: cls._of.pop(number, None)), cls())
            cls._of[number] = known
        known[1]._state = _state_of(model)
        return known[1]

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, NDArray[np.float32]]:
        """See `EmbeddingCache.get_many`."""
        return {key: self._vectors[self._state + key] for key in keys if self._state + key in self._vectors}

    def put_many(self, items: Iterable[tuple[bytes, NDArray[np.float32]]], model: str = "") -> None:
        """See `EmbeddingCache.put_many`; the oldest vectors make room."""
        del model  # of one alone
        for key, vector in items:
            before = self._vectors.pop(self._state + key, None)
            self._vectors[self._state + key] = np.array(vector, dtype=np.float32)
            self._bytes += vector.nbytes - (0 if before is None else before.nbytes)
        while self._bytes > _MEMORY_BYTES and self._vectors:
            self._bytes -= self._vectors.popitem(last=False)[1].nbytes


def _state_of(model: Any) -> bytes:
    """Hash of an object's simple attributes, of the versions of its weights, and of which objects the others are."""
    attributes = {**vars(model), **(getattr(model, "__pydantic_private__", None) or {})}
    shown = [(name, _shown(value)) for name, value in attributes.items()]
    return hashlib.blake2b(repr(shown).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _shown(value: Any) -> Any:
    if isinstance(value, str | int | float | bool | tuple | list | dict | type(None)):
        return repr(value)
    return id(value), _numbers_in(value, set(), _DEPTH)


def _numbers_in(value: Any, seen: set[int], depth: int) -> Any:
    """What tells that an object was fitted anew, in place: its arrays and tensors, and those of its own parts."""
    if isinstance(value, np.ndarray):
        return None if value.dtype.hasobject else zlib.crc32(np.ascontiguousarray(value).tobytes())
    if callable(getattr(value, "parameters", None)):  # a torch module: training in place raises the versions
        return [getattr(parameter, "_version", 0) for parameter in value.parameters()]
    if isinstance(version := getattr(value, "_version", None), int):  # a tensor
        return version
    if not depth or id(value) in seen or isinstance(value, type | ModuleType):
        return None
    seen.add(id(value))
    parts = [_numbers_in(part, seen, depth - 1) for part in list(getattr(value, "__dict__", {}).values())]
    return [numbers for numbers in parts if numbers is not None] or None


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Make the tables, on large pages: on small ones a vector of 384 numbers takes three times its own size."""
    connection.execute(f"PRAGMA page_size={_PAGE}")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version == 0 and connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'embeddings'").fetchone():
        logger.warning(
            "The embedding cache %s was written by an earlier version; it is emptied and filled again.", path
        )
        connection.execute("PRAGMA journal_mode=DELETE")  # the page size can be changed in this mode alone
        connection.execute("DROP TABLE IF EXISTS embeddings")
        connection.execute("VACUUM")
    connection.execute("PRAGMA journal_mode=WAL")
    # A lost last transaction after a power cut costs only time: the vectors are computed again.
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute(f"PRAGMA cache_size=-{_PAGES_IN_MEMORY * _PAGE // 1024}")
    if version >= _FORMAT:
        return
    with connection:
        # All or nothing where the process is killed; sqlite3 itself begins no transaction before such statements.
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS vectors "
            "(key BLOB PRIMARY KEY, vector BLOB NOT NULL, checksum INTEGER NOT NULL, model INTEGER)"
        )
        if "model" not in {row[1] for row in connection.execute("PRAGMA table_info(vectors)")}:
            connection.execute("ALTER TABLE vectors ADD COLUMN model INTEGER")  # unknown for what stands there
        connection.execute(
            "CREATE TABLE IF NOT EXISTS models (id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL, used TEXT NOT NULL)"
        )
        connection.execute(f"PRAGMA user_version={_FORMAT}")


def _today() -> str:
    return datetime.date.today().isoformat()


def _checked(data: bytes, checksum: int) -> NDArray[np.float32] | None:
    """The vector of a row; None where it was damaged, or cannot be one."""
    if not isinstance(data, bytes) or not data or len(data) % 4 or zlib.crc32(data) != checksum:
        return None
    vector: NDArray[np.float32] = np.frombuffer(data, dtype="<f4")
    return vector if np.isfinite(vector).all() else None
