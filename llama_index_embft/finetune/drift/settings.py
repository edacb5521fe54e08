"""What a drift map may be told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from llama_index_embft._core.checks import check_number
from llama_index_embft._core.options import option

DriftKind: TypeAlias = Literal["procrustes", "low-rank", "mlp", "auto"]


@dataclass(frozen=True)
class DriftSettings:
    """Sizes of the maps.

    Raises:
        ConfigError: A value is out of range.
    """

    rank: int = option(128, "Rank of the matrix added to the rotation; at most the smaller dimension.")
    hidden_dim: int = option(512, "Width of the MLP.")

    def __post_init__(self) -> None:
        for name in ("rank", "hidden_dim"):
            check_number(name, getattr(self, name), at_least=1)


SETTINGS: Final = (DriftSettings,)
