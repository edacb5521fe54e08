"""Write and run the notebooks beside the scripts: ``python examples/make_notebooks.py [NAME …]``.

Each script becomes a notebook of the same cells, is run from top to bottom in this folder, and is written with its
outputs. Paths of this machine are taken out of them.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).resolve().parent


def main(names: list[str]) -> None:
    scripts = [path for path in sorted(HERE.glob("0*.py")) if not names or path.stem in names]
    for script in scripts:
        notebook = jupytext.read(script)
        notebook.cells = [nbformat.from_dict(cell) for cell in notebook.cells]
        NotebookClient(notebook, timeout=3600, resources={"metadata": {"path": str(HERE)}}).execute()
        notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
        for cell in notebook.cells:
            cell.metadata.pop("execution", None)  # times of day
            if cell.cell_type == "code":
                cell.outputs = [out for out in map(_clean, cell.outputs) if out is not None]
        for number, cell in enumerate(notebook.cells):
            cell["id"] = f"cell-{number}"  # the same at every run
        notebook.metadata.pop("widgets", None)
        nbformat.validate(notebook)
        text = nbformat.writes(notebook)
        target = script.with_suffix(".ipynb")
        target.write_text(text + "\n", encoding="utf-8")
        print(target.name, len(text) // 1000, "kB")


def _clean(output):
    """Progress bars and log lines out, and the names of this machine's folders."""
    if output.output_type == "stream" and output.name == "stderr":
        return None
    if "application/vnd.jupyter.widget-view+json" in output.get("data", {}):
        return None
    here = {str(HERE.parent), str(Path.home()), os.environ.get("EMBFT_EXAMPLE_OUT", "/none"), sys.prefix}
    folders = sorted(here, key=len)
    text = nbformat.NotebookNode(output)
    for key in ("text",):
        if key in text:
            text[key] = _without(text[key], folders)
    for kind in text.get("data", {}):
        if isinstance(text["data"][kind], str):
            text["data"][kind] = _without(text["data"][kind], folders)
    return text


def _without(text: str, folders: list[str]) -> str:
    for folder in reversed(folders):
        text = text.replace(folder, "…")
    return re.sub(r" at 0x[0-9a-f]+", "", text)


if __name__ == "__main__":
    main(sys.argv[1:])
