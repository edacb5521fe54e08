"""The house keeps its rules: findable rooms, small files, one name for one thing, faces in front.

What may import what is checked by import-linter (``make lint``); here stands what it cannot see.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

import llama_index_embft

PACKAGE = Path(llama_index_embft.__file__).parent
ROOT = Path(__file__).resolve().parents[1]
MOST_FILES, MOST_LINES = 14, 400
FOLDERS = sorted({path.parent for path in PACKAGE.rglob("*.py")})


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports_from_us(path: Path) -> Iterator[tuple[str, str]]:
    """Module and name of every import of this package in a file, inside functions too."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "llama_index_embft":
            yield from ((node.module or "", alias.name) for alias in node.names)


def faces() -> list[str]:
    return [
        ".".join(("llama_index_embft", *folder.relative_to(PACKAGE).parts))
        for folder in FOLDERS
        if (folder / "__init__.pyi").is_file()
    ]


def test_folders_and_files_are_small_enough_to_find_ones_way():
    full = {shown(f): len(list(f.glob("*.py"))) - 1 for f in FOLDERS}
    assert {folder: count for folder, count in full.items() if count > MOST_FILES} == {}
    long = {shown(p): len(p.read_text(encoding="utf-8").splitlines()) for p in PACKAGE.rglob("*.py")}
    assert {path: lines for path, lines in long.items() if lines > MOST_LINES} == {}


def test_a_name_with_an_underscore_stays_in_its_file():
    found = []
    for path in PACKAGE.rglob("*.py"):
        modules = set()
        for module, name in imports_from_us(path):
            place = PACKAGE.parent / module.replace(".", "/") / name
            is_module = place.is_dir() or place.with_suffix(".py").is_file()
            if is_module:
                modules.add(name)
            elif name.startswith("_"):
                found.append(f"{shown(path)}: {module}.{name}")
        for node in ast.walk(tree(path)):
            reaches_in = isinstance(node, ast.Attribute) and node.attr.startswith("_") and node.attr[:2] != "__"
            if reaches_in and isinstance(node.value, ast.Name) and node.value.id in modules:
                found.append(f"{shown(path)}: {node.value.id}.{node.attr}")
    assert found == []


def test_no_class_name_stands_for_two_things():
    places = defaultdict(list)
    for path in PACKAGE.rglob("*.py"):
        for node in tree(path).body:
            if isinstance(node, ast.ClassDef):
                places[node.name].append(shown(path))
    assert {name: paths for name, paths in places.items() if len(paths) > 1} == {}


@pytest.mark.parametrize("folder", FOLDERS, ids=shown)
def test_every_folder_says_what_it_is_and_has_a_face(folder):
    face = tree(folder / "__init__.py")
    assert ast.get_docstring(face)
    names = {name.id for node in ast.walk(face) if isinstance(node, ast.Name) for name in [node]}
    assert "__all__" in names


def described(face: str, name: str) -> bool:
    """Whether a public name is a class or a function; constants and types by another name have no docstring."""
    found = getattr(import_module(face), name)
    return inspect.isclass(found) or inspect.isroutine(found)


@pytest.mark.parametrize("face", faces())
def test_every_public_name_is_there_and_documented(face):
    if face.endswith(".trulens"):
        pytest.importorskip("trulens")
    module = import_module(face)
    assert module.__all__
    missing = [name for name in module.__all__ if described(face, name) and not getattr(module, name).__doc__]
    assert missing == []


@pytest.mark.parametrize("face", faces())
def test_a_face_shows_only_what_lies_in_its_own_folder(face):
    stub = PACKAGE.joinpath(*face.split(".")[1:], "__init__.pyi")
    for node in tree(stub).body:
        if isinstance(node, ast.ImportFrom):
            assert node.level == 1
            # A module of the name of a function would hide it once it is imported.
            modules = {path.stem for path in stub.parent.glob("*.py")}
            assert not {alias.name for alias in node.names} & modules


def test_users_examples_and_benchmarks_import_from_faces():
    files = {p.stem for p in PACKAGE.glob("*.py")}
    places = [*(ROOT / "examples").glob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    inside = []
    for path in places:
        for module, name in imports_from_us(path):
            is_file = (PACKAGE.parent / module.replace(".", "/")).with_suffix(".py").is_file()
            if is_file and module.removeprefix("llama_index_embft.") not in files:
                inside.append(f"{shown(path)}: from {module} import {name}")
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for module in re.findall(r"from (llama_index_embft[\w.]*) import", page.read_text(encoding="utf-8")):
            is_file = (PACKAGE.parent / module.replace(".", "/")).with_suffix(".py").is_file()
            if is_file and module.removeprefix("llama_index_embft.") not in files:
                inside.append(f"{shown(page)}: from {module}")
    assert inside == []


def test_the_reference_lists_every_public_name():
    pytest.importorskip("trulens")
    page = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^::: (\S+)$", page, flags=re.MULTILINE))
    # A name that several faces show is described once, at the face nearest to the street.
    nearest = [face for face in faces() if face.count(".") == 1 or re.search(r"\.(scale|integrations)\.\w+$", face)]
    wanted = {f"{face}.{name}" for face in nearest for name in import_module(face).__all__ if described(face, name)}
    assert listed == wanted
