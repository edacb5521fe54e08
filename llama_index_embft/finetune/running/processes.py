"""Several processes under `torchrun`: who writes, who computes, and which device is whose."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from llama_index_embft._core.checks import first_line
from llama_index_embft.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable


def world_size() -> int:
    """Number of processes that `torchrun` or `accelerate launch` started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first_process() -> bool:
    """Whether this process writes the results."""
    return int(os.environ.get("RANK", "0")) == 0


def broadcast(make: Callable[[], dict[str, float]]) -> dict[str, float]:
    """Let the first process compute, and give all of them its numbers: their decisions must not differ by a bit."""
    if world_size() == 1:
        return make()
    from torch import distributed

    box = [make() if is_first_process() else None]
    if distributed.is_initialized():
        distributed.broadcast_object_list(box, src=0)
    found = box[0]
    return make() if found is None else found


def device_of_process(device: str | None) -> str | None:
    """The device as given; in several processes each has its own GPU.

    Raises:
        ConfigError: torch knows no such device.
    """
    import torch

    if device is not None:
        try:
            torch.device(device)
        except RuntimeError as err:
            raise ConfigError(
                f"`device` is {device!r}, which torch does not know ({first_line(err)[:80]}); name one such as 'cpu', "
                "'cuda', 'cuda:1' or 'mps', or leave it out."
            ) from err
        return str(device)
    rank = os.environ.get("LOCAL_RANK")
    return f"cuda:{rank}" if rank is not None and torch.cuda.is_available() else None
