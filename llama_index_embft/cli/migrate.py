"""``embft migrate``: an old notebook or script with its import lines rewritten."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  # typer reads the annotations
from typing import Annotated

import typer


def migrate(
    files: Annotated[list[Path], typer.Argument(help="Notebooks (.ipynb) and scripts (.py).")],
    write: Annotated[bool, typer.Option("--write", help="Change the files; without it, only show.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Exit with code 1 if a file would change.")] = False,
) -> None:
    """Rewrite the imports of llama-index-finetuning to this package's, and say what else is different."""
    from rich.console import Console
    from rich.syntax import Syntax

    from llama_index_embft.migration import migrate_file

    console = Console(highlight=False, soft_wrap=True)
    found = [migrate_file(file) for file in files]  # all are read before the first is written
    for migration in found:
        if not migration.changed:
            console.print(f"{migration.path}: no import to change.", markup=False)
        elif console.is_terminal:
            console.print(Syntax(migration.diff(), "diff", background_color="default"))
        else:
            console.print(migration.diff(), markup=False, end="")
        for note in migration.notes:
            console.print(f"- {note}", markup=False)
        if migration.packages:
            console.print(f"Install: pip install {' '.join(migration.packages)}", markup=False)
        if write and migration.changed:
            migration.write()
            console.print(f"Written: {migration.path}", markup=False)
    changed = sum(migration.changed for migration in found)
    if changed and not write:
        console.print(f"{changed} of {len(found)} would change; add --write to do it.")
    if check and changed:
        raise typer.Exit(1)
