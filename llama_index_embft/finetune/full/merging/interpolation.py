"""Interpolate base and tuned weights, and find how far to go before other data suffers.

WiSE-FT (Wortsman et al., arXiv 2109.01903) and LM-Cocktail (Xiao et al., arXiv 2311.13534) show that weights between a
base model and its fine-tuned descendant keep most of the gain and lose less elsewhere. How far to go differs from task
to task, so it is measured: on validation, under a limit for what a guard set may lose.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from llama_index_embft._core.checks import check_number
from llama_index_embft.embeddings.describe import loading, resolve_model_name
from llama_index_embft.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import torch
    from sentence_transformers import SentenceTransformer

WEIGHTS: Final = tuple(round(0.1 * step, 1) for step in range(11))
_ROUNDING: Final = 1e-9  # 0.970 - 0.965 is more than 0.005 in binary floating point


@dataclass(frozen=True)
class MergeChoice:
    """How far from the base model to its tuned descendant the chosen weights lie.

    Attributes:
        weight: Share of the tuned weights, in [0, 1]; 0 is the base model, 1 the tuned one.
        curve: A record for each weight tried, ascending: ``weight``, the metrics of `evaluate` under their names, and
            those of `evaluate_guard` with ``guard_`` in front.
    """

    weight: float
    curve: list[dict[str, float]]


def choose_merge(
    model: SentenceTransformer,
    base_weights: Mapping[str, torch.Tensor],
    tuned_weights: Mapping[str, torch.Tensor],
    evaluate: Callable[[], Mapping[str, float]],
    evaluate_guard: Callable[[], Mapping[str, float]] | None,
    *,
    weights: Sequence[float] = WEIGHTS,
    metric: str = "ndcg@10",
    max_guard_loss: float = 0.005,
    base_guard_score: float | None = None,
) -> MergeChoice:
    """Load the interpolation that is best on validation and loses little enough on the guard.

    Among the weights whose guard metric is at most `max_guard_loss` below that of the base model, the one with the best
    validation metric wins; of equals the smaller. The base model itself always qualifies, so there is always a choice.
    A metric that is not a number disqualifies its weight.

    Args:
        model: The model that both sets of weights belong to; the chosen interpolation is left in it. If an evaluation
            fails, the tuned weights are left in it.
        base_weights: Its `state_dict` before training. Must not share memory with the model.
        tuned_weights: Its `state_dict` after training. Likewise.
        evaluate: Validation metrics of the model as it stands; called once for each weight.
        evaluate_guard: Metrics of the model as it stands on the guard set; likewise. None: nothing is guarded.
        weights: What to try, each in [0, 1]; 0 is added where it is missing. The default covers the range in tenths,
            as LM-Cocktail does; an evaluation costs far less than training.
        metric: The metric that decides, on both sets.
        max_guard_loss: Largest drop of the guard metric below the base model's, in the metric's own unit. The default
            is half a point of nDCG.
        base_guard_score: The guard metric that the loss is counted from; None: that of weight 0. Give it where the base
            model that is in use is another than weight 0, such as one that reads fewer tokens.

    Raises:
        ModelError: The two sets of weights, or the model, have other names or shapes.
        ConfigError: A weight lies outside [0, 1], the limit is negative, or the metric is not measured.
    """
    check_number("max_guard_loss", max_guard_loss, at_least=0)
    tried = sorted({0.0, *(_checked(weight) for weight in weights)})
    _check_same_shape(base_weights, tuned_weights, "the base weights", "the tuned weights")
    _check_same_shape(base_weights, model.state_dict(), "the base weights", "the model")
    curve: list[dict[str, float]] = []
    try:
        for weight in tried:
            _load_between(model, base_weights, tuned_weights, weight)
            point = {"weight": weight, **evaluate()}
            _check_measured(point, metric, "validation")
            if evaluate_guard is not None:
                point |= {f"guard_{name}": value for name, value in evaluate_guard().items()}
                _check_measured(point, f"guard_{metric}", "guard")
            curve.append(point)
    except BaseException:
        _load_between(model, base_weights, tuned_weights, 1.0)
        raise
    best = curve[0]
    base_guard = curve[0].get(f"guard_{metric}") if base_guard_score is None else base_guard_score
    for point in curve[1:]:
        if not _within_limit(point, base_guard, metric, max_guard_loss):
            continue
        if point[metric] > best[metric] or math.isnan(best[metric]):
            best = point
    _load_between(model, base_weights, tuned_weights, best["weight"])
    return MergeChoice(best["weight"], curve)


def merge_models(
    base: SentenceTransformer | str | Path,
    tuned: SentenceTransformer | str | Path,
    weight: float = 0.5,
    *,
    trust_remote_code: bool = False,
) -> SentenceTransformer:
    """Interpolate two models of one shape: ``(1 - weight) * base + weight * tuned``.

    Args:
        base: The model that training began with: an object, a folder or a hub name. It is not changed.
        tuned: The model that training made of it. It is not changed.
        weight: Share of the tuned weights, in [0, 1]. The default, half and half, is LM-Cocktail's.
        trust_remote_code: Run code that comes with a model. Only for repositories you have read.

    Returns:
        A new model with the prompts, the maximum length and the tokenizer of `tuned`.

    Raises:
        ModelError: A model cannot be loaded, or the two have other names or shapes of weights.
        ConfigError: The weight lies outside [0, 1].
    """
    share = _checked(weight)
    first, second = (_loaded(model, trust_remote_code) for model in (base, tuned))
    base_weights, tuned_weights = first.state_dict(), second.state_dict()
    _check_same_shape(base_weights, tuned_weights, _shown(base, "base"), _shown(tuned, "tuned"))
    merged = copy.deepcopy(second)
    _load_between(merged, base_weights, tuned_weights, share)
    return merged


def _load_between(
    model: SentenceTransformer,
    base_weights: Mapping[str, torch.Tensor],
    tuned_weights: Mapping[str, torch.Tensor],
    weight: float,
) -> None:
    """Copy an interpolation into the model, tensor by tensor: no third copy of all weights is ever held."""
    import torch

    with torch.no_grad():
        for name, target in model.state_dict().items():
            base, tuned = base_weights[name], tuned_weights[name]
            if weight == 0.0:
                target.copy_(base)
            elif weight == 1.0 or not tuned.is_floating_point():
                target.copy_(tuned)  # there is nothing between two positions or counters
            else:
                # In float32: the steps between bfloat16 values are larger than what training changes.
                target.copy_(torch.lerp(base.float(), tuned.to(base.device).float(), weight))


def _within_limit(point: Mapping[str, float], base_guard: float | None, metric: str, limit: float) -> bool:
    if math.isnan(point[metric]):
        return False
    guard = f"guard_{metric}"
    return guard not in point or base_guard is None or base_guard - point[guard] <= limit + _ROUNDING


def _checked(weight: float) -> float:
    check_number("weight", weight, at_least=0, at_most=1, hint="0 is the base model, 1 the tuned one")
    return float(weight)


def _check_measured(point: Mapping[str, float], metric: str, which: str) -> None:
    if metric not in point:
        names = ", ".join(name for name in point if name != "weight")
        raise ConfigError(f"The {which} set is not measured by {metric}; choose one of {names}.")


def _check_same_shape(
    one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor], one_name: str, other_name: str
) -> None:
    for holder, lacking, names in (
        (one_name, other_name, one.keys() - other.keys()),
        (other_name, one_name, other.keys() - one.keys()),
    ):
        if names:
            raise ModelError(
                f"Cannot merge: {len(names)} tensor(s) of {holder} are missing in {lacking} (first: {min(names)}); "
                "merge only a model with its own fine-tuned descendant (LoRA merged in first)."
            )
    for name, tensor in one.items():
        if tensor.shape != other[name].shape:
            raise ModelError(
                f"Cannot merge: {name} has shape {tuple(tensor.shape)} in {one_name} and {tuple(other[name].shape)} in "
                f"{other_name}; merge only a model with its own fine-tuned descendant."
            )


def _loaded(model: SentenceTransformer | str | Path, trust_remote_code: bool) -> SentenceTransformer:
    if not isinstance(model, (str, Path)):
        return model
    from llama_index_embft.embeddings.local import load_sentence_transformer
    from llama_index_embft.finetune.running.lora import merge_own_adapters

    name = resolve_model_name(model)
    if (Path(name) / "adapter.safetensors").is_file():
        raise ModelError(f"Cannot merge {name}: it is an adapter, which leaves the weights of its model as they are.")
    with loading(f"The model {name}", name):
        loaded = load_sentence_transformer(name, device="cpu", trust_remote_code=trust_remote_code)
        merge_own_adapters(loaded)
        return loaded


def _shown(model: SentenceTransformer | str | Path, role: str) -> str:
    return str(model) if isinstance(model, (str, Path)) else f"the {role} model"
