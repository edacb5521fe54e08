"""Runs and qrels: TREC files in and out, scoring, fusing."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from evaluation_helpers import many_queries, noisy_report

from llama_index_embft.dataset import EmbeddingQAFinetuneDataset, read_qrels, read_run, write_qrels, write_run
from llama_index_embft.errors import ConfigError, DatasetError, EvaluationError
from llama_index_embft.evaluation import RetrievalReport, compare, evaluate_run, fuse_runs, rerank_run


def test_files_are_read_as_trec_eval_reads_them(tmp_path) -> None:
    (tmp_path / "qrels").write_text("q1 0 d1 2\nq1 0 d2 0\n\nq2\t0\td3\t1\n")
    (tmp_path / "run").write_text("q1 Q0 d2 1 0.5 tag\nq1 Q0 d1 99 0.7 tag\nq2 Q0 d9 1 1e-3 tag\n")
    assert read_qrels(tmp_path / "qrels") == {"q1": {"d1": 2, "d2": 0}, "q2": {"d3": 1}}
    assert read_run(tmp_path / "run") == {"q1": {"d2": 0.5, "d1": 0.7}, "q2": {"d9": 0.001}}
    report = evaluate_run(read_qrels(tmp_path / "qrels"), read_run(tmp_path / "run"), ks=(1,))
    assert report.hit_ids[0] == ("d1", "d2")  # by score; the file's ranks do not count
    assert report.values["hit_rate@1"].tolist() == [1.0, 0.0]


def test_report_written_and_read_scores_the_same_and_agrees_with_trec_eval(tmp_path) -> None:
    pytrec_eval = pytest.importorskip("pytrec_eval")
    dataset = many_queries(40)
    report = noisy_report(dataset, 1.5)
    report.to_trec_run(tmp_path / "run")
    write_qrels(dataset, tmp_path / "qrels")
    again = evaluate_run(dataset, read_run(tmp_path / "run"))
    assert again.summary() == report.summary()
    assert again.hit_ids == report.hit_ids
    assert read_qrels(tmp_path / "qrels") == dataset.qrels()
    with (tmp_path / "qrels").open() as qrels, (tmp_path / "run").open() as run:
        theirs = pytrec_eval.RelevanceEvaluator(pytrec_eval.parse_qrel(qrels), {"ndcg_cut_10"}).evaluate(
            pytrec_eval.parse_run(run)
        )
    ours = dict(zip(report.query_ids, report.values["ndcg@10"], strict=True))
    assert {query: value["ndcg_cut_10"] for query, value in theirs.items()} == pytest.approx(ours)


def test_fewer_hits_than_a_metric_looks_at_are_not_kept_in_silence() -> None:
    qrels = {"q1": {"d1": 1, "d5": 1}, "q2": {"d5": 1}}
    run = {"q1": {f"d{n}": 9.0 - n for n in range(1, 7)} | {"q1": 9.0}, "q2": {"d5": 1.0}}
    for top_k in (2, 0, -1):
        with pytest.raises(ConfigError, match=rf"`top_k` is {top_k}, but the metrics look at 5 hits"):
            evaluate_run(qrels, run, ks=(5,), top_k=top_k)
    kept = evaluate_run(qrels, run, ks=(5,), top_k=5)
    # The query itself takes no place.
    assert kept.hit_ids == (("d1", "d2", "d3", "d4", "d5"), ("d5",))
    assert kept.summary() == evaluate_run(qrels, run, ks=(5,)).summary()


@pytest.mark.parametrize(
    ("reader", "text", "message"),
    [
        (read_qrels, "q 0 d\n", "line 1: expected `query 0 document grade`, got 3 fields"),
        (read_qrels, "q 0 d one\n", "the grade of 'd' for 'q' should be a number, got 'one'"),
        (read_qrels, "q 0 d 1\nq 0 d 2\n", "line 2: document 'd' has two grades"),
        (read_run, "q Q0 d 1 0.5\n", "expected `query Q0 document rank score tag`"),
        (read_run, "q Q0 d 1 high t\n", "the score of 'd' for 'q' should be a number, got 'high'"),
        (read_run, "q Q0 d 1 nan t\n", "the score of 'd' for 'q' is nan, which is no score"),
        (read_run, "q Q0 d 1 1 t\nq Q0 d 2 1 t\n", "line 2: document 'd' stands twice"),
    ],
)
def test_broken_lines_are_named(reader, text: str, message: str, tmp_path) -> None:
    (tmp_path / "file").write_text(text)
    with pytest.raises(DatasetError, match=re.escape(message)):
        reader(tmp_path / "file")
    with pytest.raises(DatasetError, match="There is no file"):
        reader(tmp_path / "missing")


def test_ids_with_spaces_cannot_be_written(tmp_path) -> None:
    with pytest.raises(DatasetError, match="cannot hold the id 'a b'"):
        write_run({"a b": {"d": 1.0}}, tmp_path / "run")
    with pytest.raises(DatasetError, match="cannot hold the id ''"):
        write_qrels({"q": {"": 1}}, tmp_path / "qrels")
    assert not list(tmp_path.iterdir())


def test_order_of_hits_without_scores_survives(tmp_path, tiny_dataset: EmbeddingQAFinetuneDataset) -> None:
    from dataclasses import replace

    report = evaluate_run(tiny_dataset, {q: {"apple": 0.1, "lemon": 0.9} for q in tiny_dataset.queries})
    replace(report, hit_scores=((), (), ())).to_trec_run(tmp_path / "run")
    assert evaluate_run(tiny_dataset, read_run(tmp_path / "run")).hit_ids == report.hit_ids


def test_missing_and_added_queries_are_counted(tiny_dataset: EmbeddingQAFinetuneDataset) -> None:
    report = evaluate_run(tiny_dataset, {"q1": {"apple": 1.0}, "q9": {"apple": 1.0}}, ks=(1,))
    assert report.values["hit_rate@1"].tolist() == [1.0, 0.0, 0.0]  # not 1.0 over one query
    assert report.notes == (
        "2 judged queries are not in the run and score 0, for example 'q2'.",
        "1 queries of the run are not judged and were left out, for example 'q9'.",
    )
    with pytest.raises(EvaluationError, match="none of the 3 judged queries"):
        evaluate_run(tiny_dataset, {"q9": {"apple": 1.0}})
    with pytest.raises(EvaluationError, match="is not a number"):
        evaluate_run(tiny_dataset, {"q1": {"apple": float("nan")}})
    with pytest.raises(EvaluationError, match="no relevant document"):
        evaluate_run({"q": {"d": 0}}, {"q": {"d": 1.0}})


def test_grades_of_any_kind_of_number_survive_a_file(tmp_path) -> None:
    qrels = {"q1": {"a": np.int64(2), "b": np.float32(0.5)}, "q2": {"a": 1.0, "b": 0}}
    report = evaluate_run(qrels, {"q1": {"b": 1.0, "a": 0.5}, "q2": {"a": 1.0}})  # type: ignore[arg-type]
    report.to_json(tmp_path / "r.json")
    again = RetrievalReport.from_json(tmp_path / "r.json")
    assert again.relevant == ({"a": 2, "b": 0.5}, {"a": 1})
    assert again.summary() == report.summary()


@pytest.mark.parametrize(
    ("qrels", "run", "message"),
    [
        ({"q": {"a": float("nan"), "b": 1}}, {"q": {"a": 1.0}}, "grade of document 'a' for query 'q' is nan"),
        ({"q": {"a": 1}}, {"q": ["a"]}, "The run has a list for query 'q'"),
        ({"q": {"a": 1}}, {"q": {"a": "high"}}, "are not all numbers"),
    ],
)
def test_what_is_no_run_and_no_grade(qrels, run, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        evaluate_run(qrels, run)


def test_bare_qrels_and_data_set_can_be_compared(tiny_dataset: EmbeddingQAFinetuneDataset) -> None:
    run = {query: {"apple": 1.0} for query in tiny_dataset.queries}
    one, other = evaluate_run(tiny_dataset, run), evaluate_run(tiny_dataset.qrels(), run)
    assert one.summary() == other.summary()
    assert compare(one, other, n_resamples=10).systems[0].outcome == "same"


def test_fusion_is_reciprocal_rank(tiny_dataset: EmbeddingQAFinetuneDataset) -> None:
    one = evaluate_run(tiny_dataset, {q: {"apple": 0.9, "lemon": 0.5} for q in tiny_dataset.queries}, label="a")
    two = evaluate_run(tiny_dataset, {q: {"lemon": 9.0, "blue": 5.0} for q in tiny_dataset.queries}, label="b")
    fused = fuse_runs([one, two], k=60, top_k=3)
    assert fused.hit_ids[0] == ("lemon", "apple", "blue")
    assert fused.hit_scores[0] == pytest.approx((1 / 62 + 1 / 61, 1 / 61, 1 / 62))
    assert fused.label == "a + b"
    assert fused.mean("recall@3") > max(one.mean("recall@3"), two.mean("recall@3")) - 1e-9
    assert fuse_runs([one, two], weights=[1, 0]).hit_ids[0][0] == "apple"
    with pytest.raises(ConfigError, match="two or more reports"):
        fuse_runs([one])
    with pytest.raises(EvaluationError, match="different queries"):
        fuse_runs([one, noisy_report(many_queries(5), 1.0)])
    assert {name for name in fused.metrics if name.startswith("ndcg")} == {"ndcg@1", "ndcg@3"}  # three were kept
    for wrong in ({"k": -1}, {"top_k": 0}, {"weights": [1, -1]}, {"weights": [1, float("nan")]}):
        with pytest.raises(ConfigError, match=f"`{next(iter(wrong))}` is"):
            fuse_runs([one, two], **wrong)


def test_weights_that_are_all_0_are_refused(tiny_dataset: EmbeddingQAFinetuneDataset) -> None:
    report = evaluate_run(tiny_dataset, {query: {"apple": 1.0} for query in tiny_dataset.queries})
    with pytest.raises(ConfigError, match="All `weights` are 0"):
        fuse_runs([report, report], weights=[0, 0])


def test_metrics_of_answers_are_not_those_of_other_hits(tiny_dataset: EmbeddingQAFinetuneDataset) -> None:
    one = evaluate_run(tiny_dataset, {q: {"apple": 0.9, "lemon": 0.5} for q in tiny_dataset.queries})
    answered = replace(one, values={**one.values, "answer_f1": np.ones(3), "faithfulness": np.ones(3)})
    assert fuse_runs([answered, one]).metrics == one.metrics
    assert rerank_run(tiny_dataset, answered, lambda _, texts: [len(text) for text in texts]).metrics == one.metrics
