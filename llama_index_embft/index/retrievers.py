"""Retrievers that look at the stamp of an index before they search it."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

from llama_index.core.base.base_retriever import BaseRetriever

from llama_index_embft.embeddings.identity import identify
from llama_index_embft.index.canaries import check_canaries
from llama_index_embft.index.identity import check_stamp
from llama_index_embft.index.stores.opening import open_table

if TYPE_CHECKING:
    from llama_index.core import VectorStoreIndex
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.schema import NodeWithScore, QueryBundle

    from llama_index_embft.index.stamp import Stamp


class CheckedRetriever(BaseRetriever):
    """``index.as_retriever(embed_model=...)`` that refuses to search with another model's vectors.

    The stamp is read before every search (one look-up by key), so an update that starts later is noticed too. A hosted
    model embeds the test sentences of the stamp once, when the retriever is made.

    Args:
        index: A stamped index.
        embed_model: The model for the queries.
        counts: Counts how often each node is retrieved, for `reembed_index`; None makes a new counter.
        identity: See `stamp_index`.
        canaries: See `check_index`.
        **kwargs: For ``index.as_retriever``, such as ``similarity_top_k``.

    Attributes:
        counts: Node id to the number of times it was retrieved.

    Raises:
        ModelError: Another model embedded the index, or answers behind the name of the one that did.
        StoreError: The index is not stamped, or is being updated.
    """

    def __init__(
        self,
        index: VectorStoreIndex,
        embed_model: BaseEmbedding,
        *,
        counts: Counter[str] | None = None,
        identity: str | None = None,
        canaries: bool = True,
        **kwargs: Any,
    ) -> None:
        self._table = open_table(index)
        self._identity = identify(embed_model, identity=identity)
        stamp = self._check()
        if canaries:
            check_canaries(stamp.canaries, embed_model, self._table.label, identity=identity)
        self._retriever = index.as_retriever(embed_model=embed_model, **kwargs)
        self.counts: Counter[str] = Counter() if counts is None else counts
        super().__init__(callback_manager=self._retriever.callback_manager)

    def _check(self) -> Stamp:
        return check_stamp(self._table, self._identity)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        self._check()
        return self._counted(self._retriever.retrieve(query_bundle))

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        await asyncio.to_thread(self._check)  # a server is asked, and the loop must not wait for it
        return self._counted(await self._retriever.aretrieve(query_bundle))

    def _counted(self, hits: list[NodeWithScore]) -> list[NodeWithScore]:
        self.counts.update(hit.node.node_id for hit in hits)
        return hits


def checked_retriever(
    index: VectorStoreIndex, embed_model: BaseEmbedding | None = None, **kwargs: Any
) -> CheckedRetriever:
    """A retriever over a stamped index that raises an error where another model would give bad answers silently.

    Args:
        index: A stamped index; see `stamp_index`.
        embed_model: The model for the queries; None takes the index's own.
        **kwargs: For ``index.as_retriever``, such as ``similarity_top_k``, and for `CheckedRetriever`.

    Raises:
        ModelError: Another model embedded the index.
        StoreError: The index is not stamped, or is being updated.
    """
    return CheckedRetriever(index, embed_model or index._embed_model, **kwargs)
