"""Labelled pairs to a data set and back."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import numpy as np
import pytest

from llama_index_embft import CrossEncoderFinetuningDatasetSample as Sample
from llama_index_embft.errors import DatasetError
from llama_index_embft.generation import dataset_to_samples, samples_to_dataset, usable_samples

PAIRS = [
    Sample("What is a valve?", "A valve opens a pipe.", 1),
    Sample("What is a valve?", "A harbour is for ships.", 0),
    Sample("Where do ships rest?", "A harbour is for ships.", 2),
    Sample("What is a valve?", "Valves and taps: how they work.", 3),
    Sample("Where do ships rest?", "A valve opens a pipe.", 0),
]


def key(sample: Sample) -> tuple[str, str, int]:
    return sample.query, sample.context, sample.score


def test_pairs_survive_the_way_there_and_back():
    dataset = samples_to_dataset(PAIRS)
    assert list(dataset.queries.values()) == ["What is a valve?", "Where do ships rest?"]
    assert len(dataset.corpus) == 3
    assert sorted(map(key, dataset_to_samples(dataset))) == sorted(map(key, PAIRS))
    # Query by query, relevant passages first.
    assert [s.score for s in dataset_to_samples(dataset)] == [1, 3, 0, 2, 0]
    assert samples_to_dataset(dataset_to_samples(dataset)) == dataset
    assert samples_to_dataset(PAIRS).content_hash() == dataset.content_hash()


def test_scores_of_other_libraries_count():
    given = [SimpleNamespace(query="q", context="a", score=np.int64(2)), Sample("q", "b", False), Sample("q", "c", 1.0)]
    assert [key(s) for s in dataset_to_samples(samples_to_dataset(given))] == [
        ("q", "a", 2),
        ("q", "c", 1),
        ("q", "b", 0),
    ]


def test_a_query_without_a_relevant_passage_is_counted(caplog):
    with caplog.at_level(logging.WARNING):
        dataset = samples_to_dataset([*PAIRS, Sample("Who?", "A valve opens a pipe.", 0)])
    assert dataset == samples_to_dataset(PAIRS)
    assert dataset.dropped.counts == {"query without a relevant passage": 1}
    assert "1 x query without a relevant passage" in caplog.text


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (Sample(" ", "x", 1), "query is empty"),
        (Sample("x", "", 1), "context is empty"),
        (Sample("x", "y", 0.7), "score should be a whole number"),
        (Sample("x", "y", None), "score should be a number"),
        (Sample("x", "y", float("nan")), "score is nan"),
        (SimpleNamespace(query="x"), "context should be a string"),
        (Sample("What is a valve?", "A valve opens a pipe.", 0), "both relevant and negative"),
        (Sample("What is a valve?", "A valve opens a pipe.", 2), "has the grades 1 and 2"),
    ],
)
def test_a_sample_that_cannot_be_used_stops_or_is_left_out(bad, says):
    with pytest.raises(DatasetError, match=rf"samples, sample 6: .*{says}"):
        samples_to_dataset([*PAIRS, bad])
    dataset = samples_to_dataset([*PAIRS, bad], on_error="drop")
    assert dataset.queries == samples_to_dataset(PAIRS).queries
    assert dataset.relevance_grades == samples_to_dataset(PAIRS).relevance_grades
    assert sum(dataset.dropped.counts.values()) == 1
    assert list(map(key, usable_samples([*PAIRS, bad]))) == list(map(key, PAIRS))


def test_nothing_relevant_is_an_error():
    with pytest.raises(DatasetError, match="no query with a relevant document"):
        samples_to_dataset([Sample("q", "a", 0)])
    with pytest.raises(DatasetError, match="no query with a relevant document"):
        samples_to_dataset([])


def test_usable_samples_keep_queries_without_a_relevant_passage(caplog):
    given = [*PAIRS, Sample("Who?", "Nobody.", np.int64(0)), Sample("", "x", 1), *PAIRS[:1]]
    with caplog.at_level(logging.WARNING):
        kept = usable_samples(given)
    assert list(map(key, kept)) == [*map(key, PAIRS), ("Who?", "Nobody.", 0), key(PAIRS[0])]
    assert type(kept[5].score) is int
    assert "1 of 8 samples are left out, the first: samples, sample 7: query is empty" in caplog.text
