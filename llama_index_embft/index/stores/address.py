"""An index by its place: a persisted LlamaIndex folder, Qdrant, LanceDB or PostgreSQL."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index_embft.errors import ConfigError, MissingExtraError
from llama_index_embft.index.stamp import StoreError

if TYPE_CHECKING:
    from llama_index.core import VectorStoreIndex
    from llama_index.core.base.embeddings.base import BaseEmbedding

_STAMPS = "embft_index"  # our own table, in LanceDB and PostgreSQL


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
        StoreError: A server does not answer.
        MissingExtraError: LlamaIndex's integration for the store is not installed.
    """
    from llama_index.core import VectorStoreIndex

    if where.startswith(("postgresql://", "postgres://", "postgresql+")):
        return OpenedIndex(VectorStoreIndex.from_vector_store(_postgres(where, table), embed_model=embed_model), None)
    if where.startswith(("http://", "https://")):
        return OpenedIndex(VectorStoreIndex.from_vector_store(_qdrant(where, table), embed_model=embed_model), None)
    folder = Path(where)
    if not folder.is_dir():
        raise ConfigError(f"There is no index at {where}; give a folder, or an address (http://, postgresql://).")
    if (folder / "index_store.json").is_file():
        if table is not None:
            raise ConfigError(f"{where} is a persisted index and has no tables; leave the table out.")
        return OpenedIndex(_persisted(folder, embed_model), folder)
    if (folder / "meta.json").is_file() and (folder / "collection").is_dir():
        store = _qdrant(folder, table)
    elif any(folder.glob("*.lance")):
        store = _lancedb(folder, table)
    else:
        raise ConfigError(
            f"{where} holds no index: neither index_store.json (persisted LlamaIndex), nor meta.json and collection/ "
            "(Qdrant), nor *.lance (LanceDB)."
        )
    return OpenedIndex(VectorStoreIndex.from_vector_store(store, embed_model=embed_model), None)


def _persisted(folder: Path, embed_model: BaseEmbedding) -> VectorStoreIndex:
    from llama_index.core import StorageContext, VectorStoreIndex, load_index_from_storage

    file = folder / "default__vector_store.json"
    try:
        with file.open("rb") as opened:
            text = opened.read(1) == b"{"
        if text:
            context = StorageContext.from_defaults(persist_dir=str(folder))
        else:
            module = _integration("faiss", "A FAISS index")
            mapped = (folder / "id_map.json").is_file()
            store = (module.FaissMapVectorStore if mapped else module.FaissVectorStore).from_persist_dir(str(folder))
            context = StorageContext.from_defaults(vector_store=store, persist_dir=str(folder))
        index = load_index_from_storage(context, embed_model=embed_model)
    except (OSError, ValueError, KeyError) as err:
        raise ConfigError(f"The index in {folder} cannot be loaded ({err}); check the folder.") from err
    if not isinstance(index, VectorStoreIndex):
        raise ConfigError(f"{folder} holds a {type(index).__name__}; only a VectorStoreIndex has vectors.")
    return index


def _qdrant(where: str | Path, table: str | None) -> Any:
    module = _integration("qdrant", "A Qdrant index")
    from qdrant_client import QdrantClient
    from qdrant_client.http.exceptions import ApiException

    try:
        client = QdrantClient(url=where) if isinstance(where, str) else QdrantClient(path=str(where))
        names = [collection.name for collection in client.get_collections().collections]
    except (ApiException, OSError, RuntimeError) as err:  # RuntimeError: another process has the folder open
        raise StoreError(
            f"Qdrant at {where} cannot be opened ({str(err).splitlines()[0]}); check the address."
        ) from err
    return module.QdrantVectorStore(
        client=client, collection_name=_one(names, table, f"Qdrant at {where}", "collection")
    )


def _lancedb(folder: Path, table: str | None) -> Any:
    module = _integration("lancedb", "A LanceDB index")
    names = sorted(path.stem for path in folder.glob("*.lance") if path.stem != _STAMPS)
    chosen = _one(names, table, f"LanceDB in {folder}", "table")
    return module.LanceDBVectorStore(uri=str(folder), table_name=chosen)


def _postgres(where: str, table: str | None) -> Any:
    module = _integration("postgres", "A PostgreSQL index")
    from sqlalchemy import create_engine, make_url, text
    from sqlalchemy.exc import SQLAlchemyError

    url = make_url(where)
    shown = url.render_as_string(hide_password=True)
    # The tables that PGVectorStore made, with the type of their vectors: vector(384) or halfvec(384).
    query = text(
        "SELECT c.relname, format_type(a.atttypid, a.atttypmod) FROM pg_attribute a "
        "JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE a.attname = 'embedding' AND n.nspname = 'public' AND c.relkind = 'r' AND c.relname LIKE 'data\\_%'"
    )
    try:
        engine = create_engine(url.set(drivername="postgresql+psycopg2"))
        with engine.connect() as connection:
            types = {name.removeprefix("data_"): kind for name, kind in connection.execute(query).all()}
        engine.dispose()
    except SQLAlchemyError as err:
        reason = str(getattr(err, "orig", err)).strip().splitlines()[0]
        raise StoreError(f"PostgreSQL at {shown} cannot be reached ({reason}); check the address.") from err
    name = _one(sorted(types), table, f"PostgreSQL at {shown}", "table")
    kind, _, size = types[name].partition("(")
    return module.PGVectorStore.from_params(
        connection_string=url.set(drivername="postgresql+psycopg2").render_as_string(hide_password=False),
        async_connection_string=url.set(drivername="postgresql+asyncpg").render_as_string(hide_password=False),
        table_name=name,
        embed_dim=int(size.rstrip(")")),
        use_halfvec=kind == "halfvec",
    )


def _one(names: list[str], table: str | None, place: str, what: str) -> str:
    if table is not None:
        if table not in names:
            raise ConfigError(f"{place} has no {what} {table!r}; it has: {', '.join(names) or 'none'}.")
        return table
    if len(names) != 1:
        raise ConfigError(f"{place} has {len(names)} {what}s ({', '.join(names) or 'none'}); say which one: table=...")
    return names[0]


def _integration(name: str, feature: str) -> Any:
    try:
        return import_module(f"llama_index.vector_stores.{name}")
    except ModuleNotFoundError as err:
        package = f"llama-index-vector-stores-{name}"
        raise MissingExtraError(
            f"{feature} needs the package `{package}`; install it with: pip install {package}"
        ) from err
