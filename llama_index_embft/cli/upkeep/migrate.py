"""``embft migrate``: an old notebook or script with its import lines rewritten."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  # typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from llama_index_embft.migration.files import Migration


def migrate(
    files: Annotated[list[Path], typer.Argument(help="Notebooks (.ipynb) and scripts (.py).")],
    write: Annotated[bool, typer.Option("--write", help="Change the files; without it, only show.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Exit with code 1 if a file would change.")] = False,
) -> dict[str, Any]:
    """Rewrite the imports of llama-index-finetuning to this package's, and say what else is different.

    Examples:
    embft migrate finetune.ipynb
    embft migrate *.py --write
    """
    from rich.syntax import Syntax

    from llama_index_embft.cli.shared.console import console
    from llama_index_embft.migration import migrate_file

    different = {file.resolve(): file for file in files}.values()  # what is given twice is written once
    found = [migrate_file(file) for file in different]  # all are read before the first is written
    for migration in found:
        if not migration.changed:
            console.print(f"{migration.path}: no import to change.", markup=False, soft_wrap=True)
        elif console.is_terminal:
            console.print(Syntax(migration.diff(), "diff", background_color="default"))
        else:
            console.print(migration.diff(), markup=False, soft_wrap=True, end="")
        for note in migration.notes:
            console.print(f"- {note}", markup=False, soft_wrap=True)
        if migration.packages:
            console.print(f"Install: pip install {' '.join(migration.packages)}", markup=False, soft_wrap=True)
        if write and migration.changed:
            migration.write()
            console.print(f"Written: {migration.path}", markup=False, soft_wrap=True)
    changed = sum(migration.changed for migration in found)
    if changed and not write:
        console.print(f"{changed} of {len(found)} would change; add --write to do it.")
    return {"files": [_record(migration, write=write) for migration in found], "exit_code": int(check and changed > 0)}


def _record(migration: Migration, *, write: bool) -> dict[str, Any]:
    return {
        "path": migration.path,
        "changed": migration.changed,
        "written": write and migration.changed,
        "notes": list(map(str, migration.notes)),
        "install": list(migration.packages),
    }
