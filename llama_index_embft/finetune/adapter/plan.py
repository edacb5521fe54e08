"""Which adapter: its kind and where it starts, made ready for training."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from llama_index_embft._core.checks import first_line
from llama_index_embft.embeddings.adapter.modules import (
    ADAPTER_FORMS,
    apply_adapter,
    linear_adapter,
    low_rank_adapter,
)
from llama_index_embft.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import nn

    from llama_index_embft.finetune.adapter.data import AdapterData
    from llama_index_embft.finetune.adapter.settings import AdapterLayerSettings, AdapterOptions, AdapterStart

# Strengths of the pull to the identity that a closed form tries on validation; without validation it takes the middle.
RIDGES: Final = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
_DEFAULT_RIDGE: Final = 1.0


@dataclass(frozen=True)
class AdapterPlan:
    """An adapter to be: what it is, where it starts, how fast it learns.

    Attributes:
        kind: One of `ADAPTER_FORMS`.
        start: ``"identity"``, ``"ridge"``, ``"procrustes"`` or ``"pca"``.
        learning_rate: Peak learning rate.
        epochs: Passes at most; 0 is the start alone.
        bias: Whether it adds a vector.
        rank: Of ``"low-rank"``.
        hidden_dim: Of ``"mlp"``; None: the dimension of the embeddings.
        output_dim: Dimension that comes out; None: that of the embeddings.
        ridge: Strength of the closed forms' pull to the identity; None: the best on validation.
    """

    kind: str = "linear"
    start: AdapterStart = "identity"
    learning_rate: float = 1e-4
    epochs: int = 40
    bias: bool = False
    rank: int = 32
    hidden_dim: int | None = None
    output_dim: int | None = None
    ridge: float | None = None

    def shown(self) -> dict[str, Any]:
        """The plan as a row of a table: what means something for its kind."""
        row = {name: value for name, value in asdict(self).items() if name in ("kind", "start", "bias")}
        if self.kind == "low-rank":
            row["rank"] = self.rank
        if self.output_dim is not None:
            row["output_dim"] = self.output_dim
        if self.epochs:
            row["learning_rate"] = self.learning_rate
        return row


def check_module(module: nn.Module, dim: int, *, both_sides: bool) -> None:
    """Find out before training that a module of the user's own takes the vectors, and returns what can be compared.

    Args:
        module: The module.
        dim: Of the vectors.
        both_sides: Whether documents go through it too.

    Raises:
        ConfigError: It does not.
    """
    name = type(module).__name__
    try:
        found = apply_adapter(module, np.eye(2, dim, dtype=np.float32))
    except ModelError as err:
        raise ConfigError(f"`adapter_model` is a {name} that does not go with this model: {err}") from err
    except Exception as err:  # a class of the user's own
        raise ConfigError(
            f"`adapter_model` is a {name} that cannot turn vectors of {dim} dimensions ({first_line(err)}); make it "
            f"for {dim}."
        ) from err
    if found.ndim != 2 or (found.shape[1] != dim and not both_sides):
        shape = found.shape[1] if found.ndim == 2 else found.shape[1:]
        raise ConfigError(
            f"`adapter_model` is a {name} that makes {shape} of {dim} dimensions, and documents keep theirs; pass "
            "layer=AdapterLayerSettings(sides='both'), so that they go through it too."
        )


def plan_of(options: AdapterOptions, layer: AdapterLayerSettings, *, own_module: bool) -> AdapterPlan:
    """The adapter that an engine is told to make; for ``kind="auto"`` what its tries start from.

    Args:
        options: See `AdapterOptions`.
        layer: See `AdapterLayerSettings`.
        own_module: Whether the user's own module is trained.

    Raises:
        ConfigError: The options mean nothing together; the message says what to change.
    """
    kind, start = options.kind, layer.start
    if own_module and (kind != "linear" or start is not None or layer.output_dim is not None):
        raise ConfigError(
            "`adapter_model` is a module of your own, which has its kind, start and dimension; leave kind, start and "
            "output_dim out with it."
        )
    usual = type(layer)()
    for name, kinds in (("rank", ("low-rank", "auto")), ("hidden_dim", ("mlp", "auto"))):
        if getattr(layer, name) != getattr(usual, name) and kind not in kinds:
            raise ConfigError(
                f"`{name}` is {getattr(layer, name)}, which means nothing to kind={kind!r}; use kind={kinds[0]!r}, or "
                "leave it out."
            )
    if layer.ridge is not None and kind != "auto" and start not in ("ridge", "procrustes"):
        raise ConfigError(
            f"`ridge` is {layer.ridge:g}, which is for start='ridge' or 'procrustes'; give one, or leave it out."
        )
    if layer.output_dim is not None and kind not in ("linear", "auto"):
        raise ConfigError(f"`kind` is {kind!r}, and output_dim needs a linear adapter; use kind='linear' or 'auto'.")
    if start not in (None, "identity") and kind not in ("linear", "low-rank", "auto"):
        raise ConfigError(
            f"`start` is {start!r}, a linear map, and kind {kind!r} cannot start from one; leave start out."
        )
    if start is not None and kind == "auto":
        raise ConfigError(f"`start` is {start!r} with kind='auto', which tries several starts; leave start out.")
    start = start or ("pca" if layer.output_dim is not None else "identity")
    if options.epochs == 0 and start == "identity":
        raise ConfigError(
            "`epochs` is 0; it must be at least 1: only a closed-form start is worth something untrained."
        )
    return AdapterPlan(
        kind="linear" if kind == "auto" else kind,
        start=start,
        learning_rate=options.learning_rate,
        epochs=options.epochs,
        bias=options.bias and kind != "mlp",
        rank=layer.rank,
        hidden_dim=layer.hidden_dim,
        output_dim=layer.output_dim,
        ridge=layer.ridge,
    )


def make_adapter(
    plan: AdapterPlan,
    data: AdapterData,
    validate: Callable[[nn.Module], dict[str, float]] | None,
    metric: str,
    seed: int,
) -> tuple[nn.Module, float | None]:
    """The module that a plan starts from.

    Args:
        plan: See `AdapterPlan`.
        data: The training data, which closed forms are solved on.
        validate: Chooses the strength of a closed form, where the plan leaves it open.
        metric: By which it is chosen.
        seed: Of random directions.

    Returns:
        The module, and the strength of the closed form (None where there is none).

    Raises:
        ConfigError: More output dimensions are wanted than there are.
    """
    if plan.output_dim is not None:
        return _shortened(plan, data), None
    if plan.start == "identity":
        sizes = {"rank": plan.rank, "hidden_dim": plan.hidden_dim, "bias": plan.bias}
        return ADAPTER_FORMS[plan.kind].start(data.dim, **sizes, seed=seed), None
    return _closed_form(plan, data, validate, metric)


def _shortened(plan: AdapterPlan, data: AdapterData) -> nn.Module:
    from llama_index_embft.finetune.adapter.closed_form import principal_directions

    assert plan.output_dim is not None
    if plan.output_dim > data.dim:
        raise ConfigError(
            f"`output_dim` is {plan.output_dim}; it must be at most {data.dim}, the dimension of the embeddings."
        )
    layer = linear_adapter(data.dim, plan.output_dim, bias=plan.bias)
    if plan.start == "pca":
        _set(layer, "weight", principal_directions(data.documents[: data.candidates], plan.output_dim))
    return layer


def _closed_form(
    plan: AdapterPlan, data: AdapterData, validate: Callable[[nn.Module], dict[str, float]] | None, metric: str
) -> tuple[nn.Module, float]:
    from llama_index_embft.finetune.adapter.closed_form import moments, procrustes_map, ridge_map

    xx, yx = moments(data.queries, data.documents, data.positives)
    strengths = [plan.ridge] if plan.ridge is not None else RIDGES if validate is not None else [_DEFAULT_RIDGE]
    best: tuple[float, nn.Module, float] | None = None
    for strength in strengths:
        offset = None
        if plan.start == "ridge":
            matrix, offset = ridge_map(xx, yx, strength, bias=plan.bias)
        else:
            matrix = procrustes_map(xx, yx, strength)
        module = _as_module(plan, data.dim, matrix, offset)
        score = validate(module)[metric] if validate is not None and len(strengths) > 1 else 0.0
        if best is None or score >= best[0]:  # of equals the stronger pull
            best = (score, module, strength)
    assert best is not None
    return best[1], best[2]


def _as_module(
    plan: AdapterPlan, dim: int, matrix: NDArray[np.float64], offset: NDArray[np.float64] | None
) -> nn.Module:
    from llama_index_embft.finetune.adapter.closed_form import low_rank_part

    if plan.kind == "low-rank":
        module = low_rank_adapter(dim, plan.rank, bias=plan.bias)
        up, down = low_rank_part(matrix, min(plan.rank, dim))
        layer: Any = module.up
        _set(layer, "weight", up)
        _set(module.down, "weight", down)
    else:
        module = layer = linear_adapter(dim, bias=plan.bias)
        _set(layer, "weight", matrix)
    if offset is not None:
        _set(layer, "bias", offset)
    return module


def _set(layer: Any, name: str, values: NDArray[np.float64]) -> None:
    import torch

    with torch.no_grad():
        getattr(layer, name).copy_(torch.from_numpy(values.copy()))
