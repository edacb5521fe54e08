"""Pages that are made from something else are up to date, and what they quote is still said."""

from __future__ import annotations

import ast
import json
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from doc_pages import ROOT, script

import llama_index_embft

PACKAGE = Path(llama_index_embft.__file__).parent
TROUBLES = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
QUOTED = re.findall(r"^### `(.+)`$", TROUBLES, flags=re.MULTILINE)


def test_the_benchmarks_page_and_the_table_of_the_readme_are_what_the_results_say():
    tables = script("benchmarks/tables.py")
    assert tables.PAGE.read_text(encoding="utf-8") == tables.page(), "run: python benchmarks/tables.py"
    readme = tables.README.read_text(encoding="utf-8")
    assert readme == tables.readme(readme), "run: python benchmarks/tables.py"
    assert len(tables.readme_table().splitlines()) <= 2 + 8


def numbers_in(value: object) -> Iterator[float]:
    if isinstance(value, float):
        yield value
    elif isinstance(value, (list, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from numbers_in(part)


MEASURED = ["which-method.md", "faq.md", "zh/index.md", "zh/generate-and-train.md", "how-to/distill.md"]
MEASURED += ["how-to/documents.md", "explanation/extractive.md"]


@pytest.mark.parametrize("page", MEASURED)
def test_a_figure_in_the_text_is_one_that_was_measured(page):
    results = [
        json.loads(path.read_text(encoding="utf-8")) for path in (ROOT / "benchmarks" / "results").glob("*.json")
    ]
    measured = {f"{number:.3f}" for result in results for number in numbers_in(result)}
    text = re.sub(r"`[^`]*`", "", (ROOT / "docs" / page).read_text(encoding="utf-8"))
    assert set(re.findall(r"(?<![\d.])0\.\d{3}\b", text)) <= measured


def commands_of(result: object) -> Iterator[str]:
    if isinstance(result, dict):
        yield from (" ".join(shlex.split(value)) for name, value in result.items() if name == "command")
    for part in result.values() if isinstance(result, dict) else result if isinstance(result, list) else ():
        yield from commands_of(part)


COMMANDED = ["which-method.md", "explanation/human-questions.md", "explanation/statistics.md", "how-to/adapter.md"]
COMMANDED += ["how-to/nudge.md", "how-to/hybrid-retriever.md", "how-to/switch-model.md", "how-to/distill.md"]


@pytest.mark.parametrize("page", COMMANDED)
def test_a_command_beside_figures_is_one_that_gave_a_result_file(page):
    files = (ROOT / "benchmarks" / "results").glob("*.json")
    typed = {command for path in files for command in commands_of(json.loads(path.read_text(encoding="utf-8")))}
    spans = re.findall(r"`(python benchmarks/[^`]+)`", (ROOT / "docs" / page).read_text(encoding="utf-8"))
    assert spans
    assert [span for span in spans if " ".join(shlex.split(span)) not in typed] == []


def test_the_page_of_commands_is_what_the_commands_say():
    pages = script("docs/scripts/cli_page.py")
    assert pages.PAGE.read_text(encoding="utf-8") == pages.page(), "run: python docs/scripts/cli_page.py"


def words_of(node: ast.AST) -> str:
    """A string as it is written, with a mark where a value goes; empty for anything else."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(words_of(part) or "\0" for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return words_of(node.left) + words_of(node.right)
    return ""


@cache
def strings() -> str:
    """Every string of the package, one a line; docstrings are not what a user is told."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docstrings = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        nodes = (node for node in ast.walk(tree) if id(node) not in docstrings)
        found += [" ".join(text.split()) for node in nodes if len(text := words_of(node)) > 10]
    return "\n".join(found)


@pytest.mark.parametrize("message", QUOTED)
def test_a_message_that_is_explained_is_still_given(message):
    parts = [re.escape(part.strip()) for part in message.split("…") if part.strip()]
    assert max(map(len, parts)) > 15
    assert re.search(r"[^\n]*?".join(parts), strings()), "the message was reworded; reword docs/troubleshooting.md"


def test_a_message_that_nobody_gives_would_be_seen():
    assert len(QUOTED) > 30
    assert "the model is on holiday" not in strings()


def test_every_trouble_has_a_cure():
    sections = re.split(r"^### `.+`$", TROUBLES, flags=re.MULTILINE)[1:]
    assert all(len(section.split("\n## ")[0].strip()) > 40 for section in sections)
