"""Options made from the fields of settings classes, where names, kinds, defaults and help stand already."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Union, get_args, get_origin, get_type_hints

import typer

from llama_index_embft.errors import ConfigError, OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from dataclasses import Field

_LARGEST: Final = 2**53  # no setting is as large, and other libraries stop at some size
_KINDS: Final = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "Path": "the name of a file or folder",
}


@dataclass(frozen=True)
class Option:
    """An option of a command, or of a YAML file.

    Attributes:
        name: As in a YAML file; on the command line with ``-`` for ``_``.
        kinds: Types it may have, out of ``int``, ``float``, ``bool``, ``str``, ``Path``, ``None`` and ``list``.
        choices: Words it may have.
        items: Kind of the items of a list, which is written with commas.
        default: Shown by ``--help``.
        help: A sentence or two.
        title: Over the options that belong together.
        native: A type that typer reads by itself: ``list[…]`` for an option that is given several times, ``tuple[…]``
            for one with several values.
    """

    name: str
    kinds: frozenset[str]
    choices: tuple[Any, ...] = ()
    items: str = ""
    default: Any = None
    help: str = ""
    title: str | None = None
    native: Any = None

    @property
    def flag(self) -> str:
        """Its name on the command line."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def is_flag(self) -> bool:
        """Whether it is only ever true or false."""
        return "bool" in self.kinds and not self.kinds - {"bool", "None"} and not self.choices

    @property
    def expected(self) -> str:
        """What a value may be, in words."""
        words = [said for kind, said in _KINDS.items() if kind in self.kinds]
        if "float" in self.kinds and "int" in self.kinds:
            words.remove(_KINDS["int"])
        if "list" in self.kinds:
            words.append(f"a list ({_KINDS[self.items]} each)")
        none = ["none"] if "None" in self.kinds and not self.kinds & {"str", "Path"} else []
        return " or ".join([*words, *map(str, self.choices), *none])

    def parameter(self) -> tuple[str, Any, Any]:
        """Name, type and default as `dataclasses.make_dataclass` takes them, and typer reads them.

        Typer sees a text wherever a value is converted here, with messages of ours and as in a YAML file.
        """
        names = (self.flag,) if self.default is False else ()  # there is nothing to switch off
        info = typer.Option(
            *names,
            help=self.help,
            metavar=self._metavar,
            rich_help_panel=self.title,
            show_default=self.default is not None and self.default is not False,
        )
        kind = self.native or (bool if self.is_flag else str)
        return self.name, Annotated[kind if isinstance(self.default, bool) else kind | None, info], self.default

    @property
    def _metavar(self) -> str | None:
        if self.is_flag or self.native:
            return None
        kinds = [kind.upper() for kind in ("int", "float", "str", "Path", "list") if kind in self.kinds]
        wider = {"INT": "FLOAT", "STR": "PATH"}
        return "|".join([*(kind for kind in kinds if wider.get(kind) not in kinds), *map(str, self.choices)])

    def convert(self, value: Any, shown: str) -> Any:
        """A value from a file or a flag as its settings class wants it.

        Raises:
            ConfigError: The value is of another kind.
        """
        if self.native or (isinstance(value, str) and value in self.choices):
            return value
        if "None" in self.kinds and not self.kinds & {"str", "Path"} and str(value).lower() == "none":
            return None
        for kind in ("None", "bool", "list", "int", "float"):
            if kind in self.kinds:
                found, result = self._list(value, shown) if kind == "list" else _as(kind, value)
                if found:
                    return result
        if self.kinds & {"str", "Path"} and isinstance(value, (str, int, float)) and not isinstance(value, bool):
            try:
                return (str if "str" in self.kinds else Path)(str(value))
            except ValueError:  # a number of more than 4,300 digits
                pass
        raise ConfigError(f"{shown} is {shortened(value)}; it must be {self.expected}.")

    def _list(self, value: Any, shown: str) -> tuple[bool, Any]:
        if isinstance(value, str) and ("," in value or "str" not in self.kinds):
            value = [part.strip() for part in value.split(",")]
        if not isinstance(value, list):
            return False, None
        items = Option(self.name, frozenset({self.items}))
        return True, [items.convert(item, f"An item of {shown}") for item in value]


def shortened(value: Any) -> str:
    """A value as it is shown in a message, whatever its length."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no number of more than 4,300 digits
        return "a number of thousands of digits"
    return text if len(text) <= 80 else f"{text[:60]}… ({len(text)} characters)"


def options_of(settings: type, title: str | None = None) -> Iterator[Option]:
    """The options of a settings class: those of its fields that have help and can be written as text.

    Args:
        settings: A dataclass whose fields were made by `option`.
        title: Over them in ``--help``.
    """
    for part in fields(settings):
        made = option_of(settings, part, title=title)
        if made is not None:
            yield made


def option_of(settings: type, part: Field[Any], name: str | None = None, title: str | None = None) -> Option | None:
    """A field as an option; None if no text can be its value.

    Args:
        settings: The class of the field.
        part: The field.
        name: Of the option; None for the field's.
        title: See `Option`.
    """
    hint = _hint(settings, part)
    kinds, choices, items = _kinds(hint)
    native = next((kind for kind in _parts(hint) if get_origin(kind) in (list, tuple)), None)
    if "help" not in part.metadata or not (native or choices or kinds - {"None"}):
        return None
    default = None if part.default is MISSING else part.default
    text = part.metadata["help"].replace("`", "")
    return Option(name or part.name, kinds, choices, items, default, text, title, native)


def changed(settings: Any) -> dict[str, Any]:
    """The fields of a settings object that differ from its class's defaults, by name."""
    return {part.name: value for part in fields(settings) if (value := getattr(settings, part.name)) != part.default}


def check_only_for(other: str, present: bool, options: Mapping[str, Any]) -> None:
    """Refuse options that another one gives a meaning, where that one is not given, rather than ignore them.

    Args:
        other: The other option, as it is typed.
        present: Whether it is given.
        options: Name (with ``_`` for ``-``) -> value; None and False are "not given".

    Raises:
        ConfigError: The other is not given, and one of these is.
    """
    for flag in () if present else _given(options):
        raise ConfigError(f"{flag} is for {other}; leave it out, or give {other}.")


def check_not_with(other: str, present: bool, options: Mapping[str, Any]) -> None:
    """Refuse options that another one takes the meaning of, rather than ignore them.

    Args:
        other: The other option, as it is typed.
        present: Whether it is given.
        options: See `check_only_for`.

    Raises:
        ConfigError: Both are given.
    """
    for flag in _given(options) if present else ():
        raise ConfigError(f"{flag} has no meaning together with {other}; leave it out.")


def check_outputs(outputs: Mapping[str, Path | None], read: Iterable[str | Path | None]) -> None:
    """Refuse to write over a file that is read, or one file twice: one of the two would be lost.

    Args:
        outputs: Name of an option (with ``_`` for ``-``) -> the file it writes.
        read: Files and folders that the command reads.

    Raises:
        OutputError: Two of them are one.
    """
    taken = {Path(path).resolve(): "is read by this command" for path in read if path is not None}
    for name, path in outputs.items():
        if path is None:
            continue
        flag = f"--{name.replace('_', '-')}"
        if use := taken.get(path.resolve()):
            raise OutputError(f"{flag} is {path}, which {use}; choose another name.")
        taken[path.resolve()] = f"{flag} writes too"


def _given(options: Mapping[str, Any]) -> Iterator[str]:
    for name, value in options.items():
        if value is not None and value is not False:
            yield f"--{name.replace('_', '-')}"


def _as(kind: str, value: Any) -> tuple[bool, Any]:
    if kind == "None":
        return value is None, None
    if kind == "bool":
        return isinstance(value, bool), value
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return False, None
    if isinstance(value, float) and kind == "int":
        return False, None
    try:
        # YAML takes 2e-5 for a text, and so does the command line.
        number = (int if kind == "int" else float)(value)
        return (False, None) if kind == "int" and abs(number) > _LARGEST else (True, number)
    except (ValueError, OverflowError):
        return False, None


def _hint(owner: type, part: Field[Any]) -> Any:
    """The type of a field; None where it is one that only a heavy package has, which no text can be."""
    alone = type("Alone", (), {"__annotations__": {part.name: part.type}})
    try:
        return get_type_hints(alone, vars(sys.modules[owner.__module__]))[part.name]
    except NameError:
        return None


def _parts(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _kinds(hint: Any) -> tuple[frozenset[str], tuple[Any, ...], str]:
    """Simple kinds, choices and the item kind of a type; what is none of these is left out."""
    kinds: set[str] = set()
    choices: list[Any] = []
    items = "str"
    for part in _parts(hint):
        origin, inner = get_origin(part), get_args(part)
        if part is NoneType:
            kinds.add("None")
        elif part in (int, float, bool, str, Path):
            kinds.add(part.__name__)
        elif origin is Literal:
            choices += inner
        elif origin in (Sequence, Iterable):
            simple = next((kind for kind in (int, float, str) if kind in _parts(inner[0])), None)
            if simple is not None:
                kinds.add("list")
                items = simple.__name__
    if None in choices:
        choices.remove(None)
        kinds.add("None")
    return frozenset(kinds), tuple(choices), items
