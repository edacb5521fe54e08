"""What commands that ask an LLM do before they spend anything: check the server, say what it takes, and ask."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from llama_index_embft.cli.shared.console import errors
from llama_index_embft.errors import ConfigError

if TYPE_CHECKING:
    from llama_index_embft.generation import GenerationEstimate


def confirm_cost(
    estimate: GenerationEstimate,
    *,
    yes: bool,
    max_cost: float | None,
    cheaper: str = "give fewer documents or --questions-per-chunk",
) -> None:
    """Say what a run takes, and ask whether to go on, unless nothing has to be asked of the LLM.

    Args:
        estimate: What it takes.
        yes: Do not ask.
        max_cost: US dollars; a run that is estimated within them is not asked about either.
        cheaper: What to give for a smaller estimate.

    Raises:
        ConfigError: The estimate is above ``max_cost``, or there is nobody to ask.
    """
    if estimate.calls == 0:
        return
    asks = max_cost is None and not yes and sys.stdin.isatty()
    said = f"The LLM will get: {estimate}."
    if asks:
        typer.echo(said, err=True)  # part of the question, so --quiet does not hide it
    else:
        errors.print(said, markup=False, soft_wrap=True)
    if max_cost is not None:
        if estimate.cost is None:
            raise ConfigError("--max-cost needs --prices: US dollars for a million tokens sent and received.")
        if estimate.cost > max_cost:
            raise ConfigError(
                f"This would cost about ${estimate.cost:.2f}, more than --max-cost {max_cost:g}; raise it, or "
                f"{cheaper}."
            )
        return
    if yes:
        return
    if not asks:
        raise ConfigError(
            "This would call the LLM and there is no terminal to confirm; pass --yes, or --max-cost with --prices."
        )
    if not typer.confirm("Go on?", err=True):
        raise typer.Exit(1)
