"""``kind="auto"``: a small set of adapters, tried on validation within a time budget, and the table of tries.

Where there is no validation set, or too little data to spare one, each adapter is trained several times, each time
without one part of the documents' queries, and scored on these: what is chosen was never chosen by what it had seen.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from llama_index_embft.errors import DatasetError
from llama_index_embft.finetune.adapter.plan import make_adapter
from llama_index_embft.finetune.adapter.training import train_adapter
from llama_index_embft.finetune.engine import SELECTION_METRIC

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch
    from torch import nn

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.finetune.adapter.data import AdapterData, VectorValidation
    from llama_index_embft.finetune.adapter.plan import AdapterPlan
    from llama_index_embft.finetune.adapter.settings import AdapterOptions, AdapterSettings, Sides
    from llama_index_embft.finetune.validation import BestState

# Training queries below which a validation set of its own size is noise: folds then choose instead.
FEW_QUERIES: Final = 200


@dataclass
class AdapterTrainer:
    """Trains plans on one device with one set of settings.

    Attributes:
        options: Batch size and seed; learning rate and epochs are a plan's.
        settings: See `AdapterSettings`.
        both_sides: Whether documents go through the adapter too.
        device: Torch device.
        make_optimizer: As in `train_adapter`, from the plan's learning rate.
        on_step: As in `train_adapter`, with the module before it.
    """

    options: AdapterOptions
    settings: AdapterSettings
    both_sides: bool
    device: str
    make_optimizer: Callable[[float], Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer] | None] | None = None
    on_step: Callable[[nn.Module, int, float], None] | None = None

    def train(
        self,
        plan: AdapterPlan,
        data: AdapterData,
        validate: Callable[[nn.Module], dict[str, float]] | None,
        *,
        module: nn.Module | None = None,
        last_epoch: int | None = None,
        deadline: float | None = None,
    ) -> AdapterTrial:
        """Make a plan's module, if it is not given, and train it."""
        started = time.perf_counter()
        ridge = None
        if module is None:
            module, ridge = make_adapter(plan, data, validate, SELECTION_METRIC, self.options.seed)
        made, on_step = module, self.on_step
        best, steps = train_adapter(
            module,
            data.queries,
            data.documents,
            data.positives,
            replace(self.options, epochs=plan.epochs, learning_rate=plan.learning_rate),
            self.settings,
            both_sides=self.both_sides,
            hard_negatives=data.hard_negatives,
            candidates=data.candidates,
            validate=validate,
            make_optimizer=self.make_optimizer(plan.learning_rate) if self.make_optimizer else None,
            device=self.device,
            on_step=(lambda step, loss: on_step(made, step, loss)) if on_step else None,
            last_epoch=last_epoch,
            deadline=deadline,
        )
        return AdapterTrial(plan, module.cpu(), best, steps, time.perf_counter() - started, ridge)


@dataclass
class AdapterTrial:
    """A plan, trained.

    Attributes:
        plan: What was trained.
        module: In its best state.
        best: Its evaluations.
        steps: Optimizer steps.
        seconds: Wall clock.
        ridge: Strength that a closed form took.
    """

    plan: AdapterPlan
    module: nn.Module
    best: BestState
    steps: int
    seconds: float
    ridge: float | None


def plans_to_try(plan: AdapterPlan, sides: Sides) -> list[AdapterPlan]:
    """What ``"auto"`` tries, the most promising first.

    Args:
        plan: Learning rate, epochs, sizes and bias, as the engine was told.
        sides: ``"query"`` or ``"both"``.
    """
    rate = plan.learning_rate
    linear = replace(plan, kind="linear", start="identity")
    faster = replace(linear, learning_rate=3 * rate)
    if plan.output_dim is not None:
        pca = replace(linear, start="pca")
        return [replace(pca, epochs=0), pca, replace(pca, learning_rate=3 * rate), linear]
    # A low-rank map begins with a factor of zero, which makes its first steps ten times smaller.
    low_rank, mlp = replace(linear, kind="low-rank", learning_rate=10 * rate), replace(linear, kind="mlp", bias=False)
    if sides == "both":
        return [linear, low_rank, faster, mlp]
    ridge, procrustes = replace(linear, start="ridge"), replace(linear, start="procrustes", bias=False)
    alone = [replace(ridge, epochs=0), replace(procrustes, epochs=0)]
    return [linear, *alone, low_rank, faster, mlp, ridge, procrustes]


def choose_on_validation(
    plans: Sequence[AdapterPlan],
    trainer: AdapterTrainer,
    data: AdapterData,
    validation: VectorValidation,
    base_score: float,
    deadline: float,
) -> tuple[AdapterTrial, list[dict[str, Any]]]:
    """Train each plan and keep the one with the best score on the validation set.

    Returns:
        The best trial, and the table of tries, whose first row is the base model.
    """
    rows, best = [_base_row(base_score)], None
    for plan in plans:
        if best is not None and time.perf_counter() > deadline:
            rows.append({**plan.shown(), "note": "not tried: the time was up"})
            continue
        trial = trainer.train(plan, data, validation, deadline=deadline)
        rows.append(_row(trial, trial.best.score, trial.best.step))
        if best is None or (trial.best.score or 0.0) > (best[0].best.score or 0.0):
            best = (trial, rows[-1])
    assert best is not None
    _mark(rows, best[1], base_score if best[0].plan.output_dim is None else None)
    return best[0], rows


def choose_by_folds(
    plans: Sequence[AdapterPlan],
    trainer: AdapterTrainer,
    folds: Sequence[tuple[AdapterData, VectorValidation]],
    deadline: float,
) -> tuple[AdapterPlan, int, list[dict[str, float]], list[dict[str, Any]]]:
    """Train each plan once a fold, and find the plan and the number of epochs that are best on what was left out.

    Returns:
        The plan (the identity with 0 epochs where nothing beats the base), its epochs, its mean metrics by epoch, and
        the table of tries.
    """
    weights = np.array([validation.size for _, validation in folds], dtype=np.float64)
    base = _mean([[validation.base()] for _, validation in folds], weights)[0]
    rows = [_base_row(base[SELECTION_METRIC])]
    best: tuple[float, AdapterPlan, int, list[dict[str, float]], dict[str, Any] | None] = (
        base[SELECTION_METRIC],
        replace(plans[0], kind="linear", start="identity", epochs=0),
        0,
        [base],
        None,
    )
    for number, plan in enumerate(plans):
        started = time.perf_counter()
        trials: list[AdapterTrial] = []
        for data, validation in folds:
            if (number or trials) and time.perf_counter() > deadline:
                break
            trials.append(trainer.train(plan, data, validation, deadline=deadline))
        if len(trials) < len(folds):
            rows.append({**plan.shown(), "note": "not tried: the time was up"})
            continue
        curve = _mean([trial.best.history for trial in trials], weights)
        epoch = int(np.argmax([entry[SELECTION_METRIC] for entry in curve]))
        score = curve[epoch][SELECTION_METRIC]
        ridges = [trial.ridge for trial in trials if trial.ridge is not None]
        ridge = float(np.exp(np.mean(np.log(ridges)))) if ridges and min(ridges) > 0 else plan.ridge
        rows.append({**plan.shown(), SELECTION_METRIC: score, "epoch": epoch, "seconds": time.perf_counter() - started})
        if ridge is not None:
            rows[-1]["ridge"] = ridge
        # With fewer dimensions the base model is out of reach, and not on offer.
        if score > best[0] or (plan.output_dim is not None and best[4] is None):
            best = (score, replace(plan, ridge=ridge), epoch, curve[: epoch + 1], rows[-1])
    _mark(rows, best[4] if best[4] is not None else rows[0], None)
    return best[1], best[2], best[3], rows


def by_document(dataset: EmbeddingQAFinetuneDataset, folds: int, seed: int) -> list[list[str]]:
    """Query ids of each part; queries that share a relevant document, or its text, are in the same one.

    Raises:
        DatasetError: All queries hang together.
    """
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            name = parent[name]
        return name

    for query, docs in dataset.relevant_docs.items():
        for doc in docs:
            # Ids are marked, so that a text is never taken for one.
            parent[root(f"t{dataset.corpus[doc]}")] = root(f"q{query}")
    groups: dict[str, list[str]] = {}
    for query in dataset.queries:
        groups.setdefault(root(f"q{query}"), []).append(query)
    if len(groups) < 2:
        raise DatasetError(
            "All training queries share documents with each other, so none can be left out to choose by; "
            "give a val_dataset."
        )
    dealt = list(groups.values())
    shuffled = [dealt[number] for number in np.random.default_rng(seed).permutation(len(dealt))]
    parts: list[list[str]] = [[] for _ in range(min(folds, len(groups)))]
    for group in sorted(shuffled, key=len, reverse=True):
        min(parts, key=len).extend(group)
    return parts


def _mean(histories: Sequence[Sequence[dict[str, float]]], weights: np.ndarray[Any, Any]) -> list[dict[str, float]]:
    """Weighted means over the folds, for the epochs that all folds got to."""
    share = weights / weights.sum()
    return [
        {
            name: float(sum(w * entry[name] for w, entry in zip(share, entries, strict=True)))
            for name in entries[0]
            if all(name in entry for entry in entries)
        }
        for entries in zip(*histories, strict=False)
    ]


def _base_row(score: float) -> dict[str, Any]:
    return {"kind": "base model", SELECTION_METRIC: score}


def _row(trial: AdapterTrial, score: float | None, step: int) -> dict[str, Any]:
    row = {**trial.plan.shown(), SELECTION_METRIC: score, "step": step, "seconds": trial.seconds}
    return row if trial.ridge is None else {**row, "ridge": trial.ridge}


def _mark(rows: list[dict[str, Any]], best: dict[str, Any], base_score: float | None) -> None:
    """Note which row was chosen: the base model's where no adapter is better."""
    if base_score is not None and (best[SELECTION_METRIC] or 0.0) <= base_score:
        best = rows[0]
    best["note"] = "chosen"
