"""A real index in memory over short texts, and a model whose vectors are made of hashes."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.schema import TextNode

from llama_index_embft.embeddings import ModelIdentity
from llama_index_embft.search import words

ANIMALS = ("fox", "owl", "bear", "crow", "deer", "hare", "lynx", "mole", "newt", "wolf")
PLACES = ("river", "forest", "meadow", "village", "mountain", "harbour")


class HashEmbedding(BaseEmbedding):
    """The sum of a random vector a word: texts with common words are near each other; it counts its queries."""

    _queries: list[str] = PrivateAttr(default_factory=list)

    @property
    def queries(self) -> list[str]:
        return self._queries

    def identity(self, side, given=None):
        return ModelIdentity.of(self.model_name, "hash")

    def _vector(self, text: str) -> list[float]:
        total = np.zeros(24)
        for word in words(text) or ["nothing"]:
            seed = int.from_bytes(hashlib.sha256(f"{self.model_name} {word}".encode()).digest()[:8], "little")
            total += np.random.default_rng(seed).normal(size=24)
        return (total / np.linalg.norm(total)).tolist()

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._vector(text)

    def _get_query_embedding(self, query: str) -> list[float]:
        self._queries.append(query)
        return self._vector(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)


@pytest.fixture
def embed_model() -> HashEmbedding:
    return HashEmbedding(model_name="hash-1")


@pytest.fixture
def nodes() -> list[TextNode]:
    texts = [
        f"The {animal} lives near the {place} number {i}"
        for i, (animal, place) in enumerate((animal, place) for animal in ANIMALS for place in PLACES)
    ]
    return [
        TextNode(text=text, id_=f"n{row:02}", metadata={"place": PLACES[row % 6], "row": row})
        for row, text in enumerate(texts)
    ]


@pytest.fixture
def index(nodes, embed_model) -> VectorStoreIndex:
    return VectorStoreIndex(nodes, embed_model=embed_model)
