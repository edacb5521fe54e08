"""Change the model and keep the index: learn the map of a new model's queries into an old index's space.

Drift-Adapter (arXiv 2509.23471): a sample of texts embedded by both models is enough, and queries of the new model
serve on the old index at once, while it is re-embedded in the background or never.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import numpy as np

from llama_index_embft._core.vectors import unit_rows
from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
from llama_index_embft.embeddings.drift import DriftMap, save_drift
from llama_index_embft.embeddings.encoding.encoder import Encoder, as_encoder
from llama_index_embft.embeddings.identity import ModelIdentity, identify
from llama_index_embft.errors import ConfigError, ModelError
from llama_index_embft.finetune.drift.fit import fit_low_rank, fit_mlp, fit_procrustes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from llama_index.core.base.embeddings.base import BaseEmbedding
    from numpy.typing import NDArray

    from llama_index_embft.embeddings.encoding.cache import EmbeddingCache

DriftKind = Literal["procrustes", "low_rank", "mlp", "auto"]
_SIMPLEST_FIRST: Final = ("procrustes", "low_rank", "mlp")
_FEWEST: Final = 50
_RESAMPLES: Final = 1000


@dataclass(frozen=True)
class DriftScore:
    """What one kind of map keeps, on queries that it has not seen.

    Attributes:
        kind: The map; ``"none"`` stands for the new model's queries sent to the old index as they are.
        kept: Share of the ``k`` hits of the new model over its own vectors (the full re-embed) that the mapped query
            finds among its ``k`` hits over the old vectors: the recall that is kept, with the re-embed's hits as truth.
        ci95: Bootstrap interval of `kept`, over queries.
        recall: Of the documents labelled relevant, in ``k`` hits; None without labels.
        validation: `kept` on the validation queries, by which ``"auto"`` chooses.
        fit_seconds: Time of the fit, embedding not included.
    """

    kind: str
    kept: float
    ci95: tuple[float, float]
    recall: float | None
    validation: float
    fit_seconds: float


@dataclass(frozen=True)
class DriftReport:
    """How good the map is, against re-embedding everything.

    Attributes:
        kind: The map that was chosen.
        k: Hits a query.
        queries: Test queries, unseen by fit and choice.
        documents: Documents that they searched.
        pairs: Pairs of vectors that the map was fitted on.
        scores: A row a kind, that was fitted.
        full_recall: Labelled recall of the full re-embed; None without labels.
        old_recall: Labelled recall of the old model on its index; None without labels, or without the old model.
    """

    kind: str
    k: int
    queries: int
    documents: int
    pairs: int
    scores: tuple[DriftScore, ...]
    full_recall: float | None = None
    old_recall: float | None = None

    @property
    def chosen(self) -> DriftScore:
        """The score of the map that was chosen."""
        return next(score for score in self.scores if score.kind == self.kind)

    @property
    def recall_kept(self) -> float | None:
        """Labelled recall of the map, as a share of the full re-embed's; None without labels."""
        if self.full_recall is None or self.chosen.recall is None or not self.full_recall:
            return None
        return self.chosen.recall / self.full_recall

    def __str__(self) -> str:
        best = self.chosen
        text = (
            f"{self.kind}: {best.kept:.1%} of the full re-embed's {self.k} hits are kept "
            f"(95 % interval {best.ci95[0]:.1%} to {best.ci95[1]:.1%}; {self.queries} unseen queries over "
            f"{self.documents:,} documents, fitted on {self.pairs:,} pairs)"
        )
        if self.recall_kept is not None:
            text += (
                f"; of the documents labelled relevant it finds {best.recall:.3f}, {self.recall_kept:.1%} of the "
                f"re-embed's {self.full_recall:.3f}"
            )
        return text


class DriftAdapter:
    """A fitted map; `fit` makes one, `save` keeps it, `embeddings.drift.DriftEmbedding` serves it.

    Attributes:
        drift_map: The map.
        report: How much of a full re-embed's recall it keeps.
        old: Whose documents the index holds.
        new: Whose queries are mapped.
    """

    def __init__(self, drift_map: DriftMap, report: DriftReport, old: ModelIdentity, new: ModelIdentity) -> None:
        self.drift_map = drift_map
        self.report = report
        self.old = old
        self.new = new

    @classmethod
    def fit(
        cls,
        old: BaseEmbedding | NDArray[np.float32],
        new: BaseEmbedding | NDArray[np.float32],
        texts: Sequence[str] | EmbeddingQAFinetuneDataset,
        *,
        queries: Sequence[str] = (),
        kind: DriftKind = "auto",
        k: int = 10,
        rank: int = 128,
        hidden: int = 512,
        seed: int = 0,
        old_identity: ModelIdentity | None = None,
        new_identity: ModelIdentity | None = None,
        cache: EmbeddingCache | Literal["default"] | None = "default",
    ) -> DriftAdapter:
        """Learn the map from texts that both models have embedded.

        A fifth of the queries chooses the kind and another fifth measures it; the others, as far as the old model can
        embed them, are fitted on together with the texts. Without queries two fifths of the texts play their part.

        Args:
            old: The model that embedded the index; or its vectors of the texts, shape ``(len(texts), dim_old)``, which
                `sample_index` reads from the index itself where the model is gone.
            new: The model that is to search it; or its vectors, shape ``(len(texts), dim_new)``.
            texts: A sample of the index's documents: the more the better, a few thousand are plenty. A data set gives
                its corpus, its queries and the labels for `DriftReport.recall_kept`.
            queries: Sample queries, as users ask them; need ``new`` to be a model.
            kind: ``"procrustes"`` (fewest parameters: for a new version of a model, or a few hundred texts),
                ``"low_rank"``, ``"mlp"``; ``"auto"`` takes what keeps most on the validation queries, the simplest of
                equals.
            k: Hits a query, for choice and report.
            rank: Of the low-rank addition.
            hidden: Width of the MLP.
            seed: Of splits and training.
            old_identity: Whose vectors ``old`` are, where they are vectors; the stamp of the index says it.
            new_identity: Likewise for ``new``.
            cache: For embedding, see `as_encoder`.

        Raises:
            ConfigError: Fewer than 50 texts or 10 queries, vectors that do not fit the texts, queries without a model,
                a value out of range.
            ModelError: A model has no name, or returns NaN; or vectors are NaN or zero.
        """
        _check(kind, k, rank, hidden)
        sample = _Sample.of(old, new, texts, queries, cache, seed)
        order = _SIMPLEST_FIRST if kind == "auto" else (kind,)
        maps: dict[str, DriftMap] = {}
        scores: list[DriftScore] = []
        for name in order:
            started = time.perf_counter()
            maps[name] = _fit(name, sample.pairs_new, sample.pairs_old, maps, rank, hidden, seed)
            scores.append(sample.score(name, maps[name], k, seconds=time.perf_counter() - started, seed=seed))
        best = max(scores, key=lambda score: round(score.validation, 4))  # max keeps the first, and simplest, of equals
        if sample.docs_old.shape[1] == sample.docs_new.shape[1]:
            scores.append(sample.score("none", None, k, seconds=0.0, seed=seed))
        report = DriftReport(
            kind=best.kind,
            k=k,
            queries=len(sample.test),
            documents=len(sample.docs_new),
            pairs=len(sample.pairs_new),
            scores=tuple(scores),
            full_recall=sample.labelled(sample.test_new, sample.docs_new, k),
            old_recall=None if sample.test_old is None else sample.labelled(sample.test_old, sample.docs_old, k),
        )
        return cls(maps[best.kind], report, _who(old, old_identity, "document"), _who(new, new_identity, "query"))

    def __call__(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map vectors of the new model, shape ``(n, dim_new)``, to ``(n, dim_old)`` of length 1."""
        return self.drift_map(vectors)

    def save(self, folder: str | Path) -> None:
        """Save the map with both fingerprints and the report; load it with `DriftEmbedding(new_model, folder)`.

        Raises:
            OutputError: The folder cannot be written.
        """
        record: dict[str, Any] = {"kind": "drift", "report": json.loads(json.dumps(asdict(self.report)))}
        save_drift(folder, self.drift_map, old=self.old, new=self.new, record=record)


@dataclass(frozen=True)
class _Sample:
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
    ) -> _Sample:
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
        asked_new = _checked(new_encoder.encode_queries(list(queries)), "new")
        asked_old = None if old_encoder is None else _checked(old_encoder.encode_queries(list(queries)), "old")
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
        from llama_index_embft.search.topk import top_k

        if self.relevant is None:
            return None
        rows = top_k(asked, docs, min(k, len(docs))).rows.tolist()
        wanted = [self.relevant[query] for query in self.test]
        return float(np.mean([len(need & set(row)) / len(need) for need, row in zip(wanted, rows, strict=True)]))


def _fit(
    kind: str,
    new: NDArray[np.float32],
    old: NDArray[np.float32],
    known: dict[str, DriftMap],
    rank: int,
    hidden: int,
    seed: int,
) -> DriftMap:
    if kind == "procrustes":
        return fit_procrustes(new, old)
    affine = known.get("low_rank") or fit_low_rank(new, old, rank=rank, seed=seed)
    return affine if kind == "low_rank" else fit_mlp(new, old, start=affine, hidden=hidden, seed=seed)


def _vectors(
    source: Any, texts: Sequence[str], cache: EmbeddingCache | Literal["default"] | None, name: str
) -> tuple[NDArray[np.float32], Encoder | None]:
    if isinstance(source, np.ndarray):
        if source.ndim != 2 or len(source) != len(texts):
            raise ConfigError(f"`{name}` has shape {source.shape} for {len(texts)} texts; give a vector for each text.")
        return _checked(source, name), None
    encoder = as_encoder(source, cache=cache)
    return _checked(encoder.encode_documents(list(texts)), name), encoder


def _checked(vectors: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    bad = np.logical_not(np.isfinite(vectors).all(axis=1) & vectors.any(axis=1))
    if bad.any():
        raise ModelError(f"{int(bad.sum())} of {len(vectors)} vectors of the {name} model are NaN, infinite or zero.")
    return unit_rows(vectors.astype(np.float32, copy=False))


def _who(source: Any, given: ModelIdentity | None, side: Literal["query", "document"]) -> ModelIdentity:
    if not isinstance(source, np.ndarray):
        return identify(source, side)
    return given or ModelIdentity("", "vectors of an unnamed model")


def _check(kind: str, k: int, rank: int, hidden: int) -> None:
    if kind not in get_args(DriftKind):
        raise ConfigError(f"`kind` must be one of {', '.join(get_args(DriftKind))}, got {kind!r}.")
    for name, value in (("k", k), ("rank", rank), ("hidden", hidden)):
        if value < 1:
            raise ConfigError(f"`{name}` must be at least 1, got {value}.")
