"""Retrieval data sets that are on every machine: code and documentation of Python's standard library.

A query is the first sentence of a docstring, written by a person to say what a function or class does. Its document is
the function's source without that docstring (`build_stdlib_dataset`), or what the docstring goes on to say
(`general_guard`). The files are parsed, never imported or run.
"""

from __future__ import annotations

import ast
import io
import re
import sysconfig
import textwrap
import tokenize
from collections import Counter, deque
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Final

from llama_index_embft._core.checks import check_number
from llama_index_embft.dataset.near_duplicates import normalise
from llama_index_embft.dataset.provenance import Provenance
from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
from llama_index_embft.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Function = ast.FunctionDef | ast.AsyncFunctionDef

# Tests and samples, installed packages, generated tables, and what is not in every supported version (distutils and
# lib2to3 are gone from 3.12 and 3.13).
_SKIPPED: Final = frozenset(
    {"test", "tests", "idle_test", "idlelib", "turtledemo", "__phello__", "site-packages", "dist-packages"}
    | {"ensurepip", "pydoc_data", "encodings", "distutils", "lib2to3", "lib-dynload", "__pycache__"}
)
_MIN_WORDS: Final = 4  # "Close the file." says too little to find one function among thousands
_MAX_SENTENCE: Final = 250  # characters; longer ones are parameter lists and tables without a full stop
_MAX_CHARS: Final = 4000
_GUARD_CHARS: Final = (120, 600)  # of a passage: enough to be told from others, and few enough to embed in seconds
_GUARD_PASSAGES: Final = 600
_SENTENCE_END: Final = re.compile(r"(?<=[.!?])\s+(?=[A-Z`'\"(<\[])|\n\s*\n")


@dataclass(frozen=True)
class _Described:
    module: str
    name: str  # qualified name
    sentence: str
    source: str


def build_stdlib_dataset(
    folder: str | Path | None = None, *, max_chars: int = _MAX_CHARS, show_progress: bool = True
) -> EmbeddingQAFinetuneDataset:
    """Build the data set from the standard library of the running interpreter.

    The ids are ``module:qualified.name``, the source document of a function is its module, and everything comes in a
    fixed order. A sentence that describes two functions of different code is left out, since nobody could say which one
    it asks for. Another Python version gives another data set.

    Args:
        folder: The library's folder; None means the interpreter's own.
        max_chars: Longer sources are cut here; about what an embedding model reads (256 to 512 tokens) is far less.
        show_progress: Show a bar where it takes more than two seconds.

    Raises:
        DatasetError: The folder holds no Python files with docstrings, as in a stripped-down or frozen interpreter.
    """
    root = Path(folder if folder is not None else sysconfig.get_paths()["stdlib"])
    found = [entry for path in _bar(_modules(root), show_progress) for entry in _described(path, root, max_chars)]
    asked = Counter(normalise(entry.sentence) for entry in found)
    kept = {f"{entry.module}:{entry.name}": entry for entry in found if asked[normalise(entry.sentence)] == 1}
    if not kept:
        raise DatasetError(
            f"No documented Python functions under {root}; this interpreter may come without its library's sources: "
            "install a full Python, or give the folder of one."
        )
    return EmbeddingQAFinetuneDataset(
        provenance=Provenance(made_by="first lines of docstrings"),
        queries={id_: entry.sentence for id_, entry in kept.items()},
        corpus={id_: f"module: {entry.module}\n\n{entry.source}" for id_, entry in kept.items()},
        relevant_docs={id_: [id_] for id_ in kept},
        bare_texts={id_: entry.source for id_, entry in kept.items()},
        source_documents={id_: entry.module for id_, entry in kept.items()},
    )


def general_guard(n_questions: int = 300) -> EmbeddingQAFinetuneDataset:
    """A small general data set, to notice what a model forgets where no other guard is at hand.

    English prose about dates, text, files, networks, numbers and the like: the first sentences of docstrings of the
    standard library, each of which must find the rest of its docstring among at most 600 passages of up to 600
    characters. They are spread over the modules and are always the same on one Python version; another version has
    others, on which the base model is measured as well.

    Args:
        n_questions: At most so many, at least 1.

    Returns:
        The data set, for `guard_dataset` of an engine or ``guard`` of `choose_recipe`; on the command line it is
        ``--guard general``.

    Raises:
        ConfigError: `n_questions` is below 1.
        DatasetError: The interpreter comes without its library's sources.
    """
    check_number("n_questions", n_questions, at_least=1)
    root = Path(sysconfig.get_paths()["stdlib"])
    by_module: list[list[_Described]] = []
    seen: set[str] = set()
    for path in _modules(root):
        entries = []
        for entry in _documented(path, root):
            # One sentence for two things, or one text under two, could not be told apart.
            texts = {normalise(entry.sentence), normalise(entry.source)}
            entries += [entry] if not texts & seen else []
            seen |= texts
        by_module.append(entries)
    # A module at a time, so that a large one does not fill the set.
    spread = [entry for layer in zip_longest(*by_module) for entry in layer if entry is not None]
    if not spread:
        raise DatasetError(f"No documentation under {root}; install a full Python, or give a guard set of your own.")
    kept = {f"{entry.module}:{entry.name}": entry for entry in spread[:_GUARD_PASSAGES]}
    asked = list(kept)[:n_questions]
    return EmbeddingQAFinetuneDataset(
        provenance=Provenance(made_by="first lines of docstrings"),
        queries={id_: kept[id_].sentence for id_ in asked},
        corpus={id_: entry.source for id_, entry in kept.items()},
        relevant_docs={id_: [id_] for id_ in asked},
        source_documents={id_: entry.module for id_, entry in kept.items()},
    )


def _documented(path: Path, root: Path) -> Iterator[_Described]:
    """Yield what a module's docstrings say of functions and classes: the first sentence, and the prose after it."""
    parsed = _parsed(path, root)
    if parsed is None:
        return
    module, tree, _ = parsed
    seen: set[str] = set()
    shortest, longest = _GUARD_CHARS
    for node in _statements(tree):
        if not isinstance(node, (ast.ClassDef, Function)) or node.name.startswith("_") or node.name in seen:
            continue
        docstring = ast.get_docstring(node) or ""
        sentence = _first_sentence(docstring)
        parts = _SENTENCE_END.split(docstring.strip(), maxsplit=1)
        rest = " ".join(parts[1].split()) if len(parts) > 1 else ""
        if sentence is None or len(rest) < shortest or ">>>" in rest:
            continue
        seen.add(node.name)
        yield _Described(module, node.name, sentence, rest[:longest].rsplit(" ", 1)[0])


def _statements(tree: ast.Module) -> Iterator[ast.AST]:
    """What `ast.walk` gives, in its order, without the expressions: they are nine of ten nodes and define nothing."""
    waiting: deque[ast.AST] = deque([tree])
    while waiting:
        node = waiting.popleft()
        yield node
        waiting.extend(
            child
            for child in ast.iter_child_nodes(node)
            if isinstance(child, (ast.stmt, ast.excepthandler, ast.match_case))
        )


def _modules(root: Path) -> list[Path]:
    paths = [path for path in root.rglob("*.py") if _SKIPPED.isdisjoint(path.relative_to(root).parts)]
    return sorted(paths, key=lambda path: path.relative_to(root).parts)


def _described(path: Path, root: Path, max_chars: int) -> Iterator[_Described]:
    """Yield the functions of a module that a sentence describes."""
    parsed = _parsed(path, root)
    if parsed is None:
        return
    module, tree, text = parsed
    lines = io.StringIO(text).readlines()
    seen: set[str] = set()
    for name, function in _functions(tree):
        sentence = _first_sentence(ast.get_docstring(function))
        if sentence is None or name in seen:
            continue
        seen.add(name)  # a second definition under the same name is a variant for another platform
        source = _source(function, lines)
        if source is not None:
            yield _Described(module, name, sentence, source[:max_chars].rstrip())


def _parsed(path: Path, root: Path) -> tuple[str, ast.Module, str] | None:
    """A module's name, tree and text; None for templates and broken samples, which are not part of the library."""
    try:
        with tokenize.open(path) as file:  # honours the coding line
            text = file.read()
        tree = ast.parse(text)
    except (SyntaxError, UnicodeDecodeError, ValueError, OSError):
        return None
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts), tree, text


def _functions(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, Function]]:
    """Yield functions and methods with qualified names; functions inside functions are left to their parents."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function):
            yield prefix + child.name, child
        elif isinstance(child, ast.ClassDef):
            yield from _functions(child, f"{prefix}{child.name}.")
        elif isinstance(child, (ast.If, ast.Try, ast.With)):
            yield from _functions(child, prefix)


def _first_sentence(docstring: str | None) -> str | None:
    if not docstring:
        return None
    sentence = " ".join(_SENTENCE_END.split(docstring.strip(), maxsplit=1)[0].split())
    words = re.findall(r"[A-Za-z]{2,}", sentence)
    if len(words) < _MIN_WORDS or len(sentence) > _MAX_SENTENCE or sentence.startswith((">>>", "@")):
        return None
    return sentence


def _source(function: Function, lines: list[str]) -> str | None:
    """Cut a function's source, without its docstring; None where nothing but the docstring is there."""
    docstring, *body = function.body
    body = [statement for statement in body if not isinstance(statement, ast.Pass)]
    if not body or docstring.end_lineno is None or function.end_lineno is None:
        return None
    if docstring.lineno == function.lineno or body[0].lineno == docstring.end_lineno:
        return None  # several statements on one line: cannot be cut by lines
    first = min([function.lineno, *(decorator.lineno for decorator in function.decorator_list)])
    kept = lines[first - 1 : docstring.lineno - 1] + lines[docstring.end_lineno : function.end_lineno]
    return textwrap.dedent("".join(kept)).strip()


def _bar(paths: list[Path], show_progress: bool) -> Iterable[Path]:
    from tqdm.auto import tqdm

    bar: Iterable[Path] = tqdm(
        paths, desc="Standard library", unit="file", delay=2, leave=False, disable=not show_progress
    )
    return bar
