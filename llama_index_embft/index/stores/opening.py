"""Which table goes over an index or vector store, or is found at an address, and the list of those that are known."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from llama_index_embft._core.checks import first_line
from llama_index_embft._core.redaction import redact
from llama_index_embft.errors import ConfigError
from llama_index_embft.index.stores.base import VectorTable

if TYPE_CHECKING:
    from collections.abc import Callable

    from llama_index.core import VectorStoreIndex
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.vector_stores.types import BasePydanticVectorStore

IndexLike: TypeAlias = "VectorStoreIndex | BasePydanticVectorStore | VectorTable"

# LlamaIndex's class (subclasses count) -> our table, as ``module:class``. A store is a file and a line here.
_PACKAGE: Final = "llama_index_embft.index.stores"
TABLES: Final = {
    "SimpleVectorStore": f"{_PACKAGE}.memory:SimpleTable",
    "FaissVectorStore": f"{_PACKAGE}.faiss:FaissTable",
    "QdrantVectorStore": f"{_PACKAGE}.qdrant:QdrantTable",
    "LanceDBVectorStore": f"{_PACKAGE}.lancedb:LanceTable",
    "PGVectorStore": f"{_PACKAGE}.postgres:PostgresTable",
}


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
        raise ConfigError(f"`index` is a {type(index).__name__}; it must be a VectorStoreIndex or a vector store.")
    place = next((TABLES[cls.__name__] for cls in type(store).__mro__ if cls.__name__ in TABLES), None)
    if place is None:
        raise ConfigError(
            f"{type(store).__name__} is not known here (known: {', '.join(TABLES)}); pass a VectorTable of your own "
            "for it."
        )
    table: Callable[..., VectorTable] = _load(place)
    if _load(place).volatile:
        if not isinstance(index, VectorStoreIndex):
            raise ConfigError(
                f"A {type(index).__name__} keeps neither texts nor a place for the stamp; pass the VectorStoreIndex "
                "over it."
            )
        return table(index, persist_dir)
    if persist_dir is not None:
        raise ConfigError(
            f"`persist_dir` is for indexes in memory; {type(store).__name__} keeps its vectors itself: leave it out."
        )
    return table(store)


@dataclass(frozen=True)
class OpenedIndex:
    """An index, and the folder that its files are in where it lives in memory."""

    index: VectorStoreIndex
    persist_dir: Path | None


def open_index(where: str, *, table: str | None = None, embed_model: BaseEmbedding) -> OpenedIndex:
    """Open an index that exists.

    Args:
        where: A folder that ``index.storage_context.persist`` wrote (SimpleVectorStore or FAISS), a folder of embedded
            Qdrant or LanceDB, ``http://host:6333`` (Qdrant), or ``postgresql://user@host/database``.
        table: Qdrant's collection, LanceDB's table, or `PGVectorStore`'s ``table_name``; may be left out if there is
            only one.
        embed_model: For the index's own retrievers.

    Raises:
        ConfigError: There is no index, or several and ``table`` does not choose.
        StoreError: A server does not answer, or files are damaged.
        MissingExtraError: LlamaIndex's integration for the store is not installed.
    """
    for place in TABLES.values():
        store = _load(place)
        try:
            found = store.is_at(where)
        except (OSError, ValueError) as err:  # a name that is too long, or a folder that must not be read
            raise ConfigError(
                f"There is no index at {redact(where)[:200]} ({first_line(err)[:200]}); check the name."
            ) from err
        if found:
            return OpenedIndex(store.open_at(where, table, embed_model), Path(where) if store.volatile else None)
    if not Path(where).is_dir():
        raise ConfigError(
            f"There is no index at {redact(where)}; give a folder, or an address (http://, postgresql://)."
        )
    raise ConfigError(
        f"{where} holds no index: neither index_store.json (persisted LlamaIndex), nor meta.json and collection/ "
        "(Qdrant), nor *.lance (LanceDB)."
    )


def _load(place: str) -> type[VectorTable]:
    module, _, name = place.partition(":")
    found: type[VectorTable] = getattr(import_module(module), name)
    return found
