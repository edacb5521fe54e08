"""The part of a stack that searches by words, kept in step with the nodes it is over."""

from __future__ import annotations

import time
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

from llama_index_embft._core.checks import first_line
from llama_index_embft.errors import ConfigError
from llama_index_embft.index.stamp import StoreError
from llama_index_embft.index.stores.base import capital
from llama_index_embft.search.lexical import LexicalIndex

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from llama_index.core.schema import BaseNode
    from llama_index.core.vector_stores import MetadataFilters

    from llama_index_embft.evaluation.tasks import IndexedText
    from llama_index_embft.retrievers.sources import NodeSource

# A store on disk or a server is asked at most this often whether it has changed; one in memory before each search.
_SECONDS_BETWEEN_LOOKS: Final = 1.0
# Where an update takes longer than this, it is followed by a rest of ten times its length: while documents stream in,
# queries do not wait for one update after the other.
_SHORT_UPDATE: Final = 0.2
_REST: Final = 10
_BATCH: Final = 1_000  # nodes that are read at a time


class LexicalPart:
    """A `LexicalIndex` over the nodes of a source.

    Args:
        source: The nodes.
        metadata_mode: Which of their texts is searched.
        filters: Only nodes whose metadata match; the others are as if they were not there.
        lexical: The index, if it is there already; it is brought up to date when it is first used.

    Raises:
        ConfigError: The filters are nested, or come with an index.
    """

    def __init__(
        self,
        source: NodeSource,
        metadata_mode: IndexedText,
        filters: MetadataFilters | None = None,
        lexical: LexicalIndex | None = None,
    ) -> None:
        if filters is not None and lexical is not None:
            raise ConfigError("`lexical` is given with `filters`; leave it out: it is built from the nodes that match.")
        _check_flat(filters)
        self.source = source
        self._mode, self._filters = metadata_mode, filters
        self._index = lexical
        self._left_out: set[str] = set()  # nodes without text, and those that do not match
        self._seen: Any = None  # the version of the source that the index is of
        self._next_look = self._next_update = 0.0
        self._lock = Lock()

    @property
    def index(self) -> LexicalIndex:
        """The index as it is; built at the first time.

        Raises:
            StoreError: No node has a text.
        """
        if self._index is None:
            self.refresh()
            assert self._index is not None
        return self._index

    def refresh(self) -> None:
        """Build the index anew from all texts.

        Raises:
            StoreError: No node has a text.
        """
        with self._lock:
            version, ids = self.source.version(), self.source.ids()
            texts = self._texts(ids)
            if not texts:
                reason = "no text is kept" if self._filters is None else "none that has a text matches the filters"
                raise StoreError(
                    f"{capital(self.source.label)} has {len(ids)} nodes, but {reason}; give `nodes` with their texts, "
                    "or search with the dense part alone (`dense_weight=1`)."
                )
            self._index = LexicalIndex.build(texts)
            self._left_out = set(ids) - set(texts)
            self._seen = version

    def current(self, found: Collection[str]) -> LexicalIndex:
        """The index, brought up to date first if the source has changed.

        Args:
            found: Ids that the dense part has found just now; one that is not known here tells of a change as well.
        """
        index, now = self.index, time.monotonic()
        if now < self._next_update:
            return index
        changed = any(i not in index.row_of and i not in self._left_out for i in found)
        if not changed and now >= self._next_look:
            if not self.source.quick:
                self._next_look = now + _SECONDS_BETWEEN_LOOKS
            changed = self.source.version() != self._seen
        if changed and self._lock.acquire(blocking=False):  # nobody waits for another's update
            try:
                self._update(index)
            finally:
                self._lock.release()
        return self.index

    def _update(self, index: LexicalIndex) -> None:
        """Take in new nodes, whose texts alone are read, and leave out those that are gone."""
        start = time.monotonic()
        version, ids = self.source.version(), dict.fromkeys(self.source.ids())
        new = [i for i in ids if i not in index.row_of and i not in self._left_out]
        gone = [i for i in index.ids if i not in ids]
        texts = self._texts(new)
        self._left_out = (self._left_out & ids.keys()) | (set(new) - set(texts))
        if texts or 0 < len(gone) < len(index):  # of an index that is emptied the last state stays, and finds nothing
            self._index = index.updated(texts, gone)
        self._seen = version
        seconds = time.monotonic() - start
        if seconds > _SHORT_UPDATE:
            self._next_update = time.monotonic() + _REST * seconds

    def _texts(self, ids: Sequence[str]) -> dict[str, str]:
        from llama_index.core.schema import MetadataMode

        mode = MetadataMode(self._mode)
        return {node.node_id: node.get_content(mode) for node in self._matching(ids)}

    def _matching(self, ids: Sequence[str]) -> Iterator[BaseNode]:
        """Nodes with a text that the filters let through, read some at a time."""
        from llama_index.core.schema import MetadataMode

        for start in range(0, len(ids), _BATCH):
            nodes = self.source.nodes(ids[start : start + _BATCH])
            for node in nodes.values():
                if node.get_content(MetadataMode.NONE).strip() and self._matches(node):
                    yield node

    def _matches(self, node: BaseNode) -> bool:
        from llama_index.core.vector_stores.utils import build_metadata_filter_fn

        if self._filters is None:
            return True
        try:
            return build_metadata_filter_fn(lambda _: node.metadata, self._filters)(node.node_id)
        except (TypeError, ValueError) as err:
            raise ConfigError(
                f"The filters cannot be applied to the node {node.node_id!r} ({first_line(err)}); compare its metadata "
                "with a value of their kind."
            ) from err


def _check_flat(filters: MetadataFilters | None) -> None:
    from llama_index.core.vector_stores import MetadataFilters

    if filters is not None and any(isinstance(one, MetadataFilters) for one in filters.filters):
        raise ConfigError(
            "`filters` holds filters inside filters, which the part by words does not follow; write them as one list."
        )
