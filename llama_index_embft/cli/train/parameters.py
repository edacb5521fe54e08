"""The options of ``embft train`` on the command line, made from the settings, and how ``--help`` shows them."""

from __future__ import annotations

from dataclasses import field, make_dataclass
from inspect import getdoc
from typing import TYPE_CHECKING, Any, Final

import typer
from typer.core import TyperCommand

from llama_index_embft.cli.train.command import train
from llama_index_embft.cli.train.options import EngineOption, engine_options
from llama_index_embft.cli.train.settings import OWN

if TYPE_CHECKING:
    from collections.abc import Iterator

_DATA_HELP: Final = "Training set (JSON with queries, corpus and relevant_docs)."
_COMMAND: Final = "Command"


def register_train(app: typer.Typer) -> None:
    """Give the app its command ``train``.

    Args:
        app: Of the command line.
    """
    # Typer makes the options from the fields, all None unless given, so that a flag can be told from a default.
    flags = make_dataclass("TrainFlags", _fields())
    app.command("train", cls=TrainCommand, help=getdoc(train))(flags)


class TrainCommand(TyperCommand):
    """Trains with the flags that were given."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "rich_markup_mode": None})

    def invoke(self, ctx: Any) -> None:
        """Train; Typer's own part ends with an object that holds the flags."""
        train(vars(super().invoke(ctx)))

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """By subject and as plain text: a table of 80 columns would cut the names of the options."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                sections.setdefault(getattr(parameter, "rich_help_panel", None) or _COMMAND, []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


def _fields() -> Iterator[tuple[str, Any, Any]]:
    """Name, type and default of each parameter, as `make_dataclass` takes them."""
    yield "data", str | None, field(default=typer.Argument(None, help=_DATA_HELP, show_default=False))
    for name, (kind, text) in OWN.items():
        metavar = None if kind is bool else "PATH" if kind.__name__ == "Path" else kind.__name__.upper()
        info = typer.Option(None, help=text, metavar=metavar, show_default=False)
        # Numbers and paths are read below, with messages of ours.
        yield name, (bool if kind is bool else str) | None, field(default=info)
    for option in engine_options().values():
        if option.name not in OWN:
            info = typer.Option(
                None, help=_help(option), metavar=_metavar(option), rich_help_panel=option.title, show_default=False
            )
            yield option.name, (bool if option.is_flag else str) | None, field(default=info)


def _help(option: EngineOption) -> str:
    defaults = {engine: _shown(value) for engine, value in option.defaults.items() if value not in (None, "", ())}
    if len(set(defaults.values())) == 1 and defaults.keys() == option.defaults.keys():
        said = f" Default: {next(iter(defaults.values()))}."
    elif defaults and "Default:" not in option.help:
        engines_of: dict[str, list[str]] = {}
        for engine, text in defaults.items():
            engines_of.setdefault(text, []).append(engine)
        said = " Default: " + ", ".join(f"{text} ({', '.join(names)})" for text, names in engines_of.items()) + "."
    else:
        said = ""
    others = [engine for engine in option.defaults if engine != "full"]
    only = f" Only with --method {' or '.join(others)}." if "full" not in option.defaults else ""
    text = option.help.replace("val_dataset", "--val").replace("guard_dataset", "--guard")
    return f"{text}{only}{said}"


def _shown(default: Any) -> str:
    return {True: "yes", False: "no"}[default] if isinstance(default, bool) else str(default)


def _metavar(option: EngineOption) -> str | None:
    if option.is_flag:
        return None
    kinds = [kind.upper() for kind in ("int", "float", "str", "list") if kind in option.kinds]
    return "|".join([*(kinds[1:] if "FLOAT" in kinds and "INT" in kinds else kinds), *map(str, option.choices)])
