"""From training data to one adapter: a given kind, or the best of several; never one that is worse than the base."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from llama_index_embft.embeddings.adapter.modules import linear_adapter
from llama_index_embft.errors import ModelError
from llama_index_embft.finetune.adapter.data import (
    AdapterData,
    EmbeddedTrainingSet,
    VectorValidation,
    embed_documents,
    embed_queries,
    in_search_order,
    training_data,
)
from llama_index_embft.finetune.adapter.search import (
    AdapterTrainer,
    AdapterTrial,
    by_document,
    choose_by_folds,
    choose_on_validation,
    plans_to_try,
)
from llama_index_embft.finetune.engine import SELECTION_METRIC
from llama_index_embft.finetune.validation import BestState

if TYPE_CHECKING:
    from torch import nn

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.embeddings.encoding.encoder import Encoder
    from llama_index_embft.finetune.adapter.plan import AdapterPlan

# What a cross-validation needs: the training set, its whole corpus as vectors, and the number of parts.
Parts: TypeAlias = "tuple[EmbeddingQAFinetuneDataset, EmbeddedTrainingSet, int]"


@dataclass
class TrainedAdapter:
    """An adapter, and how it came to be.

    Attributes:
        module: The adapter.
        plan: What it is.
        base_score: Selection metric of the base model; None without validation.
        score: That of the adapter.
        best_step: Optimizer step of the adapter; 0: its start.
        steps: Optimizer steps of its training.
        history: Its evaluations.
        tries: The table of tries; empty where there was one.
        selection: What chose among them.
    """

    module: nn.Module
    plan: AdapterPlan
    base_score: float | None
    score: float | None
    best_step: int
    steps: int
    history: list[dict[str, float]]
    tries: list[dict[str, Any]] = field(default_factory=list)
    selection: str | None = None


def validation_of(
    encoder: Encoder, dataset: EmbeddingQAFinetuneDataset, data: AdapterData, *, both_sides: bool
) -> VectorValidation:
    """Embed a validation set.

    Raises:
        ModelError: A vector is unusable, or has another dimension than those of the training set.
    """
    documents = embed_documents(encoder, dataset, in_search_order(dataset))
    queries = embed_queries(encoder, dataset, documents)
    if queries.shape[1] != data.dim:
        raise ModelError(
            f"{encoder.name} returns {queries.shape[1]} dimensions for the validation set, but returned {data.dim} for "
            "the training set; if the model behind this name was changed, clear the embedding cache."
        )
    return VectorValidation(dataset, queries, documents, both_sides=both_sides)


def train_one(
    plan: AdapterPlan,
    trainer: AdapterTrainer,
    data: AdapterData,
    validation: VectorValidation | None,
    module: nn.Module | None = None,
) -> TrainedAdapter:
    """Train one adapter.

    Args:
        plan: What to train.
        trainer: How.
        data: On what.
        validation: Chooses the epoch; None keeps the last one.
        module: A module to train in place of the plan's; what it was before training is then its base.
    """
    trial = trainer.train(plan, data, validation, module=module)
    if validation is None:
        return TrainedAdapter(trial.module, plan, None, None, trial.steps, trial.steps, trial.best.history)
    base = trial.best.base_score if module is not None else validation.base()[SELECTION_METRIC]
    return _not_worse(trial, base or 0.0, data.dim, own_module=module is not None)


def search(
    plan: AdapterPlan,
    trainer: AdapterTrainer,
    data: AdapterData,
    validation: VectorValidation | None,
    parts: Parts | None,
    deadline: float,
) -> TrainedAdapter:
    """Try several adapters and keep the best.

    Args:
        plan: Sizes, epochs and learning rate of the tries.
        trainer: How.
        data: On what.
        validation: The validation set.
        parts: Choose by cross-validation on these; None: on the validation set.
        deadline: By `time.perf_counter`.
    """
    plans = plans_to_try(plan, "both" if trainer.both_sides else "query")
    if parts is None:
        assert validation is not None
        base = validation.base()[SELECTION_METRIC]
        trial, tries = choose_on_validation(plans, trainer, data, validation, base, deadline)
        return replace(_not_worse(trial, base, data.dim), tries=tries, selection="validation")
    folds = _folds(*parts, trainer)
    chosen, epoch, curve, tries = choose_by_folds(plans, trainer, folds, deadline)
    trial = trainer.train(chosen, data, None, last_epoch=epoch)
    words = f"{len(folds)} folds'"
    if validation is not None:
        outcome = _checked(trial, validation, data.dim)
        return replace(outcome, tries=tries, selection=f"{words} choice, validation")
    per_epoch = trial.steps // max(1, epoch)
    history = [{**entry, "step": number * per_epoch, "epoch": number} for number, entry in enumerate(curve)]
    base, score = tries[0][SELECTION_METRIC], curve[-1][SELECTION_METRIC]
    return TrainedAdapter(trial.module, chosen, base, score, trial.steps, trial.steps, history, tries, words)


def _not_worse(trial: AdapterTrial, base_score: float, dim: int, *, own_module: bool = False) -> TrainedAdapter:
    """The trial's adapter, or one that changes nothing where it is no better than the base model."""
    best, plan = trial.best, trial.plan
    outcome = TrainedAdapter(trial.module, plan, base_score, best.score, best.step, trial.steps, best.history)
    if own_module or plan.output_dim is not None or (best.score or 0.0) > base_score:
        return outcome
    identity = replace(plan, kind="linear", start="identity", epochs=0, bias=False)
    return replace(outcome, module=linear_adapter(dim), plan=identity, score=base_score, best_step=0)


def _checked(trial: AdapterTrial, validation: VectorValidation, dim: int) -> TrainedAdapter:
    """What folds chose, against the base model on the validation set."""
    base = validation.base()
    best = BestState(trial.module)
    best.offer(trial.steps, float(trial.plan.epochs), validation(trial.module))
    best.history.insert(0, {"step": 0, "epoch": 0, **base})
    return _not_worse(replace(trial, best=best), base[SELECTION_METRIC], dim)


def _folds(
    dataset: EmbeddingQAFinetuneDataset, embedded: EmbeddedTrainingSet, number: int, trainer: AdapterTrainer
) -> list[tuple[AdapterData, VectorValidation]]:
    """Each part's training data and validation; they share the vectors of the corpus."""
    data, vectors, ids = embedded
    row_of = {doc_id: row for row, doc_id in enumerate(ids)}
    place = {query: number for number, query in enumerate(dataset.queries)}
    ordered = vectors[[row_of[doc_id] for doc_id in in_search_order(dataset)]]
    everything = data.candidates == len(ids)
    found = []
    for held in by_document(dataset, number, trainer.options.seed):
        out = set(held)
        kept = [query for query in dataset.queries if query not in out]
        part = training_data(
            data.queries[[place[query] for query in kept]],
            vectors,
            [[row_of[doc_id] for doc_id in dataset.relevant_docs[query]] for query in kept],
            [[row_of[doc_id] for doc_id in dataset.negative_docs.get(query, [])] for query in kept]
            if any(data.hard_negatives)
            else None,
            everything=everything,
        )
        rows = [place[query] for query in dataset.queries if query in out]
        subset = dataset.subset([query for query in dataset.queries if query in out])
        validation = VectorValidation(subset, data.queries[rows], ordered, both_sides=trainer.both_sides)
        found.append((part, validation))
    return found
