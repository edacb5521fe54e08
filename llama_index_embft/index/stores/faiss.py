"""FAISS, in memory and persisted as a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from llama_index_embft.index.stamp import StoreError
from llama_index_embft.index.stores.base import capital, guarded, integration
from llama_index_embft.index.stores.memory import MemoryTable, is_persisted, replace_file, starts_binary

if TYPE_CHECKING:
    from collections.abc import Container, Hashable, Iterator, Sequence
    from pathlib import Path

    from llama_index.core import StorageContext, VectorStoreIndex
    from numpy.typing import NDArray


class FaissTable(MemoryTable):
    """FAISS, plain (ids are positions) or with an id map.

    FAISS cannot replace a vector, so `flush` builds the index anew from a copy of all vectors, with the ids as they
    were; that needs twice the memory of the index, and an index that keeps vectors as they are (flat, or HNSW over
    flat).
    """

    def __init__(self, index: VectorStoreIndex, persist_dir: str | Path | None) -> None:
        super().__init__(index, persist_dir)
        self._positions: dict[str, int] | None = None
        self._state: Hashable = None  # of which they are
        self._vectors: NDArray[np.float32] | None = None

    @classmethod
    def is_at(cls, where: str) -> bool:
        """See `VectorTable.is_at`."""
        return is_persisted(where) and starts_binary(where)

    @classmethod
    def _context(cls, folder: Path) -> StorageContext:
        from llama_index.core import StorageContext

        module = integration("faiss", "A FAISS index")
        mapped = (folder / "id_map.json").is_file()
        store = (module.FaissMapVectorStore if mapped else module.FaissVectorStore).from_persist_dir(str(folder))
        return StorageContext.from_defaults(vector_store=store, persist_dir=str(folder))

    def check_writable(self) -> None:
        """See `VectorTable.check_writable`."""
        import faiss

        inner = self._inner()
        if not isinstance(inner, (faiss.IndexFlat, faiss.IndexHNSWFlat)):
            raise StoreError(
                f"{capital(self.label)} is a FAISS {type(inner).__name__}, which keeps no exact vectors and cannot "
                "update in place; re-embed into a new index: reembed_index(index, embed_model, new_index)."
            )

    def version(self) -> Hashable:
        """See `VectorTable.version`: their number and the last one added."""
        # The list of nodes keeps one that is deleted; the map of a store that can delete does not.
        held = self.store._faiss_id_to_node_id_map if self._mapped() else self.index.index_struct.nodes_dict
        return self.store.client.ntotal, next(reversed(held.items()), None)

    def _held(self) -> Container[str]:
        return self._rows()

    @guarded
    def id_batches(self, size: int) -> Iterator[list[str]]:
        """See `VectorTable.id_batches`."""
        ids = list(self._rows())
        for start in range(0, len(ids), size):
            yield ids[start : start + size]

    @guarded
    def fetch(self, ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """See `VectorTable.fetch`."""
        positions = self._rows()
        if self._vectors is not None:
            return {i: self._vectors[positions[i]].copy() for i in ids if i in positions}
        self.check_writable()
        inner = self._inner()
        return {i: np.asarray(inner.reconstruct(positions[i]), dtype=np.float32) for i in ids if i in positions}

    @guarded
    def dim(self) -> int:
        """See `VectorTable.dim`."""
        if not self._rows():
            raise StoreError(f"{capital(self.label)} is empty; add nodes to it first.")
        return int(self.store.client.d)

    @guarded
    def write(self, ids: Sequence[str], vectors: NDArray[np.float32]) -> None:
        """See `VectorTable.write`."""
        self.check_writable()
        if self._vectors is None:
            inner = self._inner()
            self._vectors = np.asarray(inner.reconstruct_n(0, inner.ntotal), dtype=np.float32)
        positions = self._rows()
        self._vectors[[positions[i] for i in ids]] = vectors

    @guarded
    def delete(self, index: VectorStoreIndex, ids: Sequence[str]) -> None:
        """See `VectorTable.delete`; LlamaIndex numbers nodes by their count, so a gap would give a number twice."""
        import faiss

        super().delete(index, ids)
        if not self._mapped() or not isinstance(inner := self._inner(), (faiss.IndexFlat, faiss.IndexHNSWFlat)):
            return
        named = self.store._faiss_id_to_node_id_map
        names = [named[int(i)] for i in faiss.vector_to_array(self.store.client.id_map)]
        vectors = inner.reconstruct_n(0, inner.ntotal)
        built = faiss.clone_index(self.store.client)
        built.reset()
        built.add_with_ids(vectors, np.arange(len(names)))
        self.store._faiss_index = built
        self.store._faiss_id_to_node_id_map = dict(enumerate(names))
        self.store._node_id_to_faiss_id_map = {name: number for number, name in enumerate(names)}
        self._positions = None

    @guarded
    def flush(self) -> None:
        """See `VectorTable.flush`."""
        import faiss

        if self._vectors is not None:
            built = faiss.clone_index(self.store.client)
            if hasattr(built, "id_map"):
                faiss_ids = faiss.vector_to_array(self.store.client.id_map)
                built.reset()
                built.add_with_ids(self._vectors, faiss_ids)
            else:
                built.reset()
                built.add(self._vectors)
            self.store._faiss_index = built  # one assignment: a search sees the old index or the new one
            self._vectors = None
        if self.folder is not None:
            # Not `store.persist`, which would also rewrite the id map, in another file and not at once.
            replace_file(self._file(), lambda path: faiss.write_index(self.store.client, path))

    def _mapped(self) -> bool:
        """Whether the store has ids of its own, and can delete."""
        return hasattr(self.store.client, "id_map")

    def _inner(self) -> Any:
        import faiss

        whole = self.store.client
        return faiss.downcast_index(whole.index) if self._mapped() else whole

    def _rows(self) -> dict[str, int]:
        """Node id to the position of its vector."""
        import faiss

        state = FaissTable.version(self)  # where nodes can be deleted, as many others may have come
        if self._positions is None or self._state != state:
            self._state = state
            nodes = self.index.index_struct.nodes_dict  # the store's id to the node's
            if self._mapped():
                found = [int(i) for i in faiss.vector_to_array(self.store.client.id_map)]
                names = self.store._faiss_id_to_node_id_map
                self._positions = {names[i]: row for row, i in enumerate(found) if i in names}
            else:
                self._positions = {node_id: int(row) for row, node_id in nodes.items()}
            if len(self._positions) != self.store.client.ntotal:
                raise StoreError(
                    f"{capital(self.label)} has {self.store.client.ntotal} vectors, but {len(self._positions)} of them "
                    "have a node: the files do not belong together; build the index again."
                )
        return self._positions
