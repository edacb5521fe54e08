"""Few labels: prediction-powered intervals, pools of several systems, sheets for people, and an LLM that grades."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from evaluation_helpers import many_queries, noisy_report

from llama_index_embft._core.tables import from_spreadsheet_cell, spreadsheet_cell
from llama_index_embft.dataset import write_qrels
from llama_index_embft.errors import ConfigError, EvaluationError, GenerationError
from llama_index_embft.evaluation import (
    compare_by_judge,
    draw_questions,
    pool_results,
    prediction_powered_mean,
    read_labels,
    write_label_sheet,
)

# --- the interval ----------------------------------------------------------------------------------------------------


def judged_sample(rng, n=1000, labels=50, correlation=0.8, bias=0.15):
    people = 0.3 * rng.normal(size=n)
    machine = bias + 0.5 * (correlation * people + np.sqrt(1 - correlation**2) * 0.3 * rng.normal(size=n))
    human = np.full(n, np.nan)
    drawn = rng.choice(n, labels, replace=False)
    human[drawn] = people[drawn]
    return human, machine


@pytest.mark.simulation
@pytest.mark.parametrize("per_document", [1, 5])
def test_the_interval_holds_the_truth_with_a_biased_judge_and_is_as_narrow_as_theory_says(per_document):
    rng = np.random.default_rng(0)
    documents = np.repeat(np.arange(1000 // per_document), per_document) if per_document > 1 else None
    found = [prediction_powered_mean(*judged_sample(rng), documents) for _ in range(600)]
    held = np.mean([low <= 0.0 <= high for low, high in (one.interval for one in found)])
    assert 0.925 <= held <= 0.985  # 95 %, three standard errors to either side
    assert np.mean([one.gain for one in found]) < 0.7
    assert np.mean([one.estimate for one in found]) == pytest.approx(0.0, abs=0.01)
    assert np.mean([one.judge_mean for one in found]) == pytest.approx(0.15, abs=0.01)  # what the judge alone says
    assert np.mean([one.bias for one in found]) == pytest.approx(0.15, abs=0.01)


@pytest.mark.simulation
def test_questions_about_one_document_count_as_the_dependent_ones_they_are():
    rng = np.random.default_rng(0)
    owner = np.repeat(np.arange(40), 10)
    held, naive = 0, 0
    for _ in range(300):
        people = rng.normal(size=40)[owner] + 0.1 * rng.normal(size=400)
        human = np.full(400, np.nan)
        drawn = rng.choice(400, 100, replace=False)
        human[drawn] = people[drawn]
        machine = rng.normal(size=400)
        held += np.prod(prediction_powered_mean(human, machine, owner).interval) <= 0
        naive += np.prod(prediction_powered_mean(human, machine).interval) <= 0
    assert held / 300 > 0.9
    assert naive / 300 < 0.8


def test_a_judge_of_no_use_costs_next_to_nothing_and_one_that_never_varies_nothing():
    human, machine = judged_sample(np.random.default_rng(1), correlation=0.0)
    useless = prediction_powered_mean(human, machine)
    assert abs(useless.weight) < 0.5
    assert useless.gain < 1.1
    same = prediction_powered_mean(human, np.full(1000, 0.7))
    assert (same.weight, same.gain, same.estimate) == (0.0, 1.0, same.labels_only)


def test_labels_that_all_agree_leave_an_interval_that_is_not_empty():
    human = np.full(500, np.nan)
    human[:40] = 1.0
    found = prediction_powered_mean(human, np.ones(500))
    assert found.interval[1] - found.interval[0] > 0.04


@pytest.mark.simulation
def test_a_judge_that_agrees_on_few_rare_labels_is_not_taken_for_a_perfect_one():
    held = 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        people = (rng.random(400) < 0.05).astype(float)
        machine = np.where(rng.random(400) < 0.9, people, 1 - people)
        human = np.full(400, np.nan)
        drawn = rng.choice(400, 15, replace=False)
        human[drawn] = people[drawn]
        low, high = prediction_powered_mean(human, machine).interval
        held += low <= 0.05 <= high
    assert held / 400 >= 0.95


def test_labels_without_spread_are_valid_json():
    human = np.full(50, np.nan)
    human[:12] = 0.0
    found = prediction_powered_mean(human, np.random.default_rng(0).random(50))
    assert found.correlation is None
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["correlation"] is None


@pytest.mark.simulation
def test_the_number_of_labels_that_halves_the_interval_does():
    rng = np.random.default_rng(3)
    found = [prediction_powered_mean(*judged_sample(rng, n=4000, labels=40)) for _ in range(60)]
    wanted = int(np.median([one.labels_to_halve for one in found]))
    assert 100 < wanted < 400
    more = [prediction_powered_mean(*judged_sample(rng, n=4000, labels=wanted)) for _ in range(60)]

    def width(results):
        return np.median([one.interval[1] - one.interval[0] for one in results])

    assert width(more) / width(found) == pytest.approx(0.5, abs=0.05)
    few = prediction_powered_mean(*judged_sample(rng, n=60, labels=50))
    assert few.labels_to_halve is None  # all 60 labelled would not do it


def test_what_cannot_be_estimated_is_refused():
    human, machine = judged_sample(np.random.default_rng(1))
    few = human.copy()
    few[np.flatnonzero(np.isfinite(human))[9:]] = np.nan
    with pytest.raises(EvaluationError, match="labelled 9 independent questions; label at least 10"):
        prediction_powered_mean(few, machine)
    with pytest.raises(EvaluationError, match="labelled 1 independent documents"):
        prediction_powered_mean(human, machine, np.zeros(1000))
    with pytest.raises(EvaluationError, match="one shape"):
        prediction_powered_mean(human, machine[:-1])
    machine[3] = np.nan
    with pytest.raises(EvaluationError, match="a finite value for every question"):
        prediction_powered_mean(human, machine)
    with pytest.raises(ConfigError, match="`level` is 1"):
        prediction_powered_mean(human, human, level=1)


# --- pools and comparison --------------------------------------------------------------------------------------------


@pytest.fixture
def dataset():
    return many_queries(120, per_document=1)


@pytest.fixture
def reports(dataset):
    return [noisy_report(dataset, noise, seed=n, label=f"s{n}") for n, noise in enumerate((2.0, 1.0))]


def truth(dataset, pool, query_ids=None):
    """Grades of an assessor who sees everything: 3 for the right passage, 1 for its neighbours, else 0."""
    return {
        q: {doc: 3 if doc[1:] == q[1:] else int(abs(int(doc[1:]) - int(q[1:])) < 5) for doc in docs}
        for q, docs in pool.items()
        if query_ids is None or q in query_ids
    }


def too_kind(grades, seed=0):
    rng = np.random.default_rng(seed)
    return {q: {d: min(3, g + int(rng.random() < 0.4)) for d, g in of.items()} for q, of in grades.items()}


def test_the_pool_is_what_any_system_found_in_an_order_that_tells_nothing(reports):
    pool = pool_results(reports, 5)
    for query, docs in pool.items():
        tops = [set(r.hit_ids[r.row_of[query]][:5]) for r in reports]
        assert set(docs) == tops[0] | tops[1]
        assert list(docs) == sorted(docs)
    drawn = draw_questions(pool, 30)
    assert drawn == draw_questions(pool, 60)[:30] != sorted(drawn)


def test_a_better_system_is_found_with_few_labels_and_a_judge_that_is_too_kind(dataset, reports):
    pool = pool_results(reports, 10)
    everything = truth(dataset, pool)
    labelled = draw_questions(pool, 50)
    found = compare_by_judge(reports, too_kind(everything), {q: everything[q] for q in labelled})
    full = compare_by_judge(reports, too_kind(everything), everything)
    better = found.systems[1]
    assert better.outcome == "better"
    low, high = better.difference.interval
    assert low < full.systems[1].difference.labels_only < high
    assert found.systems[0].difference is None
    assert better.value.judge_mean != pytest.approx(full.systems[1].value.labels_only, abs=0.01)
    assert better.value.n_labels == 50
    assert "s1" in found.table().to_text()
    assert any("as wide as by the labels alone" in line for line in found.sentences())
    assert json.loads(json.dumps(found.to_dict()))["systems"][1]["outcome"] == "better"


def test_ndcg_takes_grades_as_gains_and_others_a_grade_of_two(dataset, reports):
    from llama_index_embft.evaluation import evaluate_run

    pool = pool_results(reports, 10)
    grades = truth(dataset, pool)
    for metric, least in (("ndcg@10", 1), ("hit_rate@10", 2), ("mrr@10", 2)):
        found = compare_by_judge(reports, too_kind(grades), grades, metric=metric)
        relevant = {q: {d: g if least == 1 else 1 for d, g in of.items() if g >= least} for q, of in grades.items()}
        run = {
            q: {doc: -float(place) for place, doc in enumerate(reports[1].hit_ids[reports[1].row_of[q]])} for q in pool
        }
        kept = {q: of for q, of in relevant.items() if of}
        expected = evaluate_run(kept, run, ks=(10,)).mean(metric) * len(kept) / len(pool)
        assert found.systems[1].value.labels_only == pytest.approx(expected)


REFUSED = {
    "other questions": (
        lambda rs, d: [rs[0], noisy_report(many_queries(60, per_document=1), 1.0)],
        "are over different questions",
    ),
    "other passages": (lambda rs, d: [rs[0], replace(rs[1], corpus_hash="x")], "searched different passages"),
    "never ran": (
        lambda rs, d: [rs[0], replace(rs[1], errors=dict.fromkeys(rs[1].query_ids, "no"))],
        "failed on every question and never ran",
    ),
    "found nothing": (
        lambda rs, d: [rs[0], replace(rs[1], hit_ids=((),) * 120, hit_scores=((),) * 120)],
        "found nothing for any question",
    ),
    "too few hits": (lambda rs, d: [rs[0], noisy_report(d, 1.0, ks=(1, 3))], "fewer than the 10 to be judged"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_systems_that_cannot_be_compared_are_refused(dataset, reports, case):
    make, message = REFUSED[case]
    with pytest.raises(EvaluationError, match=message):
        pool_results(make(reports, dataset), 10)


def test_grades_that_mean_nothing_are_refused(dataset, reports):
    pool = pool_results(reports, 10)
    grades = truth(dataset, pool)
    human = {q: grades[q] for q in draw_questions(pool, 40)}
    query, doc = next((q, docs[0]) for q, docs in pool.items() if q in human)
    judge = too_kind(grades)
    for wrong, message in (
        ((judge, {**human, query: {**human[query], doc: 4}}), "People gave 4 to"),
        (({**judge, query: {**judge[query], doc: 2.5}}, human), "The judge gave 2.5 to"),
        ((judge, {**human, "nobody": {"c001": 1}}), "People labelled the query 'nobody', which is not in the reports"),
        ((judge, {**human, query: {doc: 1}}), "is labelled in part"),
        (({q: dict.fromkeys(of, 2) for q, of in judge.items()}, human), "gave 2 to everything"),
        (({q: judge[q] for q in list(judge)[:100]}, human), "left 20 of 120 questions without all their grades"),
    ):
        with pytest.raises(EvaluationError, match=message):
            compare_by_judge(reports, *wrong)
    some = {q: judge[q] for q in list(judge)[3:]}
    assert "3 questions were left out" in compare_by_judge(reports, some, human).notes[0]
    with pytest.raises(ConfigError, match="no cut-off"):
        compare_by_judge(reports, judge, human, metric="r_precision")


@pytest.mark.parametrize("metric", ["ndcg@5", "recall@5"])
def test_questions_for_which_nothing_was_found_score_0_without_a_label(dataset, reports, metric):
    pool = pool_results(reports, 5)
    lost = set(draw_questions(pool, 60, seed=1))

    def without(report):
        kept = [() if q in lost else hits for q, hits in zip(report.query_ids, report.hit_ids, strict=True)]
        return replace(report, hit_ids=tuple(kept))

    fewer = [without(report) for report in reports]
    grades = {q: docs for q, docs in truth(dataset, pool).items() if q not in lost}
    labels = {q: grades[q] for q in list(grades)[::2]}
    found = compare_by_judge(fewer, too_kind(grades), labels, metric=metric)
    kept = compare_by_judge(fewer, {**too_kind(grades), **{q: {} for q in lost}}, labels, metric=metric)
    assert found.to_dict() == kept.to_dict()
    full = compare_by_judge(fewer, grades, grades, metric=metric).systems[0].value
    assert full.n_labels == full.n == 120
    value = found.systems[0].value
    assert (value.n, value.n_labels) == (120, 60)  # as many of the others as people labelled: the half
    assert value.labels_only == pytest.approx(full.labels_only, abs=0.1)
    assert any("For 60 questions no system found anything" in note for note in found.notes)


# --- sheets ----------------------------------------------------------------------------------------------------------


def test_a_sheet_comes_back_graded_from_a_spreadsheet_of_any_language(tmp_path):
    file = tmp_path / "sheet.csv"
    pool = {"=q1": ("d1", "d2"), "q2": ("d3",)}
    texts = {"d1": '=HYPERLINK("x")', "d2": "two\nlines; more", "d3": "三"}
    assert write_label_sheet(file, pool, ["=q1", "q2"], {"=q1": "one?", "q2": "two?"}, texts) == 3
    rows = list(csv.DictReader(file.read_text(encoding="utf-8-sig").splitlines(keepends=True)))
    assert [row["passage"] for row in rows] == ['\'=HYPERLINK("x")', "two\nlines; more", "三"]
    assert all(not row["passage"].startswith("=") and not row["query_id"].startswith("=") for row in rows)
    with pytest.raises(EvaluationError, match="exists and may hold grades"):
        write_label_sheet(file, pool, ["q2"], {}, {})
    with pytest.raises(EvaluationError, match="holds no grade yet"):
        read_labels(file)
    with file.open("w", newline="", encoding="utf-8-sig") as out:
        writer = csv.DictWriter(out, rows[0].keys(), delimiter=";")
        writer.writeheader()
        for row, grade in zip(rows, ("3", " 0 ", ""), strict=True):
            writer.writerow({**row, "grade": grade})
    assert read_labels(file) == {"=q1": {"d1": 3, "d2": 0}}
    file.write_text("query_id,document_id,grade\nq,d,good\n")
    with pytest.raises(EvaluationError, match="line 2: the grade is 'good'"):
        read_labels(file)
    file.write_text("query,document_id,grade\nq,d,1\n")
    with pytest.raises(EvaluationError, match="no column 'query_id'"):
        read_labels(file)
    (tmp_path / "l.qrels").write_text("q1 0 d1 3\nq1 0 d2 0\n")
    assert read_labels(tmp_path / "l.qrels") == {"q1": {"d1": 3, "d2": 0}}


@pytest.mark.parametrize(
    "texts",
    [
        ("q", "d", "one\rtwo"),
        ("q\rx", "d\r\nx", "p"),
        ("'q", "=d", "'p"),
        ("'=q", "''=d", "x"),
        ("-1", "+x", "\u2028a\x1cb"),
    ],
)
def test_what_was_graded_is_what_was_asked_whatever_it_is_written_with(tmp_path, texts):
    query, doc, passage = texts
    assert write_label_sheet(tmp_path / "s.csv", {query: (doc,)}, [query], {query: "a?"}, {doc: passage}) == 1
    written = (tmp_path / "s.csv").read_bytes().removesuffix(b'""\n').removesuffix(b"\n")
    (tmp_path / "s.csv").write_bytes(written + b"2\n")
    assert read_labels(tmp_path / "s.csv") == {query: {doc: 2}}


def test_no_two_texts_have_one_cell():
    texts = ["=q", "'=q", "''=q", "'q", "q", "-1", "'-1", "-x", "'-x", "'", "", "''"]
    cells = [spreadsheet_cell(text) for text in texts]
    assert len(set(cells)) == len(texts)
    assert [from_spreadsheet_cell(cell) for cell in cells] == texts
    assert not any(cell.startswith(("=", "+", "-x")) for cell in cells)


def test_a_long_passage_in_a_sheet_is_read(tmp_path):
    (tmp_path / "s.csv").write_text("query_id,document_id,text,grade\nq,d," + "x" * 200_000 + ",1\n")
    before = csv.field_size_limit(131_072)
    try:
        assert read_labels(tmp_path / "s.csv") == {"q": {"d": 1}}
    finally:
        csv.field_size_limit(before)


def test_a_sheet_that_is_no_csv_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr("llama_index_embft.evaluation.label_sheet.allow_long_cells", lambda: None)
    (tmp_path / "s.csv").write_text("query_id,document_id,grade\nq," + "x" * 2000 + ",1\n")
    before = csv.field_size_limit(1000)
    try:
        with pytest.raises(EvaluationError, match="after line 1 it is no CSV: field larger than field limit"):
            read_labels(tmp_path / "s.csv")
    finally:
        csv.field_size_limit(before)


# --- the judge and the command ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "grade"),
    [
        ("2", 2), ("##final score: 3", 3), ("Grade: 1/3", 1), ("M: 2\nT: 1\nO: 2", 2), ("3 out of 3", 3),
        ("**Final grade:** 0", 0), ("分数：2", 2), ({"grade": 1}, 1), ("<think>3? no</think>1", 1),
        ("Final grade: 1 (a grade of 3 would need the exact answer)", 1), ("Overall, 2 sentences mention it.\n0", 0),
        ("**Final Grade:** 1\n\nIt does not reach a score of 3 because", 1), ("grade 3 would do; no.\nGrade: 0.", 0),
        ("Relevance: 3\nOverall score: 2", 2), ("Score (0-3): 2", 2), ('{"grade": 2.0}', 2), ({"grade": 2.0}, 2),
        ("Grade: １", 1), ("The score is 2\n\nNote: score 3 = exact answer", 2), ("Grade: 2, since it says so", 2),
        ("最终分数为2。", 2), ("评分：2分，因为不清楚", 2), ("Grade 2", 2), ("Score: 2 (out of 3)", 2),
    ],
)  # fmt: skip
def test_a_grade_is_read_where_it_is_certain(answer, grade):
    from llama_index_embft.generation.grading import read_grade

    assert read_grade(answer) == grade


@pytest.mark.parametrize(
    "answer",
    [
        "I'd say 2-3", "4", "10", "great", "Score: 2.5", "2\n3", "-1", "between 0 and 3", {}, "Score: 2 out of 10",
        "grade 3 is not deserved; I give 0", "Score: 2/10", "Score: 2 (out of 10 points)", "Rating: 1 star of 5",
        "Score: 3\nGrade: 1", "Grade: 3\n1", "评分：2（满分10分）", "grade: -1", "Score: 2-3", {"grade": 2.5},
        {"grade": True}, "Final grade: 2\nFinal grade: 1", "Score: 10", "Score: 2 out of 10\n2", "grade: 1st",
    ],
)  # fmt: skip
def test_what_is_no_grade_is_not_guessed(answer):
    from llama_index_embft.calls.failures import UnusableAnswerError
    from llama_index_embft.generation.grading import read_grade

    with pytest.raises(UnusableAnswerError):
        read_grade(answer)


@pytest.fixture
def embft(monkeypatch, capsys):
    from llama_index_embft.cli.app import main

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["embft", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as stopped:
            main()
        said = capsys.readouterr()
        return stopped.value.code, said.out, said.err

    return call


@pytest.fixture
def files(tmp_path, monkeypatch, dataset, reports):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EMBFT_CACHE_DIR", str(tmp_path / "cache"))
    dataset.save_json("data.json")
    for report in reports:
        report.to_json(f"{report.label}.json")
    return tmp_path


def test_from_the_sheet_to_the_verdict_with_an_llm(files, embft, dataset, reports):
    from loopback_llm import Behaviour, LoopbackLLM

    code, out, err = embft(
        "judge", "s0.json", "s1.json", "--data", "data.json", "--sheet", "s.csv", "--sample", 40, "--primary", "ndcg@5"
    )
    assert code == 0, err
    assert "40 of 120 questions drawn" in out
    sheet = list(csv.DictReader(Path("s.csv").read_text(encoding="utf-8-sig").splitlines()))
    assert len({row["query_id"] for row in sheet}) == 40
    with Path("s.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, sheet[0].keys())
        writer.writeheader()
        for row in sheet:
            writer.writerow({**row, "grade": 3 if row["query_id"][1:] == row["document_id"][1:] else 0})

    def answer(request):
        asked = request.prompt
        if "<query>" not in asked:
            return None
        thing = asked.partition("<query>")[2].partition("?")[0].split()[-1]
        return Behaviour(text="3" if f"thing {thing}\n" in asked.partition("<passage>")[2] else "1")

    with LoopbackLLM(script=answer, refuse_tools=True) as server:
        llm = ["--llm-model", "judge-1", "--api-base", server.api_base, "--yes"]
        arguments = ["judge", "s0.json", "s1.json", "--data", "data.json", "--labels", "s.csv", "--primary", "ndcg@5"]
        code, out, err = embft(*arguments, *llm, "--save-grades", "j.qrels", "--json")
        assert code == 0, err
        first = server.count
        again = embft(*arguments, *llm, "--json")[1]
        assert server.count - first < 3  # the journal answers
    record = json.loads(out)
    assert json.loads(again)["systems"] == record["systems"]
    assert record["systems"][1]["outcome"] == "better"
    assert record["systems"][0]["value"]["n_labels"] == 40
    assert record["pairs"] == sum(map(len, pool_results(reports, 5).values()))
    code, out, _ = embft(*arguments, "--grades", "j.qrels", "--report", "r.json")
    assert code == 0
    assert json.loads(Path("r.json").read_text())["systems"] == record["systems"]
    assert "the interval is" in out


def test_a_judge_that_answers_nonsense_and_one_without_labels_are_refused(files, embft, reports):
    from loopback_llm import Behaviour, LoopbackLLM

    arguments = ["judge", "s0.json", "s1.json", "--data", "data.json", "--primary", "ndcg@1"]
    code, _, err = embft(*arguments, "--yes")
    assert code == 2
    assert "A judge alone is biased by an unknown amount" in err
    assert embft(*arguments, "--dry-run")[1].startswith("120 questions, ")
    few = {q: dict.fromkeys(docs, 1) for q, docs in list(pool_results(reports, 1).items())[:12]}
    rows = [f"{q},{doc},{grade}" for q, of in few.items() for doc, grade in of.items()]
    Path("l.csv").write_text("\n".join(["query_id,document_id,grade", *rows]))
    Path("one.csv").write_text("\n".join(["query_id,document_id,grade", *rows[:1]]))
    code, _, err = embft(*arguments, "--yes", "--labels", "one.csv")  # before anything is asked
    assert code == 2
    assert "is labelled in part" in err or "People labelled 1 questions; label at least 10" in err
    with LoopbackLLM(script=lambda _: Behaviour(text="I like it."), refuse_tools=True) as server:
        llm = ["--llm-model", "judge-2", "--api-base", server.api_base, "--yes", "--labels", "l.csv"]
        code, _, err = embft(*arguments, *llm)
    assert code == 2
    assert "no grade from 0 to 3 in 'I like it.'" in err
    write_qrels({q: dict.fromkeys(docs, 1) for q, docs in pool_results(reports, 1).items()}, "same.qrels")
    code, _, err = embft(*arguments, "--labels", "l.csv", "--grades", "same.qrels", "--save-grades", "kept.qrels")
    assert "so it tells nothing apart" in err
    assert Path("kept.qrels").read_text() == Path("same.qrels").read_text()  # what was paid for is not lost
    many_queries(30).save_json("other.json")
    code, _, err = embft("judge", "s0.json", "--data", "other.json", "--sheet", "x.csv")
    assert code == 2
    assert "is not in the data set; give the one that the reports were made on" in err


def test_a_passage_without_text_is_named():
    from llama_index.core.llms import MockLLM

    from llama_index_embft.generation import grade_passages

    with pytest.raises(GenerationError, match="The passage 'd' has no text"):
        grade_passages({"q": ["d"]}, {"q": "x"}, {}, MockLLM())
