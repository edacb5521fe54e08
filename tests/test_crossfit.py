"""Cross-fitting: every question is tested once, by a model that did not see its document, and compare knows it."""

from __future__ import annotations

import math
import random

import pytest

from llama_index_embft import EmbeddingQAFinetuneDataset
from llama_index_embft.crossfit import cross_fit, folds_by_document, plan_split
from llama_index_embft.errors import ConfigError, DatasetError, EvaluationError
from llama_index_embft.evaluation import RetrievalReport, compare, evaluate_run


def dataset_of(n_documents: int) -> EmbeddingQAFinetuneDataset:
    """Six chunks a document, a question about each."""
    rng = random.Random(0)
    corpus = {
        f"d{d}c{c}": " ".join(rng.choices("abcdefghijklmnop", k=40)) for d in range(n_documents) for c in range(6)
    }
    return EmbeddingQAFinetuneDataset(
        queries={f"{chunk}q": f"question {chunk}" for chunk in corpus},
        corpus=corpus,
        relevant_docs={f"{chunk}q": [chunk] for chunk in corpus},
        source_documents={chunk: chunk.partition("c")[0] for chunk in corpus},
    )


def found_with(dataset: EmbeddingQAFinetuneDataset, chance: float, label: str) -> RetrievalReport:
    """A report in which a share of the questions is answered; which ones, their ids decide."""
    run = {}
    for query, (chunk,) in dataset.relevant_docs.items():
        other = next(doc for doc in dataset.corpus if doc != chunk)
        run[query] = {(chunk if random.Random(query).random() < chance else other): 1.0}
    return evaluate_run(dataset, run, label=label)


def test_a_cross_fit_holds_each_model_to_the_documents_it_did_not_see() -> None:
    dataset = dataset_of(12)
    splits = folds_by_document(dataset, folds=4)
    trained = []

    def train(split, number):
        trained.append((number, set(split.train.queries) | set(split.val.queries)))
        return number

    def evaluate(test, model):
        assert not trained[model][1] & set(test.queries)
        return found_with(test, 0.9, f"fold {model}")

    base = found_with(dataset, 0.2, "base")
    tuned = cross_fit(splits, base, train, evaluate, label="tuned")
    assert [number for number, _ in trained] == [0, 1, 2, 3]
    assert (tuned.query_ids, tuned.folds, tuned.label) == (base.query_ids, 4, "tuned")
    assert tuned.summary() == pytest.approx(found_with(dataset, 0.9, "at once").summary())
    assert "had not seen its document" in tuned.notes[-1]


def test_compare_allows_for_shared_training_data(tmp_path) -> None:
    dataset = dataset_of(12)
    base, once = found_with(dataset, 0.2, "base"), found_with(dataset, 0.5, "tuned")
    crossed = cross_fit(
        folds_by_document(dataset), base, lambda split, number: None, lambda test, model: found_with(test, 0.5, "tuned")
    )
    plain = compare(base, once).metrics["ndcg@10"].test
    allowing = compare(base, crossed).metrics["ndcg@10"].test
    assert allowing.difference == pytest.approx(plain.difference)
    assert allowing.standard_error == pytest.approx(plain.standard_error * math.sqrt(1 + 5 / 4), rel=0.02)
    assert allowing.p >= plain.p
    crossed.to_json(tmp_path / "crossed.json")
    assert compare(base, tmp_path / "crossed.json").metrics["ndcg@10"].test == allowing


def test_bad_input() -> None:
    dataset = dataset_of(6)
    base = found_with(dataset, 0.2, "base")
    splits = folds_by_document(dataset, folds=3)
    for given in (splits[:2], [*splits, splits[0]]):
        with pytest.raises(EvaluationError, match="make the splits with `folds_by_document` from the same data set"):
            cross_fit(given, base, lambda split, number: None, lambda test, model: found_with(test, 0.5, "t"))
    with pytest.raises(ConfigError, match="`folds` is 1; it must be at least 2"):
        folds_by_document(dataset, folds=1)
    with pytest.raises(ConfigError, match="`n_documents` is 0; it must be at least 1"):
        plan_split(0, 10)
    with pytest.raises(DatasetError):
        folds_by_document(dataset_of(1))
