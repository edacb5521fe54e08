"""PostgreSQL with pgvector; the stamps of all tables are in a table ``embft_index`` of the same schema."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from llama_index_embft._core.checks import first_line
from llama_index_embft._core.redaction import redact
from llama_index_embft.errors import ConfigError
from llama_index_embft.index.stamp import Stamp, StoreError
from llama_index_embft.index.stores.base import VectorTable, capital, check_unique, guarded, integration, only_name

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence

    from llama_index.core import VectorStoreIndex
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.schema import BaseNode
    from numpy.typing import NDArray

_STAMPS: Final = "embft_index"
logger = logging.getLogger(__name__)


class PostgresTable(VectorTable):
    """A table of a `PGVectorStore`; each batch is one transaction.

    Args:
        store: The store.

    Raises:
        StoreError: The server does not answer.
    """

    def __init__(self, store: Any) -> None:
        from sqlalchemy.exc import SQLAlchemyError

        self.store = store
        self.table = store._table_class.__table__
        self.label = f"the PostgreSQL table {self.table.schema}.{self.table.name}"
        try:
            store._initialize()  # as every call of the store does first: connection, extension, table
            with store.client.connect():
                pass
        except SQLAlchemyError as err:
            reason = first_line(getattr(err, "orig", None) or err)
            raise StoreError(
                f"{capital(self.label)} cannot be reached ({reason}); check the address and the server."
            ) from err
        self.engine: Any = store.client

    @classmethod
    def is_at(cls, where: str) -> bool:
        """See `VectorTable.is_at`."""
        return where.startswith(("postgresql://", "postgres://", "postgresql+"))

    @classmethod
    def open_at(cls, where: str, table: str | None, embed_model: BaseEmbedding) -> VectorStoreIndex:
        """See `VectorTable.open_at`."""
        from llama_index.core import VectorStoreIndex

        return VectorStoreIndex.from_vector_store(_open_store(where, table), embed_model=embed_model)

    @guarded
    def id_batches(self, size: int) -> Iterator[list[str]]:
        """See `VectorTable.id_batches`."""
        from sqlalchemy import select

        last = -1
        while True:
            statement = select(self.table.c.id, self.table.c.node_id).where(self.table.c.id > last)
            with self.engine.connect() as connection:
                rows = connection.execute(statement.order_by(self.table.c.id).limit(size)).all()
            if not rows:
                return
            last = rows[-1][0]
            yield [row[1] for row in rows]

    @guarded
    def version(self) -> Hashable:
        """See `VectorTable.version`: the number of rows and the last one added."""
        from sqlalchemy import func, select

        with self.engine.connect() as connection:
            return tuple(
                connection.execute(select(func.count(), func.max(self.table.c.id)).select_from(self.table)).one()
            )

    @guarded
    def fetch(self, ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """See `VectorTable.fetch`."""
        from sqlalchemy import select

        statement = select(self.table.c.node_id, self.table.c.embedding).where(self.table.c.node_id.in_(list(ids)))
        with self.engine.connect() as connection:
            rows = connection.execute(statement).all()
        check_unique([row[0] for row in rows], self.label)
        return {row[0]: _array(row[1]) for row in rows}

    @guarded
    def nodes(self, ids: Sequence[str]) -> dict[str, BaseNode]:
        """See `VectorTable.nodes`."""
        return {node.node_id: node for node in self.store.get_nodes(node_ids=list(ids))} if ids else {}

    @guarded
    def write(self, ids: Sequence[str], vectors: NDArray[np.float32]) -> None:
        """See `VectorTable.write`."""
        from pgvector.sqlalchemy import HALFVEC, Vector
        from sqlalchemy import String, cast, column, update, values

        # One statement a batch: as one a row, each would look for its row anew.
        kind = (HALFVEC if self.store.use_halfvec else Vector)(self.store.embed_dim)
        new = values(column("node_id", String), column("embedding", kind), name="new").data(
            list(zip(ids, vectors.tolist(), strict=True))
        )
        changed = update(self.table).values(embedding=cast(new.c.embedding, kind))
        with self.engine.begin() as connection:
            connection.execute(changed.where(self.table.c.node_id == new.c.node_id))

    def prepare(self) -> None:
        """See `VectorTable.prepare`: an index by node id, which `PGVectorStore` does not make."""
        from sqlalchemy import text
        from sqlalchemy.exc import SQLAlchemyError

        quote = self.engine.dialect.identifier_preparer
        name = quote.quote(f"embft_{self.table.name}_node_id"[:63])  # PostgreSQL cuts longer names
        try:
            with self.engine.begin() as connection:
                place = quote.format_table(self.table)
                connection.execute(text(f"CREATE INDEX IF NOT EXISTS {name} ON {place} (node_id)"))
                connection.execute(text(f"ANALYZE {place}"))
        except SQLAlchemyError as err:
            logger.warning(
                "Could not create an index on node ids in %s (%s); the update continues, more slowly.",
                self.label,
                first_line(getattr(err, "orig", None) or err),
            )

    def as_stored(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `VectorTable.as_stored`; a column of type halfvec rounds to 16 bits."""
        return vectors.astype(np.float16).astype(np.float32) if self.store.use_halfvec else vectors

    @guarded
    def dim(self) -> int:
        """See `VectorTable.dim`."""
        return int(self.store.embed_dim)

    @guarded
    def read_stamp(self) -> Stamp | None:
        """See `VectorTable.read_stamp`."""
        from sqlalchemy import inspect, select

        if not inspect(self.engine).has_table(_STAMPS, schema=self.table.schema):
            return None
        stamps = self._stamps()
        with self.engine.connect() as connection:
            found = connection.execute(
                select(stamps.c.stamp).where(stamps.c.table_name == self.table.name)
            ).scalar_one_or_none()
        return None if found is None else Stamp.from_json(found, self.label)

    @guarded
    def write_stamp(self, stamp: Stamp) -> None:
        """See `VectorTable.write_stamp`."""
        from sqlalchemy.dialects.postgresql import insert

        stamps = self._stamps()
        values = {"table_name": self.table.name, "stamp": stamp.to_json()}
        statement = (
            insert(stamps)
            .values(values)
            .on_conflict_do_update(index_elements=["table_name"], set_={"stamp": values["stamp"]})
        )
        with self.engine.begin() as connection:
            stamps.create(connection, checkfirst=True)
            connection.execute(statement)

    def _stamps(self) -> Any:
        from sqlalchemy import Column, MetaData, String, Table

        return Table(
            _STAMPS,
            MetaData(),
            Column("table_name", String, primary_key=True),
            Column("stamp", String, nullable=False),
            schema=self.table.schema,
        )


def _array(vector: Any) -> NDArray[np.float32]:
    # pgvector gives numpy arrays for vector columns, and its own class for halfvec ones.
    values = vector.to_numpy() if hasattr(vector, "to_numpy") else vector
    return np.asarray(values, dtype=np.float32)


def _open_store(where: str, table: str | None) -> Any:
    module = integration("postgres", "A PostgreSQL index")
    from sqlalchemy import create_engine, make_url, text
    from sqlalchemy.exc import SQLAlchemyError

    try:
        url = make_url(where)
    except (SQLAlchemyError, ValueError) as err:
        raise ConfigError(
            f"{redact(where)} is not an address of PostgreSQL ({first_line(err)}); give postgresql://user@host/database."
        ) from None  # the cause repeats the address
    shown = redact(url.render_as_string(hide_password=True))
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
        reason = first_line(getattr(err, "orig", None) or err)
        raise StoreError(f"PostgreSQL at {shown} cannot be reached ({reason}); check the address.") from err
    name = only_name(sorted(types), table, f"PostgreSQL at {shown}", "table")
    kind, _, size = types[name].partition("(")
    return module.PGVectorStore.from_params(
        connection_string=url.set(drivername="postgresql+psycopg2").render_as_string(hide_password=False),
        async_connection_string=url.set(drivername="postgresql+asyncpg").render_as_string(hide_password=False),
        table_name=name,
        embed_dim=int(size.rstrip(")")),
        use_halfvec=kind == "halfvec",
    )
