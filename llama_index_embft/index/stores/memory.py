"""The stores that live in memory and are persisted as files: SimpleVectorStore and FAISS.

Vectors are replaced in memory; `flush` replaces the persisted file as a whole. So a killed update leaves the old file
or the new one, and the stamp in ``index_store.json`` tells which.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np

from llama_index_embft.errors import ConfigError
from llama_index_embft.index.stamp import Stamp, StoreError
from llama_index_embft.index.stores.opening import VectorTable, capital

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from llama_index.core import VectorStoreIndex
    from llama_index.core.schema import BaseNode
    from numpy.typing import NDArray

_COLLECTION: Final = "embft/stamps"


class MemoryTable(VectorTable):
    """What the stores in memory share: nodes in the docstore, the stamp in the index store.

    Args:
        index: The index.
        persist_dir: Where it was persisted; None changes the memory alone.

    Raises:
        ConfigError: ``persist_dir`` does not hold this index.
    """

    volatile: ClassVar[bool] = True

    def __init__(self, index: VectorStoreIndex, persist_dir: str | Path | None) -> None:
        self.index = index
        self.store: Any = index.vector_store
        self.folder = None if persist_dir is None else Path(persist_dir)
        self.label = f"the {type(self.store).__name__} index {index.index_id}"
        stores = index.storage_context.vector_stores
        self._namespace = next((name for name, store in stores.items() if store is self.store), "default")
        if self.folder is not None and not self._file().is_file():
            raise ConfigError(
                f"{self.folder} holds no {self._file().name}; persist the index there first: "
                "index.storage_context.persist(folder)."
            )
        if self.folder is not None and not self._is_held():
            raise ConfigError(
                f"{self.folder} holds another index than {index.index_id}, whose files would be overwritten; give the "
                "folder that this one was persisted to."
            )

    def nodes(self, ids: Sequence[str]) -> dict[str, BaseNode]:
        """See `VectorTable.nodes`."""
        return {node.node_id: node for node in self.index.docstore.get_nodes(list(ids), raise_error=False)}

    def read_stamp(self) -> Stamp | None:
        """See `VectorTable.read_stamp`."""
        found = self._key_values().get(self.index.index_id, collection=_COLLECTION)
        return None if found is None else Stamp.from_json(found["stamp"], self.label)

    def write_stamp(self, stamp: Stamp) -> None:
        """See `VectorTable.write_stamp`."""
        self._key_values().put(self.index.index_id, {"stamp": stamp.to_json()}, collection=_COLLECTION)
        if self.folder is not None:
            index_store = self.index.storage_context.index_store
            _replace(self.folder / "index_store.json", lambda path: index_store.persist(persist_path=path))

    def flush(self) -> None:
        """See `VectorTable.flush`."""
        if self.folder is not None:
            _replace(self._file(), lambda path: self.store.persist(persist_path=path))

    def save_nodes(self) -> None:
        """See `VectorTable.save_nodes`."""
        if self.folder is not None:
            _replace(self.folder / "docstore.json", lambda path: self.index.docstore.persist(persist_path=path))

    def _file(self) -> Path:
        assert self.folder is not None
        return self.folder / f"{self._namespace}__vector_store.json"

    def _is_held(self) -> bool:
        """Whether the folder is of this index; one without a readable list of indexes cannot say, and is believed."""
        assert self.folder is not None
        try:
            held = json.loads((self.folder / "index_store.json").read_text(encoding="utf-8"))
            return self.index.index_id in held["index_store/data"]
        except (OSError, ValueError, KeyError, TypeError):
            return True

    def _key_values(self) -> Any:
        index_store = self.index.storage_context.index_store
        found = getattr(index_store, "_kvstore", None)  # LlamaIndex's own stores all have one
        if found is None:
            raise StoreError(
                f"{type(index_store).__name__} has no key-value store to keep the stamp of {self.label} in."
            )
        return found


class SimpleTable(MemoryTable):
    """LlamaIndex's default store: a dictionary of lists."""

    def id_batches(self, size: int) -> Iterator[list[str]]:
        """See `VectorTable.id_batches`."""
        ids = list(self.store.data.embedding_dict)
        for start in range(0, len(ids), size):
            yield ids[start : start + size]

    def fetch(self, ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """See `VectorTable.fetch`."""
        vectors = self.store.data.embedding_dict
        return {i: np.asarray(vectors[i], dtype=np.float32) for i in ids if i in vectors}

    def write(self, ids: Sequence[str], vectors: NDArray[np.float32]) -> None:
        """See `VectorTable.write`."""
        for node_id, vector in zip(ids, vectors.tolist(), strict=True):
            self.store.data.embedding_dict[node_id] = vector


class FaissTable(MemoryTable):
    """FAISS, plain (ids are positions) or with an id map.

    FAISS cannot replace a vector, so `flush` builds the index anew from a copy of all vectors, with the ids as they
    were; that needs twice the memory of the index, and an index that keeps vectors as they are (flat, or HNSW over
    flat).
    """

    def __init__(self, index: VectorStoreIndex, persist_dir: str | Path | None) -> None:
        super().__init__(index, persist_dir)
        self._positions: dict[str, int] | None = None
        self._vectors: NDArray[np.float32] | None = None

    def check_writable(self) -> None:
        """See `VectorTable.check_writable`."""
        import faiss

        inner = self._inner()
        if not isinstance(inner, (faiss.IndexFlat, faiss.IndexHNSWFlat)):
            raise StoreError(
                f"{capital(self.label)} is a FAISS {type(inner).__name__}, which keeps no exact vectors and cannot "
                "update in place; re-embed into a new index: reembed_index(index, embed_model, new_index)."
            )

    def id_batches(self, size: int) -> Iterator[list[str]]:
        """See `VectorTable.id_batches`."""
        ids = list(self._rows())
        for start in range(0, len(ids), size):
            yield ids[start : start + size]

    def fetch(self, ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """See `VectorTable.fetch`."""
        positions = self._rows()
        if self._vectors is not None:
            return {i: self._vectors[positions[i]].copy() for i in ids if i in positions}
        self.check_writable()
        inner = self._inner()
        return {i: np.asarray(inner.reconstruct(positions[i]), dtype=np.float32) for i in ids if i in positions}

    def dim(self) -> int:
        """See `VectorTable.dim`."""
        if not self._rows():
            raise StoreError(f"{capital(self.label)} is empty; add nodes to it first.")
        return int(self.store.client.d)

    def write(self, ids: Sequence[str], vectors: NDArray[np.float32]) -> None:
        """See `VectorTable.write`."""
        self.check_writable()
        if self._vectors is None:
            inner = self._inner()
            self._vectors = np.asarray(inner.reconstruct_n(0, inner.ntotal), dtype=np.float32)
        positions = self._rows()
        self._vectors[[positions[i] for i in ids]] = vectors

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
            _replace(self._file(), lambda path: faiss.write_index(self.store.client, path))

    def _inner(self) -> Any:
        import faiss

        whole = self.store.client
        return faiss.downcast_index(whole.index) if hasattr(whole, "id_map") else whole

    def _rows(self) -> dict[str, int]:
        """Node id to the position of its vector."""
        import faiss

        if self._positions is None or len(self._positions) != self.store.client.ntotal:
            nodes = self.index.index_struct.nodes_dict  # the store's id to the node's
            if hasattr(self.store.client, "id_map"):
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


def _replace(target: Path, persist: Callable[[str], Any]) -> None:
    """Let ``persist`` write a file under another name, then put it in place of ``target`` at once."""
    with tempfile.TemporaryDirectory(prefix=".embft-", dir=target.parent) as temporary:
        path = Path(temporary) / target.name
        persist(str(path))
        with path.open("rb") as file:
            os.fsync(file.fileno())
        path.replace(target)
