"""Hashes of what decides a model's vectors: weights, configurations, tokenizers, graphs."""

from __future__ import annotations

import glob
import hashlib
import inspect
import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sentence_transformers import SentenceTransformer
    from torch import nn

# Entries of a transformer's configuration that no vector depends on. Kernels of attention differ in rounding only, and
# the data type is that of the weights.
_NOT_DECIDING: Final = frozenset(
    {
        "_attn_implementation", "_attn_implementation_internal", "_commit_hash", "_name_or_path", "architectures",
        "attn_implementation", "auto_map", "dtype", "id2label", "initializer_range", "label2id", "output_attentions",
        "output_hidden_states", "problem_type", "return_dict", "torch_dtype", "torchscript", "transformers_version",
        "use_cache",
    }
)  # fmt: skip
# What says the same again in other words, and changes with the version of sentence-transformers.
_MODULE_NOT_DECIDING: Final = frozenset({"modality_config", "module_output_name", "transformer_task"})
# What a class of a library does is a matter of its name and configuration, and a new version changes its code only.
_LIBRARIES: Final = frozenset(
    {"abc", "builtins", "sentence_transformers", "torch", "transformers", "transformers_modules", "typing"}
)
_INSTALLED: Final = frozenset({"site-packages", "dist-packages"})
_FIELD: Final = (bool, int, float, str, tuple, list)
_GRAPH_FILES: Final = (".onnx*", ".xml", ".bin")
_NO_LIMIT: Final = 1_000_000
_BLOCK: Final = 1 << 22


def hash_parts(*parts: str) -> str:
    """Hash of some texts, which cannot be shifted from one into the next; 32 hex digits."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


def hash_files(files: Iterable[Path]) -> str:
    """Hash of the names and contents of files; 32 hex digits."""
    digest = hashlib.blake2b(digest_size=16)
    for file in files:
        digest.update(f"{file.name}\n{file.stat().st_size}\n".encode())
        with file.open("rb") as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
    return digest.hexdigest()


def fingerprint_module(module: nn.Module) -> str:
    """Hash of the names, shapes, types and values of a torch module's parameters and buffers; 32 hex digits."""
    import torch

    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        if tensor.numel():
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def state_of_weights(model: nn.Module) -> tuple[int, bytes]:
    """What changes when a model is trained, without a look at all of its weights.

    torch counts the changes of a tensor, but not those that fused optimizers make; so one value of each is taken too.
    """
    import torch

    changes = 0
    last: dict[torch.device, list[torch.Tensor]] = {}  # a large model may lie on several devices, or on none yet
    for weight in model.parameters():
        changes += 0 if weight.is_inference() else weight._version
        if weight.numel() and not weight.is_meta:
            last.setdefault(weight.device, []).append(weight.detach()[(-1,) * weight.ndim].float())
    return changes, b"".join(torch.stack(some).cpu().numpy().tobytes() for some in last.values())


def fingerprint_sentence_transformer(model: SentenceTransformer, *, normalize: bool) -> str | None:
    """Hash of all that decides a SentenceTransformer's vectors but the prompt.

    That is: weights and their precision, the configurations of transformers and modules (as far as they differ from the
    defaults, so that a new default changes nothing), tokenizers whole, maximum length, pooling, cut dimensions.

    Args:
        model: Any SentenceTransformer or CrossEncoder; about 0.1 s for 90 MB of weights.
        normalize: Whether vectors are scaled to length 1 after the model.

    Returns:
        32 hex digits; None where a part runs outside of torch and its files cannot be found, or where it is of a class
        whose code cannot be read.
    """
    settings: list[Any] = [normalize, model.max_seq_length, getattr(model, "truncate_dim", None)]
    tokenizers: dict[int, str] = {}
    for name, module in model.named_modules():
        described: dict[str, Any] = {}
        if hasattr(module, "get_config_dict"):
            described = {key: value for key, value in module.get_config_dict().items() if value}
            described = {key: value for key, value in described.items() if key not in _MODULE_NOT_DECIDING}
        length = getattr(module, "max_seq_length", None)
        inner = getattr(module, "auto_model", None)
        if inner is not None:
            described["config"] = _config(getattr(inner, "config", None))
            described["peft"] = _config(getattr(inner, "peft_config", None))
            graph = _graph(inner)
            if graph is None:
                return None
            described["graph"] = graph
        tokenizer = getattr(module, "tokenizer", None)
        if tokenizer is not None:
            if id(tokenizer) not in tokenizers:  # modules share one, and a large vocabulary takes a while
                tokenizers[id(tokenizer)] = _tokenizer(tokenizer)
            described["tokenizer"] = tokenizers[id(tokenizer)]
        kind: Any = type(module)
        own = _own_code(kind)
        if own is None:
            return None
        if own:
            described["code"] = own
            # Of a part without a configuration these are all that says what it does.
            if name.isdigit() and not hasattr(module, "get_config_dict"):
                described["fields"] = {key: value for key, value in vars(module).items() if isinstance(value, _FIELD)}
        if described:
            settings.append([name, type(module).__name__, length, described])
    return hash_parts(json.dumps(settings, sort_keys=True, default=str), fingerprint_module(model))


@cache
def _own_code(kind: type) -> str | None:
    """The code of a class of the user's own, which may be edited; empty for those of libraries, None: unreadable."""
    own = [cls for cls in kind.__mro__[:-1] if cls.__module__.partition(".")[0] not in _LIBRARIES]
    try:
        own = [cls for cls in own if not _INSTALLED & set(Path(inspect.getfile(cls)).parts)]
        return hash_parts(*map(inspect.getsource, own)) if own else ""
    except (OSError, TypeError):
        return None


def _config(config: Any) -> Any:
    """A configuration as far as it differs from the defaults of its class."""
    if isinstance(config, dict):
        deciding = {str(key): value for key, value in config.items() if key not in _NOT_DECIDING}
        return {key: _config(value) for key, value in deciding.items() if "dropout" not in key}
    if hasattr(config, "to_diff_dict"):
        return _config(config.to_diff_dict())
    return _config(config.to_dict()) if hasattr(config, "to_dict") else config


def _graph(inner: Any) -> str | None:
    """Hash of the files of a model that ONNX Runtime or OpenVINO runs; empty for torch, None where none is found."""
    from torch import nn

    if isinstance(inner, nn.Module):
        return ""
    holders = [inner, getattr(inner, "session", None), getattr(inner, "model", None)]
    places = [getattr(holder, name, None) for holder in holders for name in ("path", "model_path", "_model_path")]
    places.append(getattr(inner, "model_save_dir", None))
    for place in places:
        if not isinstance(place, str | Path) or not Path(place).exists():
            continue
        path = Path(place)
        folder = path if path.is_dir() else path.parent
        # A folder may hold a model several times, in other precisions: of a file, it and its weights beside it count.
        name = "*" if path.is_dir() else glob.escape(path.stem)
        files = sorted(file for kind in _GRAPH_FILES for file in folder.glob(name + kind))
        if len({file.stem for file in files if file.suffix in (".onnx", ".xml")}) == 1:
            return hash_files(files)
    return None


def _tokenizer(tokenizer: Any) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if hasattr(backend, "to_str"):
        state = json.loads(backend.to_str())
        # What the last call happened to use; what decides it stands beside.
        state.pop("padding", None)
        state.pop("truncation", None)
    else:
        vocabulary = tokenizer.get_vocab() if hasattr(tokenizer, "get_vocab") else []
        words = sorted(vocabulary.items()) if isinstance(vocabulary, dict) else list(vocabulary)
        # sentence-transformers' own tokenizers of words keep what else decides in plain fields.
        plain = {name: value for name, value in vars(tokenizer).items() if isinstance(value, (bool, int, str))}
        stop_words = sorted(map(str, getattr(tokenizer, "stop_words", None) or ()))
        state = [type(tokenizer).__name__, words, plain, stop_words]
    sides = [getattr(tokenizer, name, None) for name in ("padding_side", "truncation_side", "pad_token")]
    limit = getattr(tokenizer, "model_max_length", None)
    limit = limit if isinstance(limit, int) and limit < _NO_LIMIT else None
    return hash_parts(json.dumps([state, sides, limit], sort_keys=True, default=str))
