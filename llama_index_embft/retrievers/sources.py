"""Where a `StackRetriever` finds the nodes behind its ids, and how it notices that some were added or deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from llama_index_embft.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence

    from llama_index.core.schema import BaseNode

    from llama_index_embft.index.stores.base import VectorTable

_BATCH: Final = 10_000


class NodeSource(Protocol):
    """Nodes by id."""

    label: str
    quick: bool  # whether `version` costs next to nothing

    def version(self) -> Hashable:
        """A value that changes when nodes are added or deleted."""

    def ids(self) -> list[str]:
        """All ids."""

    def nodes(self, ids: Sequence[str]) -> dict[str, BaseNode]:
        """Id to node, for those that are there and whose text is kept."""


class StoredNodes:
    """The nodes of an index, read from where it keeps their texts.

    Args:
        table: The index.
    """

    def __init__(self, table: VectorTable) -> None:
        self.table = table
        self.label = table.label
        self.quick = table.volatile

    def version(self) -> Hashable:
        """See `NodeSource.version`."""
        return self.table.version()

    def ids(self) -> list[str]:
        """See `NodeSource.ids`."""
        return [node_id for batch in self.table.id_batches(_BATCH) for node_id in batch]

    def nodes(self, ids: Sequence[str]) -> dict[str, BaseNode]:
        """See `NodeSource.nodes`."""
        return self.table.nodes(ids)


class GivenNodes:
    """Nodes that the caller holds.

    Args:
        nodes: The nodes.

    Raises:
        ConfigError: Two of them have one id.
    """

    label = "the list of nodes"
    quick = True

    def __init__(self, nodes: Iterable[BaseNode]) -> None:
        given = list(nodes)
        self._nodes = {node.node_id: node for node in given}
        if len(self._nodes) < len(given):
            ids = [node.node_id for node in given]
            twice = next(node_id for node_id in ids if ids.count(node_id) > 1)
            raise ConfigError(f"Two of the nodes have the id {twice!r}; give every node an id of its own.")

    def version(self) -> Hashable:
        """See `NodeSource.version`."""
        return len(self._nodes)

    def ids(self) -> list[str]:
        """See `NodeSource.ids`."""
        return list(self._nodes)

    def nodes(self, ids: Sequence[str]) -> dict[str, BaseNode]:
        """See `NodeSource.nodes`."""
        return {node_id: self._nodes[node_id] for node_id in ids if node_id in self._nodes}
