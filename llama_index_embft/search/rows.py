"""Checked, normalised rows whose dot products do not depend on block size, thread count or device.

A dot product of float32 vectors changes in its last bits with the order of summation, and so with the block size and
the machine. Here every row is rounded to a multiple of 2^-26 of its norm first: products of two such numbers are
multiples of 2^-52 and no partial sum of them exceeds the product of the norms (Cauchy-Schwarz), so a float64 sum of
them is *exact* in any order, fused or not. The rounding moves a cosine by less than ``2^-26 * sqrt(dim)``.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from llama_index_embft.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

Similarity = Literal["cosine", "dot"]
_BITS = 26
_CHECK_ELEMENTS = 1 << 22  # rows are looked at in pieces of 16 MiB


class EmbeddingRows:
    """A matrix of embeddings that is read, checked and normalised block by block.

    Args:
        data: Shape ``(n, dim)``; a numpy array (memory-mapped ones are never read as a whole) or a torch tensor.
        similarity: ``"cosine"`` normalises each row, ``"dot"`` leaves its length.
        device: Where blocks are put.
        name: How messages call the matrix.

    Raises:
        ConfigError: Not a matrix, or a row holds NaN or infinity.
    """

    def __init__(self, data: Any, similarity: Similarity, device: Any, name: str) -> None:
        if getattr(data, "ndim", None) != 2 or data.shape[1] == 0:
            shape = tuple(getattr(data, "shape", ()))
            raise ConfigError(f"`{name}` must be a matrix of shape (n, dim), got {shape or type(data).__name__}.")
        self.data = data
        self.similarity = similarity
        self.device = device
        self.name = name
        self.n, self.dim = int(data.shape[0]), int(data.shape[1])
        self._move_to_gpu()
        self.norms = self._measure()  # (n,) float64
        self.by_rank: Tensor | None = None
        self.rank_of: Tensor | None = None

    @property
    def exponent(self) -> int:
        """No row that `take` gives is longer than 2 to this power."""
        return int(np.frexp(float(self.norms.max()) if self.similarity == "dot" else 1.0)[1])

    def order_ties(self, order: Any) -> None:
        """Say which row wins where scores are equal: ``order`` holds all row numbers, the winner first."""
        import torch

        order = np.asarray(order, dtype=np.int64)
        if order.shape != (self.n,) or not np.array_equal(np.sort(order), np.arange(self.n)):
            raise ConfigError(f"`tie_order` must hold each of the {self.n} row numbers once, got shape {order.shape}.")
        ranks = np.empty(self.n, dtype=np.int64)
        ranks[order] = np.arange(self.n)
        self.by_rank = torch.from_numpy(order).to(self.device)
        self.rank_of = torch.from_numpy(ranks).to(self.device)

    def _raw(self, index: Any) -> Tensor:
        """Rows as they came, on the device: a slice or an array of row numbers in, ``(m, dim)`` out."""
        import torch

        if isinstance(self.data, torch.Tensor):
            picked = self.data.detach()[index if isinstance(index, slice) else index.to(self.data.device)]
        else:
            piece = np.asarray(self.data[index if isinstance(index, slice) else index.cpu().numpy()])
            if not piece.flags.writeable:  # torch warns about read-only memory, which a memory map is
                piece = piece.copy()
            picked = torch.from_numpy(np.ascontiguousarray(piece))
        return picked.to(self.device)

    def _move_to_gpu(self) -> None:
        """Copy a matrix that will be read several times to the GPU at once, if that leaves it space enough."""
        import torch

        if self.device.type != "cuda" or getattr(self.data, "is_cuda", False) or isinstance(self.data, np.memmap):
            return
        free, _ = torch.cuda.mem_get_info(self.device)
        if self.data.nbytes <= free // 3:
            self.data = torch.as_tensor(self.data).to(self.device)

    def _measure(self) -> Tensor:
        """Euclidean norm of each row; every row is looked at once, for NaN and zeros too."""
        import torch

        norms = torch.empty(self.n, dtype=torch.float64, device=self.device)
        step = max(1, _CHECK_ELEMENTS // self.dim)
        for start in range(0, self.n, step):
            block = self._raw(slice(start, start + step)).to(torch.float64)
            norms[start : start + step] = _ordered_sum(block * block).sqrt()
        bad = torch.nonzero(~torch.isfinite(norms)).flatten()
        if len(bad):
            raise ConfigError(
                f"`{self.name}` holds NaN or infinity in {len(bad)} of {self.n} rows, the first is row {int(bad[0])}; "
                "look at the texts of those rows and at the model that embedded them."
            )
        zero = int((norms == 0).sum())
        if zero and self.similarity == "cosine":
            warnings.warn(
                f"`{self.name}`: {zero} of {self.n} rows are all zeros; their cosine with everything counts as 0.",
                stacklevel=2,
            )
        return norms

    def take(self, index: Any) -> Tensor:
        """Rows, normalised for the similarity and rounded as the module says: ``(m, dim)`` float32.

        Args:
            index: A slice, or a one-dimensional tensor of row numbers.
        """
        import torch

        raw = self._raw(index)
        norms = self.norms[index]
        if self.similarity == "cosine":
            unit = (raw.to(torch.float64) / norms.masked_fill(norms == 0, 1.0).unsqueeze(1)).to(torch.float32)
            return unit.mul_(2.0**_BITS).round_().mul_(2.0**-_BITS)
        _, exponent = torch.frexp(norms)  # norm < 2^exponent
        one = torch.ones_like(norms, dtype=torch.float64)
        up = torch.ldexp(one, (_BITS - exponent).to(torch.int32)).unsqueeze(1)
        return ((raw.to(torch.float64) * up).to(torch.float32).round_().to(torch.float64) / up).to(torch.float32)


def _ordered_sum(block: Tensor) -> Tensor:
    """Sum of each row in one fixed order (a halving tree), the same on every device: ``(m, dim)`` to ``(m,)``."""
    import torch

    width = 1 << max(0, block.shape[1] - 1).bit_length()
    block = torch.nn.functional.pad(block, (0, width - block.shape[1]))
    while block.shape[1] > 1:
        half = block.shape[1] // 2
        block = block[:, :half] + block[:, half:]
    return block[:, 0]
