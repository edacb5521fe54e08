"""A verdict holds from one document to ten thousand: one test a fault of the rule before this one."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from llama_index_embft import EmbeddingAdapterFinetuneEngine, EmbeddingQAFinetuneDataset, load_embed_model, pipeline
from llama_index_embft.cli.measure.compare import compare as compare_command
from llama_index_embft.cli.shared.command import add_command
from llama_index_embft.crossfit import documents_asked, folds_by_document, plan_split
from llama_index_embft.errors import ConfigError, DatasetError
from llama_index_embft.evaluation import RetrievalReport, compare, evaluate_run
from llama_index_embft.evaluation.statistics import detectable_difference, paired_tests, unseen_loss
from llama_index_embft.export import ExportReport, ExportRow
from llama_index_embft.pipeline import split_for_tuning
from llama_index_embft.pipeline.trained import comparing


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


@pytest.mark.parametrize("n_documents", [2, 3, 4, 5, 6, 8])
def test_b1_a_verdict_can_fall_with_few_documents(n_documents: int) -> None:
    dataset = questions(n_documents)
    nothing, everything = (finds(dataset, np.full(len(dataset.queries), hit), str(hit)) for hit in (False, True))
    gain, loss = compare(nothing, everything), compare(everything, nothing)
    assert (loss.decision, loss.regressed()) == ("do not adopt", True)
    assert not re.search(r"\bnan\b|\binf", gain.verdict + loss.verdict)
    if n_documents >= 6:
        assert gain.decision == "adopt"
    else:  # they all agree by luck in more than one case of 40
        assert gain.decision == "not proven"
        assert f"{n_documents} documents cannot be told from chance; about 6 documents" in gain.verdict
        assert gain.to_dict()["metrics"]["ndcg@10"]["detectable"] is None


@pytest.mark.parametrize("sizes", ["equal", "unequal"])
@pytest.mark.parametrize("n_documents", [2, 3, 4, 5, 6, 7, 9, 12, 20, 40])
def test_b1_documents_won_or_lost_whole_by_luck_are_no_gain(n_documents: int, sizes: str) -> None:
    rng = np.random.default_rng(n_documents)
    held = np.full(n_documents, 20) if sizes == "equal" else np.arange(n_documents) * 37 % 11 * 4 + 1
    results = []
    for size in (0.05, 0.3, 1.0):
        won = size * rng.choice([-1.0, 1.0], (n_documents, 1000))
        results += paired_tests(won[np.repeat(np.arange(n_documents), held)], np.repeat(np.arange(n_documents), held))
    assert np.mean([test.p < 0.05 and test.difference > 0 for test in results]) <= 0.025
    assert np.mean([test.p < 0.05 and test.difference < 0 for test in results]) <= 0.025
    assert np.mean([test.interval[0] <= 0 <= test.interval[1] for test in results]) >= 0.95


def test_b1_two_systems_on_six_documents_are_corrected_for_each_other() -> None:
    dataset = questions(6, chunks=10)
    reports = [finds(dataset, np.full(60, hit), label) for hit, label in ((False, "0"), (True, "1"), (True, "2"))]
    assert compare(*reports[:2]).decision == "adopt"  # luck: 1 in 64
    assert compare(*reports).decision == "not proven"  # of two systems one: 1 in 32


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
    # Where nobody knows the documents of the passages, or they are given as groups, it sees it too.
    chunk = (
        dataset.replace(
            corpus={f"p{n}": f"passage {n}" for n in range(n_documents)},
            relevant_docs={query: [f"p{n % n_documents}"] for n, query in enumerate(dataset.queries)},
            source_documents={},
        )
        if n_documents > 1
        else dataset
    )
    assert compare(*(finds(chunk, np.full(len(chances), hit), str(hit)) for hit in (True, False))).regressed() is True
    groups = {query: query.partition("c")[0] for query in dataset.queries}
    assert compare(good, worse, cluster_by=groups).regressed() is True
    # A gate that lets a system pass says what it cannot see.
    (system,) = compare(good, finds(dataset, np.arange(len(chances)) > 0, "as good")).systems
    assert system.decision == "not proven"
    assert "Blind under" in unseen_loss(system.metrics["ndcg@10"], system.on_these)


@pytest.mark.parametrize("n_documents", [1, 3, 5, 12])
def test_b1_a_guard_of_few_documents_sees_a_collapse(n_documents: int) -> None:
    wide, few = questions(20, chunks=5), questions(n_documents, chunks=60 // n_documents)
    reports = [finds(wide, np.arange(100) < n, f"{n}") for n in (0, 100)]
    lost = [finds(few, np.full(len(few.queries), hit), str(hit)) for hit in (True, False)]
    result = compare(*reports, guard={"everyday": lost})
    assert result.systems[0].guards[0].kept is False
    assert (result.decision, result.regressed()) == ("do not adopt", True)
    assert re.search(r"Forgotten: .* points on everyday \(p < 0.001\)|Forgotten: .*\(p = 0.00", result.verdict)
    assert json.dumps(result.to_dict(), allow_nan=False)


def test_b1_the_gate_of_the_command_fails_or_says_what_it_cannot_see(tmp_path) -> None:
    dataset = questions(2, chunks=50)
    reports = {"good": np.ones(100, dtype=bool), "as good": np.arange(100) > 0, "broken": np.zeros(100, dtype=bool)}
    for name, found in reports.items():
        finds(dataset, found, name).to_json(tmp_path / f"{name}.json")

    app = typer.Typer()
    add_command(app, compare_command)

    def gate(name: str) -> Result:
        files = [str(tmp_path / "good.json"), str(tmp_path / f"{name}.json")]
        return CliRunner().invoke(app, [*files, "--fail-on-regression"])

    assert gate("broken").exit_code == 1
    passed = gate("as good")
    assert passed.exit_code == 0
    assert "Blind under" in passed.output


def test_b1_what_a_folder_can_show_is_said_before_training() -> None:
    assert "cannot show a gain for other documents; about" in str(plan_split(1, 500))
    few = plan_split(2, 40)
    assert "2 documents, too few to prove any gain: fewer than 6 may agree by luck; about 80 documents" in str(few)
    assert few.documents_wanted is not None
    assert [math.isfinite(detectable_difference(0.1, n)) for n in (1, 2, 5, 6, 7)] == [False, False, False, True, True]
    assert [plan_split(n, 20 * n).detectable < 1 for n in (2, 5, 6, 10)] == [False, False, True, True]
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


@pytest.fixture
def trainings(monkeypatch):
    """Every training of an adapter, as its engine, with the model that it handed out."""
    done = []
    real, load = EmbeddingAdapterFinetuneEngine.finetune, EmbeddingAdapterFinetuneEngine.get_finetuned_model

    def finetune(engine):
        done.append(engine)
        return real(engine)

    def get_finetuned_model(engine):
        engine.handed_out = load(engine)
        return engine.handed_out

    monkeypatch.setattr(EmbeddingAdapterFinetuneEngine, "finetune", finetune)
    monkeypatch.setattr(EmbeddingAdapterFinetuneEngine, "get_finetuned_model", get_finetuned_model)
    return done


@pytest.fixture
def measurements(monkeypatch):
    """Every measurement: the data set, and the model."""
    done = []
    real = comparing.evaluate_embed_model

    def evaluate(dataset, model, **options):
        done.append((dataset, model))
        return real(dataset, model, **options)

    monkeypatch.setattr(comparing, "evaluate_embed_model", evaluate)
    return done


@pytest.fixture
def gain(monkeypatch):
    """Every comparison finds a gain."""
    real = comparing.compare
    monkeypatch.setattr(comparing, "compare", lambda *a, **k: real(*a, **k).amended(decision="adopt"))


def run_on(n_documents, model_path, folder, **options):
    dataset = questions(n_documents, chunks=6)
    split, folds = pipeline.data_for_tuning(dataset)
    base = load_embed_model(model_path)
    return dataset, pipeline.tune_and_compare(
        split, base, folder, folds=folds, show_progress=False, engine_options={"epochs": 2, **options}
    )


@pytest.mark.parametrize("n_documents", [2, 3, 4])
def test_b1_a_run_on_few_documents_tests_every_question_and_trains_on_all(
    n_documents, trainings, measurements, tiny_model_path, tmp_path
) -> None:
    dataset, outcome = run_on(n_documents, tiny_model_path, tmp_path)
    assert outcome.folds == n_documents
    *of_folds, kept = trainings
    (base_data, _), *tested = measurements
    assert base_data.queries == dataset.queries
    assert len(of_folds) == len(tested) == n_documents
    for engine, (test, model) in zip(of_folds, tested, strict=True):
        seen = documents_asked(engine.dataset) | documents_asked(engine.val_dataset)
        assert not seen & documents_asked(test)
        assert len(seen) == n_documents - 1
        assert model is engine.handed_out
        assert not engine.dataset.queries.keys() & engine.val_dataset.queries.keys()
    assert sorted(query for test, _ in tested for query in test.queries) == sorted(dataset.queries)
    assert sorted([*kept.dataset.queries, *kept.val_dataset.queries]) == sorted(dataset.queries)
    assert documents_asked(kept.dataset) | documents_asked(kept.val_dataset) == documents_asked(dataset)
    assert len(kept.dataset.queries) > len(dataset.queries) / 2
    assert kept.model_output_path == str(tmp_path / "candidate")

    # The data that were used lie there, and nothing of the models of the folds.
    assert sorted(path.name for path in (tmp_path / "dataset").iterdir()) == [
        "all.json",
        "folds.json",
        "train.json",
        "val.json",
    ]
    everything = EmbeddingQAFinetuneDataset.from_json(tmp_path / "dataset" / "all.json")
    assert everything.content_hash() == dataset.content_hash()
    sides = json.loads((tmp_path / "dataset" / "folds.json").read_text("utf-8"))
    assert [side["test"] for side in sides] == [list(test.queries) for test, _ in tested]
    assert [side["train"] for side in sides] == [list(engine.dataset.queries) for engine in of_folds]
    assert not list(tmp_path.glob("folds*"))


@pytest.mark.parametrize("adopted", [True, False])
def test_b1_every_artefact_says_that_the_tuned_model_was_not_tested(
    adopted, request, tiny_model_path, tmp_path
) -> None:
    if adopted:
        request.getfixturevalue("gain")
    _, outcome = run_on(4, tiny_model_path, tmp_path, epochs=30, learning_rate=1e-2)
    assert outcome.result.improved
    assert outcome.adopted is adopted
    comparison, trained = outcome.comparison, outcome.result.output_path
    assert trained == tmp_path / ("model" if adopted else "candidate")
    report = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert report["tuned"]["folds"] == 4
    assert RetrievalReport.from_json(tmp_path / "reports" / "tuned.json").folds == 4
    again = compare(tmp_path / "reports" / "base.json", tmp_path / "reports" / "tuned.json")
    assert again.metrics["ndcg@10"].test == comparison.metrics["ndcg@10"].test
    sentence = "The tuned model of this run was trained on all documents afterwards and was itself not tested."
    page = (tmp_path / "report.html").read_text("utf-8")
    assert re.search(rf"<strong>{comparison.decision.capitalize()}</strong>", page)
    assert sentence in page
    assert sentence in " ".join(report["warnings"])
    assert any(sentence in note for note in comparison.notes)  # which the terminal prints
    assert report["decision"] == comparison.decision
    for folder in {trained, tmp_path / "model"}:
        record = json.loads((folder / "embft.json").read_text("utf-8"))
        assert (record["comparison"]["decision"], record["comparison"]["folds"]) == (comparison.decision, 4)
        assert record["data"]["train_queries"] + record["data"]["val_queries"] == 24
        assert sentence in " ".join(record["comparison"]["warnings"])
        card = (folder / "README.md").read_text("utf-8")
        assert f"**{comparison.decision.capitalize()}**, by ndcg@10." in card
        assert sentence in card


def test_b1_training_of_all_weights_is_cross_fitted_too(measurements, tiny_model_path, tmp_path) -> None:
    dataset = questions(2, chunks=6)
    split, folds = pipeline.data_for_tuning(dataset)
    base = load_embed_model(tiny_model_path)
    outcome = pipeline.tune_and_compare(
        split, base, tmp_path, folds=folds, method="full", show_progress=False, engine_options={"epochs": 1}
    )
    assert outcome.folds == 2
    assert [len(test.queries) for test, _ in measurements] == [12, 6, 6]
    assert outcome.comparison.systems[0].report.overlap == {}
    assert not list(tmp_path.glob("folds*"))
    record = json.loads((outcome.result.output_path / "embft.json").read_text("utf-8"))
    assert (record["kind"], record["comparison"]["folds"]) == ("full", 2)
    assert record["data"]["train_queries"] + record["data"]["val_queries"] == 12


def test_b1_a_way_that_helps_is_not_adopted_with_a_model_that_did_not_change(gain, tiny_model_path, tmp_path) -> None:
    _, outcome = run_on(4, tiny_model_path, tmp_path, epochs=1, learning_rate=1e-12)
    assert outcome.result.improved is False
    assert outcome.comparison.decision == "not proven"
    assert "there is no tuned model to adopt" in outcome.comparison.verdict


def test_b1_many_documents_and_one_document_are_not_cross_fitted() -> None:
    many = questions(500, chunks=5)
    split, folds = pipeline.data_for_tuning(many)
    assert folds == []
    assert not documents_asked(split.test) & documents_asked(split.train)
    split, folds = pipeline.data_for_tuning(questions(4, chunks=6), in_folds=False)
    assert folds == []
    assert pipeline.data_for_tuning(questions(4, chunks=6), by="chunk")[1] == []
    with pytest.raises(ConfigError, match="Cross-fitting divides by document"):
        pipeline.data_for_tuning(questions(4, chunks=6), by="chunk", in_folds=True)
    with pytest.raises(DatasetError, match="about one document only"):
        pipeline.data_for_tuning(questions(1, chunks=6))


def test_b1_an_export_that_few_documents_judge_has_a_table_and_plain_json(tmp_path) -> None:
    (test,) = paired_tests(np.full((40, 1), 0.2), np.repeat([0, 1], 20))
    found = {"quality": 0.5, "difference": test.difference, "ci95": test.interval, "p": test.p}
    row = ExportRow("onnx", None, 1.0, 1.0, 1.0, 1.0, **found, outcome="not significant")
    report = ExportReport(rows=(row,), metric="ndcg@10", queries=40, texts=40, device="cpu", comparison=None)
    assert re.search(r"\+0\.2000 +\| – +\|", str(report))
    report.to_json(tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text("utf-8"))["rows"][0]["ci95"] == [None, None]


@pytest.mark.parametrize("n_documents", [3, 4, 5, 6, 7, 8])
def test_b2_the_limit_belongs_to_the_test_that_decides(n_documents: int) -> None:
    rng = np.random.default_rng(0)
    documents = np.repeat(np.arange(n_documents), 100)
    (test,) = paired_tests(
        (0.30 + rng.normal(0, 0.02, n_documents)[documents] + rng.normal(0, 0.1, len(documents)))[:, None], documents
    )
    # 30 points, where sets of six documents like this one show 6 to 8, and those of fewer none.
    assert (test.p < 0.05) == (test.interval[0] > 0) == (test.detectable < test.difference) == (n_documents >= 6)
    assert math.isinf(test.detectable) == (n_documents < 6)


@pytest.mark.parametrize("n_documents", [6, 8, 12])
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
    assert np.mean([test.interval[0] <= 0 <= test.interval[1] for test in results]) >= 0.94
