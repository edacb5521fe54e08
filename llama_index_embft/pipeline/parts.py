"""The parts of a stack, searched once each: what BM25 finds and what each dense model finds, for any questions."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from llama_index_embft.embeddings.describe import describe_base
from llama_index_embft.embeddings.encoding.encoder import as_encoder
from llama_index_embft.evaluation.runs import Rankings, report_on
from llama_index_embft.evaluation.systems.seen import mark_seen
from llama_index_embft.evaluation.tasks import RetrievalTask, hash_of, text_in_words
from llama_index_embft.search.lexical import LexicalIndex
from llama_index_embft.search.topk import ExactIndex, TopK

if TYPE_CHECKING:
    from pathlib import Path

    from llama_index.core.base.embeddings.base import BaseEmbedding
    from numpy.typing import NDArray

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.embeddings.encoding.cache import EmbeddingCache
    from llama_index_embft.evaluation import RetrievalReport

DEPTH: Final = 100
"""Hits of each part that are mixed."""


@dataclass(frozen=True)
class DenseModel:
    """An embedding model that may become the dense part.

    Attributes:
        name: ``"base"``, or the way it was trained: ``"adapter"``, ``"lora"``, ``"full"``, ``"distilled"``.
        embed_model: The model.
        folder: Where it was saved; None for the base.
        seconds: What training it took.
    """

    name: str
    embed_model: BaseEmbedding
    folder: Path | None = None
    seconds: float = 0.0

    @property
    def moves_documents(self) -> bool:
        """Whether an index has to be embedded again to use it."""
        return self.name in ("lora", "full", "distilled")


def is_trainable(base: BaseEmbedding) -> bool:
    """Whether the weights of a model can be trained here."""
    return bool(describe_base(base)["class_name"] == "HuggingFaceEmbedding")


class StackParts:
    """Searches one corpus with each part, and remembers what was found.

    Args:
        corpus: The texts that are searched.
        cache: Where vectors are kept.
        vectors: Node id -> vector by the base model, where an index has them.

    Attributes:
        corpus: The texts that are searched, as a data set without questions.
        ids: Ids of the corpus in the order of rows: descending, so that ties are settled as trec_eval does.
        seconds: Seconds by phase: ``"bm25"`` to index, ``"embed NAME"`` to embed the corpus.
        anew: Name of a model -> seconds to embed the corpus where no vector is known yet; None where all were.
    """

    def __init__(
        self,
        corpus: EmbeddingQAFinetuneDataset,
        *,
        cache: EmbeddingCache | None,
        vectors: dict[str, NDArray[np.float32]] | None = None,
    ) -> None:
        self.corpus = corpus
        self.ids = sorted(corpus.corpus, reverse=True)
        self._cache = cache
        self._stored = vectors
        self._indexes: dict[str, ExactIndex] = {}
        self._found: dict[tuple[str, tuple[str, ...]], TopK] = {}
        self._hash = hash_of([self.ids, [corpus.corpus[doc] for doc in self.ids]])
        self.seconds: dict[str, float] = {}
        self.anew: dict[str, float | None] = {}
        started = time.perf_counter()
        self.lexical_index = LexicalIndex.build({doc: corpus.corpus[doc] for doc in self.ids})
        self.seconds["bm25"] = time.perf_counter() - started

    def embed(self, model: DenseModel, *, show_progress: bool = False) -> None:
        """Embed the corpus with a model, once."""
        if model.name in self._indexes:
            return
        started = time.perf_counter()
        if model.name == "base" and self._stored is not None and all(doc in self._stored for doc in self.ids):
            vectors = np.stack([self._stored[doc] for doc in self.ids]).astype(np.float32)
        else:
            encoder = as_encoder(model.embed_model, cache=self._cache, show_progress=show_progress)
            texts = [self.corpus.corpus[doc] for doc in self.ids]
            new = encoder.uncached_documents(texts) / len(set(texts))
            vectors = encoder.encode_documents(texts)
            self.anew[model.name] = (time.perf_counter() - started) / new if new else None
        self.seconds[f"embed {model.name}"] = time.perf_counter() - started
        self._indexes[model.name] = ExactIndex(vectors)

    def lexical(self, questions: EmbeddingQAFinetuneDataset) -> TopK:
        """What BM25 finds: `DEPTH` hits a question."""
        key = ("bm25", tuple(questions.queries))
        if key not in self._found:
            self._found[key] = self.lexical_index.search(list(questions.queries.values()), self._depth)
        return self._found[key]

    def dense(self, model: DenseModel, questions: EmbeddingQAFinetuneDataset) -> TopK:
        """What a model finds: `DEPTH` hits a question."""
        key = (model.name, tuple(questions.queries))
        if key not in self._found:
            self.embed(model)
            encoder = as_encoder(model.embed_model, cache=self._cache)
            vectors = encoder.encode_queries(list(questions.queries.values()))
            self._found[key] = self._indexes[model.name].search(vectors, self._depth)
        return self._found[key]

    def ask(self, question: str, model: DenseModel | None, *, words: bool) -> None:
        """Do the work of one question and drop the result, to see how long it takes.

        Args:
            question: The question.
            model: The dense part; None: there is none.
            words: Whether BM25 searches too.
        """
        if model is not None:
            vectors = as_encoder(model.embed_model, cache=None).encode_queries([question])
            self._indexes[model.name].search(vectors, self._depth)
        if words:
            self.lexical_index.search([question], self._depth)

    @property
    def _depth(self) -> int:
        return min(DEPTH, len(self.ids))

    def report(self, hits: TopK, questions: EmbeddingQAFinetuneDataset, label: str) -> RetrievalReport:
        """Score hits as everything here is scored."""
        task = RetrievalTask.of(questions)
        task = replace(task, corpus_hash=self._hash, text=text_in_words(self.corpus, "embed"))
        known = (hits.rows >= 0).sum(axis=1)
        names = np.array([*self.ids, ""], dtype=object)[hits.rows]
        ids = tuple(tuple(row[:n]) for row, n in zip(names.tolist(), known, strict=True))
        scores = tuple(tuple(row[:n]) for row, n in zip(hits.scores.tolist(), known, strict=True))
        return report_on(task, Rankings(ids, scores, depth=self._depth), label=label, shallow="keep")

    def seen(
        self, report: RetrievalReport, questions: EmbeddingQAFinetuneDataset, model: DenseModel
    ) -> RetrievalReport:
        """The report, with what the model was trained or chosen on marked."""
        return mark_seen(report, questions, model.embed_model)
