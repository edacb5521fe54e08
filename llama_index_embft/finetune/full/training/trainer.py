"""The trainer of embedding models, with our batches and losses that can be computed in parts."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch
from sentence_transformers import SentenceTransformerTrainer
from sentence_transformers.base.sampler import DefaultBatchSampler

from llama_index_embft.errors import TrainingError
from llama_index_embft.finetune.running.trainer import ResumableTrainer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from llama_index_embft.finetune.full.data.batches import BatchPlan
    from llama_index_embft.finetune.full.losses.choosing import LossMaker

logger = logging.getLogger(__name__)


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


class EngineTrainer(ResumableTrainer, SentenceTransformerTrainer):
    """The trainer of one run.

    Args:
        maker: Makes the loss.
        mini_batch_size: Its first mini-batch size; None: the whole batch at once.
        plan: The batches; None leaves them to ``args.batch_sampler``.
        options: Of `ResumableTrainer` and `SentenceTransformerTrainer`.
    """

    def __init__(
        self,
        *,
        maker: LossMaker,
        mini_batch_size: int | None,
        plan: BatchPlan | None,
        **options: Any,
    ) -> None:
        self.maker = maker
        self.plan = plan
        super().__init__(loss=maker.make(mini_batch_size), mini_batch_size=mini_batch_size, **options)
        self.sampler = None if plan is None else BatchPlanSampler(self.train_dataset, plan, self.args.world_size)

    def get_batch_sampler(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        """Our batches, unless others were asked for."""
        if self.plan is None:
            return super().get_batch_sampler(dataset, *args, **kwargs)
        return self.sampler

    def first_batches(self) -> Sequence[Sequence[int]]:
        """See `ResumableTrainer.first_batches`."""
        return [] if self.plan is None else self.plan.parts(0)[self.args.process_index :: self.args.world_size]

    def use_mini_batches(self, size: int | None) -> None:
        """Make the loss anew, with another mini-batch size."""
        if size != self.mini_batch_size and self.maker.can_cache:
            self.mini_batch_size = size
            self.loss = self.prepare_loss(self.maker.make(size), self.model)  # type: ignore[assignment]

    def smaller(self, inputs: dict[str, Any], err: BaseException) -> int:
        """See `ResumableTrainer.smaller`."""
        rows = len(next(value for value in inputs.values() if isinstance(value, torch.Tensor)))
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

    def place(self, step: int) -> str:
        """See `ResumableTrainer.place`."""
        if self.sampler is None or self.plan is None:
            return ""
        epoch, number = divmod(step, len(self.plan))
        rows: Any = self.train_dataset
        first = rows[self.plan.epoch(epoch)[number][0]]["anchor"]
        return f", batch {number + 1} of epoch {epoch + 1}, which begins with the question {first[:80]!r}"
