"""Settings of a mining run that few people change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llama_index_embft._core.checks import check_choice, check_number
from llama_index_embft._core.options import option


@dataclass(frozen=True)
class MiningSettings:
    """What a mining run keeps out, how it searches, and what it does where too little is left.

    Each field carries its own help; the options of ``embft mine`` are made from it.

    Raises:
        ConfigError: A value is not allowed.
    """

    pad: bool = option(
        False,
        "Fill up with random documents where the strategies find too few; otherwise such queries get fewer, and a "
        "warning counts them.",
    )
    near_duplicates: float | None = option(
        0.8,
        "Overlap of words, above 0 and at most 1, from which a document counts as the same as a positive and is never "
        "a negative; 1 asks for equal words. none compares whole texts letter by letter and looks for no shared "
        "text: about 0.5 ms a document less, for corpora without duplicates and overlapping chunks.",
    )
    exclude_own_text: bool = option(
        True,
        "Never take a document that is the query itself, word for word; case and punctuation do not count. Such "
        "documents stand in the corpus where queries are documents too, as in duplicate questions or arguments.",
    )
    search: Literal["exact", "hnsw", "ivf"] = option(
        "exact",
        "exact; or hnsw or ivf for the approximate search of FAISS (extra faiss), whose recall on 200 queries is noted "
        "in the report.",
    )
    similarity: Literal["cosine", "dot"] = option("cosine", "cosine; or dot for models that rank by the inner product.")
    memory: int = option(512 << 20, "Approximate bytes for the search, besides embeddings and result; at least 1 MiB.")

    trust_remote_code: bool = option(
        False, "Run code that comes with a named model, including the cross-encoder. Read it first."
    )

    def __post_init__(self) -> None:
        if self.near_duplicates is not None:
            check_number(
                "near_duplicates", self.near_duplicates, above=0, at_most=1, hint="use None to compare whole texts only"
            )
        check_choice("search", self.search, ("exact", "hnsw", "ivf"))
        check_choice("similarity", self.similarity, ("cosine", "dot"))
        check_number("memory", self.memory, at_least=1 << 20, hint="it is in bytes")
