"""What the README and the documentation show can be typed: Python, command lines, settings, links.

Blocks of the how-to guides run in the tests of what they are about; here every block of every page is checked for
names, arguments and options that are not there.
"""

from __future__ import annotations

import ast
import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from doc_pages import PAGES, ROOT, blocks, prose, script, shown
from face_names import Found, arguments, find, tree_of

PYTHON = blocks("python", "py")
SHELL = blocks("bash", "sh", "console")
OURS = "llama_index_embft"


@pytest.fixture(scope="module")
def commands() -> dict[str, Any]:
    return script("docs/scripts/cli_page.py").all_commands()


def is_ours(name: str | None) -> bool:
    return (name or "").split(".")[0] == OURS


def imported(tree: ast.AST) -> dict[str, Found]:
    """Name in the block -> what it imports from this package; a name that is not there is an error."""
    found: dict[str, Found] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and is_ours(node.module):
            for alias in node.names:
                thing = find(node.module or "", alias.name)
                assert thing is not None, f"{node.module} has no {alias.name}"
                found[alias.asname or alias.name] = thing
        elif isinstance(node, ast.Import):
            assert all(tree_of(alias.name) for alias in node.names if is_ours(alias.name))
    return found


def test_there_is_something_to_check():
    assert len(PYTHON) > 60
    assert len(SHELL) > 30


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: block.place)
def test_python_compiles_and_calls_what_is_there(block):
    tree = compile(block.text, block.place, "exec", flags=ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    names = imported(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
            taken = arguments(names[node.func.id])
            given = {keyword.arg for keyword in node.keywords if keyword.arg}
            assert taken is None or given <= taken, f"{node.func.id} takes no {', '.join(given - taken)}"


def bound_in(tree: ast.AST) -> set[str]:
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    names |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    names |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    return names | {
        (alias.asname or alias.name).split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }


@pytest.mark.parametrize("page", sorted({block.place.rpartition(":")[0] for block in PYTHON}))
def test_what_a_page_calls_it_has_imported(page):
    """By its place in the page: a block may go on where the one before stopped."""
    ours = {
        name for stub in (ROOT / OURS).rglob("__init__.pyi") for name in bound_in(ast.parse(stub.read_text("utf-8")))
    }
    bound: set[str] = set()
    missing = []
    for block in (block for block in PYTHON if block.place.rpartition(":")[0] == page):
        tree = compile(block.text, block.place, "exec", flags=ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        bound |= bound_in(tree)
        called = {
            node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        missing += [f"{block.place}: {name}" for name in sorted((called & (ours | {"VectorStoreIndex"})) - bound)]
    assert missing == []


def test_wrong_names_and_arguments_would_be_seen():
    assert find("llama_index_embft", "tunes") is None
    for face, name in (("llama_index_embft", "tune"), ("llama_index_embft", "TuneSettings")):
        found = find(face, name)
        assert found
        taken = arguments(found)
        assert taken
        assert "seeds" not in taken
    assert {"source", "model", "questions"} <= (arguments(find("llama_index_embft", "tune") or Found([], "")) or set())
    assert "chunk_size" in (arguments(find("llama_index_embft", "TuneSettings") or Found([], "")) or set())


def command_lines(text: str) -> Iterator[list[str]]:
    """Words of every ``embft`` command of a block; what follows a pipe or a redirection is not ours."""
    for line in text.replace("\\\n", " ").splitlines():
        line = re.sub(r"^\s*(\$ )?(\w+=\S+ )*", "", line)
        if line.startswith("embft "):
            lexer = shlex.shlex(line, posix=True, punctuation_chars="|><;&")
            lexer.whitespace_split = True
            words = []
            for word in lexer:
                if set(word) <= set("|><;&"):
                    break
                words.append(word)
            yield words[1:]


def problem(words: list[str], commands: dict[str, Any], *, has_file: bool = False) -> str | None:
    """What the command line would say to these words, without running the command."""
    if words[0].startswith("-"):
        return None if words[0] in {"--help", "--version", "--install-completion"} else f"no option {words[0]}"
    command = commands.get(words[0])
    if command is None:
        return f"no command {words[0]}"
    if {"--help", "--help-all"} & set(words):
        return None
    has_file = has_file or "--config" in words
    # The file of `--config` may give what the line does not; it is not there, so it is not asked for.
    words = [word for before, word in itertools.pairwise(["", *words]) if "--config" not in (before, word)]
    try:
        command.make_context(words[0], words[1:]).close()
    except Exception as err:  # noqa: BLE001  # typer's errors have no base that all its versions share
        message = getattr(err, "message", None) or str(err)
        missing = re.search(r"(\w+) '([^'/][^']*)' does not exist", message)
        if missing:
            make(Path(missing[2]), folder=missing[1] == "Directory" or missing[2].endswith("/"))
            return problem(words, commands, has_file=has_file)
        excused = "does not exist" in message or (has_file and type(err).__name__ == "MissingParameter")
        return None if excused else f"{type(err).__name__}: {message}"
    return None


def make(path: Path, *, folder: bool) -> None:
    """What a line names has to be there before typer reads the rest of the line."""
    assert not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    if folder:
        path.mkdir()
    else:
        path.touch()


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("block", SHELL, ids=lambda block: block.place)
def test_command_lines_are_understood(block, commands):
    found = {" ".join(words): problem(words, commands) for words in command_lines(block.text)}
    assert {line: error for line, error in found.items() if error} == {}


def test_a_wrong_command_line_would_be_seen(commands):
    assert "no command" in (problem(["trian"], commands) or "")
    assert problem(["train", "a.json", "--epoch-count", "2"], commands)
    assert problem(["run", "docs", "--seed", "two"], commands)
    assert problem(["run", "docs", "--method", "magic"], commands)
    assert problem(["compare"], commands)


def test_options_in_prose_exist(commands):
    wrong = []
    for page in PAGES:
        for shown_line in re.findall(r"`embft (\w[^`]*)`", prose(page).replace("\n", " ")):
            name, *words = shown_line.split()
            known = commands[name].params if name in commands else []
            options = {option for parameter in known for option in (*parameter.opts, *parameter.secondary_opts)}
            if name not in commands and name != "COMMAND":
                wrong.append(f"{shown(page)}: embft {name}")
            wrong += [
                f"{shown(page)}: embft {name} {word}"
                for word in (word.split("=")[0].rstrip(",;") for word in words if word.startswith("--"))
                if name in commands and word not in options and word not in {"--help", "--help-all"}
            ]
    assert wrong == []


@pytest.mark.parametrize("block", blocks("yaml", "yml"), ids=lambda block: block.place)
def test_settings_in_yaml_are_options_of_the_command(block, commands):
    content = yaml.safe_load(block.text)
    if "jobs" in content:  # a workflow of GitHub: its commands are what can be wrong
        steps = [step.get("run", "") for job in content["jobs"].values() for step in job["steps"]]
        assert [e for step in steps for words in command_lines(step) if (e := problem(words, commands))] == []
        return
    options = {parameter.name for command in commands.values() for parameter in command.params}
    assert {key for key in content if key.replace("-", "_") not in options} == set()


@pytest.mark.parametrize("block", blocks("diff"), ids=lambda block: block.place)
def test_a_diff_shows_imports_that_work(block):
    added = "\n".join(line[1:] for line in block.text.splitlines() if line.startswith("+"))
    assert imported(ast.parse(added))


def anchors(text: str) -> set[str]:
    """The anchors that MkDocs gives to the headings of a page."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), flags=re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)|[`*]", r"\1", heading)
        slug = re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower())
        while slug in found:
            head, _, number = slug.rpartition("_")
            slug = f"{head}_{int(number) + 1}" if number.isdigit() and head else f"{slug}_1"
        found.add(slug)
    return found | set(re.findall(r'id="([^"]+)"', text))


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_links_lead_somewhere(page):
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        path, _, anchor = target.partition("#")
        if re.match(r"\w+:", target):
            continue
        place = (page.parent / path).resolve() if path else page
        there = place.exists() and place.is_relative_to(ROOT)
        if there and anchor and place.suffix == ".md":
            there = anchor in anchors(place.read_text(encoding="utf-8"))
        broken += [] if there else [target]
    assert broken == []
