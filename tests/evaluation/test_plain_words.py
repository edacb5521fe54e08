"""The verdict in words: it follows the decision, and its figures are those of the record."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import replace

import pytest
from evaluation_helpers import many_queries, noisy_report

from llama_index_embft.errors import ConfigError, EvaluationError
from llama_index_embft.evaluation import SwitchingCost, compare
from llama_index_embft.evaluation.statistics import (
    GuardResult,
    MetricComparison,
    PairedResult,
    SystemComparison,
    decide,
    in_words,
    meaning_of,
    outcome_of,
    summary,
    unseen_loss,
)
from llama_index_embft.evaluation.statistics.verdict import interval_name, p_equals, p_value, points

REPORT = noisy_report(many_queries(4), 1.0, label="tuned")


def metric(name: str, base: float, tuned: float, ci95: tuple[float, float], *, n: int = 400, p: float | None = None):
    difference = tuned - base
    p = p if p is not None else 0.01 if ci95[0] > 0 or ci95[1] < 0 else 0.3
    wins, losses = (10, 0) if difference > 0 else (0, 10) if difference < 0 else (0, 0)
    test = PairedResult(difference, ci95, p, 0.01, 0.1, 0.03, n, n // 4, wins, losses, n - wins - losses)
    return MetricComparison(name, base, tuned, test, p, outcome_of(test, p, 0.05))


def system(decision, *rows: MetricComparison, **fields) -> SystemComparison:
    named = {row.metric: row for row in rows}
    deciding = named["ndcg@10"]
    values = {"on_these": None, "guards": (), "outcome": deciding.outcome, **fields}
    return SystemComparison(REPORT, named, (), (), p=deciding.p_holm, decision=decision, reasons=("Why.",), **values)


BETTER = metric("ndcg@10", 0.45, 0.60, (0.1, 0.2))
WORSE = metric("ndcg@10", 0.60, 0.45, (-0.2, -0.1))
UNSURE = metric("ndcg@10", 0.45, 0.46, (-0.02, 0.04))
HITS_UP = metric("hit_rate@10", 0.555, 0.7225, (0.118, 0.221))
HITS_DOWN = metric("hit_rate@10", 0.7225, 0.555, (-0.221, -0.118))
HITS_UNSURE = metric("hit_rate@10", 0.70, 0.72, (-0.01, 0.05))
HITS_SAME = metric("hit_rate@10", 0.70, 0.70, (-0.01, 0.01))


def test_a_gain_that_is_adopted_is_told_in_questions_of_a_hundred() -> None:
    assert in_words(system("adopt", BETTER, HITS_UP), "ndcg@10") == (
        "Of 100 questions, 17 more find their page in the first ten (289 of the 400 asked, 222 before; 95 % interval: "
        "12 to 22 more)."
    )


def test_a_proven_loss_is_told_likewise() -> None:
    assert in_words(system("do not adopt", WORSE, HITS_DOWN), "ndcg@10") == (
        "Of 100 questions, 17 fewer find their page in the first ten (222 of the 400 asked, 289 before; 95 % interval: "
        "12 to 22 fewer)."
    )


@pytest.mark.parametrize(
    ("found", "clause"),
    [
        (system("adopt", BETTER, HITS_UNSURE), ", which alone is not proven; a gain in ndcg@10 is proven: right pages"),
        (system("adopt", BETTER, HITS_SAME), "with the base as with tuned (280 of the 400 asked); a gain in ndcg@10"),
        (system("adopt", BETTER, HITS_DOWN), ", but a gain in ndcg@10 is proven: right pages stand higher."),
        (system("do not adopt", WORSE, HITS_UNSURE), "; a loss in ndcg@10 is proven: right pages stand lower."),
        (system("do not adopt", WORSE, HITS_UP), "; a loss in ndcg@10 is proven: right pages stand lower."),
        (system("do not adopt", BETTER, HITS_UP), "; the reasons given speak against it."),
        (system("do not adopt", UNSURE, HITS_UNSURE, on_these=WORSE.test), " is proven for these documents: right"),
        (system("not proven", BETTER, HITS_UP), ", which proves no gain here, for the reasons given."),
        (system("not proven", UNSURE, HITS_UNSURE), "; a difference like this may be chance."),
        (system("not proven", UNSURE, HITS_UP), "; in ndcg@10, which decides, no difference is proven."),
        (system("not proven", UNSURE, HITS_SAME), "; in ndcg@10, too, no difference is proven."),
    ],
)
def test_where_the_figure_alone_is_no_result_both_levels_are_given_and_why(found, clause: str) -> None:
    words = in_words(found, "ndcg@10")
    assert clause in words
    assert words.startswith("Of 100 questions, ")
    assert not re.search(r"\b(more|fewer) find", words)


def test_more_is_said_of_no_system_that_is_not_adopted() -> None:
    hits, rows = (HITS_UP, HITS_DOWN, HITS_UNSURE, HITS_SAME), (BETTER, WORSE, UNSURE)
    for decision, row, hit in itertools.product(("adopt", "do not adopt", "not proven"), rows, hits):
        words = in_words(system(decision, row, hit), "ndcg@10")
        assert ("more find" in words) <= (decision == "adopt" and hit is HITS_UP), (decision, row, hit)
        assert ("fewer find" in words) <= (decision == "do not adopt" and hit is HITS_DOWN), (decision, row, hit)
        assert ("gain in" in words) <= (decision == "adopt" and row is BETTER)


@pytest.mark.parametrize(
    ("base", "tuned", "n", "ci95", "words"),
    [
        (0.50, 0.51, 400, (0.002, 0.018), "Of 100 questions, 1 more finds its page"),
        (0.50, 0.504, 10_000, (0.001, 0.007), "Of 1,000 questions, 4 more find their page"),
        (0.50, 0.5003, 90_000, (0.0001, 0.0005), "Of 10,000 questions, 3 more find their page"),
        (0.50, 0.645, 200, (0.09, 0.2), "Of 100 questions, 15 more"),  # 14.5; in floats 14.499999999999998
        (0.50, 0.51, 400, (0.002, 0.018), "95 % interval: 0.2 to 1.8 more"),
        (0.10, 0.90, 20, (0.4, 1.3), "95 % interval: 40 to 100 more"),  # no more than all
    ],
)
def test_small_differences_are_told_of_as_many_questions_as_it_takes(base, tuned, n, ci95, words: str) -> None:
    assert words in in_words(system("adopt", BETTER, metric("hit_rate@10", base, tuned, ci95, n=n)), "ndcg@10")


@pytest.mark.parametrize(
    ("names", "primary", "place"),
    [
        (("hit_rate@1", "hit_rate@10", "hit_rate@100"), "ndcg@10", "in the first ten"),
        (("hit_rate@1", "hit_rate@3"), "ndcg@10", "in the first three"),
        (("hit_rate@1",), "ndcg@10", "in first place"),
        (("hit_rate@50",), "ndcg@10", "in the first 50"),
        (("hit_rate@1", "hit_rate@10"), "hit_rate@1", "in first place"),  # the one that decides
    ],
)
def test_the_hit_rate_that_is_told(names, primary: str, place: str) -> None:
    rows = [metric(name, 0.5, 0.7, (0.1, 0.3)) for name in names]
    assert f"20 more find their page {place}" in in_words(system("adopt", BETTER, *rows), primary)


def test_without_a_hit_rate_the_reasons_stand_alone() -> None:
    assert in_words(system("adopt", BETTER), "ndcg@10") == ""
    dataset = many_queries(30)
    result = compare(noisy_report(dataset, 1.6), noisy_report(dataset, 0.9), metrics=["ndcg@10"], n_resamples=200)
    assert result.sentences(result.systems[0]) == result.systems[0].reasons


def test_what_forgets_is_not_sold_by_its_gain() -> None:
    dataset = many_queries(600, per_document=1)
    base, tuned = noisy_report(dataset, 1.6, label="base"), noisy_report(dataset, 0.9, label="tuned")
    result = compare(base, tuned, guard={"general": (tuned, base)}, n_resamples=500)
    assert result.decision == "do not adopt"
    assert result.metrics["hit_rate@10"].outcome == "gain"
    assert "but what is lost on general rules tuned out." in result.verdict
    assert "more find" not in result.verdict


def test_every_artefact_says_the_same_words_and_an_amended_decision_changes_them(tmp_path) -> None:
    from rich.console import Console

    dataset = many_queries(600, per_document=1)
    base, tuned = noisy_report(dataset, 1.6, label="base"), noisy_report(dataset, 0.9, label="tuned")
    result = compare(base, tuned, n_resamples=200)
    n = result.metrics["hit_rate@10"].test.n
    hits = [round(n * report.mean("hit_rate@10")) for report in (base, tuned)]
    assert f"({hits[1]} of the 600 asked, {hits[0]} before;" in result.verdict
    for found in (result, result.amended(decision="not proven", reasons=["The questions are made up."])):
        words = found.sentences(found.systems[0])[0]
        assert found.verdict.startswith(words)
        content = json.loads(json.dumps(found.to_dict(), allow_nan=False))
        assert content["in_words"] == content["systems"][0]["in_words"] == words
        assert content["verdict"] == found.verdict
        assert content["metrics"]["ndcg@10"]["meaning"] == meaning_of("ndcg@10")
        assert found.decision_record()["in_words"] == words
        found.to_html(tmp_path / "r.html")
        assert words in (tmp_path / "r.html").read_text()
        assert words in found.to_markdown()
        assert words in found._repr_html_()
        assert ("more find" in words) == (found.decision == "adopt")
        console = Console(width=100, record=True, file=(tmp_path / "out").open("w"))
        console.print(found.to_rich())
        assert "ndcg@10" in console.export_text()


def test_a_summary_of_several_systems_names_each_once() -> None:
    dataset = many_queries()
    base = noisy_report(dataset, 1.6, label="base")
    reports = [noisy_report(dataset, noise, label=label) for noise, label in ((0.9, "a"), (1.6, "b"), (0.7, "c"))]
    result = compare(base, *reports, noisy_report(dataset, 9.0, label="d"), n_resamples=500)
    assert [system.decision for system in result.systems] == ["adopt", "not proven", "adopt", "do not adopt"]
    words = summary(result)
    assert words.startswith("Proven better than base: a, c. Not to be adopted: d. Not proven: b. The highest ndcg@10")
    assert f"among these has c ({reports[2].mean('ndcg@10'):.3f})" in words
    assert result.to_markdown().startswith(words)
    assert summary(compare(base, reports[0], n_resamples=200)) == ""
    none = compare(base, reports[1], reports[1], n_resamples=200)
    assert summary(none).startswith("Of 2 systems none is proven better than base.")
    with pytest.raises(EvaluationError, match="no system 'x' in this comparison; it has 'b', 'b \\(2\\)'"):
        none.amended(chosen="x")


@pytest.mark.parametrize(
    "name", ["hit_rate@1", "mrr@10", "ndcg@7", "map@100", "recall@5", "precision@3", "r_precision"]
)
def test_every_metric_is_explained_in_one_line(name: str) -> None:
    assert re.fullmatch(r"[A-Z][^{}]{20,110}\.", meaning_of(name))
    assert meaning_of("own_judge") == ""


def test_what_a_switch_costs() -> None:
    full = SwitchingCost(texts=2_595, seconds=300, dollars=0.004, latency=(0.0123, 0.0123), memory=(10**9, 3 * 10**9))
    assert replace(full, measured_on="2 CPU cores").sentences() == (
        "2,595 texts must be embedded anew: 5 min, under $0.01.",
        "A query takes 12 ms (median), as before.",
        "It needs 3.0 GB of memory, before 1.0 GB.",
        "Measured on 2 CPU cores.",
    )
    assert SwitchingCost(texts=0).sentences() == ("Nothing is embedded anew: the index stays as it is.",)
    assert SwitchingCost(texts=1).sentences() == ("1 text must be embedded anew.",)
    assert SwitchingCost(dollars=12).sentences() == ("All texts must be embedded anew: $12.00.",)
    assert SwitchingCost(measured_on="a laptop").sentences() == ()
    assert json.loads(json.dumps(full.to_dict()))["latency"] == [0.0123, 0.0123]
    assert "measured_on" not in full.to_dict()
    with pytest.raises(ConfigError, match=r"`seconds` is -1; it must be at least 0\."):
        SwitchingCost(seconds=-1)
    with pytest.raises(ConfigError, match="`latency` is nan"):
        SwitchingCost(latency=(0.1, float("nan")))


def test_costs_reach_every_artefact() -> None:
    dataset = many_queries(30)
    result = compare(noisy_report(dataset, 1.6), noisy_report(dataset, 0.9, label="tuned"), n_resamples=50)
    result = result.amended(costs={"tuned": SwitchingCost(texts=0)}, data="Asked by users.")
    assert result.to_dict()["systems"][0]["cost"]["in_words"] == ["Nothing is embedded anew: the index stays as it is."]
    assert result.decision_record()["cost"] == {"texts": 0, "in_words": list(SwitchingCost(texts=0).sentences())}
    assert result.to_dict()["data"]["from"] == result.decision_record()["data"] == "Asked by users."
    assert "Nothing is embedded anew" in result.to_markdown()


# --- the decision and its reasons -------------------------------------------------------------------------------------


def paired(difference: float, p: float, interval=(-0.01, 0.05), *, n: int = 400, clusters: int = 100, **fields):
    wins, losses = (30, 10) if difference > 0 else (10, 30) if difference < 0 else (0, 0)
    values = {"standard_error": 0.01, "effect_size": 0.1, "detectable": 0.03, "wins": wins, "losses": losses, **fields}
    return PairedResult(difference, interval, p, n=n, n_clusters=clusters, ties=n - wins - losses, **values)


def row_of(test: PairedResult, p: float | None = None, alpha: float = 0.05) -> MetricComparison:
    p = test.p if p is None else p
    return MetricComparison("ndcg@10", 0.45, 0.45 + test.difference, test, p, outcome_of(test, p, alpha))


def decided(test: PairedResult, *, p: float | None = None, clustered: str = "document", guards=(), alpha=0.05, **rest):
    row = row_of(test, p, alpha)
    return decide(row, row.outcome, row.p_holm, guards, clustered, alpha=alpha, **rest)


def test_what_may_be_said_hangs_on_the_level_and_on_changes() -> None:
    assert outcome_of(paired(0.02, 0.049), 0.049, 0.05) == "gain"
    assert outcome_of(paired(-0.02, 0.049), 0.049, 0.05) == "loss"
    assert outcome_of(paired(0.02, 0.05), 0.05, 0.05) == "not significant"
    assert outcome_of(paired(0.0, 0.2), 0.2, 0.05) == "same"
    assert outcome_of(paired(0.0, 0.2, wins=1), 0.2, 0.05) == "not significant"
    assert outcome_of(paired(0.0, 0.2, losses=1), 0.2, 0.05) == "not significant"


GAIN = paired(0.02, 0.004, (0.005, 0.035))
LOSS = paired(-0.02, 0.0004, (-0.035, -0.005))
NEITHER = paired(0.02, 0.2)


@pytest.mark.parametrize(
    ("test", "options", "decision", "sentence"),
    [
        (GAIN, {}, "adopt",
         "Significant gain: ndcg@10 0.450 → 0.470, +2.0 points (95 % interval +0.5 to +3.5, p = 0.004, 400 "
         "queries about 100 documents)."),
        (GAIN, {"p": 0.012}, "adopt",
         "Significant gain: ndcg@10 0.450 → 0.470, +2.0 points (95 % interval +0.5 to +3.5, p = 0.012 after "
         "Holm's correction, 400 queries about 100 documents)."),
        (LOSS, {"clustered": "chunk"}, "do not adopt",
         "Significant loss: ndcg@10 0.450 → 0.430, -2.0 points (95 % interval -3.5 to -0.5, p < 0.001, 400 "
         "queries about 100 chunks)."),
        (NEITHER, {"alpha": 0.1}, "not proven",
         "Not significant: ndcg@10 0.450 → 0.470, +2.0 points (90 % interval -1.0 to +5.0, p = 0.200, 400 "
         "queries about 100 documents) may be chance; this set cannot show a gain under 3.0 points."),
        (paired(0.0, 0.2), {"clustered": "query"}, "not proven",
         "No difference in ndcg@10: every one of 400 queries scores the same."),
        (paired(0.5, 0.2, (-1.4, 1.2), clusters=1, n=1_234), {"clustered": "given"}, "not proven",
         "Not significant: ndcg@10 0.450 → 0.950, +50.0 points (95 % interval -100.0 to +100.0, p = 0.200, "
         "1,234 queries in 1 group) may be chance; this set cannot show a gain under 3.0 points."),
        (paired(0.02, 1.0, (float("-inf"), float("inf")), clusters=1), {}, "not proven",
         "Not significant: ndcg@10 0.450 → 0.470, +2.0 points, but 400 queries about 1 document cannot be "
         "told from chance; evaluate queries about more documents, at least 8."),
        (paired(0.02, 0.3, clusters=600, detectable=1.0, standard_error=0.04), {}, "not proven",
         "Not significant: ndcg@10 0.450 → 0.470, +2.0 points (95 % interval -1.0 to +5.0, p = 0.300, 400 "
         "queries about 600 documents) may be chance; this set cannot show a gain of any size; about 5,000 "
         "documents like these would show a gain of 5 points."),
        (paired(0.02, 0.3, clusters=600, detectable=1.0, standard_error=9.0), {"clustered": "query"}, "not proven",
         "Not significant: ndcg@10 0.450 → 0.470, +2.0 points (95 % interval -1.0 to +5.0, p = 0.300, 400 "
         "queries) may be chance; this set cannot show a gain of any size; evaluate more queries, at least 8."),
    ],
)  # fmt: skip
def test_a_decision_gives_its_figures(test, options, decision: str, sentence: str) -> None:
    assert decided(test, **options) == (decision, (sentence,))


@pytest.mark.parametrize(
    ("clusters", "on_these", "clustered", "decision", "sentence"),
    [
        (3, paired(-0.02, 0.03, clusters=400), "document", "do not adopt",
         "On these 3 documents themselves the loss is proven: -2.0 points, p = 0.030, 400 queries; whether "
         "other documents lose too is not shown."),
        (1, paired(-0.02, 0.0002, clusters=25), "document", "do not adopt",
         "On this document itself the loss is proven: -2.0 points, p < 0.001, 400 queries about 25 chunks; "
         "whether other documents lose too is not shown."),
        (3, paired(-0.02, 0.06), "given", "not proven", "On these 3 groups themselves no loss is proven either."),
    ],
)  # fmt: skip
def test_a_loss_on_these_very_documents_is_enough(clusters, on_these, clustered, decision, sentence) -> None:
    found = decided(paired(-0.02, 0.3, clusters=clusters), clustered=clustered, on_these=on_these)
    assert (found[0], found[1][1:]) == (decision, (sentence,))
    # What is proven in general needs no second look.
    assert decided(GAIN, on_these=paired(-0.02, 0.03)) == decided(GAIN)


def guard(kept: bool | None, **fields) -> GuardResult:
    test = paired(-0.004, 0.04, (-0.008, -0.0001))
    values = {"p_non_inferior": 0.0004, "on_these": None, **fields}
    return GuardResult("general", "recall@5", 0.8, 0.796, test, 0.01, kept=kept, **values)


KEPT = "Kept: recall@5 0.800 → 0.796, -0.4 points on general; a loss of 1 points is ruled out (p < 0.001)."
FORGOTTEN = (
    "Forgotten: recall@5 0.800 → 0.796, -0.4 points on general (p = 0.040); a loss of 1 points is not ruled out."
)
UNCLEAR = "Unclear: recall@5 0.800 → 0.796, -0.4 points on general; its 400 queries cannot rule out a loss of 1 points."


@pytest.mark.parametrize(
    ("test", "kept", "decision"),
    [
        (GAIN, [True, True], "adopt"),
        (GAIN, [True, False], "do not adopt"),
        (GAIN, [False, True], "do not adopt"),
        (GAIN, [None, True], "not proven"),
        (GAIN, [False, None], "do not adopt"),
        (NEITHER, [True], "not proven"),
        (NEITHER, [False], "do not adopt"),
        (LOSS, [None], "do not adopt"),
    ],
)
def test_a_gain_is_adopted_only_where_every_guard_is_kept(test, kept, decision: str) -> None:
    found = decided(test, guards=[guard(one) for one in kept])
    words = {True: KEPT, False: FORGOTTEN, None: UNCLEAR}
    assert (found[0], found[1][1:]) == (decision, tuple(words[one] for one in kept))


def test_a_guard_is_told_with_the_smaller_p() -> None:
    found = decided(GAIN, guards=[guard(False, on_these=paired(-0.004, 0.01))])[1]
    assert found[1] == FORGOTTEN.replace("p = 0.040", "p = 0.010")
    assert decided(GAIN, guards=[guard(False, on_these=paired(-0.004, 0.3))])[1][1] == FORGOTTEN


def test_what_loss_a_gate_lets_through() -> None:
    fine, blind = paired(-0.01, 0.3, clusters=3), paired(-0.01, 0.3, clusters=3, detectable=1.0)
    passes = "a smaller loss in ndcg@10 passes"
    rate = "more often than one time in five."
    assert unseen_loss(row_of(fine)) == f"Blind under 3.0 points: {passes} 400 queries {rate}"
    assert unseen_loss(row_of(blind)) == (
        "Blind: 400 queries cannot show a loss in ndcg@10 of any size; evaluate more queries and documents."
    )
    coarse = row_of(paired(-0.01, 0.3, clusters=3, detectable=0.5))
    assert unseen_loss(coarse) == f"Blind under 50.0 points: {passes} 400 queries {rate}"
    here = paired(-0.01, 0.3, clusters=30, detectable=0.012)  # the finer test sees more
    about = "400 queries about 3 documents"
    assert unseen_loss(row_of(blind), here) == f"Blind under 1.2 points: {passes} {about} {rate}"
    assert (
        unseen_loss(row_of(fine), replace(here, detectable=0.2)) == f"Blind under 3.0 points: {passes} {about} {rate}"
    )
    assert "3 chunks" in unseen_loss(row_of(fine), here, "chunk")


def test_figures_in_words() -> None:
    assert [points(value) for value in (0.0123, -0.1, 0.0)] == ["+1.2", "-10.0", "+0.0"]
    assert [interval_name(alpha) for alpha in (0.05, 0.1, 0.0125)] == [
        "95 % interval",
        "90 % interval",
        "98.75 % interval",
    ]
    assert [p_value(p) for p in (0.0009, 0.001, 0.04321)] == ["< 0.001", "0.001", "0.043"]
    assert [p_equals(p) for p in (0.0009, 0.001, 0.04321)] == ["p < 0.001", "p = 0.001", "p = 0.043"]
