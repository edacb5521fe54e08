"""The dense part of a stack: any retriever of LlamaIndex, asked for as many hits as are fused."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from llama_index_embft.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeGuard

    from llama_index.core import VectorStoreIndex
    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.indices.vector_store.retrievers import VectorIndexRetriever
    from llama_index.core.schema import BaseNode, NodeWithScore, QueryBundle
    from llama_index.core.vector_stores import MetadataFilters
    from llama_index.core.vector_stores.types import VectorStoreQueryResult
    from numpy.typing import NDArray


class DenseHits(NamedTuple):
    """What the dense part found, best first, each node once.

    Attributes:
        ids: Ids of the nodes.
        scores: Their scores as the store gives them.
        nodes: Those nodes that came with the answer.
    """

    ids: list[str]
    scores: list[float | None]
    nodes: dict[str, BaseNode]


def over_index(
    index: VectorStoreIndex,
    embed_model: BaseEmbedding | None,
    filters: MetadataFilters | None,
    vector_store_kwargs: dict[str, Any] | None,
) -> VectorIndexRetriever:
    """LlamaIndex's retriever over an index; unlike that of ``as_retriever`` it finds nodes that are added later.

    Raises:
        ConfigError: The store cannot filter, or holds the vectors of other indexes as well.
    """
    from llama_index.core.indices.vector_store.retrievers import VectorIndexRetriever

    if filters is not None and _is_a(index.vector_store, "FaissVectorStore"):
        raise ConfigError("FAISS cannot filter by metadata; leave `filters` out, or keep the nodes in another store.")
    if _is_a(index.vector_store, "SimpleVectorStore"):
        known = set(index.index_struct.nodes_dict)
        store: Any = index.vector_store
        stranger = next((i for i in store.data.embedding_dict if i not in known), None)
        if stranger is not None:
            raise ConfigError(
                f"The SimpleVectorStore holds the node {stranger!r}, which is not of the index {index.index_id}; "
                "give each index a store of its own."
            )
    return VectorIndexRetriever(
        index,
        embed_model=embed_model,
        filters=filters,
        callback_manager=index._callback_manager,
        object_map=index._object_map,
        vector_store_kwargs=vector_store_kwargs or {},
    )


def taken_over(dense: VectorIndexRetriever) -> VectorIndexRetriever:
    """LlamaIndex's own retriever, of which a copy finds nodes that are added later.

    Raises:
        ConfigError: It searches a part of the index, or in another way than by the query's vector.
    """
    from llama_index.core.vector_stores.types import VectorStoreQueryMode

    if dense._vector_store_query_mode != VectorStoreQueryMode.DEFAULT:
        raise ConfigError(
            f"The dense retriever searches in the mode {dense._vector_store_query_mode.value!r}; a stack mixes by "
            "itself, so give it one in the mode 'default'."
        )
    known = set(dense._index.index_struct.nodes_dict.values())
    if dense._doc_ids or (dense._node_ids and not known <= set(dense._node_ids)):
        raise ConfigError(
            "The dense retriever searches only some documents or nodes of its index, which BM25 cannot follow; give "
            "the index, and choose by `filters=MetadataFilters(...)`."
        )
    whole = copy.copy(dense)
    whole._node_ids = None
    return whole


def with_depth(dense: BaseRetriever, depth: int) -> BaseRetriever:
    """The retriever, asked for ``depth`` hits; one that cannot be asked returns as many as it does."""
    if not hasattr(dense, "similarity_top_k"):
        return dense
    deep: Any = copy.copy(dense)
    deep.similarity_top_k = depth
    asked: BaseRetriever = deep
    return asked


def find(dense: BaseRetriever, query: QueryBundle, depth: int) -> DenseHits:
    """The first ``depth`` hits of a retriever."""
    deep = with_depth(dense, depth)
    if not _keeps_no_texts(deep):
        return _of_nodes(deep._retrieve(query))
    if query.embedding is None:
        query.embedding = deep._embed_model.get_agg_embedding_from_queries(query.embedding_strs)
    return _of_result(deep, deep._vector_store.query(deep._build_vector_store_query(query), **deep._kwargs))


async def afind(dense: BaseRetriever, query: QueryBundle, depth: int) -> DenseHits:
    """`find`, asynchronous."""
    deep = with_depth(dense, depth)
    if not _keeps_no_texts(deep):
        return _of_nodes(await deep._aretrieve(query))
    if query.embedding is None:
        query.embedding = await deep._embed_model.aget_agg_embedding_from_queries(query.embedding_strs)
    return _of_result(deep, await deep._vector_store.aquery(deep._build_vector_store_query(query), **deep._kwargs))


def _keeps_no_texts(dense: BaseRetriever) -> TypeGuard[VectorIndexRetriever]:
    """Whether hits are ids alone: LlamaIndex would read and parse a hundred nodes, of which few are used."""
    from llama_index.core.indices.vector_store.retrievers import VectorIndexRetriever

    return type(dense) is VectorIndexRetriever and not dense._vector_store.stores_text


def _of_result(dense: VectorIndexRetriever, result: VectorStoreQueryResult) -> DenseHits:
    node_of = dense._index.index_struct.nodes_dict  # the store's id to the node's; FAISS has its own
    found = zip(result.ids or [], result.similarities or [], strict=True)
    scores: dict[str, float | None] = {node_of[place]: score for place, score in found if place in node_of}
    return DenseHits(list(scores), list(scores.values()), {})


def _of_nodes(hits: Sequence[NodeWithScore]) -> DenseHits:
    best: dict[str, NodeWithScore] = {}
    for hit in hits:
        best.setdefault(hit.node.node_id, hit)
    return DenseHits(list(best), [hit.score for hit in best.values()], {i: hit.node for i, hit in best.items()})


def similarities(scores: Sequence[float | None], store: Any) -> NDArray[np.float32]:
    """Scores of hits as cosines, whatever the store makes of them.

    LanceDB gives ``exp(-distance)``, FAISS with L2 the distance itself, both squared. For vectors of length 1 the
    cosine is 1 less half of it, so that a stack ranks alike over any store. Scores that rise from the best hit on are
    taken for distances. NaN, which a vector of zeros gets, is a cosine of 0.

    Args:
        scores: As the retriever gives them, best first.
        store: The vector store; None if it is not known.

    Raises:
        ConfigError: A hit has no score.
    """
    if any(score is None for score in scores):
        raise ConfigError(
            "The dense retriever gives hits without a score, which cannot be mixed; set `fusion='rrf'`, which only "
            "needs ranks."
        )
    values = np.array(scores, dtype=np.float64)
    zero = np.isnan(values)  # what stores make of a vector of zeros, whose cosine counts as 0 here
    sound = values[~zero]
    if _is_a(store, "LanceDBVectorStore"):
        values = -np.log(np.maximum(values, np.finfo(np.float64).tiny))
    if _is_a(store, "LanceDBVectorStore") or (len(sound) and sound[0] < sound[-1]):
        values = 1 - values / 2
    values[zero] = 0.0
    return values.astype(np.float32)


def _is_a(store: Any, name: str) -> bool:
    """Whether a store is of a class, without importing its package."""
    return any(cls.__name__ == name for cls in type(store).__mro__)
