"""The training loop of adapters: vectors in, weights out, no texts and no files.

Each query is scored against all candidate documents (InfoNCE, van den Oord et al., arXiv 1807.03748), not only against
the few of its batch: the vectors are all there, so a matrix product gives every negative at once.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from llama_index_embft.errors import TrainingError
from llama_index_embft.finetune.adapter.candidates import HardNegatives, NegativePool, with_duplicates
from llama_index_embft.finetune.adapter.data import AdapterData
from llama_index_embft.finetune.adapter.settings import MAX_NEGATIVES, MAX_NEGATIVES_BOTH_SIDES
from llama_index_embft.finetune.validation import BestState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from llama_index_embft.finetune.adapter.settings import AdapterOptions, AdapterSettings

# Bounds of a learned temperature: below, the loss only sees the hardest negative; above, none.
_TEMPERATURES: Final = (0.005, 1.0)


def train_adapter(
    adapter: nn.Module,
    queries: NDArray[np.float32],
    corpus: NDArray[np.float32],
    positives: Sequence[Sequence[int]],
    options: AdapterOptions,
    settings: AdapterSettings,
    *,
    both_sides: bool = False,
    hard_negatives: Sequence[Sequence[int]] | None = None,
    candidates: int | None = None,
    validate: Callable[[nn.Module], dict[str, float]] | None = None,
    make_optimizer: Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer] | None = None,
    device: str = "cpu",
    on_step: Callable[[int, float], None] | None = None,
    last_epoch: int | None = None,
    deadline: float | None = None,
) -> tuple[BestState, int]:
    """Train an adapter, in place.

    Args:
        adapter: Module that maps ``(n, dim)`` to ``(n, dim_out)``; starts where it stands.
        queries: Shape ``(n_queries, dim)``.
        corpus: Shape ``(n_docs, dim_out)``, or ``(n_docs, dim)`` where both sides go through the adapter. A
            memory-mapped array stays on the disk if there are more candidates than `max_negatives`.
        positives: For each query the corpus rows that are relevant. They are never its negatives; nor is a document
            whose vector equals that of a positive.
        options: Batch size, epochs, learning rate and seed are read.
        settings: See `AdapterSettings`.
        both_sides: Send the documents through the adapter too.
        hard_negatives: For each query further corpus rows to compare it, and no other query, with.
        candidates: How many rows of the corpus, from the first, are compared with every query; None: all.
        validate: Called before training and after each epoch; the best state is put back at the end. Without it the
            last state stays.
        make_optimizer: Builds the optimizer from the parameters; None: AdamW without weight decay, which would pull
            towards zero instead of the start.
        device: Torch device.
        on_step: Called after each step with its number and the loss.
        last_epoch: Stop after this epoch, on the learning rates of the full number.
        deadline: Stop after the first epoch that ends later, by `time.perf_counter`.

    Returns:
        The evaluations with the best state, and the number of steps.

    Raises:
        TrainingError: The loss is not a number.
    """
    import torch
    from torch.nn import functional

    data = AdapterData(
        queries,
        corpus,
        [list(rows) for rows in positives],
        [list(rows) for rows in hard_negatives] if hard_negatives is not None else [[] for _ in positives],
        len(corpus) if candidates is None else candidates,
    )
    generator = torch.Generator().manual_seed(options.seed)
    adapter.to(device)
    start = [parameter.detach().clone() for parameter in adapter.parameters()]
    parameters = list(adapter.parameters())
    log_temperature = torch.tensor(math.log(settings.temperature), device=device)
    learned = [torch.nn.Parameter(log_temperature)] if settings.learn_temperature else []
    optimizer = (
        make_optimizer([*parameters, *learned])
        if make_optimizer
        else _adamw(parameters, learned, options.learning_rate)
    )
    limit = settings.max_negatives or (MAX_NEGATIVES_BOTH_SIDES if both_sides else MAX_NEGATIVES)
    loss_of = _Loss(adapter, data, limit, device, generator, both_sides=both_sides)
    pairs = torch.tensor([(q, p) for q, rows in enumerate(data.positives) for p in rows], dtype=torch.long)
    steps_per_epoch = -(-len(pairs) // options.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _linear_decay(max(1, steps_per_epoch * options.epochs)))
    best = BestState(adapter)
    if validate is not None:
        best.offer(0, 0, validate(adapter))
    step, since_best = 0, 0
    for epoch in range(1, min(options.epochs, last_epoch if last_epoch is not None else options.epochs) + 1):
        adapter.train()
        losses = []
        order = torch.randperm(len(pairs), generator=generator)
        for batch in torch.split(order, options.batch_size):
            logits, labels = loss_of.logits(pairs[batch, 0], pairs[batch, 1])
            loss = functional.cross_entropy(logits / (learned[0] if learned else log_temperature).exp(), labels)
            if not torch.isfinite(loss):
                raise TrainingError(
                    f"The loss is {loss.item()} at step {step + 1}; lower learning_rate ({options.learning_rate}) "
                    "and check the embeddings for NaN."
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm)
            optimizer.step()
            for parameter in learned:
                with torch.no_grad():
                    parameter.clamp_(*map(math.log, _TEMPERATURES))
            schedule.step()
            if settings.pull_to_start:
                _pull(parameters, start, float(schedule.get_last_lr()[0]) * settings.pull_to_start)
            step += 1
            losses.append(loss.item())
            if on_step is not None:
                on_step(step, losses[-1])
        entry = {"loss": float(np.mean(losses))}
        if learned:
            entry["temperature"] = float(learned[0].exp().item())
        if validate is not None:
            is_best = best.offer(step, epoch, validate(adapter), **entry)
            since_best = 0 if is_best else since_best + 1
            if since_best >= settings.patience:
                break
        else:
            best.history.append({"step": step, "epoch": epoch, **entry})
        if deadline is not None and time.perf_counter() > deadline:
            break
    best.restore()
    return best, step


class _Loss:
    """Similarities of a batch of queries with everything that they are compared with.

    Args:
        adapter: The module in training.
        data: Vectors and who belongs to whom.
        limit: Documents that are compared at once.
        device: Torch device.
        generator: Draws the sampled negatives.
        both_sides: Send the documents through the adapter too.
    """

    def __init__(
        self, adapter: nn.Module, data: AdapterData, limit: int, device: str, generator: Any, *, both_sides: bool
    ) -> None:
        import torch

        self._adapter, self._both_sides, self._device = adapter, both_sides, device
        self._queries = torch.as_tensor(data.queries, dtype=torch.float32, device=device)
        self._masked = with_duplicates(data.documents, data.positives)
        scale = not both_sides  # what goes through the adapter goes as the base model gave it
        self._pool = NegativePool(data, limit, device, generator, scale=scale)
        self._hard = HardNegatives(data, self._masked, skip_candidates=self._pool.whole, device=device, scale=scale)

    def logits(self, rows: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines of shape ``(batch, n)``, -inf where a document must not count, and the column of each positive."""
        import torch
        from torch.nn import functional

        turned = functional.normalize(self._adapter(self._queries[rows.to(self._device)]), dim=1)
        chosen, labels = self._pool.for_batch(targets)
        logits = turned @ self._turned(chosen).T
        at_rows, at_columns = [], []
        for position, (row, target) in enumerate(zip(rows.tolist(), targets.tolist(), strict=True)):
            for document in self._masked[row]:
                if document != target:
                    for column in self._pool.columns(int(document)):
                        at_rows.append(position)
                        at_columns.append(column)
        if at_rows:
            logits[
                torch.tensor(at_rows, device=self._device), torch.tensor(at_columns, device=self._device)
            ] = -torch.inf
        extra = self._hard.for_batch(rows)
        if extra is not None:
            vectors, place, absent = extra
            scores = torch.einsum("bd,bhd->bh", turned, self._turned(vectors)[place])
            logits = torch.cat([logits, scores.masked_fill(absent, -torch.inf)], dim=1)
        return logits, labels.to(self._device)

    def _turned(self, documents: Tensor) -> Tensor:
        from torch.nn import functional

        return functional.normalize(self._adapter(documents), dim=1) if self._both_sides else documents


def _adamw(
    parameters: list[torch.nn.Parameter], learned: list[torch.nn.Parameter], learning_rate: float
) -> torch.optim.Optimizer:
    import torch

    groups: list[dict[str, Any]] = [{"params": parameters}]
    if learned:
        # One number that starts near where it ends: at the matrix's small steps it would never arrive.
        groups.append({"params": learned, "lr": 10 * learning_rate})
    # Fused: one kernel a step in place of a dozen small ones, which cost more than the matrix products do.
    return torch.optim.AdamW(groups, lr=learning_rate, weight_decay=0.0, fused=True)


def _linear_decay(steps: int) -> Callable[[int], float]:
    warmup = max(1, steps // 10)
    return lambda step: min((step + 1) / warmup, max(0.0, (steps - step) / max(1, steps - warmup)))


def _pull(parameters: list[torch.nn.Parameter], start: list[Tensor], amount: float) -> None:
    """Move the weights a little back to where they began (L2-SP, Li et al., arXiv 1802.01483)."""
    import torch

    with torch.no_grad():
        for parameter, origin in zip(parameters, start, strict=True):
            parameter.lerp_(origin, min(1.0, amount))
