"""Comparisons say what the data can carry, and no more."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from evaluation_helpers import many_queries, noisy_report

from llama_index_embft._core.language import kind_of
from llama_index_embft.errors import ConfigError, EvaluationError
from llama_index_embft.evaluation import RetrievalReport, compare
from llama_index_embft.evaluation.statistics.slices import script_of

FAST = {"n_resamples": 500}


def test_a_real_gain_is_called_significant() -> None:
    dataset = many_queries()
    base, tuned = noisy_report(dataset, 1.6, label="base"), noisy_report(dataset, 0.9, label="tuned")
    result = compare(base, tuned, **FAST)
    row = result.metrics["ndcg@10"]
    assert row.outcome == "gain"
    assert row.test.difference == pytest.approx(tuned.mean("ndcg@10") - base.mean("ndcg@10"))
    assert 0 < row.test.interval[0] < row.test.difference < row.test.interval[1]
    assert row.test.p <= row.p_holm < 0.05
    assert row.test.wins + row.test.losses + row.test.ties == row.test.n == 120
    assert row.test.n_clusters == 40
    assert (result.decision, result.cluster_by, result.regressed()) == ("adopt", "document", False)
    assert "Significant gain: ndcg@10" in result.verdict
    assert "120 queries about 40 documents" in result.verdict


def test_two_more_hits_are_not_a_gain() -> None:
    dataset = many_queries(168)
    base = noisy_report(dataset, 0.9, label="base")
    values = {name: column.copy() for name, column in base.values.items()}
    missed = [row for row, value in enumerate(values["hit_rate@1"]) if not value][:2]
    for name in values:
        values[name][missed] = 1.0 if not name.startswith("precision") else 1 / int(name.partition("@")[2])
    tuned = replace(base, label="tuned", values=values)
    result = compare(base, tuned, primary="hit_rate@1", **FAST)
    assert result.metrics["hit_rate@1"].test.wins == 2
    assert result.metrics["hit_rate@1"].outcome == "not significant"
    assert result.decision == "not proven"
    assert "Not significant" in result.verdict
    assert "this set cannot show a gain under" in result.verdict


def test_a_loss_must_not_be_adopted() -> None:
    dataset = many_queries()
    result = compare(noisy_report(dataset, 0.9), noisy_report(dataset, 1.6), **FAST)
    assert (result.decision, result.regressed()) == ("do not adopt", True)
    assert "Significant loss" in result.verdict


def test_a_system_against_itself_is_the_same() -> None:
    report = noisy_report(many_queries(), 1.0)
    result = compare(report, report, **FAST)
    assert all(row.outcome == "same" and row.test.p == 1 for row in result.metrics.values())
    assert result.decision == "not proven"
    assert "No difference in ndcg@10" in result.verdict
    assert result.improved() == result.harmed() == ()
    # That no query of 120 changed does not prove that none can: a change of one in 120 would not have been seen.
    assert 1 / 120 < json.loads(json.dumps(result.to_dict(), allow_nan=False))["metrics"]["ndcg@10"]["detectable"] < 0.1


def test_report_json_has_the_promised_shape(tmp_path) -> None:
    dataset = many_queries()
    result = compare(noisy_report(dataset, 1.6), noisy_report(dataset, 0.9), **FAST)
    result.to_json(tmp_path / "report.json")
    row = json.loads((tmp_path / "report.json").read_text())["metrics"]["ndcg@10"]
    assert {"base", "tuned", "difference", "ci95", "p", "n", "wins", "losses", "ties"} <= set(row)
    assert row["tuned"] - row["base"] == pytest.approx(row["difference"])
    assert len(row["ci95"]) == 2


def test_dependence_inside_documents_widens_the_interval() -> None:
    dataset = many_queries(per_document=12)
    base = noisy_report(dataset, 1.2)
    values = dict(base.values)
    # every query about a document moves together
    shift = [0.2 if i // 12 % 2 else -0.1 for i in range(120)]
    values["ndcg@10"] = (base.values["ndcg@10"] * 0.5 + shift).clip(0, 1)
    tuned = replace(base, values=values)
    low, high = compare(base, tuned, metrics=["ndcg@10"], **FAST).metrics["ndcg@10"].test.interval
    plain_low, plain_high = (
        compare(base, tuned, metrics=["ndcg@10"], cluster_by="query", **FAST).metrics["ndcg@10"].test.interval
    )
    assert high - low > 1.5 * (plain_high - plain_low)


def test_one_document_shows_nothing_about_others_and_says_so() -> None:
    dataset = many_queries(per_document=1000)
    better = compare(noisy_report(dataset, 1.6), noisy_report(dataset, 0.9), **FAST)
    assert (better.cluster_by, better.decision, better.regressed()) == ("document", "not proven", False)
    assert "nothing can be shown about others" in better.notes[0]
    assert "120 queries about 1 document cannot be told from chance; evaluate queries about more documents" in (
        better.verdict
    )
    worse = compare(noisy_report(dataset, 0.9), noisy_report(dataset, 1.6), **FAST)
    assert worse.metrics["ndcg@10"].outcome == "not significant"
    assert (worse.decision, worse.regressed()) == ("do not adopt", True)
    assert "On this document themselves" not in worse.verdict
    assert "whether other documents lose too is not shown" in worse.verdict
    by_query = compare(noisy_report(dataset, 1.6), noisy_report(dataset, 0.9), cluster_by="query", **FAST)
    assert by_query.decision == "adopt"


def test_labels_of_ones_own() -> None:
    dataset = many_queries()
    reports = noisy_report(dataset, 1.6), noisy_report(dataset, 0.9)
    labels = {query: int(query[1:]) % 6 for query in dataset.queries}
    assert compare(*reports, cluster_by=labels, **FAST).metrics["ndcg@10"].test.n_clusters == 6
    with pytest.raises(ConfigError, match="no label for query"):
        compare(*reports, cluster_by={"q000": 1}, **FAST)
    with pytest.raises(ConfigError, match="`cluster_by` must be"):
        compare(*reports, cluster_by="topic", **FAST)


def test_order_of_queries_does_not_matter() -> None:
    dataset = many_queries()
    base, tuned = noisy_report(dataset, 1.6), noisy_report(dataset, 0.9)
    turned = list(reversed(dataset.queries))
    per_query = ("query_ids", "queries", "documents", "relevant", "hit_ids", "hit_scores")
    backwards = replace(
        tuned,
        **{name: getattr(tuned, name)[::-1] for name in per_query},
        values={name: column[::-1] for name, column in tuned.values.items()},
    )
    assert list(backwards.query_ids) == turned
    assert (
        replace(compare(base, backwards, **FAST), date="").to_dict()
        == replace(compare(base, tuned, **FAST), date="").to_dict()
    )


def test_reports_over_different_queries_are_refused() -> None:
    dataset = many_queries(30)
    base = noisy_report(dataset, 1.0, label="base")
    fewer = noisy_report(many_queries(29), 1.0, label="fewer")
    with pytest.raises(EvaluationError, match=r"different queries: 1 are not in both, for example 'q029'.*'base'"):
        compare(base, fewer)
    judged = replace(base, relevant=({"c001": 1}, *base.relevant[1:]))
    with pytest.raises(EvaluationError, match="judge query 'q000' by different relevant documents"):
        compare(base, judged)
    with pytest.raises(EvaluationError, match="share no metric"):
        compare(base, noisy_report(dataset, 1.0, ks=(2,)))
    with pytest.raises(EvaluationError, match="has no metric 'ndcg@7'"):
        compare(base, base, metrics=["ndcg@7"])
    assert list(compare(base, base, metrics="ndcg@10", **FAST).systems[0].metrics) == ["ndcg@10"]
    with pytest.raises(ConfigError, match="at least one other"):
        compare(base)


def test_other_texts_and_failed_queries_are_noted() -> None:
    dataset = many_queries(30)
    base = noisy_report(dataset, 1.0)
    other = replace(base, label="other", corpus_hash="x", errors={"q001": "TimeoutError: slow"})
    notes = " ".join(compare(base, other, **FAST).notes)
    assert "searched other texts" in notes
    assert "1 queries failed and score 0 (first: 'q001': TimeoutError: slow)" in notes


def test_other_query_texts_are_noted() -> None:
    base = noisy_report(many_queries(30), 1.0)
    translated = replace(base, label="b", queries=("anders", *base.queries[1:]))
    assert "1 queries have other texts in 'b', for example 'q000'" in compare(base, translated, **FAST).notes[0]
    assert compare(base, replace(base, queries=base.query_ids), **FAST).notes == ()


def test_equal_labels_are_told_apart() -> None:
    report = noisy_report(many_queries(10), 1.0, label="model")
    result = compare(report, report, report, **FAST)
    assert [result.base.label, *(system.label for system in result.systems)] == ["model", "model (2)", "model (3)"]


def test_a_deeper_report_gains_nothing_by_its_depth() -> None:
    dataset = many_queries()
    shallow, deep = noisy_report(dataset, 1.6), noisy_report(dataset, 1.6, top_k=100)
    result = compare(shallow, deep, **FAST)
    assert result.improved() == result.harmed() == ()
    assert all(change.base_rank == change.tuned_rank for change in result.systems[0].changes)


def test_most_changed_queries() -> None:
    dataset = many_queries()
    base, tuned = noisy_report(dataset, 1.6), noisy_report(dataset, 1.2, seed=5)
    result = compare(base, tuned, **FAST)
    improved, harmed = result.improved(5), result.harmed(5)
    assert [c.difference for c in improved] == sorted((c.difference for c in improved), reverse=True)
    assert all(c.difference > 0 for c in improved)
    assert all(c.difference < 0 for c in harmed)
    first = improved[0]
    assert first.query == dataset.queries[first.query_id]
    assert first.tuned_rank == 1
    assert len(result.systems[0].changes) == 120


def test_several_systems_and_their_correction() -> None:
    dataset = many_queries()
    base = noisy_report(dataset, 1.6, label="base")
    good, same = noisy_report(dataset, 0.9, label="good"), noisy_report(dataset, 1.6, label="same")
    result = compare(base, same, good, **FAST)
    assert [system.label for system in result.systems] == ["same", "good"]
    assert [system.outcome for system in result.systems] == ["same", "gain"]
    assert result.systems[1].p == pytest.approx(2 * compare(base, good, **FAST).systems[0].p, rel=0.01)
    assert set(result.to_pandas().index.get_level_values("system")) == {"same", "good"}
    assert len(result.to_dict()["systems"]) == 2


def test_metrics_that_are_one_test_are_corrected_as_one() -> None:
    dataset = many_queries()
    base, tuned = noisy_report(dataset, 1.6), noisy_report(dataset, 1.4, seed=3)
    one = compare(base, tuned, metrics=["hit_rate@5"], **FAST).metrics["hit_rate@5"]
    both = compare(base, tuned, metrics=["hit_rate@5", "recall@5"], **FAST).metrics["hit_rate@5"]
    assert (both.p_holm, both.test.p) == (one.p_holm, one.test.p)


def test_guards_decide() -> None:
    dataset = many_queries(600, per_document=1)
    base, tuned = noisy_report(dataset, 1.6), noisy_report(dataset, 0.9)
    kept = compare(base, tuned, guard={"general": (base, base)}, **FAST)
    assert kept.decision == "adopt"
    assert kept.systems[0].guards[0].kept is True
    assert "ruled out" in kept.verdict
    lost = compare(base, tuned, guard={"general": (tuned, base)}, **FAST)
    assert (lost.decision, lost.regressed()) == ("do not adopt", True)
    assert "Forgotten" in lost.verdict
    small = many_queries(20)
    unclear = compare(base, tuned, guard={"g": (noisy_report(small, 1.5), noisy_report(small, 1.5, seed=2))}, **FAST)
    assert unclear.decision == "not proven"
    assert "cannot rule out" in unclear.verdict
    assert json.dumps(unclear.to_dict(), allow_nan=False)
    with pytest.raises(ConfigError, match="has 1 reports; give 2"):
        compare(base, tuned, guard={"g": (base,)}, **FAST)
    with pytest.raises(ConfigError, match="Guard 'g' has 1 reports"):
        compare(base, tuned, guard={"g": base}, **FAST)


def test_slices() -> None:
    dataset = many_queries()
    base, tuned = noisy_report(dataset, 1.6), noisy_report(dataset, 0.9)
    result = compare(base, tuned, slices=("kind", "length", "language", "script", "document"), **FAST)
    parts = {(part.by, part.name): part for part in result.systems[0].slices}
    assert {("kind", "what"), ("kind", "other question"), ("script", "Latin")} <= set(parts)
    assert sum(part.test.n for part in parts.values() if part.by == "kind") == 120
    assert ("document", "all others") in parts  # 40 documents are too many for a table
    assert len([1 for by, _ in parts if by == "document"]) == 12
    two = compare(base, tuned, slices=[lambda query, _: query[-1] == "0", lambda *_: "all"], **FAST)
    assert len({part.by for part in two.systems[0].slices}) == 2
    own = compare(base, tuned, slices={"parity": {q: int(q[1:]) % 2 for q in dataset.queries}}, **FAST)
    assert [(part.by, part.name) for part in own.systems[0].slices] == [("parity", "0"), ("parity", "1")]
    with pytest.raises(ConfigError, match="Unknown slices 'colour'"):
        compare(base, tuned, slices=("colour",), **FAST)
    with pytest.raises(ConfigError, match="`seed` is -1"):
        compare(base, tuned, seed=-1)
    with pytest.raises(ConfigError, match="no label for query"):
        compare(base, tuned, slices={"x": {}}, **FAST)


@pytest.mark.parametrize(
    ("query", "kind"),
    [
        ("Why is the sky blue?", "why"), ("In what year did it begin?", "what"), ("Is it legal?", "yes or no"),
        ("uber risk factors", "keywords"), ("Explain the importance of being listed on an exchange.", "statement"),
        ("为什么天空是蓝色的？", "why"), ("公司在哪里？", "where"), ("And now?", "other question"),
    ],
)  # fmt: skip
def test_kind_of_question(query: str, kind: str) -> None:
    assert kind_of(query) == kind


def test_script() -> None:
    texts = ["hello", "你好", "こんにちは漢字", "привет", "שלום", "123 ?"]
    assert [script_of(text) for text in texts] == ["Latin", "Han", "Japanese", "Cyrillic", "Hebrew", "no letters"]


def test_renderers_escape_and_show(tmp_path) -> None:
    from rich.console import Console

    dataset = many_queries()
    base = noisy_report(dataset, 1.6, label="a|b [bold]")
    tuned = noisy_report(dataset, 0.9, label="<script>x</script>")
    result = compare(base, tuned, **FAST)
    markdown = result.to_markdown()
    assert "a\\|b [bold]" in markdown
    assert "&lt;script&gt;" in markdown
    assert "| ndcg@10 |" in markdown
    page = result._repr_html_()
    assert "<script" not in page
    console = Console(width=140, record=True, file=(tmp_path / "out").open("w"))
    console.print(result.to_rich())
    shown = console.export_text()
    assert "ndcg@10" in shown
    assert "gain" in shown
    assert "recall@10" not in result.headline()  # the same as the hit rate here
    with pytest.raises(EvaluationError, match="No metric 'x'"):
        result.to_markdown(("x",))


def test_files_are_taken_too(tmp_path) -> None:
    dataset = many_queries(30)
    for name, noise in (("a", 1.6), ("b", 0.9)):
        noisy_report(dataset, noise, label=name).to_json(tmp_path / f"{name}.json")
    result = compare(tmp_path / "a.json", str(tmp_path / "b.json"), **FAST)
    assert isinstance(result.base, RetrievalReport)
    assert result.base.label == "a"


def test_reports_are_given_one_by_one(tmp_path) -> None:
    base, tuned = noisy_report(many_queries(), 1.6), noisy_report(many_queries(), 0.9)
    with pytest.raises(ConfigError, match="A list is no report"):
        compare(base, [tuned])
    result = compare(base, tuned, **FAST)
    assert result.to_markdown("ndcg@10") == result.to_markdown(("ndcg@10",))


def test_one_query_proves_nothing() -> None:
    one = many_queries(1)
    base = noisy_report(one, 0.1)
    tuned = replace(base, values={name: column * 0 for name, column in base.values.items()})
    result = compare(base, tuned, **FAST)
    assert result.metrics["ndcg@10"].outcome == "not significant"
    assert result.metrics["ndcg@10"].test.interval == (-math.inf, math.inf)
    assert "cannot be told from chance" in result.verdict
    assert result.to_dict()["metrics"]["ndcg@10"]["ci95"] == [None, None]
    assert "–" in result.to_markdown()


def test_the_deciding_metric_pays_for_systems_and_not_for_other_metrics() -> None:
    dataset = many_queries()
    base, tuned = noisy_report(dataset, 1.6, label="base"), noisy_report(dataset, 1.3, label="tuned")
    alone = compare(base, tuned, metrics=["ndcg@10"], **FAST).metrics["ndcg@10"]
    among_many = compare(base, tuned, **FAST).metrics
    assert among_many["ndcg@10"].p_holm == among_many["ndcg@10"].test.p == alone.p_holm
    assert among_many["mrr@10"].p_holm > among_many["mrr@10"].test.p
    three = compare(base, tuned, noisy_report(dataset, 1.1, label="c"), **FAST)
    assert three.metrics["ndcg@10"].p_holm == three.systems[0].p >= alone.p_holm
