"""Splits: nothing leaks, nothing hangs on order, sizes are right, and impossible splits are explained."""

from __future__ import annotations

import logging
import random
import re

import pytest
from hypothesis import given, settings, strategies as st

from llama_index_embft.dataset import EmbeddingQAFinetuneDataset, near_duplicate_groups, split_dataset, tied_documents
from llama_index_embft.dataset.near_duplicates import normalise
from llama_index_embft.errors import ConfigError, DatasetError

VOCABULARY = [f"word{n}" for n in range(500)]


def passage(seed: int) -> str:
    return " ".join(random.Random(seed).choices(VOCABULARY, k=30))


def make(n_documents: int, chunks: int = 2, queries: int = 2) -> EmbeddingQAFinetuneDataset:
    """Documents ``f0, f1, …`` of some chunks each, and some queries a chunk."""
    corpus, source, asked, relevant = {}, {}, {}, {}
    for document in range(n_documents):
        for chunk in range(chunks):
            chunk_id = f"f{document}/{chunk}"
            corpus[chunk_id], source[chunk_id] = passage(document * 100 + chunk), f"f{document}"
            for query in range(queries):
                asked[f"{chunk_id}?{query}"] = f"what about {document} {chunk} {query}"
                relevant[f"{chunk_id}?{query}"] = [chunk_id]
    return EmbeddingQAFinetuneDataset(queries=asked, corpus=corpus, relevant_docs=relevant, source_documents=source)


def assert_no_leak(parts, threshold: float = 0.8) -> None:
    """Checked the slow way, from the parts alone."""
    whole = dict(pair for part in parts for pair in part.corpus.items())
    bare = {doc: part.bare_text(doc) for part in parts for doc in part.corpus}
    ids = sorted(whole)
    group = dict(zip(ids, near_duplicate_groups([bare[id_] for id_ in ids], threshold), strict=True))
    seen: dict[object, int] = {}
    for side, part in enumerate(parts):
        for query_id, docs in part.relevant_docs.items():
            ties = [("query", normalise(part.queries[query_id]))]
            for doc in docs:
                ties += [("source", part.document_of(doc)), ("text", group[doc])]
            for tie in ties:
                assert seen.setdefault(tie, side) == side, tie


def test_documents_queries_and_near_duplicates_stay_on_one_side() -> None:
    dataset = make(30)
    corpus = {**dataset.corpus, "f7/0": dataset.corpus["f3/0"] + " more", "f20/1": dataset.corpus["f7/1"].upper()}
    queries = {**dataset.queries, "f11/0?0": "The same question?", "f25/1?1": "the SAME question"}
    relevant = {**dataset.relevant_docs, "f1/0?0": ["f1/0", "f2/1"]}
    dataset = EmbeddingQAFinetuneDataset(
        queries=queries, corpus=corpus, relevant_docs=relevant, source_documents=dataset.source_documents
    )
    for seed in range(5):
        parts = split_dataset(dataset, seed=seed)
        assert_no_leak(parts)
        side = {dataset.document_of(docs[0]): n for n, part in enumerate(parts) for docs in part.relevant_docs.values()}
        assert side["f3"] == side["f7"] == side["f20"]
        assert side["f11"] == side["f25"]
        assert side["f1"] == side["f2"]
        assert {query for part in parts for query in part.queries} == set(queries)


def test_sizes_follow_the_fractions_and_the_seed_chooses() -> None:
    dataset = make(100, chunks=1, queries=1)
    split = split_dataset(dataset, fractions=(0.7, 0.2, 0.1))
    assert [len(part.queries) for part in split] == [70, 20, 10]
    assert split == split_dataset(dataset, fractions=(0.7, 0.2, 0.1), seed=0)
    assert split.test.queries != split_dataset(dataset, fractions=(0.7, 0.2, 0.1), seed=1).test.queries
    assert list(split.train.queries) == [id_ for id_ in dataset.queries if id_ in split.train.queries]
    two = split_dataset(dataset, fractions=(0.8, 0.0, 0.2))
    assert [len(part.queries) for part in two] == [80, 0, 20]


def test_each_side_keeps_the_whole_corpus_unless_told_otherwise() -> None:
    dataset = make(20)
    assert all(part.corpus == dataset.corpus for part in split_dataset(dataset))
    small = split_dataset(dataset, keep_corpus=False)
    assert sum(len(part.corpus) for part in small) == len(dataset.corpus)
    assert_no_leak(small)


def test_uneven_documents_are_balanced_by_queries() -> None:
    rng = random.Random(0)
    corpus = {f"d{n}": passage(n) for n in range(40)}
    relevant = {f"q{n}/{m}": [f"d{n}"] for n in range(40) for m in range(rng.randint(1, 30))}
    dataset = EmbeddingQAFinetuneDataset(
        queries={id_: f"question {id_}" for id_ in relevant}, corpus=corpus, relevant_docs=relevant
    )
    for seed in range(5):
        sizes = [len(part.queries) / len(relevant) for part in split_dataset(dataset, seed=seed)]
        assert sizes == pytest.approx([0.8, 0.1, 0.1], abs=0.02)


def test_the_largest_document_is_not_always_in_train() -> None:
    dataset = make(10, chunks=1, queries=1)
    sides = {
        next(n for n, part in enumerate(split_dataset(dataset, seed=s)) if "f0/0?0" in part.queries) for s in range(40)
    }
    assert sides == {0, 1, 2}


def test_by_chunk_and_by_a_function() -> None:
    one = make(1, chunks=30)
    by_chunk = split_dataset(one, by="chunk")
    assert all(part.queries for part in by_chunk)
    chunks = [{docs[0] for docs in part.relevant_docs.values()} for part in by_chunk]
    assert sum(map(len, chunks)) == len(set().union(*chunks)) == 30
    many = make(30)
    decade = lambda dataset, query_id: int(dataset.document_of(dataset.relevant_docs[query_id][0])[1:]) // 3  # noqa: E731
    parts = split_dataset(many, by=decade)
    seen: dict[int, int] = {}
    for side, part in enumerate(parts):
        for query_id in part.queries:
            assert seen.setdefault(decade(part, query_id), side) == side
    # A function that tears one chunk's questions apart is overruled.
    assert_no_leak(split_dataset(make(30, chunks=1), by=lambda _, query_id: query_id))


@pytest.mark.parametrize("unit", [None, float("nan"), ["a"], ("a", ["b"])])
def test_a_function_must_return_a_unit(unit: object) -> None:
    for cut in (split_dataset, tied_documents):
        with pytest.raises(ConfigError, match=f"returned {re.escape(repr(unit))} .* for the query 'f0/0"):
            cut(make(3), by=lambda *_: unit)
    with pytest.raises(ConfigError, match="`by` must be 'document', 'chunk' or a function"):
        tied_documents(make(3), by="page")


def test_metadata_does_not_hide_a_near_duplicate() -> None:
    dataset = make(20, chunks=1)
    text = passage(7)[:60]
    corpus = {
        id_: f"file: {passage(900 + n)}\n\n{text if n < 2 else dataset.corpus[id_]}"
        for n, id_ in enumerate(dataset.corpus)
    }
    bare = {id_: embedded.partition("\n\n")[2] for id_, embedded in corpus.items()}
    dataset = EmbeddingQAFinetuneDataset(
        queries=dataset.queries, corpus=corpus, relevant_docs=dataset.relevant_docs, bare_texts=bare
    )
    for seed in range(4):
        assert_no_leak(split_dataset(dataset, seed=seed))


def test_chunks_nobody_asks_about_tie_nothing_together() -> None:
    dataset = make(20)
    corpus = {**dataset.corpus, **{f"f{n}/blank": "This page is left blank on purpose" for n in range(20)}}
    source = {**dataset.source_documents, **{f"f{n}/blank": f"f{n}" for n in range(20)}}
    dataset = EmbeddingQAFinetuneDataset(
        queries=dataset.queries, corpus=corpus, relevant_docs=dataset.relevant_docs, source_documents=source
    )
    assert [len(part.queries) for part in split_dataset(dataset)] == [64, 8, 8]


BAD = [
    (make(1), {}, "Cannot split into 3 parts that share no document: all 4 queries ask about one document"),
    (make(1), {}, 'split by chunk with `by="chunk"`'),
    (make(2), {}, "there are only 2 units, counting near-duplicates as one; add documents"),
    (make(1, chunks=1, queries=3), {"by": "chunk"}, "parts that share no chunk: all 3 queries ask about one chunk"),
    (make(1, chunks=1), {}, "The data set has 2 queries, too few to split into 3 parts"),
    (EmbeddingQAFinetuneDataset(queries={}, corpus={"a": "x"}, relevant_docs={}), {}, "has 0 queries, too few"),
    (
        make(9),
        {"by": "Document"},
        "`by` must be 'document', 'chunk' or a function of (dataset, query_id), got 'Document'",
    ),
    (make(9), {"fractions": (0.8, 0.2)}, "`fractions` must be three shares"),
    (make(9), {"fractions": (0.8, float("nan"), 0.2)}, "`fractions` must be three shares"),
    (make(9), {"fractions": (0.8, 0.1, 0.2)}, "that add up to 1, the first above 0, got (0.8, 0.1, 0.2)"),
    (make(9), {"fractions": (1.2, -0.1, -0.1)}, "`fractions` must be three shares"),
    (make(9), {"fractions": (0.0, 0.5, 0.5)}, "the first above 0"),
    (make(9), {"near_duplicates": 2.0}, "threshold must be above 0 and at most 1, got 2.0"),
]


@pytest.mark.parametrize(("dataset", "arguments", "message"), BAD)
def test_an_impossible_split_says_what_to_do(dataset, arguments, message: str) -> None:
    with pytest.raises((DatasetError, ConfigError), match=re.escape(message)):
        split_dataset(dataset, **arguments)


def test_two_parts_of_two_documents() -> None:
    assert [len(part.queries) for part in split_dataset(make(2), fractions=(0.5, 0, 0.5))] == [4, 0, 4]
    assert all(part.queries for part in split_dataset(make(3)))


def test_a_dominant_document_is_named_in_a_warning(caplog) -> None:
    small, big = make(4, chunks=1, queries=1), make(1, chunks=10, queries=10)
    dataset = small.merge(big, prefix="big-")
    with caplog.at_level(logging.WARNING):
        split = split_dataset(dataset)
    assert all(part.queries for part in split)
    # Question "what about 0 0 0" is asked of both, so one of the small documents hangs on the big one.
    message = "The split gives train/val/test 97/2/1 % of the queries instead of 80/10/10 %: the largest group of"
    assert message in caplog.text
    assert "holds 101 of 104" in caplog.text


def test_turning_the_search_off_keeps_equal_texts_together() -> None:
    dataset = make(12, chunks=1)
    corpus = {**dataset.corpus, "f1/0": dataset.corpus["f0/0"] + " x", "f3/0": dataset.corpus["f2/0"]}
    dataset = EmbeddingQAFinetuneDataset(queries=dataset.queries, corpus=corpus, relevant_docs=dataset.relevant_docs)

    def together(a: str, b: str, threshold: float | None) -> bool:
        return all(
            sum(a in part.queries for part in (p,)) == sum(b in part.queries for part in (p,))
            for seed in range(20)
            for p in split_dataset(dataset, seed=seed, near_duplicates=threshold)
        )

    assert together("f0/0?0", "f1/0?0", 0.8)
    assert not together("f0/0?0", "f1/0?0", None)
    assert together("f2/0?0", "f3/0?0", None)


@st.composite
def datasets(draw) -> EmbeddingQAFinetuneDataset:
    """Small corpora with copies, shared sources, several relevant documents a query and repeated questions."""
    n = draw(st.integers(6, 25))
    seeds = draw(st.lists(st.integers(0, 40), min_size=n, max_size=n))
    corpus = {f"c{i}": passage(seed) + draw(st.sampled_from(["", " extra", "."])) for i, seed in enumerate(seeds)}
    source = {id_: f"s{draw(st.integers(0, 12))}" for id_ in corpus if draw(st.booleans())}
    m = draw(st.integers(3, 25))
    ids = st.lists(st.sampled_from(sorted(corpus)), min_size=1, max_size=2, unique=True)
    relevant = {f"q{i}": draw(ids) for i in range(m)}
    queries = {id_: f"question {draw(st.integers(0, 60))}?" for id_ in relevant}
    return EmbeddingQAFinetuneDataset(queries=queries, corpus=corpus, relevant_docs=relevant, source_documents=source)


@given(datasets(), st.integers(0, 3), st.randoms(use_true_random=False))
@settings(max_examples=80, deadline=None)
def test_never_leaks_and_never_hangs_on_the_order(dataset, seed: int, rng) -> None:
    try:
        parts = split_dataset(dataset, seed=seed, fractions=(0.6, 0.2, 0.2))
    except DatasetError as err:
        parts = None
        assert "Cannot split into" in str(err)  # noqa: PT017
    shuffled = EmbeddingQAFinetuneDataset(
        queries=dict(rng.sample(list(dataset.queries.items()), len(dataset.queries))),
        corpus=dict(rng.sample(list(dataset.corpus.items()), len(dataset.corpus))),
        relevant_docs=dataset.relevant_docs,
        source_documents=dataset.source_documents,
    )
    if parts is None:
        with pytest.raises(DatasetError):
            split_dataset(shuffled, seed=seed, fractions=(0.6, 0.2, 0.2))
        return
    assert_no_leak(parts)
    assert sum(len(part.queries) for part in parts) == len(dataset.queries)
    assert all(part.queries for part in parts)
    assert parts == split_dataset(shuffled, seed=seed, fractions=(0.6, 0.2, 0.2))


@pytest.mark.data
def test_real_data_splits_without_leak(shared_data) -> None:
    dataset = EmbeddingQAFinetuneDataset.from_json(shared_data / "lyft_10k_2021.json")
    split = split_dataset(dataset)
    assert_no_leak(split)
    assert [round(len(part.queries) / len(dataset.queries), 2) for part in split] == [0.8, 0.1, 0.1]


# --- sides by hand ----------------------------------------------------------------------------------------------------


def of_sizes(*sizes: int, **fields) -> EmbeddingQAFinetuneDataset:
    """One document a number, with that many questions."""
    relevant = {f"q{n:02}/{m}": [f"d{n:02}"] for n, size in enumerate(sizes) for m in range(size)}
    corpus = {f"d{n:02}": passage(n) for n in range(len(sizes))}
    asked = {query: f"question {query}" for query in relevant}
    return EmbeddingQAFinetuneDataset(queries=asked, corpus=corpus, relevant_docs=relevant, **fields)


def counts(parts) -> list[int]:
    return [len(part.queries) for part in parts]


@pytest.mark.parametrize(
    ("sizes", "fractions", "expected"),
    [
        ([8, 1, 1], (0.8, 0.1, 0.1), [8, 1, 1]),
        ([1, 1, 8], (0.8, 0.1, 0.1), [8, 1, 1]),
        ([5, 3, 2], (0.5, 0.3, 0.2), [5, 3, 2]),
        ([2, 3, 5, 10], (0.5, 0.25, 0.25), [10, 5, 5]),
        ([30, 1, 1], (0.4, 0.3, 0.3), [30, 1, 1]),  # no side is left empty
        ([1, 30, 1, 1], (0.4, 0.3, 0.3), [30, 1, 2]),
        ([20, 3, 2], (0.1, 0.0, 0.9), [2, 0, 23]),
        ([6, 6], (1.0, 0.0, 0.0), [12, 0, 0]),
    ],
)
def test_sides_are_as_near_to_their_shares_as_whole_documents_allow(sizes, fractions, expected) -> None:
    for seed in range(4):
        found = counts(split_dataset(of_sizes(*sizes), fractions=fractions, seed=seed))
        assert found == expected or (fractions[1] == fractions[2] and sorted(found) == sorted(expected))


def test_the_best_of_many_orders_is_taken() -> None:
    sizes = [13, 11, 7, 7, 5, 5, 3, 3, 2, 2, 1, 1]
    wanted = [0.6 * 60, 0.2 * 60, 0.2 * 60]
    for seed in range(5):
        assert counts(split_dataset(of_sizes(*sizes), fractions=(0.6, 0.2, 0.2), seed=seed)) == wanted


def test_two_questions_more_are_not_told(caplog) -> None:
    from collections import Counter

    from llama_index_embft.dataset import split as module

    wanted = [0.5, 0.25, 0.25]  # numbers that are exact
    with caplog.at_level(logging.WARNING):
        module._warn_if_uneven(Counter({0: 10, 1: 3, 2: 3}), wanted, Counter({0: 10, 1: 6}))
        assert not caplog.records
        module._warn_if_uneven(Counter({0: 11, 1: 3, 2: 2}), wanted, Counter({0: 11, 1: 5}))
    assert len(caplog.records) == 1


def test_large_sets_are_tried_less_often(monkeypatch) -> None:
    from collections import Counter

    from llama_index_embft.dataset import split as module

    sizes, wanted = Counter(dict(enumerate([13, 11, 7, 7, 5, 5, 3, 3, 2, 2, 1, 1]))), [0.6, 0.2, 0.2]

    def tried(times: int, placements: int) -> dict[int, int]:
        monkeypatch.setattr(module, "_TRIES", times)
        monkeypatch.setattr(module, "_PLACEMENTS", placements)
        return module._assign(sizes, wanted, 0)

    once, twice, often = (tried(times, 10**6) for times in (1, 2, 50))
    assert once != twice  # else this shows nothing
    assert tried(50, 1) == tried(50, 23) == once
    assert tried(50, 24) == twice
    assert tried(50, 600) == often


def test_a_share_of_less_than_a_question_gets_one() -> None:
    for seed in range(4):
        parts = split_dataset(of_sizes(*[1] * 10), fractions=(0.9, 0.05, 0.05), seed=seed)
        assert counts(parts) == [8, 1, 1]


def test_a_side_without_a_share_gets_nothing_even_where_all_are_full() -> None:
    for seed in range(10):
        assert counts(split_dataset(of_sizes(9, 9, 9), fractions=(0.5, 0.0, 0.5), seed=seed))[1] == 0


def test_each_side_says_which_it_is_and_where_it_comes_from() -> None:
    dataset = of_sizes(8, 1, 1)
    parts = split_dataset(dataset)
    assert [part.provenance.split for part in parts] == ["train", "val", "test"]
    assert {part.provenance.parent for part in parts} == {dataset.content_hash()}
    assert parts._fields == ("train", "val", "test")


@pytest.mark.parametrize(
    ("fractions", "good"),
    [
        ((0.8, 0.1, 0.1 + 9e-7), True),
        ((0.8, 0.1, 0.1 - 9e-7), True),
        ((0.8, 0.1, 0.1 + 2e-6), False),
        ((1, 0, 0), True),
        (("0.8", 0.1, 0.1), True),
        ((0.5, 0.25, 0.25, 0.0), False),
        ((0.5, -0.1, 0.6), False),
        (0.8, False),
        ((0.8, 0.1, "rest"), False),
    ],
)
def test_shares_add_up_to_one(fractions, good: bool) -> None:
    if good:
        split_dataset(of_sizes(8, 1, 1), fractions=fractions)
    else:
        with pytest.raises(ConfigError, match="`fractions` must be three shares"):
            split_dataset(of_sizes(8, 1, 1), fractions=fractions)


def test_what_is_too_small_or_hangs_together_is_told_in_whole_sentences() -> None:
    def refusal(dataset, **options) -> str:
        with pytest.raises(DatasetError) as refused:
            split_dataset(dataset, **options)
        return str(refused.value)

    assert refusal(of_sizes(1, 1)) == "The data set has 2 queries, too few to split into 3 parts; add queries."
    assert counts(split_dataset(of_sizes(1, 1), fractions=(0.5, 0.5, 0))) == [1, 1, 0]
    assert refusal(of_sizes(7)) == (
        "Cannot split into 3 parts that share no document: all 7 queries ask about one document, counting "
        'near-duplicates as one; add documents, split by chunk with `by="chunk"` (neighbouring chunks then land on '
        "different sides), or give a part the fraction 0."
    )
    assert refusal(of_sizes(7, 2), by="chunk") == (
        "Cannot split into 3 parts that share no chunk: there are only 2 units, counting near-duplicates as one; add "
        "documents, or give a part the fraction 0."
    )
    assert "share no key: all 9 queries ask about one key, counting" in refusal(of_sizes(7, 2), by=lambda *_: "one")


@pytest.mark.parametrize(
    ("sizes", "warned"),
    [
        ([80, 10, 10], None),
        ([85, 8, 7], None),  # five in a hundred more are in the nature of whole documents
        ([86, 7, 7], "86/7/7 % of the queries instead of 80/10/10 %: the largest group of queries that hang together "
         "holds 86 of 100."),
        ([12, 2, 2], None),
        ([15, 1, 1], None),  # two of a few are no more than that
        ([20, 1, 1], "91/5/5 % of the queries instead of 80/10/10 %: the largest group of queries that hang together "
         "holds 20 of 22."),
    ],
)  # fmt: skip
def test_an_uneven_split_is_told_beyond_what_whole_documents_bring(sizes, warned: str | None, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        split_dataset(of_sizes(*sizes, source_documents={f"d{n:02}": f"f{n}" for n in range(len(sizes))}))
    expected = [f"The split gives train/val/test {warned}"] if warned else []
    assert [record.getMessage() for record in caplog.records] == expected


def test_chunks_without_a_document_are_counted_in_a_warning(caplog) -> None:
    with caplog.at_level(logging.WARNING):
        split_dataset(of_sizes(8, 1, 1, source_documents={"d00": "f"}))
        assert "2 of 3 chunks do not say which document" in caplog.text
        caplog.clear()
        split_dataset(of_sizes(8, 1, 1), by="chunk")
        split_dataset(of_sizes(8, 1, 1, source_documents={f"d0{n}": f"f{n}" for n in range(3)}))
    assert caplog.text == ""


def test_options_reach_the_search_for_near_duplicates(monkeypatch) -> None:
    from llama_index_embft.dataset import split as module

    asked = []

    def ties(dataset, query_ids, by, near_duplicates, *, show_progress):
        asked.append((list(query_ids), by, near_duplicates, show_progress))
        return original(dataset, query_ids, by, near_duplicates, show_progress=show_progress)

    original = module.query_ties
    monkeypatch.setattr(module, "query_ties", ties)
    dataset = of_sizes(1, 8, 1)
    split_dataset(dataset)
    split_dataset(dataset, by="chunk", near_duplicates=0.5, show_progress=False)
    ids = sorted(dataset.queries)
    assert asked == [(ids, "document", 0.8, True), (ids, "chunk", 0.5, False)]
