"""Vectors of both models, parted into what a drift map is fitted on, chosen by and measured with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import numpy as np

from llama_index_embft._core.checks import check_number
from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
from llama_index_embft.embeddings.encoding.encoder import Encoder, as_encoder
from llama_index_embft.errors import ConfigError
from llama_index_embft.finetune.drift.report import DriftScore
from llama_index_embft.finetune.drift.whole_index import kept_in_whole
from llama_index_embft.finetune.vectors import share_kept, usable_vectors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llama_index.core.base.embeddings.base import BaseEmbedding
    from numpy.typing import NDArray

    from llama_index_embft.embeddings.drift import DriftMap
    from llama_index_embft.embeddings.encoding.cache import EmbeddingCache

_FEWEST: Final = 50
_FEWEST_QUERIES: Final = 10
_RESAMPLES: Final = 1000


class DriftQueries(NamedTuple):
    """Queries that no map was fitted on.

    Attributes:
        new: Their vectors by the new model.
        old: By the old model; None where it is not at hand.
        own: The searched row that each of them is, -1 for none; None where queries are no documents.
    """

    new: NDArray[np.float32]
    old: NDArray[np.float32] | None
    own: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class DriftSample:
    """Vectors of both models: pairs to fit on, documents to search, queries to choose and to measure by.

    Attributes:
        pairs_new: Vectors that the map is fitted on, shape ``(n_pairs, dim_new)``.
        pairs_old: Their partners.
        docs_new: The documents that are searched, all of the index or none that the map was fitted on.
        docs_old: The same by the old model.
        validation: The queries that choose the kind.
        test: The queries that measure.
        relevant: For each test query the searched rows that are labelled relevant; None without labels.
        index_size: Documents of the index; None: unknown.
    """

    pairs_new: NDArray[np.float32]
    pairs_old: NDArray[np.float32]
    docs_new: NDArray[np.float32]
    docs_old: NDArray[np.float32]
    validation: DriftQueries
    test: DriftQueries
    relevant: list[set[int]] | None
    index_size: int | None

    @classmethod
    def of(
        cls,
        old: BaseEmbedding | NDArray[np.float32],
        new: BaseEmbedding | NDArray[np.float32],
        texts: Sequence[str] | EmbeddingQAFinetuneDataset,
        queries: Sequence[str],
        index_size: int | None,
        cache: EmbeddingCache | Literal["default"] | None,
        seed: int,
    ) -> DriftSample:
        """Embed and part; see `DriftAdapter.fit` for the arguments and what they raise."""
        labels = None
        if isinstance(texts, EmbeddingQAFinetuneDataset):
            rows = {doc: row for row, doc in enumerate(texts.corpus)}
            queries = list(texts.queries.values())
            labels = [{rows[doc] for doc in texts.relevant_docs[query]} for query in texts.queries]
            texts = list(texts.corpus.values())
            index_size = len(texts) if index_size is None else index_size
        if len(texts) < _FEWEST or (queries and len(queries) < _FEWEST_QUERIES):
            raise ConfigError(
                f"`texts` has {len(texts)} and `queries` {len(queries)} entries; it must be at least {_FEWEST} texts, "
                f"and {_FEWEST_QUERIES} queries or none."
            )
        if index_size is not None:
            check_number("index_size", index_size, at_least=len(texts), hint="texts are documents of the index")
        whole = index_size == len(texts)
        old_docs, old_encoder = _vectors(old, texts, cache, "old")
        new_docs, new_encoder = _vectors(new, texts, cache, "new")
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(texts))
        fifth = len(texts) // 5
        if not queries:
            fit, searched = order[2 * fifth :], np.arange(len(texts)) if whole else order[: 2 * fifth]
            place = np.full(len(texts), -1)
            place[searched] = np.arange(len(searched))
            parts = [order[:fifth], order[fifth : 2 * fifth]]
            test, validation = (DriftQueries(new_docs[part], None, place[part]) for part in parts)
            return cls(
                new_docs[fit], old_docs[fit], new_docs[searched], old_docs[searched], validation, test, None, index_size
            )
        if new_encoder is None:
            raise ConfigError("`queries` must be embedded by the new model; pass the model as `new`, not its vectors.")
        fit, searched = (np.arange(len(texts)),) * 2 if whole else (order[2 * fifth :], order[: 2 * fifth])
        asked_new = usable_vectors(new_encoder.encode_queries(list(queries)), "new model")
        asked_old = None
        if old_encoder is not None:
            asked_old = usable_vectors(old_encoder.encode_queries(list(queries)), "old model")
        turn = rng.permutation(len(queries))
        fifth = max(len(queries) // 5, 2)
        pairs_new, pairs_old = new_docs[fit], old_docs[fit]
        if asked_old is not None:
            pairs_new = np.concatenate([pairs_new, asked_new[turn[2 * fifth :]]])
            pairs_old = np.concatenate([pairs_old, asked_old[turn[2 * fifth :]]])
        test, validation = (
            DriftQueries(asked_new[part], None if asked_old is None else asked_old[part])
            for part in (turn[:fifth], turn[fifth : 2 * fifth])
        )
        relevant = None
        if labels is not None:
            at = {int(row): number for number, row in enumerate(searched)}
            relevant = [{at[row] for row in labels[query] if row in at} for query in turn[:fifth].tolist()]
        return cls(
            pairs_new,
            pairs_old,
            new_docs[searched],
            old_docs[searched],
            validation,
            test,
            relevant,
            index_size,
        )

    def score(self, name: str, drift_map: DriftMap | None, k: int, *, seconds: float, seed: int) -> DriftScore:
        """What a map keeps; None sends the new model's queries as they are."""

        def mapped(queries: DriftQueries) -> NDArray[np.float32]:
            return queries.new if drift_map is None else drift_map(queries.new)

        everything = np.arange(len(self.docs_new))
        found = mapped(self.test)
        kept = self._kept(self.test, found, k, everything)
        draws = np.random.default_rng(seed).integers(len(kept), size=(_RESAMPLES, len(kept)))
        low, high = np.quantile(kept[draws].mean(axis=1), [0.025, 0.975])
        inside: tuple[float, tuple[float, float]] | None = None
        if self.index_size == len(self.docs_new):
            inside = float(kept.mean()), (float(low), float(high))
        elif self.index_size is not None and k <= len(self.docs_new) // 16:
            parts = np.array_split(np.random.default_rng(seed).permutation(everything), 4)
            quarters = np.mean([self._kept(self.test, found, k, np.sort(part)) for part in parts], axis=0)
            inside = kept_in_whole(kept, quarters, draws, k=k, documents=len(everything), index_size=self.index_size)
        return DriftScore(
            kind=name,
            kept=float(kept.mean()),
            ci95=(float(low), float(high)),
            recall=self.labelled(found, self.docs_old, k),
            validation=float(self._kept(self.validation, mapped(self.validation), k, everything).mean()),
            fit_seconds=seconds,
            kept_in_index=None if inside is None else inside[0],
            kept_in_index_ci95=None if inside is None else inside[1],
        )

    def _kept(
        self, queries: DriftQueries, mapped: NDArray[np.float32], k: int, rows: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Share of each query's hits by the new model that the map finds, among some of the documents."""
        own = None
        if queries.own is not None:  # a document that plays a query would find itself
            own = [np.flatnonzero(rows == row) for row in queries.own]
        return share_kept(queries.new, mapped, self.docs_new[rows], self.docs_old[rows], k, own)

    def labelled(self, asked: NDArray[np.float32], docs: NDArray[np.float32], k: int) -> float | None:
        """Recall@k of the documents labelled relevant to the test queries; None without labels among the documents."""
        from llama_index_embft.search.topk import top_k

        if self.relevant is None or not any(self.relevant):
            return None
        rows = top_k(asked, docs, min(k, len(docs))).rows.tolist()
        shares = [len(need & set(row)) / len(need) for need, row in zip(self.relevant, rows, strict=True) if need]
        return float(np.mean(shares))


def _vectors(
    source: Any, texts: Sequence[str], cache: EmbeddingCache | Literal["default"] | None, name: str
) -> tuple[NDArray[np.float32], Encoder | None]:
    if isinstance(source, np.ndarray):
        if source.ndim != 2 or len(source) != len(texts):
            raise ConfigError(f"`{name}` has shape {source.shape} for {len(texts)} texts; give a vector for each text.")
        return usable_vectors(source, f"{name} model"), None
    encoder = as_encoder(source, cache=cache)
    return usable_vectors(encoder.encode_documents(list(texts)), f"{name} model"), encoder
