"""Vectors of both models, parted into what a drift map is fitted on, chosen by and measured with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from llama_index_embft._core.vectors import unit_rows
from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
from llama_index_embft.embeddings.encoding.encoder import Encoder, as_encoder
from llama_index_embft.errors import ConfigError, ModelError
from llama_index_embft.finetune.drift.report import DriftScore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llama_index.core.base.embeddings.base import BaseEmbedding
    from numpy.typing import NDArray

    from llama_index_embft.embeddings.drift import DriftMap
    from llama_index_embft.embeddings.encoding.cache import EmbeddingCache

_FEWEST: Final = 50
_RESAMPLES: Final = 1000


@dataclass(frozen=True)
class DriftSample:
    """Vectors of both models: pairs to fit on, documents to search, queries to choose and to measure by."""

    pairs_new: NDArray[np.float32]
    pairs_old: NDArray[np.float32]
    docs_new: NDArray[np.float32]
    docs_old: NDArray[np.float32]
    validation_new: NDArray[np.float32]
    test_new: NDArray[np.float32]
    test_old: NDArray[np.float32] | None
    test: list[int]
    relevant: list[set[int]] | None

    @classmethod
    def of(
        cls,
        old: BaseEmbedding | NDArray[np.float32],
        new: BaseEmbedding | NDArray[np.float32],
        texts: Sequence[str] | EmbeddingQAFinetuneDataset,
        queries: Sequence[str],
        cache: EmbeddingCache | Literal["default"] | None,
        seed: int,
    ) -> DriftSample:
        """Embed and part; see `DriftAdapter.fit` for the arguments and what they raise."""
        relevant = None
        if isinstance(texts, EmbeddingQAFinetuneDataset):
            rows = {doc: row for row, doc in enumerate(texts.corpus)}
            queries = list(texts.queries.values())
            relevant = [{rows[doc] for doc in texts.relevant_docs[query]} for query in texts.queries]
            texts = list(texts.corpus.values())
        if len(texts) < _FEWEST or (queries and len(queries) < 10):
            raise ConfigError(
                f"Got {len(texts)} texts and {len(queries)} queries; give at least {_FEWEST} texts, and 10 queries or "
                "none."
            )
        old_docs, old_encoder = _vectors(old, texts, cache, "old")
        new_docs, new_encoder = _vectors(new, texts, cache, "new")
        rng = np.random.default_rng(seed)
        if not queries:
            order = rng.permutation(len(texts))
            fifth = len(texts) // 5
            test, validation, fit = order[:fifth], order[fifth : 2 * fifth], order[2 * fifth :]
            return cls(
                pairs_new=new_docs[fit],
                pairs_old=old_docs[fit],
                docs_new=new_docs[fit],
                docs_old=old_docs[fit],
                validation_new=new_docs[validation],
                test_new=new_docs[test],
                test_old=None,
                test=test.tolist(),
                relevant=None,
            )
        if new_encoder is None:
            raise ConfigError("`queries` must be embedded by the new model; pass the model as `new`, not its vectors.")
        asked_new = _usable(new_encoder.encode_queries(list(queries)), "new")
        asked_old = None if old_encoder is None else _usable(old_encoder.encode_queries(list(queries)), "old")
        order = rng.permutation(len(queries))
        fifth = max(len(queries) // 5, 2)
        test, validation, fit = order[:fifth], order[fifth : 2 * fifth], order[2 * fifth :]
        return cls(
            pairs_new=new_docs if asked_old is None else np.concatenate([new_docs, asked_new[fit]]),
            pairs_old=old_docs if asked_old is None else np.concatenate([old_docs, asked_old[fit]]),
            docs_new=new_docs,
            docs_old=old_docs,
            validation_new=asked_new[validation],
            test_new=asked_new[test],
            test_old=None if asked_old is None else asked_old[test],
            test=test.tolist(),
            relevant=relevant,
        )

    def score(self, name: str, drift_map: DriftMap | None, k: int, *, seconds: float, seed: int) -> DriftScore:
        """What a map keeps; None sends the new model's queries as they are."""

        def mapped(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
            return vectors if drift_map is None else drift_map(vectors)

        kept = self._kept(mapped(self.test_new), self.test_new, k)
        draws = np.random.default_rng(seed).integers(len(kept), size=(_RESAMPLES, len(kept)))
        low, high = np.quantile(kept[draws].mean(axis=1), [0.025, 0.975])
        return DriftScore(
            kind=name,
            kept=float(kept.mean()),
            ci95=(float(low), float(high)),
            recall=self.labelled(mapped(self.test_new), self.docs_old, k),
            validation=float(self._kept(mapped(self.validation_new), self.validation_new, k).mean()),
            fit_seconds=seconds,
        )

    def _kept(self, mapped: NDArray[np.float32], asked: NDArray[np.float32], k: int) -> NDArray[np.float64]:
        from llama_index_embft.search.topk import top_k

        k = min(k, len(self.docs_new))
        truth, found = top_k(asked, self.docs_new, k).rows, top_k(mapped, self.docs_old, k).rows
        return np.array([len(set(a) & set(b)) / k for a, b in zip(truth.tolist(), found.tolist(), strict=True)])

    def labelled(self, asked: NDArray[np.float32], docs: NDArray[np.float32], k: int) -> float | None:
        """Recall@k of the documents labelled relevant to the test queries; None without labels."""
        from llama_index_embft.search.topk import top_k

        if self.relevant is None:
            return None
        rows = top_k(asked, docs, min(k, len(docs))).rows.tolist()
        wanted = [self.relevant[query] for query in self.test]
        return float(np.mean([len(need & set(row)) / len(need) for need, row in zip(wanted, rows, strict=True)]))


def _vectors(
    source: Any, texts: Sequence[str], cache: EmbeddingCache | Literal["default"] | None, name: str
) -> tuple[NDArray[np.float32], Encoder | None]:
    if isinstance(source, np.ndarray):
        if source.ndim != 2 or len(source) != len(texts):
            raise ConfigError(f"`{name}` has shape {source.shape} for {len(texts)} texts; give a vector for each text.")
        return _usable(source, name), None
    encoder = as_encoder(source, cache=cache)
    return _usable(encoder.encode_documents(list(texts)), name), encoder


def _usable(vectors: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    bad = np.logical_not(np.isfinite(vectors).all(axis=1) & vectors.any(axis=1))
    if bad.any():
        raise ModelError(f"{int(bad.sum())} of {len(vectors)} vectors of the {name} model are NaN, infinite or zero.")
    return unit_rows(np.asarray(vectors, dtype=np.float32))
