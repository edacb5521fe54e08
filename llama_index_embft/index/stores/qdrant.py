"""Qdrant, embedded on disk or a server; the stamp is in the metadata of the collection."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from llama_index_embft._core.checks import first_line
from llama_index_embft.errors import ConfigError
from llama_index_embft.index.stamp import Stamp, StoreError
from llama_index_embft.index.stores.base import VectorTable, capital, integration, only_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from llama_index.core import VectorStoreIndex
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.schema import BaseNode
    from numpy.typing import NDArray

_KEY: Final = "embft_stamp"


class QdrantTable(VectorTable):
    """A collection of a `QdrantVectorStore`.

    Args:
        store: With a synchronous client.

    Raises:
        ConfigError: It has an asynchronous client alone.
        StoreError: The collection does not exist.
    """

    def __init__(self, store: Any) -> None:
        self.store = store
        client = getattr(store, "_client", None)
        if client is None:
            raise ConfigError("The QdrantVectorStore has no synchronous client; make it with client=QdrantClient(...).")
        self.client: Any = client
        self.collection = store.collection_name
        self.label = f"the Qdrant collection {self.collection}"

    @classmethod
    def is_at(cls, where: str) -> bool:
        """See `VectorTable.is_at`: an address of a server, or a folder of an embedded one."""
        folder = Path(where)
        return is_address(where) or ((folder / "meta.json").is_file() and (folder / "collection").is_dir())

    @classmethod
    def open_at(cls, where: str, table: str | None, embed_model: BaseEmbedding) -> VectorStoreIndex:
        """See `VectorTable.open_at`."""
        from llama_index.core import VectorStoreIndex

        module = integration("qdrant", "A Qdrant index")
        from qdrant_client import QdrantClient
        from qdrant_client.http.exceptions import ApiException

        try:
            client = QdrantClient(url=where) if is_address(where) else QdrantClient(path=where)
            names = [collection.name for collection in client.get_collections().collections]
        except (ApiException, OSError, RuntimeError) as err:  # RuntimeError: another process has the folder open
            raise StoreError(f"Qdrant at {where} cannot be opened ({first_line(err)}); check the address.") from err
        name = only_name(names, table, f"Qdrant at {where}", "collection")
        store = module.QdrantVectorStore(client=client, collection_name=name)
        return VectorStoreIndex.from_vector_store(store, embed_model=embed_model)

    def id_batches(self, size: int) -> Iterator[list[str]]:
        """See `VectorTable.id_batches`."""
        if not self.client.collection_exists(self.collection):
            return
        offset = None
        while True:
            points, offset = self.client.scroll(
                self.collection, limit=size, offset=offset, with_payload=False, with_vectors=False
            )
            if points:
                yield [str(point.id) for point in points]
            if offset is None:
                return

    def fetch(self, ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """See `VectorTable.fetch`."""
        if not self.client.collection_exists(self.collection):
            return {}
        points = self.client.retrieve(self.collection, list(ids), with_payload=False, with_vectors=True)
        return {str(point.id): np.asarray(self._dense(point.vector), dtype=np.float32) for point in points}

    def nodes(self, ids: Sequence[str]) -> dict[str, BaseNode]:
        """See `VectorTable.nodes`."""
        return {node.node_id: node for node in self.store.get_nodes(node_ids=list(ids))} if ids else {}

    def write(self, ids: Sequence[str], vectors: NDArray[np.float32]) -> None:
        """See `VectorTable.write`."""
        from qdrant_client.models import PointVectors

        name = self.store.dense_vector_name
        points = [
            PointVectors(id=i, vector={name: row} if name else row)
            for i, row in zip(ids, vectors.tolist(), strict=True)
        ]
        self.client.update_vectors(self.collection, points, wait=True)

    def create(self, dim: int) -> None:
        """See `VectorTable.create`: an empty collection, with the settings of the store."""
        if not self.client.collection_exists(self.collection):
            self.store._create_collection(self.collection, dim)  # LlamaIndex itself does so with the first vector

    def as_stored(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `VectorTable.as_stored`; a collection with cosine distance keeps vectors of length 1."""
        from qdrant_client.models import Distance

        if self._config().distance != Distance.COSINE:
            return vectors
        scaled: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return scaled

    def dim(self) -> int:
        """See `VectorTable.dim`."""
        return int(self._config().size)

    def read_stamp(self) -> Stamp | None:
        """See `VectorTable.read_stamp`."""
        if not self.client.collection_exists(self.collection):
            return None
        metadata = self.client.get_collection(self.collection).config.metadata or {}
        return Stamp.from_json(metadata[_KEY], self.label) if _KEY in metadata else None

    def write_stamp(self, stamp: Stamp) -> None:
        """See `VectorTable.write_stamp`."""
        self._config()
        self.client.update_collection(self.collection, metadata={_KEY: stamp.to_json()})
        if self.read_stamp() != stamp:  # servers before 1.16 take the call and drop the metadata
            raise StoreError(
                f"{capital(self.label)} did not keep its stamp: the server knows no collection metadata; "
                "upgrade it to Qdrant 1.16 or newer."
            )

    def _dense(self, vector: Any) -> Any:
        return vector[self.store.dense_vector_name] if isinstance(vector, dict) else vector

    def _config(self) -> Any:
        if not self.client.collection_exists(self.collection):
            raise StoreError(f"{capital(self.label)} does not exist; check the name, or add nodes to it first.")
        vectors = self.client.get_collection(self.collection).config.params.vectors
        return vectors[self.store.dense_vector_name] if isinstance(vectors, dict) else vectors


def is_address(where: str) -> bool:
    """Whether an index is on a server."""
    return where.startswith(("http://", "https://"))
