"""Which function is which command."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_index_embft.cli.apply import apply
from llama_index_embft.cli.compare import compare
from llama_index_embft.cli.convert import convert
from llama_index_embft.cli.dashboard import dashboard
from llama_index_embft.cli.demo import demo
from llama_index_embft.cli.evaluate import evaluate
from llama_index_embft.cli.export import export
from llama_index_embft.cli.generate import generate
from llama_index_embft.cli.migrate import migrate
from llama_index_embft.cli.mine import MineCommand, mine
from llama_index_embft.cli.run import run
from llama_index_embft.cli.train.command import train

if TYPE_CHECKING:
    import typer
    from typer.core import TyperCommand


def register(app: typer.Typer) -> None:
    """Give the app its sub-commands."""
    with_settings: dict[object, type[TyperCommand]] = {mine: MineCommand}
    for command in (demo, run, generate, mine, train, evaluate, compare, apply, convert, export, migrate, dashboard):
        app.command(cls=with_settings.get(command))(command)
