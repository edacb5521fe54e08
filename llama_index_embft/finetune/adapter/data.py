"""What adapters are trained on and validated with: vectors, and who belongs to whom; no texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from llama_index_embft.embeddings.adapter.modules import apply_adapter
from llama_index_embft.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import nn

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.embeddings.encoding.encoder import Encoder


@dataclass(frozen=True)
class AdapterData:
    """Training queries and the documents they are compared with.

    Attributes:
        queries: Shape ``(n_queries, dim)``.
        documents: Shape ``(n_docs, dim)``; may be memory-mapped. The first `candidates` rows are compared with every
            query, the rest only with the queries that have them as hard negatives.
        positives: For each query the rows of `documents` that are relevant.
        hard_negatives: For each query the rows that are known not to be.
        candidates: See `documents`.
    """

    queries: NDArray[np.float32]
    documents: NDArray[np.float32]
    positives: list[list[int]]
    hard_negatives: list[list[int]]
    candidates: int

    @property
    def dim(self) -> int:
        """Dimension of the vectors."""
        return int(self.queries.shape[1])

    @property
    def pairs(self) -> int:
        """Number of pairs of a query and a relevant document."""
        return sum(map(len, self.positives))


def training_data(
    queries: NDArray[np.float32],
    vectors: NDArray[np.float32],
    positives: Sequence[Sequence[int]],
    hard_negatives: Sequence[Sequence[int]] | None = None,
    *,
    everything: bool = False,
) -> AdapterData:
    """Choose the documents that queries are compared with.

    Args:
        queries: Shape ``(n_queries, dim)``.
        vectors: Shape ``(n_docs, dim)``: the documents that `positives` and `hard_negatives` name, and perhaps others.
        positives: For each query the rows of `vectors` that are relevant.
        hard_negatives: For each query the rows that are known not to be; None: none are known.
        everything: Compare with all of `vectors`; False: with those that some query is about.
    """
    negatives = [list(rows) for rows in hard_negatives] if hard_negatives is not None else [[] for _ in positives]
    if everything:
        return AdapterData(queries, vectors, [list(rows) for rows in positives], negatives, len(vectors))
    asked = sorted({row for rows in positives for row in rows})
    known = set(asked)
    chosen = [*asked, *sorted({row for rows in negatives for row in rows} - known)]
    place = {row: number for number, row in enumerate(chosen)}
    return AdapterData(
        queries,
        vectors if len(chosen) == len(vectors) and chosen == list(range(len(vectors))) else vectors[chosen],
        [[place[row] for row in rows] for rows in positives],
        [[place[row] for row in rows] for rows in negatives],
        len(asked),
    )


class EmbeddedTrainingSet(NamedTuple):
    """A training set as vectors.

    Attributes:
        data: What is trained on.
        vectors: Of the documents that were embedded, shape ``(n_docs, dim)``.
        ids: Their ids.
    """

    data: AdapterData
    vectors: NDArray[np.float32]
    ids: list[str]


def embed_training_set(
    encoder: Encoder,
    dataset: EmbeddingQAFinetuneDataset,
    *,
    everything: bool,
    hard_negatives: bool,
    whole_corpus: bool,
) -> EmbeddedTrainingSet:
    """Embed the queries and the documents that training looks at.

    Args:
        encoder: Of the base model.
        dataset: The training set.
        everything: Compare queries with the whole corpus.
        hard_negatives: Compare each query with its own negatives too.
        whole_corpus: Embed all documents though training does not look at them: a cross-validation searches them.

    Raises:
        ModelError: A vector holds NaN or only zeros, or queries and documents have different dimensions.
    """
    negatives = dataset.negative_docs if hard_negatives else {}
    ids = list(dataset.corpus)
    if not (everything or whole_corpus):
        needed = {doc_id for found in (dataset.relevant_docs, negatives) for docs in found.values() for doc_id in docs}
        ids = [doc_id for doc_id in ids if doc_id in needed]
    vectors = embed_documents(encoder, dataset, ids)
    queries = embed_queries(encoder, dataset, vectors)
    row = {doc_id: number for number, doc_id in enumerate(ids)}
    data = training_data(
        queries,
        vectors,
        [[row[doc_id] for doc_id in dataset.relevant_docs[query]] for query in dataset.queries],
        [[row[doc_id] for doc_id in negatives.get(query, [])] for query in dataset.queries],
        everything=everything,
    )
    return EmbeddedTrainingSet(data, vectors, ids)


class VectorValidation:
    """Scores an adapter against a validation set whose vectors are at hand.

    Args:
        dataset: The validation set.
        queries: Shape ``(n_queries, dim)``, in the order of ``dataset.queries``.
        documents: Shape ``(n_documents, dim)``, in *descending* order of document id, which is the order the search
            wants: so no epoch has to copy them. `in_search_order` says which that is.
        both_sides: Send the documents through the adapter too.
        device: Torch device of the search.
    """

    def __init__(
        self,
        dataset: EmbeddingQAFinetuneDataset,
        queries: NDArray[np.float32],
        documents: NDArray[np.float32],
        *,
        both_sides: bool = False,
        device: str | None = None,
    ) -> None:
        from llama_index_embft.evaluation.systems.embed_model import RetrievalEvaluator
        from llama_index_embft.search.topk import ExactIndex

        self._evaluator = RetrievalEvaluator(dataset)
        self._queries, self._documents, self._both_sides, self._device = queries, documents, both_sides, device
        # Documents that stay are made ready once, and not in every epoch.
        self._index = ExactIndex(documents, similarity=self._evaluator.similarity, device=device)

    @property
    def size(self) -> int:
        """Number of validation queries."""
        return len(self._queries)

    def __call__(self, adapter: nn.Module) -> dict[str, float]:
        """Mean metrics with the adapter."""
        documents = apply_adapter(adapter, self._documents) if self._both_sides else self._index
        return self._score(apply_adapter(adapter, self._queries), documents)

    def base(self) -> dict[str, float]:
        """Mean metrics of the vectors as they are."""
        return self._score(self._queries, self._index)

    def _score(self, queries: Any, documents: Any) -> dict[str, float]:
        return dict(self._evaluator.score(queries, documents, ordered=True, device=self._device))


def in_search_order(dataset: EmbeddingQAFinetuneDataset) -> list[str]:
    """Document ids of the corpus, in the order in which `VectorValidation` wants their vectors."""
    return sorted(dataset.corpus, reverse=True)


def embed_documents(encoder: Encoder, dataset: EmbeddingQAFinetuneDataset, ids: Sequence[str]) -> NDArray[np.float32]:
    """Vectors of some documents, checked.

    Raises:
        ModelError: A vector holds NaN or only zeros.
    """
    texts = [dataset.corpus[doc_id] for doc_id in ids]
    return _not_zero(encoder.encode_documents(texts), texts, encoder, "documents")


def embed_queries(
    encoder: Encoder, dataset: EmbeddingQAFinetuneDataset, documents: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Vectors of the queries, checked, also against the documents' dimension.

    Raises:
        ModelError: A vector holds NaN or only zeros, or queries and documents have different dimensions.
    """
    texts = list(dataset.queries.values())
    queries = _not_zero(encoder.encode_queries(texts), texts, encoder, "queries")
    if queries.shape[1] != documents.shape[1]:
        raise ModelError(
            f"{encoder.name} returns {queries.shape[1]} dimensions for queries, but returned {documents.shape[1]} for "
            "documents; if the model behind this name was changed, clear the embedding cache."
        )
    return queries


def _not_zero(vectors: NDArray[np.float32], texts: list[str], encoder: Encoder, what: str) -> NDArray[np.float32]:
    zero = np.flatnonzero(~vectors.any(axis=1))
    if zero.size:
        raise ModelError(
            f"{encoder.name} returned vectors of zeros for {zero.size} of {len(texts)} {what}, the first of them "
            f"{texts[zero[0]][:80]!r}; a zero has no direction to search or learn by: leave these texts out, or check "
            "the model."
        )
    return vectors


def are_unit(vectors: NDArray[np.float32]) -> bool:
    """Whether all vectors have length 1, as far as a model in half precision can say."""
    return bool(np.abs(np.linalg.norm(vectors, axis=1) - 1.0).max(initial=0.0) < 5e-3)
