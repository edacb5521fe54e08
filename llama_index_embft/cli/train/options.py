"""The engines' settings as options: names, kinds, defaults and help, read from their dataclass fields."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from functools import lru_cache
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from llama_index_embft.errors import ConfigError
from llama_index_embft.finetune.adapter.settings import (
    AdapterLayerSettings,
    AdapterOptions,
    AdapterSearchSettings,
    AdapterSettings,
)
from llama_index_embft.finetune.full.settings import SETTINGS as FULL_SETTINGS, FullOptions
from llama_index_embft.finetune.nudge.settings import NudgeOptions, NudgeSettings
from llama_index_embft.finetune.options import flat_fields

if TYPE_CHECKING:
    from collections.abc import Iterator
    from dataclasses import Field

METHODS: Final = ("full", "lora", "adapter", "nudge")
# Engine -> its plain options, and its settings objects by the argument that takes them.
PLAIN: Final = {"full": FullOptions, "adapter": AdapterOptions, "nudge": NudgeOptions}
GROUPS: Final[dict[str, Mapping[str, tuple[type, str]]]] = {
    "full": FULL_SETTINGS,
    "adapter": {
        "layer": (AdapterLayerSettings, ""),
        "training": (AdapterSettings, ""),
        "search": (AdapterSearchSettings, ""),
    },
    "nudge": {"search": (NudgeSettings, "")},
}
_TITLES: Final = {
    "": "Training",
    "text": "Texts",
    "loss_settings": "Loss and negatives",
    "validation": "Validation and guard",
    "lora": "LoRA",
    "mining": "Mining in rounds",
    "hardware": "Speed and memory",
    "layer": "Adapter",
    "training": "Training an adapter",
    "search": "Choosing an adapter, or a step of nudge",
}
# Options of the command itself, which it hands on under these or other names.
_NOT_OPTIONS: Final = frozenset({"method", "time_budget"})
_LARGEST: Final = 2**53  # no setting is as large, and other libraries stop at some size
_SIMPLE: Final = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text"}


@dataclass(frozen=True)
class EngineOption:
    """An option of one or more engines.

    Attributes:
        name: As in a YAML file; on the command line with ``-`` for ``_``.
        kinds: Types it may have, out of ``int``, ``float``, ``bool``, ``str``, ``None`` and ``list``.
        choices: Words it may have.
        items: Kind of the items of a list.
        defaults: Engine -> default; its keys are the engines that take the option.
        help: A sentence or two.
        title: Over the options that belong together.
    """

    name: str
    kinds: frozenset[str]
    choices: tuple[Any, ...] = ()
    items: str = ""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    help: str = ""
    title: str = ""

    @property
    def is_flag(self) -> bool:
        """Whether it is only ever true or false."""
        return "bool" in self.kinds and not self.kinds - {"bool", "None"} and not self.choices

    @property
    def expected(self) -> str:
        """What a value may be, in words."""
        words = [_SIMPLE[kind] for kind in ("int", "float", "bool", "str") if kind in self.kinds]
        if "float" in self.kinds and "int" in self.kinds:
            words.remove(_SIMPLE["int"])
        if "list" in self.kinds:
            words.append(f"a list ({_SIMPLE[self.items]} each)")
        return " or ".join([*words, *map(str, self.choices)])

    def convert(self, value: Any, shown: str) -> Any:
        """A value from a file or a flag as the engine wants it.

        Args:
            value: What YAML made of it, or the flag's text.
            shown: Name of the option, and where it stands, for the message.

        Raises:
            ConfigError: The value is of another kind.
        """
        if isinstance(value, str) and value in self.choices:
            return value
        if "None" in self.kinds and "str" not in self.kinds and str(value).lower() == "none":
            return None
        for kind in ("None", "bool", "list", "int", "float"):
            if kind in self.kinds:
                found, result = self._list(value, shown) if kind == "list" else _as(kind, value)
                if found:
                    return result
        if "str" in self.kinds and isinstance(value, (str, int, float)) and not isinstance(value, bool):
            return str(value)
        raise ConfigError(f"{shown} is {shortened(value)}; it must be {self.expected}.")

    def _list(self, value: Any, shown: str) -> tuple[bool, Any]:
        if isinstance(value, str) and ("," in value or "str" not in self.kinds):
            value = [part.strip() for part in value.split(",")]
        if not isinstance(value, list):
            return False, None
        items = EngineOption(self.name, frozenset({self.items}))
        return True, [items.convert(item, f"An item of {shown}") for item in value]


def shortened(value: Any) -> str:
    """A value as it is shown in a message, whatever its length."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no number of more than 4,300 digits
        return "a number of thousands of digits"
    return text if len(text) <= 80 else f"{text[:60]}… ({len(text)} characters)"


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


@lru_cache(maxsize=1)
def engine_options() -> dict[str, EngineOption]:
    """Every setting of an engine that can be written as text, by name."""
    found: dict[str, EngineOption] = {}
    for engine in PLAIN:
        for name, argument, part, owner in _fields(engine):
            kinds, choices, items = _kinds(_hint(owner, part))
            if name in _NOT_OPTIONS or not (choices or kinds - {"None"}):
                continue
            default = None if part.default is MISSING else part.default
            before = found.get(name)
            if before is not None:
                kinds, choices = kinds | before.kinds, (*before.choices, *choices)
            found[name] = EngineOption(
                name,
                kinds,
                tuple(dict.fromkeys(choices)),
                items,
                {**(before.defaults if before else {}), engine: default},
                before.help if before else part.metadata["help"].replace("`", ""),
                before.title if before else _TITLES[argument],
            )
    return found


def takes(method: str, name: str) -> bool:
    """Whether the engine of this method has an option of this name."""
    return any(name == known for known, *_ in _fields(engine_of(method)))


def engine_of(method: str) -> str:
    """The engine of a method: LoRA is trained by that of all weights."""
    return "full" if method == "lora" else method


def _fields(engine: str) -> Iterator[tuple[str, str, Field[Any], type]]:
    """Name, engine argument ("" for a plain one), field and its class."""
    for part in fields(PLAIN[engine]):
        yield part.name, "", part, PLAIN[engine]
    groups = GROUPS[engine]
    for name, argument, part in flat_fields(groups):
        yield name, argument, part, groups[argument][0]


def _hint(owner: type, part: Field[Any]) -> Any:
    """The type of a field; None where it is one that only a heavy package has, which no text can be."""
    alone = type("Alone", (), {"__annotations__": {part.name: part.type}})
    try:
        return get_type_hints(alone, vars(sys.modules[owner.__module__]))[part.name]
    except NameError:
        return None


def _kinds(hint: Any) -> tuple[frozenset[str], tuple[Any, ...], str]:
    """Simple kinds, choices and the item kind of a type; what is none of these is left out."""
    kinds: set[str] = set()
    choices: list[Any] = []
    items = "str"
    for part in get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,):
        origin, inner = get_origin(part), get_args(part)
        if part is NoneType:
            kinds.add("None")
        elif part in (int, float, bool, str):
            kinds.add(part.__name__)
        elif origin is Literal:
            choices += inner
        elif origin in (Sequence, Iterable, list, tuple):
            of = get_args(inner[0]) if get_origin(inner[0]) in (Union, UnionType) else inner
            simple = next((kind for kind in (int, float, str) if kind in of), None)
            if simple is not None:
                kinds.add("list")
                items = simple.__name__
    if None in choices:
        choices.remove(None)
        kinds.add("None")
    return frozenset(kinds), tuple(choices), items
