"""What a query is compared with in training: all candidates, or a sample of them, and its own hard negatives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from llama_index_embft.finetune.adapter.data import AdapterData

# Steps that share one sample: reading it from a memory-mapped corpus takes longer than a step does.
_STEPS_PER_SAMPLE: Final = 32
_ROWS_AT_ONCE: Final = 16_384


class NegativePool:
    """The documents that all queries of a batch are compared with.

    All candidates where they are few, else a sample that is drawn anew every 32 steps, with the batch's own positives.

    Args:
        data: The training data.
        limit: Candidates to compare with at once.
        device: Torch device.
        generator: Of the samples.
        scale: Scale the vectors to length 1; False where they go through the adapter first.
    """

    def __init__(self, data: AdapterData, limit: int, device: str, generator: Any, *, scale: bool = True) -> None:
        self.whole = data.candidates <= limit
        self._documents, self._n, self._limit = data.documents, data.candidates, limit
        self._device, self._generator, self._scale = device, generator, scale
        self._batches = 0
        self._rows = np.empty(0, dtype=np.int64)
        self._more: dict[int, int] = {}
        if self.whole:
            self._vectors = as_tensor(self._documents, slice(0, self._n), device, scale=scale)

    def for_batch(self, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors of shape ``(n, dim)``, and the place of each target among them.

        Args:
            targets: Shape ``(batch,)``: the document of each pair.
        """
        import torch

        if self.whole:
            return self._vectors, targets
        if self._batches % _STEPS_PER_SAMPLE == 0:
            drawn = torch.randint(self._n, (self._limit,), generator=self._generator)
            self._rows = torch.unique(drawn).numpy()
            self._vectors = as_tensor(self._documents, self._rows, self._device, scale=self._scale)
        self._batches += 1
        wanted = np.unique(targets.numpy())
        missing = wanted[~np.isin(wanted, self._rows, assume_unique=True)]
        self._more = {int(row): len(self._rows) + number for number, row in enumerate(missing)}
        vectors = torch.cat([self._vectors, as_tensor(self._documents, missing, self._device, scale=self._scale)])
        return vectors, torch.tensor([self.columns(row)[0] for row in targets.tolist()])

    def columns(self, document: int) -> tuple[int, ...]:
        """Where a document stands in the last batch's vectors: one place, or none."""
        if self.whole:
            return (document,) if document < self._n else ()
        if document in self._more:
            return (self._more[document],)
        place = int(np.searchsorted(self._rows, document))
        return (place,) if place < len(self._rows) and self._rows[place] == document else ()


class HardNegatives:
    """The documents that single queries are compared with besides.

    Args:
        data: The training data.
        masked: For each query the rows that must not count as negatives.
        skip_candidates: Leave out what every query is compared with anyway.
        device: Torch device.
        scale: As in `NegativePool`.
    """

    def __init__(
        self,
        data: AdapterData,
        masked: list[NDArray[np.int64]],
        *,
        skip_candidates: bool,
        device: str,
        scale: bool = True,
    ) -> None:
        from_row = data.candidates if skip_candidates else 0
        self._documents, self._device, self._scale = data.documents, device, scale
        self._rows = [
            np.array([row for row in dict.fromkeys(rows) if row >= from_row and row not in out], dtype=np.int64)
            for rows, out in zip(data.hard_negatives, map(set, masked), strict=True)
        ]
        self._any = any(len(rows) for rows in self._rows)

    def for_batch(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
        """Vectors ``(n, dim)``, which of them each query has ``(batch, h)``, and which places are empty ``(batch, h)``.

        None where no query of the batch has any.
        """
        import torch

        own = [self._rows[row] for row in rows.tolist()] if self._any else []
        width = max(map(len, own), default=0)
        if not width:
            return None
        distinct, place = np.unique(np.concatenate(own), return_inverse=True)
        padded, absent = np.zeros((len(own), width), dtype=np.int64), np.ones((len(own), width), dtype=bool)
        start = 0
        for number, some in enumerate(own):
            padded[number, : len(some)] = place[start : start + len(some)]
            absent[number, : len(some)] = False
            start += len(some)
        vectors = as_tensor(self._documents, distinct, self._device, scale=self._scale)
        return vectors, torch.from_numpy(padded).to(self._device), torch.from_numpy(absent).to(self._device)


def as_tensor(documents: NDArray[np.float32], rows: Any, device: str, *, scale: bool) -> Tensor:
    """Some rows as a tensor, perhaps scaled to length 1."""
    import torch

    picked = torch.tensor(np.asarray(documents[rows], dtype=np.float32), device=device)
    return torch.nn.functional.normalize(picked, dim=1) if scale else picked


def with_duplicates(documents: NDArray[np.float32], positives: Sequence[Sequence[int]]) -> list[NDArray[np.int64]]:
    """For each query: its positives and all documents with the same vector as one of them.

    Vectors are compared by a hash of their bits, block by block: a memory-mapped corpus stays on the disk.

    Args:
        documents: Shape ``(n_docs, dim)``.
        positives: For each query the rows that are relevant.
    """
    mix = np.random.default_rng(0).integers(1, 2**63, size=documents.shape[1], dtype=np.uint64) | np.uint64(1)
    keys = np.empty(len(documents), dtype=np.uint64)
    for start in range(0, len(documents), _ROWS_AT_ONCE):
        block = np.ascontiguousarray(documents[start : start + _ROWS_AT_ONCE], dtype=np.float32)
        bits = block.view(np.uint32).astype(np.uint64)
        bits = (bits ^ (bits << np.uint64(29))) * mix
        keys[start : start + len(block)] = (bits ^ (bits >> np.uint64(32))).sum(axis=1, dtype=np.uint64)
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    twins: dict[int, NDArray[np.int64]] = {}
    for row in {row for rows in positives for row in rows}:
        low, high = np.searchsorted(ordered, [keys[row], keys[row] + np.uint64(1)])
        same = order[low : max(high, low + 1)]
        twins[row] = same if len(same) == 1 else same[(documents[same] == documents[row]).all(axis=1)]
    return [
        np.unique(np.concatenate([twins[row] for row in rows])) if len(rows) else np.empty(0, dtype=np.int64)
        for rows in positives
    ]
