"""Options of a command made from the fields of settings classes, where names, kinds, defaults and help stand already.

Typer reads a command's options from its signature. The `__init__` of a data class is one, so each settings class has a
twin whose fields carry the help as typer wants it; typer makes options of the twin, and the command takes them over.
"""

from __future__ import annotations

from dataclasses import fields, make_dataclass
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperCommand

from llama_index_embft.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Collection

T = TypeVar("T")
_GIVEN = "embft.settings"


def with_settings(*classes: type, leave_out: Collection[str] = ()) -> type[TyperCommand]:
    """A class of commands that have the fields of settings classes as options too; see `settings_from`.

    Args:
        *classes: Frozen dataclasses whose fields are made by `option`: flags, numbers, texts or choices.
        leave_out: Fields that are no options.
    """
    names = [field.name for cls in classes for field in fields(cls) if field.name not in leave_out]

    class SettingsCommand(TyperCommand):
        def __init__(self, *args: Any, params: list[Any] | None = None, **rest: Any) -> None:
            more = [option for cls in classes for option in _options(cls) if option.name in names]
            super().__init__(*args, params=[*(params or []), *more], **rest)

        def invoke(self, ctx: Any) -> Any:
            """Keep what the command line says of settings for `settings_from`, and run the command with the rest."""
            values = {name: ctx.params.pop(name) for name in names}
            ctx.meta[_GIVEN] = {
                name: value for name, value in values.items() if ctx.get_parameter_source(name).name != "DEFAULT"
            }
            return super().invoke(ctx)

    return SettingsCommand


def given_settings(context: typer.Context, cls: type) -> dict[str, Any]:
    """The fields of a settings class that the command line names, as they are written there."""
    return {field.name: context.meta[_GIVEN][field.name] for field in fields(cls) if field.name in context.meta[_GIVEN]}


def settings_from(context: typer.Context, cls: type[T], **more: Any) -> T:
    """The settings object that the command line asks for.

    Args:
        context: Of a command made by `with_settings`.
        cls: One of its settings classes.
        **more: Fields that are no options.

    Raises:
        ConfigError: A value is not allowed.
    """
    hints = get_type_hints(cls)
    given = {name: _value(name, hints[name], value) for name, value in given_settings(context, cls).items()}
    return cls(**given, **more)


def _options(cls: type) -> list[Any]:
    hints = get_type_hints(cls)
    twin = make_dataclass(
        cls.__name__,
        [(field.name, _annotation(hints[field.name], field.metadata["help"]), field.default) for field in fields(cls)],
    )
    app = typer.Typer(add_completion=False)
    app.command()(twin)
    command: Any = typer.main.get_command(app)
    return list(command.params)


def _annotation(hint: Any, text: str) -> Any:
    """A type as typer knows it: choices and numbers that may be "none" are read as text and checked by the class."""
    if get_origin(hint) is Literal:
        return Annotated[str, typer.Option(help=text, metavar="|".join(get_args(hint)))]
    kinds = _kinds(hint)
    if kinds == [hint]:
        return Annotated[hint, typer.Option(help=text)]
    return Annotated[str | None, typer.Option(help=text, metavar=f"{kinds[0].__name__}|none".upper())]


def _kinds(hint: Any) -> list[Any]:
    return [kind for kind in get_args(hint) if kind is not NoneType] or [hint]


def _value(name: str, hint: Any, value: Any) -> Any:
    kinds = _kinds(hint)
    if get_origin(hint) is Literal or kinds == [hint]:
        return value
    if value.lower() == "none":
        return None
    try:
        return kinds[0](value)
    except ValueError as err:
        kind = "a whole number" if kinds[0] is int else "a number"
        raise ConfigError(f"--{name.replace('_', '-')} is {value!r}; give {kind}, or none.") from err
