"""The public interface as text: every face, its names, their signatures and fields.

``python tests/public_api.py --write`` (``make api``) refreshes ``tests/public_api.txt``; a test holds that file
against the code. It is read from the source, so that it is the same on every Python and needs no import.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "llama_index_embft"
SNAPSHOT = Path(__file__).with_name("public_api.txt")
LONG = 120

Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef | ast.Assign | ast.AnnAssign


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def exported(stub: Path) -> Iterator[tuple[str, Path]]:
    """Each name of a face, and the file or the folder that it comes from."""
    for node in parsed(stub).body:
        if isinstance(node, ast.ImportFrom):
            place = stub.parent.joinpath(*(node.module or "").split("."))
            yield from ((alias.asname or alias.name, place) for alias in node.names)
        elif isinstance(node, ast.AnnAssign):
            yield ast.unparse(node.target), stub.parent


def defined(path: Path, name: str) -> Definition:
    """The definition of a name at the top of a module."""
    for node in parsed(path).body:
        if isinstance(node, ast.Assign):
            names = {ast.unparse(target) for target in node.targets}
        elif isinstance(node, ast.AnnAssign):
            names = {ast.unparse(node.target)}
        else:
            names = {getattr(node, "name", "")}
        if name in names:
            assert isinstance(node, Definition)
            return node
    raise LookupError(f"{path} does not define {name}")


def signature(function: ast.FunctionDef | ast.AsyncFunctionDef, indent: str = "") -> Iterator[str]:
    for decorator in function.decorator_list:
        if (text := ast.unparse(decorator)) in ("classmethod", "staticmethod", "property", "cached_property"):
            yield f"{indent}@{text}"
    kind = "async def" if isinstance(function, ast.AsyncFunctionDef) else "def"
    returns = f" -> {ast.unparse(function.returns)}" if function.returns else ""
    line = f"{indent}{kind} {function.name}({ast.unparse(function.args)}){returns}"
    if len(line) <= LONG:
        yield line
    else:
        yield f"{indent}{kind} {function.name}("
        yield from (f"{indent}        {one}" for one in parameters(function.args))
        yield f"{indent}){returns}"


def parameters(arguments: ast.arguments) -> Iterator[str]:
    """One parameter a line, so that a difference shows which of them changed."""
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + arguments.defaults

    def shown(argument: ast.arg, default: ast.expr | None, stars: str = "") -> str:
        return stars + ast.unparse(argument) + (f" = {ast.unparse(default)}" if default else "")

    for number, (argument, default) in enumerate(zip(positional, defaults, strict=True), start=1):
        yield shown(argument, default)
        if number == len(arguments.posonlyargs):
            yield "/"
    if arguments.vararg:
        yield shown(arguments.vararg, None, "*")
    elif arguments.kwonlyargs:
        yield "*"
    yield from map(shown, arguments.kwonlyargs, arguments.kw_defaults)
    if arguments.kwarg:
        yield shown(arguments.kwarg, None, "**")


def constant(node: ast.Assign | ast.AnnAssign) -> str:
    """A constant with its value, or where that is long, with its keys or without."""
    text = ast.unparse(node)
    if len(text) <= LONG:
        return text
    value = node.value
    text = ast.unparse(node).partition(" = ")[0]
    if isinstance(value, ast.Dict):
        return f"{text} = {{{', '.join(ast.unparse(key) for key in value.keys if key)}}}"
    return f"{text} = ..."


def field(node: ast.AnnAssign, indent: str) -> str:
    text = f"{indent}{ast.unparse(node.target)}: {ast.unparse(node.annotation)}"
    if isinstance(node.value, ast.Call):
        # The default stands first in `option(...)` and in pydantic's `Field(...)`; its help is no promise.
        named = [keyword.value for keyword in node.value.keywords if keyword.arg in ("default", "default_factory")]
        shown = [ast.unparse(value) for value in [*node.value.args[:1], *named]]
        return f"{text} = {', '.join(shown)}" if shown else text
    return f"{text} = {ast.unparse(node.value)}" if node.value else text


def described(node: Definition) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        yield from signature(node)
    elif isinstance(node, ast.ClassDef):
        bases = ", ".join(ast.unparse(base) for base in node.bases)
        yield f"class {node.name}({bases})" if bases else f"class {node.name}"
        for inner in node.body:
            if isinstance(inner, ast.AnnAssign) and not ast.unparse(inner.target).startswith("_"):
                yield field(inner, "    ")
            elif isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef) and (
                not inner.name.startswith("_") or inner.name in ("__init__", "__call__")
            ):
                yield from signature(inner, "    ")
    else:
        yield constant(node)


def public_api() -> str:
    """All faces, one after the other; a name that another face defines is one line that says which."""
    lines = []
    for stub in sorted(PACKAGE.rglob("__init__.pyi")):
        lines += ["", "# " + ".".join(stub.parent.relative_to(ROOT).parts)]
        for name, place in sorted(exported(stub), key=lambda found: found[0]):
            if place.is_dir() and place != stub.parent:
                lines.append(f"{name} = {'.'.join(place.relative_to(ROOT).parts)}.{name}")
            elif place != stub.parent:
                lines += described(defined(place.with_suffix(".py"), name))
    # Python 3.10 writes a lambda without arguments in its own way.
    return "\n".join(lines[1:]).replace("lambda : ", "lambda: ") + "\n"


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        SNAPSHOT.write_text(public_api(), encoding="utf-8")
    else:
        print(public_api(), end="")
