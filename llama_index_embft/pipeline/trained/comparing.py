"""One way of training, compared with the base model: a split data set in; a compared and saved model out."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from llama_index_embft._core.checks import check_choice, check_number
from llama_index_embft._core.files import atomic_write_text
from llama_index_embft._core.renaming import rename_with_patience
from llama_index_embft._core.temporary import scratch_folder
from llama_index_embft.crossfit import cross_fit, documents_asked, folds_by_document, plan_split, train_on_all
from llama_index_embft.dataset.split import Split, split_dataset
from llama_index_embft.embeddings.describe import describe_base
from llama_index_embft.embeddings.encoding.run_cache import RunCache
from llama_index_embft.errors import ConfigError, DatasetError
from llama_index_embft.evaluation import compare, evaluate_embed_model
from llama_index_embft.pipeline.trained.engines import make_engine, save_base, write_decision

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llama_index.core.base.embeddings.base import BaseEmbedding

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.evaluation import RetrievalReport
    from llama_index_embft.evaluation.comparison import Comparison
    from llama_index_embft.finetune.engine import FinetuneResult

Method: TypeAlias = Literal["adapter", "full"]
SplitBy: TypeAlias = Literal["document", "chunk"]
# A test side of 10 % would be too small to show the few points that fine-tuning brings.
_FRACTIONS: Final = (0.72, 0.12, 0.16)
_ENOUGH_TEST_DOCUMENTS: Final = 8
_DRAWS_OF_SPLIT, _SEEDS_APART = 8, 1_000_003
METHODS: Final[tuple[Method, ...]] = ("adapter", "full")
_ABOUT_FOLDS: Final = (
    "The verdict is about this way of training, and rests on {} models. The tuned model of this run was trained on all "
    "documents afterwards and was itself not tested."
)
_NOTHING_TRAINED: Final = (
    "Training on all documents did not help on validation and kept the model that it began with, so there is no tuned "
    "model to adopt."
)


@dataclass(frozen=True)
class TuneOutcome:
    """What `tune_and_compare` leaves behind.

    Attributes:
        comparison: Base against tuned, on the test side: the one record of the decision, its reasons and warnings.
            Terminal, ``report.json``, ``report.html``, and ``embft.json`` and model card of the models draw from it.
        result: What training did; ``output_path`` is where the trained model lies.
    """

    comparison: Comparison
    result: FinetuneResult

    @property
    def adopted(self) -> bool:
        """Whether ``model`` holds the tuned model.

        If not, ``model`` behaves exactly as the base model, and the tuned one lies in ``candidate``.
        """
        return self.comparison.decision == "adopt"

    @property
    def folds(self) -> int:
        """Models that the verdict rests on: 1 is the one that is saved, more are those of a cross-fit."""
        return self.comparison.systems[0].report.folds

    def moved(self, folder: Path, to: Path) -> TuneOutcome:
        """The same where the folder of the run has been moved: paths inside it follow."""
        path = to / self.result.output_path.relative_to(folder)
        return replace(self, result=replace(self.result, output_path=path))


def split_for_tuning(dataset: EmbeddingQAFinetuneDataset, *, by: SplitBy = "document", seed: int = 0) -> Split:
    """Split into train, 12 % validation and test, as far apart as the documents allow.

    The test side takes 16 % of the questions, and more where that would be fewer than eight documents: up to a third.
    With three or more source documents no document is on two sides. With two, the test side is one of them and the
    validation side takes chunks of the other. One alone cannot be split by document. What the split can show is said by
    `plan_split`; where documents are few, folds show more: see `data_for_tuning`.

    Args:
        dataset: Questions over a corpus.
        by: ``"document"``, or ``"chunk"`` for a corpus cut from few documents.
        seed: See `split_dataset`.

    Raises:
        DatasetError: There is only one source document, or too few questions.
    """
    n_documents = len(documents_asked(dataset))
    if by == "chunk":
        return split_dataset(dataset, by=by, fractions=_FRACTIONS, seed=seed)
    if n_documents < 2:
        raise DatasetError(
            "The questions are about one document only, so no other document is left to test on; add documents, or "
            "split this one by chunk (`by='chunk'`), which tests on unseen parts of the same document."
        )
    if n_documents == 2:
        halves = split_dataset(dataset, by="document", fractions=(0.5, 0.0, 0.5), seed=seed)
        inner = split_dataset(halves.train, by="chunk", fractions=(0.85, 0.15, 0.0), seed=seed)
        return Split(inner.train, inner.val, halves.test)
    plan = plan_split(n_documents, len(dataset.queries), cross_fit=False)
    # Shares are of questions, and one long document can fill the test side; another draw then holds more documents.
    wanted = min(plan.test_documents, _ENOUGH_TEST_DOCUMENTS)
    best: Split | None = None
    for attempt in range(_DRAWS_OF_SPLIT):
        split = split_dataset(dataset, by=by, fractions=plan.fractions, seed=seed + attempt * _SEEDS_APART)
        if best is None or len(documents_asked(split.test)) > len(documents_asked(best.test)):
            best = split
        if len(documents_asked(best.test)) >= wanted:
            break
    assert best is not None
    return best


def data_for_tuning(
    dataset: EmbeddingQAFinetuneDataset, *, by: SplitBy = "document", seed: int = 0, in_folds: bool | None = None
) -> tuple[Split, list[Split]]:
    """Divide a data set as `tune_and_compare` takes it: a split, and folds where these show more.

    Args:
        dataset: Questions over a corpus.
        by: See `split_for_tuning`; by chunk there are no folds.
        seed: See `split_dataset`.
        in_folds: Whether to make folds; None: where `plan_split` says that they show more than a split.

    Returns:
        A split without folds; or, with folds, all data for the model that is kept, see `train_on_all`.

    Raises:
        ConfigError: Folds are wanted by chunk.
        DatasetError: There is only one source document, or too few questions.
    """
    if in_folds and by == "chunk":
        raise ConfigError("Cross-fitting divides by document; leave out `in_folds`, or `by='chunk'`.")
    plan = plan_split(len(documents_asked(dataset)), len(dataset.queries), cross_fit=in_folds)
    if by == "document" and plan.way == "cross-fit":
        return train_on_all(dataset, seed=seed), folds_by_document(dataset, folds=plan.folds, seed=seed)
    return split_for_tuning(dataset, by=by, seed=seed), []


def tune_and_compare(
    split: Split,
    base: BaseEmbedding,
    folder: Path,
    *,
    folds: Sequence[Split] = (),
    method: Method = "adapter",
    show_progress: bool = True,
    seed: int = 0,
    against: Sequence[str] = (),
    notes: Sequence[str] = (),
    command: str = "",
    engine_options: dict[str, Any] | None = None,
) -> TuneOutcome:
    """Train on ``split.train``, choose on ``split.val``, compare with the base on ``split.test``, and save everything.

    With `folds` the questions of ``split.test`` are answered by one more model for each fold, trained in the same way
    without their documents. The verdict is then about this way of training: the model that is saved has seen all
    documents and is not tested itself. The models of the folds are not kept.

    Args:
        split: From `split_dataset` or `split_for_tuning`; with `folds`, from `train_on_all`.
        base: The embedding model in use today.
        folder: Where to write ``model/``, ``dataset/``, ``reports/``, ``report.json`` and ``report.html``.
        folds: From `folds_by_document`, of the same data set.
        method: ``"adapter"`` trains a linear layer on the query side; ``"full"`` trains all weights, and needs a
            Hugging Face model.
        show_progress: Show progress bars.
        seed: Of training.
        against: Sentences that speak against the tuned model whatever the test split shows; with one, ``model`` stays
            the base model.
        notes: Warnings that belong to the figures; every artefact shows them.
        command: The command line, for the record.
        engine_options: Further arguments of the engine.

    Raises:
        ConfigError: The method is unknown, or does not fit the base model.
        TrainingError: Training failed.
        OutputError: The folder cannot be written.
    """
    check_choice("method", method, METHODS)
    check_number("seed", seed, at_least=0, whole=True)
    candidate, cache = folder / "candidate", RunCache()
    options = {"seed": seed, **(engine_options or {})}

    def engine_on(data: Split, to: Path) -> Any:
        return make_engine(method, data.train, data.val, base, to, show_progress, cache, options)

    def measured(test: EmbeddingQAFinetuneDataset, model: BaseEmbedding, label: str) -> RetrievalReport:
        return evaluate_embed_model(test, model, label=label, show_progress=show_progress, cache=cache)

    engine = engine_on(split, candidate)  # first of all, because it refuses what does not fit
    base_report = measured(split.test, base, f"base ({_short_name(base)})")
    label = f"tuned ({method}, {len(folds)} folds)" if folds else f"tuned ({method})"
    if folds:
        folder.mkdir(parents=True, exist_ok=True)
        with scratch_folder(folder / "folds") as place:

            def trained(data: Split, number: int) -> BaseEmbedding:
                of_fold = engine_on(data, place / str(number))
                of_fold.finetune()
                model: BaseEmbedding = of_fold.get_finetuned_model()
                return model

            tuned_report = cross_fit(
                folds, base_report, trained, lambda test, model: measured(test, model, label), label=label
            )
        result = engine.finetune()
        notes = [*notes, _ABOUT_FOLDS.format(len(folds))]
        if result.improved is False:
            against = [*against, _NOTHING_TRAINED]
    else:
        result = engine.finetune()
        tuned_report = measured(split.test, engine.get_finetuned_model(), label)
    comparison = compare(base_report, tuned_report, seed=seed)
    vetoed = bool(against) and comparison.decision == "adopt"
    comparison = comparison.amended(
        decision="not proven" if vetoed else None, reasons=against, notes=notes, command=command
    )
    outcome = TuneOutcome(comparison, result)
    write_decision(candidate, comparison)
    if outcome.adopted:
        rename_with_patience(candidate, folder / "model")
        outcome = replace(outcome, result=replace(result, output_path=folder / "model"))
    else:
        save_base(folder / "model", base, split.train, split.val)
        write_decision(folder / "model", comparison)
    _save_data(split, folds, folder / "dataset")
    base_report.to_json(folder / "reports" / "base.json")
    tuned_report.to_json(folder / "reports" / "tuned.json")
    comparison.to_json(folder / "report.json")
    comparison.to_html(folder / "report.html", split.test)
    return outcome


def _short_name(model: BaseEmbedding) -> str:
    """A model's name without the folders above it."""
    name = str(describe_base(model)["model_name"])
    return Path(name).name if Path(name).is_dir() else name


def _save_data(split: Split, folds: Sequence[Split], folder: Path) -> None:
    """Write what was trained and tested on; the sides of folds as ids of the queries in ``all.json``."""
    for name, part in split._asdict().items():
        # Nobody should take all data for a test side: the saved model has seen it.
        part.save_json(folder / ("all.json" if folds and name == "test" else f"{name}.json"))
    if folds:
        sides = [{name: list(part.queries) for name, part in fold._asdict().items()} for fold in folds]
        atomic_write_text(folder / "folds.json", json.dumps(sides, indent=2, ensure_ascii=False) + "\n")
