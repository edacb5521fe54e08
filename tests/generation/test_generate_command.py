"""``embft generate`` from documents to a data set, with the real client over HTTP."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from conftest_generation import KEY, make_nodes
from loopback_llm import Behaviour, LoopbackLLM
from typer.testing import CliRunner

from llama_index_embft.calls import make_llm
from llama_index_embft.cli.generate import generate
from llama_index_embft.cli.shared.command import add_command
from llama_index_embft.errors import ConfigError, DocumentError, EmbftError, MissingExtraError


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    for n, node in enumerate(make_nodes(6)):
        (folder / f"page{n}.txt").write_text(node.text, encoding="utf-8")
    return folder


def embft(*arguments: object) -> str:
    app = typer.Typer()
    add_command(app, generate)
    result = CliRunner().invoke(app, [str(argument) for argument in (*arguments, "--yes")])
    if isinstance(result.exception, EmbftError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_documents_become_a_data_set_and_running_again_asks_nothing(
    docs: Path, serve: Callable[..., LoopbackLLM], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server, out = serve(key=KEY), tmp_path / "train.json"
    command = [
        docs,
        "--llm",
        "openai-like",
        "--llm-model",
        "m",
        "--api-base",
        server.api_base,
        "--out",
        out,
        "--no-progress",
    ]
    (docs / "photo.jpg").write_bytes(b"x")
    said = embft(*command)
    assert "12 queries from 6 of 6 chunks" in said
    assert "Read 6 of 7 files as 6 documents.\nSkipped 1 file (of a kind that is not read): .jpg (1).\n" in said
    first = out.read_bytes()
    assert len(json.loads(first)["corpus"]) == 6
    assert "6 from the journal" in embft(*command)
    assert server.count == 6
    assert out.read_bytes() == first
    assert list(tmp_path.glob("train.*.json")) == []
    assert not any(KEY.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_examples_are_no_documents(docs: Path, tmp_path: Path) -> None:
    (docs / "asked.txt").write_text("how do I cancel?")
    with pytest.raises(ConfigError, match="lie among the documents, and would be read as one"):
        embft(docs, "--llm-model", "m", "--api-base", "http://127.0.0.1:9/v1", "--out", tmp_path / "t.json",
              "--examples", docs / "asked.txt")  # fmt: skip


def test_a_dry_run_calls_nothing(docs: Path, tmp_path: Path) -> None:
    output = embft(
        docs,
        "--llm-model",
        "m",
        "--api-base",
        "http://127.0.0.1:9/v1",
        "--out",
        tmp_path / "t.json",
        "--dry-run",
        "--prices",
        1,
        2,
    )
    assert "6 calls for 6 chunks" in output
    assert "about $0.00" in output
    assert not (tmp_path / "t.json").exists()


def test_a_dry_run_for_a_cluster_needs_none(docs: Path, tmp_path: Path) -> None:
    command = [
        docs,
        "--llm-model",
        "m",
        "--api-base",
        "http://127.0.0.1:9/v1",
        "--out",
        tmp_path / "t.json",
        "--dry-run",
    ]
    assert embft(*command, "--ray", "127.0.0.1:9", "--ray-workers", 4, "--no-progress") == embft(
        *command, "--no-progress"
    )


def test_every_option_reaches_the_llm(docs: Path, serve: Callable[..., LoopbackLLM], tmp_path: Path) -> None:
    (tmp_path / "real.txt").write_text("harbour opening hours\n\nvalve price\n", encoding="utf-8")
    server, out = (
        serve(script=lambda r: Behaviour(text="5") if "<query>" in r.prompt and "5 - " in r.prompt else None),
        tmp_path / "t.json",
    )
    embft(
        docs,
        "--llm-model",
        "m",
        "--api-base",
        server.api_base,
        "--out",
        out,
        "--questions-per-chunk",
        1,
        "--kind",
        "keyword=1",
        "--persona",
        "a pilot",
        "--examples",
        tmp_path / "real.txt",
        "--answers",
        "--negatives",
        1,
        "--judge",
        4,
        "--num-workers",
        2,
        "--requests-per-minute",
        1000,
        "--tokens-per-minute",
        1_000_000,
        "--retry-limit",
        2,
        "--temperature",
        0.5,
        "--no-progress",
    )
    asked = [request for request in server.requests if "<query>" not in request.prompt]
    assert len(asked) == 6
    assert all(word in asked[0].prompt for word in ("keyword query", "a pilot", "valve price", "Q: "))
    assert asked[0].body["temperature"] == 0.5
    judged = [request for request in server.requests if "5 - " in request.prompt]
    assert len(judged) == 6
    data = json.loads(out.read_text())
    assert len(data["queries"]) == len(data["reference_answers"]) == len(data["negative_docs"]) == 6
    assert len(data["corpus"]) == 12
    # Its own negatives in the file do not make it another call's file.
    embft(
        docs,
        "--llm-model",
        "m",
        "--api-base",
        server.api_base,
        "--out",
        out,
        "--questions-per-chunk",
        1,
        "--no-progress",
    )
    assert list(tmp_path.glob("t.*.json")) == []


def test_round_trip_by_a_model_folder(
    docs: Path, serve: Callable[..., LoopbackLLM], tmp_path: Path, tiny_model_path: str
) -> None:
    server, out = serve(), tmp_path / "t.json"
    command = [
        docs,
        "--llm-model",
        "m",
        "--api-base",
        server.api_base,
        "--out",
        out,
        "--no-progress",
        "--round-trip",
        tiny_model_path,
    ]
    assert "12 queries" in embft(*command, "--top-k", 6)  # six chunks: everything is in the top 6
    strict = embft(*command, "--top-k", 1)
    assert "round trip" in strict
    assert len(json.loads(out.read_text())["queries"]) < 12


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        (["--llm", "gpt"], ConfigError, "no LLM client 'gpt'; the clients are openai-like,"),
        (["--api-base", ""], ConfigError, "API base|address"),
        (["--kind", "question=many"], ConfigError, "share must be a number"),
        (["--kind", "riddle=1"], ConfigError, "`kinds` is 'riddle'"),
        (["--examples", "nowhere.txt"], DocumentError, "Cannot read the example queries nowhere.txt"),
        (["--judge", "9"], ConfigError, "`min_score` is 9; it must be at least 1 and at most 5"),
        (["--num-workers", "0"], ConfigError, "`num_workers` is 0; it must be at least 1"),
        (["--requests-per-minute", "0"], ConfigError, "`requests_per_minute` is 0; it must be at least 1: use None"),
        (["--llm", "google-genai"], EmbftError, "google-genai does not take an API base"),
        (
            ["--ray-workers", "2"],
            ConfigError,
            "--ray-workers is for --ray ADDRESS; leave it out, or give --ray ADDRESS",
        ),
        (["--ray", ""], ConfigError, "--ray has an empty address; give HOST:PORT"),
        (["--ray", "auto", "--ray-workers", "0"], ConfigError, "--ray-workers is 0; it must be 1 or more"),
        (["--ray", "auto", "--negatives", "1"], ConfigError, "--negatives is not worked on by a cluster; leave it out"),
    ],
)
def test_wrong_arguments_are_one_sentence(
    arguments: list[str], error: type[Exception], sentence: str, docs: Path, tmp_path: Path
) -> None:
    with pytest.raises(error, match=sentence) as caught:
        embft(
            docs,
            "--llm-model",
            "m",
            "--api-base",
            "http://127.0.0.1:9/v1",
            "--out",
            tmp_path / "t.json",
            "--no-progress",
            *arguments,
        )
    assert "\n" not in str(caught.value)


def test_openai_like_needs_an_address_and_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="needs the address of the server: --api-base"):
        make_llm("openai-like", "m")
    llm: Any = make_llm("openai-like", "m", api_base="http://h/v1", tools=True, context_window=1000)
    assert (llm.api_key, llm.metadata.context_window, llm.metadata.is_function_calling_model) == ("none", 1000, True)


def test_openai_takes_its_key_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, serve: Callable[..., LoopbackLLM], docs: Path, tmp_path: Path
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server = serve(key=KEY)
    embft(
        docs,
        "--llm",
        "openai",
        "--llm-model",
        "gpt-4o-mini",
        "--api-base",
        server.api_base,
        "--out",
        tmp_path / "t.json",
        "--no-progress",
    )
    assert server.count == 6


def test_a_client_that_is_not_installed_is_named() -> None:
    with pytest.raises(MissingExtraError, match="pip install llama-index-llms-ollama"):
        make_llm("ollama", "m")
