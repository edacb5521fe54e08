"""Qdrant, embedded on disk or a server; the stamp is in the metadata of the collection."""

from __future__ import annotations

import pickle
import sqlite3
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import numpy as np

from llama_index_embft._core.checks import first_line
from llama_index_embft._core.redaction import redact
from llama_index_embft.errors import ConfigError
from llama_index_embft.index.stamp import Stamp, StoreError
from llama_index_embft.index.stores.base import VectorTable, capital, guarded, integration, only_name

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence

    from llama_index.core import VectorStoreIndex
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.schema import BaseNode
    from numpy.typing import NDArray

_KEY: Final = "embft_stamp"
_FEW: Final = 10_000  # points whose ids are read in some hundredths of a second


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

        shown = redact(where)
        if not is_address(where):
            check_points(Path(where))
        try:
            client = QdrantClient(url=where) if is_address(where) else QdrantClient(path=where)
            names = [collection.name for collection in client.get_collections().collections]
        except Exception as err:  # whatever a server that is no Qdrant answers, or a folder that another process holds
            reason = first_line(err)[:200]
            raise StoreError(
                f"Qdrant at {shown} cannot be opened ({reason}); check that a Qdrant answers at this "
                "address, or that no other process has the folder open and its files are whole."
            ) from err
        name = only_name(names, table, f"Qdrant at {shown}", "collection")
        store = module.QdrantVectorStore(client=client, collection_name=name)
        return VectorStoreIndex.from_vector_store(store, embed_model=embed_model)

    @guarded
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

    @guarded
    def version(self) -> Hashable:
        """See `VectorTable.version`: the number of points, and their ids where those are soon read."""
        if not self.client.collection_exists(self.collection):
            return 0
        number = int(self.client.count(self.collection, exact=True).count)
        return number, super().version() if number <= _FEW else None

    @guarded
    def fetch(self, ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """See `VectorTable.fetch`."""
        if not self.client.collection_exists(self.collection):
            return {}
        points = self.client.retrieve(self.collection, list(ids), with_payload=False, with_vectors=True)
        return {str(point.id): np.asarray(self._dense(point.vector), dtype=np.float32) for point in points}

    @guarded
    def nodes(self, ids: Sequence[str]) -> dict[str, BaseNode]:
        """See `VectorTable.nodes`."""
        return {node.node_id: node for node in self.store.get_nodes(node_ids=list(ids))} if ids else {}

    @guarded
    def write(self, ids: Sequence[str], vectors: NDArray[np.float32]) -> None:
        """See `VectorTable.write`."""
        from qdrant_client.models import PointVectors

        name = self.store.dense_vector_name
        points = [
            PointVectors(id=i, vector={name: row} if name else row)
            for i, row in zip(ids, vectors.tolist(), strict=True)
        ]
        self.client.update_vectors(self.collection, points, wait=True)

    @guarded
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

    @guarded
    def dim(self) -> int:
        """See `VectorTable.dim`."""
        return int(self._config().size)

    @guarded
    def read_stamp(self) -> Stamp | None:
        """See `VectorTable.read_stamp`."""
        if not self.client.collection_exists(self.collection):
            return None
        metadata = self.client.get_collection(self.collection).config.metadata or {}
        return Stamp.from_json(metadata[_KEY], self.label) if _KEY in metadata else None

    @guarded
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


# What a stored point is made of: numbers and texts, a vector, a payload.
_PLAIN: Final = frozenset(
    {
        ("qdrant_client.http.models.models", "PointStruct"),
        ("qdrant_client.http.models.models", "SparseVector"),
        ("uuid", "UUID"),
        ("uuid", "SafeUUID"),
        ("builtins", "set"),
        ("datetime", "datetime"),
        ("datetime", "date"),
    }
)


class _PlainUnpickler(pickle.Unpickler):  # noqa: S301 - finds no class but those above
    """Reads points alone: a pickle may name any function of any module, which loading would call."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _PLAIN:
            return super().find_class(module, name)
        raise StoreError(f"{module}.{name}")


def check_points(folder: Path) -> None:
    """Make sure that loading an embedded Qdrant runs no code: its client unpickles whatever the files hold.

    Raises:
        StoreError: A file holds something else than points, or cannot be read.
    """
    for file in sorted((folder / "collection").glob("*/storage.sqlite")):
        try:
            # Not mode=ro: where a process was killed while it wrote, SQLite takes the half-written pages back first.
            with closing(sqlite3.connect(f"file:{quote(str(file.absolute()))}?mode=rw", uri=True)) as database:
                for (point,) in database.execute("SELECT point FROM points"):
                    _PlainUnpickler(BytesIO(point)).load()  # names of points are all that it can load
        except StoreError as err:  # noqa: PERF203 (a handful of files)
            raise StoreError(
                f"{file} holds more than points ({err}), which opening it would run; so it is not opened: get the "
                "index from a source you trust, or build it again."
            ) from None
        except Exception as err:
            raise StoreError(
                f"{file} cannot be read ({first_line(err)}); restore it, or build the index again."
            ) from err
