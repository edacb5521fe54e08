"""Write ``docs/cli.md`` from the commands themselves: ``python docs/scripts/cli_page.py``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from llama_index_embft.cli import app as command_line

PAGE = Path(__file__).resolve().parents[1] / "cli.md"
HEAD = """# Commands

What `embft COMMAND --help` says, on one page. `python docs/scripts/cli_page.py` writes it from the commands."""


def all_commands() -> dict[str, Any]:
    """Every command by its name, in the order of ``embft --help``."""
    group: Any = typer.main.get_command(command_line.app)
    context = group.context_class(group, info_name="embft")
    return {name: group.get_command(context, name) for name in group.list_commands(context)}


def section(name: str, command: Any) -> str:
    """One command: what it does, how it is called, its options by subject, examples."""
    context = command.context_class(command, info_name=f"embft {name}")
    tables: dict[str, list[tuple[str, str]]] = {}
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and parameter.name != "help":
            title = getattr(parameter, "rich_help_panel", None) or "Command"
            tables.setdefault(title, []).append(record)
    usage = " ".join([f"embft {name}", *command.collect_usage_pieces(context)])
    parts = [f"## embft {name}", _text(command.help or ""), f"```text\n{usage}\n```"]
    for title, records in tables.items():
        lines = [f"| <code>{_cell(option)}</code> | {_cell(text)} |" for option, text in records]
        heading = [f"**{title}**"] if len(tables) > 1 else []
        parts += [*heading, "\n".join(["| Option | |", "|---|---|", *lines])]
    examples = [line.strip() for line in getattr(command, "examples", "").splitlines()]
    if examples:
        parts += ["Examples:", "\n".join(["```console", *examples, "```"])]
    return "\n\n".join(parts)


def page() -> str:
    """``docs/cli.md``."""
    return "\n\n".join([HEAD, *(section(name, command) for name, command in all_commands().items())]) + "\n"


def _text(help_text: str) -> str:
    """The help as Markdown; line breaks inside a paragraph are those of the docstring."""
    return help_text.partition("\n\nExamples:")[0].replace("\b\n", "").replace("<", "&lt;").replace("*", "\\*")


def _cell(text: str) -> str:
    """Text that neither ends a cell nor becomes HTML or emphasis, on GitHub and in MkDocs."""
    text = " ".join(text.split())
    for sign, code in {"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "&#124;", "*": "&#42;", "_": "&#95;"}.items():
        text = text.replace(sign, code)
    return text.replace("`", "")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
