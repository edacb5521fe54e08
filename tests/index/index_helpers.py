"""An embedding that counts, and where the tests keep their indexes."""

from __future__ import annotations

from index_places import DIM, KINDS, Place, make_nodes
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.embeddings.huggingface import HuggingFaceEmbedding

from llama_index_embft.embeddings import ModelIdentity, identify

__all__ = ["DIM", "KINDS", "CountingEmbedding", "Place", "make_nodes"]


class CountingEmbedding(HuggingFaceEmbedding):
    """Counts the documents and queries that it embeds."""

    _counted: dict[str, int] = PrivateAttr(default_factory=dict)

    @property
    def counted(self) -> dict[str, int]:
        return self._counted

    def identity(self, side: str, given: str | None = None) -> ModelIdentity:
        """That of the class above it: counting changes no vector."""
        prompts = {"query_instruction": self.query_instruction, "text_instruction": self.text_instruction}
        plain = HuggingFaceEmbedding(model_name=self.model_name, device="cpu", **prompts)
        return identify(plain, side, identity=given)

    def _add(self, kind: str, n: int) -> None:
        self._counted[kind] = self._counted.get(kind, 0) + n

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        self._add("document", len(texts))
        return super()._get_text_embeddings(texts)

    def _get_text_embedding(self, text: str) -> list[float]:
        self._add("document", 1)
        return super()._get_text_embedding(text)

    def _get_query_embedding(self, query: str) -> list[float]:
        self._add("query", 1)
        return super()._get_query_embedding(query)
