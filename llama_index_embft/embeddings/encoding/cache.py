"""An on-disk cache of embeddings, addressed by content.

The key of a vector is a hash of everything that decides its value: the fingerprint of the model, the prompt and the
text. Nothing ever has to be invalidated: another model, prompt or text simply has another key.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

_KEYS_PER_SELECT: Final = 500  # SQLite's historic limit on host parameters is 999
_BUSY_SECONDS: Final = 60.0  # another process may be writing a large batch


def default_cache_dir() -> Path:
    """Folder of the cache: ``$EMBFT_CACHE_DIR``, else the user's cache folder of the platform."""
    if configured := os.environ.get("EMBFT_CACHE_DIR"):
        return Path(configured)
    import platformdirs

    return Path(platformdirs.user_cache_dir("llama-index-embft"))


def cache_key(fingerprint: str, prompt: str, text: str) -> bytes:
    """Hash of what decides an embedding: 16 bytes of BLAKE2b.

    Args:
        fingerprint: Of the model, see `embeddings.fingerprint`.
        prompt: Prompt put before the text, or what else tells a query from a document.
        text: The text itself, before truncation.
    """
    digest = hashlib.blake2b(digest_size=16)
    for part in (fingerprint, prompt, text):
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.digest()


class EmbeddingCache:
    """Vectors by key in one SQLite file in write-ahead mode; safe for several processes at once.

    A cache must never be the reason that a job fails: when the file cannot be opened, read or written (no permission,
    full disk, not a database), one warning says so and the cache behaves as if it were empty.

    Args:
        path: The file; made on first use, with its folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._connection: sqlite3.Connection | None = None
        self._broken = False

    @classmethod
    def default(cls) -> EmbeddingCache:
        """The user's cache: ``embeddings.sqlite`` in `default_cache_dir`."""
        return cls(default_cache_dir() / "embeddings.sqlite")

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, NDArray[np.float32]]:
        """Look vectors up.

        Returns:
            The known keys, each with its vector of shape ``(dim,)``.
        """
        found: dict[bytes, NDArray[np.float32]] = {}
        connection = self._open()
        if connection is None:
            return found
        try:
            for start in range(0, len(keys), _KEYS_PER_SELECT):
                part = keys[start : start + _KEYS_PER_SELECT]
                marks = ",".join("?" * len(part))
                query = f"SELECT key, vector FROM embeddings WHERE key IN ({marks})"  # noqa: S608 (only marks)
                for key, vector in connection.execute(query, part):
                    found[key] = np.frombuffer(vector, dtype="<f4")
        except (sqlite3.Error, ValueError) as err:
            self._give_up(err)
            return {}
        return found

    def put_many(self, items: Iterable[tuple[bytes, NDArray[np.float32]]]) -> None:
        """Store vectors of shape ``(dim,)``; one transaction, so a killed process leaves all of them or none."""
        connection = self._open()
        if connection is None:
            return
        rows = ((key, np.ascontiguousarray(vector, dtype="<f4").tobytes()) for key, vector in items)
        try:
            with connection:
                connection.executemany("INSERT OR REPLACE INTO embeddings VALUES (?, ?)", rows)
        except sqlite3.Error as err:
            self._give_up(err)

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
                connection.execute("PRAGMA journal_mode=WAL")
                # A lost last transaction after a power cut costs only time: the vectors are computed again.
                connection.execute("PRAGMA synchronous=NORMAL")
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS embeddings (key BLOB PRIMARY KEY, vector BLOB NOT NULL) WITHOUT ROWID"
                )
                self._connection = connection
            except (sqlite3.Error, OSError) as err:
                self._give_up(err)
        return self._connection

    def _give_up(self, err: Exception) -> None:
        self._broken = True
        self.close()
        logger.warning(
            "The embedding cache %s cannot be used (%s): embeddings are computed and not kept. "
            "Free space, delete the file, or set EMBFT_CACHE_DIR to another folder.",
            self.path,
            err,
        )
