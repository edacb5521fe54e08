"""The stack as one LlamaIndex retriever: dense part, part by words, fusion, reranker."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from llama_index.core.base.base_retriever import BaseRetriever

from llama_index_embft._core.checks import check_number, first_line
from llama_index_embft.errors import ConfigError
from llama_index_embft.index.stores.opening import open_table
from llama_index_embft.retrievers.dense import DenseHits, afind, find, over_index, similarities, taken_over, with_depth
from llama_index_embft.retrievers.lexical_part import LexicalPart
from llama_index_embft.retrievers.settings import StackSettings
from llama_index_embft.retrievers.sources import GivenNodes, NodeSource, StoredNodes
from llama_index_embft.search.fusion import fuse
from llama_index_embft.search.topk import TopK

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from llama_index.core import VectorStoreIndex
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.postprocessor.types import BaseNodePostprocessor
    from llama_index.core.schema import BaseNode, NodeWithScore, QueryBundle
    from llama_index.core.vector_stores import MetadataFilters

    from llama_index_embft.search.lexical import LexicalIndex

logger = logging.getLogger(__name__)


class StackRetriever(BaseRetriever):
    """Dense search and search by words over the same nodes, mixed, with a reranker on top if one is given.

    It returns what `fuse` returns for the hits of both parts; the score of a node is the fused one, or the reranker's.
    Nodes that are added to the index later are found by both parts, deleted ones by neither; see `refresh` for the one
    change that needs a word from you. A blank query finds nothing.

    Args:
        dense: An index, or a retriever. With an index whose store is known here (SimpleVectorStore, FAISS, Qdrant,
            LanceDB, PostgreSQL) the texts are read from it; anything else needs ``nodes``.
        settings: Weight, fusion, depths; None takes the defaults.
        embed_model: Embeds the queries; None takes the index's own.
        reranker: A node postprocessor that puts the best fused hits into a new order. Its ``top_n`` limits what comes
            back.
        similarity_top_k: Nodes to return.
        filters: Only nodes whose metadata match are found, by either part. Not nested. The part by words is built of
            these nodes alone, so keep the retriever rather than make one a query.
        nodes: The nodes that ``dense`` finds, where they cannot be read from an index.
        lexical: The part by words, if it is there already; None builds it, which takes about 0.4 ms a node.
        strict: Raise what a reranker raises. Otherwise the fused ranking is returned, with one warning.
        vector_store_kwargs: For the queries of an index's store.

    Attributes:
        settings: The settings.
        similarity_top_k: Nodes to return.
        reranker: The reranker, or None.
        reranker_failures: How often it failed.
        index: The index that is searched; None for another retriever.
        filters: Those that hold for both parts, or None.
        folder: Where it is saved; None where it is not.

    Raises:
        ConfigError: A value is not allowed, or the nodes cannot be read.
        StoreError: No node has a text.
    """

    def __init__(
        self,
        dense: VectorStoreIndex | BaseRetriever,
        settings: StackSettings | None = None,
        *,
        embed_model: BaseEmbedding | None = None,
        reranker: BaseNodePostprocessor | None = None,
        similarity_top_k: int = 10,
        filters: MetadataFilters | None = None,
        nodes: Iterable[BaseNode] | None = None,
        lexical: LexicalIndex | None = None,
        strict: bool = False,
        vector_store_kwargs: dict[str, Any] | None = None,
    ) -> None:
        check_number("similarity_top_k", similarity_top_k, at_least=1)
        if reranker is not None and not hasattr(reranker, "postprocess_nodes"):
            raise ConfigError(
                f"`reranker` is a {type(reranker).__name__} and no node postprocessor; give "
                "CrossEncoderReranker(model) for a model, its name or a function, or load_reranker(folder)."
            )
        self.settings = settings or StackSettings()
        self.similarity_top_k = similarity_top_k
        self.reranker, self.reranker_failures, self.strict = reranker, 0, strict
        self.folder: str | None = None
        part = _dense_part(dense, embed_model, filters, vector_store_kwargs)
        self._dense, self.index, self.filters = part
        self._words = LexicalPart(_source_of(self.index, nodes), self.settings.metadata_mode, self.filters, lexical)
        super().__init__(callback_manager=self._dense.callback_manager, object_map=self._dense.object_map)
        if self.settings.dense_weight < 1:
            _ = self._words.index  # built before the first query, and what is wrong is said now

    @property
    def lexical(self) -> LexicalIndex:
        """The part by words."""
        return self._words.index

    @property
    def embed_model(self) -> BaseEmbedding | None:
        """Embeds the queries; None where the dense retriever does not say."""
        return getattr(self._dense, "_embed_model", None)

    @property
    def vector_store_kwargs(self) -> dict[str, Any]:
        """For the queries of an index's store; empty for another retriever."""
        return {} if self.index is None else dict(getattr(self._dense, "_kwargs", None) or {})

    def refresh(self, nodes: Iterable[BaseNode] | None = None) -> None:
        """Read all texts again and build the part by words anew, about 0.4 ms a node.

        Needed only where the text of a node has changed and its id has not, or where ``nodes`` were given.

        Args:
            nodes: The nodes of today, for a retriever that was given its nodes.

        Raises:
            ConfigError: ``nodes`` are given to a retriever that reads them from an index.
            StoreError: No node has a text.
        """
        if nodes is not None:
            if isinstance(self._words.source, StoredNodes):
                raise ConfigError("`nodes` is given, but this retriever reads its nodes from an index; leave it out.")
            self._words.source = GivenNodes(nodes)
        self._words.refresh()

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        if _is_blank(query_bundle):
            return []
        if self.settings.dense_weight == 1:
            ranked = with_depth(self._dense, self._wanted)._retrieve(query_bundle)
        else:
            depth = self._dense_depth
            found = find(self._dense, query_bundle, depth) if depth else DenseHits([], [], {})
            ranked = self._mixed(query_bundle.query_str, found)
        if self.reranker is not None and ranked:
            try:
                ranked = self.reranker.postprocess_nodes(_copies(ranked), query_bundle=query_bundle)
            except Exception as err:  # noqa: BLE001  # whatever a model or a server raises
                self._note_failure(err)
        return ranked[: self.similarity_top_k]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        if _is_blank(query_bundle):
            return []
        if self.settings.dense_weight == 1:
            ranked = await with_depth(self._dense, self._wanted)._aretrieve(query_bundle)
        else:
            depth = self._dense_depth
            found = await afind(self._dense, query_bundle, depth) if depth else DenseHits([], [], {})
            # Nodes may be asked of a store, and after a change texts are read: nothing that the loop should wait for.
            ranked = await asyncio.to_thread(self._mixed, query_bundle.query_str, found)
        if self.reranker is not None and ranked:
            try:
                ranked = await self.reranker.apostprocess_nodes(_copies(ranked), query_bundle=query_bundle)
            except Exception as err:  # noqa: BLE001  # whatever a model or a server raises
                self._note_failure(err)
        return ranked[: self.similarity_top_k]

    @property
    def _wanted(self) -> int:
        """Hits that are needed in the end."""
        return (
            self.similarity_top_k if self.reranker is None else max(self.similarity_top_k, self.settings.rerank_depth)
        )

    @property
    def _dense_depth(self) -> int:
        """Dense hits that are mixed; 0: that part is not asked at all."""
        return self.settings.depth if self.settings.dense_weight > 0 else 0

    def _mixed(self, query: str, found: DenseHits) -> list[NodeWithScore]:
        """The fused ranking, as long as it is needed, with its nodes."""
        from llama_index.core.schema import NodeWithScore

        nodes = dict(found.nodes)
        ranking = self._fused(query, found, self._words.current(found.ids))
        result: list[NodeWithScore] = []
        # A node that the dense part has not brought is fetched; where it is deleted, the next one takes its place.
        while part := _take(ranking, self._wanted - len(result)):
            missing = [node_id for node_id, _ in part if node_id not in nodes]
            nodes |= self._words.source.nodes(missing) if missing else {}
            result += [NodeWithScore(node=nodes[node_id], score=score) for node_id, score in part if node_id in nodes]
        return result

    def _fused(self, query: str, found: DenseHits, lexical: LexicalIndex) -> Iterator[tuple[str, float]]:
        """Ids with their scores, best first."""
        settings = self.settings
        strangers = [node_id for node_id in found.ids if node_id not in lexical.row_of]  # without text, or just added
        extra = {node_id: len(lexical) + place for place, node_id in enumerate(strangers)}
        rows = [extra[node_id] if node_id in extra else lexical.row_of[node_id] for node_id in found.ids]
        if settings.fusion == "rrf":
            scores = -np.arange(len(rows), dtype=np.float32)
        else:
            scores = similarities(found.scores, None if self.index is None else self.index.vector_store)
        dense = TopK(np.array([rows], dtype=np.int64), scores[None])
        # Alone, the part by words is asked for all that is wanted, as the dense one is.
        depth = settings.depth if settings.dense_weight > 0 else max(settings.depth, self._wanted)
        words = lexical.search([query], depth)
        fused = fuse(dense, words, settings.dense_weight, settings.fusion, depth=depth)
        for row, score in zip(fused.rows[0].tolist(), fused.scores[0].tolist(), strict=True):
            if row >= 0:
                yield (lexical.ids[row] if row < len(lexical) else strangers[row - len(lexical)]), score

    def _note_failure(self, err: Exception) -> None:
        """Count a failure of the reranker, and warn of the first; the fused ranking is returned."""
        if self.strict:
            raise err
        self.reranker_failures += 1
        if self.reranker_failures == 1:
            logger.warning(
                "The reranker failed (%s: %s), so the ranking without it is returned; later failures are only counted, "
                "in `reranker_failures`.",
                type(err).__name__,
                first_line(err),
            )


class _DensePart(NamedTuple):
    retriever: BaseRetriever
    searched: VectorStoreIndex | None
    filters: MetadataFilters | None


def _dense_part(
    dense: Any,
    embed_model: BaseEmbedding | None,
    filters: MetadataFilters | None,
    vector_store_kwargs: dict[str, Any] | None,
) -> _DensePart:
    from llama_index.core import VectorStoreIndex
    from llama_index.core.indices.vector_store.retrievers import VectorIndexRetriever

    if isinstance(dense, VectorStoreIndex):
        return _DensePart(over_index(dense, embed_model, filters, vector_store_kwargs), dense, filters)
    if not isinstance(dense, BaseRetriever):
        raise ConfigError(f"`dense` is a {type(dense).__name__}; it must be a VectorStoreIndex or a retriever.")
    given = {"embed_model": embed_model, "filters": filters, "vector_store_kwargs": vector_store_kwargs}
    spare = next((name for name, value in given.items() if value is not None), None)
    if spare is not None:
        raise ConfigError(f"`{spare}` is for an index, and `dense` is a {type(dense).__name__}; give it to that.")
    if isinstance(dense, VectorIndexRetriever):
        return _DensePart(taken_over(dense), dense._index, dense._filters)
    return _DensePart(dense, None, None)


def _source_of(index: VectorStoreIndex | None, nodes: Iterable[BaseNode] | None) -> NodeSource:
    if nodes is not None:
        return GivenNodes(nodes)
    if index is None:
        raise ConfigError("The nodes of this retriever are not known, and BM25 needs their texts; pass nodes=[...].")
    return StoredNodes(open_table(index))


def _is_blank(query: QueryBundle) -> bool:
    return not query.query_str.strip() and query.embedding is None and not query.custom_embedding_strs


def _copies(hits: Sequence[NodeWithScore]) -> list[NodeWithScore]:
    """The same nodes under scores of their own: a reranker writes its scores into what it is given."""
    from llama_index.core.schema import NodeWithScore

    return [NodeWithScore(node=hit.node, score=hit.score) for hit in hits]


def _take(ranking: Iterator[tuple[str, float]], n: int) -> list[tuple[str, float]]:
    return [pair for _, pair in zip(range(n), ranking, strict=False)]
