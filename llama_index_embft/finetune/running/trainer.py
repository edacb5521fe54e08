"""A trainer of sentence-transformers with atomic checkpoints, a way out of full memory, and no silent NaN."""

from __future__ import annotations

import gc
import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from sentence_transformers.base.trainer import BaseTrainer
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from llama_index_embft.embeddings.encoding.masks import masks_without_looking
from llama_index_embft.errors import TrainingError
from llama_index_embft.finetune.running.arguments import tf32
from llama_index_embft.finetune.running.callbacks import LossBar
from llama_index_embft.finetune.running.checkpoints import PREFIX
from llama_index_embft.finetune.running.tokens import KeptTokens, read_ahead

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from llama_index_embft.finetune.running.checkpoints import Checkpoints
    from llama_index_embft.finetune.validation import BestState

LORA_FILE: Final = "trainable.safetensors"
_LOOK_EVERY: Final = 10
_NO_MEMORY: Final = ("not enough memory", "can't allocate memory", "cannot allocate memory", "out of memory")


class ResumableTrainer(BaseTrainer):
    """What the trainers of embedding models and of rerankers share; stands before that of sentence-transformers.

    Args:
        checkpoints: Where checkpoints go.
        best: Goes into each checkpoint.
        trainable_only: Put only the trainable weights into checkpoints (LoRA).
        mini_batch_size: Rows computed with gradients at a time; None: the whole batch.
        options: Of the trainer.
    """

    def __init__(
        self,
        *,
        checkpoints: Checkpoints,
        best: BestState,
        trainable_only: bool,
        mini_batch_size: int | None,
        **options: Any,
    ) -> None:
        self.checkpoints = checkpoints
        self.best = best
        self.trainable_only = trainable_only
        self.mini_batch_size = mini_batch_size
        self._filling: Path | None = None
        self._losses: list[tuple[int, torch.Tensor]] = []
        self._rows_of_step = 0
        super().__init__(**options)
        # Both print dicts to standard output, where a command's JSON stands; the result holds them.
        self.remove_callback(PrinterCallback)
        if self.pop_callback(ProgressCallback) is not None:
            self.add_callback(LossBar)
        # Reading a number from a GPU waits for all work that was sent there, so many are read at once.
        self.look_every = 1 if self.args.device.type == "cpu" else _LOOK_EVERY
        # Beside a GPU nothing in a step may wait for it, nor it for the tokenizer.
        self.ahead = self.args.device.type == "cuda"

    def get_data_collator(self, model: Any, *args: Any, **kwargs: Any) -> Any:
        """The usual one, with our way to token ids, which reads no text twice."""
        collator = super().get_data_collator(model, *args, **kwargs)
        collator.preprocess_fn = self.tokens = KeptTokens(model)
        return collator

    # --- a step -------------------------------------------------------------------------------------------------------

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """A step that tries again with smaller mini-batches when memory runs out, and refuses a loss without a value.

        Raises:
            TrainingError: The loss is not a finite number, or one row is too much for the memory.
        """
        while True:
            state = _random_state()
            try:
                with tf32(self.args.device):
                    loss: torch.Tensor = super().training_step(model, dict(inputs), num_items_in_batch)
                break
            except (RuntimeError, MemoryError) as err:
                if not is_out_of_memory(err):
                    raise
                smaller = self.smaller(inputs, err)
            # Outside the handler, whose traceback keeps the tensors of the failed step alive.
            model.zero_grad(set_to_none=True)
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self.use_mini_batches(smaller)
            _restore_random_state(state)
        self._losses.append((self.state.global_step, loss.detach()))
        if len(self._losses) >= self.look_every:
            self.look_at_losses()
        return loss

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train; the losses that nobody has looked at are looked at in the end."""
        batches = self.first_batches() if self.ahead else []
        with (
            masks_without_looking(self.model, self.ahead and not self.args.torch_compile),
            read_ahead(self.tokens, self.data_collator, self.train_dataset, batches),
        ):
            result = super().train(*args, **kwargs)
        self.look_at_losses()
        return result

    def first_batches(self) -> Sequence[Sequence[int]]:
        """Row numbers of the first epoch's batches, as far as they are known beforehand: their texts are read ahead."""
        return []

    def look_at_losses(self) -> None:
        """Refuse a loss without a value.

        Raises:
            TrainingError: One is not a finite number.
        """
        seen, self._losses = self._losses, []
        if not seen:
            return
        values = torch.stack([loss for _, loss in seen]).tolist()
        for (step, _), value in zip(seen, values, strict=True):
            if not math.isfinite(value):
                good = self.checkpoints.newest(step)
                kept = f" The last good checkpoint is {good}." if good else ""
                raise TrainingError(
                    f"The loss is {value} at step {step + 1}{self.place(step)}; lower learning_rate "
                    f"({self.args.learning_rate}) or train in float32 (bf16=False).{kept}"
                )

    def get_batch_samples(self, *args: Any, **options: Any) -> Any:
        """The parts of a step; how many rows they have together is kept for `compute_loss`."""
        samples, items = super().get_batch_samples(*args, **options)
        self._rows_of_step = sum(_rows(part) for part in samples)
        return samples, items

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **options: Any) -> Any:
        """The loss of a part, with its share of the step's rows.

        The Trainer takes the mean over the parts of a step, and the last part of an epoch may have fewer rows: each of
        them would count for several.
        """
        parts, rows = self.current_gradient_accumulation_steps, _rows(inputs)
        loss = super().compute_loss(model, inputs, *args, **options)
        if parts == 1 or not self.model.training or rows * parts == self._rows_of_step:
            return loss
        weighted: torch.Tensor = loss * (rows * parts / self._rows_of_step)  # type: ignore[operator]  # in training it is a tensor
        return weighted

    def smaller(self, inputs: dict[str, Any], err: BaseException) -> int:  # noqa: ARG002 - for those that can
        """The mini-batch size to go on with after memory ran out.

        Raises:
            TrainingError: The batch cannot be cut.
        """
        raise TrainingError(
            "A batch does not fit in memory; lower batch_size or mini_batch_size, shorten texts, or turn "
            "gradient_checkpointing on."
        ) from err

    def use_mini_batches(self, size: int | None) -> None:
        """Go on with another mini-batch size."""
        self.mini_batch_size = size

    def place(self, step: int) -> str:  # noqa: ARG002 - for those that know
        """Where a step was, counted from 0, for messages."""
        return ""

    # --- checkpoints --------------------------------------------------------------------------------------------------

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._filling) if self._filling is not None else str(super()._get_output_dir(trial))

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        step = self.state.global_step
        self.look_at_losses()
        if any(not torch.isfinite(parameter).all() for parameter in self.model.parameters()):
            raise TrainingError(
                f"The weights are not finite after step {step}; lower learning_rate ({self.args.learning_rate})."
            )
        if self.args.world_size > 1:
            self._save_in_all_processes(model, trial)
            return

        def fill(folder: Path) -> None:
            self._filling = folder
            try:
                super(ResumableTrainer, self)._save_checkpoint(model, trial)
            finally:
                self._filling = None
            inner = folder / f"{PREFIX}{step}"
            for file in inner.iterdir():
                file.rename(folder / file.name)
            inner.rmdir()

        self.checkpoints.write(step, fill, self._own_state(), self.best.weights)

    def _save_in_all_processes(self, model: nn.Module, trial: Any) -> None:
        """Each process has random states of its own to save, so they fill one folder, and the first one moves it."""
        step = self.state.global_step
        self._filling = self.checkpoints.folder / ".embft-shared.tmp"
        try:
            super()._save_checkpoint(model, trial)
        finally:
            shared, self._filling = self._filling, None
        torch.distributed.barrier()
        if self.is_world_process_zero():

            def fill(folder: Path) -> None:
                for file in (shared / f"{PREFIX}{step}").iterdir():
                    shutil.move(str(file), folder / file.name)

            self.checkpoints.write(step, fill, self._own_state(), self.best.weights)
        torch.distributed.barrier()

    def _own_state(self) -> dict[str, Any]:
        return {"best": self.best.state(), "mini_batch_size": self.mini_batch_size, "step": self.state.global_step}

    def add_model_card_callback(self, *args: Any) -> None:
        """None: the engines write cards of their own, and this one tokenises a thousand rows for its examples."""

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:  # noqa: ARG002 - the Trainer's interface
        folder = Path(str(output_dir or self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        if not self.trainable_only:
            self.model.save_pretrained(str(folder), create_model_card=False)  # a card took longer than a small model
            return
        from safetensors.torch import save_file

        trained = {name: p.detach().contiguous() for name, p in self.model.named_parameters() if p.requires_grad}
        save_file(trained, str(folder / LORA_FILE))

    def _load_from_checkpoint(self, checkpoint_path: str) -> None:  # type: ignore[override]
        if not self.trainable_only:
            super()._load_from_checkpoint(checkpoint_path)
            return
        from safetensors.torch import load_file

        self.model.load_state_dict(load_file(str(Path(checkpoint_path) / LORA_FILE)), strict=False)


def equal_parts(rows: int, at_once: int | None) -> int:
    """Into how many parts of one size a batch is cut, so that a step has as many rows as was asked for.

    Args:
        rows: Of the batch.
        at_once: Most rows of a part; None: the whole batch.
    """
    most = min(rows, at_once or rows)
    return next(n for n in range(-(-rows // most), rows + 1) if rows % n == 0)


def _rows(inputs: dict[str, Any]) -> int:
    """Rows of a part, by its labels, which every loss that is computed in parts has."""
    labels = inputs.get("label")
    return 0 if labels is None else len(labels)


def is_out_of_memory(err: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or on the CPU."""
    if isinstance(err, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    return any(text in str(err).lower() for text in _NO_MEMORY)


def _random_state() -> tuple[Any, ...]:
    return torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_available() else None


def _restore_random_state(state: tuple[Any, ...]) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state_all(state[1])
