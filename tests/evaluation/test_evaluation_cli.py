"""The commands `evaluate` and `compare`: files in, files and exit codes out."""

from __future__ import annotations

import json
import re

import pytest
import typer
from evaluation_helpers import many_queries, noisy_report
from typer.testing import CliRunner

from llama_index_embft.cli.measure.compare import compare
from llama_index_embft.cli.measure.evaluate import evaluate
from llama_index_embft.cli.shared.command import add_command
from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
from llama_index_embft.errors import ConfigError, EvaluationError, OutputError
from llama_index_embft.evaluation import RetrievalReport


@pytest.fixture
def files(tmp_path):
    dataset = many_queries()
    dataset.save_json(tmp_path / "data.json")
    noisy_report(dataset, 1.6, label="base").to_json(tmp_path / "base.json")
    noisy_report(dataset, 0.9, label="tuned").to_json(tmp_path / "tuned.json")
    return tmp_path


def run(command, *args):
    app = typer.Typer()
    add_command(app, command)
    return CliRunner().invoke(app, [str(arg) for arg in args], env={"COLUMNS": "160"})


def test_compare_prints_and_writes(files) -> None:
    result = run(
        compare, files / "base.json", files / "tuned.json", "--data", files / "data.json", "--html", files / "r.html",
        "--report", files / "r.json", "--markdown", files / "r.md", "--slices", "kind", "--resamples", 300,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "ndcg@10" in result.output
    assert re.match(r"Adopt\. Of 100 questions, \d+", result.output)  # before the table and the statistics
    assert result.output.index("ndcg@10 ") < result.output.index("Significant gain")
    assert json.loads((files / "r.json").read_text())["decision"] == "adopt"
    assert "text about thing 1" in (files / "r.html").read_text()
    assert "| ndcg@10 |" in (files / "r.md").read_text()


def test_exit_code_tells_ci(files) -> None:
    base, tuned = files / "base.json", files / "tuned.json"
    fast = ("--resamples", 300)
    assert run(compare, base, tuned, "--fail-on-regression", *fast).exit_code == 0
    assert run(compare, tuned, base, "--fail-on-regression", *fast).exit_code == 1
    assert run(compare, tuned, base, *fast).exit_code == 0
    assert run(compare, base, base, "--fail-on-regression", *fast).exit_code == 0
    assert run(compare, base, base, "--fail-unless-better", *fast).exit_code == 1
    guarded = run(compare, base, tuned, "--guard", f"general={tuned},{base}", "--fail-on-regression", *fast)
    assert guarded.exit_code == 1
    assert "Forgotten" in guarded.output


def test_junit_fails_what_the_exit_code_fails(files, tmp_path) -> None:
    from xml.etree import ElementTree

    base, tuned, junit = files / "base.json", files / "tuned.json", tmp_path / "r.xml"

    def failures(*args):
        run(compare, *args, "--junit", junit, "--resamples", 300)
        suite = ElementTree.parse(junit).getroot()
        found = suite.findall("testcase/failure")
        assert int(suite.get("failures")) == len(found)
        assert int(suite.get("tests")) == len(suite.findall("testcase")) == 1
        return [failure.get("message") for failure in found]

    assert failures(base, tuned) == []
    assert failures(tuned, base) == ["do not adopt"]
    assert failures(base, base) == []
    assert failures(base, base, "--fail-unless-better") == ["not proven"]
    report = json.loads(tuned.read_text()) | {"label": "<t>\x00\x1b[31m\ud800\uffff & co"}
    tuned.write_text(json.dumps(report))
    assert failures(base, tuned) == []
    assert "<t>" in ElementTree.parse(junit).getroot().find("testcase").get("name")


def test_bad_input_is_an_error_of_ours(files) -> None:
    assert isinstance(run(compare, files / "data.json", files / "tuned.json").exception, EvaluationError)
    assert isinstance(run(compare, files / "none.json", files / "tuned.json").exception, EvaluationError)
    bad = run(compare, files / "base.json", files / "tuned.json", "--guard", "general")
    assert isinstance(bad.exception, ConfigError)
    assert "NAME=BASE.json,TUNED.json" in str(bad.exception)
    guard = ["--guard", f"general={files / 'base.json'},{files / 'tuned.json'}"]
    twice = run(compare, files / "base.json", files / "tuned.json", *guard, *guard)
    assert "--guard names 'general' twice" in str(twice.exception)


def test_what_is_read_is_never_written_over(files, tiny_model_path: str) -> None:
    before = {file: file.read_bytes() for file in files.iterdir() if file.is_file()}
    base, tuned, data = (files / name for name in ("base.json", "tuned.json", "data.json"))
    over = [
        run(compare, base, tuned, "--report", tuned),
        run(compare, base, tuned, "--data", data, "--html", files / "." / "data.json"),
        run(compare, base, tuned, "--guard", f"g={base},{tuned}", "--junit", base),
        run(compare, base, tuned, "--html", files / "x", "--markdown", files / "x"),
        run(evaluate, data, "--embed-model", tiny_model_path, "--out", data),
    ]
    for result in over:
        assert isinstance(result.exception, OutputError)
        assert "choose another name" in str(result.exception)
    assert {file: file.read_bytes() for file in files.iterdir() if file.is_file()} == before


def test_evaluate_prints_and_writes(files, tiny_dataset: EmbeddingQAFinetuneDataset, tiny_model_path: str) -> None:
    tiny_dataset.save_json(files / "tiny.json")
    result = run(
        evaluate, files / "tiny.json", "--embed-model", tiny_model_path,
        "--out", files / "o.json", "--csv", files / "o.csv",
        "--trec-run", files / "o.run", "--k", 1, "--k", 2, "--label", "mine", "--no-cache",
    )  # fmt: skip
    assert result.exit_code == 0, (result.output, result.exception)
    report = RetrievalReport.from_json(files / "o.json")
    assert (report.label, report.ks) == ("mine", (1, 2))
    assert (files / "o.csv").read_text().splitlines()[0].startswith("query_id,hit_rate@1,hit_rate@2")
    assert len((files / "o.run").read_text().splitlines()) == 6
