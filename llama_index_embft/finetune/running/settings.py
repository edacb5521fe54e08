"""Settings that training of every kind of transformer shares: texts, LoRA, and what decides speed and memory.

No torch here: the command line reads these classes for its options.
"""

from __future__ import annotations

import math
from collections.abc import Sequence  # noqa: TC003 (the command line reads the types of the fields)
from dataclasses import dataclass
from typing import Any, Literal

from llama_index_embft._core.checks import check_choice, check_number
from llama_index_embft._core.options import option
from llama_index_embft.errors import ConfigError


def check_if_given(name: str, value: float | None, **rules: Any) -> None:
    """`check_number` for an option that may be left out."""
    if value is not None:
        check_number(name, value, **rules)


@dataclass(frozen=True, kw_only=True)
class TextSettings:
    """What the model reads of a text.

    Raises:
        ConfigError: A value is out of range.
    """

    query_prompt: str | None = option(
        None,
        "Put before each question, in training and ever after; empty: nothing. Default: the model's own.",
    )
    document_prompt: str | None = option(None, "Put before each passage; likewise.")
    max_seq_length: int | Literal["auto"] | None = option(
        "auto",
        "Tokens of a text that are read, now and by the saved model; none: as many as the model reads by itself. auto: "
        "so too, but where that would cut more than a tenth of the corpus and the model has positions for more, up to "
        "512.",
    )

    def __post_init__(self) -> None:
        if isinstance(self.max_seq_length, str):
            check_choice("max_seq_length", self.max_seq_length, ["auto"], hint="or a number of tokens, or None")
        else:
            check_if_given("max_seq_length", self.max_seq_length, at_least=1, whole=True)


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """Low-rank matrices beside the frozen weights; added up on save.

    Raises:
        ConfigError: A value is out of range.
    """

    rank: int = option(
        64,
        "Inner width of LoRA's matrices. sentence-transformers' measurements with 64 lost 0.002 nDCG against full "
        "training; 16 is enough for a few hundred pairs.",
    )
    alpha: float = option(128.0, "LoRA's update is scaled by alpha / rank.")
    dropout: float = option(0.1, "Dropout on LoRA's inputs.")
    targets: Sequence[str] | None = option(
        None,
        "Names, or ends of names, of the linear layers to adapt. Default: all, which the QLoRA paper found to matter "
        "more than the rank.",
    )

    def __post_init__(self) -> None:
        check_number("lora_rank", self.rank, at_least=1, whole=True)
        check_number("lora_alpha", self.alpha, above=0, below=math.inf)
        check_number("lora_dropout", self.dropout, at_least=0, below=1)
        if isinstance(self.targets, str):
            raise ConfigError(f"`lora_targets` is {self.targets!r}; give a list of names: [{self.targets!r}].")


@dataclass(frozen=True, kw_only=True)
class HardwareSettings:
    """What decides speed and memory rather than the result.

    Raises:
        ConfigError: A value is out of range.
    """

    bf16: bool | None = option(
        None,
        "Compute in bfloat16 where it is safe (autocast; weights stay float32). Default: on devices that are faster in "
        "it, GPUs from Ampere on and CPUs with AMX.",
    )
    mini_batch_size: int | None = option(
        None,
        "Rows computed with gradients at a time. The loss over the whole batch stays exact (GradCache), for one more "
        "forward pass. Default: 16 on CPU; on GPU the whole batch, halved until it fits. Of a cross-encoder: "
        "questions, whose gradients are added up; by default the whole batch.",
    )
    attention_dropout: bool | None = option(
        None,
        "Keep dropout inside attention. Default: not on CPU, where PyTorch's fused attention has no dropout, and the "
        "matrix of all pairs of tokens costs time and memory.",
    )
    hidden_dropout: bool | None = option(
        None, "Dropout outside attention. Default: the model's own. Off saves time and regularizes less."
    )
    gradient_checkpointing: bool = option(
        False, "Compute activations twice instead of keeping them: less memory, slower."
    )
    compile: bool = option(
        False, "Compile the model with torch.compile; worth it for long runs on a GPU, and needs a C++ compiler."
    )

    def __post_init__(self) -> None:
        check_if_given("mini_batch_size", self.mini_batch_size, at_least=1, whole=True)
