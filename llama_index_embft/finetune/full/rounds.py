"""Mine, train, mine again with the model just trained: negatives that keep up with the model.

Xiong et al., "Approximate Nearest Neighbor Negative Contrastive Learning for Dense Text Retrieval" (ANCE), arXiv
2007.00808: what was hard for the base model is easy for the tuned one, and no longer teaches it much.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Final

from llama_index_embft._core.checks import check_choice
from llama_index_embft.errors import ConfigError
from llama_index_embft.finetune.full.losses.choosing import COSENT
from llama_index_embft.finetune.running.processes import world_size
from llama_index_embft.mining import DEFAULT_STRATEGIES, MiningReport, MiningSettings, mine_hard_negatives
from llama_index_embft.mining.parsing import as_strategies

if TYPE_CHECKING:
    from collections.abc import Callable

    from llama_index.core.base.embeddings.base import BaseEmbedding

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.finetune.full.losses.choosing import Loss
    from llama_index_embft.finetune.full.settings import RoundsSettings
    from llama_index_embft.finetune.full.training.run import Trained

logger = logging.getLogger(__name__)

# Of `mine_hard_negatives`, beside those that the engine gives.
_MINING_ARGUMENTS: Final = ("batch_size", "cache", "device", "llm", "relabel", "seed", "show_progress")


def check_rounds(settings: RoundsSettings, loss: Loss | None) -> None:
    """Find out before the model is loaded that training in rounds could not be done.

    Raises:
        ConfigError: A strategy is not known, or rounds contradict the loss or the number of processes.
    """
    if not settings.rounds:
        return
    if loss == COSENT:
        raise ConfigError(
            "mining_rounds adds hard negatives, but loss='cosent' learns from scores; leave one of them out."
        )
    if world_size() > 1:  # each process would mine for itself, and a last bit could make the difference
        raise ConfigError("mining_rounds runs in one process; mine first (embft mine), then train in several.")
    as_strategies(_strategies(settings))
    allowed = {*_MINING_ARGUMENTS, *(field.name for field in fields(MiningSettings))}
    for name in settings.options or {}:
        check_choice("mining_options", name, sorted(allowed))


def rounds_record(settings: RoundsSettings) -> dict[str, Any]:
    """What ``embft.json`` says of the rounds; empty without any."""
    if not settings.rounds:
        return {}
    strategies = [str(strategy) for strategy in as_strategies(_strategies(settings))]
    return {"mining_strategies": strategies, "mining_negatives": settings.negatives or 1}


def _strategies(settings: RoundsSettings) -> Any:
    return DEFAULT_STRATEGIES if settings.strategies is None else settings.strategies


def _mine(
    settings: RoundsSettings,
    dataset: EmbeddingQAFinetuneDataset,
    embedding: BaseEmbedding,
    number: int,
    trust_remote_code: bool,
) -> tuple[EmbeddingQAFinetuneDataset, MiningReport]:
    """The training set with hard negatives for the model as it stands.

    Args:
        settings: What to mine.
        dataset: Negatives that it has are replaced.
        embedding: The model.
        number: Of the round, from 1 on. Vectors of the first are cached; those of later ones nobody needs again.
        trust_remote_code: Run code that comes with a cross-encoder.
    """
    options = dict(settings.options or {})
    if number > 1:
        options["cache"] = None
    # Losses take as many negatives for each query, so gaps are filled unless the caller wants it otherwise.
    given = {field.name: options.pop(field.name) for field in fields(MiningSettings) if field.name in options}
    mined = mine_hard_negatives(
        dataset,
        embedding,
        _strategies(settings),
        settings.negatives or 1,
        settings=MiningSettings(**{"pad": True, "trust_remote_code": trust_remote_code, **given}),
        **options,
    )
    return mined, mined.report


@dataclass(frozen=True)
class Round:
    """One round of training.

    Attributes:
        mining: What was mined before it, with the model of the round before.
        base_score: Validation score it began with; None without a validation set.
        best_score: Validation score of its best weights.
        steps: Optimizer steps.
    """

    mining: MiningReport
    base_score: float | None
    best_score: float | None
    steps: int

    @property
    def improved(self) -> bool | None:
        """Whether validation got better; None without a validation set."""
        if self.base_score is None or self.best_score is None:
            return None
        return self.best_score > self.base_score


def train_in_rounds(
    settings: RoundsSettings,
    dataset: EmbeddingQAFinetuneDataset,
    embedding: BaseEmbedding,
    train: Callable[[EmbeddingQAFinetuneDataset, int], Trained],
    *,
    epochs: int,
    trust_remote_code: bool = False,
) -> tuple[Trained, list[Round]]:
    """Mine and train, again and again; each round begins with the best weights of the one before.

    Args:
        settings: What to mine, and how often.
        dataset: The training set.
        embedding: The model as it stands; `train` changes it.
        train: Trains on a data set, given the number of the round, and leaves the best weights in the model.
        epochs: Of one round.
        trust_remote_code: Run code that comes with a cross-encoder.

    Returns:
        All rounds as one run, and a record of each; the last may be one that did not improve.
    """
    whole: Trained | None = None
    rounds: list[Round] = []
    for number in range(1, settings.rounds + 1):
        mined, report = _mine(settings, dataset, embedding, number, trust_remote_code)
        trained = train(mined, number)
        rounds.append(Round(report, trained.best.base_score, trained.best.score, trained.steps))
        whole = trained if whole is None else _joined(whole, trained, epochs * (number - 1))
        if number > 1 and rounds[-1].improved is False:
            logger.warning("Round %d did not improve on validation; the result is that of the round before.", number)
            break
    assert whole is not None
    return whole, rounds


def _joined(before: Trained, after: Trained, epochs: int) -> Trained:
    """The records of a run and of one that went on from it as one, with steps and epochs counted on."""
    first, second = before.best, after.best
    # The first evaluation of the second run is of weights that the first run has evaluated.
    shifted = [_later(entry, before.steps, epochs) for entry in second.history if entry["step"] > 0]
    better = second.score is not None and second.base_score is not None and second.score > second.base_score
    best = second.recorded(
        {
            "base": first.base_score,
            "score": second.score if better else first.score,
            "step": before.steps + second.step if better else first.step,
            "history": [*first.history, *shifted],
        }
    )
    return replace(
        after,
        best=best,
        steps=before.steps + after.steps,
        losses=[*before.losses, *(_later(entry, before.steps, epochs) for entry in after.losses)],
        evaluate_seconds=before.evaluate_seconds + after.evaluate_seconds,
    )


def _later(entry: dict[str, float], steps: int, epochs: int) -> dict[str, float]:
    later = dict(entry)
    for name, more in (("step", steps), ("epoch", epochs)):
        if name in later:
            later[name] += more
    return later
