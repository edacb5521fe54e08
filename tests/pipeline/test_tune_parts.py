"""What a search for the best retriever is made of: budgets, roles of questions, and passages that are found again."""

from __future__ import annotations

import random

import numpy as np
import pytest

from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
from llama_index_embft.embeddings.encoding import prune_cache
from llama_index_embft.errors import ConfigError, DatasetError
from llama_index_embft.pipeline import place_questions
from llama_index_embft.pipeline.budget import in_words, parse_budget
from llama_index_embft.pipeline.choice import best_of
from llama_index_embft.pipeline.evidence import assign, trains_on_labels
from llama_index_embft.pipeline.questions import what_can_be_shown
from llama_index_embft.pipeline.settings import TuneSettings
from llama_index_embft.pipeline.trained.candidates import Workload, candidates_folder


def questions(n_documents, per_document, seed=0):
    rng = random.Random(seed)
    corpus, source, queries, relevant = {}, {}, {}, {}
    for document in range(n_documents):
        for chunk in range(per_document):
            name = f"d{document}c{chunk}"
            corpus[name] = " ".join(f"w{rng.randrange(2000)}" for _ in range(40))
            source[name] = f"d{document}"
            queries[f"q{name}"] = " ".join(corpus[name].split()[5:11])
            relevant[f"q{name}"] = [name]
    return EmbeddingQAFinetuneDataset(queries=queries, corpus=corpus, relevant_docs=relevant, source_documents=source)


@pytest.mark.parametrize(
    ("given", "seconds"), [("10 min", 600), ("1.5h", 5400), (90, 90), ("2 hours", 7200), ("45 s", 45)]
)
def test_a_budget_is_a_time(given, seconds):
    assert parse_budget(given) == seconds


@pytest.mark.parametrize("given", ["", "soon", "500 ms", 0, -5, "0 min", True, float("nan"), float("inf"), None])
def test_what_is_no_time_is_refused(given):
    with pytest.raises(ConfigError, match="`budget` is"):
        parse_budget(given)


def test_times_are_said_as_people_say_them():
    assert [in_words(seconds) for seconds in (0.2, 40, 430, 9000)] == ["1 s", "40 s", "7 min", "2.5 h"]


def test_passages_are_found_by_what_they_say_and_not_by_their_ids():
    rng = random.Random(1)
    words = [f"w{rng.randrange(5000)}" for _ in range(200)]
    corpus = EmbeddingQAFinetuneDataset(
        queries={},
        relevant_docs={},
        corpus={
            "a": "file: x\n\n" + " ".join(words[:60]),
            "b": " ".join(words[50:110]),
            "c": " ".join(words[110:]),
            "p3": "something else that stands under this id today and has nothing to do with it",
        },
        bare_texts={"a": " ".join(words[:60])},
        source_documents={"a": "A", "b": "A", "c": "A"},
    )
    asked = EmbeddingQAFinetuneDataset(
        queries={"q1": "one?", "q2": "two?", "q3": "three?", "q4": "four?"},
        corpus={
            "p1": " ".join(words[:60]).upper() + ".",  # the same but for case and a dot
            "p2": " ".join(words[60:100]),  # inside b
            "p3": " ".join(f"x{n}" for n in range(50)),  # gone, though its id is there
            "p4": " ".join(words[120:150]),  # inside c, graded
        },
        relevant_docs={"q1": ["p1"], "q2": ["p2"], "q3": ["p3"], "q4": ["p4"]},
        relevance_grades={"q4": {"p4": 2}},
        reference_answers={"q2": "an answer", "q3": "lost with its question"},
    )
    placed, lost = place_questions(asked, corpus)
    assert lost == ("q3",)
    assert placed.relevant_docs == {"q1": ["a"], "q2": ["b"], "q4": ["c"]}
    assert placed.relevance_grades == {"q4": {"c": 2}}
    assert placed.reference_answers == {"q2": "an answer"}
    assert placed.corpus == corpus.corpus


def test_a_few_questions_by_people_prove_and_never_train():
    labels, made = questions(12, 4), questions(12, 4, seed=0)
    evidence = assign(labels, made, made_by="text", seed=0)
    assert evidence.proof_by == "people"
    assert evidence.train_by == "text"
    assert evidence.tested == len(labels.queries)
    assert len(evidence.folds) == 5
    for fold in evidence.folds:
        documents = [
            {part.document_of(d) for ds in part.relevant_docs.values() for d in ds}
            for part in (fold.choose, fold.prove)
        ]
        assert not documents[0] & documents[1]
    proven = [query for fold in evidence.folds for query in fold.prove.queries]
    assert sorted(proven) == sorted(labels.queries)


def test_questions_about_one_passage_are_divided_at_random_and_that_is_said():
    labels = questions(12, 1)
    one = labels.replace(relevant_docs={query: list(labels.corpus)[:2] for query in labels.queries})
    evidence = assign(one, None, made_by="text", seed=0)
    assert [len(fold.prove.queries) for fold in evidence.folds] == [6, 6]
    assert not set(evidence.folds[0].prove.queries) & set(evidence.folds[1].prove.queries)
    assert "divided at random" in evidence.notes[-1]


@pytest.mark.parametrize(
    ("n", "says"), [(20, "a split tests 300 of them"), (4, "cross-fitting over 5 folds tests 200 of")]
)
def test_what_is_said_beforehand_is_what_is_done(n, says):
    labels = questions(50, n)
    assert says in what_can_be_shown(None, labels, None, TuneSettings())
    assert assign(labels, None, made_by="text", seed=0).tested == pytest.approx(300 if n == 20 else 200, abs=20)


def test_many_questions_by_people_train_too_on_documents_of_their_own():
    labels = questions(100, 4)
    assert trains_on_labels(labels)
    evidence = assign(labels, None, made_by="text", seed=0)
    assert evidence.train_by == evidence.proof_by == "people"
    sides = [evidence.train, evidence.choose, evidence.folds[0].prove]
    documents = [{part.document_of(d) for ds in part.relevant_docs.values() for d in ds} for part in sides]
    assert not documents[0] & documents[1]
    assert not documents[0] & documents[2]
    assert not documents[1] & documents[2]
    assert len(evidence.folds) == 1


def test_without_people_made_questions_do_all_and_too_few_of_people_are_said():
    made, few = questions(30, 4), questions(3, 2)
    for labels in (None, few):
        evidence = assign(labels, made, made_by="llm", seed=0)
        assert evidence.proof_by == "llm"
        assert evidence.train is not None
        assert any("6 questions by people are too few" in note for note in evidence.notes) == (labels is few)
    with pytest.raises(DatasetError, match="no questions to choose by"):
        assign(None, None, made_by="text", seed=0)


@pytest.mark.parametrize(("n", "sides"), [(400, 3), (40, 2)])
def test_documents_that_hang_together_are_divided_by_passage_and_that_is_said(n, sides):
    """Laws that are asked about together: every question is answered in two documents, in a row through all."""
    alone = questions(50, 8)
    docs = list(alone.corpus)
    pairs = {f"q{at}": [docs[at], docs[at + 8]] if at % 8 == 0 and at + 8 < n else [docs[at]] for at in range(n)}
    labels = alone.replace(queries={query: f"what about {query}" for query in pairs}, relevant_docs=pairs)
    evidence = assign(labels, None, made_by="text", seed=0)
    used = [part for part in (evidence.train, evidence.choose, *(fold.prove for fold in evidence.folds)) if part]
    assert all(len(part.queries) >= n // 20 for part in used)
    assert len(used) == sides + (n == 40)
    assert "so they were divided by passage" in evidence.notes[-1]
    if evidence.train is not None:
        answers = [{doc for docs in part.relevant_docs.values() for doc in docs} for part in used]
        assert not answers[0] & answers[1]
        assert not answers[0] & answers[2]


def test_documents_are_those_of_the_texts_that_are_searched_even_where_the_texts_are_the_same():
    corpus = questions(6, 4)
    asked = corpus.replace(source_documents={})
    placed = place_questions(asked, corpus.replace(queries={}, relevant_docs={})).questions
    assert placed.source_documents == corpus.source_documents
    for fold in assign(placed, None, made_by="text", seed=0).folds:
        sides = [
            {corpus.source_documents[doc] for docs in part.relevant_docs.values() for doc in docs}
            for part in (fold.choose, fold.prove)
        ]
        assert not sides[0] & sides[1]


def test_chunks_of_one_passage_come_in_the_order_of_the_corpus():
    words = [f"w{n}" for n in range(60)]
    corpus = EmbeddingQAFinetuneDataset(
        queries={}, relevant_docs={}, corpus={f"c{n}": " ".join(words[15 * n : 15 * n + 15]) for n in range(4)}
    )
    asked = EmbeddingQAFinetuneDataset(queries={"q": "?"}, corpus={"p": " ".join(words)}, relevant_docs={"q": ["p"]})
    assert place_questions(asked, corpus).questions.relevant_docs["q"] == ["c0", "c1", "c2", "c3"]


def test_what_an_adapter_takes_grows_with_its_questions():
    load = Workload(a_text=1.0, n_texts=100, n_val=40, epochs=2)
    assert load.pairs_within("adapter", 16) == 0
    assert load.pairs_within("adapter", 59) == 400
    assert load.seconds("adapter", 400) == 59
    assert Workload(0.0, 100, 40, 2).pairs_within("adapter", 16) == 20_000  # a model behind a web API is not timed


def test_two_searches_over_the_same_texts_keep_their_candidates_apart(tmp_path, monkeypatch):
    monkeypatch.setenv("EMBFT_CACHE_DIR", str(tmp_path))
    with candidates_folder("texts") as first, candidates_folder("texts") as second:
        assert first != second
        for folder in (first, second):
            folder.mkdir()
        assert prune_cache(unused_days=0).searches == 0  # both are running
    with candidates_folder("texts") as again:
        assert again == first
    assert prune_cache(unused_days=0).searches == 2


def test_a_dearer_stack_must_win_by_more_than_noise():
    base = np.linspace(0, 1, 60)
    noise = np.where(np.arange(60) % 2, 0.1, -0.1)
    assert best_of([base, base + noise + 0.001]) == 0
    assert best_of([base, base + noise + 0.1]) == 1
    assert best_of([base, base + noise + 0.1, base + noise + 0.101]) == 2  # what is better everywhere is no noise
    assert best_of([base]) == 0
