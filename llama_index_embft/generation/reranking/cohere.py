"""JSON Lines as Cohere's rerankers were trained on them: a query, its relevant passages, and hard negatives."""

from __future__ import annotations

import logging
import random
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, Field

from llama_index_embft._core.checks import check_choice, check_number
from llama_index_embft._core.files import atomic_write_text
from llama_index_embft.generation.parse import normalized
from llama_index_embft.generation.reranking.chunks import given_embed_model

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset

logger = logging.getLogger(__name__)

_METHODS: Final = ("random", "cosine_similarity")


class CohereRerankerFinetuneDataset(BaseModel):
    """One line of the file: a query with the passages that answer it and some that do not.

    Attributes:
        query: Text of the query.
        relevant_passages: Texts that answer it.
        hard_negatives: Texts that do not.
    """

    query: str
    relevant_passages: list[str]
    hard_negatives: list[str] = Field(default_factory=list)

    def to_jsonl(self) -> str:
        """The line, with its line end."""
        return self.model_dump_json() + "\n"


def generate_cohere_reranker_finetuning_dataset(
    query_context_pairs: EmbeddingQAFinetuneDataset,
    num_negatives: int = 0,
    top_k_dissimilar: int = 100,
    hard_negatives_gen_method: str = "random",
    finetune_dataset_file_name: str | os.PathLike[str] = "train.jsonl",
    embed_model: Any = None,
    *,
    seed: int = 0,
) -> list[CohereRerankerFinetuneDataset]:
    """Write a data set as JSON Lines of queries, relevant passages and hard negatives.

    All relevant passages of a query are kept. A negative is never one of them, nor the same text in another case,
    spacing or punctuation; the negatives of the data set come first, then those of the method.

    Args:
        query_context_pairs: The data set.
        num_negatives: Negatives a query; 0 for none.
        top_k_dissimilar: Passages that do not answer the query, the nearest first, among which
            ``"cosine_similarity"`` takes its negatives.
        hard_negatives_gen_method: ``"random"`` draws from the corpus; ``"cosine_similarity"`` takes the passages that
            are nearest to the query.
        finetune_dataset_file_name: The file; written whole or not at all.
        embed_model: For ``"cosine_similarity"``; None takes `Settings.embed_model`.
        seed: Of ``"random"``: the same data set and seed give the same file. What is drawn for one query does not
            depend on the others.

    Returns:
        What was written, in the order of the queries.

    Raises:
        ConfigError: An argument is not allowed, or there is no embedding model.
        OutputError: The file cannot be written.
    """
    check_number("num_negatives", num_negatives, at_least=0)
    check_number("top_k_dissimilar", top_k_dissimilar, at_least=1)
    check_choice("hard_negatives_gen_method", hard_negatives_gen_method, _METHODS)
    dataset = query_context_pairs
    pool = _Pool(dataset)
    ranked: Iterator[list[str]]
    if not num_negatives:
        ranked = iter([[]] * len(dataset.queries))
    elif hard_negatives_gen_method == "random":
        ranked = (pool.drawn(query_id, num_negatives, seed) for query_id in dataset.queries)
    else:
        ranked = iter(pool.nearest(given_embed_model(embed_model), num_negatives, top_k_dissimilar))
    entries = [
        CohereRerankerFinetuneDataset(
            query=query,
            relevant_passages=[dataset.corpus[doc] for doc in dataset.relevant_docs[query_id]],
            hard_negatives=[*pool.own(query_id), *negatives][:num_negatives],
        )
        for (query_id, query), negatives in zip(dataset.queries.items(), ranked, strict=True)
    ]
    atomic_write_text(finetune_dataset_file_name, "".join(entry.to_jsonl() for entry in entries))
    short = sum(len(entry.hard_negatives) < num_negatives for entry in entries)
    if short:
        logger.warning(
            "%d of %d queries have fewer than %d negatives: the corpus has no more.", short, len(entries), num_negatives
        )
    return entries


class _Pool:
    """The different texts of a corpus, and which of them may be a negative of which query."""

    def __init__(self, dataset: EmbeddingQAFinetuneDataset) -> None:
        self._dataset = dataset
        self._row_of: dict[str, int] = {}  # text, leaving case, spacing and punctuation aside -> row
        self._texts: list[str] = []
        self._rows: dict[str, int] = {}  # document -> row
        for doc, text in dataset.corpus.items():
            row = self._rows[doc] = self._row_of.setdefault(normalized(text), len(self._texts))
            if row == len(self._texts):
                self._texts.append(text)

    def own(self, query_id: str) -> list[str]:
        """The negatives that the data set has for a query, but for copies of relevant passages."""
        return [self._texts[row] for row in self._own_rows(query_id)]

    def _relevant(self, query_id: str) -> set[int]:
        return {self._rows[doc] for doc in self._dataset.relevant_docs[query_id]}

    def _own_rows(self, query_id: str) -> list[int]:
        rows = dict.fromkeys(self._rows[doc] for doc in self._dataset.negative_docs.get(query_id, ()))
        return [row for row in rows if row not in self._relevant(query_id)]

    def _taken(self, query_id: str) -> set[int]:
        return self._relevant(query_id) | set(self._own_rows(query_id))

    def drawn(self, query_id: str, n: int, seed: int) -> list[str]:
        """Texts by chance."""
        taken = self._taken(query_id)
        dice = random.Random(f"{seed} {query_id}")
        rows = dice.sample(range(len(self._texts)), min(len(self._texts), n + len(taken)))
        return [self._texts[row] for row in rows if row not in taken][:n]

    def nearest(self, embed_model: Any, n: int, window: int) -> list[list[str]]:
        """For each query the nearest texts."""
        import numpy as np

        from llama_index_embft.embeddings.encoding.encoder import as_encoder
        from llama_index_embft.search.topk import top_k

        encoder = as_encoder(embed_model)
        queries = encoder.encode_queries(list(self._dataset.queries.values()))
        exclude = [np.array(sorted(self._taken(query_id)), dtype=np.int64) for query_id in self._dataset.queries]
        hits = top_k(queries, encoder.encode_documents(self._texts), min(n, window), exclude=exclude)
        return [[self._texts[row] for row in rows if row >= 0] for rows in hits.rows.tolist()]
