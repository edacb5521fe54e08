"""The names by which notebooks of llama-index-finetuning load a trained adapter."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from llama_index_embft._core.checks import first_line
from llama_index_embft.embeddings.adapter.embedding import AdapterEmbedding
from llama_index_embft.embeddings.adapter.modules import describe_module
from llama_index_embft.embeddings.describe import read_json
from llama_index_embft.embeddings.loading import load_embed_model
from llama_index_embft.errors import ConfigError

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from torch import nn


_STOCK: Final = {"LinearLayer": "linear", "TwoLayerNN": "mlp"}


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
        adapter_cls: The class of the adapter, which is built as the folder's ``config.json`` says, or a module of it;
            the linear and the two-layer one are known without.
        transform_query: False gives the base model, as the stock class does for queries.
        device: Where the adapter computes.

    Raises:
        ModelError: There is no such adapter, or it belongs to another model.
        ConfigError: The adapter is of another class, or the class cannot be built from what the folder says.
    """
    if not transform_query:
        return base_embed_model
    module = _built(adapter_cls, Path(adapter_path)) if isinstance(adapter_cls, type) else adapter_cls
    loaded = load_embed_model(adapter_path, base_embed_model=base_embed_model, adapter_model=module, device=device)
    if (
        isinstance(adapter_cls, type)
        and isinstance(loaded, AdapterEmbedding)
        and not is_of(loaded.adapter, adapter_cls)
    ):
        raise ConfigError(
            f"`adapter_cls` is {adapter_cls.__name__}, and {adapter_path} holds a {type(loaded.adapter).__name__}; "
            "leave it out."
        )
    return loaded


def is_of(adapter: nn.Module, adapter_cls: type) -> bool:
    """Whether a class is that of an adapter, or the stock package's name of it."""
    kind = _STOCK.get(adapter_cls.__name__) if _is_stock(adapter_cls) else None
    return isinstance(adapter, adapter_cls) or describe_module(adapter)["kind"] == kind


def _is_stock(adapter_cls: type) -> bool:
    return adapter_cls.__module__.startswith("llama_index.embeddings.adapter")


def _built(adapter_cls: type, folder: Path) -> nn.Module | None:
    """A user's class as the stock package builds it, from the sizes in ``config.json``; None where known anyway."""
    if _is_stock(adapter_cls) and adapter_cls.__name__ in _STOCK:
        return None
    config = read_json(folder / "config.json")
    sizes = {} if config.get("kind") == "custom" else config
    try:
        module: nn.Module = adapter_cls(**sizes)
    except Exception as err:  # a class of the user's own
        raise ConfigError(
            f"`adapter_cls` is {adapter_cls.__name__}, which cannot be built from {folder / 'config.json'} "
            f"({first_line(err)}); pass an instance: AdapterEmbeddingModel(base, folder, YourModule(...))."
        ) from err
    return module


def LinearAdapterEmbeddingModel(  # noqa: N802  # the stock class's name
    base_embed_model: BaseEmbedding, adapter_path: str, transform_query: bool = True, device: str | None = None
) -> BaseEmbedding:
    """Load a linear adapter; see `AdapterEmbeddingModel`."""
    return AdapterEmbeddingModel(base_embed_model, adapter_path, None, transform_query, device)
