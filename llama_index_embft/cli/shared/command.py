"""Commands made of functions: their parameters, and each field of a settings object, are the options."""

from __future__ import annotations

import re
from dataclasses import field, fields, is_dataclass, make_dataclass
from inspect import Parameter, get_annotations, getdoc, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, get_args

import typer
from typer.core import TyperArgument, TyperCommand

from llama_index_embft._core.checks import first_line
from llama_index_embft.cli.shared.config import options_in
from llama_index_embft.cli.shared.console import print_record, set_output
from llama_index_embft.cli.shared.options import Option, options_of, shortened
from llama_index_embft.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

Flag = tuple[str, Any, Any]  # name, type and default, as `dataclasses.make_dataclass` takes them

_SHARED_TITLE: Final = "Every command"
_SHARED: Final[tuple[Flag, ...]] = (
    ("json", Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else.")], False),
    ("quiet", Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")], False),
    (
        "verbose",
        Annotated[int, typer.Option("--verbose", "-v", count=True, help="Log what is done; -vv: in detail.")],
        0,
    ),
)
CONFIG_HELP: Final = "YAML file with options (batch_size: 32); what you type wins."
_OF_EVERY: Final = frozenset({"config", "help", "help_all", *(name for name, *_ in _SHARED)})
_ALL: Final = "embft.help_all"
_CONFIG: Final = "embft.config"
# The first sentence of a help text, and what it says of the default.
_SHORT: Final = re.compile(r"\A.*?[.](?=\s|\Z)|Default: .*?[.](?=\s|\Z)", re.DOTALL)


def add_command(
    app: typer.Typer, function: Callable[..., Mapping[str, Any] | None], *, common: tuple[str, ...] = ()
) -> None:
    """Give the app a command that calls a function.

    Args:
        app: Of the command line.
        function: Its docstring is the help; lines below ``Examples:`` stay as they are. A parameter is an option or
            argument as typer reads it from the annotation, or a settings object, ``Annotated[SettingsClass, "Title of
            its options"]``. A field of the name of another parameter gets that one's value, and a field without help
            is no option. What it returns is the record that ``--json`` prints; an ``exit_code`` in
            it is the command's. A function with an attribute
            ``register`` adds its command itself.
        common: See `register`.
    """
    if hasattr(function, "register"):
        function.register(app)
        return
    # Python 3.10's get_type_hints puts an annotation beside `= None` into an Optional, where nobody finds it.
    hints = get_annotations(function, eval_str=True)
    flags: dict[str, Flag] = {}
    settings: dict[str, tuple[type, dict[str, Option]]] = {}
    for name, parameter in signature(function).parameters.items():
        kind, title = (*get_args(hints[name]), None)[:2] if get_args(hints[name]) else (hints[name], None)
        if not is_dataclass(kind):
            default = field() if parameter.default is Parameter.empty else parameter.default
            flags[name] = name, hints[name], default
            continue
        options = {made.name: made for made in options_of(kind, title)}  # type: ignore[arg-type]
        settings[name] = kind, options  # type: ignore[assignment]
        for option in options.values():
            flags.setdefault(option.name, option.parameter())

    def run(values: Mapping[str, Any], given: Mapping[str, Any]) -> Mapping[str, Any] | None:
        arguments = {name: values[name] for name in values if name in hints}
        for name, (kind, options) in settings.items():
            own = {
                part.name: given[part.name]
                if part.name in hints
                else options[part.name].convert(given[part.name], options[part.name].flag)
                for part in fields(kind)
                if part.name in given
            }
            arguments[name] = kind(**own)
        return function(**arguments)

    made = {name: option for _, options in settings.values() for name, option in options.items() if name not in hints}
    register(app, function.__name__, getdoc(function), [*flags.values(), _config(made)], run, common=common)


def _config(options: Mapping[str, Option]) -> Flag:
    """The option ``--config``, whose values stand where nothing is typed."""

    def read(ctx: typer.Context, path: Path | None) -> Path | None:
        if path is not None and not ctx.resilient_parsing:
            ctx.default_map, ctx.meta[_CONFIG] = options_in(path, ctx.command.params, options)
        return path

    info = typer.Option("--config", metavar="FILE", callback=read, is_eager=True, help=CONFIG_HELP)
    return "config", Annotated[Path | None, info], None


def register(
    app: typer.Typer,
    name: str,
    text: str | None,
    flags: Iterable[Flag],
    run: Callable[[Mapping[str, Any], Mapping[str, Any]], Mapping[str, Any] | None],
    *,
    common: tuple[str, ...] = (),
) -> None:
    """Give the app a command.

    Args:
        app: Of the command line.
        name: Of the command.
        text: Its help.
        flags: Its options.
        run: Called with the value of every option, and with those alone that were given. Returns the record.
        common: Names of the options that ``--help`` shows, with the first sentence of each; ``--help-all`` shows all.
            Empty: ``--help`` shows all.
    """
    help_text, _, examples = (text or "").partition("\n\nExamples:\n")
    own = {"run": staticmethod(run), "common": common, "examples": examples}
    everything = [*flags, *_SHARED, *([_HELP_ALL] if common else [])]
    # Typer reads a command's options from a signature, and the `__init__` of a data class is one.
    app.command(name, cls=type("Command", (OptionsCommand,), own), help=help_text)(
        make_dataclass("Flags", everything, kw_only=True)
    )


class OptionsCommand(TyperCommand):
    """A command of this package; `register` makes a class of it for each."""

    run: ClassVar[Callable[[Mapping[str, Any], Mapping[str, Any]], Mapping[str, Any] | None]]
    common: ClassVar[tuple[str, ...]] = ()
    examples: ClassVar[str] = ""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "rich_markup_mode": None})

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the options; what is wrong with a value of the file names the file."""
        try:
            return list(super().parse_args(ctx, args))
        except typer.BadParameter as err:
            named = getattr(getattr(err, "param", None), "name", None)
            if named not in (ctx.default_map or {}) or ctx.get_parameter_source(named).name == "COMMANDLINE":
                raise
            value, reason = shortened(ctx.default_map[named]), first_line(err)
            reason = reason[:1].lower() + reason[1:]
            raise ConfigError(f"{named} in {ctx.params['config']} is {value}; {reason}.") from err

    def invoke(self, ctx: Any) -> None:
        """Run; typer's own part makes an object of the values."""
        values = vars(super().invoke(ctx))
        set_output(as_json=values["json"], quiet=values["quiet"], verbose=values["verbose"])
        sources = {name: ctx.get_parameter_source(name) for name in values}
        given = {name: values[name] for name, source in sources.items() if source.name != "DEFAULT"}
        record = type(self).run(values, {**ctx.meta.get(_CONFIG, {}), **given})
        if record is not None:
            print_record(record)
            if record.get("exit_code"):
                raise typer.Exit(record["exit_code"])

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """By subject and as plain text: a table of 80 columns would cut the names of the options."""
        short = bool(self.common) and not ctx.meta.get(_ALL)
        sections: dict[str, list[tuple[str, str]]] = {"Options" if short else "Command": []}
        for parameter in _ordered(self.get_params(ctx), self.common) if short else self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None:
                continue
            title = getattr(parameter, "rich_help_panel", None) or next(iter(sections))
            if short:
                must = ["[required]"] if parameter.required and not isinstance(parameter, TyperArgument) else []
                words = " ".join([*_SHORT.findall(record[1]), *must]) or record[1]
                record, title = (record[0], words), next(iter(sections))
            title = _SHARED_TITLE if parameter.name in _OF_EVERY else title
            sections.setdefault(title, []).append(record)
        shared = sections.pop(_SHARED_TITLE)
        for title, records in (*sections.items(), (_SHARED_TITLE, shared)):
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Examples, which nobody should have to join again after a line break."""
        del ctx
        if self.examples:
            with formatter.section("Examples"):
                for line in self.examples.splitlines():
                    formatter.write(f"{'':>{formatter.current_indent}}{line.strip()}\n")


def _ordered(parameters: Iterable[Any], common: tuple[str, ...]) -> list[Any]:
    named = {parameter.name: parameter for parameter in parameters}
    return [named[name] for name in (*common, *(name for name in named if name in _OF_EVERY)) if name in named]


def _show_all(ctx: typer.Context, asked: bool) -> None:
    if asked and not ctx.resilient_parsing:
        ctx.meta[_ALL] = True
        typer.echo(ctx.get_help())
        raise typer.Exit


_HELP_ALL: Final[Flag] = (
    "help_all",
    Annotated[
        bool, typer.Option("--help-all", callback=_show_all, is_eager=True, help="Show every option, and all about it.")
    ],
    False,
)
