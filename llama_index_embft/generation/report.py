"""What a run did, or would do: counts, tokens, cost, and why questions were dropped."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from llama_index_embft.calls.counts import CallCounts, Prices, as_prices

if TYPE_CHECKING:
    from llama_index_embft.calls.settings import CallSettings

# Examples kept of each reason: enough to see what a filter does, and flat in memory.
_EXAMPLES: Final = 5
_TOKENS_A_JUDGEMENT: Final = 100


@dataclass
class GenerationReport(CallCounts):
    """What a run did: the ``report`` of a `GeneratedDataset`. ``failed`` says by chunk id why it has no queries.

    Attributes:
        chunks: Chunks given.
        empty: Chunks without text, left out of the data set.
        seconds: Wall-clock time of this run.
        reasked: Why chunks that were answered before were asked again: ``"prompt"`` or ``"model"`` -> count.
        unasked: Chunks that a sample left out; they stay in the corpus.
        covered: Chunks that queries were written for; None for a run that asks for something else.
        alone: Chunks asked questions in place of comparisons, as the only ones of their document.
        cut: Chunks that were cut to the model's context window.
        short: Chunks with fewer queries than asked for.
        generated: Queries before the filters.
        kept: Queries in the data set.
        merged: Queries that two chunks share word for word, kept once with both as relevant.
        unjudged: Queries on which the judge gave no readable verdict.
        dropped: Filter -> number of queries it dropped.
        examples: Filter -> up to 5 pairs (query, why it was dropped).
    """

    chunks: int = 0
    empty: int = 0
    seconds: float = 0.0
    reasked: Counter[str] = field(default_factory=Counter)
    unasked: int = 0
    covered: int | None = None
    alone: int = 0
    cut: int = 0
    short: int = 0
    generated: int = 0
    kept: int = 0
    merged: int = 0
    unjudged: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[tuple[str, str]]] = field(default_factory=dict)

    def drop(self, name: str, query: str, reason: str) -> None:
        """Count a query that a filter dropped."""
        self.dropped[name] += 1
        shown = self.examples.setdefault(name, [])
        if len(shown) < _EXAMPLES:
            shown.append((query, reason))

    def __str__(self) -> str:
        covered = self.chunks - self.empty - len(self.failed) if self.covered is None else self.covered
        lines = [
            f"{self.kept:,} queries from {covered:,} of {self.chunks:,} chunks "
            f"in {self.seconds:.1f} s; {self.answered:,} chunks asked, {self.from_journal:,} from the journal",
            f"{self.requests:,} requests ({self.retries:,} retries), {self.tokens}",
        ]
        if self.dropped:
            reasons = ", ".join(f"{count:,} {name}" for name, count in self.dropped.items())
            lines.append(f"dropped {sum(self.dropped.values()):,} of {self.generated:,} queries: {reasons}")
        notes = [(self.empty, "chunks without text"), (self.unasked, "chunks left out by the sample")]
        notes += [(self.cut, "chunks cut to the context window")]
        notes += [(count, f"chunks asked again: another {what}") for what, count in self.reasked.items()]
        notes += [(self.alone, "chunks asked questions in place of comparisons: their documents have no other chunk")]
        notes += [(self.short, "chunks with fewer queries than asked for"), (self.merged, "queries shared by chunks")]
        notes += [(self.unjudged, "queries without a readable verdict of the judge")]
        lines += [f"{count:,} {what}" for count, what in notes if count]
        if self.failed:
            reason, count = Counter(self.failed.values()).most_common(1)[0]
            lines.append(f"{len(self.failed):,} chunks failed, {count:,} of them with: {reason}")
        return "\n".join(lines)


@dataclass(frozen=True)
class GenerationEstimate:
    """What a run would take, as `estimate_qa_embedding_pairs` returns it; no call is made.

    Attributes:
        chunks: Chunks with text, or what else `unit` says.
        calls: Calls to the LLM, one for each chunk that the journal does not answer; retries and judges not counted.
        from_journal: Chunks that the journal answers.
        prompt_tokens: Tokens that would be sent, by LlamaIndex's tokenizer; other models count up to a third more.
        completion_tokens: Tokens that would come back: an estimate of 30 for a query and 40 for an answer.
        cost: US dollars; None where no prices were given.
        seconds_at_least: What the rate limits alone impose; 0 without limits.
        prices: What the cost was counted by.
        unit: What is counted.
    """

    chunks: int
    calls: int
    from_journal: int
    prompt_tokens: int
    completion_tokens: int
    cost: float | None
    seconds_at_least: float
    prices: Prices | None = None
    unit: str = "chunks"

    @classmethod
    def counted(
        cls,
        calls: int,
        known: int,
        prompt_tokens: int,
        answer_tokens: int,
        settings: CallSettings,
        unit: str = "chunks",
    ) -> GenerationEstimate:
        """The estimate for calls of which each asks about one unit.

        Args:
            calls: To be made.
            known: Units that the journal answers.
            prompt_tokens: Of all calls.
            answer_tokens: Of one call.
            settings: Prices and limits.
            unit: What is counted.
        """
        received, prices = calls * answer_tokens, as_prices(settings.prices)
        by_requests = calls / settings.requests_per_minute if settings.requests_per_minute else 0.0
        by_tokens = (prompt_tokens + received) / settings.tokens_per_minute if settings.tokens_per_minute else 0.0
        seconds = max(0.0, max(by_requests, by_tokens) - 1) * 60  # the first minute's quota goes at once
        cost = None if prices is None else prices.cost(prompt_tokens, received)
        return cls(calls + known, calls, known, prompt_tokens, received, cost, seconds, prices, unit)

    def with_more(self, *, calls_per_query: int, queries_per_chunk: int) -> GenerationEstimate:
        """The estimate with a judge or negatives: at most so many calls more, each with the chunk in its prompt."""
        if not self.calls or not calls_per_query:
            return self
        more = self.calls * queries_per_chunk * calls_per_query
        sent = self.prompt_tokens // self.calls * more
        received = more * _TOKENS_A_JUDGEMENT
        total_sent, total_received = self.prompt_tokens + sent, self.completion_tokens + received
        cost = None if self.prices is None else self.prices.cost(total_sent, total_received)
        return replace(
            self, calls=self.calls + more, prompt_tokens=total_sent, completion_tokens=total_received, cost=cost
        )

    def __str__(self) -> str:
        cost = "" if self.cost is None else f", about ${self.cost:.2f}"
        limits = f", at least {self.seconds_at_least:.0f} s by the rate limits" if self.seconds_at_least else ""
        known = f" ({self.from_journal:,} from the journal)" if self.from_journal else ""
        return (
            f"{self.calls:,} calls for {self.chunks:,} {self.unit}{known}, about "
            f"{self.prompt_tokens:,} + {self.completion_tokens:,} tokens{cost}{limits}"
        )
