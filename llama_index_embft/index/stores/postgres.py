"""PostgreSQL with pgvector; the stamps of all tables are in a table ``embft_index`` of the same schema."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from llama_index_embft.index.stamp import Stamp, StoreError
from llama_index_embft.index.stores.opening import VectorTable, capital, check_unique

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from llama_index.core.schema import BaseNode
    from numpy.typing import NDArray

_STAMPS: Final = "embft_index"


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
            reason = str(getattr(err, "orig", err)).strip().splitlines()[0]
            raise StoreError(
                f"{capital(self.label)} cannot be reached ({reason}); check the address and the server."
            ) from err
        self.engine: Any = store.client

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

    def fetch(self, ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """See `VectorTable.fetch`."""
        from sqlalchemy import select

        statement = select(self.table.c.node_id, self.table.c.embedding).where(self.table.c.node_id.in_(list(ids)))
        with self.engine.connect() as connection:
            rows = connection.execute(statement).all()
        check_unique([row[0] for row in rows], self.label)
        return {row[0]: _array(row[1]) for row in rows}

    def nodes(self, ids: Sequence[str]) -> dict[str, BaseNode]:
        """See `VectorTable.nodes`."""
        return {node.node_id: node for node in self.store.get_nodes(node_ids=list(ids))} if ids else {}

    def write(self, ids: Sequence[str], vectors: NDArray[np.float32]) -> None:
        """See `VectorTable.write`."""
        from sqlalchemy import bindparam, update

        statement = (
            update(self.table).where(self.table.c.node_id == bindparam("row")).values(embedding=bindparam("new"))
        )
        rows = [{"row": i, "new": vector} for i, vector in zip(ids, vectors.tolist(), strict=True)]
        with self.engine.begin() as connection:
            connection.execute(statement, rows)

    def as_stored(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `VectorTable.as_stored`; a column of type halfvec rounds to 16 bits."""
        return vectors.astype(np.float16).astype(np.float32) if self.store.use_halfvec else vectors

    def dim(self) -> int:
        """See `VectorTable.dim`."""
        return int(self.store.embed_dim)

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
