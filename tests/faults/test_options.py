"""Options of the commands: one name and one default for one thing."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from llama_index_embft import SentenceTransformersFinetuneEngine
from llama_index_embft.cli.app import app
from llama_index_embft.cli.commands import COMMANDS


@pytest.fixture(scope="module")
def application() -> typer.Typer:
    return app


@pytest.fixture(scope="module")
def options(application: typer.Typer) -> dict[str, dict[str, Any]]:
    """Command -> long option -> the parameter."""
    group: Any = typer.main.get_command(application)
    return {
        name: {flag: parameter for parameter in command.params for flag in parameter.opts if flag.startswith("--")}
        for name, command in ((name, group.get_command(None, name)) for name in COMMANDS)
    }


def test_d15_the_model_is_the_embedding_model_and_the_llm_has_an_option_of_its_own(options) -> None:
    asking = {name for name, flags in options.items() if "--llm" in flags}
    assert {"run", "generate", "mine"} <= asking
    assert all("--llm-model" in options[name] for name in asking)
    assert all("--embed-model" in options[name] for name in ("run", "train", "evaluate", "mine"))
    assert not {name for name, flags in options.items() if "--model" in flags}


def test_d15_one_thing_has_one_name_and_one_default(options) -> None:
    flags = {flag for of_command in options.values() for flag in of_command}
    assert {"--questions-per-chunk", "--requests-per-minute", "--chunk-size", "--chunk-overlap", "--seed"} <= flags
    assert not {"--rpm", "--tpm", "--random-state"} & flags
    for flag, expected in {"--chunk-size": 256, "--chunk-overlap": 32, "--seed": 0}.items():
        found = {name: of_command[flag].default for name, of_command in options.items() if flag in of_command}
        assert set(found.values()) - {None} == {expected}, (flag, found)  # None: the default of what is called
    assert inspect.signature(SentenceTransformersFinetuneEngine).parameters["seed"].default == 0


@pytest.mark.parametrize(
    "command", ["train", "run", "generate", "mine", "evaluate", "compare", "apply", "convert", "export"]
)
def test_d15_help_shows_every_flag_whole_at_80_columns(application, options, command) -> None:
    shown = (
        CliRunner()
        .invoke(
            application,
            [command, "--help-all" if "--help-all" in options[command] else "--help"],
            env={"COLUMNS": "80", "TERM": "dumb"},
        )
        .output
    )
    words = set(re.findall(r"--[a-z0-9-]+", shown))
    hidden = {flag for flag, parameter in options[command].items() if getattr(parameter, "hidden", False)}
    assert set(options[command]) - hidden - words == set()


def test_d11_a_table_alone_gets_advice_for_the_command_line(application, tiny_model_path, tmp_path) -> None:
    table = tmp_path / "faq.csv"
    rows = [f'"How do I reset {name}?","Open the portal, then wait for a mail."' for name in ("Atlas", "Borealis")]
    table.write_text("question,answer\n" + "\n".join(rows), "utf-8")
    arguments = ["run", str(table), "--embed-model", tiny_model_path, "--out", str(tmp_path / "out")]
    said = str(CliRunner().invoke(application, arguments).exception)
    assert "faq.csv is a table" in said
    assert "`embft convert faq.csv questions.json`" in said
