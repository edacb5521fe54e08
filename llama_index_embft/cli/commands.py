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
from llama_index_embft.cli.mine import mine
from llama_index_embft.cli.run import run
from llama_index_embft.cli.shared.command import add_command
from llama_index_embft.cli.train.command import register_train

if TYPE_CHECKING:
    import typer


def register(app: typer.Typer) -> None:
    """Give the app its sub-commands."""
    app.command()(demo)
    for made_of_settings in (run, generate, mine):
        add_command(app, made_of_settings)
    register_train(app)
    app.command()(evaluate)
    app.command()(compare)
    add_command(app, apply)
    for using in (convert, export, migrate, dashboard):
        app.command()(using)
