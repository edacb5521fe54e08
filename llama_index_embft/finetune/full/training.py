"""One training run of a SentenceTransformer: rows and settings in, the best weights and a record out."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index_embft.errors import DatasetError, TrainingError
from llama_index_embft.finetune.full.batches import BatchPlan
from llama_index_embft.finetune.full.losses import first_mini_batch
from llama_index_embft.finetune.full.rows import LABEL
from llama_index_embft.finetune.full.settings import LEARNING_RATES
from llama_index_embft.finetune.validation import BestState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainingArguments

    from llama_index_embft.finetune.full.callbacks import BestStateCallback
    from llama_index_embft.finetune.full.checkpoints import Checkpoints
    from llama_index_embft.finetune.full.losses import LossMaker
    from llama_index_embft.finetune.full.rows import TrainingRows
    from llama_index_embft.finetune.full.settings import TrainSettings
    from llama_index_embft.finetune.full.trainer import EngineTrainer

logger = logging.getLogger(__name__)


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


@dataclass(frozen=True)
class Surroundings:
    """What is around a run and does not decide its course.

    Attributes:
        checkpoints: Where checkpoints go.
        save_checkpoints: Whether they are written every few steps; Ctrl-C writes one in any case.
        save_at_end: Whether one is written after the last step.
        resume: Whether to go on from the newest.
        progress: Whether to show bars.
        report_to: Trackers of the Trainer's.
        name: Of the run, for the trackers.
    """

    checkpoints: Checkpoints
    save_checkpoints: bool = False
    save_at_end: bool = False
    resume: bool = False
    progress: bool = True
    report_to: str | Sequence[str] = "none"
    name: str = "embft"


def world_size() -> int:
    """Number of processes that `torchrun` or `accelerate launch` started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first_process() -> bool:
    """Whether this process writes the results."""
    return int(os.environ.get("RANK", "0")) == 0


def broadcast(make: Callable[[], dict[str, float]]) -> dict[str, float]:
    """Let the first process compute, and give all of them its numbers: their decisions must not differ by a bit."""
    if world_size() == 1:
        return make()
    from torch import distributed

    box = [make() if is_first_process() else None]
    if distributed.is_initialized():
        distributed.broadcast_object_list(box, src=0)
    found = box[0]
    return make() if found is None else found


def train(
    model: SentenceTransformer,
    rows: TrainingRows,
    maker: LossMaker,
    settings: TrainSettings,
    around: Surroundings,
    *,
    prompts: dict[str, str],
    evaluate: Callable[[], dict[str, float]] | None,
) -> Trained:
    """Train, and leave the best weights in the model.

    Args:
        model: Trained in place; only parameters that require gradients change.
        rows: The training rows.
        maker: The loss.
        settings: The numbers.
        around: Checkpoints, bars, trackers.
        prompts: ``query`` and ``document``: put before the texts.
        evaluate: Metrics of the model as it stands; None: the last weights are the best.

    Raises:
        DatasetError: Nothing can be learned from so few rows.
        TrainingError: The loss is not a number, memory does not suffice, or Ctrl-C was pressed.
        OutputError: A checkpoint cannot be written.
    """
    from llama_index_embft.finetune.full.dropout import dropout_off

    plan = _plan(rows, settings)
    best = BestState(model)
    scratch = Path(tempfile.mkdtemp(prefix="embft-"))
    fused = settings.attention_dropout is False or (settings.attention_dropout is None and model.device.type == "cpu")
    restore_dropout = dropout_off(model, attention=fused, hidden=settings.hidden_dropout is False)
    try:
        # Trackers write beside their run; nothing else does.
        folder = scratch if around.report_to == "none" else around.checkpoints.folder
        trainer, watcher = _trainer(model, rows, maker, settings, around, prompts, evaluate, plan, best, folder)
        _run(trainer, watcher, around)
    finally:
        restore_dropout()
        shutil.rmtree(scratch, ignore_errors=True)
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
    if settings.batch_sampler != "no_false_negatives":
        return None
    plan = BatchPlan(rows.relations, len(rows), settings.batch_size, seed=settings.seed, processes=world_size())
    if in_batch and rows.n_negatives == 0 and plan.largest == 1 < settings.batch_size:
        raise DatasetError(
            f"All {len(rows)} rows of the training set ask about the same passage, or copies of it, so there is "
            "nothing to tell it from; add questions about other passages, or negative_docs."
        )
    return plan


def _trainer(
    model: SentenceTransformer,
    rows: TrainingRows,
    maker: LossMaker,
    settings: TrainSettings,
    around: Surroundings,
    prompts: dict[str, str],
    evaluate: Callable[[], dict[str, float]] | None,
    plan: BatchPlan | None,
    best: BestState,
    folder: Path,
) -> tuple[EngineTrainer, BestStateCallback]:
    from datasets import Dataset
    from transformers.trainer_callback import PrinterCallback

    from llama_index_embft.finetune.full.callbacks import BestStateCallback
    from llama_index_embft.finetune.full.trainer import EngineTrainer

    per_process = max(1, min(settings.batch_size, len(rows)) // world_size())
    documents = [name for name in rows.columns if name not in ("anchor", LABEL)]
    steps = (len(plan) if plan is not None else -(-len(rows) // settings.batch_size)) * settings.epochs
    column_prompts = {"anchor": prompts["query"]} | dict.fromkeys(documents, prompts["document"])
    trainer = EngineTrainer(
        model=model,
        args=_arguments(model, settings, around, folder, steps, per_process, column_prompts),
        train_dataset=Dataset.from_dict(rows.columns),
        maker=maker,
        mini_batch_size=first_mini_batch(settings, per_process, len(documents), model.device.type, model.max_seq_length)
        if maker.can_cache
        else None,
        plan=plan,
        checkpoints=around.checkpoints,
        best=best,
        trainable_only=settings.method == "lora",
    )
    trainer.remove_callback(PrinterCallback)  # it prints dicts to standard output; the result holds them
    watcher = BestStateCallback(
        best,
        None if evaluate is None else lambda: broadcast(evaluate),
        every=settings.evaluation_steps,
        patience=settings.patience,
        sampler=trainer.sampler,
        log=trainer.log if around.report_to != "none" else None,
        save_at_end=around.save_at_end,
    )
    trainer.add_callback(watcher)
    return trainer, watcher


def _run(trainer: EngineTrainer, watcher: BestStateCallback, around: Surroundings) -> None:
    newest = around.checkpoints.newest() if around.resume else None
    if newest is not None:
        state, weights = around.checkpoints.read(newest)
        trainer.best.load(state["best"], weights)
        trainer.use_mini_batches(state["mini_batch_size"])
        if watcher.exhausted:  # it had stopped here
            trainer.state.global_step = state["step"]
            return
    elif around.resume:
        logger.warning("There is no checkpoint in %s; training starts from the beginning.", around.checkpoints.folder)
    if watcher.evaluate is not None and newest is None:
        started = time.perf_counter()
        trainer.best.offer(0, 0.0, watcher.evaluate())
        watcher.evaluate_seconds += time.perf_counter() - started
    try:
        trainer.train(resume_from_checkpoint=str(newest) if newest else None)
    finally:
        watcher.release()
    if watcher.interrupted:
        raise TrainingError(
            f"Stopped by Ctrl-C after step {trainer.state.global_step} of {trainer.state.max_steps}; the state is in "
            f"{around.checkpoints.newest()}: make the same call with resume_from_checkpoint=True "
            "(--resume-from-checkpoint) to go on."
        )


def _arguments(
    model: SentenceTransformer,
    settings: TrainSettings,
    around: Surroundings,
    folder: Path,
    steps: int,
    per_process: int,
    prompts: dict[str, str],
) -> SentenceTransformerTrainingArguments:
    from sentence_transformers import SentenceTransformerTrainingArguments

    on_cpu = model.device.type == "cpu"
    options: dict[str, Any] = {}
    if settings.gradient_checkpointing:  # named only when used: its name is about to change in transformers
        options = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}}
    sampler = settings.batch_sampler if settings.batch_sampler != "no_false_negatives" else "batch_sampler"
    return SentenceTransformerTrainingArguments(
        output_dir=str(folder),
        run_name=around.name,
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=per_process,
        learning_rate=settings.learning_rate or LEARNING_RATES[settings.method],
        weight_decay=settings.weight_decay,
        warmup_steps=max(1, round(steps * settings.warmup)) if settings.warmup else 0,
        lr_scheduler_type="linear",
        batch_sampler=sampler,
        prompts=prompts if any(prompts.values()) else None,
        bf16=use_bf16(settings.bf16, model.device.type),
        tf32=True if _has_tf32(model.device.type) else None,
        torch_compile=settings.compile,
        use_cpu=on_cpu,
        ddp_backend="gloo" if on_cpu and world_size() > 1 else None,
        save_strategy="steps" if around.save_checkpoints else "no",
        save_steps=settings.checkpoint_save_steps,
        save_total_limit=None,  # our own pruning
        logging_steps=max(1, min(10, steps // settings.epochs)),
        logging_nan_inf_filter=False,  # it would show a NaN as 0
        disable_tqdm=not around.progress,
        report_to=around.report_to if isinstance(around.report_to, str) else list(around.report_to),
        seed=settings.seed,
        **options,
    )


def use_bf16(wanted: bool | None, device: str) -> bool:
    """Whether to compute in bfloat16 under autocast: as asked, else where the device multiplies it faster.

    That is on GPUs from Ampere on, and on CPUs with AMX. Validation after two steps of 64 Lyft pairs differed by 0.0001
    from float32.
    """
    import torch

    if wanted is not None:
        return wanted
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    has_amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    return device == "cpu" and bool(has_amx())


def _has_tf32(device: str) -> bool:
    import torch

    return device == "cuda" and torch.cuda.get_device_capability()[0] >= 8
