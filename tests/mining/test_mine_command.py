"""``embft mine`` on a tiny model: files come out, and mistakes are one sentence."""

from __future__ import annotations

import json

import pytest
import typer
from typer.testing import CliRunner

from llama_index_embft.cli.mine import _write_export, mine
from llama_index_embft.cli.shared.command import add_command
from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
from llama_index_embft.errors import ConfigError


@pytest.fixture
def data(tmp_path):
    words = ["amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heron", "inlet", "jetty", "knoll", "larch"]
    dataset = EmbeddingQAFinetuneDataset(
        queries={f"q{i}": f"where is {word}" for i, word in enumerate(words)},
        corpus={f"d{i}": f"{word} stands on page {i} of the book" for i, word in enumerate(words)},
        relevant_docs={f"q{i}": [f"d{i}"] for i in range(len(words))},
    )
    dataset.save_json(tmp_path / "data.json")
    return tmp_path


def invoke(*args):
    app = typer.Typer()
    add_command(app, mine)
    return CliRunner().invoke(app, [str(arg) for arg in args])


def test_the_command_writes_the_data_set_the_exports_and_the_reports(data, tiny_model_path):
    result = invoke(
        *(data / "data.json", "--embed-model", tiny_model_path, "--num-negatives", 3),
        *("--strategy", "rank:1-8", "--strategy", "random", "--html", data / "r.html", "--report", data / "r.json"),
        *("--export", f"triplets={data / 't.jsonl'}", "--export", f"ntuples={data / 'n.jsonl'}"),
    )
    assert result.exit_code == 0, result.output
    mined = EmbeddingQAFinetuneDataset.from_json(data / "data-mined.json")
    assert {len(docs) for docs in mined.negative_docs.values()} == {3}
    assert len((data / "t.jsonl").read_text().splitlines()) == 36
    assert set(json.loads((data / "n.jsonl").read_text().splitlines()[0])) == {
        *("anchor", "positive", "negative_1", "negative_2", "negative_3")
    }
    assert json.loads((data / "r.json").read_text())["n_negatives"] == 36
    assert "36 negatives for 12 queries" in result.output
    assert f"Written: {data / 'r.html'}" in result.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--strategy", "judge"], "name it with --llm-model"),
        (["--strategy", "hardest"], "no strategy 'hardest'"),
        (["--export", "csv=x.csv"], "write FORMAT=FILE with one of pairs, ntuples"),
        (["--export", "triplets=x.txt"], "the file must end in one of .jsonl, .json, .parquet, .csv, .tsv"),
        (["--export", "flag-embedding=x.csv"], "the file must end in one of .jsonl, .json, .parquet."),
        (["--search", "flat"], "--search is 'flat'; it must be exact or hnsw or ivf"),
        (["--similarity", "l2"], "--similarity is 'l2'; it must be cosine or dot"),
        (["--near-duplicates", "2"], "`near_duplicates` is 2.0; it must be above 0 and at most 1"),
        (["--near-duplicates", "much"], "--near-duplicates is 'much'; it must be a number or none"),
        (["--parts", "2"], "--parts is for --ray ADDRESS"),
        (["--num-negatives", "12"], "no query can have 12"),
    ],
)
def test_mistakes_are_one_sentence_and_write_nothing(data, tiny_model_path, options, message):
    result = invoke(data / "data.json", "--embed-model", tiny_model_path, "--out", data / "mined.json", *options)
    assert isinstance(result.exception, ConfigError)
    assert message in str(result.exception)
    assert not (data / "mined.json").exists()


def test_a_folder_in_the_place_of_a_file_shows_before_the_work(data):
    for option in (("--out", data), ("--report", data), ("--export", f"pairs={data / 'x.csv'}")):
        (data / "x.csv").mkdir(exist_ok=True)
        result = invoke(data / "data.json", "--embed-model", "no such model", *option)
        assert "it is a folder; give the name of a file" in str(result.exception)


def test_an_export_says_how_many_queries_it_lacks(tmp_path, capsys):
    _write_export(iter([{"anchor": "a", "positive": "x"}] * 2), tmp_path / "x.jsonl", {"a", "b", "c"})
    assert "x.jsonl: 2 rows; 2 of 3 queries give none" in " ".join(capsys.readouterr().out.split())


def test_a_judge_is_paid_after_a_question_alone(data, tiny_model_path):
    server = ("--llm", "openai-like", "--llm-model", "m", "--api-base", "http://127.0.0.1:9/v1")
    judge = ("--embed-model", tiny_model_path, "--strategy", "rank:1-5", "--strategy", "judge", *server)
    result = invoke(data / "data.json", *judge)
    assert isinstance(result.exception, ConfigError)
    assert str(result.exception) == (
        "This would call the LLM and there is no terminal to confirm; pass --yes, or --max-cost with --prices."
    )
    assert "The LLM will get: 60 calls for 60 pairs, at most, about " in result.output  # 12 queries, 5 candidates each
    result = invoke(data / "data.json", *judge, "--max-cost", 0.001, "--prices", 100, 100)
    assert "raise it, or give a narrower window, such as --strategy rank:10-30." in str(result.exception)
    assert not (data / "data-mined.json").exists()
