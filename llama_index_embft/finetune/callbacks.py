"""Trainer callback: validate, remember the best weights, stop early, and survive a kill."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from transformers import TrainerCallback

from llama_index_embft._files import atomic_write_text
from llama_index_embft.errors import TrainingError

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import TrainerControl, TrainerState, TrainingArguments

    from llama_index_embft.finetune.validation import BestState

STATE_FILE: Final = "embft_best.json"
WEIGHTS_FILE: Final = "embft_best.safetensors"


class BestStateCallback(TrainerCallback):
    """Evaluates every n steps, or once an epoch, and at the end.

    Args:
        best: Where evaluations go.
        evaluate: Metrics of the model as it stands; None: only the loss is watched.
        every: Optimizer steps between two evaluations; None: once an epoch.
        patience: Evaluations without a better score before training stops.
    """

    def __init__(
        self,
        best: BestState,
        evaluate: Callable[[], dict[str, float]] | None,
        *,
        every: int | None,
        patience: int,
    ) -> None:
        self.best = best
        self.evaluate = evaluate
        self.every = every
        self.patience = patience
        self.evaluate_seconds = 0.0
        self._evaluated_at = -1

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Evaluate when it is time: here, and not at the end of the epoch, because checkpoints are saved in between."""
        every = self.every or max(1, round(state.max_steps / args.num_train_epochs))
        if state.global_step % every == 0 or state.global_step >= state.max_steps:
            self._evaluate(state, control)
        return control

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Stop at a loss that is not a number: nothing after it can be of use."""
        loss = float((logs or {}).get("loss", 0.0))
        if not math.isfinite(loss):
            raise TrainingError(
                f"The loss is {loss} at step {state.global_step}; lower learning_rate ({args.learning_rate}) or train "
                "in float32 (bf16=False)."
            )

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Put the best weights so far into the checkpoint, so that a resumed run can still return them."""
        from safetensors.torch import save_file

        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        if folder.is_dir() and self.best.weights is not None:
            save_file({k: v.contiguous() for k, v in self.best.weights.items()}, str(folder / WEIGHTS_FILE))
            atomic_write_text(folder / STATE_FILE, json.dumps(self.best.state()))
        return control

    def resume(self, checkpoint: Path) -> None:
        """Take over what `on_save` left in a checkpoint."""
        from safetensors.torch import load_file

        if (checkpoint / STATE_FILE).is_file():
            state = json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8"))
            self.best.load(state, dict(load_file(str(checkpoint / WEIGHTS_FILE))))

    def _evaluate(self, state: TrainerState, control: TrainerControl) -> None:
        if self.evaluate is None or state.global_step == self._evaluated_at:
            return
        self._evaluated_at = state.global_step
        started = time.perf_counter()
        losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
        more = {"loss": losses[-1]} if losses else {}
        self.best.offer(state.global_step, state.epoch or 0.0, self.evaluate(), **more)
        self.evaluate_seconds += time.perf_counter() - started
        since = [entry["step"] > self.best.step for entry in self.best.history].count(True)
        if since >= self.patience:
            control.should_training_stop = True
