"""LanceDB, embedded on disk; the stamps of all tables are in a table ``embft_index`` of the same database."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from llama_index_embft._core.checks import first_line
from llama_index_embft.index.stamp import Stamp, StoreError
from llama_index_embft.index.stores.base import VectorTable, capital, check_unique, guarded, integration, only_name

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence

    from llama_index.core import VectorStoreIndex
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.schema import BaseNode
    from numpy.typing import NDArray

_STAMPS: Final = "embft_index"


class LanceTable(VectorTable):
    """A table of a `LanceDBVectorStore`.

    Each batch that is written is one version of the table; LanceDB keeps old versions until ``table.optimize()``
    cleans them up, so an update needs the room of the vectors once more until then.

    Args:
        store: The store.
    """

    def __init__(self, store: Any) -> None:
        self.store = store
        self.name = store._table_name
        self.label = f"the LanceDB table {self.name}"

    @classmethod
    def is_at(cls, where: str) -> bool:
        """See `VectorTable.is_at`."""
        return Path(where).is_dir() and any(Path(where).glob("*.lance"))

    @classmethod
    def open_at(cls, where: str, table: str | None, embed_model: BaseEmbedding) -> VectorStoreIndex:
        """See `VectorTable.open_at`."""
        from llama_index.core import VectorStoreIndex

        module = integration("lancedb", "A LanceDB index")
        names = sorted(path.stem for path in Path(where).glob("*.lance") if path.stem != _STAMPS)
        name = only_name(names, table, f"LanceDB in {where}", "table")
        try:
            store = module.LanceDBVectorStore(uri=where, table_name=name)
        except Exception as err:
            raise StoreError(
                f"The LanceDB table {name} in {where} cannot be opened ({first_line(err)}); restore its files, or "
                "build the index again."
            ) from err
        return VectorStoreIndex.from_vector_store(store, embed_model=embed_model)

    @guarded
    def id_batches(self, size: int) -> Iterator[list[str]]:
        """See `VectorTable.id_batches`."""
        if not self._exists():
            return
        table = self._table()
        total = table.count_rows()
        ids = table.search().select(["id"]).limit(total).to_arrow()["id"].to_pylist() if total else []
        for start in range(0, len(ids), size):
            yield ids[start : start + size]

    @guarded
    def version(self) -> Hashable:
        """See `VectorTable.version`; LanceDB counts every change."""
        return int(self._table().version) if self._exists() else None

    @guarded
    def fetch(self, ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """See `VectorTable.fetch`."""
        if not self._exists() or not ids:
            return {}
        rows = self._rows(ids, ["id", self.store.vector_column_name])
        vectors = rows[self.store.vector_column_name].to_pylist()
        found = rows["id"].to_pylist()
        check_unique(found, self.label)
        return {i: np.asarray(vector, dtype=np.float32) for i, vector in zip(found, vectors, strict=True)}

    @guarded
    def nodes(self, ids: Sequence[str]) -> dict[str, BaseNode]:
        """See `VectorTable.nodes`."""
        from llama_index.core.vector_stores.utils import metadata_dict_to_node

        if not self._exists() or not ids:
            return {}
        # The two fields that make a node, each by itself: where nodes have other metadata the whole cannot be read.
        wanted = {"id": "id", "_node_content": "metadata._node_content", "_node_type": "metadata._node_type"}
        return {row.pop("id"): metadata_dict_to_node(row) for row in self._rows(ids, wanted).to_pylist()}

    @guarded
    def write(self, ids: Sequence[str], vectors: NDArray[np.float32]) -> None:
        """See `VectorTable.write`."""
        import pyarrow as pa

        table = self._table()
        fields = [table.schema.field(name) for name in ("id", self.store.vector_column_name)]
        columns = [
            pa.array(list(values), type=field.type) for values, field in zip((ids, vectors), fields, strict=True)
        ]
        rows = pa.table(columns, schema=pa.schema(fields))  # the other columns stay as they are
        table.merge_insert("id").when_matched_update_all().execute(rows)

    @guarded
    def delete(self, index: VectorStoreIndex, ids: Sequence[str]) -> None:
        """See `VectorTable.delete`; LlamaIndex's own way quotes ids as columns, which LanceDB refuses."""
        del index
        self._table().delete(f"id IN ({', '.join(_quoted(i) for i in ids)})")

    @guarded
    def dim(self) -> int:
        """See `VectorTable.dim`."""
        if not self._exists():
            raise StoreError(f"{capital(self.label)} does not exist; check the name, or add nodes to it first.")
        return int(self._table().schema.field(self.store.vector_column_name).type.list_size)

    @guarded
    def read_stamp(self) -> Stamp | None:
        """See `VectorTable.read_stamp`."""
        if not self.store._table_exists(_STAMPS):
            return None
        stamps = self.store.client.open_table(_STAMPS)
        found = stamps.search().where(f"table_name = {_quoted(self.name)}").limit(1).to_list()
        return Stamp.from_json(found[0]["stamp"], self.label) if found else None

    @guarded
    def write_stamp(self, stamp: Stamp) -> None:
        """See `VectorTable.write_stamp`."""
        row = [{"table_name": self.name, "stamp": stamp.to_json()}]
        if not self.store._table_exists(_STAMPS):
            self.store.client.create_table(_STAMPS, row)
            return
        stamps = self.store.client.open_table(_STAMPS)
        stamps.merge_insert("table_name").when_matched_update_all().when_not_matched_insert_all().execute(row)

    def _exists(self) -> bool:
        return bool(self.store._table_exists(self.name))

    def _table(self) -> Any:
        table = self.store.table
        table.checkout_latest()  # another process may have written
        return table

    def _rows(self, ids: Sequence[str], columns: list[str] | dict[str, str]) -> Any:
        wanted = ", ".join(_quoted(i) for i in ids)
        # Twice as many: a row too many must show, not be cut off.
        return self._table().search().where(f"id IN ({wanted})").limit(2 * len(ids)).select(columns).to_arrow()


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
