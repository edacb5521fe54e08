"""The notebooks are the scripts, run once from top to bottom."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SCRIPTS = sorted(path.stem for path in EXAMPLES.glob("0*.py"))


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_notebook_is_the_script_with_outputs(name: str) -> None:
    jupytext = pytest.importorskip("jupytext")
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)
    script = jupytext.read(EXAMPLES / f"{name}.py")
    assert [(c.cell_type, c.source) for c in notebook.cells] == [(c.cell_type, c.source) for c in script.cells]
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))  # run once, from top to bottom
    outputs = [output for cell in code for output in cell.outputs]
    assert len(outputs) >= 5
    assert not [output for output in outputs if output.output_type == "error"]
    text = nbformat.writes(notebook)
    assert not re.search(r"/(home|root|Users|work|tmp)/", text), "a notebook names a folder of the machine it ran on"
