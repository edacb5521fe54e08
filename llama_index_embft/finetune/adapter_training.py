"""The training loop of adapters: vectors in, weights out, no texts and no files.

Each query is scored against all candidate documents (InfoNCE, van den Oord et al., arXiv 1807.03748), not only against
the few of its batch: the vectors are all there, so a matrix product gives every negative at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from llama_index_embft.errors import TrainingError
from llama_index_embft.finetune.validation import BestState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch
    from numpy.typing import NDArray
    from torch import Tensor, nn

# Documents a query is compared with at once. Above it each batch draws its own sample: a batch of 64 queries then
# holds 64 x 65,536 scores, 16 MiB.
MAX_NEGATIVES: Final = 65_536


@dataclass(frozen=True)
class AdapterSettings:
    """How an adapter is trained; the defaults are those of `EmbeddingAdapterFinetuneEngine`."""

    epochs: int
    batch_size: int
    learning_rate: float
    temperature: float
    pull_to_start: float
    patience: int
    max_grad_norm: float
    seed: int
    max_negatives: int = MAX_NEGATIVES


def train_adapter(
    adapter: nn.Module,
    queries: NDArray[np.float32],
    corpus: NDArray[np.float32],
    positives: Sequence[Sequence[int]],
    settings: AdapterSettings,
    *,
    validate: Callable[[nn.Module], dict[str, float]] | None = None,
    make_optimizer: Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer] | None = None,
    device: str = "cpu",
    on_step: Callable[[int, float], None] | None = None,
) -> tuple[BestState, int]:
    """Train an adapter on the query side, in place.

    Args:
        adapter: Module that maps ``(n, dim)`` to ``(n, dim_out)``; starts where it stands.
        queries: Shape ``(n_queries, dim)``.
        corpus: Shape ``(n_docs, dim_out)``: the candidates that queries are compared with; stays as it is.
        positives: For each query the corpus rows that are relevant. They are never its negatives; nor is a document
            whose vector equals that of a positive.
        settings: See `AdapterSettings`.
        validate: Called before training and after each epoch; the best state is put back at the end. Without it the
            last state stays.
        make_optimizer: Builds the optimizer from the parameters; None: AdamW without weight decay, which would pull
            towards zero instead of the start.
        device: Torch device.
        on_step: Called after each step with its number and the loss.

    Returns:
        The evaluations with the best state, and the number of steps.

    Raises:
        TrainingError: The loss is not a number.
    """
    import torch
    from torch.nn import functional

    generator = torch.Generator().manual_seed(settings.seed)
    adapter.to(device)
    start = [parameter.detach().clone() for parameter in adapter.parameters()]
    parameters = list(adapter.parameters())
    optimizer = (
        make_optimizer(parameters)
        if make_optimizer
        # Fused: one kernel a step in place of a dozen small ones, which cost more than the matrix products do.
        else torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=0.0, fused=True)
    )
    documents = functional.normalize(torch.as_tensor(corpus, dtype=torch.float32, device=device), dim=1)
    query_vectors = torch.as_tensor(queries, dtype=torch.float32, device=device)
    pairs = torch.tensor([(q, p) for q, rows in enumerate(positives) for p in rows], dtype=torch.long)
    masked = _with_duplicates(corpus, positives)
    steps_per_epoch = -(-len(pairs) // settings.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _linear_decay(steps_per_epoch * settings.epochs))
    best = BestState(adapter)
    if validate is not None:
        best.offer(0, 0, validate(adapter))
    step, since_best = 0, 0
    for epoch in range(1, settings.epochs + 1):
        adapter.train()
        losses = []
        order = torch.randperm(len(pairs), generator=generator)
        for batch in torch.split(order, settings.batch_size):
            rows, targets = pairs[batch, 0], pairs[batch, 1]
            scores, labels = _scores(adapter, query_vectors, documents, rows, targets, masked, settings, generator)
            loss = functional.cross_entropy(scores, labels)
            if not torch.isfinite(loss):
                raise TrainingError(
                    f"The loss is {loss.item()} at step {step + 1}; lower learning_rate ({settings.learning_rate}) "
                    "and check the embeddings for NaN."
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm)
            optimizer.step()
            schedule.step()
            if settings.pull_to_start:
                _pull(parameters, start, float(schedule.get_last_lr()[0]) * settings.pull_to_start)
            step += 1
            losses.append(loss.item())
            if on_step is not None:
                on_step(step, losses[-1])
        if validate is not None:
            is_best = best.offer(step, epoch, validate(adapter), loss=float(np.mean(losses)))
            since_best = 0 if is_best else since_best + 1
            if since_best >= settings.patience:
                break
        else:
            best.history.append({"step": step, "epoch": epoch, "loss": float(np.mean(losses))})
    best.restore()
    return best, step


def _scores(
    adapter: nn.Module,
    queries: Tensor,
    documents: Tensor,
    rows: Tensor,
    targets: Tensor,
    masked: list[NDArray[np.int64]],
    settings: AdapterSettings,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Logits of shape ``(batch, n_candidates)`` and the column of each row's positive."""
    import torch
    from torch.nn import functional

    device = documents.device
    turned = functional.normalize(adapter(queries[rows.to(device)]), dim=1)
    if len(documents) <= settings.max_negatives:
        column_of, candidates = None, documents
        labels = targets
    else:
        sampled = torch.randint(len(documents), (settings.max_negatives,), generator=generator)
        chosen = torch.unique(torch.cat([targets, sampled]))
        column_of = {int(row): column for column, row in enumerate(chosen.tolist())}
        candidates = documents[chosen.to(device)]
        labels = torch.searchsorted(chosen, targets)
    logits = turned @ candidates.T / settings.temperature
    at_rows, at_columns = [], []
    for position, (row, target) in enumerate(zip(rows.tolist(), targets.tolist(), strict=True)):
        for document in masked[row]:
            column = int(document) if column_of is None else column_of.get(int(document))
            if column is not None and document != target:
                at_rows.append(position)
                at_columns.append(column)
    if at_rows:
        logits[torch.tensor(at_rows, device=device), torch.tensor(at_columns, device=device)] = -torch.inf
    return logits, labels.to(device)


def _with_duplicates(corpus: NDArray[np.float32], positives: Sequence[Sequence[int]]) -> list[NDArray[np.int64]]:
    """For each query: its positives and all documents with the same vector as one of them."""
    members: dict[bytes, list[int]] = {}
    wanted = {corpus[row].tobytes() for rows in positives for row in rows}
    for row, vector in enumerate(corpus):
        key = vector.tobytes()
        if key in wanted:
            members.setdefault(key, []).append(row)
    return [
        np.array(sorted({same for row in rows for same in members[corpus[row].tobytes()]}), dtype=np.int64)
        for rows in positives
    ]


def _linear_decay(steps: int) -> Callable[[int], float]:
    warmup = max(1, steps // 10)
    return lambda step: min((step + 1) / warmup, max(0.0, (steps - step) / max(1, steps - warmup)))


def _pull(parameters: list[torch.nn.Parameter], start: list[Tensor], amount: float) -> None:
    """Move the weights a little back to where they began (L2-SP, Li et al., arXiv 1802.01483)."""
    import torch

    with torch.no_grad():
        for parameter, origin in zip(parameters, start, strict=True):
            parameter.lerp_(origin, min(1.0, amount))
