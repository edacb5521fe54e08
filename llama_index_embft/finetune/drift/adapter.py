"""Change the model and keep the index: learn the map of a new model's queries into an old index's space.

Drift-Adapter (arXiv 2509.23471): a sample of texts embedded by both models is enough, and queries of the new model
serve on the old index at once, while it is re-embedded in the background or never.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import numpy as np

from llama_index_embft._core.checks import check_choice, check_number
from llama_index_embft.embeddings.drift import DriftMap, save_drift
from llama_index_embft.embeddings.identity import ModelIdentity, identify
from llama_index_embft.finetune.drift.fit import fit_low_rank, fit_mlp, fit_procrustes
from llama_index_embft.finetune.drift.report import DriftReport, DriftScore
from llama_index_embft.finetune.drift.sample import DriftSample
from llama_index_embft.finetune.drift.settings import DriftKind, DriftSettings
from llama_index_embft.finetune.vectors import share_kept

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from llama_index.core.base.embeddings.base import BaseEmbedding
    from numpy.typing import NDArray

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.embeddings.encoding.cache import EmbeddingCache

_SIMPLEST_FIRST: Final = ("procrustes", "low-rank", "mlp")


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
        index_size: int | None = None,
        settings: DriftSettings | None = None,
        seed: int = 0,
        old_identity: ModelIdentity | None = None,
        new_identity: ModelIdentity | None = None,
        cache: EmbeddingCache | Literal["default"] | None = "default",
    ) -> DriftAdapter:
        """Learn the map from texts that both models have embedded.

        A fifth of the queries chooses the kind and another fifth measures it; the others, as far as the old model can
        embed them, are fitted on together with the texts. Without queries two fifths of the texts play their part.

        Where the texts are a sample, two fifths of them are not fitted on and are what is searched for the report.

        Args:
            old: The model that embedded the index; or its vectors of the texts, shape ``(len(texts), dim_old)``, which
                `sample_index` reads from the index itself where the model is gone.
            new: The model that is to search it; or its vectors, shape ``(len(texts), dim_new)``.
            texts: A sample of the index's documents: the more the better, a few thousand are plenty. A data set gives
                its corpus, its queries and the labels for `DriftReport.recall_kept`.
            queries: Sample queries, as users ask them; need ``new`` to be a model.
            kind: ``"procrustes"`` (fewest parameters: for a new version of a model, or a few hundred texts),
                ``"low-rank"``, ``"mlp"``; ``"auto"`` takes what keeps most on the validation queries, the simplest of
                equals.
            k: Hits a query, for choice and report.
            index_size: Documents of the index, `IndexSample.index_size`: the report then says what to expect over all
                of them. As many as there are texts: these are all of it. None: unknown; the corpus of a data set is
                taken for all.
            settings: Sizes of the maps.
            seed: Of splits and training.
            old_identity: Whose vectors ``old`` are, where they are vectors; the stamp of the index says it.
            new_identity: Likewise for ``new``.
            cache: For embedding, see `as_encoder`.

        Raises:
            ConfigError: Fewer than 50 texts or 10 queries, vectors that do not fit the texts, queries without a model,
                a value out of range.
            ModelError: A model has no name, or returns NaN; or vectors are NaN or zero.
        """
        check_choice("kind", kind, get_args(DriftKind))
        check_number("k", k, at_least=1)
        settings = settings or DriftSettings()
        sample = DriftSample.of(old, new, texts, queries, index_size, cache, seed)
        order = _SIMPLEST_FIRST if kind == "auto" else (kind,)
        maps: dict[str, DriftMap] = {}
        scores: list[DriftScore] = []
        for name in order:
            started = time.perf_counter()
            maps[name] = _fit(name, sample.pairs_new, sample.pairs_old, maps, settings, seed)
            scores.append(sample.score(name, maps[name], k, seconds=time.perf_counter() - started, seed=seed))
        best = max(scores, key=lambda score: round(score.validation, 4))  # max keeps the first, and simplest, of equals
        if sample.docs_old.shape[1] == sample.docs_new.shape[1]:
            scores.append(sample.score("none", None, k, seconds=0.0, seed=seed))
        report = DriftReport(
            kind=best.kind,
            k=k,
            queries=len(sample.test.new),
            documents=len(sample.docs_new),
            pairs=len(sample.pairs_new),
            scores=tuple(scores),
            index_size=sample.index_size,
            full_recall=sample.labelled(sample.test.new, sample.docs_new, k),
            old_recall=None if sample.test.old is None else sample.labelled(sample.test.old, sample.docs_old, k),
        )
        return cls(maps[best.kind], report, _who(old, old_identity, "document"), _who(new, new_identity, "query"))

    def __call__(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map vectors of the new model, shape ``(n, dim_new)``, to ``(n, dim_old)`` of length 1."""
        return self.drift_map(vectors)

    def kept_over(
        self, queries: NDArray[np.float32], old: NDArray[np.float32], new: NDArray[np.float32], *, k: int = 10
    ) -> float:
        """Measure over documents that both models have embedded, such as a whole index, what share of hits is kept.

        Args:
            queries: By the new model, shape ``(n, dim_new)``; the map must not have been fitted on them.
            old: The documents by the old model, shape ``(n_docs, dim_old)``.
            new: The documents by the new model, shape ``(n_docs, dim_new)``.
            k: Hits a query.
        """
        return float(share_kept(queries, self(queries), new, old, k).mean())

    def save(self, folder: str | Path) -> None:
        """Save the map with both fingerprints and the report; load it with `DriftEmbedding(new_model, folder)`.

        Raises:
            OutputError: The folder cannot be written.
        """
        record: dict[str, Any] = {"kind": "drift", "report": json.loads(json.dumps(asdict(self.report)))}
        save_drift(folder, self.drift_map, old=self.old, new=self.new, record=record)


def _fit(
    kind: str,
    new: NDArray[np.float32],
    old: NDArray[np.float32],
    known: dict[str, DriftMap],
    settings: DriftSettings,
    seed: int,
) -> DriftMap:
    if kind == "procrustes":
        return fit_procrustes(new, old)
    affine = known.get("low-rank") or fit_low_rank(new, old, rank=settings.rank, seed=seed)
    if kind == "low-rank":
        return affine
    return fit_mlp(new, old, start=affine, hidden_dim=settings.hidden_dim, seed=seed)


def _who(source: Any, given: ModelIdentity | None, side: Literal["query", "document"]) -> ModelIdentity:
    if not isinstance(source, np.ndarray):
        return identify(source, side)
    return given or ModelIdentity("", "vectors of an unnamed model")
