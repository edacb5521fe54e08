"""Dropout during training: which of it is worth its time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

_IN_ATTENTION: Final = ("attention_dropout", "dropout_prob")
_HIDDEN: Final = ("dropout", "activation_dropout", "hidden_dropout")


def dropout_off(model: nn.Module, *, attention: bool, hidden: bool) -> Callable[[], None]:
    """Turn dropout off; returns what turns it on again.

    Args:
        model: Changed in place.
        attention: Off inside attention. PyTorch's fused attention for CPUs has no dropout: with it, the matrix of all
            pairs of tokens is built and kept.
        hidden: Off everywhere else but in the matrices of LoRA, which have a rate of their own.
    """
    changed: list[tuple[Any, str, float]] = []
    if attention:
        changed += _attention_rates(model)
    if hidden:
        changed += _hidden_rates(model)
    for module, name, _ in changed:
        setattr(module, name, 0.0)

    def restore() -> None:
        for module, name, value in changed:
            setattr(module, name, value)

    return restore


def _attention_rates(model: nn.Module) -> list[tuple[Any, str, float]]:
    import torch

    found: list[tuple[Any, str, float]] = []
    for module in model.modules():
        if "Attention" not in type(module).__name__:
            continue
        inner = getattr(module, "dropout", None)
        if "SelfAttention" in type(module).__name__ and isinstance(inner, torch.nn.Dropout):
            found.append((inner, "p", inner.p))
        found += _plain_rates(module, _IN_ATTENTION)
    return found


def _hidden_rates(model: nn.Module) -> list[tuple[Any, str, float]]:
    import torch

    inside = {
        id(part)
        for module in model.modules()
        if "SelfAttention" in type(module).__name__
        for part in (module, *module.children())
    }
    found: list[tuple[Any, str, float]] = []
    for path, module in model.named_modules():
        if id(module) in inside or "lora_" in path:
            continue
        if isinstance(module, torch.nn.Dropout):
            found.append((module, "p", module.p))
        elif "Attention" not in type(module).__name__:
            found += _plain_rates(module, _HIDDEN)
    return found


def _plain_rates(module: Any, names: tuple[str, ...]) -> list[tuple[Any, str, float]]:
    """Rates that a module keeps as numbers and hands to the function, as BART and Qwen do."""
    return [(module, name, value) for name in names if isinstance(value := getattr(module, name, None), float)]
