"""LoRA: the measurements of full fine-tuning, for small matrices beside frozen weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import section_finetune

if TYPE_CHECKING:
    from kit import Kit


def run(kit: Kit) -> None:
    """See `section_finetune.run`; utilization counts the same operations, so that both columns compare."""
    section_finetune.run(kit, "lora")
