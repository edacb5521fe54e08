"""What moving documents may be told: the engine's plain options, and a settings object for the rest.

No torch here: the command line reads these classes for its options.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

from llama_index_embft._core.checks import check_choice, check_number
from llama_index_embft._core.options import option

Variant: TypeAlias = Literal["N", "M"]


@dataclass(frozen=True)
class NudgeOptions:
    """The plain options of `NudgeFinetuneEngine`, with its defaults.

    Raises:
        ConfigError: A value is not allowed.
    """

    variant: Variant = option(
        "N",
        "N moves documents on the unit sphere, for cosine, which LlamaIndex's stores use; M moves them freely, for "
        "stores that rank by the inner product.",
    )
    device: str | None = option(None, "Torch device for the search; default: a GPU if there is one.")

    def __post_init__(self) -> None:
        check_choice("variant", self.variant, get_args(Variant))


@dataclass(frozen=True)
class NudgeSettings:
    """How the step is chosen.

    Raises:
        ConfigError: A value is out of range.
    """

    steps: int = option(
        32,
        "How many steps to try, beside the closed form's: the one that puts a relevant document first for the most "
        "validation queries.",
    )
    max_unasked_loss: float | None = option(
        None,
        "How much nDCG@10 a step may cost queries about documents without a training query, times the share of these "
        "documents: they stay where they are, while others come nearer to all queries. Default: 0.005 where training "
        "queries were held out, which are never about such documents; no limit with a validation set.",
    )

    def __post_init__(self) -> None:
        check_number("steps", self.steps, at_least=1)
        if self.max_unasked_loss is not None:
            check_number("max_unasked_loss", self.max_unasked_loss, at_least=0)


# The engine's keyword argument of this type is `search`.
SETTINGS: Final = (NudgeSettings,)
