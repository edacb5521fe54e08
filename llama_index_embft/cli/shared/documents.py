"""How commands are told to cut documents."""

from __future__ import annotations

from dataclasses import dataclass

from llama_index_embft._core.options import option


@dataclass(frozen=True)
class ChunkOptions:
    """How documents are cut."""

    chunk_size: int = option(256, "Tokens of a chunk, metadata included.")
    chunk_overlap: int = option(32, "Tokens that neighbouring chunks share.")
