"""Which model is this? A short hash that changes whenever the vectors may change."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from llama_index_embft.errors import ModelError

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from sentence_transformers import SentenceTransformer
    from torch import nn

# Fields of a LlamaIndex embedding that cannot change a vector, or must not be looked at (credentials).
_IGNORED_FIELDS: Final = frozenset(
    {
        "additional_kwargs",
        "api_key",
        "cache_folder",
        "callback_manager",
        "default_headers",
        "embed_batch_size",
        "embeddings_cache",
        "max_retries",
        "num_workers",
        "organization",
        "rate_limiter",
        "reuse_client",
        "show_progress_bar",
        "timeout",
        "token",
    }
)


def fingerprint_module(module: nn.Module) -> str:
    """Hash of the names, shapes and values of a torch module's parameters and buffers; 32 hex digits."""
    import torch

    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        if tensor.numel():
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def fingerprint_sentence_transformer(model: SentenceTransformer, *, normalize: bool) -> str:
    """Hash of a SentenceTransformer: weights, modules with their settings, vocabulary, maximum length.

    The prompts are not part of it: the cache keeps them as a part of the key, and a saved result keeps them beside it.

    Args:
        model: Any SentenceTransformer; about 0.1 s for 90 MB of weights.
        normalize: Whether vectors are scaled to length 1 after the model.
    """
    settings: dict[str, Any] = {"normalize": normalize, "max_seq_length": model.max_seq_length}
    module: Any
    for name, module in model.named_children():
        config = module.get_config_dict() if hasattr(module, "get_config_dict") else {}
        settings[name] = [type(module).__name__, config]
    tokenizer: Any = getattr(model, "tokenizer", None)
    vocabulary = sorted(tokenizer.get_vocab().items()) if tokenizer is not None else None
    text = json.dumps([settings, vocabulary], sort_keys=True, default=str)
    return _hash(text, fingerprint_module(model))


def fingerprint_embedding(model: BaseEmbedding) -> str | None:
    """Hash of what a LlamaIndex embedding says of itself: class, model name and its other settings, no credentials.

    What it wraps (torch modules, other embeddings) is hashed too. A local folder as `model_name` is hashed by the size
    and time of its files, so that a model trained again under the same name has another fingerprint.

    Returns:
        None where the model has no name: nothing then tells two models apart, and nothing may be cached.
    """
    if not model.model_name or model.model_name == "unknown":
        return None
    settings = {}
    for name in type(model).model_fields:
        value = getattr(model, name, None)
        secret = name in _IGNORED_FIELDS or name.endswith(("_key", "_token", "password", "_secret"))
        if not secret and isinstance(value, (str, int, float, bool, list, dict, type(None))):
            settings[name] = value
    files = []
    folder = Path(model.model_name)
    if folder.is_dir():
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                stat = file.stat()
                files.append([str(file.relative_to(folder)), stat.st_size, stat.st_mtime_ns])
    inner = _inner_fingerprints(model)
    if inner is None:
        return None
    return _hash(type(model).__module__, type(model).__qualname__, json.dumps([settings, files], default=str), *inner)


@dataclass(frozen=True)
class ModelIdentity:
    """Who made these vectors.

    Attributes:
        fingerprint: Hash of everything that decides them, the prompt included.
        name: Name for messages; it takes no part in comparisons, since a folder may be moved.
    """

    fingerprint: str
    name: str = field(compare=False)

    def __str__(self) -> str:
        return f"{self.name} (fingerprint {self.fingerprint[:12]})"


def identify(model: BaseEmbedding, side: Literal["query", "document"] = "document") -> ModelIdentity:
    """Who makes a model's document vectors, or its query vectors.

    Unlike the fingerprint in the cache's key this one includes the prompt, and it looks at one side alone: a query-side
    adapter leaves the documents to its base model, so its document identity is the base model's. An embedding that
    serves on another model's index (`DriftEmbedding`) says so by a method ``identity(side)``.

    Args:
        model: Any LlamaIndex embedding.
        side: ``"document"`` for what an index holds, ``"query"`` for what searches it.

    Raises:
        ModelError: Nothing tells the model from another one, since it has no name.
    """
    from llama_index_embft.embeddings.adapter.embedding import AdapterEmbedding
    from llama_index_embft.embeddings.encoding.encoder import as_encoder
    from llama_index_embft.embeddings.nudge import NudgedEmbedding

    own = getattr(model, "identity", None)
    if callable(own):
        identity = own(side)
        assert isinstance(identity, ModelIdentity)
        return identity
    if isinstance(model, (AdapterEmbedding, NudgedEmbedding)):
        base = identify(model.base_embed_model, side)
        if isinstance(model, AdapterEmbedding):
            if not (model.transform_queries if side == "query" else model.transform_documents):
                return base
            return ModelIdentity(
                _hash(base.fingerprint, fingerprint_module(model.adapter), str(model.normalize)), model.model_name
            )
        if side == "query":
            return base
        moved = sorted(model.moved.items())
        return ModelIdentity(_hash(base.fingerprint, "moved", json.dumps(moved)), model.model_name)
    backend = as_encoder(model, cache=None).backend
    if backend.fingerprint is None:
        raise ModelError(
            f"Nothing tells this {type(model).__name__} from another model; give it a `model_name` of its own."
        )
    return ModelIdentity(_hash(backend.fingerprint, backend.prompt(side)), model.model_name)


def _inner_fingerprints(model: BaseEmbedding) -> list[str] | None:
    """Hashes of the torch modules and embeddings that an embedding wraps; None where one of them has no name.

    Its fields do not show them, as in LlamaIndex's own `AdapterEmbeddingModel`, whose name is that of its base model.
    """
    from llama_index.core.base.embeddings.base import BaseEmbedding

    torch = sys.modules.get("torch")  # what holds a module has imported it
    found = []
    for name, value in sorted((model.__pydantic_private__ or {}).items()):
        if torch is not None and isinstance(value, torch.nn.Module):
            found.append(f"{name}={fingerprint_module(value)}")
        elif isinstance(value, BaseEmbedding):
            inner = fingerprint_embedding(value)
            if inner is None:
                return None
            found.append(f"{name}={inner}")
    return found


def _hash(*parts: str) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part.encode("utf-8", "surrogatepass"))
        digest.update(b"\0")
    return digest.hexdigest()
