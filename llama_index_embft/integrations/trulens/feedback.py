"""What is asked about a question, its contexts and its answer: the RAG triad by a judge, or relevance by embeddings."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from llama_index_embft._core.checks import check_number
from llama_index_embft._core.redaction import redact
from llama_index_embft._core.vectors import unit_rows
from llama_index_embft.integrations.trulens.calls import JudgeCallError, JudgeUnavailableError, require_trulens

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.llms import LLM

    from llama_index_embft.integrations.trulens.calls import JudgeCalls

ScoringOutcome = Literal["scored", "undefined", "unreadable", "failed"]
OUTCOMES: Final[tuple[ScoringOutcome, ...]] = ("scored", "undefined", "unreadable", "failed")

_WORKERS: Final = 8  # remote judges are waited for, not computed


@dataclass(frozen=True)
class Exchange:
    """One question to a query engine and what came back.

    Attributes:
        question: The question.
        answer: The answer; empty for an engine that only retrieves.
        contexts: Texts of the source nodes, best first.
    """

    question: str
    answer: str
    contexts: tuple[str, ...]


@dataclass(frozen=True)
class FeedbackVerdict:
    """What one feedback says about one exchange.

    Attributes:
        outcome: ``"scored"``; ``"undefined"``: there is nothing to judge, such as an empty answer; ``"unreadable"``:
            the judge's answer holds no score; ``"failed"``: the judge could not be asked.
        score: In [0, 1], and only where the outcome is ``"scored"``.
        reason: The judge's words, or why there is no score.
    """

    outcome: ScoringOutcome
    score: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class JudgeSettings:
    """How the judge is called.

    Attributes:
        requests_per_minute: Most requests in any window of a minute, repeated ones included; None for no limit.
        retry_limit: Attempts a question; waiting for a rate limit does not count.
        num_workers: Exchanges judged at the same time. None takes 8, or 1 for an LLM without real async calls (local
            models must not be called by two threads).
        journal_path: File that keeps what the judge has said, so that the same question is never paid for twice. None:
            beside the database where that is a file.

    Raises:
        ConfigError: A number is below 1.
    """

    requests_per_minute: int | None = None
    retry_limit: int = 3
    num_workers: int | None = None
    journal_path: str | Path | None = None

    def __post_init__(self) -> None:
        for name in ("requests_per_minute", "retry_limit", "num_workers"):
            if (value := getattr(self, name)) is not None:
                check_number(name, value, at_least=1)


@dataclass(frozen=True)
class Feedback:
    """A named score of exchanges.

    Attributes:
        name: Column in the leaderboard.
        score: Verdicts on any number of exchanges, in their order; raises only if no exchange can be scored.
    """

    name: str
    score: Callable[[Sequence[Exchange]], list[FeedbackVerdict]]


def feedbacks_for(
    llm: LLM | None, embed_model: BaseEmbedding | None, judging: JudgeSettings
) -> tuple[list[Feedback], JudgeCalls | None]:
    """The feedbacks that a judge and an embedding model make possible, and the judge's calls."""
    from llama_index.core import Settings

    feedbacks: list[Feedback] = []
    calls = None
    if llm is not None:
        feedbacks, calls = judge_feedbacks(llm, judging)
    # Its property would make OpenAI's model where none is set.
    yardstick = embed_model if embed_model is not None else Settings._embed_model
    if yardstick is not None:
        feedbacks = [*feedbacks, *embedding_feedbacks(yardstick)]
    return feedbacks, calls


def judge_feedbacks(
    llm: LLM,
    judging: JudgeSettings = JudgeSettings(),  # frozen
) -> tuple[list[Feedback], JudgeCalls]:
    """The RAG triad by an LLM: ``context_relevance``, ``groundedness``, ``answer_relevance``.

    A question costs one call for each context, one for each sentence of the answer, and one for the answer; a judge
    that does not answer in JSON costs a second call each time.

    Args:
        llm: Any LlamaIndex LLM.
        judging: How it is called.

    Returns:
        The feedbacks, and the counter of the calls that they share.

    Raises:
        MissingExtraError: The extra ``trulens`` is not installed.
    """
    require_trulens("The RAG triad")
    from llama_index_embft.integrations.trulens.provider import LlamaIndexProvider

    provider = LlamaIndexProvider(
        llm,
        requests_per_minute=judging.requests_per_minute,
        retry_limit=judging.retry_limit,
        journal_path=judging.journal_path,
    )
    proven = threading.Event()
    workers = judging.num_workers or (_WORKERS if provider.calls.concurrent else 1)

    def context_relevance(exchange: Exchange) -> tuple[float | None, str]:
        found = [
            provider.readable_score(provider.context_relevance_with_cot_reasons, exchange.question, context)
            for context in exchange.contexts
        ]
        scores = [score for score, _ in found if score is not None]
        reasons = "\n".join(f"Context {i}: {reason}" for i, (_, reason) in enumerate(found, 1))
        return (sum(scores) / len(scores) if scores else None), reasons

    def groundedness(exchange: Exchange) -> tuple[float | None, str]:
        return provider.groundedness(exchange.contexts, exchange.answer)

    def answer_relevance(exchange: Exchange) -> tuple[float | None, str]:
        return provider.readable_score(provider.relevance_with_cot_reasons, exchange.question, exchange.answer)

    feedbacks = [
        _judged("context_relevance", context_relevance, workers, proven, needs_answer=False, needs_contexts=True),
        _judged("groundedness", groundedness, workers, proven, needs_answer=True, needs_contexts=True),
        _judged("answer_relevance", answer_relevance, workers, proven, needs_answer=True, needs_contexts=False),
    ]
    return feedbacks, provider.calls


def embedding_feedbacks(embed_model: BaseEmbedding | Any) -> list[Feedback]:
    """Relevance by embeddings: the cosine of the question with its contexts (mean) and with the answer, below 0 as 0.

    A cheap stand-in for a judge, and only as good as the model: give one model to all versions of an app, and not the
    tuned one, which was trained to make this number large.

    Args:
        embed_model: A LlamaIndex embedding, a SentenceTransformer, or an `Encoder`.
    """
    from llama_index_embft.embeddings.encoding.encoder import as_encoder

    encoder = as_encoder(embed_model)

    def cosines(exchanges: Sequence[Exchange], texts: Sequence[Sequence[str]]) -> list[FeedbackVerdict]:
        questions = list(dict.fromkeys(exchange.question for exchange in exchanges))
        others = list(dict.fromkeys(text for group in texts for text in group))
        if not others:
            return [FeedbackVerdict("undefined", reason="There is no text to compare.") for _ in exchanges]
        left = dict(zip(questions, unit_rows(encoder.encode_queries(questions)), strict=True))
        right = dict(zip(others, unit_rows(encoder.encode_documents(others)), strict=True))
        verdicts = []
        for exchange, group in zip(exchanges, texts, strict=True):
            if not group:
                verdicts.append(FeedbackVerdict("undefined", reason="There is no text to compare."))
                continue
            values = [min(1.0, max(0.0, float(left[exchange.question] @ right[text]))) for text in group]
            shown = ", ".join(f"{value:.3f}" for value in values)
            verdicts.append(FeedbackVerdict("scored", sum(values) / len(values), f"Cosines: {shown}."))
        return verdicts

    def contexts(exchanges: Sequence[Exchange]) -> list[FeedbackVerdict]:
        return cosines(exchanges, [exchange.contexts for exchange in exchanges])

    def answers(exchanges: Sequence[Exchange]) -> list[FeedbackVerdict]:
        return cosines(exchanges, [(exchange.answer,) if exchange.answer.strip() else () for exchange in exchanges])

    return [Feedback("embedding_context_relevance", contexts), Feedback("embedding_answer_relevance", answers)]


def count_outcomes(verdicts: Sequence[FeedbackVerdict]) -> dict[str, int]:
    """ScoringOutcome -> number of verdicts, all outcomes named."""
    counts = Counter(verdict.outcome for verdict in verdicts)
    return {outcome: counts[outcome] for outcome in OUTCOMES}


def _judged(
    name: str,
    judge: Callable[[Exchange], tuple[float | None, str]],
    workers: int,
    proven: threading.Event,
    *,
    needs_answer: bool,
    needs_contexts: bool,
) -> Feedback:
    def one(exchange: Exchange) -> FeedbackVerdict:
        if needs_answer and not exchange.answer.strip():
            return FeedbackVerdict("undefined", reason="The answer is empty.")
        if needs_contexts and not exchange.contexts:
            return FeedbackVerdict("undefined", reason="Nothing was retrieved.")
        try:
            score, reason = judge(exchange)
        except JudgeUnavailableError as err:
            if not proven.is_set():
                raise
            # What was judged so far is paid for and stays: an account that runs dry at the last question loses one.
            return FeedbackVerdict("failed", reason=redact(str(err)))
        except JudgeCallError as err:
            return FeedbackVerdict("failed", reason=redact(str(err)))
        proven.set()
        if score is None or not np.isfinite(score):
            return FeedbackVerdict("unreadable", reason=reason)
        return FeedbackVerdict("scored", score, reason)

    def score(exchanges: Sequence[Exchange]) -> list[FeedbackVerdict]:
        if workers == 1 or len(exchanges) < 2:
            return [one(exchange) for exchange in exchanges]
        with ThreadPoolExecutor(workers) as pool:
            return list(pool.map(one, exchanges))

    return Feedback(name, score)
