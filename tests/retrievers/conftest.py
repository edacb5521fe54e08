"""A real index in memory over short texts."""

from __future__ import annotations

import pytest
from hash_embedding import HashEmbedding
from llama_index.core import VectorStoreIndex
from llama_index.core.schema import TextNode

ANIMALS = ("fox", "owl", "bear", "crow", "deer", "hare", "lynx", "mole", "newt", "wolf")
PLACES = ("river", "forest", "meadow", "village", "mountain", "harbour")


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
