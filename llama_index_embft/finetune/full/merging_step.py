"""After training: how far from the base weights to the tuned ones?"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from llama_index_embft.finetune.engine import SELECTION_METRIC
from llama_index_embft.finetune.full.merging import WEIGHTS, choose_merge
from llama_index_embft.finetune.full.training import broadcast
from llama_index_embft.finetune.validation import weights_of

if TYPE_CHECKING:
    import torch
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from sentence_transformers import SentenceTransformer

    from llama_index_embft.finetune.validation import Watch


class Merged(NamedTuple):
    """What merging chose: share of the tuned weights (None: it was not asked for), and a record for each one tried."""

    weight: float | None
    curve: list[dict[str, float]]


def merge_step(
    watch: Watch,
    embedding: BaseEmbedding,
    model: SentenceTransformer,
    base_weights: dict[str, torch.Tensor],
    merge: str | float,
    max_guard_loss: float,
) -> Merged:
    """Leave the chosen interpolation in the model.

    Args:
        watch: Validation and guard.
        embedding: What evaluates the model.
        model: Holds the tuned weights.
        base_weights: Those before training.
        merge: ``"auto"``, or the one weight to try beside 0.
        max_guard_loss: Largest loss on the guard.
    """
    choice = choose_merge(
        model,
        base_weights,
        weights_of(model),
        lambda: broadcast(lambda: watch.validation_metrics(embedding)),
        (lambda: broadcast(lambda: watch.guard_metrics(embedding))) if watch.guard is not None else None,
        weights=WEIGHTS if isinstance(merge, str) else (float(merge),),
        metric=SELECTION_METRIC,
        max_guard_loss=max_guard_loss,
    )
    return Merged(choice.weight, choice.curve)
