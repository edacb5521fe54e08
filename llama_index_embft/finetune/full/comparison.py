"""A trained model held against the base model as its user has it, which may read fewer tokens of each passage."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from llama_index_embft.finetune.engine import SELECTION_METRIC

if TYPE_CHECKING:
    from collections.abc import Callable

    from sentence_transformers import SentenceTransformer

    from llama_index_embft.finetune.engine import FinetuneResult
    from llama_index_embft.finetune.running.base_model import LoadedBase

logger = logging.getLogger(__name__)

_ROUNDING = 1e-9  # 0.970 - 0.965 is more than 0.005 in binary floating point


def measured_as_it_was(base: LoadedBase, measure: Callable[[], dict[str, float]]) -> dict[str, float]:
    """Metrics of the base model, before training, reading what it reads by itself."""
    longer, base.model.max_seq_length = base.model.max_seq_length, base.own_length
    try:
        return measure()
    finally:
        base.model.max_seq_length = longer


def compared_with_base(
    result: FinetuneResult,
    model: SentenceTransformer,
    before: dict[str, float],
    load_base: Callable[[], LoadedBase],
    max_guard_loss: float | None,
) -> FinetuneResult:
    """The result with the base model's own scores; where that is not beaten, the model becomes the base model.

    Args:
        result: Of the training; its scores were taken with the longer reading, those before training too.
        model: What was trained; changed in place where the base model is better.
        before: Metrics of the base model as it was.
        load_base: Loads it anew, reading what it reads by itself.
        max_guard_loss: Largest loss on the guard; None where no limit was asked for.
    """
    guard = before.get(f"guard_{SELECTION_METRIC}")
    result = replace(result, base_score=before.get(SELECTION_METRIC), guard_base_score=guard)
    if result.base_score is None or result.best_score is None:
        return result
    forgets = (
        max_guard_loss is not None
        and guard is not None
        and result.guard_score is not None
        and guard - result.guard_score > max_guard_loss + _ROUNDING
    )
    if result.best_score > result.base_score and not forgets:
        if result.best_step == 0:
            logger.warning(
                "Training did not help on validation, but reading %d tokens did; the saved model is the base model "
                "with the longer limit.",
                model.max_seq_length,
            )
        return result
    base = load_base()
    model.load_state_dict(base.model.state_dict())
    model.max_seq_length = base.model.max_seq_length
    weight = None if result.merge_weight is None else 0.0
    return replace(result, best_score=result.base_score, best_step=0, merge_weight=weight, guard_score=guard)
