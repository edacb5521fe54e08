"""Vectors that pass from one step of a run to the next in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from llama_index_embft.embeddings.encoding.cache import EmbeddingCache

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

_MOST_BYTES: Final = 1 << 30


class RunCache(EmbeddingCache):
    """The cache on the disk behind one in memory: a run reads each vector from the disk at most once.

    Memory is bounded by 1 GiB; what comes later is read from the disk as before.

    Args:
        path: File of the cache on the disk; None for the user's own, `EmbeddingCache.default`.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        super().__init__(EmbeddingCache.default().path if path is None else path)
        self._held: dict[bytes, NDArray[np.float32]] = {}
        self._bytes = 0

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, NDArray[np.float32]]:
        """See `EmbeddingCache.get_many`."""
        found = {key: self._held[key] for key in keys if key in self._held}
        missing = [key for key in keys if key not in found]
        if missing:
            read = super().get_many(missing)
            self._hold(read.items())
            found.update(read)
        return found

    def put_many(self, items: Iterable[tuple[bytes, NDArray[np.float32]]], model: str = "") -> None:
        """See `EmbeddingCache.put_many`."""
        given = list(items)
        self._hold(given)
        super().put_many(given, model)

    def _hold(self, items: Iterable[tuple[bytes, NDArray[np.float32]]]) -> None:
        for key, vector in items:
            if key not in self._held and self._bytes + vector.nbytes <= _MOST_BYTES:
                self._held[key] = vector.copy()  # a row of a batch would keep the whole batch
                self._bytes += vector.nbytes
