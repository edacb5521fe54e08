"""What a run with an LLM would cost, and the question whether to go on."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from llama_index_embft._core.checks import check_number
from llama_index_embft.errors import ConfigError

if TYPE_CHECKING:
    from llama_index_embft.generation import GenerationEstimate


def agree_to_cost(estimate: GenerationEstimate, *, yes: bool, max_cost: float | None) -> None:
    """Go on only if the cost is agreed to: by ``--yes``, by ``--max-cost``, or by an answer in the terminal.

    Args:
        estimate: What would be asked; a run that the journal answers needs no agreement.
        yes: Given beforehand.
        max_cost: Most US dollars; needs prices.

    Raises:
        ConfigError: It costs more, or nobody can be asked.
    """
    if max_cost is not None:
        check_number("max_cost", max_cost, at_least=0)
        if estimate.cost is None:
            raise ConfigError("--max-cost needs the price of a token: give --prices IN OUT, in dollars a million.")
        if estimate.cost > max_cost:
            raise ConfigError(
                f"It would cost about ${estimate.cost:.2f}, more than --max-cost {max_cost:g}: {estimate}; allow more, "
                "or give fewer documents or questions."
            )
        return
    if yes or not estimate.calls:
        return
    if not sys.stdin.isatty():
        raise ConfigError(f"It would take {estimate}; agree with --yes or set a limit with --max-cost.")
    import typer

    typer.confirm(f"It takes {estimate}. Go on?", abort=True)
