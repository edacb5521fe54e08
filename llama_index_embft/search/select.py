"""Selection: the k-th best, the best in order, the places that hold true.

On the CPU numpy does this: its sorting networks are several times faster than ``torch.topk`` on one core, and they
partition instead of sorting. On a GPU torch does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


def kth_best(values: Tensor, k: int) -> Tensor:
    """The k-th largest value of each line: ``(n, m)`` float32 to ``(n,)``."""
    import torch

    if values.device.type != "cpu":
        smallest: Tensor = values.topk(k, dim=1, sorted=False).values.amin(dim=1)
        return smallest
    place = values.shape[1] - k
    return torch.from_numpy(np.partition(values.numpy(), place, axis=1)[:, place].copy())


def best_keys(keys: Tensor, k: int) -> Tensor:
    """The k largest keys of each line, largest first: ``(n, m)`` int64 to ``(n, k)``."""
    import torch

    if keys.device.type != "cpu":
        best: Tensor = keys.topk(k, dim=1).values
        return best
    ordered = keys.numpy()
    if keys.shape[1] > 4 * k:
        ordered = np.partition(ordered, keys.shape[1] - k, axis=1)[:, -k:]
    return torch.from_numpy(np.sort(ordered, axis=1)[:, : -k - 1 : -1].copy())


def places(mask: Tensor) -> Tensor:
    """Where a mask is true, as ascending places in its flattened form: int64."""
    import torch

    if mask.device.type != "cpu":
        found: Tensor = torch.nonzero(mask.view(-1)).view(-1)
        return found
    return torch.from_numpy(np.flatnonzero(mask.numpy()))
