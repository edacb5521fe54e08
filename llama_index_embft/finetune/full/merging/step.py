"""After training: how far from the base weights to the tuned ones?"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from llama_index_embft.finetune.engine import SELECTION_METRIC
from llama_index_embft.finetune.full.merging.interpolation import WEIGHTS, choose_merge
from llama_index_embft.finetune.running.processes import broadcast
from llama_index_embft.finetune.validation import weights_of

if TYPE_CHECKING:
    import torch
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from sentence_transformers import SentenceTransformer

    from llama_index_embft.finetune.validation import TrainingEvaluator


class Merged(NamedTuple):
    """What merging chose: share of the tuned weights (None: it was not asked for), and a record for each one tried."""

    weight: float | None
    curve: list[dict[str, float]]


def merge_step(
    evaluator: TrainingEvaluator,
    embedding: BaseEmbedding,
    model: SentenceTransformer,
    base_weights: dict[str, torch.Tensor],
    merge: str | float,
    max_guard_loss: float,
    base_guard_score: float | None,
) -> Merged:
    """Leave the chosen interpolation in the model.

    Args:
        evaluator: With a validation set.
        embedding: What is measured; the model is inside it.
        model: Holds the tuned weights.
        base_weights: Those before training.
        merge: ``"auto"``, or the one weight to try beside 0.
        max_guard_loss: Largest loss on the guard.
        base_guard_score: The guard's score for the base model as its user has it; None without a guard.
    """
    measured: dict[str, float] = {}

    def on_validation() -> dict[str, float]:
        measured.clear()
        measured.update(broadcast(lambda: evaluator.set_metrics(embedding)))
        return {name: value for name, value in measured.items() if not name.startswith("guard_")}

    def on_guard() -> dict[str, float]:
        guarded = {name: value for name, value in measured.items() if name.startswith("guard_")}
        return {name.removeprefix("guard_"): value for name, value in guarded.items()}

    choice = choose_merge(
        model,
        base_weights,
        weights_of(model),
        on_validation,
        on_guard if evaluator.guard is not None else None,
        weights=WEIGHTS if isinstance(merge, str) else (float(merge),),
        metric=SELECTION_METRIC,
        max_guard_loss=max_guard_loss,
        base_guard_score=base_guard_score,
    )
    return Merged(choice.weight, choice.curve)
