"""The engines' settings as options of ``embft train``."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from llama_index_embft.cli.shared.options import Option, option_of
from llama_index_embft.finetune.adapter.settings import (
    AdapterLayerSettings,
    AdapterOptions,
    AdapterSearchSettings,
    AdapterSettings,
)
from llama_index_embft.finetune.distill.settings import SETTINGS as DISTILL_SETTINGS, DistillationOptions
from llama_index_embft.finetune.full.settings import SETTINGS as FULL_SETTINGS, FullOptions
from llama_index_embft.finetune.nudge.settings import NudgeOptions, NudgeSettings
from llama_index_embft.finetune.options import flat_fields
from llama_index_embft.finetune.reranker.settings import SETTINGS as RERANKER_SETTINGS, RerankerOptions

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from dataclasses import Field

METHODS: Final = ("full", "lora", "adapter", "nudge", "reranker", "distill")
# Engine -> its plain options, and its settings objects by the argument that takes them.
PLAIN: Final = {
    "full": FullOptions,
    "adapter": AdapterOptions,
    "nudge": NudgeOptions,
    "reranker": RerankerOptions,
    "distill": DistillationOptions,
}
GROUPS: Final[dict[str, Mapping[str, tuple[type, str]]]] = {
    "full": FULL_SETTINGS,
    "adapter": {
        "layer": (AdapterLayerSettings, ""),
        "training": (AdapterSettings, ""),
        "search": (AdapterSearchSettings, ""),
    },
    "nudge": {"search": (NudgeSettings, "")},
    # LoRA is --method lora, which trains an embedding model.
    "reranker": {name: part for name, part in RERANKER_SETTINGS.items() if name != "lora"},
    "distill": DISTILL_SETTINGS,
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
    "candidates": "What a reranker is given",
    "search": "Choosing an adapter, or a step of nudge",
}
# Options of the command itself, which it hands on under these or other names.
_NOT_OPTIONS: Final = frozenset({"method", "time_budget", "loss"})


@dataclass(frozen=True)
class EngineOption(Option):
    """An option of one or more engines.

    Attributes:
        defaults: Engine -> default; its keys are the engines that take the option.
    """

    defaults: Mapping[str, Any] = field(default_factory=dict)

    def joined(self, other: Option, engine: str) -> EngineOption:
        """The option of this name of another engine too."""
        choices = tuple(dict.fromkeys((*self.choices, *other.choices)))
        defaults = {**self.defaults, engine: other.default}
        return replace(self, kinds=self.kinds | other.kinds, choices=choices, items=other.items, defaults=defaults)

    def without_default(self) -> Option:
        """Not given unless it is given; the help says which engine has which default, and which take it at all."""
        defaults = {engine: _shown(value) for engine, value in self.defaults.items() if value not in (None, "", ())}
        said = ""
        if len(set(defaults.values())) == 1 and defaults.keys() == self.defaults.keys():
            said = f" Default: {next(iter(defaults.values()))}."
        elif defaults and "Default:" not in self.help:
            engines_of: dict[str, list[str]] = {}
            for engine, text in defaults.items():
                engines_of.setdefault(text, []).append(engine)
            said = " Default: " + ", ".join(f"{text} ({', '.join(names)})" for text, names in engines_of.items()) + "."
        only = "" if "full" in self.defaults else f" Only with --method {' or '.join(self.defaults)}."
        text = self.help.replace("val_dataset", "--val").replace("guard_dataset", "--guard")
        return replace(self, default=None, help=f"{text}{only}{said}")


def _shown(default: Any) -> str:
    return {True: "yes", False: "no"}[default] if isinstance(default, bool) else str(default)


@lru_cache(maxsize=1)
def engine_options() -> dict[str, EngineOption]:
    """Every setting of an engine that can be written as text, by name."""
    found: dict[str, EngineOption] = {}
    for engine in PLAIN:
        for name, argument, part, owner in _fields(engine):
            made = option_of(owner, part, name, _TITLES[argument])
            if name in _NOT_OPTIONS or made is None:
                continue
            before = found.get(name, EngineOption(**vars(made)))
            found[name] = before.joined(made, engine)
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
