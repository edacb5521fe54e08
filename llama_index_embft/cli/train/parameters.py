"""The options of ``embft train`` on the command line, made from the settings, and how ``--help`` shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import typer
from typer.core import TyperCommand
from typer.main import get_click_param
from typer.models import ParamMeta

from llama_index_embft.cli.train.options import EngineOption, engine_options
from llama_index_embft.cli.train.settings import OWN

if TYPE_CHECKING:
    from collections.abc import Iterator

_DATA_HELP: Final = "Training set (JSON with queries, corpus and relevant_docs)."
_COMMAND: Final = "Command"


class TrainCommand(TyperCommand):
    """Takes its options from the settings, all None unless given, and hands them to the function in one mapping."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "rich_markup_mode": None})
        self.params = [*_parameters(), *self.params]

    def invoke(self, ctx: Any) -> Any:
        """Put what was given where the function finds it: `typer.Context.obj`."""
        ctx.obj, ctx.params = ctx.params, {}
        return super().invoke(ctx)

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


def _parameters() -> Iterator[Any]:
    yield _parameter("data", str, typer.Argument(None, help=_DATA_HELP))
    for name, (kind, text) in OWN.items():
        # Numbers are read below, with a message of ours.
        metavar = None if kind is bool else "PATH" if kind.__name__ == "Path" else kind.__name__.upper()
        yield _parameter(name, bool if kind is bool else str, typer.Option(None, help=text, metavar=metavar))
    for option in engine_options().values():
        if option.name not in OWN:
            info = typer.Option(None, help=_help(option), metavar=_metavar(option), rich_help_panel=option.title)
            yield _parameter(option.name, bool if option.is_flag else str, info)


def _parameter(name: str, kind: type, info: Any) -> Any:
    return get_click_param(ParamMeta(name=name, default=info, annotation=kind | None))[0]


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
