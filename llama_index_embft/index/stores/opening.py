"""One interface over LlamaIndex's vector stores: ids, vectors, texts and the stamp of an index."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np

from llama_index_embft.errors import ConfigError
from llama_index_embft.index.stamp import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from llama_index.core import VectorStoreIndex
    from llama_index.core.schema import BaseNode
    from llama_index.core.vector_stores.types import BasePydanticVectorStore
    from numpy.typing import NDArray

    from llama_index_embft.index.stamp import Stamp


class VectorTable(ABC):
    """The vectors of one index by node id, whatever store holds them.

    Subclass it for a store that is not known here; every function of this package that takes an index takes one.

    Attributes:
        label: The index in words, for messages, and to know a journal's index again.
        volatile: Whether writes reach the disk only in `flush`: true for the stores that live in memory.
    """

    volatile: ClassVar[bool] = False
    label: str

    @abstractmethod
    def id_batches(self, size: int) -> Iterator[list[str]]:
        """All node ids, ``size`` at a time."""

    @abstractmethod
    def fetch(self, ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Node id to vector of shape ``(dim,)``, for those ids that the store holds."""

    @abstractmethod
    def nodes(self, ids: Sequence[str]) -> dict[str, BaseNode]:
        """Node id to node, for those ids whose text is kept."""

    @abstractmethod
    def write(self, ids: Sequence[str], vectors: NDArray[np.float32]) -> None:
        """Replace vectors, shape ``(len(ids), dim)``; text and metadata stay as they are."""

    @abstractmethod
    def read_stamp(self) -> Stamp | None:
        """The stamp; None where there is none."""

    @abstractmethod
    def write_stamp(self, stamp: Stamp) -> None:
        """Put the stamp where it survives a restart."""

    def flush(self) -> None:  # noqa: B027  # most stores have nothing to do
        """Bring what was written to the disk; nothing to do for a database."""

    def create(self, dim: int) -> None:  # noqa: B027  # most have a place for the stamp at any time
        """Make a place for the stamp before the first vector, where there is none; ``dim`` is that of the vectors."""

    def save_nodes(self) -> None:  # noqa: B027  # a database keeps them beside the vectors
        """Bring the texts of added and deleted nodes to the disk; `write_stamp` and `flush` bring the rest there."""

    def delete(self, index: VectorStoreIndex, ids: Sequence[str]) -> None:
        """Take nodes out of the store, by its index.

        Raises:
            StoreError: It cannot give nodes up.
        """
        try:
            index.delete_nodes(list(ids))
        except NotImplementedError as err:
            raise StoreError(
                f"{capital(self.label)} cannot give up the {len(ids)} nodes that have left the old index (first: "
                f"{ids[0]}), and a search would still find them; fill an empty index of another kind."
            ) from err

    def check_writable(self) -> None:  # noqa: B027  # most stores can
        """Make sure that vectors can be replaced.

        Raises:
            StoreError: They cannot; the message says what to do.
        """

    def as_stored(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Vectors of shape ``(n, dim)`` as the store will give them back: scaled or rounded, where it does so."""
        return vectors

    def dim(self) -> int:
        """Dimension of the stored vectors.

        Raises:
            StoreError: The store is empty.
        """
        for batch in self.id_batches(1):
            found = self.fetch(batch)
            return len(found[batch[0]])
        raise StoreError(f"{capital(self.label)} is empty; add nodes to it first.")


IndexLike: TypeAlias = "VectorStoreIndex | BasePydanticVectorStore | VectorTable"


def open_table(index: IndexLike, *, persist_dir: str | Path | None = None) -> VectorTable:
    """The table of an index or vector store.

    Where the stamp is kept: Qdrant in the metadata of the collection; LanceDB in a table ``embft_index`` beside the
    vectors; PostgreSQL in a table ``embft_index`` of the same schema; the stores in memory (SimpleVectorStore, FAISS)
    in LlamaIndex's index store, which ``storage_context.persist(folder)`` writes to ``index_store.json``.

    Args:
        index: A `VectorStoreIndex`, a vector store that keeps the text of its nodes, or a `VectorTable`.
        persist_dir: Where an index in memory was persisted. Its files there are replaced, each at once, whenever
            vectors or stamp change; without it they change in memory alone, until the caller persists the index.

    Raises:
        ConfigError: The store is not known here, lives in memory and comes without its index, or is a database and
            ``persist_dir`` is given.
    """
    from llama_index.core import VectorStoreIndex
    from llama_index.core.vector_stores.types import BasePydanticVectorStore

    if isinstance(index, VectorTable):
        return index
    if isinstance(index, VectorStoreIndex):
        store = index.vector_store
    elif isinstance(index, BasePydanticVectorStore):
        store = index
    else:
        raise ConfigError(f"Expected a VectorStoreIndex or a vector store, got {type(index).__name__}.")
    names = {cls.__name__ for cls in type(store).__mro__}
    if names & {"SimpleVectorStore", "FaissVectorStore"}:
        return _memory_table(index, names, persist_dir)
    if persist_dir is not None:
        raise ConfigError(
            f"`persist_dir` is for indexes in memory; {type(store).__name__} keeps its vectors itself: leave it out."
        )
    return _database_table(store, names)


def _memory_table(index: Any, names: set[str], persist_dir: str | Path | None) -> VectorTable:
    from llama_index.core import VectorStoreIndex

    from llama_index_embft.index.stores.memory import FaissTable, SimpleTable

    if not isinstance(index, VectorStoreIndex):
        raise ConfigError(
            f"A {type(index).__name__} keeps neither texts nor a place for the stamp; pass the VectorStoreIndex over "
            "it."
        )
    table = SimpleTable if "SimpleVectorStore" in names else FaissTable
    return table(index, persist_dir)


def _database_table(store: Any, names: set[str]) -> VectorTable:
    if "QdrantVectorStore" in names:
        from llama_index_embft.index.stores.qdrant import QdrantTable

        return QdrantTable(store)
    if "LanceDBVectorStore" in names:
        from llama_index_embft.index.stores.lancedb import LanceTable

        return LanceTable(store)
    if "PGVectorStore" in names:
        from llama_index_embft.index.stores.postgres import PostgresTable

        return PostgresTable(store)
    raise ConfigError(
        f"{type(store).__name__} is not known here (known: SimpleVectorStore, FaissVectorStore, FaissMapVectorStore, "
        "QdrantVectorStore, LanceDBVectorStore, PGVectorStore); pass a VectorTable of your own for it."
    )


def check_unique(ids: Sequence[str], label: str) -> None:
    """Make sure that an id stands for one row.

    Raises:
        StoreError: It stands for several.
    """
    if len(set(ids)) != len(ids):
        twice = next(i for i in ids if list(ids).count(i) > 1)
        raise StoreError(f"{capital(label)} holds several rows with the id {twice!r}; delete the spare ones.")


def matrix(found: dict[str, NDArray[np.float32]], ids: Sequence[str]) -> NDArray[np.float32]:
    """Vectors in the order of ``ids``; shape ``(len(ids), dim)``."""
    return np.stack([found[i] for i in ids]).astype(np.float32, copy=False)


def capital(text: str) -> str:
    """A label at the start of a sentence."""
    return text[:1].upper() + text[1:]
