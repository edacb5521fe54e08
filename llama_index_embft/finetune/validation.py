"""Validation inside training: the same metrics as the final report, on vectors that are at hand."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

from llama_index_embft.embeddings.encoding.encoder import as_encoder
from llama_index_embft.errors import DatasetError
from llama_index_embft.finetune.engine import SELECTION_METRIC

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy as np
    import torch
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer
    from torch import nn

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset


class BestState:
    """Remembers the weights with the highest validation score, the ones before training included.

    Ties keep the earlier weights: training that changes nothing on validation has not earned a swap.

    Args:
        module: What is trained; its weights are copied to the CPU at each new best.
        trainable_only: Copy only the weights that are trained, where the others stay as they are (LoRA).
        metric: The one that chooses.
    """

    def __init__(self, module: nn.Module, *, trainable_only: bool = False, metric: str = SELECTION_METRIC) -> None:
        self._module = module
        self._metric = metric
        self._trainable_only = trainable_only
        self._weights: dict[str, Any] | None = None
        self.base_score: float | None = None
        self.score: float | None = None
        self.step = 0
        self.history: list[dict[str, float]] = []

    def offer(self, step: int, epoch: float, metrics: dict[str, float], **more: float) -> bool:
        """Record an evaluation; returns whether it is the best so far.

        Metrics without the selection metric are recorded and choose nothing.
        """
        self.history.append({"step": step, "epoch": epoch, **metrics, **more})
        if self._metric not in metrics:
            return False
        score = metrics[self._metric]
        if self.base_score is None:
            self.base_score = score
        if self.score is not None and score <= self.score:
            return False
        self.score, self.step = score, step
        self._weights = weights_of(self._module, trainable_only=self._trainable_only)
        return True

    def restore(self) -> None:
        """Put the best weights back into the module; without any evaluation, leave it as it is."""
        if self._weights is not None:
            self._module.load_state_dict(self._weights, strict=not self._trainable_only)

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

    def recorded(self, state: dict[str, Any]) -> BestState:
        """A record in the form of `state`, of the same module and without weights."""
        record = BestState(self._module)
        record.load(state, None)
        return record


class Validation:
    """Scores vectors against a validation set.

    Args:
        dataset: The validation set.
        name: What it is, for messages.

    Raises:
        DatasetError: It has no query.
    """

    def __init__(self, dataset: EmbeddingQAFinetuneDataset, name: str = "validation set") -> None:
        from llama_index_embft.evaluation.systems.embed_model import RetrievalEvaluator

        if not dataset.queries:
            raise DatasetError(f"The {name} has no query; give one with queries, or none at all.")
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


class TrainingEvaluator:
    """What is measured before, during and after training: validation, guard, and evaluators of sentence-transformers.

    All of an engine's scores come from here, those of the base model too, so that each is comparable with each.

    Args:
        val: The validation set; None: nothing chooses.
        guard: The guard set; its metrics get the prefix ``guard_``.
        evaluators: Of sentence-transformers; run on the model as it stands.

    Raises:
        DatasetError: A set has no query.
    """

    def __init__(
        self,
        val: EmbeddingQAFinetuneDataset | None,
        guard: EmbeddingQAFinetuneDataset | None,
        evaluators: Sequence[object] = (),
    ) -> None:
        self.validation = Validation(val) if val is not None else None
        self.guard = Validation(guard, "guard set") if guard is not None else None
        self.evaluators: list[Any] = list(evaluators)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to measure."""
        return self.validation is None and self.guard is None and not self.evaluators

    def metrics(self, embedding: BaseEmbedding, model: SentenceTransformer) -> dict[str, float]:
        """All metrics of the model inside the embedding; the model's mode stays as it was."""
        training = model.training
        found = self.set_metrics(embedding)
        for number, evaluator in enumerate(self.evaluators, start=1):
            scores = evaluator(model)
            if not isinstance(scores, dict):
                scores = {evaluator.primary_metric or f"evaluator_{number}": scores}
            found |= {name: float(value) for name, value in scores.items()}
        model.train(training)
        return found

    def set_metrics(self, embedding: BaseEmbedding) -> dict[str, float]:
        """Metrics on the validation set, and those on the guard set with ``guard_`` in front."""
        guarded = _score(self.guard, embedding)
        return _score(self.validation, embedding) | {f"guard_{name}": value for name, value in guarded.items()}


def _score(validation: Validation | None, embedding: BaseEmbedding) -> dict[str, float]:
    if validation is None:
        return {}
    encoder = as_encoder(embedding, cache=None)
    queries = encoder.encode_queries(validation.queries)
    return validation.score(queries, encoder.encode_documents(validation.documents))


def weights_of(module: nn.Module, *, trainable_only: bool = False) -> dict[str, torch.Tensor]:
    """A copy of a module's weights, on the CPU."""
    found: Iterable[tuple[str, torch.Tensor]] = module.state_dict().items()
    if trainable_only:
        found = ((name, weight) for name, weight in module.named_parameters() if weight.requires_grad)
    return {name: tensor.detach().cpu().clone() for name, tensor in found}
