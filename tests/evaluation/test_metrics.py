"""Metrics equal trec_eval and ranx on random runs, and behave at the edges."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from llama_index_embft.errors import EvaluationError
from llama_index_embft.evaluation import metrics as m

KS = (1, 3, 5, 10, 100)
TREC = {"hit_rate": "success", "ndcg": "ndcg_cut", "map": "map_cut", "recall": "recall", "precision": "P"}


def random_case(seed: int, *, n_queries: int = 25, n_docs: int = 40, ties: bool = True):
    """Graded qrels and runs: many, one or no relevant documents found, short runs, empty runs, repeated scores."""
    rng = np.random.default_rng(seed)
    ids = [f"d{i}" for i in rng.permutation(n_docs)]
    qrels, run = {}, {}
    for q in range(n_queries):
        judged = rng.choice(n_docs, size=rng.integers(1, 15), replace=False)
        qrels[f"q{q}"] = {ids[d]: int(rng.integers(1, 4)) for d in judged}
        found = rng.choice(n_docs, size=0 if q == 1 else rng.integers(1, n_docs), replace=False)
        scores = rng.integers(0, 5, len(found)) / 4 if ties else rng.random(len(found))
        run[f"q{q}"] = {ids[d]: float(s) for d, s in zip(found, scores, strict=True)}
    return ids, qrels, run


def ours(ids, qrels, run, names):
    row_of = {doc: row for row, doc in enumerate(ids)}
    depth = max(1, max(len(found) for found in run.values()))
    rows = np.full((len(qrels), depth), -1)
    for i, query in enumerate(qrels):
        docs = list(run[query])
        order = m.rank_order(docs, list(run[query].values()))
        rows[i, : len(order)] = [row_of[docs[j]] for j in order]
    judgements = m.Judgements.from_qrels(qrels, list(qrels), row_of)
    return m.score_hits(m.find_hits(rows, judgements, len(ids)), judgements, names)


@pytest.mark.parametrize("few", [0, 1000], ids=["lookup", "comparing"])
@pytest.mark.parametrize("seed", range(60))
def test_equal_to_trec_eval(seed: int, few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pytrec_eval = pytest.importorskip("pytrec_eval")
    monkeypatch.setattr(m, "_FEW_RELEVANT", few)  # both ways of finding hits
    monkeypatch.setattr(m, "_BLOCK_CELLS", 64)
    monkeypatch.setattr(m, "_SIEVE", 4)  # most documents fall through: the exact check must hold
    monkeypatch.setattr(m, "_SIEVE_BLOCK", 5)
    ids, qrels, run = random_case(seed)
    measures = {f"{trec}_{k}" for trec in TREC.values() for k in KS} | {"recip_rank", "Rprec"}
    theirs = pytrec_eval.RelevanceEvaluator(qrels, measures).evaluate(run)
    names = (*m.metric_names(KS), "r_precision")
    got = ours(ids, qrels, run, names)
    for i, query in enumerate(qrels):
        if not run[query]:
            assert all(got[name][i] == 0 for name in names)  # trec_eval leaves such a query out; we count it
            continue
        for family, trec in TREC.items():
            for k in KS:
                assert got[f"{family}@{k}"][i] == pytest.approx(theirs[query][f"{trec}_{k}"], abs=1e-9)
        assert got["mrr@100"][i] == pytest.approx(theirs[query]["recip_rank"], abs=1e-9)
        assert got["r_precision"][i] == pytest.approx(theirs[query]["Rprec"], abs=1e-9)


def test_equal_to_ranx_on_thousands_of_queries() -> None:
    ranx = pytest.importorskip("ranx")
    ids, qrels, run = random_case(7, n_queries=2000, ties=False)  # ranx has no rule for ties
    run["q1"] = {ids[0]: 1.0}  # ranx fails on an empty list
    names = (*m.metric_names(KS), "r_precision")
    got = ours(ids, qrels, run, names)
    theirs = ranx.evaluate(
        ranx.Qrels(qrels), ranx.Run(run), [n.replace("r_precision", "r-precision") for n in names], return_mean=False
    )
    order = {query: i for i, query in enumerate(ranx.Run(run).keys())}
    index = [order[q] for q in qrels]
    for name in names:
        np.testing.assert_allclose(
            got[name], theirs[name.replace("r_precision", "r-precision")][index], atol=1e-9, err_msg=name
        )


def test_worked_by_hand() -> None:
    # Grades 2 and 1 are relevant; found at ranks 2 and 4 of 5; a third relevant document is not in the corpus.
    judgements = m.Judgements.from_qrels({"q": {"a": 1, "b": 2, "gone": 1}}, ["q"], {"a": 0, "b": 1, "c": 2, "d": 3})
    rows = np.array([[2, 0, 3, 1, -1]])
    got = m.score_hits(m.find_hits(rows, judgements, 4), judgements, (*m.metric_names((1, 5)), "r_precision"))
    ideal = 2 + 1 / np.log2(3) + 1 / np.log2(4)
    expected = {
        "hit_rate@1": 0, "hit_rate@5": 1, "mrr@1": 0, "mrr@5": 1 / 2, "ndcg@1": 0,
        "ndcg@5": (1 / np.log2(3) + 2 / np.log2(5)) / ideal, "map@1": 0, "map@5": (1 / 2 + 2 / 4) / 3,
        "recall@1": 0, "recall@5": 2 / 3, "precision@1": 0, "precision@5": 2 / 5, "r_precision": 1 / 3,
    }  # fmt: skip
    assert {name: float(value[0]) for name, value in got.items()} == pytest.approx(expected)


@pytest.mark.parametrize("few", [0, 1000], ids=["lookup", "comparing"])
def test_an_empty_place_is_never_the_last_document(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(m, "_FEW_RELEVANT", few)
    judgements = m.Judgements.from_qrels({"q": {"last": 1}, "r": {"gone": 1}}, ["q", "r"], {"first": 0, "last": 1})
    assert len(m.find_hits(np.array([[-1, -1], [-1, -1]]), judgements, 2).query) == 0


@pytest.mark.parametrize("few", [0, 1000], ids=["lookup", "comparing"])
def test_the_first_document_of_a_corpus_is_found_too(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(m, "_FEW_RELEVANT", few)
    judgements = m.Judgements.from_qrels({"q": {"first": 2}}, ["q"], {"first": 0, "second": 1})
    hits = m.find_hits(np.array([[1, 0]]), judgements, 2)
    assert [part.tolist() for part in hits] == [[0], [1], [2.0]]


def test_where_nothing_is_found_hits_are_empty_arrays() -> None:
    judgements = m.Judgements.from_qrels({"q": {"gone": 1}}, ["q"], {"first": 0})
    for rows in (np.array([[0]]), np.empty((1, 0), dtype=np.int64)):
        hits = m.find_hits(rows, judgements, 1)
        assert [(part.shape, part.dtype.kind) for part in hits] == [((0,), "i"), ((0,), "i"), ((0,), "f")]


def test_nothing_judged_or_nothing_found_scores_zero() -> None:
    judgements = m.Judgements.from_qrels({"q": {"a": 0}}, ["q", "unjudged"], {"a": 0})
    got = m.score_hits(m.find_hits(np.array([[0], [0]]), judgements, 1), judgements, m.metric_names((1,)))
    assert all((values == 0).all() and len(values) == 2 for values in got.values())


@given(st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_invariances(seed: int) -> None:
    ids, qrels, run = random_case(seed, ties=False)
    names = (*m.metric_names(KS), "r_precision")
    got = ours(ids, qrels, run, names)
    assert all(((values >= 0) & (values <= 1 + 1e-12)).all() for values in got.values())
    for family in ("hit_rate", "mrr", "map", "recall"):  # looking further never takes anything away
        assert all((got[f"{family}@{k}"] <= got[f"{family}@{m_}"] + 1e-12).all() for k, m_ in itertools.pairwise(KS))
    # By a power of two, and not shifted: scores are compared in single precision, where a shift can make ties.
    scaled = {query: {doc: 0.25 * score for doc, score in found.items()} for query, found in run.items()}
    renamed = {query: {f"x{doc}": score for doc, score in found.items()} for query, found in run.items()}
    renamed_qrels = {query: {f"x{doc}": grade for doc, grade in docs.items()} for query, docs in qrels.items()}
    same = ours(ids, qrels, scaled, names), ours([f"x{doc}" for doc in ids], renamed_qrels, renamed, names)
    for name in names:
        np.testing.assert_allclose(same[0][name], got[name], atol=1e-12)
        np.testing.assert_allclose(same[1][name], got[name], atol=1e-12)


def test_rank_order_is_score_then_id_descending_and_drops_repeats() -> None:
    ids = ["b", "a", "c", "a", "é"]
    assert [ids[i] for i in m.rank_order(ids, [1.0, 1.0, 1.0, 2.0, 1.0])] == ["a", "é", "c", "b"]
    # trec_eval keeps scores in single precision: a difference in the tenth digit is a tie, and the id decides
    assert m.rank_order(["a", "b"], [1.0 + 1e-10, 1.0]) == [1, 0]


def test_a_constant_scorer_is_not_perfect() -> None:
    assert m.rank_order(["relevant", "zzz"], [0.5, 0.5]) == [1, 0]


@pytest.mark.parametrize("bad", ["ndcg", "ndcg@0", "ndcg@-1", "NDCG@5", "bogus@5", "ndcg@5x", ""])
def test_unknown_metric_names_are_refused(bad: str) -> None:
    with pytest.raises(EvaluationError, match="Unknown metric"):
        m.parse_metric(bad)


def test_metric_names_take_families_and_full_names() -> None:
    assert m.metric_names((5, 1, 5), ("ndcg", "hit_rate@7", "r_precision")) == (
        "ndcg@5",
        "ndcg@1",
        "hit_rate@7",
        "r_precision",
    )


def test_one_cut_off_and_one_metric_are_one_value() -> None:
    assert m.metric_names(5, "ndcg") == ("ndcg@5",)
    assert m.metric_names(np.int64(3), "recall@50") == ("recall@50",)
    assert m.metric_names(np.array([1, 3]), ["mrr"]) == ("mrr@1", "mrr@3")
    for ks in ("5", [5.0], [[5]], None, True, 0, ()):
        with pytest.raises(EvaluationError, match=r"`ks`"):
            m.metric_names(ks, "ndcg")
    for metrics in ((), None, [None]):
        with pytest.raises(EvaluationError, match=r"`metrics`|Unknown metric None"):
            m.metric_names(5, metrics)


def test_a_search_goes_as_deep_as_the_metrics_look() -> None:
    judgements = m.Judgements.from_qrels({"q": {f"d{i}": 1 for i in range(4)}, "r": {"d0": 1}}, ["q", "r"], {"d0": 0})
    assert m.needed_depth(["ndcg@10", "mrr@3"], judgements) == 10
    assert m.needed_depth(["mrr@3"], judgements) == 3
    assert m.needed_depth(["r_precision"], judgements) == 4  # as deep as a query has relevant documents
    assert m.needed_depth(["r_precision", "mrr@3"], judgements) == 4
    assert m.needed_depth(["r_precision", "mrr@10"], judgements) == 10
    nothing = m.Judgements.from_qrels({}, [], {})
    assert m.needed_depth(["r_precision"], nothing) == m.needed_depth(["mrr@1"], nothing) == 1


def test_not_a_number_and_wrong_shape_are_refused() -> None:
    with pytest.raises(EvaluationError, match="'b' is not a number"):
        m.rank_order(["a", "b"], [1.0, float("nan")])
    judgements = m.Judgements.from_qrels({"q": {"a": 1}}, ["q"], {"a": 0})
    with pytest.raises(EvaluationError, match="over 1 queries"):
        m.find_hits(np.zeros((2, 3), dtype=np.int64), judgements, 1)
