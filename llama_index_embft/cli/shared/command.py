"""Commands whose functions take settings objects: each field of one is an option."""

from __future__ import annotations

from dataclasses import field, fields, is_dataclass, make_dataclass
from inspect import Parameter, getdoc, signature
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from typer.core import TyperCommand

from llama_index_embft.cli.shared.options import Option, options_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import typer


def add_command(app: typer.Typer, function: Callable[..., None]) -> None:
    """Give the app a command that calls a function.

    Args:
        app: Of the command line.
        function: Its docstring is the help. A parameter is an option or argument as typer reads it from the
            annotation, or a settings object, ``Annotated[SettingsClass, "Title of its options"]``. A field of the
            name of another parameter gets that one's value, and a field without help is no option.
    """
    hints = get_type_hints(function, include_extras=True)
    flags: dict[str, tuple[str, Any, Any]] = {}
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

    def run(values: Mapping[str, Any], given: Mapping[str, Any]) -> None:
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
        function(**arguments)

    register(app, function.__name__, getdoc(function), flags.values(), run)


def register(
    app: typer.Typer,
    name: str,
    text: str | None,
    flags: Iterable[tuple[str, Any, Any]],
    run: Callable[[Mapping[str, Any], Mapping[str, Any]], None],
) -> None:
    """Give the app a command.

    Args:
        app: Of the command line.
        name: Of the command.
        text: Its help.
        flags: Name, type and default of each option, as `dataclasses.make_dataclass` takes them.
        run: Called with the value of every option, and with those alone that were given.
    """

    class Command(TyperCommand):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "rich_markup_mode": None})

        def invoke(self, ctx: Any) -> None:
            """Run; typer's own part makes an object of the values."""
            values = vars(super().invoke(ctx))
            sources = {name: ctx.get_parameter_source(name) for name in values}
            run(values, {name: values[name] for name, source in sources.items() if source.name != "DEFAULT"})

        def format_options(self, ctx: Any, formatter: Any) -> None:
            """By subject and as plain text: a table of 80 columns would cut the names of the options."""
            sections: dict[str, list[tuple[str, str]]] = {}
            for parameter in self.get_params(ctx):
                record = parameter.get_help_record(ctx)
                if record is not None:
                    sections.setdefault(getattr(parameter, "rich_help_panel", None) or "Command", []).append(record)
            for title, records in sections.items():
                with formatter.section(title):
                    formatter.write_dl(records)

    # Typer reads a command's options from a signature, and the `__init__` of a data class is one.
    app.command(name, cls=Command, help=text)(make_dataclass("Flags", flags, kw_only=True))
