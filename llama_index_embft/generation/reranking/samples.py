"""Labelled pairs, the data set of a cross-encoder, and their way to and from the data set of everything else."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llama_index_embft.dataset.formats.build import Builder, OnError, as_grade, as_text
from llama_index_embft.dataset.sources import At, FaultError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset

logger = logging.getLogger(__name__)


@dataclass
class CrossEncoderFinetuningDatasetSample:
    """A query, a passage, and whether the passage answers the query.

    Attributes:
        query: Text of the query.
        context: Text of the passage.
        score: 0 for a passage that does not answer the query, 1 for one that does; above 1, how well it does.
    """

    query: str
    context: str
    score: int


def samples_to_dataset(
    samples: Iterable[CrossEncoderFinetuningDatasetSample], *, on_error: OnError = "raise"
) -> EmbeddingQAFinetuneDataset:
    """Gather labelled pairs into a data set: one query for each text, one document for each passage.

    Passages with a score above 0 become ``relevant_docs`` (above 1 with their grade), those with 0 ``negative_docs``,
    in the order of the samples. Ids are hashes of the texts: the same samples give the same data set.

    Args:
        samples: Pairs; objects of llama-index-finetuning's class of this name will do.
        on_error: ``"raise"`` stops at the first sample that cannot be used: a blank text, a score that is no whole
            number, or another score for a pair that has one. ``"drop"`` leaves it out.

    Returns:
        The data set. A query without a relevant passage has no place in it and is left out in either case; what was
        left out, and how many, stands in its `dropped`.

    Raises:
        DatasetError: No query has a relevant passage; with ``"raise"``, see there.
        ConfigError: `on_error` is neither.
    """
    build = Builder("samples", on_error=on_error)
    for number, sample in enumerate(samples, 1):
        with build.row():
            _add(sample, number, build)
    return build.finish(leave_out_unjudged="query without a relevant passage")


def usable_samples(
    samples: Iterable[CrossEncoderFinetuningDatasetSample],
) -> list[CrossEncoderFinetuningDatasetSample]:
    """The pairs that a cross-encoder can learn from, those of queries without a relevant passage among them.

    Returns:
        The pairs but for those that `samples_to_dataset` cannot use, whose number a warning says; scores as integers.
    """
    build = Builder("samples")
    kept: list[CrossEncoderFinetuningDatasetSample] = []
    faults: list[FaultError] = []
    for number, sample in enumerate(samples, 1):
        try:
            kept.append(_add(sample, number, build))
        except FaultError as fault:  # noqa: PERF203 - each sample may fail by itself
            faults.append(fault)
    if faults:
        logger.warning("%d of %d samples are left out, the first: %s", len(faults), len(faults) + len(kept), faults[0])
    return kept


def dataset_to_samples(dataset: EmbeddingQAFinetuneDataset) -> list[CrossEncoderFinetuningDatasetSample]:
    """The labelled pairs of a data set: each query with its relevant documents and its negatives.

    Returns:
        Query by query: relevant documents with their grade as score (1 without one), then negatives with 0. The
        passages are the texts of the corpus, as the index embeds them and a reranker reads them.
    """
    found = []
    for query_id, grades in dataset.qrels().items():
        judged = {**grades, **dict.fromkeys(dataset.negative_docs.get(query_id, ()), 0)}
        query = dataset.queries[query_id]
        found += [
            CrossEncoderFinetuningDatasetSample(query, dataset.corpus[doc], score) for doc, score in judged.items()
        ]
    return found


def _add(sample: Any, number: int, build: Builder) -> CrossEncoderFinetuningDatasetSample:
    at = At("samples", number, "sample")
    query = as_text(getattr(sample, "query", None), "query", at)
    context = as_text(getattr(sample, "context", None), "context", at)
    grade = as_grade(_plain(getattr(sample, "score", None)), "score", at)
    build.link(build.add_query(query, at), build.add_document(context, at), grade, at)
    return CrossEncoderFinetuningDatasetSample(query, context, grade)


def _plain(score: Any) -> Any:
    """Numbers of NumPy and truth values as the numbers they are."""
    score = score.item() if hasattr(score, "item") else score
    return int(score) if isinstance(score, bool) else score
