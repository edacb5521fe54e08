"""How a data set is divided so that its verdict can mean something, and cross-fitting where documents are few."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from llama_index_embft._core.checks import check_number
from llama_index_embft.dataset.split import Split, split_dataset
from llama_index_embft.errors import DatasetError, EvaluationError
from llama_index_embft.evaluation.statistics import detectable_difference

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llama_index.core.base.embeddings.base import BaseEmbedding

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.evaluation.records import RetrievalReport

_TEST_SHARE: Final = 0.16
_VAL_SHARE: Final = 0.12
# With this many test documents the limit of the test is about twice that of very many; with fewer it grows fast.
_ENOUGH_TEST_DOCUMENTS: Final = 8
_FEWEST_DOCUMENTS: Final = 6  # five agree by luck in one case of 32, and one of 40 is allowed
_LARGEST_TEST_SHARE: Final = 1 / 3  # more would take too much from training
_MOST_FOLDS: Final = 5
# Differences in nDCG@10 between a model and its tuned descendant: standard deviation of one query about its document's
# mean, and of the documents' means. benchmarks/calibration.py uses the same spread.
_QUERY_SPREAD: Final = 0.27
_DOCUMENT_SPREAD: Final = 0.06
_WORTHWHILE: Final = 0.05
_DOCUMENT_COUNTS: Final = (24, 30, 40, 50, 60, 80, 100, 120, 150, 200, 300, 400, 500, 700, 1_000, 1_500, 2_000)


@dataclass(frozen=True)
class SplitPlan:
    """What a data set can show, known before anything is paid or trained.

    Attributes:
        n_documents: Source documents that are asked about.
        n_queries: Questions about them.
        way: ``"split"``: one test side, which is enough to show a gain of five points, or shows more than the other
            way. ``"cross-fit"``: each document is tested once, by a model that was trained without it. ``"nothing"``:
            there is one document, and no way shows anything about others. With fewer than six, which agree by luck too
            often to show a gain, folds are made all the same: they measure, and show a loss.
        folds: Models to train for the verdict: 1 for a split.
        fractions: Shares of train, validation and test in a single split.
        test_documents: Documents that the verdict rests on.
        test_queries: Questions that it rests on.
        detectable: Gain in nDCG@10 that is found in four cases of five, 0.01 being a point, if the documents differ as
            is usual; infinite where none can be, with fewer than six test documents.
        documents_wanted: Documents with as many questions each that would show a gain of five points; None where
            these do.
    """

    n_documents: int
    n_queries: int
    way: Literal["split", "cross-fit", "nothing"]
    folds: int
    fractions: tuple[float, float, float]
    test_documents: int
    test_queries: int
    detectable: float
    documents_wanted: int | None

    def __str__(self) -> str:
        have = f"{self.n_queries:,} questions about {_documents(self.n_documents)}"
        more = ""
        if self.documents_wanted is not None:
            more = f"; about {self.documents_wanted:,} documents would show {100 * _WORTHWHILE:g} points"
        if self.way == "nothing":
            return f"{have} cannot show a gain for other documents{more}."
        means = f"cross-fitting over {self.folds} folds" if self.way == "cross-fit" else "a split"
        tested = f"{have}: {means} tests {self.test_queries:,} of them about {_documents(self.test_documents)}"
        if math.isinf(self.detectable):
            return f"{tested}, too few to prove any gain: fewer than {_FEWEST_DOCUMENTS} may agree by luck{more}."
        if self.detectable >= 1:
            return f"{tested}, which will show no gain, however large{more}."
        shown = f"which shows a gain of {100 * self.detectable:.0f} points or more in four cases of five"
        return f"{tested}, {shown}{more}."


def plan_split(
    n_documents: int, n_queries: int, *, cross_fit: bool | None = None, test_share: float | None = None
) -> SplitPlan:
    """Say how to divide so many questions, and what they can show, before anything is paid or trained.

    Args:
        n_documents: Source documents that will be asked about, at least 1.
        n_queries: Questions about them, at least 1; before they are written, the number that will be.
        cross_fit: True or False: plan for this way; None: for the better one.
        test_share: Share of the questions that a split tests; None: 16 %, and more where documents are few.

    Raises:
        ConfigError: A number is out of range.
    """
    check_number("n_documents", n_documents, at_least=1)
    check_number("n_queries", n_queries, at_least=1)
    if test_share is not None:
        check_number("test_share", test_share, above=0, below=1 - _VAL_SHARE)
    share = _test_share(n_documents) if test_share is None else test_share
    by_split = max(1, round(share * n_documents)), max(1, round(share * n_queries))
    split_limit, cross_limit = _expected_limit(*by_split), _cross_fit_limit(n_documents, n_queries)
    if cross_fit is None:
        cross_fit = n_documents > 1 and split_limit > _WORTHWHILE and cross_limit <= split_limit
    tested, limit = ((n_documents, n_queries), cross_limit) if cross_fit else (by_split, split_limit)
    return SplitPlan(
        n_documents=n_documents,
        n_queries=n_queries,
        way="nothing" if n_documents < 2 else "cross-fit" if cross_fit else "split",
        folds=_folds(n_documents) if cross_fit else 1,
        fractions=(1 - _VAL_SHARE - share, _VAL_SHARE, share),
        test_documents=tested[0] if n_documents > 1 else 0,
        test_queries=tested[1] if n_documents > 1 else 0,
        detectable=limit,
        documents_wanted=None if limit <= _WORTHWHILE else _documents_wanted(n_queries / n_documents),
    )


def _test_share(n_documents: int) -> float:
    return min(max(_TEST_SHARE, _ENOUGH_TEST_DOCUMENTS / n_documents), _LARGEST_TEST_SHARE)


def _folds(n_documents: int) -> int:
    return max(2, min(_MOST_FOLDS, n_documents))


def _documents_wanted(queries_each: float) -> int:
    """Documents, with so many questions each, that show a gain worth having if each is tested once."""
    for n in _DOCUMENT_COUNTS:
        if _cross_fit_limit(n, round(n * queries_each)) <= _WORTHWHILE:
            return n
    return _DOCUMENT_COUNTS[-1]


def _cross_fit_limit(n_documents: int, n_queries: int) -> float:
    folds = _folds(n_documents)
    return _expected_limit(n_documents, n_queries) * math.sqrt(1 + folds / (folds - 1))


def _expected_limit(n_documents: int, n_queries: int) -> float:
    error = np.sqrt(_DOCUMENT_SPREAD**2 / n_documents + _QUERY_SPREAD**2 / n_queries + 1 / n_queries**2)
    return detectable_difference(float(error), n_documents)


def documents_asked(dataset: EmbeddingQAFinetuneDataset) -> set[str]:
    """The source documents that a data set's questions are about."""
    return {dataset.document_of(chunk) for chunks in dataset.relevant_docs.values() for chunk in chunks}


def folds_by_document(dataset: EmbeddingQAFinetuneDataset, *, folds: int = _MOST_FOLDS, seed: int = 0) -> list[Split]:
    """Divide a data set so that every question is on the test side of exactly one split.

    No document, and no near-duplicate of one, is on the test side and another side of one split. The validation side is
    taken by document; where there are fewer than four documents, or those left cannot be told apart, by chunk.

    Args:
        dataset: Questions about at least two source documents.
        folds: Splits to make, at least 2; fewer where fewer groups of documents can be told apart.
        seed: See `split_dataset`.

    Raises:
        DatasetError: The documents hang together so that not even two groups can be told apart.
    """
    check_number("folds", folds, at_least=2)
    left: EmbeddingQAFinetuneDataset = dataset
    tests: list[EmbeddingQAFinetuneDataset] = []
    for fold in range(min(folds, len(documents_asked(dataset))) - 1, 0, -1):
        share = 1 / (fold + 1)
        try:
            train, _, test = split_dataset(left, fractions=(1 - share, 0.0, share), seed=seed, show_progress=False)
        except DatasetError:
            if not tests:
                raise
            break  # near-duplicates tie what is left together: it becomes the last fold
        tests.append(test)
        left = train
    tests.append(left)
    by = _validation_by(dataset)
    splits = []
    for test in tests:
        rest = dataset.subset([query for query in dataset.queries if query not in test.queries])
        splits.append(Split(*_train_and_val(rest, by, seed), dataset.subset(list(test.queries))))
    return splits


def train_on_all(dataset: EmbeddingQAFinetuneDataset, *, seed: int = 0) -> Split:
    """The data of the model that is kept after a cross-fit: all of it is trained on, but for a validation side.

    The validation side is taken as `folds_by_document` takes it. The test side is the whole data set: it is tested by
    the models of the folds, and never by this model, which has seen it.

    Args:
        dataset: What the folds were made from.
        seed: See `split_dataset`.

    Raises:
        DatasetError: There are too few questions for a validation side.
    """
    return Split(*_train_and_val(dataset, _validation_by(dataset), seed), dataset)


def _validation_by(dataset: EmbeddingQAFinetuneDataset) -> Literal["document", "chunk"]:
    """One way for the folds and for the model on all: of two documents, validation would take half of the training."""
    return "document" if len(documents_asked(dataset)) > 3 else "chunk"


def _train_and_val(
    dataset: EmbeddingQAFinetuneDataset, by: Literal["document", "chunk"], seed: int
) -> tuple[EmbeddingQAFinetuneDataset, EmbeddingQAFinetuneDataset]:
    share = _VAL_SHARE / (1 - _TEST_SHARE)
    if by == "document":
        least = max(share, 1 / len(documents_asked(dataset)))
        try:
            return split_dataset(dataset, fractions=(1 - least, least, 0.0), seed=seed, show_progress=False)[:2]
        except DatasetError:
            # Near-duplicates tie the documents together. Only what validates is then divided by chunk: the test's
            # documents are apart already. Any other reason is raised by that call too.
            pass
    return split_dataset(dataset, by="chunk", fractions=(1 - share, share, 0.0), seed=seed, show_progress=False)[:2]


def cross_fit(
    splits: Sequence[Split],
    base_report: RetrievalReport,
    train: Callable[[Split, int], BaseEmbedding],
    evaluate: Callable[[EmbeddingQAFinetuneDataset, BaseEmbedding], RetrievalReport],
    *,
    label: str = "tuned (cross-fit)",
) -> RetrievalReport:
    """Train once for each split, and put together what each model scores on the documents it did not see.

    The report speaks of the way of training, not of one model: a model trained on all documents afterwards has seen
    more than each of these, and was itself not tested. `compare` knows from the report's `folds` that the models share
    training data.

    Args:
        splits: From `folds_by_document`.
        base_report: The base model's report over all queries, in whose order the result is.
        train: Trains on a split's train and validation sides, given the split and its number from 0.
        evaluate: Measures a model on a test side, as `base_report` was measured.
        label: Name of the system in the report.

    Raises:
        EvaluationError: The test sides are not a division of the base report's queries, or lack one of its metrics.
    """
    reports = [evaluate(split.test, train(split, number)) for number, split in enumerate(splits)]
    at = {query: (report, row) for report in reports for query, row in report.row_of.items()}
    n_tested = sum(len(report.query_ids) for report in reports)
    if at.keys() != base_report.row_of.keys() or n_tested != len(at):
        raise EvaluationError(
            f"The test sides hold {n_tested} queries, {len(at)} of them distinct, and the base report "
            f"{len(base_report.query_ids)}; make the splits with `folds_by_document` from the same data set."
        )
    lacking = [name for name in base_report.metrics for report in reports if name not in report.values]
    if lacking:
        raise EvaluationError(f"A fold's report has no metric {lacking[0]!r}; evaluate it as the base was evaluated.")
    places = [at[query] for query in base_report.query_ids]
    note = (
        f"Every question was answered by one of {len(splits)} models that had not seen its document; the models share "
        "training data, and intervals and p values allow for it."
    )
    return replace(
        base_report,
        label=label,
        depth=min(report.depth for report in reports),
        hit_ids=tuple(report.hit_ids[row] for report, row in places),
        hit_scores=tuple(report.hit_scores[row] for report, row in places),
        values={name: np.array([report.values[name][row] for report, row in places]) for name in base_report.metrics},
        seconds={
            phase: sum(report.seconds.get(phase, 0.0) for report in reports)
            for phase in dict.fromkeys(name for report in reports for name in report.seconds)
        },
        latencies=tuple(report.latencies[row] for report, row in places) if reports[0].latencies else (),
        errors={query: error for report in reports for query, error in report.errors.items()},
        notes=(*dict.fromkeys(note for report in reports for note in report.notes), note),
        answers=(),
        overlap={
            name: sum(report.overlap.get(name, 0) for report in reports)
            for name in dict.fromkeys(name for report in reports for name in report.overlap)
        },
        folds=len(splits),
    )


def _documents(n: int) -> str:
    return f"{n:,} document" if n == 1 else f"{n:,} documents"
