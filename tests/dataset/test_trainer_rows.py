"""The formats that trainers read."""

from __future__ import annotations

import json

import pytest

from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
from llama_index_embft.dataset.formats import (
    flag_embedding_rows,
    labelled_pairs,
    ntuples,
    pairs,
    teacher_rows,
    triplets,
    write_rows,
)
from llama_index_embft.errors import ConfigError


@pytest.fixture
def dataset():
    return EmbeddingQAFinetuneDataset(
        queries={"1": "one?", "2": "two?", "3": "three?"},
        corpus={name: name.upper() for name in "abcdef"},
        relevant_docs={"1": ["a", "b"], "2": ["c"], "3": ["d"]},
        negative_docs={"1": ["c", "d", "e"], "2": ["e", "f"]},
    )


def test_pairs(dataset):
    assert list(pairs(dataset)) == [
        {"anchor": "one?", "positive": "A"},
        {"anchor": "one?", "positive": "B"},
        {"anchor": "two?", "positive": "C"},
        {"anchor": "three?", "positive": "D"},
    ]


def test_ntuples_have_the_same_columns_everywhere(dataset):
    assert list(ntuples(dataset, 2)) == [
        {"anchor": "one?", "positive": "A", "negative_1": "C", "negative_2": "D"},
        {"anchor": "one?", "positive": "B", "negative_1": "C", "negative_2": "D"},
        {"anchor": "two?", "positive": "C", "negative_1": "E", "negative_2": "F"},
    ]
    assert len(list(ntuples(dataset.subset(["1", "2"])))) == 3
    with pytest.raises(ConfigError, match="1 queries have none"):
        list(ntuples(dataset))
    with pytest.raises(ConfigError, match="No query has 4 negatives; the most is 3"):
        list(ntuples(dataset, 4))
    with pytest.raises(ConfigError, match="at least one negative: got 0"):
        list(ntuples(dataset, 0))


def test_triplets(dataset):
    found = list(triplets(dataset))
    assert len(found) == 2 * 3 + 2
    assert found[0] == {"anchor": "one?", "positive": "A", "negative": "C"}


def test_labelled_pairs(dataset):
    assert [(row["sentence2"], row["score"]) for row in labelled_pairs(dataset)][:3] == [("A", 1), ("B", 1), ("C", 0)]
    scores = {"1": {"a": 0.75, "c": 0.25}}
    assert [(row["sentence2"], row["score"]) for row in labelled_pairs(dataset, scores)] == [("A", 0.75), ("C", 0.25)]


def test_flag_embedding_rows(dataset):
    rows = list(flag_embedding_rows(dataset))
    assert rows[0] == {"query": "one?", "pos": ["A", "B"], "neg": ["C", "D", "E"]}
    assert rows[2] == {"query": "three?", "pos": ["D"], "neg": []}
    scores = {"1": {"a": 0.75, "b": 0.5, "d": 0.25}}
    assert list(flag_embedding_rows(dataset, scores)) == [
        {"query": "one?", "pos_scores": [0.75, 0.5], "neg_scores": [0.25], "pos": ["A", "B"], "neg": ["D"]}
    ]


def test_teacher_rows(dataset):
    scores = {"1": {"a": 3.0, "c": 1.0, "e": 0.5}, "2": {"c": 2.0, "e": 1.0}}
    assert list(teacher_rows(dataset, scores, 2)) == [
        {"query": "one?", "positive": "A", "negative_1": "C", "negative_2": "E", "label": [3.0, 1.0, 0.5]}
    ]
    with pytest.raises(ConfigError, match="at least 1, got 0"):
        list(teacher_rows(dataset, scores, 0))


def test_written_lines_read_back(dataset, tmp_path):
    assert write_rows(triplets(dataset), tmp_path / "t.jsonl") == 8
    lines = (tmp_path / "t.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line) for line in lines] == list(triplets(dataset))
