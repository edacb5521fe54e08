"""Stores that live in memory and are persisted as files; SimpleVectorStore is one.

Vectors are replaced in memory; `flush` replaces the persisted file as a whole. So a killed update leaves the old file
or the new one, and the stamp in ``index_store.json`` tells which.
"""

from __future__ import annotations

import json
import os
from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np

from llama_index_embft._core.checks import first_line
from llama_index_embft._core.temporary import scratch_folder
from llama_index_embft.errors import ConfigError, EmbftError
from llama_index_embft.index.stamp import Stamp, StoreError
from llama_index_embft.index.stores.base import VectorTable, capital, guarded

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Hashable, Iterator, Sequence

    from llama_index.core import StorageContext, VectorStoreIndex
    from llama_index.core.base.embeddings.base import BaseEmbedding
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

    @classmethod
    def open_at(cls, where: str, table: str | None, embed_model: BaseEmbedding) -> VectorStoreIndex:
        """See `VectorTable.open_at`; a folder that ``storage_context.persist`` wrote."""
        from llama_index.core import VectorStoreIndex, load_index_from_storage

        if table is not None:
            raise ConfigError(f"{where} is a persisted index and has no tables; leave the table out.")
        try:
            index = load_index_from_storage(cls._context(Path(where)), embed_model=embed_model)
        except EmbftError:
            raise
        except Exception as err:
            raise StoreError(
                f"The index in {where} cannot be loaded ({first_line(err)}); its files are damaged or do not belong "
                "together: restore them, or build the index again."
            ) from err
        if not isinstance(index, VectorStoreIndex):
            raise ConfigError(f"{where} holds a {type(index).__name__}; only a VectorStoreIndex has vectors.")
        return index

    @classmethod
    def _context(cls, folder: Path) -> StorageContext:
        """The files of a folder."""
        from llama_index.core import StorageContext

        return StorageContext.from_defaults(persist_dir=str(folder))

    @guarded
    def nodes(self, ids: Sequence[str]) -> dict[str, BaseNode]:
        """See `VectorTable.nodes`; the docstore may keep a node that is deleted from the store."""
        held = self._held()
        kept = self.index.docstore.get_nodes([i for i in ids if i in held], raise_error=False)
        return {node.node_id: node for node in kept}

    @guarded
    def read_stamp(self) -> Stamp | None:
        """See `VectorTable.read_stamp`."""
        found = self._key_values().get(self.index.index_id, collection=_COLLECTION)
        if found is None:
            return None
        text = found.get("stamp") if isinstance(found, dict) else None
        return Stamp.from_json(text, self.label)

    @guarded
    def write_stamp(self, stamp: Stamp) -> None:
        """See `VectorTable.write_stamp`."""
        self._key_values().put(self.index.index_id, {"stamp": stamp.to_json()}, collection=_COLLECTION)
        if self.folder is not None:
            index_store = self.index.storage_context.index_store
            replace_file(self.folder / "index_store.json", lambda path: index_store.persist(persist_path=path))

    @guarded
    def flush(self) -> None:
        """See `VectorTable.flush`."""
        if self.folder is not None:
            replace_file(self._file(), lambda path: self.store.persist(persist_path=path))

    @guarded
    def save_nodes(self) -> None:
        """See `VectorTable.save_nodes`."""
        if self.folder is not None:
            replace_file(self.folder / "docstore.json", lambda path: self.index.docstore.persist(persist_path=path))

    @abstractmethod
    def _held(self) -> Container[str]:
        """Ids of the nodes that the store has a vector of."""

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

    @classmethod
    def is_at(cls, where: str) -> bool:
        """See `VectorTable.is_at`."""
        return is_persisted(where) and not starts_binary(where)

    def version(self) -> Hashable:
        """See `VectorTable.version`: their number and the last one added."""
        vectors = self.store.data.embedding_dict
        return len(vectors), next(reversed(vectors), None)

    def _held(self) -> Container[str]:
        vectors: dict[str, list[float]] = self.store.data.embedding_dict
        return vectors

    @guarded
    def id_batches(self, size: int) -> Iterator[list[str]]:
        """See `VectorTable.id_batches`."""
        ids = list(self.store.data.embedding_dict)
        for start in range(0, len(ids), size):
            yield ids[start : start + size]

    @guarded
    def fetch(self, ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """See `VectorTable.fetch`."""
        vectors = self.store.data.embedding_dict
        found = {i: np.asarray(vectors[i], dtype=np.float32) for i in ids if i in vectors}
        flat = next((i for i, vector in found.items() if vector.ndim != 1 or not vector.size), None)
        if flat is not None:
            raise StoreError(f"{capital(self.label)} holds no vector for the node {flat}; build the index again.")
        return found

    @guarded
    def write(self, ids: Sequence[str], vectors: NDArray[np.float32]) -> None:
        """See `VectorTable.write`."""
        for node_id, vector in zip(ids, vectors.tolist(), strict=True):
            self.store.data.embedding_dict[node_id] = vector


def replace_file(target: Path, persist: Callable[[str], Any]) -> None:
    """Let ``persist`` write a file under another name, then put it in place of ``target`` at once."""
    with scratch_folder(target) as temporary:
        path = temporary / target.name
        persist(str(path))
        with path.open("r+b") as file:  # Windows flushes only what is open for writing
            os.fsync(file.fileno())
        path.replace(target)


def is_persisted(where: str) -> bool:
    """Whether a folder was written by ``storage_context.persist``."""
    return (Path(where) / "index_store.json").is_file()


def starts_binary(where: str) -> bool:
    """Whether the vectors of a persisted index are no JSON, as those of FAISS."""
    file = Path(where) / "default__vector_store.json"
    if not file.is_file():
        return False
    with file.open("rb") as opened:
        return opened.read(1) != b"{"
