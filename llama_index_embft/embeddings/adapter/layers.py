"""The torch layers of adapters that torch itself has not. This module imports torch; import it in functions only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

# The names of llama-index-embeddings-adapter, so that its files can be read and written.
ACTIVATIONS: Final[dict[str, Callable[[Tensor], Tensor]]] = {
    "relu": functional.relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "leaky_relu": functional.leaky_relu,
}


class LowRankAdapter(nn.Module):
    """The identity plus a map of low rank: ``x + V Uᵀ x``; starts as the identity, since V starts at zero.

    It has ``2 * dim * rank`` numbers in place of the linear layer's ``dim * dim``: right where there are few queries.

    Args:
        dim: Dimension of the embeddings.
        rank: Directions in which it can change a vector.
        bias: Add a vector, zero at first.
    """

    def __init__(self, dim: int, rank: int, *, bias: bool = False) -> None:
        super().__init__()
        self.dim, self.rank = dim, rank
        self.down = nn.Linear(dim, rank, bias=False)
        self.up = nn.Linear(rank, dim, bias=bias)
        nn.init.orthogonal_(self.down.weight)
        nn.init.zeros_(self.up.weight)
        if bias:
            nn.init.zeros_(self.up.bias)

    def forward(self, vectors: Tensor) -> Tensor:
        """Shape ``(n, dim)`` to ``(n, dim)``."""
        changed: Tensor = vectors + self.up(self.down(vectors))
        return changed

    def as_linear(self) -> nn.Linear:
        """The same map as one linear layer."""
        layer = nn.Linear(self.dim, self.dim, bias=self.up.bias is not None)
        with torch.no_grad():
            layer.weight.copy_(torch.eye(self.dim) + self.up.weight.cpu() @ self.down.weight.cpu())
            if self.up.bias is not None:
                layer.bias.copy_(self.up.bias)
        return layer


class TwoLayerAdapter(nn.Module):
    """Two linear layers with an activation between, added to the input or alone.

    With ``add_residual`` and weights as `identity` sets them it starts as the identity. Parameters and their names are
    those of llama-index-embeddings-adapter's ``TwoLayerNN``.

    Args:
        in_features: Dimension of the embeddings.
        hidden_features: Width between the layers.
        out_features: Dimension that comes out; with `add_residual` that of the embeddings.
        activation: ``"relu"``, ``"sigmoid"``, ``"tanh"`` or ``"leaky_relu"``.
        add_residual: Add the input to what comes out.
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        out_features: int,
        *,
        activation: str = "relu",
        add_residual: bool = True,
    ) -> None:
        super().__init__()
        self.in_features, self.hidden_features, self.out_features = in_features, hidden_features, out_features
        self.activation, self.add_residual = activation, add_residual
        self.linear1 = nn.Linear(in_features, hidden_features)
        self.linear2 = nn.Linear(hidden_features, out_features)
        self.residual_weight = nn.Parameter(torch.zeros(1))
        self._activate = ACTIVATIONS[activation]

    @classmethod
    def identity(cls, dim: int, hidden: int) -> TwoLayerAdapter:
        """A residual layer that changes nothing before training."""
        layer = cls(dim, hidden, dim)
        with torch.no_grad():
            # Not by a residual weight of zero, with which the layers below would get no gradient in the first step.
            layer.residual_weight.fill_(1.0)
            nn.init.zeros_(layer.linear2.weight)
            nn.init.zeros_(layer.linear2.bias)
        return layer

    def forward(self, vectors: Tensor) -> Tensor:
        """Shape ``(n, in_features)`` to ``(n, out_features)``."""
        changed: Tensor = self.linear2(self._activate(self.linear1(vectors)))
        return self.residual_weight * changed + vectors if self.add_residual else changed


def on_one_vector(module: nn.Module, vector: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """What a module's `forward` gives for one vector, computed by numpy; None where only torch can.

    Args:
        module: An adapter. A subclass may compute something else, so only these very classes are taken apart.
        vector: Shape ``(dim,)``.
    """
    if type(module) is nn.Linear:
        return _affine(module, vector)
    if type(module) is LowRankAdapter:
        inner = _affine(module.down, vector)
        added = None if inner is None else _affine(module.up, inner)
        return None if added is None else vector + added
    if type(module) is TwoLayerAdapter and module.activation == "relu":
        inner = _affine(module.linear1, vector)
        changed = None if inner is None else _affine(module.linear2, np.maximum(inner, 0.0))
        if changed is None or not module.add_residual:
            return changed
        share: NDArray[np.float32] = module.residual_weight.detach().numpy()
        return changed * share + vector
    return None


def _affine(layer: nn.Linear, vector: NDArray[np.float32]) -> NDArray[np.float32] | None:
    weight = layer.weight.detach()
    if weight.dtype != torch.float32 or weight.device.type != "cpu":
        return None
    matrix: NDArray[np.float32] = weight.numpy()
    product: NDArray[np.float32] = matrix @ vector
    if layer.bias is not None:
        shift: NDArray[np.float32] = layer.bias.detach().numpy()
        product += shift
    return product
