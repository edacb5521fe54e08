"""What commands that ask an LLM do before they spend anything: check the server, say what it takes, and ask."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from llama_index_embft.errors import ConfigError

if TYPE_CHECKING:
    from llama_index_embft.generation import GenerationEstimate


def confirm_cost(estimate: GenerationEstimate, *, yes: bool, max_cost: float | None) -> None:
    """Say what a run takes, and ask whether to go on, unless nothing has to be asked of the LLM.

    Args:
        estimate: What it takes.
        yes: Do not ask.
        max_cost: US dollars; a run that is estimated within them is not asked about either.

    Raises:
        ConfigError: The estimate is above ``max_cost``, or there is nobody to ask.
    """
    if estimate.calls == 0:
        return
    typer.echo(f"To be asked of the LLM: {estimate}.", err=True)
    if max_cost is not None:
        if estimate.cost is None:
            raise ConfigError("--max-cost needs --prices: US dollars for a million tokens sent and received.")
        if estimate.cost > max_cost:
            raise ConfigError(
                f"This would cost about ${estimate.cost:.2f}, more than --max-cost {max_cost:g}; raise it, or give "
                "fewer documents or --questions-per-chunk."
            )
        return
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError("Nobody is there to be asked whether to go on; give --yes, or --max-cost with --prices.")
    if not typer.confirm("Go on?", err=True):
        raise typer.Exit(1)
