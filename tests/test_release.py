"""What is promised to those who install, contribute and publish: versions, pins, Pythons, the files of the project."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import yaml

import llama_index_embft

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def jobs(name: str) -> dict:
    return yaml.safe_load(text(f".github/workflows/{name}"))["jobs"]


def test_the_version_stands_in_one_place():
    assert yaml.safe_load(text("CITATION.cff"))["version"] == llama_index_embft.__version__
    project = text("pyproject.toml")
    assert 'dynamic = ["version"]' in project
    assert not re.search(r"^version\s*=", project, flags=re.MULTILINE)


def test_the_tested_pythons_are_those_that_are_promised():
    project = text("pyproject.toml")
    promised = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', project)
    matrix = jobs("ci.yml")["unit"]["strategy"]["matrix"]
    assert matrix["python"] == promised
    assert f'requires-python = ">={promised[0]}"' in project
    assert f"uv venv --quiet --clear --python {promised[0]} " in text("Makefile")
    assert {name.split("-")[0] for name in matrix["os"]} == {"ubuntu", "macos", "windows"}


def test_every_extra_has_a_wheel_of_its_own_in_ci():
    project = text("pyproject.toml").partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    extras = re.findall(r"^([\w-]+) = ", project, flags=re.MULTILINE)
    assert sorted(jobs("ci.yml")["wheel"]["strategy"]["matrix"]["extra"]) == sorted(["", *extras])


def test_every_dependency_has_a_lower_bound():
    project = text("pyproject.toml").partition("\ndependencies = [")[2].partition("[project.scripts]")[0]
    project = re.sub(r'include-group = "\w+"|"llama-index-embft\[\w+\]"', "", project)
    named = re.findall(r'"([A-Za-z][^"]*)"', project)
    assert len(named) > 30
    assert [name for name in named if ">=" not in name] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_by_hash_and_name_their_version(path):
    used = re.findall(r"uses: *(.+)", path.read_text(encoding="utf-8"))
    assert used
    assert [line for line in used if not re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line)] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_may_read_unless_a_job_says_more(path):
    assert yaml.safe_load(path.read_text(encoding="utf-8"))["permissions"] == {"contents": "read"}


def test_targets_and_paths_of_the_workflows_exist():
    targets = set(re.findall(r"^([\w./$()-]+):(?!=)", text("Makefile"), flags=re.MULTILINE))
    targets |= {target.replace("$(VENV)", ".venv") for target in targets}
    for path in WORKFLOWS:
        for job in jobs(path.name).values():
            for step in job["steps"]:
                words = step.get("run", "").split()
                if words[:1] == ["make"]:
                    assert words[1] in targets
                assert [word for word in words if word.startswith("tests/") and not (ROOT / word).exists()] == []


def test_every_file_of_tests_that_needs_more_than_this_process_exists():
    listed = re.search(r"^SYSTEM = (\(.*?^\))", text("tests/conftest.py"), flags=re.MULTILINE | re.DOTALL)
    assert [name for name in ast.literal_eval(listed[1]) if not (ROOT / "tests" / name).exists()] == []


@pytest.mark.parametrize("name", ["SECURITY.md", "CODE_OF_CONDUCT.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE"])
def test_the_files_that_github_shows_are_there(name):
    assert len(text(name)) > 200


def test_ci_looks_for_unused_code_as_make_lint_does():
    """Vulture itself exits with 3 for findings in tests and benchmarks, which are none."""
    rule = next(line for line in text("Makefile").splitlines() if "/vulture" in line)
    runs = [step["run"] for step in jobs("ci.yml")["lint"]["steps"] if "vulture" in step.get("run", "")]
    assert runs == [rule.strip().lstrip("@").replace("$(BIN)", ".venv/bin")]
