"""What calls to a web API took: requests, tokens, money."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from llama_index_embft.errors import ConfigError


class Prices(NamedTuple):
    """US dollars for a million tokens.

    Attributes:
        prompt: For tokens sent.
        completion: For tokens received.
    """

    prompt: float
    completion: float

    def cost(self, prompt_tokens: float, completion_tokens: float) -> float:
        """US dollars for these tokens."""
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1e6


def as_prices(prices: tuple[float, float] | None) -> Prices | None:
    """Check prices.

    Raises:
        ConfigError: Not two numbers from 0.
    """
    if prices is None:
        return None
    try:
        sent, received = prices
        sound = all(0 <= price < float("inf") for price in (sent, received))
    except (TypeError, ValueError):  # one number, a text
        sound = False
    if not sound:
        raise ConfigError(
            f"`prices` is {prices!r}; it must be two numbers from 0: US dollars for a million tokens sent and received."
        )
    return Prices(sent, received)


@dataclass
class CallCounts:
    """Counts of the calls of one run.

    Attributes:
        answered: Requests that were answered in this run.
        from_journal: Requests that the journal answered.
        requests: Calls sent, retries included.
        retries: Calls beyond the first for the same request.
        prompt_tokens: Tokens sent in this run.
        completion_tokens: Tokens received in this run.
        estimated: Some token counts are our own estimates, since the server did not report usage.
        cost: US dollars for this run; None where no prices were given.
        failed: What was asked for -> why there is no usable answer.
    """

    answered: int = 0
    from_journal: int = 0
    requests: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    estimated: bool = False
    cost: float | None = None
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def tokens(self) -> str:
        """Tokens and cost in words."""
        about = "about " if self.estimated else ""
        cost = "" if self.cost is None else f", ${self.cost:.4f}"
        return f"{about}{self.prompt_tokens:,} + {self.completion_tokens:,} tokens{cost}"

    def add(self, other: CallCounts) -> None:
        """Add the requests, retries and tokens of another count."""
        for name in ("requests", "retries", "prompt_tokens", "completion_tokens"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.estimated |= other.estimated
