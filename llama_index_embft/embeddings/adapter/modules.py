"""Adapters as torch modules: making them, telling them apart, and sending vectors through them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from llama_index_embft.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import nn

_ROWS_PER_BLOCK: Final = 16_384


def linear_adapter(dim: int, output_dim: int | None = None, *, bias: bool = False) -> nn.Linear:
    """A linear layer that starts as the identity: before training it changes nothing, or only cuts off.

    Args:
        dim: Dimension of the embeddings.
        output_dim: Dimension that comes out; at first these are the first coordinates. None: `dim`.
        bias: Add a vector, zero at first.
    """
    import torch

    layer = torch.nn.Linear(dim, output_dim or dim, bias=bias)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(output_dim or dim, dim))
        if bias:
            layer.bias.zero_()
    return layer


def low_rank_adapter(dim: int, rank: int, *, bias: bool = False, seed: int = 0) -> nn.Module:
    """The identity plus a map of low rank, see `LowRankAdapter`; before training it changes nothing.

    Args:
        dim: Dimension of the embeddings.
        rank: Directions in which it can change a vector; at most `dim` is used.
        bias: Add a vector, zero at first.
        seed: Of the directions it starts with; torch's own random state is left alone.
    """
    import torch

    from llama_index_embft.embeddings.adapter.layers import LowRankAdapter

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LowRankAdapter(dim, min(rank, dim), bias=bias)


def mlp_adapter(dim: int, hidden_dim: int | None = None, *, seed: int = 0) -> nn.Module:
    """Two layers added to the input, see `TwoLayerAdapter`; before training it changes nothing.

    Args:
        dim: Dimension of the embeddings.
        hidden_dim: Width between the layers; None: `dim`.
        seed: Of the first layer.
    """
    import torch

    from llama_index_embft.embeddings.adapter.layers import TwoLayerAdapter

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return TwoLayerAdapter.identity(dim, hidden_dim or dim)


def _is_linear(module: nn.Module) -> bool:
    from torch import nn

    return isinstance(module, nn.Linear)


def _build_linear(config: dict[str, Any]) -> nn.Module:
    from torch import nn

    return nn.Linear(config["in_features"], config["out_features"], bias=config["bias"])


def _is_low_rank(module: nn.Module) -> bool:
    from llama_index_embft.embeddings.adapter.layers import LowRankAdapter

    return isinstance(module, LowRankAdapter)


def _build_low_rank(config: dict[str, Any]) -> nn.Module:
    from llama_index_embft.embeddings.adapter.layers import LowRankAdapter

    return LowRankAdapter(config["in_features"], config["rank"], bias=config["bias"])


def _is_mlp(module: nn.Module) -> bool:
    from llama_index_embft.embeddings.adapter.layers import TwoLayerAdapter

    return isinstance(module, TwoLayerAdapter)


def _build_mlp(config: dict[str, Any]) -> nn.Module:
    from llama_index_embft.embeddings.adapter.layers import TwoLayerAdapter

    return TwoLayerAdapter(
        config["in_features"],
        config["hidden_features"],
        config["out_features"],
        activation=config["activation"],
        add_residual=config["add_residual"],
    )


@dataclass(frozen=True)
class AdapterForm:
    """How one kind of adapter is told apart, described in ``config.json``, built again from there, and begun.

    Attributes:
        owns: Whether a module is of this kind.
        describe: Its sizes as JSON types, ``in_features`` among them.
        build: The module of those sizes, its weights still to be loaded.
        start: A module that changes nothing yet, from the dimension of the vectors and keywords of the settings:
            ``rank``, ``hidden_dim``, ``bias`` and ``seed``; a kind ignores what it has no use for.
    """

    owns: Callable[[nn.Module], bool]
    describe: Callable[[Any], dict[str, Any]]
    build: Callable[[dict[str, Any]], nn.Module]
    start: Callable[..., nn.Module]


# A new kind is one new file with its module and form, and one line here.
ADAPTER_FORMS: Final[dict[str, AdapterForm]] = {
    "linear": AdapterForm(
        _is_linear,
        lambda module: {
            "in_features": module.in_features,
            "out_features": module.out_features,
            "bias": module.bias is not None,
        },
        _build_linear,
        lambda dim, *, bias, **_: linear_adapter(dim, bias=bias),
    ),
    "low-rank": AdapterForm(
        _is_low_rank,
        lambda module: {"in_features": module.dim, "rank": module.rank, "bias": module.up.bias is not None},
        _build_low_rank,
        lambda dim, *, rank, bias, seed, **_: low_rank_adapter(dim, rank, bias=bias, seed=seed),
    ),
    "mlp": AdapterForm(
        _is_mlp,
        lambda module: {
            "in_features": module.in_features,
            "hidden_features": module.hidden_features,
            "out_features": module.out_features,
            "activation": module.activation,
            "add_residual": module.add_residual,
        },
        _build_mlp,
        lambda dim, *, hidden_dim, seed, **_: mlp_adapter(dim, hidden_dim, seed=seed),
    ),
}


def describe_module(module: nn.Module) -> dict[str, Any]:
    """Kind and sizes of an adapter, as ``config.json`` keeps them; what is none of ours is of kind ``"custom"``."""
    for kind, form in ADAPTER_FORMS.items():
        if form.owns(module):
            return {"kind": kind, **form.describe(module)}
    return {"kind": "custom", "module": f"{type(module).__module__}.{type(module).__qualname__}"}


def build_module(config: dict[str, Any]) -> nn.Module:
    """The module that `describe_module` described, its weights still to be loaded.

    Raises:
        KeyError: An entry is missing, or the kind or activation is unknown.
        TypeError: An entry has the wrong type.
    """
    return ADAPTER_FORMS[config["kind"]].build(config)


def input_dim(module: nn.Module) -> int | None:
    """Dimension of the vectors that an adapter takes; None for a module of the user's own."""
    found: int | None = describe_module(module).get("in_features")
    return found


def apply_to_one(adapter: nn.Module, vector: NDArray[np.float32]) -> NDArray[np.float32]:
    """Send one vector of shape ``(dim,)`` through an adapter; returns shape ``(dim_out,)``.

    Every question of a user waits for it, and each operation of torch costs about as much as the product of one vector
    itself. So numpy computes our own kinds on a CPU.
    """
    import torch

    from llama_index_embft.embeddings.adapter.layers import on_one_vector

    found = on_one_vector(adapter, vector)
    if found is None:
        parameter = next(adapter.parameters(), None)
        device = parameter.device if parameter is not None else torch.device("cpu")
        with torch.inference_mode():
            found = adapter(torch.tensor(vector[None], device=device)).float().cpu().numpy()[0]
    result: NDArray[np.float32] = found
    return result


def apply_adapter(adapter: nn.Module, vectors: NDArray[np.float32], *, normalize: bool = False) -> NDArray[np.float32]:
    """Send vectors of shape ``(n, dim)`` through an adapter, 16,384 at a time; returns ``(n, dim_out)``.

    Args:
        adapter: The module; it is put into evaluation mode.
        vectors: A memory-mapped array is read block by block.
        normalize: Scale what comes out to length 1; rows of zeros stay.

    Raises:
        ModelError: The adapter takes another dimension.
    """
    import torch

    expected = input_dim(adapter)
    if expected is not None and vectors.shape[1] != expected:
        raise ModelError(
            f"The vectors have {vectors.shape[1]} dimensions, but the adapter takes {expected}; "
            "use the embedding model that the adapter was trained on."
        )
    parameter = next(adapter.parameters(), None)
    device = parameter.device if parameter is not None else torch.device("cpu")
    adapter.eval()
    result: NDArray[np.float32] | None = None
    with torch.inference_mode():
        for start in range(0, max(1, len(vectors)), _ROWS_PER_BLOCK):
            rows = np.ascontiguousarray(vectors[start : start + _ROWS_PER_BLOCK], dtype=np.float32)
            block = adapter(torch.tensor(rows, device=device)).float()
            if normalize:
                block = torch.nn.functional.normalize(block, dim=1)
            if result is None:
                result = np.empty((len(vectors), block.shape[1]), dtype=np.float32)
            result[start : start + len(rows)] = block.cpu().numpy()
    assert result is not None
    return result
