"""sentence-transformers' trainer, with our batches, atomic checkpoints, and a way out of full memory."""

from __future__ import annotations

import gc
import logging
import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from sentence_transformers import SentenceTransformerTrainer
from sentence_transformers.base.sampler import DefaultBatchSampler

from llama_index_embft.errors import TrainingError
from llama_index_embft.finetune.full.training.arguments import tf32
from llama_index_embft.finetune.full.training.checkpoints import PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from llama_index_embft.finetune.full.data.batches import BatchPlan
    from llama_index_embft.finetune.full.losses.choosing import LossMaker
    from llama_index_embft.finetune.full.training.checkpoints import Checkpoints
    from llama_index_embft.finetune.validation import BestState

logger = logging.getLogger(__name__)

LORA_FILE: Final = "trainable.safetensors"
_NO_MEMORY: Final = ("not enough memory", "can't allocate memory", "cannot allocate memory", "out of memory")


class BatchPlanSampler(DefaultBatchSampler):
    """Serves the batches of a `BatchPlan`.

    Args:
        dataset: The rows.
        plan: Their batches.
        processes: A batch is served as so many parts, one after another, each to a process.
    """

    def __init__(self, dataset: Any, plan: BatchPlan, processes: int) -> None:
        super().__init__(dataset, batch_size=1, drop_last=False)
        self.batch_size = None  # type: ignore[assignment]  # they differ; accelerate hands out ragged batches only where it sees no size
        self.plan = plan
        self.processes = processes

    @property
    def steps(self) -> int:
        """Optimizer steps of an epoch."""
        return len(self.plan)

    def __iter__(self) -> Iterator[list[int]]:
        """The epoch's batches."""
        return iter(self.plan.parts(self.epoch))

    def __len__(self) -> int:
        """Parts of an epoch."""
        return len(self.plan) * self.processes


class EngineTrainer(SentenceTransformerTrainer):
    """The trainer of one run.

    Args:
        maker: Makes the loss.
        mini_batch_size: Its first mini-batch size; None: the whole batch at once.
        plan: The batches; None leaves them to ``args.batch_sampler``.
        checkpoints: Where checkpoints go.
        best: Goes into each checkpoint.
        trainable_only: Put only the trainable weights into checkpoints (LoRA).
        options: Of `SentenceTransformerTrainer`.
    """

    def __init__(
        self,
        *,
        maker: LossMaker,
        mini_batch_size: int | None,
        plan: BatchPlan | None,
        checkpoints: Checkpoints,
        best: BestState,
        trainable_only: bool,
        **options: Any,
    ) -> None:
        self.maker = maker
        self.mini_batch_size = mini_batch_size
        self.plan = plan
        self.checkpoints = checkpoints
        self.best = best
        self.trainable_only = trainable_only
        self._filling: Path | None = None
        super().__init__(loss=maker.make(mini_batch_size), **options)
        self.sampler = None if plan is None else BatchPlanSampler(self.train_dataset, plan, self.args.world_size)

    def get_batch_sampler(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        """Our batches, unless others were asked for."""
        if self.plan is None:
            return super().get_batch_sampler(dataset, *args, **kwargs)
        return self.sampler

    def use_mini_batches(self, size: int | None) -> None:
        """Make the loss anew, with another mini-batch size."""
        if size != self.mini_batch_size and self.maker.can_cache:
            self.mini_batch_size = size
            self.loss = self.prepare_loss(self.maker.make(size), self.model)  # type: ignore[assignment]

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
                smaller = self._smaller(len(next(v for v in inputs.values() if isinstance(v, torch.Tensor))), err)
            # Outside the handler, whose traceback keeps the tensors of the failed step alive.
            model.zero_grad(set_to_none=True)
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self.use_mini_batches(smaller)
            _restore_random_state(state)
        if not math.isfinite(float(loss)):
            raise TrainingError(self._not_finite(float(loss)))
        return loss

    def _smaller(self, rows: int, err: BaseException) -> int:
        now = min(self.mini_batch_size or rows, rows)
        if not self.maker.can_cache or self.args.world_size > 1:
            raise TrainingError(
                f"A batch of {rows} rows does not fit in memory, and {self.maker.name} cannot be cut here; lower "
                "batch_size, give mini_batch_size, or shorten texts with max_seq_length."
            ) from err
        if now == 1:
            raise TrainingError(
                "Not even one row fits in memory; shorten texts with max_seq_length, turn gradient_checkpointing on, "
                "or take a smaller model."
            ) from err
        logger.warning(
            "A batch of %d rows does not fit in memory in mini-batches of %d; going on with %d (the batch stays whole, "
            "each step costs a forward pass more).",
            rows,
            now,
            -(-now // 2),
        )
        return -(-now // 2)

    def _not_finite(self, loss: float) -> str:
        step = self.state.global_step
        where = ""
        if self.sampler is not None and self.plan is not None:
            epoch, number = divmod(step, len(self.plan))
            rows: Any = self.train_dataset
            first = rows[self.plan.epoch(epoch)[number][0]]["anchor"]
            where = f", batch {number + 1} of epoch {epoch + 1}, which begins with the question {first[:80]!r}"
        good = self.checkpoints.newest()
        kept = f" The last good checkpoint is {good}." if good else ""
        return (
            f"The loss is {loss} at step {step + 1}{where}; lower learning_rate ({self.args.learning_rate}) or train "
            f"in float32 (bf16=False).{kept}"
        )

    # --- checkpoints --------------------------------------------------------------------------------------------------

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._filling) if self._filling is not None else str(super()._get_output_dir(trial))

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        step = self.state.global_step
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
                super(EngineTrainer, self)._save_checkpoint(model, trial)
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

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        if not self.trainable_only:
            super()._save(output_dir, state_dict)
            return
        from safetensors.torch import save_file

        folder = Path(str(output_dir or self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        trained = {name: p.detach().contiguous() for name, p in self.model.named_parameters() if p.requires_grad}
        save_file(trained, str(folder / LORA_FILE))

    def _load_from_checkpoint(self, checkpoint_path: str) -> None:  # type: ignore[override]
        if not self.trainable_only:
            super()._load_from_checkpoint(checkpoint_path)
            return
        from safetensors.torch import load_file

        self.model.load_state_dict(load_file(str(Path(checkpoint_path) / LORA_FILE)), strict=False)


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
