"""Scripts and notebooks written for llama-index-finetuning, turned into ours: `migrate_file`."""

from __future__ import annotations

from llama_index_embft.migration.files import Migration, migrate_file
from llama_index_embft.migration.notes import Note

__all__ = ["Migration", "Note", "migrate_file"]
