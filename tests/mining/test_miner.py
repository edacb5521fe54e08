"""Mining: what comes out of each strategy, what never comes out, and what is said about it."""

from __future__ import annotations

import itertools
import json
import logging
import pickle
import re

import numpy as np
import pytest

from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
from llama_index_embft.dataset.prepared import PreparedCorpus
from llama_index_embft.errors import ConfigError, DatasetError
from llama_index_embft.mining import (
    BM25,
    AbsoluteMargin,
    MiningSettings,
    RankWindow,
    RelativeMargin,
    ScoreWindow,
    forbidden as module,
    mine_hard_negatives,
)
from llama_index_embft.mining.context import BLOCK_UNIT
from llama_index_embft.mining.forbidden import ForbiddenNegatives
from llama_index_embft.mining.teachers import Teacher

WORDS = [a + b for a in ("am", "bir", "ce", "del", "em", "fjo") for b in ("an", "oll", "irk", "um", "ext")]


def sentence(rng, n=12):
    return " ".join(rng.choice(WORDS, size=n))


def make(n_queries=40, n_docs=120, seed=0, **fields):
    """A data set whose query i is answered by document i, and random vectors for it."""
    rng = np.random.default_rng(seed)
    dataset = EmbeddingQAFinetuneDataset(
        queries={f"q{i}": f"query {sentence(rng, 6)}" for i in range(n_queries)},
        corpus={f"d{i}": f"{i} {sentence(rng)}" for i in range(n_docs)},
        relevant_docs={f"q{i}": [f"d{i}"] for i in range(n_queries)},
        **fields,
    )
    corpus = rng.normal(size=(n_docs, 16))
    corpus /= np.linalg.norm(corpus, axis=1, keepdims=True)
    queries = corpus[:n_queries] + 0.2 * rng.normal(size=(n_queries, 16))
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    return dataset, (queries.astype(np.float32), corpus.astype(np.float32))


def cosines(vectors):
    queries, corpus = (x.astype(np.float64) for x in vectors)
    return queries @ corpus.T


def rows(dataset, negatives):
    place = {doc: row for row, doc in enumerate(dataset.corpus)}
    return [[place[doc] for doc in negatives.get(query, [])] for query in dataset.queries]


def test_a_rank_window_takes_these_ranks_in_order_and_never_the_positive():
    dataset, vectors = make()
    mined = mine_hard_negatives(dataset, vectors, ["rank:3-7"], 5)
    for query, found in enumerate(rows(dataset, mined.negative_docs)):
        ranked = [row for row in np.argsort(-cosines(vectors)[query]) if row != query]
        assert found == ranked[2:7]
    assert dataset.negative_docs == {}  # the input is not changed


def test_a_random_rank_window_draws_from_all_of_it():
    dataset, vectors = make(n_queries=60)
    mined = mine_hard_negatives(dataset, vectors, "rank:1-20:random", 5)
    places = []
    for query, found in enumerate(rows(dataset, mined.negative_docs)):
        ranked = [row for row in np.argsort(-cosines(vectors)[query]) if row != query]
        places += [ranked.index(row) for row in found]
    assert set(places) == set(range(20))
    assert np.bincount(places).max() < 40  # 15 expected


@pytest.mark.parametrize("share", [0.95, 0.5])
def test_the_relative_margin_compares_with_the_lowest_positive(share):
    dataset, vectors = make()
    relevant = {query: [f"d{i}", f"d{(i + 1) % 40}"] for i, query in enumerate(dataset.queries)}
    dataset = EmbeddingQAFinetuneDataset(queries=dataset.queries, corpus=dataset.corpus, relevant_docs=relevant)
    strategies = ["rank:1-118", RelativeMargin(share)]
    mined = mine_hard_negatives(dataset, vectors, strategies, 100)
    scores = cosines(vectors)
    total = 0
    for query, found in enumerate(rows(dataset, mined.negative_docs)):
        lowest = min(scores[query, query], scores[query, (query + 1) % 40])
        bound = lowest - (1 - share) * abs(lowest)
        expected = [row for row in np.argsort(-scores[query]) if row not in (query, (query + 1) % 40)]
        total += sum(scores[query, row] > bound for row in expected)
        assert found == [row for row in expected if scores[query, row] <= bound][:100]
    assert mined.report.dropped == {f"margin:{share:g}": total}


def test_the_relative_margin_stays_below_a_negative_cosine():
    dataset, _ = make(1, 4)
    corpus = np.array([[-0.2, 0.98], [-0.205, 0.979], [-0.22, 0.9755], [0.5, 0.866]])
    mined = mine_hard_negatives(dataset, (np.array([[1.0, 0.0]]), corpus), ["rank:1-3", "margin:0.95"], 1)
    assert mined.negative_docs == {"q0": ["d2"]}  # -0.205 is within 5 % of -0.200; 0.5 is above it


def test_the_absolute_margin_is_a_difference():
    dataset, vectors = make()
    mined = mine_hard_negatives(dataset, vectors, [AbsoluteMargin(0.4)], 5)
    scores = cosines(vectors)
    for query, found in enumerate(rows(dataset, mined.negative_docs)):
        assert found
        assert max(scores[query, row] for row in found) <= scores[query, query] - 0.4


@pytest.mark.simulation
@pytest.mark.parametrize("n_docs", [120, 3000])
def test_a_score_window_draws_evenly_among_everything_inside(n_docs):
    dataset, vectors = make(n_queries=80, n_docs=n_docs)
    low, high = -0.1, 0.15  # for 3,000 documents far more than the shared ranks reach
    mined = mine_hard_negatives(dataset, vectors, [ScoreWindow(low, high)], 6)
    scores = cosines(vectors)
    drawn = []
    for query, found in enumerate(rows(dataset, mined.negative_docs)):
        assert len(found) == 6
        inside = np.sort(scores[query][(scores[query] >= low) & (scores[query] <= high)])
        assert all(low <= scores[query, row] <= high for row in found)
        drawn += [np.searchsorted(inside, scores[query, row]) / len(inside) for row in found]
    assert 0.45 < np.mean(drawn) < 0.55  # from all of the window, not from one end
    assert np.std(drawn) > 0.24
    assert len({row for found in rows(dataset, mined.negative_docs) for row in found}) > min(n_docs, 300) * 0.5


@pytest.mark.simulation
def test_random_negatives_are_spread_over_the_corpus():
    for n_docs in (60, 2000):
        dataset, vectors = make(n_queries=50, n_docs=n_docs)
        found = rows(dataset, mine_hard_negatives(dataset, vectors, "random", 8).negative_docs)
        assert all(len(set(line)) == 8 for line in found)
        assert all(query not in line for query, line in enumerate(found))
        assert 0.35 < np.mean(found) / n_docs < 0.65


def test_least_similar_uses_each_document_once_and_starts_with_the_least():
    dataset, vectors = make(n_queries=10, n_docs=35)
    mined = mine_hard_negatives(dataset, vectors, "least-similar", 3)
    found = rows(dataset, mined.negative_docs)
    flat = [row for line in found for row in line]
    assert len(flat) == len(set(flat)) == 30
    assert found[0][0] == int(np.argmin(cosines(vectors)[0]))
    assert not mined.report.notes
    short = mine_hard_negatives(dataset, vectors, "least-similar", 5)
    assert sum(map(len, short.negative_docs.values())) == 35
    assert "which is not enough" in short.report.warnings()[0]


def test_bm25_finds_words_in_two_scripts():
    dataset = EmbeddingQAFinetuneDataset(
        queries={"en": "harbour pilots wage", "zh": "港口引航员的工资"},
        corpus={
            "pos-en": "Pay of those who bring ships in.",
            "pos-zh": "船只进港的报酬。",
            "trap-en": "The harbour pilots met. No wage was named.",
            "trap-zh": "港口引航员开会，没有谈到工资。",
            "other": "Nothing of the kind.",
        },
        relevant_docs={"en": ["pos-en"], "zh": ["pos-zh"]},
    )
    vectors = np.eye(2, 8), np.random.default_rng(0).normal(size=(5, 8))
    mined = mine_hard_negatives(dataset, vectors, [BM25(3)], 1)
    assert mined.negative_docs == {"en": ["trap-en"], "zh": ["trap-zh"]}


def test_same_document_takes_other_chunks_of_the_source_most_similar_first():
    sources = {f"d{i}": f"file{i // 6}" for i in range(120)}
    dataset, vectors = make(source_documents=sources)
    mined = mine_hard_negatives(dataset, vectors, "same-document", 4)
    scores = cosines(vectors)
    for query, found in enumerate(rows(dataset, mined.negative_docs)):
        chunks = [row for row in range(120) if row // 6 == query // 6 and row != query]
        assert found == sorted(chunks, key=lambda row: -scores[query, row])[:4]
    bare, vectors = make()
    with pytest.raises(ConfigError, match="`source_documents` of the data set is empty"):
        mine_hard_negatives(bare, vectors, "same-document", 4)


def test_sources_take_turns_and_a_document_counts_once():
    dataset, vectors = make()
    mined = mine_hard_negatives(dataset, vectors, ["rank:1-4", "rank:3-8", "random"], 6)
    scores = cosines(vectors)
    for query, found in enumerate(rows(dataset, mined.negative_docs)):
        ranked = [row for row in np.argsort(-scores[query]) if row != query]
        assert len(set(found)) == 6
        assert found[:2] == [ranked[0], ranked[2]]
    assert sum(mined.report.taken.values()) == mined.report.n_negatives == 240
    assert min(mined.report.taken.values()) > 40
    assert next(kind.name for kind in mined.report.distributions()) == "positives"
    assert len(mined.report.distributions()) == 5


def test_duplicates_and_overlaps_of_a_positive_are_never_negatives():
    long = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
    dataset = EmbeddingQAFinetuneDataset(
        queries={"q": "what?"},
        corpus={
            "positive": long,
            "copy": long.upper() + "!",
            "near": long + " seventeen",
            "next": "nine ten eleven twelve thirteen fourteen fifteen sixteen and then a new part that nobody has read",
            "child": "four five six seven eight nine ten eleven twelve",
            "short-tail": "fifteen sixteen and then a whole new part of the text that nobody has read before today",
            "other": "a text about something else entirely, of which the query knows nothing at all, and never will",
        },
        relevant_docs={"q": ["positive"]},
    )
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(1, 8)), rng.normal(size=(7, 8))
    for strategy in ("rank:1-6", "random", "least-similar", "score:-1-1"):
        mined = mine_hard_negatives(dataset, vectors, strategy, 6)
        assert set(mined.negative_docs["q"]) == {"short-tail", "other"}
    assert mined.report.forbidden == {"positive": 1, "duplicate of a positive": 2, "overlap with a positive": 2}
    exact = mine_hard_negatives(dataset, vectors, "rank:1-6", 6, settings=MiningSettings(near_duplicates=1.0))
    assert "copy" not in exact.negative_docs["q"]


def test_too_few_are_counted_and_padded_only_when_asked(caplog):
    dataset, vectors = make()
    with caplog.at_level(logging.WARNING):
        mined = mine_hard_negatives(dataset, vectors, "rank:1-3", 5)
    assert "40 of 40 queries have fewer than 5 negatives, 0 of them none" in caplog.text
    assert {len(docs) for docs in mined.negative_docs.values()} == {3}
    assert (mined.report.short, mined.report.without, mined.report.padded) == (40, 0, 0)
    padded = mine_hard_negatives(dataset, vectors, "rank:1-3", 5, settings=MiningSettings(pad=True))
    assert {len(set(docs)) for docs in padded.negative_docs.values()} == {5}
    assert all(docs[:3] == mined.negative_docs[query] for query, docs in padded.negative_docs.items())
    assert all(dataset.relevant_docs[query][0] not in docs for query, docs in padded.negative_docs.items())
    assert (padded.report.short, padded.report.without, padded.report.padded) == (0, 0, 80)
    assert "80 of 200 negatives are random ones" in padded.report.warnings()[0]


def test_a_query_without_any_negative_has_no_entry():
    dataset, _ = make(2, 6)
    corpus = np.eye(6)
    queries = np.array([[1.0, 0, 0, 0, 0, 0], [1, 0.1, 1, 1, 1, 1]])
    mined = mine_hard_negatives(dataset, (queries, corpus), ["rank:1-5", "margin:0.95"], 5)
    assert list(mined.negative_docs) == ["q0"]


@pytest.mark.parametrize(
    "strategies",
    [["rank:2-30:random"], ["score:-0.2-0.4"], ["random"], ["bm25:9", "rank:1-9", "margin:0.95"], ["least-similar"]],
)
def test_results_depend_on_the_seed_and_not_on_memory(strategies):
    dataset, vectors = make(n_queries=2 * BLOCK_UNIT + 40, n_docs=700)
    first = mine_hard_negatives(dataset, vectors, strategies, 4)
    small = mine_hard_negatives(dataset, vectors, strategies, 4, settings=MiningSettings(memory=1 << 20))
    assert first == small
    assert first.report.proposed == small.report.proposed
    assert first.report.dropped == small.report.dropped
    if {"random", "score:-0.2-0.4", "rank:2-30:random"} & set(strategies):
        assert mine_hard_negatives(dataset, vectors, strategies, 4, seed=1) != first


def test_embeddings_by_id_may_hold_more_and_must_hold_all():
    dataset, (queries, corpus) = make()
    by_id = {doc: corpus[row].tolist() for row, doc in reversed(list(enumerate(dataset.corpus)))} | {"else": [0.0] * 16}
    assert mine_hard_negatives(dataset, (queries, by_id), "rank:1-9", 5) == mine_hard_negatives(
        dataset, (queries, corpus), "rank:1-9", 5
    )
    del by_id["d3"], by_id["d4"]
    with pytest.raises(ConfigError, match=r"2 of 120 documents .* for example 'd3'; .* 119 ids such as 'd119'"):
        mine_hard_negatives(dataset, (queries, by_id), "rank:1-9", 5)


def bad_row(matrix, value):
    matrix = matrix.copy()
    matrix[7] = value
    return matrix


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda q, c: (q[:-1], c), {}, r"queries must have shape \(40, dim\).*got \(39, 16\)"),
        (lambda q, c: (q, c[0]), {}, r"documents must have shape \(120, dim\)"),
        (lambda q, c: (q, c[:, :8]), {}, "16 dimensions and `corpus` 8"),
        (lambda q, c: (q, bad_row(c, np.nan)), {}, "`corpus` holds NaN or infinity in 1 of 120 rows"),
        (lambda q, c: (q, c, c), {}, "got 3 parts"),
        (lambda q, c: (q, [[1.0], [1.0, 2.0]]), {}, "documents are no matrix of numbers"),
        (lambda q, c: (bad_row(q, np.inf), c), {}, "`queries` holds NaN or infinity in 1 of 40 rows"),
        (lambda q, c: (q, c), {"num_negatives": 120}, "corpus has 120 documents, so no query can have 120"),
        (lambda q, c: (q, c), {"num_negatives": 0}, "`num_negatives` is 0; it must be at least 1"),
        (lambda q, c: (q, c), {"strategies": "score:0.99-0.999"}, "'score:0.99-0.999' found no candidate.*median 0"),
        (lambda q, c: (q, c), {"strategies": ["rank:1-5", "gap:1.9"]}, "No negative is left.*gap:1.9 dropped 200"),
        (lambda q, c: (q, c), {"strategies": "hard"}, "no strategy 'hard'; the forms are: rank:10-50"),
        (lambda q, c: (q, c), {"strategies": ["rank:5-1"]}, "to a later one, got rank:5-1"),
        (lambda q, c: (q, c), {"strategies": ["margin:1.5"]}, "at most 1, got 1.5"),
        (lambda q, c: (q, c), {"strategies": ["random", "random"]}, "'random' is named twice"),
        (lambda q, c: (q, c), {"strategies": [3]}, "The strategy 3 is neither a text"),
        (lambda q, c: (q, c), {"strategies": ["judge"]}, "'judge' needs an LLM"),
        (lambda q, c: (q, c), {"relabel": True}, "`relabel` needs a strategy"),
        (lambda q, c: (q, c), {"seed": -1}, "`seed` is -1; it must be at least 0"),
    ],
)
def test_bad_input_is_one_sentence(change, options, message):
    dataset, vectors = make()
    with pytest.raises(ConfigError, match=message):
        mine_hard_negatives(dataset, change(*vectors), **{"strategies": "rank:1-9", "num_negatives": 3, **options})


def test_rows_of_zeros_are_counted():
    dataset, (queries, corpus) = make()
    with pytest.warns(UserWarning, match="`corpus`: 1 of 120 rows are all zeros"):
        mine_hard_negatives(dataset, (queries, bad_row(corpus, 0)), "rank:1-9", 5)
    queries[[3, 4]] = 0
    with pytest.warns(UserWarning, match="all zeros") as caught:
        mine_hard_negatives(dataset, (queries.tolist(), corpus.tolist()), "rank:1-9", 5)
    assert [str(w.message).split(";")[0] for w in caught] == ["`queries`: 2 of 40 rows are all zeros"]


def test_any_model_can_mine(tiny_model_path):
    from llama_index.core.embeddings import MockEmbedding
    from sentence_transformers import SentenceTransformer

    dataset, _ = make(6, 20)
    mined = mine_hard_negatives(dataset, SentenceTransformer(tiny_model_path, device="cpu"), "rank:1-5", 3)
    assert {len(docs) for docs in mined.negative_docs.values()} == {3}
    mocked = mine_hard_negatives(dataset, MockEmbedding(embed_dim=4), "rank:1-5", 3, cache=None)
    assert mocked.negative_docs["q0"] == ["d9", "d8", "d7"]  # all alike: the greatest id first, as trec_eval has it


def test_the_report_reads_well_and_escapes(tmp_path):
    dataset, vectors = make()
    dataset.queries["q0"] = dataset.corpus["d1"] = "<script>alert('x')</script>"
    mined = mine_hard_negatives(dataset, vectors, ["rank:1-30", "bm25:9", "margin:0.9"], 5)
    assert len(mined.report.examples) == 10
    text = str(mined.report)
    assert "200 negatives for 40 queries among 120 documents, by rank:1-30, bm25:9, margin:0.9" in text
    assert re.search(rf"^dropped by margin:0.9 +{mined.report.dropped['margin:0.9']}$", text, re.MULTILINE)
    assert mined.report.examples_text().count("? ") == 10
    mined.report.to_html(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "<svg" in page
    assert "<script" not in page
    assert page.count('class="query"') == 10
    mined.report.to_json(tmp_path / "report.json")
    saved = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert saved["similarities"]["negatives"]["n"] == 200
    assert saved["similarities"]["negatives"]["quantiles"] == sorted(saved["similarities"]["negatives"]["quantiles"])
    assert len(saved["examples"]) == 10


def test_strategies_say_their_text_form():
    assert [str(RankWindow(2, 9)), str(RankWindow(1, 5, "random")), str(ScoreWindow(-0.5, 0.25))] == [
        "rank:2-9",
        "rank:1-5:random",
        "score:-0.5-0.25",
    ]


def test_approximate_search_notes_its_recall():
    pytest.importorskip("faiss")
    dataset, vectors = make(n_queries=40, n_docs=1000)
    mined = mine_hard_negatives(dataset, vectors, "rank:1-20", 5, settings=MiningSettings(search="ivf"))
    assert {len(docs) for docs in mined.negative_docs.values()} == {5}
    assert "Approximate search (ivf) finds" in mined.report.warnings()[0]


def test_without_the_rules_about_text_only_equal_texts_are_kept_out():
    dataset, vectors = make(2, 6)
    corpus = {**dataset.corpus, "d1": "same text", "d2": "same text", "d3": "same text."}
    dataset = EmbeddingQAFinetuneDataset(
        queries=dataset.queries, corpus=corpus, relevant_docs={"q0": ["d0"], "q1": ["d1"]}
    )
    mined = mine_hard_negatives(dataset, vectors, "rank:1-5", 5, settings=MiningSettings(near_duplicates=None))
    assert set(mined.negative_docs["q1"]) == {"d0", "d3", "d4", "d5"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"near_duplicates": 0}, "`near_duplicates` is 0; it must be above 0 and at most 1"),
        ({"search": "flat"}, "`search` is 'flat'; it must be one of 'exact', 'hnsw', 'ivf'"),
        ({"similarity": "l2"}, "`similarity` is 'l2'; it must be one of 'cosine', 'dot'"),
        ({"memory": 4096}, "`memory` is 4096; it must be at least 1048576"),
    ],
)
def test_settings_are_checked_when_they_are_made(settings, message):
    with pytest.raises(ConfigError, match=message):
        MiningSettings(**settings)


def test_the_report_travels_with_the_result_and_not_with_its_file(tmp_path):
    dataset, vectors = make()
    mined = mine_hard_negatives(dataset, vectors, "rank:1-9", 3)
    assert pickle.loads(pickle.dumps(mined)).report.n_negatives == 120
    mined.save_json(tmp_path / "mined.json")
    assert EmbeddingQAFinetuneDataset.from_json(tmp_path / "mined.json") == mined
    with pytest.raises(DatasetError, match="no mining report"):
        _ = mined.subset(["q0"]).report


def symmetric():
    """Duplicate questions: every query stands in the corpus too, with other punctuation."""
    dataset, (queries, corpus) = make(n_queries=10, n_docs=40)
    texts = {**dataset.corpus, **{f"own{i}": f"{text.upper()} ?" for i, text in enumerate(dataset.queries.values())}}
    whole = EmbeddingQAFinetuneDataset(queries=dataset.queries, corpus=texts, relevant_docs=dataset.relevant_docs)
    return whole, (queries, np.concatenate([corpus, queries]))


@pytest.mark.parametrize("near_duplicates", [0.8, None])
@pytest.mark.parametrize("strategy", ["rank:1-10", "random", "bm25:9", "least-similar", "score:-1-1"])
def test_the_querys_own_text_is_no_negative_of_it(strategy, near_duplicates):
    dataset, vectors = symmetric()
    settings = MiningSettings(near_duplicates=near_duplicates, pad=True)
    mined = mine_hard_negatives(dataset, vectors, strategy, 4, settings=settings)
    assert not any(f"own{query[1:]}" in docs for query, docs in mined.negative_docs.items())
    assert mined.report.forbidden["the query's own text"] == 10
    assert re.search(r"^never: the query's own text +10$", str(mined.report), re.MULTILINE)


def test_own_text_may_be_asked_for_and_is_a_positive_where_it_is_labelled_one():
    dataset, vectors = symmetric()
    mined = mine_hard_negatives(dataset, vectors, "rank:1-10", 4, settings=MiningSettings(exclude_own_text=False))
    assert all(docs[0] == f"own{query[1:]}" for query, docs in mined.negative_docs.items())
    labelled = dataset.model_copy(update={"relevant_docs": {f"q{i}": [f"own{i}"] for i in range(10)}})
    report = mine_hard_negatives(labelled, vectors, "rank:1-10", 4).report
    assert report.forbidden == {"positive": 10, "duplicate of a positive": 0, "overlap with a positive": 0}


def test_a_window_without_any_candidate_says_where_the_positives_are():
    dataset, _ = make(3, 6)
    corpus = np.zeros((6, 4))
    for row, cosine in enumerate((0.1, 0.9, 0.6)):
        corpus[row, [row, 3]] = cosine, np.sqrt(1 - cosine**2)
    corpus[3:, 3] = 1.0
    with pytest.raises(ConfigError) as refused:
        mine_hard_negatives(dataset, (np.eye(3, 4), corpus), "score:0.97-0.98", 2)
    assert str(refused.value) == (
        "The strategy 'score:0.97-0.98' found no candidate for any of 3 queries; this model scores the positives from "
        "0.10 to 0.90 (median 0.60), so choose a window with that in mind."
    )


def test_every_figure_of_a_report_is_that_of_its_negative():
    sources = {f"d{i}": f"file{i // 3}" for i in range(36)}
    relevant = {f"q{i}": [f"d{i}", f"d{i + 12}"] if i % 3 else [f"d{i}"] for i in range(12)}
    dataset, vectors = make(12, 36, source_documents=sources)
    dataset = dataset.replace(
        relevant_docs=relevant, bare_texts={doc: text[2:] for doc, text in dataset.corpus.items()}
    )
    strategies = ["same-document", "rank:1-3", "gap:0.3"]
    mined = mine_hard_negatives(dataset, vectors, strategies, 6, settings=MiningSettings(pad=True), seed=3)
    report, scores, docs = mined.report, cosines(vectors), list(dataset.corpus)
    names = ["same-document", "rank:1-3", "padding"]
    positive = [scores[i, docs.index(doc)] for i, query in enumerate(relevant) for doc in relevant[query]]
    assert report.positive_scores == pytest.approx(positive, abs=1e-6)
    assert report.negative_scores.shape == report.origin.shape == (12, 6)
    proposed, dropped = dict.fromkeys(names[:2], 0), 0
    for i, query in enumerate(relevant):
        own = {docs.index(doc) for doc in relevant[query]}
        near = [row for row in np.argsort(-scores[i]) if row not in own]
        chunks = [row for row in near if any(row // 3 == mine // 3 for mine in own)][:6]
        bound = min(scores[i, mine] for mine in own) - 0.3
        proposed["same-document"] += len(chunks)
        proposed["rank:1-3"] += 3
        turns = [row for pair in itertools.zip_longest(chunks, near[:3]) for row in pair if row is not None]
        merged = list(dict.fromkeys(turns))
        kept = [row for row in merged if scores[i, row] <= bound]
        dropped += len(merged) - len(kept)
        found = [docs.index(doc) for doc in mined.negative_docs[query]]
        assert found[: len(kept)] == kept
        assert len(set(found)) == 6
        assert not own & set(found)
        assert report.negative_scores[i] == pytest.approx([scores[i, row] for row in found], abs=1e-6)
        first = [
            0 if row in chunks and (row not in near[:3] or chunks.index(row) <= near.index(row)) else 1 for row in kept
        ]
        assert report.origin[i].tolist() == [*first, *[2] * (6 - len(kept))]
    assert report.proposed == proposed
    assert report.dropped == {"gap:0.3": dropped}
    counts = {name: int((report.origin == n).sum()) for n, name in enumerate(names)}
    assert report.taken == {name: counts[name] for name in names[:2]}
    assert min(counts.values()) > 0
    assert (report.padded, report.short, report.without) == (counts["padding"], 0, 0)
    assert (report.num_negatives, report.n_queries, report.n_documents) == (6, 12, 36)
    assert report.strategies == strategies
    assert mined.provenance.parent == dataset.content_hash()
    shown = [example.query_id for example in report.examples]
    again = mine_hard_negatives(dataset, vectors, strategies, 6, settings=MiningSettings(pad=True), seed=3)
    assert [example.query_id for example in again.report.examples] == shown
    assert len(shown) == 10
    assert shown == [query for query in dataset.queries if query in shown]
    assert shown != [e.query_id for e in mine_hard_negatives(dataset, vectors, "random", 2, seed=4).report.examples]
    for example in report.examples:
        i = list(relevant).index(example.query_id)
        assert example.query == dataset.queries[example.query_id]
        for kind, ids in (("", relevant), ("negative", mined.negative_docs)):
            listed = example.negatives if kind else example.positives
            assert [document.id for document in listed] == ids[example.query_id]
            for place, document in enumerate(listed):
                assert document.text == dataset.bare_text(document.id)
                assert document.score == pytest.approx(scores[i, docs.index(document.id)], abs=1e-6)
                assert document.source == (names[report.origin[i, place]] if kind else "")


def test_a_teacher_is_prepared_for_what_it_will_be_asked():
    class Lenient(Teacher):
        def __init__(self):
            self.scores, self.prepared, self.asked = {}, [], []

        def prepare(self, context):
            self.prepared.append(context)

        def relevant(self, context, pairs):
            self.asked.append(context)
            return [False] * len(pairs)

    dataset, vectors = make(4, 9)
    teacher = Lenient()
    mine_hard_negatives(dataset, vectors, ["rank:1-3", teacher], 2)
    assert teacher.prepared == teacher.asked[:1]
    assert len(teacher.prepared[0].query_ids) == 4


def test_without_padding_missing_places_have_no_figure():
    dataset, vectors = make(12, 36)
    report = mine_hard_negatives(dataset, vectors, ["rank:1-3", "gap:0.45"], 3).report
    missing = report.origin < 0
    assert missing.any()
    assert (np.isnan(report.negative_scores) == missing).all()
    assert not (missing[:, :-1] & ~missing[:, 1:]).any()  # what is missing stands at the end
    counts = (~missing).sum(axis=1)
    assert report.short == ((counts > 0) & (counts < 3)).sum()
    assert report.without == (counts == 0).sum()
    assert report.taken == {"rank:1-3": counts.sum()}
    assert report.padded == 0


def test_nothing_left_says_who_dropped_what():
    dataset, vectors = make(4, 9)
    with pytest.raises(ConfigError) as refused:
        mine_hard_negatives(dataset, vectors, ["rank:1-5", "gap:1.9", "margin:0.5"], 3)
    assert str(refused.value) == (
        "No negative is left for any of 4 queries: of 20 candidates gap:1.9 dropped 20; use a wider window or "
        "a weaker filter."
    )
    with pytest.raises(ConfigError, match=r"margin:0\.2 dropped \d+, gap:1\.9 dropped \d+; use"):
        mine_hard_negatives(dataset, vectors, ["rank:1-5", "margin:0.2", "gap:1.9"], 3)
    alone = dataset.replace(source_documents={f"d{i}": f"file{i}" for i in range(9)})
    with pytest.raises(
        ConfigError, match=r"^The strategy 'same-document' found no candidate .* 4 queries; leave it out"
    ):
        mine_hard_negatives(alone, vectors, ["rank:1-3", "same-document"], 2)


# --- who must not be a negative of whom -------------------------------------------------------------------------------

PAGE = [f"w{n}" for n in range(40)]


def words(start: int, stop: int, *more: str) -> str:
    return " ".join([*PAGE[start:stop], *more])


CHUNKS = {
    "page": words(0, 20),
    "next": words(12, 20, "and then a part that begins with the end of another"),  # eight words are repeated
    "far": words(13, 20, "seven are said by many and prove nothing here"),
    "inside": words(4, 14),
    "break": words(4, 14, "then", "other", "words"),  # begins inside and goes on otherwise
    "short": "two words",
    "SHORT": "Two words!",
    "lone": "nothing in common with the others at all, not even a run of words",
}


def forbidden(relevant: dict[str, list[str]], threshold: float | None = 0.8, **options):
    dataset = EmbeddingQAFinetuneDataset(
        queries=dict.fromkeys(relevant, "two words") | {"own": "Two words"} | {q: f"ask {q}" for q in relevant},
        corpus=CHUNKS,
        relevant_docs={**relevant, "own": ["lone"]},
    )
    return ForbiddenNegatives(dataset, threshold, **{"show_progress": False, **options})


def names(rows) -> set[str]:
    return {list(CHUNKS)[row] for row in rows}


def test_relatives_are_copies_and_chunks_that_share_text():
    found = forbidden({"a": ["page"]})
    relatives = {name: names(found.with_relatives(row)) for row, name in enumerate(CHUNKS)}
    assert relatives == {
        "page": {"page", "next", "inside"},
        "next": {"next", "page"},
        "far": {"far"},
        "inside": {"inside", "page", "break"},
        "break": {"break", "inside"},
        "short": {"short", "SHORT"},
        "SHORT": {"short", "SHORT"},
        "lone": {"lone"},
    }
    assert {name: len(forbidden({"a": ["page"]}, None).with_relatives(row)) for row, name in enumerate(CHUNKS)} == (
        dict.fromkeys(CHUNKS, 1)
    )


def test_eight_words_are_shared_text_and_fewer_are_not():
    corpus = {"few": "two words", "whole": words(0, 20), "eight": words(5, 13), "more": "two words more"}
    corpus["bent"] = words(0, 8, "goes", "another", "way", PAGE[11])  # and comes back to the same word
    dataset = EmbeddingQAFinetuneDataset(queries={"q": "?"}, corpus=corpus, relevant_docs={"q": ["whole"]})
    found = ForbiddenNegatives(dataset, 0.9, show_progress=False)
    assert [found.with_relatives(row) for row in range(5)] == [{0}, {1, 2}, {1, 2}, {3}, {4}]


def test_a_beginning_that_a_crowd_shares_is_a_header(monkeypatch):
    monkeypatch.setattr(module, "_CROWD", 2)
    header = "all pages of this book begin with these nine words"
    corpus = {f"p{i}": f"{header} {' '.join(f'{n}-{i}' for n in range(9))}" for i in range(3)} | {"whole": header}
    dataset = EmbeddingQAFinetuneDataset(queries={"q": "?"}, corpus=corpus, relevant_docs={"q": ["whole"]})
    assert ForbiddenNegatives(dataset, 0.9, show_progress=False).with_relatives(3) == {3}
    corpus["next"] = " ".join(corpus["p0"].split()[-9:]) + " and goes on from there"  # what stands behind it counts
    dataset = EmbeddingQAFinetuneDataset(queries={"q": "?"}, corpus=corpus, relevant_docs={"q": ["whole"]})
    assert ForbiddenNegatives(dataset, 0.9, show_progress=False).with_relatives(0) == {0, 4}
    del corpus["p2"], corpus["p1"], corpus["next"]
    dataset = EmbeddingQAFinetuneDataset(queries={"q": "?"}, corpus=corpus, relevant_docs={"q": ["whole"]})
    assert ForbiddenNegatives(dataset, 0.9, show_progress=False).with_relatives(1) == {0, 1}


def test_each_pair_counts_under_the_first_rule_and_candidates_are_held_against_it():
    found = forbidden({"a": ["page", "inside"], "b": ["short"]})
    assert [names(rows) for rows in found.rows] == [
        {"page", "inside", "next", "break"}, {"short", "SHORT"}, {"lone", "short", "SHORT"}
    ]  # fmt: skip
    assert all((np.diff(rows) > 0).all() for rows in found.rows)
    assert found.counts == {
        "positive": 4, "duplicate of a positive": 1, "overlap with a positive": 2, "the query's own text": 2
    }  # fmt: skip
    every = np.tile(np.arange(8), (3, 1))
    allowed = [
        {"far", "short", "SHORT", "lone"},
        set(CHUNKS) - {"short", "SHORT"},
        set(CHUNKS) - {"lone", "short", "SHORT"},
    ]
    for line, row in enumerate(found.allows(0, every)):
        assert names(np.flatnonzero(row)) == allowed[line]
    assert (found.allows(1, every[:2]) == found.allows(0, every)[1:]).all()
    assert not found.allows(0, np.full((3, 2), -1)).any()
    assert found.allows(2, np.array([[-1, 0, 7]])).tolist() == [[False, True, False]]
    without = forbidden({"a": ["page"]}, exclude_own_text=False)
    assert "the query's own text" not in without.counts
    assert names(without.rows[1]) == {"lone"}


def test_where_nothing_is_forbidden_all_may_be_negatives():
    found = ForbiddenNegatives(
        EmbeddingQAFinetuneDataset(queries={}, corpus=CHUNKS, relevant_docs={}), 0.8, show_progress=False
    )
    assert found.allows(0, np.array([[0, -1, 3]])).tolist() == [[True, False, True]]


@pytest.mark.parametrize("shown", [True, False])
def test_the_search_for_copies_shows_a_bar_where_one_is_wanted(monkeypatch, shown):
    asked = []
    original = PreparedCorpus.near_duplicates

    def near_duplicates(self, dataset, threshold, **options):
        asked.append((threshold, options))
        return original(self, dataset, threshold, **options)

    monkeypatch.setattr(PreparedCorpus, "near_duplicates", near_duplicates)
    forbidden({"a": ["page"]}, 0.7, show_progress=shown)
    assert asked == [(0.7, {"show_progress": shown})]
