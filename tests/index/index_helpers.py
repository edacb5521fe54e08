"""An embedding that counts, and where the tests keep their indexes."""

from __future__ import annotations

from index_places import DIM, KINDS, Place, make_nodes
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.embeddings.huggingface import HuggingFaceEmbedding

from llama_index_embft.embeddings.identity import sentence_transformer_identity

__all__ = ["DIM", "KINDS", "CountingEmbedding", "Place", "make_nodes"]


class CountingEmbedding(HuggingFaceEmbedding):
    """Counts the documents and queries that it embeds."""

    _counted: dict[str, int] = PrivateAttr(default_factory=dict)

    @property
    def counted(self) -> dict[str, int]:
        return self._counted

    def identity(self, side, given=None):
        """That of the class it is derived from: counting changes nothing."""
        prompt = self._model.prompts["query" if side == "query" else "text"]
        return sentence_transformer_identity(self._model, prompt, "", self.normalize, self.model_name)

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
