"""A model that was trained to read more of each passage, held against the base model as its user knows it."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from llama_index_embft.finetune.engine import SELECTION_METRIC
from llama_index_embft.finetune.full.training import broadcast

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from llama_index_embft.finetune.engine import FinetuneResult
    from llama_index_embft.finetune.full.base_model import BaseModel
    from llama_index_embft.finetune.validation import Watch

logger = logging.getLogger(__name__)


def compared_with_base(
    result: FinetuneResult, model: SentenceTransformer, base: BaseModel, watch: Watch
) -> FinetuneResult:
    """The result with the base model's own score; where that is not beaten, the model becomes the base model.

    Args:
        result: Of the training; its scores were taken with the longer reading, those before training too.
        model: What was trained; changed in place where the base model is better.
        base: The base model, loaded anew, which reads what it reads by itself.
        watch: With a validation set.
    """
    score = broadcast(lambda: watch.validation_metrics(base.embedding))[SELECTION_METRIC]
    result = replace(result, base_score=score)
    if result.best_score is not None and result.best_score > score:
        if result.best_step == 0:
            logger.warning(
                "Training did not help on validation, reading %d tokens instead of %d did; the saved model is the base "
                "model that reads more.",
                model.max_seq_length,
                base.model.max_seq_length,
            )
        return result
    model.load_state_dict(base.model.state_dict())
    model.max_seq_length = base.model.max_seq_length
    weight = None if result.merge_weight is None else 0.0
    return replace(result, best_score=score, best_step=0, merge_weight=weight)
