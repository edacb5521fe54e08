"""One training run of a SentenceTransformer: rows and settings in, the best weights and a record out."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from llama_index_embft._core.temporary import scratch_folder
from llama_index_embft.embeddings.sentence_transformer import has_router
from llama_index_embft.errors import DatasetError
from llama_index_embft.finetune.full.data.batches import BatchPlan
from llama_index_embft.finetune.full.data.rows import LABEL
from llama_index_embft.finetune.full.losses.choosing import first_mini_batch
from llama_index_embft.finetune.running.processes import broadcast, world_size
from llama_index_embft.finetune.running.run import run_trainer
from llama_index_embft.finetune.validation import BestState

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sentence_transformers import SentenceTransformer

    from llama_index_embft.finetune.full.data.rows import TrainingRows
    from llama_index_embft.finetune.full.losses.choosing import LossMaker
    from llama_index_embft.finetune.full.run_settings import TrainSettings
    from llama_index_embft.finetune.full.training.trainer import EngineTrainer
    from llama_index_embft.finetune.running.callbacks import BestStateCallback
    from llama_index_embft.finetune.running.run import RunEnvironment

logger = logging.getLogger(__name__)

# Batches more than this many times as many as full ones would be: worth a word, because fewer negatives teach less.
_MANY_BATCHES: Final = 1.5


@dataclass
class Trained:
    """What `train` did; the best weights are in the model.

    Attributes:
        best: Evaluations, and the weights with the best score.
        steps: Optimizer steps.
        losses: Records of the Trainer.
        evaluate_seconds: Wall-clock seconds of the evaluations.
        mini_batch_size: As it was at the end.
    """

    best: BestState
    steps: int
    losses: list[dict[str, float]]
    evaluate_seconds: float
    mini_batch_size: int | None


def train(
    model: SentenceTransformer,
    rows: TrainingRows,
    maker: LossMaker,
    settings: TrainSettings,
    environment: RunEnvironment,
    *,
    prompts: dict[str, str],
    evaluate: Callable[[], dict[str, float]] | None,
    longest_tokens: int | None = None,
) -> Trained:
    """Train, and leave the best weights in the model.

    Args:
        model: Trained in place; only parameters that require gradients change.
        rows: The training rows.
        maker: The loss.
        settings: The numbers.
        environment: Checkpoints, bars.
        prompts: ``query`` and ``document``: put before the texts.
        evaluate: Metrics of the model as it stands; None: the last weights are the best.
        longest_tokens: Of the longest texts that are trained on, as far as they are read; None: not known.

    Raises:
        DatasetError: Nothing can be learned from so few rows.
        TrainingError: The loss is not a number, memory does not suffice, or Ctrl-C was pressed.
        OutputError: A checkpoint cannot be written.
    """
    from llama_index_embft.finetune.running.dropout import dropout_off

    plan = _plan(rows, settings)
    best = BestState(model, trainable_only=settings.method == "lora")
    dropout = settings.hardware.attention_dropout
    fused = dropout is False or (dropout is None and model.device.type == "cpu")
    restore_dropout = dropout_off(model, attention=fused, hidden=settings.hardware.hidden_dropout is False)
    try:
        with scratch_folder() as scratch:
            # Trackers write beside their run; nothing else does.
            folder = scratch if settings.validation.report_to == "none" else environment.checkpoints.folder
            trainer = _trainer(model, rows, maker, settings, environment, prompts, plan, best, folder, longest_tokens)
            watcher = _watcher(trainer, settings, environment, evaluate)
            run_trainer(trainer, watcher, environment)
    finally:
        restore_dropout()
    best.restore()
    model.eval()
    return Trained(
        best=best,
        steps=int(trainer.state.global_step),
        losses=[entry for entry in trainer.state.log_history if "loss" in entry],
        evaluate_seconds=watcher.evaluate_seconds,
        mini_batch_size=trainer.mini_batch_size,
    )


def _plan(rows: TrainingRows, settings: TrainSettings) -> BatchPlan | None:
    in_batch = rows.relations is not None
    if in_batch and rows.n_negatives == 0 and len(rows) == 1:
        raise DatasetError(
            "The training set has one question and one passage, and nothing to tell the passage from; add questions "
            "about other passages, or negative_docs."
        )
    if len(rows) < world_size():
        raise DatasetError(f"The training set has {len(rows)} rows for {world_size()} processes; start fewer.")
    if settings.loss.batch_sampler != "no_false_negatives":
        return None
    plan = BatchPlan(rows.relations, len(rows), settings.batch_size, seed=settings.seed, processes=world_size())
    if in_batch and rows.n_negatives == 0 and plan.largest == 1 < settings.batch_size:
        raise DatasetError(
            f"All {len(rows)} rows of the training set ask about the same passage, or copies of it, so there is "
            "nothing to tell it from; add questions about other passages, or negative_docs."
        )
    full = -(-len(rows) // settings.batch_size)
    if in_batch and len(plan) > _MANY_BATCHES * full:
        # A batch for each question about it: so many at least. Where there are more, negatives are in the way.
        if rows.most_asked > _MANY_BATCHES * full:
            reason = (
                f"{rows.most_asked} questions ask about one passage (or copies of it), and no two of them may share"
            )
            advice = "Keep fewer questions about that passage (subset()), or add negative_docs."
        else:
            reason = "Hard negatives of many questions answer others, and such rows may not share"
            advice = "Use fewer negatives for each question, or smaller batches."
        logger.warning(
            "%s a batch: an epoch has %d batches of at most %d rows instead of %d of %d, so each question "
            "has fewer negatives. %s",
            reason,
            len(plan),
            plan.largest,
            full,
            min(settings.batch_size, len(rows)),
            advice,
        )
    return plan


def _trainer(
    model: SentenceTransformer,
    rows: TrainingRows,
    maker: LossMaker,
    settings: TrainSettings,
    environment: RunEnvironment,
    prompts: dict[str, str],
    plan: BatchPlan | None,
    best: BestState,
    folder: Path,
    longest_tokens: int | None,
) -> EngineTrainer:
    from datasets import Dataset

    from llama_index_embft.finetune.full.training.arguments import training_arguments
    from llama_index_embft.finetune.full.training.trainer import EngineTrainer

    per_process = max(1, min(settings.batch_size, len(rows)) // world_size())
    documents = [name for name in rows.columns if name not in ("anchor", LABEL)]
    steps = (len(plan) if plan is not None else -(-len(rows) // settings.batch_size)) * settings.epochs
    mini_batch_size = None
    if maker.can_cache:
        mini_batch_size = first_mini_batch(
            settings.hardware.mini_batch_size, per_process, len(documents), model.device.type, longest_tokens
        )
    return EngineTrainer(
        model=model,
        args=training_arguments(
            settings,
            device=model.device,
            folder=folder,
            name=environment.name,
            steps=steps,
            rows_per_process=per_process,
            prompts={"anchor": prompts["query"]} | dict.fromkeys(documents, prompts["document"]),
            router_mapping={"anchor": "query"} | dict.fromkeys(documents, "document") if has_router(model) else None,
            save_checkpoints=environment.save_checkpoints,
            progress=environment.progress,
        ),
        train_dataset=Dataset.from_dict(rows.columns),
        maker=maker,
        mini_batch_size=mini_batch_size,
        plan=plan,
        checkpoints=environment.checkpoints,
        best=best,
        trainable_only=settings.method == "lora",
    )


def _watcher(
    trainer: EngineTrainer,
    settings: TrainSettings,
    environment: RunEnvironment,
    evaluate: Callable[[], dict[str, float]] | None,
) -> BestStateCallback:
    from llama_index_embft.finetune.running.callbacks import BestStateCallback

    watcher = BestStateCallback(
        trainer.best,
        None if evaluate is None else lambda: broadcast(evaluate),
        every=settings.evaluation_steps,
        patience=settings.validation.patience,
        sampler=trainer.sampler,
        log=trainer.log if settings.validation.report_to != "none" else None,
        save_at_end=environment.save_at_end,
    )
    trainer.add_callback(watcher)
    return watcher
