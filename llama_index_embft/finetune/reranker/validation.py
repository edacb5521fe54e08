"""How well a reranker orders what the first stage finds, alone and mixed with the order in which it came."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from llama_index_embft.embeddings.cross_encoder import pair_logits
from llama_index_embft.evaluation.metrics import Judgements, find_hits, score_hits
from llama_index_embft.finetune.engine import SELECTION_METRIC
from llama_index_embft.retrievers.fusion import learn_weight
from llama_index_embft.retrievers.reranking import ranked_hits
from llama_index_embft.search.fusion import fuse

if TYPE_CHECKING:
    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.finetune.reranker.candidates import FirstStageHits
    from llama_index_embft.search.topk import TopK

WEIGHT: Final = "weight"
ALONE: Final = "ndcg@10_alone"
FIRST_STAGE: Final = "ndcg@10_first_stage"


class RerankValidation:
    """Questions with their candidates, ranked anew by a model as it stands.

    Questions whose relevant passages are not among the candidates stay, and count what the first stage makes of them.

    Args:
        dataset: Questions, corpus and relevant passages.
        found: What the first stage finds for some of its questions.
        batch_size: Pairs at a time.
        alone: The reranker is used by itself, so its own order is what counts.
        prior: Share of the reranker before these questions say more, see `learn_weight`.

    Attributes:
        alone: As given.
        first_stage: nDCG@10 of the order in which the hits came.
        within_reach: Share of the questions with a relevant passage among their candidates.
    """

    def __init__(
        self,
        dataset: EmbeddingQAFinetuneDataset,
        found: FirstStageHits,
        *,
        batch_size: int = 32,
        alone: bool = False,
        prior: float = 0.0,
    ) -> None:
        queries = found.query_ids
        self.alone, self._prior = alone, prior
        self._batch_size = batch_size
        self._hits = found.hits
        row_of = {doc: row for row, doc in enumerate(found.ids)}
        self._judgements = Judgements.from_qrels(dataset.subset(queries).qrels(), queries, row_of)
        self._n_documents = len(found.ids)
        self._there = found.hits.rows >= 0
        self._pairs = [
            (dataset.queries[query], dataset.corpus[found.ids[row]])
            for query, rows in zip(queries, found.hits.rows.tolist(), strict=True)
            for row in rows
            if row >= 0
        ]
        self.first_stage = self._mean(found.hits)
        hits = find_hits(found.hits.rows, self._judgements, self._n_documents)
        depth = f"hit_rate@{self._depth}"
        self.within_reach = float(score_hits(hits, self._judgements, [depth])[depth].mean())

    def without_model(self) -> dict[str, float]:
        """The figures of no reranking."""
        return {SELECTION_METRIC: self.first_stage, WEIGHT: 0.0, FIRST_STAGE: self.first_stage}

    def metrics(self, model: Any) -> dict[str, float]:
        """The figures of a reranker: mixed by the weight that these questions give it, alone, and without it.

        The weight is 0 where reranking does not help here, so the first figure is never below that of the first stage.
        """
        second = self._reranked(model)
        if self.alone:
            return {SELECTION_METRIC: (score := self._mean(second)), WEIGHT: 1.0, ALONE: score}
        choice = learn_weight(second, self._hits, self._judgements, prior=self._prior, depth=self._depth)
        weight = choice.weight if choice.scores[choice.weight] > choice.scores[0.0] else 0.0
        return {
            SELECTION_METRIC: choice.scores[weight],
            WEIGHT: weight,
            ALONE: choice.scores[1.0],
            FIRST_STAGE: self.first_stage,
        }

    def mixed(self, model: Any, weight: float) -> float:
        """nDCG@10 of a reranker with a weight that was chosen elsewhere."""
        return self._mean(fuse(self._reranked(model), self._hits, weight, depth=self._depth))

    @property
    def _depth(self) -> int:
        return max(1, int(self._hits.rows.shape[1]))

    def _reranked(self, model: Any) -> TopK:
        """The candidates by the reranker alone."""
        scores = np.full(self._hits.rows.shape, -np.inf, dtype=np.float32)
        scores[self._there] = pair_logits(model, self._pairs, batch_size=self._batch_size)
        return ranked_hits(scores, self._hits.rows)

    def _mean(self, hits: TopK) -> float:
        found = find_hits(hits.rows, self._judgements, self._n_documents)
        return float(score_hits(found, self._judgements, [SELECTION_METRIC])[SELECTION_METRIC].mean())
