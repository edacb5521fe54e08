"""From the shape of the data to the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from llama_index_embft._core.checks import check_choice, check_number
from llama_index_embft.errors import ConfigError
from llama_index_embft.finetune.full.data.rows import LABEL

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch
    from sentence_transformers import SentenceTransformer

    from llama_index_embft.finetune.full.data.rows import TrainingRows
    from llama_index_embft.finetune.full.settings import LossSettings

# A loss of sentence-transformers, what makes one from the model, or "cosent".
Loss: TypeAlias = "str | torch.nn.Module | Callable[[SentenceTransformer], torch.nn.Module]"
COSENT: Final = "cosent"
# All that sentence-transformers' GISTEmbedLoss takes.
GIST_NEGATIVES: Final = 1

# On CPU, where memory is what bounds the batch: it stays that of 16 rows of 256 tokens, about 2 GB with MiniLM.
_CPU_MINI_BATCH: Final = 16
_CPU_TOKENS: Final = _CPU_MINI_BATCH * 256


@dataclass(frozen=True)
class LossMaker:
    """Makes the loss of a run, again with a smaller mini-batch when memory runs out.

    Attributes:
        make: Mini-batch size, or None for the whole batch at once, to the loss.
        can_cache: Whether `make` heeds the mini-batch size.
        name: For the record.
        guide: The guide model, where there is one.
    """

    make: Callable[[int | None], torch.nn.Module]
    can_cache: bool
    name: str
    guide: SentenceTransformer | None = None


def loss_maker(
    model: SentenceTransformer,
    rows: TrainingRows,
    settings: LossSettings,
    *,
    loss: Loss | None = None,
    gather: bool = False,
    trust_remote_code: bool = False,
) -> LossMaker:
    """Choose the loss.

    ============================================  =====================================================================
    data                                          loss
    ============================================  =====================================================================
    pairs, pairs with hard negatives              `MultipleNegativesRankingLoss`; `Cached…` with a mini-batch size
    the same with ``guide_model``                 `GISTEmbedLoss`, which takes one hard negative; `Cached…` likewise
    hard negatives with a teacher's scores        `DistillationLoss`: the contrastive term beside KL or margins
    ``loss="cosent"``: pairs with scores          `CoSENTLoss`
    any, with a loss of the user's                that; a teacher's scores reach it as labels
    ============================================  =====================================================================

    Args:
        model: What is trained.
        rows: The training rows; a column of labels beside hard negatives asks for distillation.
        settings: Temperature, weights, dimensions, guide.
        loss: The user's own, as an object or as a function of the model; or ``"cosent"``.
        gather: Share negatives across processes.
        trust_remote_code: Run code that comes with the guide model.

    Raises:
        ConfigError: Two arguments contradict each other, or a dimension is larger than the model's.
        ModelError: The guide model cannot be loaded.
    """
    dims, guide_model = settings.matryoshka_dims, settings.guide_model
    width = model.get_embedding_dimension()
    if dims is not None and width is not None:
        check_number("matryoshka_dims", max(dims), at_most=width, hint="the model has no more dimensions")
    if guide_model is not None and (loss is not None or LABEL in rows.columns):
        raise ConfigError(
            "guide_model works only with the default loss; leave out `loss` and teacher scores, or the guide."
        )
    if loss is not None and not isinstance(loss, str):
        return _own_loss(model, loss, dims)
    if loss is not None:
        check_choice("loss", loss, [COSENT], hint="other losses are passed as objects")
    guide = None
    if loss == COSENT:
        maker, can_cache, name = _cosent(model, settings), False, "CoSENTLoss"
    elif LABEL in rows.columns:
        maker, can_cache, name = _distillation(model, rows, settings, gather), True, "DistillationLoss"
    elif guide_model is not None:
        guide = _loaded_guide(guide_model, model, trust_remote_code)
        maker, can_cache, name = _gist(model, guide, settings, gather), True, "GISTEmbedLoss"
    else:
        maker, can_cache, name = _contrastive(model, settings, gather), True, "MultipleNegativesRankingLoss"
    from sentence_transformers.base.losses.gradcache import has_static_embedding_input

    if has_static_embedding_input(model):  # a bag of tokens has no batch to cut, and needs next to no memory
        return LossMaker(lambda _: _nested(model, maker(None), dims), False, name, guide)
    return LossMaker(lambda mini: _nested(model, maker(mini), dims), can_cache, name, guide)


def first_mini_batch(
    wanted: int | None, rows_per_process: int, documents: int, device: str, tokens: int | None = None
) -> int | None:
    """The mini-batch size to start with; None computes the whole batch at once.

    Args:
        wanted: The user's; it decides if it is given.
        rows_per_process: Rows of a batch.
        documents: Documents of a row.
        device: Type of the device.
        tokens: Of the longest texts, as far as the model reads them; None: not known.
    """
    if wanted is not None:
        return None if wanted >= rows_per_process else wanted
    rows = _CPU_MINI_BATCH
    if tokens:
        rows = max(1, min(rows, _CPU_TOKENS // tokens))
    return rows if device == "cpu" and rows_per_process * documents > rows else None


def _contrastive(
    model: SentenceTransformer, settings: LossSettings, gather: bool
) -> Callable[[int | None], torch.nn.Module]:
    from sentence_transformers.sentence_transformer import losses

    from llama_index_embft.finetune.full.losses.similarity import cosines

    options: dict[str, Any] = {
        "scale": 1.0 / settings.temperature,
        "similarity_fct": cosines,
        "gather_across_devices": gather,
    }

    def make(mini: int | None) -> torch.nn.Module:
        if mini is None:
            return losses.MultipleNegativesRankingLoss(model, **options)
        return losses.CachedMultipleNegativesRankingLoss(model, mini_batch_size=mini, **options)

    return make


def _gist(
    model: SentenceTransformer, guide: SentenceTransformer, settings: LossSettings, gather: bool
) -> Callable[[int | None], torch.nn.Module]:
    from sentence_transformers.sentence_transformer import losses

    # Questions among themselves and passages among themselves are no retrieval: with these off the loss is the default
    # one, less the negatives that the guide puts nearer than 1 - margin of the positive.
    options: dict[str, Any] = {
        "temperature": settings.temperature,
        "margin_strategy": "relative",
        "margin": settings.guide_margin,
        "contrast_anchors": False,
        "contrast_positives": False,
        "gather_across_devices": gather,
    }

    def make(mini: int | None) -> torch.nn.Module:
        try:
            if mini is None:
                return losses.GISTEmbedLoss(model, guide, **options)
            return losses.CachedGISTEmbedLoss(model, guide, mini_batch_size=mini, **options)
        except ValueError as err:  # a tokenizer that cannot be turned back into text, for the guide's own
            raise ConfigError(f"guide_model does not go with this model: {err}") from err

    return make


def _distillation(
    model: SentenceTransformer, rows: TrainingRows, settings: LossSettings, gather: bool
) -> Callable[[int | None], torch.nn.Module]:
    from llama_index_embft.finetune.full.losses.distillation import DistillationLoss

    teacher_temperature = settings.teacher_temperature or _teacher_temperature(
        rows.columns[LABEL], settings.temperature
    )
    return lambda mini: DistillationLoss(
        model,
        settings.distill,
        weight=settings.distill_weight,
        temperature=settings.temperature,
        teacher_temperature=teacher_temperature,
        mini_batch_size=mini,
        gather_across_devices=gather,
    )


def _teacher_temperature(labels: list[list[float]], student: float) -> float:
    """Logits are a softmax's natural input; cosines and probabilities differ by too little and need the student's."""
    bounded = all(not abs(score) > 1.0 for row in labels for score in row)  # "not above" lets NaN through
    return student if bounded else 1.0


def _cosent(model: SentenceTransformer, settings: LossSettings) -> Callable[[int | None], torch.nn.Module]:
    from sentence_transformers.sentence_transformer import losses

    return lambda _: losses.CoSENTLoss(model, scale=1.0 / settings.temperature)


def _own_loss(model: SentenceTransformer, loss: Any, dims: Sequence[int] | None) -> LossMaker:
    from torch import nn

    built = loss if isinstance(loss, nn.Module) else loss(model)
    return LossMaker(lambda _: _nested(model, built, dims), False, type(built).__name__)


def _nested(model: SentenceTransformer, loss: torch.nn.Module, dims: Sequence[int] | None) -> torch.nn.Module:
    if dims is None:
        return loss
    from sentence_transformers.sentence_transformer.losses import MatryoshkaLoss

    width = model.get_embedding_dimension()
    return MatryoshkaLoss(model, loss, sorted({*dims, *([width] if width else [])}, reverse=True))


def _loaded_guide(guide: object, model: SentenceTransformer, trust_remote_code: bool) -> SentenceTransformer:
    from sentence_transformers import SentenceTransformer

    from llama_index_embft.embeddings.describe import loading, resolve_model_name
    from llama_index_embft.embeddings.local import load_sentence_transformer
    from llama_index_embft.embeddings.sentence_transformer import keep_within_positions

    if isinstance(guide, SentenceTransformer):
        keep_within_positions(guide)
        return guide.eval()
    name = resolve_model_name(str(guide))
    with loading(f"The guide model {guide}", name):
        return load_sentence_transformer(name, device=str(model.device), trust_remote_code=trust_remote_code).eval()
