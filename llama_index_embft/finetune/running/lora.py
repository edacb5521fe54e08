"""LoRA: train small matrices beside the frozen weights, and add them up at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_index_embft._core.optional import require
from llama_index_embft.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sentence_transformers import CrossEncoder, SentenceTransformer
    from torch import nn

    from llama_index_embft.finetune.running.settings import LoraSettings


def add_lora(
    model: SentenceTransformer | CrossEncoder, settings: LoraSettings, seed: int = 0, *, whole: Sequence[str] = ()
) -> int:
    """Freeze the model and put trainable low-rank matrices beside its linear layers; the outputs stay as they are.

    Args:
        model: Changed in place.
        settings: Rank, scale, dropout and layers.
        seed: Of the matrices' first values.
        whole: Names, or ends of names, of layers that are trained whole and get no matrices: a scoring layer that knows
            nothing yet. It may also stand after the transformer.

    Returns:
        Number of trainable parameters.

    Raises:
        ConfigError: The model has no linear layer of a name in `targets`.
        MissingExtraError: peft is not installed.
    """
    import torch

    peft = require("peft", feature="method='lora'")
    module = _backbone(model)
    names = _linear_names(module)
    # It may share its weights with the token embeddings, to which the sum of its matrices must not be added.
    words = getattr(module, "get_output_embeddings", lambda: None)()
    names = [name for name in names if words is None or module.get_submodule(name) is not words]
    kept = [name for name in names if any(_ends_with(name, one) for one in whole)]
    targets = list(settings.targets or [name for name in names if name not in kept])
    unknown = [target for target in targets if not any(_ends_with(name, target) for name in names)]
    if unknown:
        short = sorted({name.rpartition(".")[2] for name in names})
        raise ConfigError(
            f"LoRA cannot adapt {', '.join(map(repr, unknown))}: the model has no linear layer of that name; "
            f"its linear layers are {', '.join(short) or 'none at all'}."
        )
    config = peft.LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=targets,
    )
    model.requires_grad_(False)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        peft.inject_adapter_in_model(config, module)
    for name in kept:
        module.get_submodule(name).requires_grad_(True)
    if whole:
        for later in list(model)[1:]:
            later.requires_grad_(True)
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def merge_lora(model: SentenceTransformer | CrossEncoder) -> None:
    """Add the matrices to the weights and remove them: what stays is the plain model, all of it trainable again."""
    _merge(_backbone(model))
    model.requires_grad_(True)


def merge_own_adapters(model: SentenceTransformer) -> None:
    """Do so with the matrices that a base model was saved with (``adapter_config.json``).

    They come frozen, with all weights below them, and transformers would save them alone.
    """
    transformers: list[Any] = [getattr(module, "auto_model", None) for module in model.modules()]
    loaded = [transformer for transformer in transformers if getattr(transformer, "_hf_peft_config_loaded", False)]
    for transformer in loaded:
        _merge(transformer)
        transformer._hf_peft_config_loaded = False
        # How the adapter's names were turned into the model's: saved by it, weights would have names nobody can load.
        transformer.__dict__.pop("_weight_conversions", None)
    if loaded:
        model.requires_grad_(True)


def _merge(module: Any) -> None:
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, layer in list(module.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            layer.merge()
            parent, _, child = name.rpartition(".")
            setattr(module.get_submodule(parent), child, layer.get_base_layer())
    module.__dict__.pop("peft_config", None)


def _backbone(model: SentenceTransformer | CrossEncoder) -> Any:
    module = getattr(model[0], "auto_model", None)
    if module is None:
        raise ConfigError(
            f"method='lora' adapts a transformer, and this model begins with {type(model[0]).__name__}; use 'full'."
        )
    return module


def _linear_names(module: nn.Module) -> list[str]:
    from torch import nn

    return [name for name, layer in module.named_modules() if isinstance(layer, nn.Linear)]


def _ends_with(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")
