"""Folders of adapters: ours (safetensors and JSON), and those of llama-index-embeddings-adapter, read and written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from llama_index_embft._core.checks import first_line
from llama_index_embft._core.files import write_folder_atomically
from llama_index_embft.embeddings.adapter.modules import ADAPTER_FORMS, build_module, describe_module
from llama_index_embft.embeddings.vector_map import (
    CONFIG_FILE,
    DRIFT,
    WEIGHTS_FILE,
    map_kind,
    read_config,
    read_tensors,
    write_json,
    write_map,
)
from llama_index_embft.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from torch import nn

# What llama-index-embeddings-adapter writes: a pickled state dict, which is read with weights_only=True alone.
FOREIGN_WEIGHTS_FILE: Final = "pytorch_model.bin"
# What stands in the configuration of a whole model or of one of its modules, and in no adapter's.
_NO_ADAPTER: Final = frozenset({"model_type", "architectures", "auto_map", "vocab_size", "activation_function"})


def holds_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter, ours or one of llama-index-embeddings-adapter."""
    return map_kind(folder) not in (None, DRIFT) or _foreign_config(folder) is not None


def save_adapter(
    folder: str | Path,
    adapter: nn.Module,
    *,
    base: dict[str, Any],
    base_fingerprint: str | None,
    record: dict[str, Any],
    transform_queries: bool = True,
    transform_documents: bool = False,
    normalize: bool = False,
) -> None:
    """Save an adapter as safetensors and JSON; the folder appears whole or not at all.

    Args:
        folder: Where to save; a saved result that is there is replaced.
        adapter: The module.
        base: What `embeddings.describe` needs to load the base model again.
        base_fingerprint: Of the base model, checked at loading.
        record: What goes into ``embft.json``: data hash, metrics, versions.
        transform_queries: See `AdapterEmbedding`.
        transform_documents: See `AdapterEmbedding`.
        normalize: Whether the base model's vectors have length 1, and the adapter's are to have it too.

    Raises:
        OutputError: The folder cannot be written.
    """
    from safetensors.torch import save_file

    config: dict[str, Any] = {
        **describe_module(adapter),
        "transform_queries": transform_queries,
        "transform_documents": transform_documents,
        "normalize": normalize,
        "base": base,
        "base_fingerprint": base_fingerprint,
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in adapter.state_dict().items()}
    write_map(folder, tensors, config, record, save_file=save_file)


def save_for_llama_index(folder: str | Path, adapter: nn.Module) -> None:
    """Write an adapter that llama-index-embeddings-adapter's ``AdapterEmbeddingModel`` loads.

    Linear and low-rank adapters become its ``LinearLayer``, the default there; a residual MLP its ``TwoLayerNN``, to be
    named when it is loaded (``adapter_cls=TwoLayerNN``).

    Args:
        folder: Where to save; an earlier result is replaced.
        adapter: The module; it must apply to queries only, since that class knows nothing else.

    Raises:
        ConfigError: That package has no such adapter.
        OutputError: The folder cannot be written.
    """
    import torch

    from llama_index_embft.embeddings.adapter.layers import LowRankAdapter

    module = adapter.as_linear() if isinstance(adapter, LowRankAdapter) else adapter
    described = describe_module(module)
    state = {name: tensor.detach().cpu() for name, tensor in module.state_dict().items()}
    if described["kind"] == "linear":
        if described["in_features"] != described["out_features"]:
            raise ConfigError(
                f"The adapter turns {described['in_features']} dimensions into {described['out_features']}, which "
                "llama-index-embeddings-adapter cannot load; train it without output_dim."
            )
        config = {name: described[name] for name in ("in_features", "out_features", "bias")}
        state = {f"linear.{name}": tensor for name, tensor in state.items()}
    elif described["kind"] == "mlp":
        config = {name: described[name] for name in ("in_features", "hidden_features", "out_features", "add_residual")}
        config |= {"bias": True, "activation_fn_str": described["activation"]}
    else:
        raise ConfigError(
            f"The adapter is a module of your own ({described['module']}), which llama-index-embeddings-adapter cannot "
            "load; derive it from that package's BaseAdapter and call its save()."
        )
    with write_folder_atomically(folder) as temporary:
        torch.save(state, str(Path(temporary) / FOREIGN_WEIGHTS_FILE))
        write_json(Path(temporary) / CONFIG_FILE, config)
        # Marks the folder as a result that may be replaced.
        write_json(Path(temporary) / "embft.json", {"format": 1, "kind": "llama-index-embeddings-adapter"})


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """Read and check ``config.json`` of a saved adapter; a foreign one comes back in our words.

    Raises:
        ModelError: There is no adapter in the folder, or its configuration is damaged.
    """
    foreign = None if (folder / WEIGHTS_FILE).is_file() else _foreign_config(folder)
    if foreign is not None:
        return foreign
    config = read_config(folder, "saved adapter")
    if config["kind"] not in (*ADAPTER_FORMS, "custom") or not {"transform_queries", "transform_documents"} <= set(
        config
    ):
        raise ModelError(
            f"{folder / CONFIG_FILE} is of the kind {config['kind']!r} and no adapter's; load the folder with "
            "load_embed_model, or train the adapter again."
        )
    result: dict[str, Any] = {"normalize": False, "base": {}, "base_fingerprint": None, **config}
    sides = (result[name] for name in ("transform_queries", "transform_documents", "normalize"))
    bases = isinstance(result["base"], dict) and isinstance(result["base_fingerprint"], str | None)
    if not all(isinstance(side, bool) for side in sides) or not bases:
        raise ModelError(
            f"{folder / CONFIG_FILE} is damaged (its base model or sides); train or copy the adapter again."
        )
    return result


def load_adapter_module(folder: Path, config: dict[str, Any], module: nn.Module | None) -> nn.Module:
    """Rebuild the module of a saved adapter and load its weights.

    Raises:
        ModelError: The weights are damaged or do not fit the module.
        ConfigError: The module is the user's own and was not given.
    """
    foreign = config.get("format") == "llama-index-embeddings-adapter"
    if foreign and module is not None:  # a class that is derived from that package's, with weights of its own names
        config = {**config, "kind": "custom"}
    if config["kind"] != "custom":
        try:
            module = build_module(config)
        except (KeyError, TypeError, ValueError, RuntimeError) as err:
            raise ModelError(
                f"{folder / CONFIG_FILE} is damaged ({first_line(err)}); train or copy the adapter again."
            ) from err
    elif module is None:
        raise ConfigError(
            f"The adapter in {folder} is a module of your own ({config.get('module')}); "
            "pass an instance of it: load_embed_model(folder, adapter_model=YourModule(...))."
        )
    from safetensors.torch import load_file

    file = folder / (FOREIGN_WEIGHTS_FILE if foreign else WEIGHTS_FILE)
    kind = config["kind"]
    state = read_tensors(file, (lambda name: _foreign_weights(name, kind)) if foreign else load_file, "adapter")
    module.float()  # vectors are, whatever precision the module was made in
    try:
        module.load_state_dict(state)
    except RuntimeError as err:
        raise ModelError(
            f"The weights in {file} cannot be used ({first_line(err)}); "
            "the file is cut short or belongs to another adapter: copy or train it again."
        ) from err
    return module


def _foreign_weights(file: str, kind: str) -> dict[str, Any]:
    import torch

    state = torch.load(file, map_location="cpu", weights_only=True)
    if kind == "linear":
        return {name.removeprefix("linear."): tensor for name, tensor in state.items()}
    return dict(state)


def _foreign_config(folder: Path) -> dict[str, Any] | None:
    """``config.json`` of llama-index-embeddings-adapter in our words; None where the folder is something else."""
    if not (folder / FOREIGN_WEIGHTS_FILE).is_file() or not (folder / CONFIG_FILE).is_file():
        return None
    if (folder / "modules.json").is_file():  # a SentenceTransformer
        return None
    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None  # whatever loads the folder next names the file
    if not isinstance(config, dict) or _NO_ADAPTER & set(config):
        return None
    sizes = {name: config[name] for name in ("in_features", "out_features") if name in config}
    if not sizes.keys() >= {"in_features", "out_features"}:
        sizes |= {"kind": "custom", "module": "derived from llama-index-embeddings-adapter's BaseAdapter"}
    elif "hidden_features" in config:
        sizes |= {"kind": "mlp", "hidden_features": config["hidden_features"]}
        sizes |= {"activation": config.get("activation_fn_str", "relu")}
        sizes |= {"add_residual": config.get("add_residual", False)}
    else:
        sizes |= {"kind": "linear", "bias": config.get("bias", False)}
    return {
        "format": "llama-index-embeddings-adapter",
        **sizes,
        "transform_queries": True,
        "transform_documents": False,
        "normalize": False,
        "base": {},
        "base_fingerprint": None,
    }
