"""The dense part of a stack: any retriever of LlamaIndex, asked for as many hits as are fused."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from llama_index_embft.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llama_index.core import VectorStoreIndex
    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.indices.vector_store.retrievers import VectorIndexRetriever
    from llama_index.core.schema import NodeWithScore
    from llama_index.core.vector_stores import MetadataFilters
    from numpy.typing import NDArray


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
            "The dense retriever searches only some documents or nodes of its index, which the part by words cannot "
            "follow; give the index, and choose by `filters=MetadataFilters(...)`."
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


def similarities(hits: Sequence[NodeWithScore], store: Any) -> NDArray[np.float32]:
    """Scores of hits: higher is better, and even steps are even differences, whatever the store makes of them.

    LanceDB gives the exponential of the negative distance, and FAISS with L2 the distance itself. For vectors of length
    1 both become a linear function of the cosine, so that a stack ranks alike over any store.

    Args:
        hits: As the retriever returns them, best first.
        store: The vector store; None if it is not known.

    Raises:
        ConfigError: A hit has no score.
    """
    scores = [math.nan if hit.score is None else hit.score for hit in hits]
    if any(map(math.isnan, scores)):
        raise ConfigError(
            "The dense retriever gives hits without a score, which cannot be mixed; set `fusion='rrf'`, which looks at "
            "ranks alone."
        )
    values = np.array(scores, dtype=np.float64)
    if _is_a(store, "LanceDBVectorStore"):
        values = np.log(np.maximum(values, np.finfo(np.float64).tiny))
    if len(values) and values[0] < values[-1]:  # the best comes first, so these are distances
        values = -values
    return values.astype(np.float32)


def _is_a(store: Any, name: str) -> bool:
    """Whether a store is of a class, without importing its package."""
    return any(cls.__name__ == name for cls in type(store).__mro__)
