"""Choose temperature, learning rate and number of epochs on validation, within a time budget.

No single recipe fits: sentence-transformers' default scale of 20 is a temperature of 0.05, while BGE and E5 were
trained at 0.01 to 0.02, and plain in-batch training often lowers a strong small model (arXiv 2502.19712). So a few
short runs are tried, as in successive halving (Jamieson & Talwalkar, arXiv 1502.07943): all candidates for one epoch,
the better half of them for more.
"""

from __future__ import annotations

import logging
import math
import shutil
import time
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from typing import TYPE_CHECKING, Any, Final

from llama_index_embft._core.checks import check_choice, check_number, first_line
from llama_index_embft._core.logs import errors_only
from llama_index_embft._core.temporary import scratch_folder
from llama_index_embft.dataset.split import split_dataset
from llama_index_embft.errors import ConfigError, TrainingError
from llama_index_embft.finetune.engine import SELECTION_METRIC
from llama_index_embft.finetune.full.settings import FullOptions, LossSettings, Method, ValidationSettings
from llama_index_embft.finetune.running.checkpoints import checkpoint_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.finetune.engine import FinetuneResult

logger = logging.getLogger(__name__)

TEMPERATURES: Final = (0.02, 0.05, 0.01)
LEARNING_RATES: Final = {"full": (1e-4, 5e-5), "lora": (2e-4, 1e-4)}
EPOCHS: Final = (1, 3)
# What each run would say again: that it did not help, and how much of the passages is read.
_ENGINES: Final = ("llama_index_embft.finetune", "llama_index_embft.embeddings.truncation")
_PROBE_STEPS: Final = 2  # the first is slower than the rest, and is left in: too long an estimate is the safe side
_VAL_SHARE: Final = 0.15
_ROUNDING: Final = 1e-9  # 0.970 - 0.965 is more than 0.005 in binary floating point


@dataclass(frozen=True)
class RecipeCandidate:
    """One setting of the grid.

    Attributes:
        temperature: Divides the cosine before the softmax.
        learning_rate: Peak of the schedule.
        epochs: Passes over the training set.
    """

    temperature: float
    learning_rate: float
    epochs: int


@dataclass(frozen=True)
class RecipeTrial:
    """What one candidate came to.

    Attributes:
        candidate: The setting.
        score: Its best validation score; None where it was not run.
        guard_score: The metric on the guard set; None without one.
        seconds: Wall-clock time of the run; 0 where it was not run.
        note: Why it was not run, or cannot be chosen; empty otherwise.
    """

    candidate: RecipeCandidate
    score: float | None = None
    guard_score: float | None = None
    seconds: float = 0.0
    note: str = ""


@dataclass(frozen=True)
class Recipe:
    """The setting that was chosen, and everything that was tried.

    Attributes:
        candidate: The best setting that qualifies; where none was run, the first of the grid.
        metric: The metric that decides.
        base_score: The model before training, on validation.
        score: The candidate's, on validation; None where no candidate was run.
        base_guard_score: The model before training, on the guard set; None without one.
        trials: Every candidate, in the order of the grid, with one epoch before more.
        seconds: Wall-clock time of the whole search.
        seconds_per_step: Measured before the search; None where nothing could be measured.
    """

    candidate: RecipeCandidate
    metric: str
    base_score: float | None
    score: float | None
    base_guard_score: float | None = None
    trials: list[RecipeTrial] = field(default_factory=list)
    seconds: float = 0.0
    seconds_per_step: float | None = None

    @property
    def improves(self) -> bool:
        """Whether the chosen setting beats the model before training; the base is a candidate like any other."""
        return self.score is not None and self.base_score is not None and self.score > self.base_score

    def rows(self) -> list[dict[str, Any]]:
        """What was tried, a row a candidate, the base model first."""
        base = {"temperature": None, "learning_rate": None, "epochs": 0, self.metric: self.base_score}
        rows = [base | {f"guard_{self.metric}": self.base_guard_score, "seconds": 0.0, "note": "the base model"}]
        for trial in self.trials:
            row = {**asdict(trial.candidate), self.metric: trial.score, f"guard_{self.metric}": trial.guard_score}
            rows.append(row | {"seconds": trial.seconds, "note": trial.note})
        return rows

    def engine_arguments(self, loss_settings: LossSettings | None = None) -> dict[str, Any]:
        """The chosen setting as arguments of `SentenceTransformersFinetuneEngine`.

        Args:
            loss_settings: The other settings of the loss, where they are not the defaults.
        """
        chosen = self.candidate
        return {
            "epochs": chosen.epochs,
            "learning_rate": chosen.learning_rate,
            "loss_settings": replace(loss_settings or LossSettings(), temperature=chosen.temperature),
        }

    def __str__(self) -> str:
        """One line for people."""
        chosen = self.candidate
        setting = f"temperature {chosen.temperature:g}, learning rate {chosen.learning_rate:g}, {chosen.epochs} epochs"
        if self.score is None or self.base_score is None:
            return f"recipe: {setting}, untried: the time budget allows no run"
        verdict = "" if self.improves else "; no better than the base model"
        tried = sum(trial.score is not None for trial in self.trials)
        return (
            f"recipe: {setting} ({self.metric} {self.base_score:.3f} → {self.score:.3f} on validation, "
            f"{tried} of {len(self.trials)} candidates tried in {self.seconds:.0f} s){verdict}"
        )


def choose_recipe(
    train: EmbeddingQAFinetuneDataset,
    model_id: str,
    val: EmbeddingQAFinetuneDataset | None = None,
    *,
    time_budget: float = 600.0,
    temperatures: Sequence[float] = TEMPERATURES,
    learning_rates: Sequence[float] | None = None,
    epochs: Sequence[int] = EPOCHS,
    guard: EmbeddingQAFinetuneDataset | None = None,
    max_guard_loss: float = 0.005,
    method: Method = "full",
    seed: int = 0,
    **engine_arguments: Any,
) -> Recipe:
    """Try settings by short training runs, and choose on validation.

    A few steps are timed first. Then all pairs of temperature and learning rate are trained for the smallest number of
    epochs, the better half of them for the next number, and so on. What would not end within the budget is not begun.
    Among runs with equal scores the earlier in the grid wins, so the order of the arguments is a preference.

    Args:
        train: Training set.
        model_id: As for the engine.
        val: Chooses; None: 15 % of the training questions, no passage on two sides, are set aside for it.
        time_budget: Seconds for the whole search. The timing (an evaluation and two steps) is done in any case, and a
            run that has begun is not cut off; its time was estimated, so the search may end late.
        temperatures: To try, the preferred first. The default spans what common models were trained with.
        learning_rates: To try; None: 1e-4 and 5e-5 for full training, 2e-4 and 1e-4 for LoRA.
        epochs: To try, in any order.
        guard: A setting whose model falls below the base model on it by more than `max_guard_loss` is not chosen.
        max_guard_loss: In the metric's own unit; half a point of nDCG.
        method: ``"full"`` or ``"lora"``.
        seed: Of the split and of training.
        **engine_arguments: Further arguments of the engine, the same for all runs and for the base model, such as
            ``batch_size`` or ``text``.

    Returns:
        The recipe; `Recipe.engine_arguments` turns it into arguments.

    Raises:
        ConfigError: A list is empty, a value is out of range, or an argument is unknown to the engine.
        DatasetError: The training set is too small to set a validation part aside.
    """
    started = time.perf_counter()
    check_choice("method", method, LEARNING_RATES)
    rates = tuple(learning_rates if learning_rates is not None else LEARNING_RATES[method])
    rungs = sorted(set(epochs))
    _check_grid(temperatures, rates, rungs, time_budget, max_guard_loss)
    if val is None:
        part = split_dataset(train, by="chunk", fractions=(1 - _VAL_SHARE, _VAL_SHARE, 0.0), seed=seed)
        train, val = part.train, part.val
    runner = _Runner(train, val, guard, model_id, {"seed": seed, "method": method, **engine_arguments})
    speed = runner.measure()
    trials = {c: RecipeTrial(c, note="not reached") for c in _grid(temperatures, rates, rungs)}
    alive = [RecipeCandidate(t, rate, rungs[0]) for t, rate in product(temperatures, rates)]
    for number, n_epochs in enumerate(rungs):
        for candidate in alive:
            left = time_budget - (time.perf_counter() - started)
            needed = speed.seconds_of(n_epochs)
            if needed > left:
                trials[candidate] = RecipeTrial(
                    candidate, note=f"needs about {needed:.0f} s, {max(0.0, left):.0f} s are left"
                )
                continue
            trial = runner.run(candidate)
            trials[candidate] = _judged(trial, runner.base_guard_score, max_guard_loss)
        if number + 1 == len(rungs):
            break
        ranked = _ranked([trials[c] for c in alive])
        alive = [
            RecipeCandidate(trial.candidate.temperature, trial.candidate.learning_rate, rungs[number + 1])
            for trial in ranked[: math.ceil(len(ranked) / 2)]
        ]
    best = next(iter(_ranked(list(trials.values()))), None)
    if best is None:
        logger.warning(
            "No setting could be tried within %.0f seconds (one run takes about %.0f); the recipe is the first of the "
            "grid, untried.",
            time_budget,
            speed.seconds_of(rungs[0]),
        )
    return Recipe(
        candidate=best.candidate if best is not None else RecipeCandidate(temperatures[0], rates[0], rungs[0]),
        metric=SELECTION_METRIC,
        base_score=runner.base_score,
        score=best.score if best is not None else None,
        base_guard_score=runner.base_guard_score,
        trials=list(trials.values()),
        seconds=time.perf_counter() - started,
        seconds_per_step=speed.step,
    )


@dataclass(frozen=True)
class _Speed:
    """Seconds of what a run consists of."""

    step: float
    evaluation: float
    rest: float
    steps_per_epoch: int

    def seconds_of(self, epochs: int) -> float:
        return self.rest + self.step * self.steps_per_epoch * epochs + self.evaluation * (epochs + 1)


class _Runner:
    """Trains and scores candidates, each in a temporary folder of its own."""

    def __init__(
        self,
        train: EmbeddingQAFinetuneDataset,
        val: EmbeddingQAFinetuneDataset,
        guard: EmbeddingQAFinetuneDataset | None,
        model_id: str,
        arguments: dict[str, Any],
    ) -> None:
        self.train, self.val, self.guard, self.model_id = train, val, guard, model_id
        self.arguments = {"show_progress_bar": False, **arguments}
        self.base_score: float | None = None
        self.base_guard_score: float | None = None

    def measure(self) -> _Speed:
        """Time an evaluation of the base model, two steps, and what stands around them."""
        batch = self.arguments.get("batch_size", FullOptions().batch_size)
        ids = list(self.train.queries)
        # Spread over the data: neighbours often ask about one passage, which is nothing to train on.
        some = self.train.subset(ids[:: max(1, len(ids) // (batch * _PROBE_STEPS))][: batch * _PROBE_STEPS])
        began = time.perf_counter()
        # The engine measures the base model as it measures every candidate: with its prompts, length and precision.
        result = self._finetune(some, RecipeCandidate(TEMPERATURES[0], 1e-9, 1))
        whole = time.perf_counter() - began
        self.base_score, self.base_guard_score = result.base_score, result.guard_base_score
        training, evaluating = result.seconds["train"], result.seconds["evaluate"]
        rows = sum(len(ids) for ids in self.train.relevant_docs.values())
        return _Speed(
            step=training / max(1, result.steps),
            evaluation=evaluating / max(1, len(result.history)),
            rest=max(0.0, whole - training - evaluating),
            steps_per_epoch=-(-rows // batch),
        )

    def run(self, candidate: RecipeCandidate) -> RecipeTrial:
        """Train one candidate on all of the training set."""
        began = time.perf_counter()
        try:
            result = self._finetune(self.train, candidate)
        except TrainingError as err:  # a loss that is not a number speaks against this candidate, not against the rest
            return RecipeTrial(candidate, seconds=time.perf_counter() - began, note=f"failed: {err}")
        # Of a run that only harms, the engine keeps the base model: its score is the base's, and it is no gain.
        return RecipeTrial(candidate, result.best_score, result.guard_score, time.perf_counter() - began)

    def _finetune(self, data: EmbeddingQAFinetuneDataset, candidate: RecipeCandidate) -> FinetuneResult:
        from llama_index_embft.finetune.full.engine import SentenceTransformersFinetuneEngine

        validation = self.arguments.get("validation") or ValidationSettings()
        chosen = {
            **self.arguments,
            "epochs": candidate.epochs,
            "learning_rate": candidate.learning_rate,
            "loss_settings": replace(
                self.arguments.get("loss_settings") or LossSettings(), temperature=candidate.temperature
            ),
            "validation": replace(validation, val_split=None, merge=None, report_to="none"),
        }
        with scratch_folder() as folder, errors_only(*_ENGINES):
            output = folder / "model"
            try:
                engine = SentenceTransformersFinetuneEngine(
                    data, self.model_id, str(output), val_dataset=self.val, guard_dataset=self.guard, **chosen
                )
            except TypeError as err:
                raise ConfigError(f"The engine does not take these arguments: {first_line(err)}.") from err
            try:
                return engine.finetune()  # that one run did not help is what the search is for
            except TrainingError as err:
                if "Ctrl-C" in str(err):  # which ends the search; a checkpoint of one of its runs is of no use
                    shutil.rmtree(checkpoint_folder(output), ignore_errors=True)
                    raise KeyboardInterrupt from err
                raise


def _grid(temperatures: Sequence[float], rates: Sequence[float], rungs: Sequence[int]) -> list[RecipeCandidate]:
    return [RecipeCandidate(t, rate, n) for n in rungs for t, rate in product(temperatures, rates)]


def _judged(trial: RecipeTrial, base_guard: float | None, limit: float) -> RecipeTrial:
    """Mark a trial that loses more on the guard set than is allowed."""
    if base_guard is None or trial.guard_score is None or base_guard - trial.guard_score <= limit + _ROUNDING:
        return trial
    note = f"loses {base_guard - trial.guard_score:.4f} on the guard set"
    return RecipeTrial(trial.candidate, trial.score, trial.guard_score, trial.seconds, note)


def _ranked(trials: list[RecipeTrial]) -> list[RecipeTrial]:
    """Trials that were run and may be chosen, best first; equals keep their order."""
    fit = [trial for trial in trials if trial.score is not None and not trial.note]
    return sorted(fit, key=lambda trial: -(trial.score or 0.0))


def _check_grid(
    temperatures: Sequence[float], rates: Sequence[float], epochs: Sequence[int], budget: float, limit: float
) -> None:
    for name, values in (("temperatures", temperatures), ("learning_rates", rates), ("epochs", epochs)):
        if not values:
            raise ConfigError(f"`{name}` is empty; name at least one value to try.")
        for value in values:
            check_number(name, value, above=0)
    check_number("time_budget", budget, above=0, hint="it is in seconds")
    check_number("max_guard_loss", limit, at_least=0)
