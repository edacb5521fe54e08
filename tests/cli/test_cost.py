"""What an LLM would be asked is said in the words of the command, before it is paid."""

from __future__ import annotations

import pytest

from llama_index_embft.calls import CallSettings
from llama_index_embft.cli.shared.console import set_output
from llama_index_embft.cli.shared.cost import confirm_cost
from llama_index_embft.errors import ConfigError
from llama_index_embft.generation import GenerationEstimate

PAID = CallSettings(prices=(2.0, 4.0), requests_per_minute=10)


def estimate(calls: int = 30) -> GenerationEstimate:
    return GenerationEstimate.counted(calls, 5, 3000, 10, PAID, "passages")


def test_an_estimate_names_what_is_counted():
    assert str(estimate()) == (
        "30 calls for 35 passages (5 from the journal), about 3,000 + 300 tokens, about $0.01, at least 120 s by the "
        "rate limits"
    )


def test_quiet_hides_it_and_no_calls_say_nothing(capsys):
    try:
        for quiet, said in ((False, "The LLM will get: 30 calls for 35 passages"), (True, "")):
            set_output(as_json=False, quiet=quiet, verbose=0)
            confirm_cost(estimate(), yes=True, max_cost=None)
            assert capsys.readouterr().err[: len(said) or None] == said
            confirm_cost(estimate(0), yes=False, max_cost=None)
            assert capsys.readouterr().err == ""
    finally:
        set_output(as_json=False, quiet=False, verbose=0)


def test_above_the_most_the_advice_is_the_commands():
    with pytest.raises(ConfigError, match=r"more than --max-cost 0\.001; raise it, or judge fewer hits\."):
        confirm_cost(estimate(), yes=True, max_cost=0.001, cheaper="judge fewer hits")


def test_a_question_in_a_terminal_is_asked_under_quiet_too(monkeypatch, capsys):
    import sys

    import typer

    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr(typer, "confirm", lambda *_, **__: False)
    try:
        set_output(as_json=False, quiet=True, verbose=0)
        with pytest.raises(typer.Exit):
            confirm_cost(estimate(), yes=False, max_cost=None)
    finally:
        set_output(as_json=False, quiet=False, verbose=0)
    assert "The LLM will get: 30 calls" in capsys.readouterr().err
