"""What a run did, or would do: counts, tokens, cost, and why questions were dropped."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from llama_index_embft.errors import ConfigError

# Examples kept of each reason: enough to see what a filter does, and flat in memory.
_EXAMPLES: Final = 5


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
    if len(prices) != 2 or not all(price >= 0 for price in prices):
        raise ConfigError(
            f"`prices` are two numbers, US dollars for a million tokens sent and received; got {prices!r}."
        )
    return Prices(*prices)


@dataclass
class GenerationReport:
    """What a run did. Pass an empty one to `generate_qa_embedding_pairs` and read it afterwards.

    Attributes:
        chunks: Chunks given.
        empty: Chunks without text, left out of the data set.
        from_journal: Questions to the LLM that the journal answered.
        answered: Questions to the LLM that were answered in this run.
        requests: Calls sent, retries included.
        retries: Calls beyond the first for the same question.
        prompt_tokens: Tokens sent in this run.
        completion_tokens: Tokens received in this run.
        estimated: Some token counts are our own estimates, since the server did not report usage.
        cost: US dollars for this run; None where no prices were given.
        seconds: Wall-clock time of this run.
        reasked: Why chunks that were answered before were asked again: ``"prompt"`` or ``"model"`` -> count.
        cut: Chunks that were cut to the model's context window.
        short: Chunks with fewer queries than asked for.
        failed: Chunk id -> why it has no queries.
        generated: Queries before the filters.
        kept: Queries in the data set.
        merged: Queries that two chunks share word for word, kept once with both as relevant.
        dropped: Filter -> number of queries it dropped.
        examples: Filter -> up to 5 pairs (query, why it was dropped).
    """

    chunks: int = 0
    empty: int = 0
    from_journal: int = 0
    answered: int = 0
    requests: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    estimated: bool = False
    cost: float | None = None
    seconds: float = 0.0
    reasked: Counter[str] = field(default_factory=Counter)
    cut: int = 0
    short: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    generated: int = 0
    kept: int = 0
    merged: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[tuple[str, str]]] = field(default_factory=dict)

    def drop(self, name: str, query: str, reason: str) -> None:
        """Count a query that a filter dropped."""
        self.dropped[name] += 1
        shown = self.examples.setdefault(name, [])
        if len(shown) < _EXAMPLES:
            shown.append((query, reason))

    def __str__(self) -> str:
        lines = [
            f"{self.kept:,} queries from {self.chunks - self.empty - len(self.failed):,} of {self.chunks:,} chunks "
            f"in {self.seconds:.1f} s; {self.answered:,} chunks asked, {self.from_journal:,} from the journal",
            f"{self.requests:,} requests ({self.retries:,} retries), {self.tokens}",
        ]
        if self.dropped:
            reasons = ", ".join(f"{count:,} {name}" for name, count in self.dropped.items())
            lines.append(f"dropped {sum(self.dropped.values()):,} of {self.generated:,} queries: {reasons}")
        notes = [(self.empty, "chunks without text"), (self.cut, "chunks cut to the context window")]
        notes += [(count, f"chunks asked again: another {what}") for what, count in self.reasked.items()]
        notes += [(self.short, "chunks with fewer queries than asked for"), (self.merged, "queries shared by chunks")]
        lines += [f"{count:,} {what}" for count, what in notes if count]
        if self.failed:
            reason, count = Counter(self.failed.values()).most_common(1)[0]
            lines.append(f"{len(self.failed):,} chunks failed, {count:,} of them with: {reason}")
        return "\n".join(lines)

    @property
    def tokens(self) -> str:
        """Tokens and cost in words."""
        about = "about " if self.estimated else ""
        cost = "" if self.cost is None else f", ${self.cost:.4f}"
        return f"{about}{self.prompt_tokens:,} + {self.completion_tokens:,} tokens{cost}"


@dataclass(frozen=True)
class GenerationEstimate:
    """What a run would take, returned for ``dry_run=True``; no call is made.

    Attributes:
        chunks: Chunks with text.
        calls: Calls to the LLM, one for each chunk that the journal does not answer; retries and judges not counted.
        from_journal: Chunks that the journal answers.
        prompt_tokens: Tokens that would be sent, by LlamaIndex's tokenizer; other models count up to a third more.
        completion_tokens: Tokens that would come back: an estimate of 30 for a query and 40 for an answer.
        cost: US dollars; None where no prices were given.
        seconds_at_least: What the rate limits alone impose; 0 without limits.
    """

    chunks: int
    calls: int
    from_journal: int
    prompt_tokens: int
    completion_tokens: int
    cost: float | None
    seconds_at_least: float

    def __str__(self) -> str:
        cost = "" if self.cost is None else f", about ${self.cost:.2f}"
        limits = f", at least {self.seconds_at_least:.0f} s by the rate limits" if self.seconds_at_least else ""
        return (
            f"{self.calls:,} calls for {self.chunks:,} chunks ({self.from_journal:,} from the journal), about "
            f"{self.prompt_tokens:,} + {self.completion_tokens:,} tokens{cost}{limits}"
        )


class Progress:
    """A progress bar with requests a second, tokens and cost; silent unless asked for.

    Args:
        total: Chunks to go through.
        report: Where the figures are counted.
        prices: For the cost.
        show: Draw the bar, on standard error.
        label: What is going on.
        unit: What is counted.
    """

    def __init__(
        self,
        total: int,
        report: GenerationReport,
        prices: Prices | None,
        *,
        show: bool,
        label: str,
        unit: str = "chunk",
    ) -> None:
        from tqdm.auto import tqdm

        self._report = report
        self._prices = prices
        self._started = time.monotonic()
        self._requests_before = report.requests
        self._show = show
        self._bar = tqdm(total=total, desc=label, unit=unit, disable=not show)

    def advance(self, chunks: int = 1) -> None:
        """Count finished chunks; the bar redraws itself at most ten times a second."""
        report = self._report
        if self._prices is not None:
            report.cost = self._prices.cost(report.prompt_tokens, report.completion_tokens)
        if self._show:
            rate = (report.requests - self._requests_before) / max(time.monotonic() - self._started, 1e-3)
            failed = f", {len(report.failed)} failed" if report.failed else ""
            self._bar.set_postfix_str(f"{rate:.1f} req/s, {report.tokens}{failed}", refresh=False)
        self._bar.update(chunks)

    def close(self) -> None:
        """Draw the bar a last time."""
        self.advance(0)
        self._bar.close()

    def say(self, text: str) -> None:
        """Write lines without breaking the bar, where the bar is shown."""
        if self._show:
            import sys

            self._bar.write(text, file=sys.stderr)
