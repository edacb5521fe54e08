"""The engines' arguments as options: names, kinds, defaults and help, read from their source.

From the source and not from the classes, because importing them takes seconds and ``--help`` should not. An argument
that an engine gains is an option at once, and none can be offered that no engine takes.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from llama_index_embft.errors import ConfigError

# Method -> where its engine is.
_ENGINES: Final = {
    "full": ("llama_index_embft.finetune.full.engine", "SentenceTransformersFinetuneEngine"),
    "adapter": ("llama_index_embft.finetune.adapter.engine", "EmbeddingAdapterFinetuneEngine"),
    "nudge": ("llama_index_embft.finetune.nudge.engine", "NudgeFinetuneEngine"),
}
# Arguments that the command fills itself: data sets, models, folders, progress bars, and the search for a recipe.
_NOT_OPTIONS: Final = frozenset(
    {"self", "method", "dataset", "val_dataset", "guard_dataset", "model_id", "model_output_path", "embed_model"}
    | {"show_progress_bar", "show_progress", "verbose", "cache", "recipe", "time_budget"}
)
_SIMPLE: Final = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text"}
_LISTS: Final = ("Sequence", "list", "tuple", "Iterable")


@dataclass(frozen=True)
class EngineOption:
    """An argument of one or more engines.

    Attributes:
        name: Its name there.
        kinds: Types it may have, out of ``int``, ``float``, ``bool``, ``str``, ``None`` and ``list``.
        choices: Words it may have, where the annotation is a `Literal`.
        items: Kind of the items of a list.
        defaults: Method -> default, as written in the source; its keys are the methods that take the option.
        help: From the engine's docstring.
    """

    name: str
    kinds: frozenset[str]
    choices: tuple[Any, ...]
    items: str
    defaults: dict[str, str]
    help: str

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
        if value in self.choices and not isinstance(value, bool):
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
        raise ConfigError(f"{shown} is {value!r}; it must be {self.expected}.")

    def _list(self, value: Any, shown: str) -> tuple[bool, Any]:
        if isinstance(value, str) and ("," in value or "str" not in self.kinds):
            value = [part.strip() for part in value.split(",")]
        if not isinstance(value, list):
            return False, None
        items = EngineOption(self.name, frozenset({self.items}), (), "", {}, "")
        return True, [items.convert(item, f"An item of {shown}") for item in value]


def _as(kind: str, value: Any) -> tuple[bool, Any]:
    if kind == "None":
        return value is None, None
    if kind == "bool":
        return isinstance(value, bool), value
    if isinstance(value, bool):
        return False, None
    number = int if kind == "int" else float
    if isinstance(value, (int, number)):
        return True, number(value)
    try:
        # YAML takes 2e-5 for a text, and so does the command line.
        return (True, number(value)) if isinstance(value, str) else (False, None)
    except ValueError:
        return False, None


@lru_cache(maxsize=1)
def engine_options() -> dict[str, EngineOption]:
    """Every argument of an engine that can be written as text, by name, in the order of the signatures."""
    found: dict[str, EngineOption] = {}
    for method in methods():
        arguments, help_of, aliases = _signature(method)
        for name, annotation, default in arguments:
            kinds, choices, items = _kinds(annotation, aliases)
            if name in _NOT_OPTIONS or not (choices or kinds - {"None"}):
                continue
            defaults = {**(found[name].defaults if name in found else {}), method: default}
            if name in found:
                kinds, choices = kinds | found[name].kinds, (*found[name].choices, *choices)
            text = found[name].help if name in found else help_of.get(name, "")
            found[name] = EngineOption(name, kinds, tuple(dict.fromkeys(choices)), items, defaults, text)
    return found


@lru_cache(maxsize=1)
def methods() -> tuple[str, ...]:
    """The methods that can be trained with."""
    names = [name for name, _, _ in _signature("full")[0]]
    return ("full", "lora", "adapter", "nudge") if "method" in names else ("full", "adapter", "nudge")


def takes(method: str, argument: str) -> bool:
    """Whether the engine of this method has an argument of this name."""
    return any(name == argument for name, _, _ in _signature(method)[0])


@lru_cache(maxsize=8)
def _signature(method: str) -> tuple[list[tuple[str, ast.expr, str]], dict[str, str], dict[str, ast.expr]]:
    """Arguments (name, annotation, default), help by name, and the module's type aliases."""
    module, class_name = _ENGINES["full" if method == "lora" else method]
    tree = _parsed(module)
    aliases = _assigned(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("llama_index_embft.finetune"):
            others = _assigned(_parsed(str(node.module)))
            aliases |= {name.name: others[name.name] for name in node.names if name.name in others}
    engine = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == class_name)
    init = next(node for node in engine.body if isinstance(node, ast.FunctionDef) and node.name == "__init__")
    plain = init.args.args
    defaults: list[ast.expr | None] = [None] * (len(plain) - len(init.args.defaults)) + list(init.args.defaults)
    pairs = [*zip(plain, defaults, strict=True), *zip(init.args.kwonlyargs, init.args.kw_defaults, strict=True)]
    arguments = [
        (argument.arg, argument.annotation or ast.Constant(None), _source(default, aliases))
        for argument, default in pairs
    ]
    return arguments, _argument_help(ast.get_docstring(engine) or ""), aliases


def _source(default: ast.expr | None, assigned: dict[str, ast.expr]) -> str:
    """A default as it is written; a constant of the module by its value."""
    if isinstance(default, ast.Name):
        default = assigned.get(default.id, default)
    return ast.unparse(default) if default is not None else ""


def _parsed(module: str) -> ast.Module:
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return ast.parse(Path(spec.origin).read_text(encoding="utf-8"))


def _assigned(tree: ast.Module) -> dict[str, ast.expr]:
    """What is assigned to names at the top of a module: its type aliases are among it."""
    found: dict[str, ast.expr] = {}
    for node in tree.body:
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id: node.value for target in targets if isinstance(target, ast.Name)}
    return found


def _kinds(annotation: ast.expr, aliases: dict[str, ast.expr]) -> tuple[frozenset[str], tuple[Any, ...], str]:
    """Simple kinds, choices and the item kind of an annotation; what is none of these is left out."""
    kinds: set[str] = set()
    choices: list[Any] = []
    items = "str"
    todo = [annotation]
    while todo:
        node = todo.pop(0)
        if isinstance(node, ast.BinOp):
            todo[:0] = [node.left, node.right]
        elif isinstance(node, ast.Constant):
            if node.value is None:
                kinds.add("None")
        elif isinstance(node, ast.Name) and node.id in _SIMPLE:
            kinds.add(node.id)
        elif isinstance(node, ast.Name) and node.id in aliases:
            todo.insert(0, aliases[node.id])
        elif isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
            inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
            if node.value.id == "Literal":
                choices += [ast.literal_eval(item) for item in inner]
            elif node.value.id in _LISTS and isinstance(inner[0], ast.Name) and inner[0].id in _SIMPLE:
                kinds.add("list")
                items = inner[0].id
    if None in choices:
        choices.remove(None)
        kinds.add("None")
    return frozenset(kinds), tuple(choices), items


def _argument_help(docstring: str) -> dict[str, str]:
    """Argument -> its text in a Google-style docstring."""
    _, _, section = docstring.partition("Args:\n")
    found: dict[str, str] = {}
    name = ""
    for line in section.splitlines():
        if line.strip() and not line.startswith("    "):
            break
        entry = re.match(r"    (\w+): (.*)", line)
        if entry:
            name = entry[1]
            found[name] = entry[2]
        elif name and line.strip():
            found[name] += " " + line.strip()
    return {name: text.replace("``", "").replace("`", "") for name, text in found.items()}
