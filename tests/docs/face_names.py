"""Public names and the arguments they take, read from the source: importing all of them takes half a minute."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import llama_index_embft

ROOT = Path(llama_index_embft.__file__).parents[1]
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


class Found(list[Definition]):
    """The definitions of a name, several where it is overloaded; empty for a constant or a name from elsewhere."""

    def __init__(self, definitions: list[Definition], module: str) -> None:
        super().__init__(definitions)
        self.module = module


@cache
def tree_of(module: str) -> ast.Module:
    """The face of a folder as its stub says it, or a file."""
    path = ROOT / module.replace(".", "/")
    places = (path / "__init__.pyi", path.with_suffix(".py"), path / "__init__.py")
    return ast.parse(next(place for place in places if place.is_file()).read_text(encoding="utf-8"))


def imports(module: str) -> Iterator[tuple[str, str, str]]:
    """Name, module and name there, of everything that a module imports from this package."""
    is_folder = (ROOT / module.replace(".", "/")).is_dir()
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.ImportFrom):
            parts = module.split(".")[: None if is_folder and node.level == 1 else -1]
            origin = ".".join([*parts, *filter(None, [node.module])]) if node.level else node.module or ""
            if origin.startswith("llama_index_embft"):
                yield from ((alias.asname or alias.name, origin, alias.name) for alias in node.names)


def find(module: str, name: str) -> Found | None:
    """Where a name of a module is defined; None where the module has no such name."""
    tree = tree_of(module)
    own = [node for node in tree.body if isinstance(node, Definition) and node.name == name]
    if own:
        return Found(own, module)
    for local, origin, there in imports(module):
        if local == name:
            return find(origin, there)
    bound = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    bound |= {a.asname or a.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for a in node.names}
    below = ROOT / module.replace(".", "/") / name
    return Found([], module) if name in bound or below.is_dir() or below.with_suffix(".py").is_file() else None


def arguments(found: Found) -> set[str] | None:
    """The names of the arguments that a call may give; None where that cannot be told."""
    names: set[str] = set()
    for definition in found:
        some = _of_class(definition, found.module) if isinstance(definition, ast.ClassDef) else _of_function(definition)
        if some is None:
            return None
        names |= some
    return names or None


def _of_function(function: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str] | None:
    if function.args.kwarg:
        return None
    return {a.arg for a in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)} - {
        "self",
        "cls",
    }


def _of_class(definition: ast.ClassDef, module: str) -> set[str] | None:
    for node in definition.body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            return _of_function(node)
    names = {n.target.id for n in definition.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)}
    for base in definition.bases:
        found = find(module, base.id) if isinstance(base, ast.Name) else None
        inherited = arguments(found) if found else None
        if inherited is None:
            return None
        names |= inherited
    return names
