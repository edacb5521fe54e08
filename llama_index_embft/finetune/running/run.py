"""A trainer's run from its first measurement to its last step, with a way back after an interruption."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llama_index_embft.errors import TrainingError

if TYPE_CHECKING:
    from llama_index_embft.finetune.running.callbacks import BestStateCallback
    from llama_index_embft.finetune.running.checkpoints import Checkpoints
    from llama_index_embft.finetune.running.trainer import ResumableTrainer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunEnvironment:
    """What is around a run and does not decide its course.

    Attributes:
        checkpoints: Where checkpoints go.
        name: Of the run, for the trackers.
        save_checkpoints: Whether they are written every few steps; Ctrl-C writes one in any case.
        save_at_end: Whether one is written after the last step.
        resume: Whether to go on from the newest.
        progress: Whether to show bars.
    """

    checkpoints: Checkpoints
    name: str
    save_checkpoints: bool = False
    save_at_end: bool = False
    resume: bool = False
    progress: bool = True


def run_trainer(
    trainer: ResumableTrainer,
    watcher: BestStateCallback,
    environment: RunEnvironment,
    *,
    before: dict[str, float] | None = None,
) -> None:
    """Measure the model as it comes, train, or go on from a checkpoint; the best state is in ``trainer.best``.

    Args:
        trainer: Of the run.
        watcher: Measures on the way.
        environment: Checkpoints.
        before: Figures of the model as it comes, where they are known; None: it is measured.

    Raises:
        ConfigError: The checkpoint belongs to another run.
        TrainingError: Training failed, or Ctrl-C was pressed.
    """
    checkpoints = environment.checkpoints
    resumed = checkpoints.resume() if environment.resume else None
    if resumed is not None:
        trainer.best.load(resumed.state["best"], resumed.weights)
        trainer.use_mini_batches(resumed.state["mini_batch_size"])
        if watcher.exhausted:  # it had stopped here
            trainer.state.global_step = resumed.state["step"]
            return
    elif environment.resume:
        logger.warning("There is no checkpoint in %s; training starts from the beginning.", checkpoints.folder)
    if (evaluate := watcher.evaluate) is not None:

        def evaluate_sound_weights() -> dict[str, float]:
            trainer.look_at_losses()  # a loss without a value names its step; broken weights would name a text
            return evaluate()

        watcher.evaluate = evaluate_sound_weights
    if watcher.evaluate is not None and resumed is None:
        started = time.perf_counter()
        trainer.best.offer(0, 0.0, watcher.evaluate() if before is None else before)
        watcher.evaluate_seconds += time.perf_counter() - started
    try:
        trainer.train(resume_from_checkpoint=str(resumed.path) if resumed else None)
    finally:
        watcher.release()
    if watcher.interrupted:
        raise TrainingError(
            f"Stopped by Ctrl-C after step {trainer.state.global_step} of {trainer.state.max_steps}; the state is in "
            f"{checkpoints.newest()}: make the same call with resume_from_checkpoint=True "
            "(--resume-from-checkpoint) to go on."
        )
