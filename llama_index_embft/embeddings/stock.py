"""The names by which notebooks of llama-index-finetuning load a trained adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_index_embft.embeddings.loading import load_embed_model

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding


def AdapterEmbeddingModel(  # noqa: N802  # the stock class's name
    base_embed_model: BaseEmbedding,
    adapter_path: str,
    adapter_cls: Any = None,
    transform_query: bool = True,
    device: str | None = None,
) -> BaseEmbedding:
    """Load an adapter over its base model, trained here or by llama-index-finetuning: `load_embed_model`.

    Args:
        base_embed_model: The model that the adapter was trained on.
        adapter_path: Folder of the adapter.
        adapter_cls: The class of the adapter, or a module of it; the linear and the two-layer one are known without.
        transform_query: False gives the base model, as the stock class does for queries.
        device: Where the adapter computes.

    Raises:
        ModelError: There is no such adapter, or it belongs to another model.
    """
    if not transform_query:
        return base_embed_model
    module = adapter_cls if adapter_cls is not None and not isinstance(adapter_cls, type) else None
    return load_embed_model(adapter_path, base_embed_model=base_embed_model, adapter_model=module, device=device)


def LinearAdapterEmbeddingModel(  # noqa: N802  # the stock class's name
    base_embed_model: BaseEmbedding, adapter_path: str, transform_query: bool = True, device: str | None = None
) -> BaseEmbedding:
    """Load a linear adapter; see `AdapterEmbeddingModel`."""
    return AdapterEmbeddingModel(base_embed_model, adapter_path, None, transform_query, device)
