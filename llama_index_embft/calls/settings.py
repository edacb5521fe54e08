"""How an LLM is called: settings that every function with an LLM takes, and the command line is made from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 - the command line reads the annotations
from typing import Literal, TypeAlias, get_args

from llama_index_embft._core.checks import check_choice, check_number
from llama_index_embft._core.options import option
from llama_index_embft.calls.counts import as_prices
from llama_index_embft.errors import ConfigError

Structured: TypeAlias = Literal["auto", "tools", "llm", "text"]
"""How answers come: through a tool call, through `as_structured_llm`, as text, or the best that the LLM has."""

OnFailure: TypeAlias = Literal["continue", "fail"]


@dataclass(frozen=True)
class CallSettings:
    """How an LLM is called.

    Attributes:
        num_workers: Requests in flight. None takes 16, or 1 for an LLM without real async calls (`CustomLLM`: llama.cpp
            and many local models must not be called by two threads).
        requests_per_minute: Limit in any sliding minute, retries included; None for no limit.
        tokens_per_minute: Limit of prompt and answer tokens in any sliding minute; None for no limit.
        structured: How answers come: ``"tools"`` (function calling), ``"llm"`` (`as_structured_llm`), ``"text"``, or
            ``"auto"`` for the best that the LLM has, with text if the server refuses.
        prices: US dollars for a million tokens sent and received, to show the cost.
        max_cost: US dollars after which a run stops, by ``prices``; what was answered is kept. None for no limit.
        journal_path: File of the journal; several processes and several runs may share one. None takes that of the
            model at its server in the user's cache folder (``$EMBFT_CACHE_DIR/journals``), so that the same question
            is paid for once, whatever the output is called. For an LLM class of your own it stands beside the output,
            or is temporary.

    Raises:
        ConfigError: A value is not allowed.
    """

    num_workers: int | None = option(
        None, "Concurrent requests; default: 16, or 1 for an LLM without real async calls."
    )
    requests_per_minute: int | None = option(None, "Maximum requests per minute, retries included.")
    tokens_per_minute: int | None = option(None, "Maximum tokens per minute, prompts and answers together.")
    structured: Structured = option("auto", "How the LLM returns answers: auto, tools, llm or text.")
    prices: tuple[float, float] | None = option(None, "US dollars per million tokens sent and received.")
    max_cost: float | None = option(None, "Spending limit in US dollars; needs prices.")
    journal_path: str | Path | None = option(None, "File that keeps every answer (the journal).")

    def __post_init__(self) -> None:
        for name in ("num_workers", "requests_per_minute", "tokens_per_minute"):
            if (value := getattr(self, name)) is not None:
                hint = "use None for no limit" if name.endswith("minute") else ""
                check_number(name, value, at_least=1, hint=hint)
        check_choice("structured", self.structured, get_args(Structured))
        as_prices(self.prices)
        if self.max_cost is not None:
            check_number("max_cost", self.max_cost, above=0)
            if self.prices is None:
                raise ConfigError(f"`max_cost` is {self.max_cost}, and there are no `prices` to count by; give both.")
