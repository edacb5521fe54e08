"""``embft export``, from outside."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from llama_index_embft.cli.app import app
from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
from llama_index_embft.errors import ConfigError, DatasetError, ModelError, OutputError


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    EmbeddingQAFinetuneDataset(
        queries={f"q{n}": f"where is {n}" for n in range(6)},
        corpus={f"d{n}": f"{n} is here" for n in range(6)},
        relevant_docs={f"q{n}": [f"d{n}"] for n in range(6)},
    ).save_json("val.json")

    def call(*arguments: str):
        return CliRunner().invoke(app, ["export", *arguments], env={"COLUMNS": "160"})

    return call


def test_two_formats_in_one_table(run, tiny_model_path, tmp_path) -> None:
    formats = ["--format", "fp16", "--format", "bf16"]
    result = run(tiny_model_path, *formats, "--val", "val.json", "--out", "served", "--report", "table.json")
    assert result.exit_code == 0, result.output
    for word in ("torch", "fp16", "bf16", "ndcg@10", "texts/s", "Quality on 6 queries", "Written: served/fp16"):
        assert word in result.output
    assert (tmp_path / "served" / "bf16" / "model.safetensors").is_file()
    assert [row["format"] for row in json.loads((tmp_path / "table.json").read_text())["rows"]] == [
        "torch",
        "fp16",
        "bf16",
    ]


def test_a_reranker_is_held_against_its_logits(run, tiny_model_path) -> None:
    from llama_index_embft.embeddings import load_cross_encoder

    load_cross_encoder(tiny_model_path, add_head=True, device="cpu").save_pretrained("ce", create_model_card=False)
    result = run("ce", "--format", "fp16", "--val", "val.json", "--out", "served")
    assert result.exit_code == 0, result.output
    for word in ("pairs/s", "logit difference", "speed on 19 pairs", "Written: served"):
        assert word in result.output


def test_bad_input_is_one_sentence_before_the_work(run, tiny_model_path, tmp_path) -> None:
    (tmp_path / "file").write_text("mine")
    cases = [
        ((tiny_model_path, "--out", "m", "--format", "int3"), ConfigError, "must be one of 'fp16'"),
        ((tiny_model_path, "--out", "file"), OutputError, "a file has that name"),
        ((tiny_model_path, "--out", "m", "--val", "none.json"), DatasetError, "none.json"),
        (("no/such/model", "--out", "m"), ModelError, "does not exist"),
        ((tiny_model_path, "--out", "m", "--push-to-hub", "a/b/c"), ConfigError, "not the name of a repository"),
        (
            (tiny_model_path, "--out", "m", "--format", "fp16", "--format", "bf16", "--push-to-hub", "a/b"),
            ConfigError,
            "takes one --format",
        ),
    ]
    for arguments, kind, message in cases:
        result = run(*arguments)
        assert isinstance(result.exception, kind), (arguments, result.output, result.exception)
        assert message in str(result.exception)
    assert not (tmp_path / "m").exists()
