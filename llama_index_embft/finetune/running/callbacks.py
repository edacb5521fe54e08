"""Trainer callback: validate, remember the best weights, stop early, and stop at Ctrl-C with a checkpoint."""

from __future__ import annotations

import signal
import threading
import time
from typing import TYPE_CHECKING, Any, Protocol

from transformers import TrainerCallback
from transformers.trainer_callback import ProgressCallback

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import TrainerControl, TrainerState, TrainingArguments

    from llama_index_embft.finetune.validation import BestState


class EpochSampler(Protocol):
    """Serves an epoch's batches once it knows which epoch it is."""

    @property
    def steps(self) -> int:
        """Optimizer steps of an epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch."""


class LossBar(ProgressCallback):
    """The trainer's bar, with the loss behind it instead of dicts on standard output."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Show the loss."""
        if self.training_bar is not None and logs and "loss" in logs:
            self.training_bar.set_postfix_str(f"loss {logs['loss']:.3f}", refresh=False)


class BestStateCallback(TrainerCallback):
    """Evaluates every n steps, or once an epoch, and at the end.

    Args:
        best: Where evaluations go.
        evaluate: Metrics of the model as it stands; None: only the loss is watched.
        every: Optimizer steps between two evaluations; None: once an epoch.
        patience: Evaluations without a better score before training stops.
        sampler: Told which epoch begins; None where the sampler is not ours.
        log: Takes the metrics of each evaluation, for TensorBoard and the like.
        save_at_end: Save a checkpoint after the last step.

    Attributes:
        evaluate_seconds: Time spent in `evaluate`.
        interrupted: Whether Ctrl-C was pressed.
    """

    def __init__(
        self,
        best: BestState,
        evaluate: Callable[[], dict[str, float]] | None,
        *,
        every: int | None,
        patience: int,
        sampler: EpochSampler | None = None,
        log: Callable[[dict[str, float]], None] | None = None,
        save_at_end: bool = False,
    ) -> None:
        self.best = best
        self.evaluate = evaluate
        self.every = every
        self.patience = patience
        self.sampler = sampler
        self.log = log
        self.save_at_end = save_at_end
        self.evaluate_seconds = 0.0
        self.interrupted = False
        self._evaluated_at = -1
        self._old_handler: Any = None

    @property
    def exhausted(self) -> bool:
        """Whether patience has run out."""
        if self.best.score is None:
            return False
        return [entry["step"] > self.best.step for entry in self.best.history].count(True) >= self.patience

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Let the first Ctrl-C end training after the step at hand; the second one ends the program as ever."""
        if threading.current_thread() is threading.main_thread():
            self._old_handler = signal.signal(signal.SIGINT, self._interrupt)

    def release(self) -> None:
        """Give Ctrl-C back."""
        if self._old_handler is not None:
            signal.signal(signal.SIGINT, self._old_handler)
            self._old_handler = None

    def _interrupt(self, *_: Any) -> None:
        self.interrupted = True
        self.release()

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Choose the epoch's batches: in several processes the Trainer does not reach the sampler after a resume."""
        if self.sampler is not None:
            self.sampler.set_epoch(state.global_step // self.sampler.steps)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Evaluate when it is time: here, and not at the end of the epoch, because checkpoints are saved in between."""
        every = self.every or max(1, round(state.max_steps / args.num_train_epochs))
        if state.global_step % every == 0 or state.global_step >= state.max_steps:
            self._evaluate(state, control)
        if self.interrupted:
            control.should_save = control.should_training_stop = True
        ends = control.should_training_stop or state.global_step >= state.max_steps
        control.should_save |= self.save_at_end and ends
        return control

    def _evaluate(self, state: TrainerState, control: TrainerControl) -> None:
        if self.evaluate is None or state.global_step == self._evaluated_at:
            return
        self._evaluated_at = state.global_step
        started = time.perf_counter()
        losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
        more = {"loss": losses[-1]} if losses else {}
        metrics = self.evaluate()
        self.best.offer(state.global_step, state.epoch or 0.0, metrics, **more)
        self.evaluate_seconds += time.perf_counter() - started
        if self.log is not None:
            # MLflow takes no "@" in a name.
            self.log({f"eval_{name.replace('@', '_at_')}": value for name, value in metrics.items()})
        if self.exhausted:
            control.should_training_stop = True
