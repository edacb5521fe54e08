"""Validation inside training: the same metrics as the final report, on vectors that are at hand."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

from llama_index_embft.errors import DatasetError
from llama_index_embft.finetune.base import SELECTION_METRIC

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset


class BestState:
    """Remembers the weights with the highest validation score, the ones before training included.

    Ties keep the earlier weights: training that changes nothing on validation has not earned a swap.

    Args:
        module: What is trained; its weights are copied to the CPU at each new best.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._weights: dict[str, Any] | None = None
        self.base_score: float | None = None
        self.score: float | None = None
        self.step = 0
        self.history: list[dict[str, float]] = []

    def offer(self, step: int, epoch: float, metrics: dict[str, float], **more: float) -> bool:
        """Record an evaluation; returns whether it is the best so far."""
        score = metrics[SELECTION_METRIC]
        self.history.append({"step": step, "epoch": epoch, **metrics, **more})
        if self.base_score is None:
            self.base_score = score
        if self.score is not None and score <= self.score:
            return False
        self.score, self.step = score, step
        self._weights = {name: tensor.detach().cpu().clone() for name, tensor in self._module.state_dict().items()}
        return True

    def restore(self) -> None:
        """Put the best weights back into the module; without any evaluation, leave it as it is."""
        if self._weights is not None:
            self._module.load_state_dict(self._weights)

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold to go on as if nothing had happened: scores, and the weights apart."""
        return deepcopy({"base": self.base_score, "score": self.score, "step": self.step, "history": self.history})

    @property
    def weights(self) -> dict[str, Any] | None:
        """The best weights."""
        return self._weights

    def load(self, state: dict[str, Any], weights: dict[str, Any] | None) -> None:
        """Take over the state of a checkpoint."""
        self.base_score, self.score = state["base"], state["score"]
        self.step, self.history, self._weights = state["step"], state["history"], weights


class Validation:
    """Scores vectors against a validation set.

    Args:
        dataset: The validation set.

    Raises:
        DatasetError: It has no query.
    """

    def __init__(self, dataset: EmbeddingQAFinetuneDataset) -> None:
        from llama_index_embft.evaluation.retrieval import RetrievalEvaluator

        if not dataset.queries:
            raise DatasetError("The validation set has no query; give one with queries, or none at all.")
        self.queries = list(dataset.queries.values())
        self.documents = list(dataset.corpus.values())
        self._evaluator = RetrievalEvaluator(dataset)

    def score(self, queries: NDArray[np.float32], documents: NDArray[np.float32]) -> dict[str, float]:
        """Mean metrics.

        Args:
            queries: Shape ``(n_queries, dim)``, in the order of `queries`.
            documents: Shape ``(n_documents, dim)``, in the order of `documents`.
        """
        return dict(self._evaluator.score(queries, documents))
