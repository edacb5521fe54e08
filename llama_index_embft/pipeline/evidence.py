"""Which questions train, which choose, and which prove: decided before anything is trained or paid."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from llama_index_embft.crossfit import documents_asked, folds_by_document, plan_split
from llama_index_embft.dataset.split import Split, split_dataset
from llama_index_embft.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset

Origin = Literal["people", "llm", "text"]
"""Who asked the questions: people, an LLM, or nobody: they were taken from the text."""

# With fewer, even a choice between two systems is a coin toss.
_FEWEST: Final = 10
# Fewer are worth more as proof than as training data: a model learns little from them, and a verdict needs them all.
_ENOUGH_TO_TRAIN: Final = 300
# Three tenths of so many documents still bear a verdict.
_ENOUGH_DOCUMENTS: Final = 40
FRACTIONS: Final = (0.6, 0.1, 0.3)
"""Shares of people's questions that train, choose and prove, where they are enough to train."""
_BY_CHUNK: Final = (0.72, 0.12, 0.16)  # of made questions about too few documents to test on others
_MOST_CHOOSING: Final = 400
_VAL_SHARE: Final = 0.12
_TIED: Final = (
    "Divided by document, the questions would leave a side without enough of them (documents that share texts, or that "
    "one question is about, count as one), so they were divided by passage: passages of one document stand on several "
    "sides, and nothing is shown about other documents."
)
_ALL_TIED: Final = (
    "All passages that the questions are about hang together (copies, near-duplicates, or questions about several), so "
    "the questions were divided at random: those that prove are about passages that also chose, and nothing is shown "
    "about others."
)


@dataclass(frozen=True)
class Fold:
    """One choice and what proves it: the two share no document."""

    choose: EmbeddingQAFinetuneDataset
    prove: EmbeddingQAFinetuneDataset


@dataclass(frozen=True)
class Evidence:
    """The roles of the questions.

    Attributes:
        train: What models are trained on; None: nothing is.
        val: What training chooses its best weights on.
        choose: What the stack is chosen on, for good.
        folds: What it is proven on. One: `choose` chose. Several: each question is tested by a stack that was chosen
            without its document; the models are the same in each, and have seen none of these questions.
        proof_by: Who asked the questions that prove.
        train_by: Who asked those that train.
        notes: What the reader of the figures must know.
    """

    train: EmbeddingQAFinetuneDataset | None
    val: EmbeddingQAFinetuneDataset | None
    choose: EmbeddingQAFinetuneDataset
    folds: tuple[Fold, ...]
    proof_by: Origin
    train_by: Origin
    notes: tuple[str, ...] = ()

    @property
    def tested(self) -> int:
        """Questions that prove."""
        return sum(len(fold.prove.queries) for fold in self.folds)


def can_choose(labels: EmbeddingQAFinetuneDataset | None) -> bool:
    """Whether there are enough questions by people to choose by."""
    return labels is not None and len(labels.queries) >= _FEWEST


def trains_on_labels(labels: EmbeddingQAFinetuneDataset | None) -> bool:
    """Whether there are enough questions by people, about enough documents, to spare some for training."""
    if labels is None or len(labels.queries) < _ENOUGH_TO_TRAIN:
        return False
    return len(documents_asked(labels)) >= _ENOUGH_DOCUMENTS


def assign(
    labels: EmbeddingQAFinetuneDataset | None,
    made: EmbeddingQAFinetuneDataset | None,
    *,
    made_by: Origin,
    seed: int,
    show_progress: bool = False,
) -> Evidence:
    """Give every question its role.

    Many questions by people train, choose and prove, on documents of their own each. A few choose and prove, by folds;
    training then uses made questions. With none, made questions do all three.

    Args:
        labels: Questions by people; None or fewer than ten: too few to choose by.
        made: Questions by an LLM or from the text, over the same corpus; None: there are none.
        made_by: Which of the two.
        seed: Of all divisions.
        show_progress: Show bars where near-duplicates are looked for.

    Raises:
        DatasetError: There are no questions of any kind, or they cannot be divided.
    """
    few = labels is not None and not can_choose(labels)
    notes = []
    if labels is not None and few:
        notes.append(
            f"{len(labels.queries)} questions by people are too few to choose or prove anything; give {_FEWEST} or "
            "more."
        )
    if labels is None or few:
        if made is None:
            raise DatasetError("There are no questions to choose by; give some, or let them be made.")
        return _by_made(made, made_by, tuple(notes), seed, show_progress)
    if trains_on_labels(labels):
        (train, val, test), note = _divided(labels, FRACTIONS, seed, show_progress)
        notes += [note] if note else []
        return Evidence(train, _smaller(val, seed), val, (Fold(val, test),), "people", "people", tuple(notes))
    train_set, val_set = _train_and_val(made, seed, show_progress) if made is not None else (None, None)
    folds, note = _folds(labels, seed)
    notes += [note] if note else []
    return Evidence(train_set, val_set, labels, folds, "people", made_by, tuple(notes))


def _by_made(
    made: EmbeddingQAFinetuneDataset, made_by: Origin, notes: tuple[str, ...], seed: int, show_progress: bool
) -> Evidence:
    n_documents = len(documents_asked(made))
    if n_documents > 2:  # as `what_can_be_shown` said beforehand
        fractions = plan_split(n_documents, len(made.queries), cross_fit=False).fractions
        (train, val, test), note = _divided(made, fractions, seed, show_progress)
    else:
        train, val, test = split_dataset(made, by="chunk", fractions=_BY_CHUNK, seed=seed, show_progress=show_progress)
        note = "The questions are about one or two documents; nothing is shown about others."
    notes = (*notes, note) if note else notes
    return Evidence(train, _smaller(val, seed), val, (Fold(val, test),), made_by, made_by, notes)


def _train_and_val(
    made: EmbeddingQAFinetuneDataset, seed: int, show_progress: bool
) -> tuple[EmbeddingQAFinetuneDataset, EmbeddingQAFinetuneDataset]:
    fractions = (1 - _VAL_SHARE, _VAL_SHARE, 0.0)
    if len(documents_asked(made)) > 3:
        (train, val, _), _ = _divided(made, fractions, seed, show_progress)
    else:
        train, val, _ = split_dataset(made, by="chunk", fractions=fractions, seed=seed, show_progress=show_progress)
    return train, _smaller(val, seed)


def _divided(
    dataset: EmbeddingQAFinetuneDataset, fractions: tuple[float, float, float], seed: int, show_progress: bool
) -> tuple[Split, str]:
    """By document; by passage where that leaves a part with less than a third of its share, with a note that says so.

    Laws that quote each other, and questions about several documents, can tie nearly all of them into one unit.

    Raises:
        DatasetError: They cannot be divided by passage either.
    """
    n = len(dataset.queries)
    try:
        split = split_dataset(dataset, fractions=fractions, seed=seed, show_progress=show_progress)
        shares = [len(part.queries) / n for part in split]
        if all(3 * share >= wanted for share, wanted in zip(shares, fractions, strict=True)):
            return split, ""
    except DatasetError:
        pass
    by_chunk = split_dataset(dataset, by="chunk", fractions=fractions, seed=seed, show_progress=show_progress)
    return by_chunk, _TIED


def _folds(labels: EmbeddingQAFinetuneDataset, seed: int) -> tuple[tuple[Fold, ...], str]:
    """Every question is tested once, by a choice that did not see its document; else its passage, with a note."""
    note = ""
    try:
        splits: Sequence[tuple[EmbeddingQAFinetuneDataset, EmbeddingQAFinetuneDataset]] = [
            (labels.subset([query for query in labels.queries if query not in split.test.queries]), split.test)
            for split in folds_by_document(labels, seed=seed)
        ]
    except DatasetError:
        splits = []
    splits = [(choose, prove) for choose, prove in splits if choose.queries]
    if len(splits) < 2:
        try:
            halves = split_dataset(labels, by="chunk", fractions=(0.5, 0.0, 0.5), seed=seed, show_progress=False)
            first, second = halves.train, halves.test
            note = _TIED if len(documents_asked(labels)) > 1 else ""
        except DatasetError:  # all passages hang together; what is chosen is little, and a search must not end here
            first, second = _halves(labels, seed)
            note = _ALL_TIED
        splits = [(first, second), (second, first)]
    return tuple(Fold(choose, prove) for choose, prove in splits), note


def _halves(
    labels: EmbeddingQAFinetuneDataset, seed: int
) -> tuple[EmbeddingQAFinetuneDataset, EmbeddingQAFinetuneDataset]:
    """Two halves of the questions, drawn at random."""
    queries = list(labels.queries)
    drawn = set(random.Random(seed).sample(queries, len(queries) // 2))
    return labels.subset([query for query in queries if query in drawn]), labels.subset(
        [query for query in queries if query not in drawn]
    )


def _smaller(val: EmbeddingQAFinetuneDataset, seed: int) -> EmbeddingQAFinetuneDataset:
    """A validation set over its own passages and some others: each look at it embeds its corpus anew."""
    rng = random.Random(seed)
    queries = list(val.queries)
    if len(queries) > _MOST_CHOOSING:
        queries = sorted(rng.sample(queries, _MOST_CHOOSING))
    few = val.subset(queries, keep_corpus=False)
    others = [doc for doc in val.corpus if doc not in few.corpus]
    wanted = max(0, min(len(others), 3 * _MOST_CHOOSING // 2 - len(few.corpus)))
    extra = set(rng.sample(others, wanted))
    kept = [doc for doc in val.corpus if doc in few.corpus or doc in extra]
    return few.replace(
        corpus={doc: val.corpus[doc] for doc in kept},
        bare_texts={doc: val.bare_texts[doc] for doc in kept if doc in val.bare_texts},
        source_documents={doc: val.source_documents[doc] for doc in kept if doc in val.source_documents},
    )


def data_in_words(source: str, evidence: Evidence) -> str:
    """What was searched and asked, for reports."""
    by = {"people": "that people asked", "llm": "that an LLM wrote", "text": "taken from the text"}[evidence.proof_by]
    own_words = evidence.choose.provenance.made_by
    if evidence.proof_by == "people" and own_words:
        by = f"({own_words})"
    return f"{source}; {evidence.tested:,} questions {by}"
