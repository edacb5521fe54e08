"""A loss that follows a cross-encoder's scores beside the contrastive term."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from sentence_transformers.base.losses.gradcache import CachedLossMixin
from sentence_transformers.base.losses.merged_forward import embed_columns
from sentence_transformers.util import all_gather_with_grad, get_rank
from torch import Tensor, nn

from llama_index_embft.finetune.full.losses.similarity import cosines

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sentence_transformers import SentenceTransformer


class DistillationLoss(CachedLossMixin, nn.Module):
    """``(1 - weight)`` of the contrastive loss plus ``weight`` of the distance to the teacher.

    The contrastive term is that of `MultipleNegativesRankingLoss`. The teacher speaks about a row's own documents only:

    - ``"kl"``: Kullback-Leibler divergence of the student's softmax over them from the teacher's, as in RocketQAv2 and
      CADET (arXiv 2505.19274). With every score given it is `DistillKLDivLoss` without the factor of temperature².
    - ``"margin"``: mean squared error of the differences between positive and negatives, as in MarginMSE
      (arXiv 2010.02666), the teacher's differences scaled to cosines.

    A document that the teacher did not score (NaN) is left out, and so is a row with fewer than two scores.

    Args:
        model: What is trained.
        kind: Which distance.
        weight: Share of the distance in the sum, in [0, 1].
        temperature: Divides the student's cosines.
        teacher_temperature: Divides the teacher's scores.
        mini_batch_size: Rows of a text column that are computed with gradients at a time (GradCache: a forward pass
            more, memory of the mini-batch alone); None: all at once.
        gather_across_devices: Compare with the documents of all processes.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        kind: Literal["kl", "margin"] = "kl",
        *,
        weight: float = 0.5,
        temperature: float = 0.05,
        teacher_temperature: float = 1.0,
        mini_batch_size: int | None = None,
        gather_across_devices: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.kind = kind
        self.weight = weight
        self.temperature = temperature
        self.teacher_temperature = teacher_temperature
        self.gather_across_devices = gather_across_devices
        self.uses_gradient_cache = mini_batch_size is not None
        self.mini_batch_size = mini_batch_size or 0

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor) -> Tensor:
        """Loss of a batch.

        Args:
            sentence_features: Tokens of the columns anchor, positive, negative_1, ….
            labels: Shape ``(rows, 1 + n_negatives)``: the teacher's scores.
        """
        if self.uses_gradient_cache:
            cached: Tensor = self.forward_cached(sentence_features, labels)
            return cached
        return self._compute(embed_columns(self.model, sentence_features), labels)

    def calculate_loss(
        self, reps: list[list[Tensor]], labels: Tensor | None = None, *, with_backward: bool = False
    ) -> Tensor:
        """The hook of sentence-transformers' GradCache: the loss from the embeddings of all mini-batches."""
        assert labels is not None
        loss = self._compute([torch.cat(column) for column in reps], labels)
        if with_backward:
            loss.backward()  # type: ignore[no-untyped-call]
            loss = loss.detach()
        return loss

    def _compute(self, embeddings: list[Tensor], labels: Tensor) -> Tensor:
        queries, *documents = [column.float() for column in embeddings]
        rows = len(queries)
        candidates, offset = documents, 0
        if self.gather_across_devices:
            candidates, offset = [all_gather_with_grad(column) for column in documents], get_rank() * rows
        target = torch.arange(offset, offset + rows, device=queries.device)
        scores = cosines(queries, torch.cat(candidates)) / self.temperature
        contrastive = nn.functional.cross_entropy(scores, target)
        own = torch.stack(
            [nn.functional.cosine_similarity(queries, column, dim=-1) for column in documents], dim=1
        )  # (rows, 1 + n_negatives)
        return (1.0 - self.weight) * contrastive + self.weight * self._distance(own, labels.to(own))

    def _distance(self, own: Tensor, scores: Tensor) -> Tensor:
        known = ~torch.isnan(scores)
        scores = torch.where(known, scores, 0.0) / self.teacher_temperature
        if self.kind == "margin":
            both = known[:, :1] & known[:, 1:]
            wanted = (scores[:, :1] - scores[:, 1:]) * self.temperature
            error = ((own[:, :1] - own[:, 1:]) - wanted).square()
            return (error * both).sum() / both.sum().clamp(min=1)
        rows = known.sum(dim=1) > 1
        # A finite low value: minus infinity would turn rows without any score into NaN, gradients included.
        lowest = torch.finfo(own.dtype).min / 4
        student = (own / self.temperature).masked_fill(~known, lowest).log_softmax(dim=1)
        teacher = scores.masked_fill(~known, lowest).log_softmax(dim=1)
        divergence = (teacher.exp() * (teacher - student) * known).sum(dim=1)
        return (divergence * rows).sum() / rows.sum().clamp(min=1)

    def get_config_dict(self) -> dict[str, Any]:
        """What the model card shows."""
        return {
            "kind": self.kind,
            "weight": self.weight,
            "temperature": self.temperature,
            "teacher_temperature": self.teacher_temperature,
            "mini_batch_size": self.mini_batch_size or None,
            "gather_across_devices": self.gather_across_devices,
        }
