"""Evaluate embedding models: embed, search exactly, score."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from llama_index_embft._core.checks import check_choice
from llama_index_embft.errors import EvaluationError
from llama_index_embft.evaluation.metrics import (
    DEFAULT_KS,
    FAMILIES,
    Judgements,
    find_hits,
    metric_names,
    parse_metric,
    score_hits,
)
from llama_index_embft.evaluation.records import RetrievalReport
from llama_index_embft.evaluation.runs import check_depth
from llama_index_embft.evaluation.systems.seen import mark_seen
from llama_index_embft.evaluation.tasks import (
    IndexedText,
    corpus_text,
    hash_of,
    own_documents,
    own_note,
    query_documents,
    text_in_words,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llama_index.core.base.embeddings.base import BaseEmbedding
    from numpy.typing import ArrayLike, NDArray
    from sentence_transformers import SentenceTransformer

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.embeddings.encoding.cache import EmbeddingCache
    from llama_index_embft.embeddings.encoding.encoder import Encoder
    from llama_index_embft.search.topk import TopK

Similarity = Literal["cosine", "dot"]


def evaluate_embed_model(
    dataset: EmbeddingQAFinetuneDataset,
    embed_model: BaseEmbedding | SentenceTransformer | Encoder,
    *,
    ks: int | Iterable[int] = DEFAULT_KS,
    metrics: str | Iterable[str] = FAMILIES,
    top_k: int | None = None,
    label: str | None = None,
    metadata_mode: IndexedText = "embed",
    similarity: Similarity = "cosine",
    cache: EmbeddingCache | Literal["default"] | None = "default",
    batch_size: int | None = None,
    show_progress: bool = False,
    device: str | None = None,
    ignore_identical: bool = True,
) -> RetrievalReport:
    """Measure how well a model finds the relevant documents of each query in the whole corpus.

    The search is exact, so the result is what a `VectorStoreIndex` with the in-memory store would find. Each distinct
    text is embedded once, in batches.

    Args:
        dataset: Queries, corpus and judgements.
        embed_model: A LlamaIndex embedding, a SentenceTransformer, or an `Encoder`.
        ks: Cut-offs, or one.
        metrics: Families (``"ndcg"`` at every cut-off), full names (``"ndcg@7"``), or ``"r_precision"``.
        top_k: Hits to keep per query; None: as many as the metrics need.
        label: Name in tables; None: the model's name.
        metadata_mode: ``"embed"`` (default) searches the text that the index embeds, metadata included, as users will;
            ``"none"`` searches the text alone.
        similarity: ``"cosine"``, as LlamaIndex's in-memory store, or ``"dot"``.
        cache: Where vectors are kept; None keeps nothing. See `as_encoder`.
        batch_size: Texts a batch; None chooses by device.
        show_progress: Show a progress bar while texts are embedded.
        device: Torch device of the search; None takes a GPU if there is one.
        ignore_identical: A document that is the query's own text is no hit; see `evaluate_run`.

    Raises:
        EvaluationError: The data set has no query or no document, or a metric is unknown.
        ConfigError: An argument has a value that is not allowed.
    """
    from llama_index_embft.embeddings.encoding.encoder import as_encoder

    evaluator = RetrievalEvaluator(
        dataset,
        ks=ks,
        metrics=metrics,
        top_k=top_k,
        similarity=similarity,
        metadata_mode=metadata_mode,
        ignore_identical=ignore_identical,
    )
    encoder = as_encoder(embed_model, cache=cache, batch_size=batch_size, show_progress=show_progress)
    known, start = encoder.embedded_texts, time.perf_counter()
    queries = encoder.encode_queries(evaluator.query_texts)
    corpus = encoder.encode_documents(evaluator.corpus_texts)
    seconds = time.perf_counter() - start
    distinct = len(set(evaluator.query_texts)) + len(set(evaluator.corpus_texts))
    report = evaluator.report(
        queries,
        corpus,
        ordered=True,
        label=label or _short(encoder.name),
        # With vectors from the cache the time says nothing about the model.
        encode_seconds=seconds if encoder.embedded_texts - known >= distinct else None,
        device=device,
    )
    return mark_seen(report, dataset, embed_model)


def evaluate_embeddings(
    dataset: EmbeddingQAFinetuneDataset,
    query_embeddings: ArrayLike,
    corpus_embeddings: ArrayLike,
    *,
    ks: int | Iterable[int] = DEFAULT_KS,
    metrics: str | Iterable[str] = FAMILIES,
    top_k: int | None = None,
    label: str = "embeddings",
    similarity: Similarity = "cosine",
    device: str | None = None,
    ignore_identical: bool = True,
) -> RetrievalReport:
    """Like `evaluate_embed_model`, for vectors that exist already.

    Args:
        dataset: Queries, corpus and judgements.
        query_embeddings: Shape ``(n_queries, dim)``, in the order of ``dataset.queries``; numpy, torch, or lists.
        corpus_embeddings: Shape ``(n_documents, dim)``, in the order of ``dataset.corpus``; numpy, torch, or lists.
        ks: Cut-offs, or one.
        metrics: Families or full names.
        top_k: Hits to keep per query; None: as many as the metrics need.
        label: Name in tables.
        similarity: ``"cosine"`` or ``"dot"``.
        device: Torch device of the search; None takes the vectors' own, or a GPU if there is one.
        ignore_identical: A document that is the query's own text is no hit; see `evaluate_run`.

    Raises:
        EvaluationError: The shapes do not fit the data set, or a metric is unknown.
    """
    evaluator = RetrievalEvaluator(
        dataset, ks=ks, metrics=metrics, top_k=top_k, similarity=similarity, ignore_identical=ignore_identical
    )
    return evaluator.report(query_embeddings, corpus_embeddings, label=label, device=device)


class RetrievalEvaluator:
    """A data set's judgements made ready, to score many sets of vectors quickly: each epoch of a training, say.

    Attributes:
        names: Metrics that are computed.
        query_texts: Texts of the queries, in row order.
        corpus_texts: Texts of the corpus in the order the search wants it: descending id, which settles ties as
            trec_eval does.
        corpus_order: Shape ``(n_documents,)``: ``corpus_embeddings[corpus_order]`` brings vectors into that order.

    Args:
        dataset: Queries, corpus and judgements; not kept.
        ks: Cut-offs, or one.
        metrics: Families, full names such as ``"ndcg@10"``, or ``"r_precision"``.
        top_k: Hits to keep per query; None: as many as the metrics need.
        similarity: ``"cosine"`` or ``"dot"``.
        metadata_mode: Which text `corpus_texts` holds.
        ignore_identical: A document that is the query's own text is no hit; see `evaluate_run`.

    Raises:
        EvaluationError: The data set has no query or no document, or a metric is unknown.
        ConfigError: `top_k` is smaller than a cut-off.
    """

    def __init__(
        self,
        dataset: EmbeddingQAFinetuneDataset,
        *,
        ks: int | Iterable[int] = DEFAULT_KS,
        metrics: str | Iterable[str] = FAMILIES,
        top_k: int | None = None,
        similarity: Similarity = "cosine",
        metadata_mode: IndexedText = "embed",
        ignore_identical: bool = True,
    ) -> None:
        self.names = metric_names(ks, metrics)
        check_choice("similarity", similarity, ("cosine", "dot"))
        check_choice("metadata_mode", metadata_mode, ("embed", "none"))
        if not dataset.queries or not dataset.corpus:
            missing = "query" if not dataset.queries else "document"
            raise EvaluationError(f"The data set has no {missing}; evaluation needs at least one.")
        self.similarity: Similarity = similarity
        self.query_ids = tuple(dataset.queries)
        self.query_texts = list(dataset.queries.values())
        ids = list(dataset.corpus)
        self.corpus_order = np.array(sorted(range(len(ids)), key=ids.__getitem__, reverse=True), dtype=np.int64)
        self.corpus_ids = [ids[row] for row in self.corpus_order]
        self.corpus_texts = [corpus_text(dataset, doc, metadata_mode) for doc in self.corpus_ids]
        qrels = dataset.qrels()
        row_of = {doc: row for row, doc in enumerate(self.corpus_ids)}
        self.judgements = Judgements.from_qrels(qrels, self.query_ids, row_of)
        self.relevant = tuple(qrels[query] for query in self.query_ids)
        self.ks = tuple(sorted({k for k in (parse_metric(name)[1] for name in self.names) if k is not None}))
        self.depth = check_depth(top_k, self.names, self.judgements)
        own = own_documents(dataset) if ignore_identical else ()
        # Query row -> corpus rows that are the query itself.
        self._own = {query: {row_of[doc] for doc in docs} for query, docs in enumerate(own) if docs}
        self._documents = query_documents(dataset)
        self._text = text_in_words(dataset, metadata_mode)
        self._dataset_hash = hash_of([self.query_ids, self.query_texts, self.relevant])

    def scores(
        self, query_embeddings: Any, corpus_embeddings: Any, *, ordered: bool = False, device: Any = None
    ) -> dict[str, NDArray[np.float64]]:
        """Metric name -> score of each query, shape ``(n_queries,)``.

        Args:
            query_embeddings: Shape ``(n_queries, dim)``; numpy or torch.
            corpus_embeddings: Shape ``(n_documents, dim)``; numpy or torch. Or an `ExactIndex` over them in the order
                of `corpus_texts`, so that a corpus that is searched again is prepared once.
            ordered: The corpus vectors are in the order of `corpus_texts` already. False: in that of the data set.
            device: Torch device of the search.
        """
        return self._score(self._search(query_embeddings, corpus_embeddings, ordered, device)[0].rows)

    def score(
        self, query_embeddings: Any, corpus_embeddings: Any, *, ordered: bool = False, device: Any = None
    ) -> dict[str, float]:
        """Metric name -> mean over the queries; arguments as in `scores`."""
        per_query = self.scores(query_embeddings, corpus_embeddings, ordered=ordered, device=device)
        return {name: float(values.mean()) for name, values in per_query.items()}

    def report(
        self,
        query_embeddings: Any,
        corpus_embeddings: Any,
        *,
        label: str,
        ordered: bool = False,
        encode_seconds: float | None = None,
        device: Any = None,
    ) -> RetrievalReport:
        """A full report; arguments as in `scores`."""
        start = time.perf_counter()
        found, dropped = self._search(query_embeddings, corpus_embeddings, ordered, device)
        seconds = {} if encode_seconds is None else {"encode": encode_seconds}
        seconds["search"] = time.perf_counter() - start
        ids = np.array([*self.corpus_ids, ""], dtype=object)  # the last one is what row -1 points at
        known = (found.rows >= 0).sum(axis=1)
        return RetrievalReport(
            label=label,
            ks=self.ks,
            depth=self.depth,
            query_ids=self.query_ids,
            queries=tuple(self.query_texts),
            documents=self._documents,
            relevant=self.relevant,
            hit_ids=tuple(tuple(row[:n]) for row, n in zip(ids[found.rows].tolist(), known, strict=True)),
            hit_scores=tuple(tuple(row[:n]) for row, n in zip(found.scores.tolist(), known, strict=True)),
            values=self._score(found.rows),
            corpus_size=len(self.corpus_ids),
            data_hash=self._dataset_hash,
            corpus_hash=hash_of([self.corpus_ids, self.corpus_texts]),
            text=self._text,
            seconds=seconds,
            notes=(own_note(dropped),) if dropped else (),
        )

    def _search(self, queries: Any, corpus: Any, ordered: bool, device: Any) -> tuple[TopK, int]:
        """The hits without those that are the query itself, and in how many queries there were such."""
        from llama_index_embft.search.topk import ExactIndex, TopK, top_k

        held = isinstance(corpus, ExactIndex)
        queries, corpus = _matrix("query", queries), corpus if held else _matrix("corpus", corpus)
        count = corpus.corpus.n if held else len(corpus)
        if len(queries) != len(self.query_ids) or count != len(self.corpus_ids):
            raise EvaluationError(
                f"The data set has {len(self.query_ids)} queries and {len(self.corpus_ids)} documents, but there are "
                f"{len(queries)} and {count} vectors; embed every text, in the order of the data set."
            )
        depth = min(self.depth, count)
        spare = max(map(len, self._own.values()), default=0)
        wanted = min(depth + spare, count)
        if held:
            found = corpus.search(queries, wanted)
        else:
            in_order = corpus if ordered else corpus[self.corpus_order]
            found = top_k(queries, in_order, wanted, similarity=self.similarity, device=device)
        if not spare:
            return found, 0
        rows, scores, dropped = found.rows[:, :depth].copy(), found.scores[:, :depth].copy(), 0
        for query, own in self._own.items():
            kept = [i for i, row in enumerate(found.rows[query].tolist()) if row not in own][:depth]
            dropped += bool(own & set(found.rows[query, :depth].tolist()))
            rows[query], scores[query] = -1, -np.inf
            rows[query, : len(kept)], scores[query, : len(kept)] = found.rows[query, kept], found.scores[query, kept]
        return TopK(rows, scores), dropped

    def _score(self, rows: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
        return score_hits(find_hits(rows, self.judgements, len(self.corpus_ids)), self.judgements, self.names)


def _matrix(which: str, vectors: Any) -> Any:
    """An array or a tensor as it is, rows in lists as an array.

    Raises:
        EvaluationError: They are no rows of numbers of one length.
    """
    if not hasattr(vectors, "ndim"):
        with contextlib.suppress(TypeError, ValueError):
            vectors = np.asarray(vectors, dtype=np.float32)
    if getattr(vectors, "ndim", 0) != 2:
        raise EvaluationError(
            f"The {which} embeddings are no matrix of numbers; give an array, or lists of one length, a row a text."
        )
    return vectors


def _short(name: str) -> str:
    """The end of a model's folder; a name on the hub (``owner/model``) stays whole."""
    return "/".join(name.replace("\\", "/").rstrip("/").split("/")[-2:])
