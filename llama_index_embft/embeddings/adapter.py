"""Adapters: small modules that turn vectors of a frozen embedding model, and the `BaseEmbedding` that carries one.

A query-side adapter leaves the document vectors alone, so it works on an index that already exists.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import Field, PrivateAttr

from llama_index_embft._files import write_folder_atomically
from llama_index_embft.embeddings.encode import Backend, Encoder, TextKind, as_encoder
from llama_index_embft.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

WEIGHTS_FILE: Final = "adapter.safetensors"
CONFIG_FILE: Final = "config.json"
_ROWS_PER_BLOCK: Final = 65_536


def linear_adapter(dim: int, *, bias: bool = False) -> nn.Linear:
    """A square linear layer that starts as the identity: before training it changes nothing.

    Args:
        dim: Dimension of the embeddings.
        bias: Add a vector, zero at first.
    """
    import torch

    layer = torch.nn.Linear(dim, dim, bias=bias)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(dim))
        if bias:
            layer.bias.zero_()
    return layer


def apply_adapter(adapter: nn.Module, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Send vectors of shape ``(n, dim)`` through an adapter, in blocks of 65,536 rows; returns ``(n, dim_out)``."""
    import torch

    device = next(adapter.parameters()).device
    adapter.eval()
    blocks = []
    with torch.inference_mode():
        for start in range(0, len(vectors), _ROWS_PER_BLOCK):
            block = torch.as_tensor(vectors[start : start + _ROWS_PER_BLOCK], dtype=torch.float32, device=device)
            blocks.append(adapter(block).float().cpu().numpy())
    result: NDArray[np.float32] = np.concatenate(blocks)
    return result


class AdapterEmbedding(BaseEmbedding):
    """An embedding model followed by a trained adapter.

    Args:
        base_embed_model: The model whose vectors the adapter was trained on.
        adapter_path: Folder with ``adapter.safetensors`` and ``config.json``.
        adapter_model: The module to load the weights into; needed only for modules of your own, which the folder
            cannot rebuild.
        force: Accept another base model than the adapter was trained on.
        device: Torch device of the adapter; it is small, and the CPU is quick enough.

    Raises:
        ModelError: The folder holds no adapter, or one that was trained on another base model.
    """

    adapter_path: str = Field(description="Folder of the saved adapter.")
    transform_queries: bool = Field(default=True, description="Whether query vectors go through the adapter.")
    transform_documents: bool = Field(default=False, description="Whether document vectors go through the adapter.")
    _base: BaseEmbedding = PrivateAttr()
    _adapter: Any = PrivateAttr()

    def __init__(
        self,
        base_embed_model: BaseEmbedding,
        adapter_path: str | Path,
        adapter_model: nn.Module | None = None,
        *,
        force: bool = False,
        device: str = "cpu",
        **kwargs: Any,
    ) -> None:
        folder = Path(adapter_path)
        config = read_adapter_config(folder)
        expected = config.get("base_fingerprint")
        if expected and not force:
            check_base_fingerprint(base_embed_model, expected, folder)
        kwargs.setdefault("embed_batch_size", base_embed_model.embed_batch_size)
        super().__init__(
            model_name=f"{base_embed_model.model_name}+adapter",
            adapter_path=str(folder),
            transform_queries=config["transform_queries"],
            transform_documents=config["transform_documents"],
            **kwargs,
        )
        self._base = base_embed_model
        self._adapter = load_adapter_module(folder, config, adapter_model).to(device).eval()

    @classmethod
    def class_name(cls) -> str:
        """Name for LlamaIndex's serialization."""
        return "AdapterEmbedding"

    @property
    def base_embed_model(self) -> BaseEmbedding:
        """The model below the adapter."""
        return self._base

    @property
    def adapter(self) -> nn.Module:
        """The trained module."""
        module: nn.Module = self._adapter
        return module

    def _queries(self, vectors: list[list[float]]) -> list[list[float]]:
        return self._apply(vectors) if self.transform_queries else vectors

    def _documents(self, vectors: list[list[float]]) -> list[list[float]]:
        return self._apply(vectors) if self.transform_documents else vectors

    def _apply(self, vectors: list[list[float]]) -> list[list[float]]:
        result: list[list[float]] = apply_adapter(self._adapter, np.asarray(vectors, dtype=np.float32)).tolist()
        return result

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._queries([self._base.get_query_embedding(query)])[0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        vector = await self._base.aget_query_embedding(query)
        return (await asyncio.to_thread(self._queries, [vector]))[0]

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._documents([self._base.get_text_embedding(text)])[0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        vector = await self._base.aget_text_embedding(text)
        return (await asyncio.to_thread(self._documents, [vector]))[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._documents(self._base.get_text_embedding_batch(texts))

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        vectors = await self._base.aget_text_embedding_batch(texts)
        return await asyncio.to_thread(self._documents, vectors)


class AdapterBackend(Backend):
    """An `AdapterEmbedding` in batches: cached vectors of the base model, then the adapter."""

    def __init__(self, model: AdapterEmbedding, base: Encoder) -> None:
        self.name = model.model_name
        self.model = model
        self.base = base

    @property
    def fingerprint(self) -> str | None:
        """None: the base's vectors are cached already; keeping the adapter's too would only fill the disk."""
        return None

    def prompt(self, kind: TextKind) -> str:
        """See `Backend.prompt`."""
        return self.base.backend.prompt(kind)

    def embed(self, texts: list[str], kind: TextKind) -> NDArray[np.float32]:
        """See `Backend.embed`."""
        if kind == "query":
            vectors = self.base.encode_queries(texts)
            return apply_adapter(self.model.adapter, vectors) if self.model.transform_queries else vectors
        vectors = self.base.encode_documents(texts)
        return apply_adapter(self.model.adapter, vectors) if self.model.transform_documents else vectors


def save_adapter(
    folder: str | Path,
    adapter: nn.Module,
    *,
    base: dict[str, Any],
    base_fingerprint: str | None,
    record: dict[str, Any],
    transform_queries: bool = True,
    transform_documents: bool = False,
) -> None:
    """Save an adapter as safetensors and JSON; the folder appears whole or not at all.

    Args:
        folder: Where to save; a saved result that is there is replaced.
        adapter: The module.
        base: What `embeddings.loading` needs to load the base model again.
        base_fingerprint: Of the base model, checked at loading.
        record: What goes into ``embft.json``: data hash, metrics, versions.
        transform_queries: See `AdapterEmbedding`.
        transform_documents: See `AdapterEmbedding`.

    Raises:
        OutputError: The folder cannot be written.
    """
    from safetensors.torch import save_file
    from torch import nn

    config: dict[str, Any] = {
        "format": "llama-index-embft adapter",
        "kind": "linear" if isinstance(adapter, nn.Linear) else "custom",
        "transform_queries": transform_queries,
        "transform_documents": transform_documents,
        "base": base,
        "base_fingerprint": base_fingerprint,
    }
    if isinstance(adapter, nn.Linear):
        config |= {"in_features": adapter.in_features, "out_features": adapter.out_features}
        config["bias"] = adapter.bias is not None
    else:
        config["module"] = f"{type(adapter).__module__}.{type(adapter).__qualname__}"
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in adapter.state_dict().items()}
    with write_folder_atomically(folder) as temporary:
        save_file(tensors, str(Path(temporary) / WEIGHTS_FILE))
        (Path(temporary) / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        (Path(temporary) / "embft.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """Read and check ``config.json`` of a saved adapter.

    Raises:
        ModelError: There is no adapter in the folder, or its configuration is damaged.
    """
    if not (folder / WEIGHTS_FILE).is_file() or not (folder / CONFIG_FILE).is_file():
        raise ModelError(f"{folder} holds no saved adapter ({WEIGHTS_FILE} and {CONFIG_FILE}); check the path.")
    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        complete = config["kind"] in ("linear", "custom") and {"transform_queries", "transform_documents"} <= set(
            config
        )
    except (ValueError, KeyError, TypeError) as err:
        raise ModelError(f"{folder / CONFIG_FILE} is damaged ({err}); train or copy the adapter again.") from err
    if not complete:
        raise ModelError(f"{folder / CONFIG_FILE} is not of this version's format; train the adapter again.")
    result: dict[str, Any] = config
    return result


def load_adapter_module(folder: Path, config: dict[str, Any], module: nn.Module | None) -> nn.Module:
    """Rebuild the module of a saved adapter and load its weights.

    Raises:
        ModelError: The weights are damaged or do not fit the module.
        ConfigError: The module is the user's own and was not given.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file
    from torch import nn

    if config["kind"] == "linear":
        module = nn.Linear(config["in_features"], config["out_features"], bias=config["bias"])
    elif module is None:
        raise ConfigError(
            f"The adapter in {folder} is a module of your own ({config.get('module')}); "
            "pass an instance of it: load_embed_model(folder, adapter_model=YourModule(...))."
        )
    try:
        module.load_state_dict(load_file(str(folder / WEIGHTS_FILE)))
    except (SafetensorError, RuntimeError, OSError) as err:
        reason = str(err).splitlines()[0]
        raise ModelError(
            f"The weights in {folder / WEIGHTS_FILE} cannot be used ({reason}); "
            "the file is cut short or belongs to another adapter: copy or train it again."
        ) from err
    return module


def check_base_fingerprint(base: BaseEmbedding, expected: str, folder: Path) -> None:
    """Make sure that an adapter sits on the model whose vectors it was trained on.

    Raises:
        ModelError: It does not.
    """
    actual = as_encoder(base, cache=None).fingerprint
    if actual is not None and actual != expected:
        raise ModelError(
            f"The adapter in {folder} was trained on another base model (fingerprint {expected[:12]}) than "
            f"{base.model_name} ({actual[:12]}); load the model it was trained on, or pass force=True."
        )
