"""No batch holds a document as a negative of a question that it answers; every row comes once an epoch."""

from __future__ import annotations

import random
from itertools import combinations

from hypothesis import given, settings, strategies as st

from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
from llama_index_embft.finetune.full.data.batches import BatchPlan, Relations
from llama_index_embft.finetune.full.data.rows import training_rows


def conflict(relations: Relations, a: int, b: int) -> bool:
    """Whether a document of one row answers the question of the other."""
    documents, relevant = relations.documents, relations.relevant
    return not (documents[a].isdisjoint(relevant[b]) and documents[b].isdisjoint(relevant[a]))


@st.composite
def datasets(draw) -> EmbeddingQAFinetuneDataset:
    """Small worlds full of conflicts: shared passages, shared questions, copies, negatives that answer others."""
    n_docs = draw(st.integers(2, 12))
    # A few texts only, so that documents repeat; the last words tell near-duplicates apart.
    stem = "the quick brown fox jumps over the lazy dog and then it runs into the deep dark forest of number"
    texts = draw(st.lists(st.integers(0, 5), min_size=n_docs, max_size=n_docs))
    corpus = {f"d{n}": f"{text} {stem} {text}" if text % 2 else f"short {text}" for n, text in enumerate(texts)}
    queries, relevant, negatives = {}, {}, {}
    for number in range(draw(st.integers(1, 25))):
        docs = draw(st.permutations(sorted(corpus)))
        cut = draw(st.integers(1, min(3, n_docs - 1)))
        queries[f"q{number}"] = f"question {draw(st.integers(0, 30))}"
        relevant[f"q{number}"] = docs[:cut]
        negatives[f"q{number}"] = docs[cut : cut + draw(st.integers(0, 2))]
    return EmbeddingQAFinetuneDataset(queries=queries, corpus=corpus, relevant_docs=relevant, negative_docs=negatives)


@settings(max_examples=60, deadline=None)
@given(datasets(), st.integers(1, 9), st.integers(0, 3))
def test_no_document_of_a_batch_answers_another_row(dataset, batch_size, seed):
    rows = training_rows(dataset)
    plan = BatchPlan(rows.relations, len(rows), batch_size, seed=seed)
    # The truth comes from the texts, not from the numbers that the plan works with.
    answers: dict[str, set[str]] = {}
    for query_id, docs in dataset.relevant_docs.items():
        answers.setdefault(dataset.queries[query_id], set()).update(dataset.corpus[doc] for doc in docs)
    columns = [name for name in rows.columns if name != "anchor"]
    for epoch in range(3):
        batches = plan.epoch(epoch)
        assert len(batches) == len(plan)
        assert sorted(row for batch in batches for row in batch) == list(range(len(rows)))
        assert max(map(len, batches)) <= batch_size
        for batch in batches:
            for a, b in combinations(batch, 2):
                for row, other in ((a, b), (b, a)):
                    held = {rows.columns[name][row] for name in columns}
                    assert held.isdisjoint(answers[rows.columns["anchor"][other]])


@settings(max_examples=30, deadline=None)
@given(datasets())
def test_no_hard_negative_is_a_copy_of_an_answer(dataset):
    rows = training_rows(dataset)
    answers: dict[str, set[str]] = {}
    for query_id, docs in dataset.relevant_docs.items():
        answers.setdefault(dataset.queries[query_id], set()).update(dataset.corpus[doc] for doc in docs)
    for name in rows.columns:
        if name.startswith("negative_"):
            for query, text in zip(rows.columns["anchor"], rows.columns[name], strict=True):
                assert text not in answers[query]


def test_near_duplicates_are_kept_apart_and_can_be_let_together():
    stem = " ".join(f"word{n}" for n in range(60))
    corpus = {"a": f"{stem} first", "b": f"{stem} second", "c": "something else"}
    dataset = EmbeddingQAFinetuneDataset(
        queries={"1": "one", "2": "two", "3": "three"},
        corpus=corpus,
        relevant_docs={"1": ["a"], "2": ["b"], "3": ["c"]},
    )
    near = training_rows(dataset).relations
    exact = training_rows(dataset, near_duplicates=None).relations
    assert conflict(near, 0, 1)
    assert not conflict(near, 0, 2)
    assert not conflict(exact, 0, 1)
    assert len(BatchPlan(near, 3, 3, seed=0)) == 2
    assert len(BatchPlan(exact, 3, 3, seed=0)) == 1


def plain(n: int) -> Relations:
    return Relations([frozenset({n}) for n in range(n)], [frozenset({n}) for n in range(n)], list(range(n, 0, -1)))


def test_batches_are_of_even_size_and_differ_from_epoch_to_epoch():
    plan = BatchPlan(plain(65), 65, 64, seed=1)
    sizes = [sorted(map(len, plan.epoch(epoch))) for epoch in range(4)]
    assert sizes == [[32, 33]] * 4  # and not 64 and a batch of one row, which has no negative
    assert plan.epoch(1) != plan.epoch(2)
    assert plan.epoch(3) == BatchPlan(plain(65), 65, 64, seed=1).epoch(3)
    assert plan.epoch(3) != BatchPlan(plain(65), 65, 64, seed=2).epoch(3)


def test_one_crowded_passage_is_spread_over_all_batches():
    """40 questions about one passage among 400 rows: one in each batch, all 40 batches nearly full."""
    documents = [frozenset({0 if n < 40 else n}) for n in range(400)]
    plan = BatchPlan(Relations(documents, documents, [1] * 400), 400, 10, seed=0)
    for epoch in range(3):
        batches = plan.epoch(epoch)
        assert len(batches) == 40
        assert [sum(row < 40 for row in batch) for batch in batches] == [1] * 40
        assert {len(batch) for batch in batches} == {10}


def test_rows_of_a_batch_are_sorted_by_length():
    relations = plain(30)
    for batch in BatchPlan(relations, 30, 8, seed=0).epoch(0):
        assert batch == sorted(batch, key=lambda row: relations.lengths[row])


def test_parts_for_several_processes_are_equal_and_free_of_conflicts_together():
    rng = random.Random(0)
    documents = [frozenset({rng.randrange(60)}) for _ in range(101)]
    relations = Relations(documents, documents, [1] * 101)
    plan = BatchPlan(relations, 101, 16, seed=0, processes=4)
    left_out = []
    for epoch in range(3):
        parts = plan.parts(epoch)
        assert len(parts) == 4 * len(plan)
        for at in range(0, len(parts), 4):
            group = parts[at : at + 4]
            assert len({len(part) for part in group}) == 1
            joint = [row for part in group for row in part]
            assert len(joint) <= 16
            assert not any(conflict(relations, a, b) for a, b in combinations(joint, 2))
        seen = [row for part in parts for row in part]
        assert len(seen) == len(set(seen))
        left_out.append(frozenset(range(101)) - set(seen))
        assert len(left_out[-1]) <= 3 * len(plan)
    assert len(set(left_out)) > 1


def test_without_relations_rows_are_only_shuffled():
    plan = BatchPlan(None, 10, 4, seed=0)
    assert sorted(row for batch in plan.epoch(0) for row in batch) == list(range(10))
    assert len(plan) == 3
