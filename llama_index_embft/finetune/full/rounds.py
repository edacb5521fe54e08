"""Mine, train, mine again with the model just trained: negatives that keep up with the model.

Xiong et al., "Approximate Nearest Neighbor Negative Contrastive Learning for Dense Text Retrieval" (ANCE), arXiv
2007.00808: what was hard for the base model is easy for the tuned one, and no longer teaches it much.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from llama_index_embft.errors import ConfigError
from llama_index_embft.finetune.full.losses import COSENT
from llama_index_embft.finetune.full.training import Trained, world_size
from llama_index_embft.mining import DEFAULT_STRATEGIES, MiningReport, MiningSettings, mine_hard_negatives
from llama_index_embft.mining.parsing import as_strategies

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from llama_index.core.base.embeddings.base import BaseEmbedding

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.finetune.full.losses import Loss

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MiningPlan:
    """See the arguments ``mining_…`` of `SentenceTransformersFinetuneEngine`.

    Attributes:
        rounds: How often to mine and train; 0: train once on the data as they are.
        strategies: What to mine.
        num_negatives: Negatives of each query.
        options: Further arguments of `mine_hard_negatives`.

    Raises:
        ConfigError: A strategy is not known, or a number is out of range.
    """

    rounds: int = 0
    strategies: Sequence[Any] | str = DEFAULT_STRATEGIES
    num_negatives: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def checked(
        cls,
        rounds: int,
        strategies: Sequence[Any] | str | None,
        num_negatives: int | None,
        options: Mapping[str, Any] | None,
        loss: Loss | None,
    ) -> MiningPlan:
        """The plan that an engine's arguments ask for.

        Raises:
            ConfigError: They contradict each other, or cannot be followed.
        """
        given = {"mining_strategies": strategies, "mining_negatives": num_negatives, "mining_options": options}
        if rounds < 0:
            raise ConfigError(f"mining_rounds is {rounds}; it must be 0 or more.")
        if rounds == 0:
            for name, value in given.items():
                if value is not None:
                    raise ConfigError(f"{name} is for mining_rounds; give both, or leave it out.")
            return cls()
        if num_negatives is not None and num_negatives < 1:
            raise ConfigError(f"mining_negatives is {num_negatives}; it must be above 0.")
        if loss == COSENT:
            raise ConfigError(
                "mining_rounds gives hard negatives, and loss='cosent' takes scores; leave one of them out."
            )
        if world_size() > 1:  # each process would mine for itself, and a last bit could make the difference
            raise ConfigError("mining_rounds runs in one process; mine first (embft mine), then train in several.")
        chosen = DEFAULT_STRATEGIES if strategies is None else strategies
        as_strategies(chosen)  # a typing error is told before the model is loaded
        return cls(rounds, chosen, num_negatives or 1, dict(options or {}))

    def mine(
        self, dataset: EmbeddingQAFinetuneDataset, embedding: BaseEmbedding, number: int
    ) -> tuple[EmbeddingQAFinetuneDataset, MiningReport]:
        """The training set with hard negatives for the model as it stands.

        Args:
            dataset: Negatives that it has are replaced.
            embedding: The model.
            number: Of the round, from 1 on. Vectors of the first are cached; those of later ones nobody needs again.
        """
        options = dict(self.options)
        if number > 1:
            options["cache"] = None
        # Losses take as many negatives for each query, so gaps are filled unless the caller wants it otherwise.
        given = {field.name: options.pop(field.name) for field in fields(MiningSettings) if field.name in options}
        settings = MiningSettings(**{"pad": True, **given})
        mined = mine_hard_negatives(
            dataset, embedding, self.strategies, self.num_negatives, settings=settings, **options
        )
        return mined, mined.report

    def as_record(self) -> dict[str, Any]:
        """As JSON types, for ``embft.json``; empty without rounds."""
        if not self.rounds:
            return {}
        strategies = [str(strategy) for strategy in as_strategies(self.strategies)]
        return {
            "mining_rounds": self.rounds,
            "mining_strategies": strategies,
            "mining_negatives": self.num_negatives,
            **({"mining_options": {name: str(value) for name, value in self.options.items()}} if self.options else {}),
        }


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
    plan: MiningPlan,
    dataset: EmbeddingQAFinetuneDataset,
    embedding: BaseEmbedding,
    train: Callable[[EmbeddingQAFinetuneDataset, int], Trained],
    *,
    epochs: int,
) -> tuple[Trained, list[Round]]:
    """Mine and train, again and again; each round begins with the best weights of the one before.

    Args:
        plan: What to mine, and how often.
        dataset: The training set.
        embedding: The model as it stands; `train` changes it.
        train: Trains on a data set, given the number of the round, and leaves the best weights in the model.
        epochs: Of one round.

    Returns:
        All rounds as one run, and a record of each; the last may be one that did not improve.
    """
    whole: Trained | None = None
    rounds: list[Round] = []
    for number in range(1, plan.rounds + 1):
        mined, report = plan.mine(dataset, embedding, number)
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


def finetune_in_rounds(
    dataset: EmbeddingQAFinetuneDataset,
    model_id: str,
    model_output_path: str,
    *,
    rounds: int = 2,
    strategies: Sequence[Any] | str = DEFAULT_STRATEGIES,
    num_negatives: int = 1,
    mining_options: Mapping[str, Any] | None = None,
    **engine_options: Any,
) -> list[Round]:
    """Train in rounds; the same as `SentenceTransformersFinetuneEngine` with ``mining_rounds``, in one call.

    Args:
        dataset: Training set; negatives that it has are replaced.
        model_id: As in `SentenceTransformersFinetuneEngine`.
        model_output_path: Folder to save to.
        rounds: How many; 1 mines once, with the base model.
        strategies: What to mine, see `mine_hard_negatives`.
        num_negatives: Negatives of each query. Every one costs about as much time as the positive.
        mining_options: Further arguments of `mine_hard_negatives`.
        **engine_options: Further arguments of `SentenceTransformersFinetuneEngine`; ``epochs`` is that of one round.

    Returns:
        A record of each round, the last of which may be one that did not improve.

    Raises:
        ConfigError: `rounds` is below 1.
        EmbftError: As the engine and `mine_hard_negatives` do.
    """
    from llama_index_embft.finetune.full.engine import SentenceTransformersFinetuneEngine

    if rounds < 1:
        raise ConfigError(f"rounds is {rounds}; it must be at least 1.")
    engine = SentenceTransformersFinetuneEngine(
        dataset,
        model_id,
        model_output_path,
        mining_rounds=rounds,
        mining_strategies=strategies,
        mining_negatives=num_negatives,
        mining_options=mining_options,
        **engine_options,
    )
    engine.finetune()
    return engine.rounds
