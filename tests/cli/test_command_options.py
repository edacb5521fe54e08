"""A command's function takes settings objects: each field is an option, by one rule for all commands."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import typer
from typer.testing import CliRunner

from llama_index_embft._core.options import option
from llama_index_embft.cli.app import app as whole
from llama_index_embft.cli.shared.command import add_command
from llama_index_embft.cli.shared.options import options_of
from llama_index_embft.errors import ConfigError


@dataclass(frozen=True)
class Everything:
    """A settings class with a field of each kind."""

    count: int = option(3, "How many.")
    share: float | None = option(0.5, "Above `0`; none for no limit.")
    flag: bool = option(False, "Whether.")
    other: bool = option(True, "Whether not.")
    word: Literal["red", "blue"] = option("red", "Which.")
    place: Path | None = option(None, "Where.")
    dims: Sequence[int] = option((), "Lengths.")
    tags: list[str] | None = option(None, "Give it several times.")
    prices: tuple[float, float] | None = option(None, "Two numbers.")
    limit: int | None = option(None, "At most.")
    inner: Any = field(default=None)


@dataclass(frozen=True)
class Sized:
    limit: int | None = option(None, "Shared.")


def called(*arguments: object) -> dict[str, Any]:
    """What the function is called with."""
    seen: dict[str, Any] = {}

    def work(
        name: Annotated[str, typer.Argument(help="Of it.")],
        one: Annotated[Everything, "First"],
        limit: Annotated[int | None, typer.Option(help="Of both.")] = None,
        *,
        two: Annotated[Sized, "Second"],
    ) -> None:
        """Do it."""
        seen.update(name=name, one=one, limit=limit, two=two)

    app = typer.Typer()
    add_command(app, work)
    result = CliRunner().invoke(app, list(map(str, arguments)))
    if isinstance(result.exception, ConfigError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return seen or {"help": result.output}


def test_nothing_given_is_the_classes_defaults() -> None:
    assert called("x") == {"name": "x", "one": Everything(), "limit": None, "two": Sized()}


def test_each_kind_arrives_as_its_type() -> None:
    flags = ("--count", 4, "--share", "none", "--flag", "--no-other", "--word", "blue", "--place", "a/b", "--dims")
    more = ("8,4", "--tags", "x, y", "--tags", "z", "--prices", 1, 2.5, "--limit", 7)
    seen = called("x", *flags, *more)
    assert seen["one"] == Everything(4, None, True, False, "blue", Path("a/b"), [8, 4], ["x, y", "z"], (1.0, 2.5), 7)
    assert (seen["limit"], seen["two"]) == (7, Sized(7))  # one option for all of this name


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--count", "many"), "--count is 'many'; it must be a whole number."),
        (("--share", "x"), "--share is 'x'; it must be a number or none."),
        (("--word", "green"), "--word is 'green'; it must be red or blue."),
        (("--dims", "8,x"), "An item of --dims is 'x'; it must be a whole number."),
    ],
)
def test_another_kind_is_one_sentence(flags: tuple[str, str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        called("x", *flags)
    assert str(caught.value) == message


def test_help_shows_fields_by_subject_with_their_defaults() -> None:
    shown = called("--help")["help"]
    assert "First:" in shown
    assert "Above 0; none for no limit.  [default: 0.5]" in shown
    assert "--word red|blue" in shown
    assert "--other / --no-other" in shown
    assert "--no-flag" not in shown
    assert "inner" not in shown
    assert [one.name for one in options_of(Sized)] == ["limit"]


@pytest.mark.parametrize("command", ["generate", "mine", "apply", "train"])
def test_long_commands_cut_no_name_at_80_columns(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = CliRunner().invoke(whole, [command, "--help" if command == "apply" else "--help-all"]).output
    assert not re.search(r"--[\w-]*…", shown)
    assert "--trust-remote-code" in shown
