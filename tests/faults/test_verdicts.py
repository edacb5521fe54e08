"""A verdict holds from one document to ten thousand: one test a fault of the rule before this one."""

from __future__ import annotations

import numpy as np
import pytest

from llama_index_embft import EmbeddingQAFinetuneDataset
from llama_index_embft.crossfit import documents_asked, folds_by_document, plan_split
from llama_index_embft.evaluation import RetrievalReport, compare, evaluate_run
from llama_index_embft.evaluation.statistics import paired_tests, unseen_loss
from llama_index_embft.pipeline import split_for_tuning


def questions(n_documents: int, chunks: int = 100) -> EmbeddingQAFinetuneDataset:
    """One question about each chunk of each document."""
    corpus = {
        f"d{d}c{c}": f"chunk {c} of {d}: " + " ".join(f"w{d}x{c}x{i}" for i in range(12))
        for d in range(n_documents)
        for c in range(chunks)
    }
    return EmbeddingQAFinetuneDataset(
        queries={f"{chunk}q": f"what is {chunk}" for chunk in corpus},
        corpus=corpus,
        relevant_docs={f"{chunk}q": [chunk] for chunk in corpus},
        source_documents={chunk: chunk.partition("c")[0] for chunk in corpus},
    )


def finds(dataset: EmbeddingQAFinetuneDataset, found: np.ndarray, label: str) -> RetrievalReport:
    """A report in which the questions marked True are answered at rank 1 and the others not at all."""
    wrong = next(iter(dataset.corpus))
    other = list(dataset.corpus)[1]
    run = {
        query: {chunk if hit else (other if chunk == wrong else wrong): 1.0}
        for (query, (chunk,)), hit in zip(dataset.relevant_docs.items(), found, strict=True)
    }
    return evaluate_run(dataset, run, label=label)


@pytest.mark.parametrize("n_documents", [2, 3, 4, 5, 6])
def test_b1_a_verdict_can_fall_with_few_documents(n_documents: int) -> None:
    dataset = questions(n_documents)
    nothing, everything = (finds(dataset, np.full(len(dataset.queries), hit), str(hit)) for hit in (False, True))
    gain, loss = compare(nothing, everything), compare(everything, nothing)
    assert (gain.decision, loss.decision, loss.regressed()) == ("adopt", "do not adopt", True)
    assert "nan" not in gain.verdict + loss.verdict


@pytest.mark.parametrize("n_documents", [1, 2, 3, 5])
def test_b1_the_gate_sees_any_loss_that_the_data_show(n_documents: int) -> None:
    dataset = questions(n_documents, chunks=500 // n_documents)
    rng = np.random.default_rng(0)
    chances = np.linspace(0.4, 0.75, n_documents).repeat(500 // n_documents)  # the documents lose unequally
    good = finds(dataset, np.ones(len(chances), dtype=bool), "good")
    worse = finds(dataset, rng.random(len(chances)) < chances, "worse")
    result = compare(good, worse)
    assert (result.decision, result.regressed()) == ("do not adopt", True)
    assert compare(worse, good).regressed() is False
    # A gate that lets a system pass says what it cannot see.
    (system,) = compare(good, finds(dataset, np.arange(len(chances)) > 0, "as good")).systems
    assert system.decision == "not proven"
    assert "Blind under" in unseen_loss(system.metrics["ndcg@10"], system.on_these)


def test_b1_what_a_folder_can_show_is_said_before_training() -> None:
    assert "cannot show a gain for other documents; about" in str(plan_split(1, 500))
    few = plan_split(2, 40)
    assert "will show no gain, however large" in str(few)
    assert few.documents_wanted is not None
    assert [plan_split(n, 20 * n).way for n in (1, 2, 12, 1000)] == ["nothing", "cross-fit", "cross-fit", "split"]
    assert plan_split(12, 400).test_documents == 12
    assert plan_split(12, 400).detectable < plan_split(12, 400, cross_fit=False).detectable
    enough = plan_split(1000, 20_000)
    assert enough.detectable < 0.05
    assert enough.documents_wanted is None
    assert all("nan" not in str(plan_split(n, 30 * n)) for n in range(1, 50))


def test_b1_the_test_side_has_eight_documents_where_the_folder_has_24() -> None:
    held = {n: len(documents_asked(split_for_tuning(questions(n, chunks=4)).test)) for n in (10, 16, 24, 34, 60)}
    assert held[10] >= 3
    assert held[16] >= 5
    assert min(held[24], held[34], held[60]) >= 8


def test_b1_folds_test_every_document_once() -> None:
    dataset = questions(7, chunks=3)
    splits = folds_by_document(dataset)
    assert len(splits) == 5
    assert sorted(query for split in splits for query in split.test.queries) == sorted(dataset.queries)
    for split in splits:
        sides = [documents_asked(side) for side in split]
        assert not sides[2] & (sides[0] | sides[1])
        assert all(len(side.queries) > 0 for side in split)


@pytest.mark.parametrize("n_documents", [3, 4, 5])
def test_b2_the_limit_belongs_to_the_test_that_decides(n_documents: int) -> None:
    rng = np.random.default_rng(0)
    documents = np.repeat(np.arange(n_documents), 100)
    (test,) = paired_tests(
        (0.30 + rng.normal(0, 0.02, n_documents)[documents] + rng.normal(0, 0.1, len(documents)))[:, None], documents
    )
    assert test.p < 0.05  # 30 points, where sets like this one show 7 to 15
    assert test.ci95[0] > 0
    assert test.detectable < test.difference


@pytest.mark.parametrize("n_documents", [3, 5, 8])
def test_b2_power_at_the_limit_is_the_power_that_is_claimed(n_documents: int) -> None:
    rng = np.random.default_rng(1)
    documents = np.repeat(np.arange(n_documents), 20)
    noise = rng.normal(0, 0.13, (n_documents, 800))[documents] + rng.normal(0, 0.27, (len(documents), 800))
    limit = np.mean([test.detectable for test in paired_tests(noise, documents)])
    found = [test.p < 0.05 and test.difference > 0 for test in paired_tests(noise + limit, documents)]
    assert np.mean(found) == pytest.approx(0.8, abs=0.05)


def test_b3_one_document_is_never_adopted() -> None:
    dataset = questions(1, chunks=160)
    rng = np.random.default_rng(2)
    result = compare(
        finds(dataset, rng.random(160) < 0.3, "base"),
        finds(dataset, rng.random(160) < 0.9, "tuned"),
    )
    assert result.decision == "not proven"
    assert all(row.outcome == "not significant" for row in result.metrics.values())
    assert "nothing can be shown about others" in result.notes[0]
    assert "evaluate queries about more documents" in result.verdict


@pytest.mark.parametrize("n_documents", [5, 10, 30])
@pytest.mark.parametrize("sizes", ["equal", "unequal"])
def test_b4_skewed_differences_are_no_gain(n_documents: int, sizes: str) -> None:
    rng = np.random.default_rng(3)
    held = np.full(n_documents, 10) if sizes == "equal" else np.arange(n_documents) % 7 * 4 + 1
    documents = np.repeat(np.arange(n_documents), held)
    both = 0.15 * (1 - rng.exponential(size=(n_documents, 1500)))[documents]
    results = paired_tests(both + 0.27 * (1 - rng.exponential(size=(len(documents), 1500))), documents)
    assert np.mean([test.p < 0.05 and test.difference > 0 for test in results]) < 0.035
    assert np.mean([test.ci95[0] <= 0 <= test.ci95[1] for test in results]) >= 0.94
