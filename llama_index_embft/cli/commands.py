"""Which function is which command: known by name and one line of help, imported when it is called."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any, Final, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup


class CommandLine(NamedTuple):
    """A line of ``embft --help``.

    Attributes:
        module: Below `cli`; it has a function of the command's name.
        help: The first sentence of that function's docstring; a test holds the two together.
        common: Names of the options that its ``--help`` shows, where all are more than a screen.
    """

    module: str
    help: str
    common: tuple[str, ...] = ()


SECTIONS: Final[dict[str, dict[str, CommandLine]]] = {
    "Find a better retriever": {
        "demo": CommandLine(
            "demo", "Find the best retriever for the functions of Python's standard library, and show what changed."
        ),
        "run": CommandLine(
            "run",
            "Find the best retriever for your own documents: embedding model, BM25, their mixture, trained models.",
            ("docs", "embed_model", "questions", "budget", "method", "reranker", "llm", "llm_model", "out"),
        ),
    },
    "Step by step": {
        "generate": CommandLine(
            "generate",
            "Let an LLM write queries for your documents.",
            (
                "docs",
                "out",
                "llm",
                "llm_model",
                "api_base",
                "questions_per_chunk",
                "kind",
                "examples",
                "max_cost",
                "dry_run",
            ),
        ),
        "mine": CommandLine(
            "mine",
            "Find hard negatives for every query of a data set.",
            ("data", "embed_model", "out", "num_negatives", "strategy", "relabel", "report", "device"),
        ),
        "train": CommandLine("train.command", "Fine-tune an embedding model on a data set."),
        "apply": CommandLine(
            "apply", "Put a model onto an index: stamp it, check it, update its vectors, or take an update back."
        ),
        "export": CommandLine(
            "export", "Export a model: half precision, ONNX or OpenVINO, measured against the original."
        ),
    },
    "Measure": {
        "evaluate": CommandLine(
            "measure.evaluate", "Evaluate one embedding model on a data set, or an existing index, on your questions."
        ),
        "compare": CommandLine("measure.compare", "Compare saved reports over the same queries."),
        "judge": CommandLine(
            "measure.judge", "Compare systems by an LLM's grades, calibrated on a few questions that people graded."
        ),
    },
    "Data": {
        "convert": CommandLine(
            "data.convert", "Convert a data set from one format into another, and say what the other has no place for."
        ),
        "inspect": CommandLine(
            "data.inspect", "Look at a data set: counts, lengths, languages, duplicates, leaks and samples."
        ),
        "split": CommandLine("data.split", "Split a data set into train, validation and test that share no document."),
    },
    "Upkeep": {
        "doctor": CommandLine(
            "upkeep.doctor",
            "Check this installation: versions, device, disk, network, extras, and a run of ten seconds.",
        ),
        "cache": CommandLine("upkeep.cache", "Show what the cache holds and of which models, or make it smaller."),
        "dashboard": CommandLine(
            "upkeep.dashboard",
            "Open the TruLens dashboard on recorded apps; only this machine can reach it.",
        ),
        "migrate": CommandLine(
            "upkeep.migrate",
            "Rewrite the imports of llama-index-finetuning to this package's, and say what else is different.",
        ),
    },
}
COMMANDS: Final = {name: line for section in SECTIONS.values() for name, line in section.items()}


class LazyGroup(TyperGroup):
    """Commands by name; the module of one is imported when that one is asked for: all together take a second."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands = dict.fromkeys(COMMANDS)  # type: ignore[assignment]  # names alone, which a wrong one is compared with
        self._names_only = False

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override, unused-ignore]
        """In the order of the help."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: typer.Context, cmd_name: str) -> Any:  # type: ignore[override, unused-ignore]
        """The command of a name, made once; None where there is none."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        if self._names_only:
            return TyperCommand(cmd_name, help=COMMANDS[cmd_name].help)
        return _command(cmd_name)

    def format_commands(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override, unused-ignore]
        """By what they are for."""
        del ctx
        longest = max(map(len, COMMANDS))
        for title, lines in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(longest), line.help) for name, line in lines.items()])

    def shell_complete(self, ctx: typer.Context, incomplete: str) -> Any:  # type: ignore[override, unused-ignore]
        """Names for the shell, at the speed of a key."""
        self._names_only = True
        try:
            return super().shell_complete(ctx, incomplete)
        finally:
            self._names_only = False


@cache
def _command(name: str) -> Any:
    from llama_index_embft.cli.shared.command import add_command

    alone = typer.Typer(add_completion=False, rich_markup_mode=None)
    line = COMMANDS[name]
    function = getattr(import_module(f"llama_index_embft.cli.{line.module}"), name)
    add_command(alone, function, common=line.common)
    made = typer.main.get_command(alone)
    made.name = name
    return made
