"""How commands are told to read and cut documents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llama_index_embft._core.options import option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llama_index.core.schema import BaseNode, Document


@dataclass(frozen=True)
class ChunkOptions:
    """How documents are cut."""

    chunk_size: int = option(256, "Tokens of a chunk, metadata included.")
    chunk_overlap: int = option(32, "Tokens that neighbouring chunks share.")
    embed_model: str | None = option(
        None,
        "Embedding model (name or folder) that will read the chunks: they are counted by its tokenizer and no longer "
        "than what it reads. Default: counted as OpenAI does.",
    )

    def cut(self, documents: Sequence[Document], *, show_progress: bool) -> list[BaseNode]:
        """Cut documents into chunks."""
        from llama_index_embft.dataset import documents_to_nodes
        from llama_index_embft.embeddings import load_embed_model, model_tokens

        return documents_to_nodes(
            documents,
            chunk_size=self.chunk_size,
            chunk_overlap=self.chunk_overlap,
            tokens=None if self.embed_model is None else model_tokens(load_embed_model(self.embed_model)),
            show_progress=show_progress,
        )
