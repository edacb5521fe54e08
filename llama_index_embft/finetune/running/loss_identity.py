"""What a loss computes, as a hash: a run that goes on from a checkpoint must go on with the same one."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from enum import Enum
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any, Final

from llama_index_embft.embeddings.fingerprint import fingerprint_module, fingerprint_sentence_transformer
from llama_index_embft.finetune.running.checkpoints import digest

if TYPE_CHECKING:
    import torch
    from sentence_transformers import CrossEncoder, SentenceTransformer

# Of no consequence for what is computed.
_NOT_DECIDING: Final = ("training", "mini_batch_size")


def loss_identity(loss: torch.nn.Module, model: SentenceTransformer | CrossEncoder) -> str:
    """Short hash of what a loss computes: its class, its numbers and functions, weights and models of its own.

    The mini-batch size is left out, which changes no result.

    Args:
        loss: The loss.
        model: What is trained; every other model in the loss is a part of it.
    """
    return digest(_described(loss, model))


def model_identity(model: SentenceTransformer) -> str:
    """Hash of what decides its vectors; of the weights alone where the rest of the model is not known to us."""
    return fingerprint_sentence_transformer(model, normalize=True) or fingerprint_module(model)


def _described(module: torch.nn.Module, model: SentenceTransformer | CrossEncoder) -> dict[str, Any]:
    from sentence_transformers import SentenceTransformer

    plain = {
        name: _plain(value)
        for name, value in vars(module).items()
        if not name.startswith("_") and name not in _NOT_DECIDING and value is not model
    }
    parts: dict[str, Any] = {}
    for name, part in module.named_children():
        if part is model:
            parts[name] = None
        elif isinstance(part, SentenceTransformer):
            parts[name] = model_identity(part)
        else:
            parts[name] = _described(part, model)
    own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    weights = {name: _hash_of(weight) for name, weight in own}
    return {"class": _name_of(type(module)), "plain": plain, "weights": weights, "parts": parts}


def _plain(value: Any) -> Any:
    """A value as JSON types; of an object that is none of the known kinds, its class."""
    import torch

    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Enum):
        return str(value)
    if isinstance(value, torch.Tensor):
        return _hash_of(value)
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if isinstance(value, functools.partial):
        return [_plain(value.func), _plain(value.args), _plain(value.keywords)]
    if isinstance(value, FunctionType):
        held = [cell.cell_contents for cell in value.__closure__ or ()]
        return [
            value.__qualname__,
            _code_of(value.__code__),
            # A function in a closure may hold this very one: its name is enough.
            [_name_of(part) if isinstance(part, FunctionType) else _plain(part) for part in held],
            _plain(value.__defaults__),
        ]
    return _name_of(value if hasattr(value, "__qualname__") else type(value))


def _code_of(code: CodeType) -> list[Any]:
    constants = [_code_of(part) if isinstance(part, CodeType) else _plain(part) for part in code.co_consts]
    return [code.co_code.hex(), list(code.co_names), constants]


def _name_of(value: Any) -> str:
    return f"{getattr(value, '__module__', '')}.{value.__qualname__}"


def _hash_of(tensor: torch.Tensor) -> str:
    plain = tensor.detach().cpu().float().contiguous()
    return f"{tuple(plain.shape)} {hashlib.blake2b(plain.numpy().tobytes(), digest_size=8).hexdigest()}"
