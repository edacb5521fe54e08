"""What is asked about a question, its contexts and its answer: the RAG triad by a judge, or relevance by embeddings."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from llama_index_embft.errors import ConfigError
from llama_index_embft.integrations.trulens.calls import JudgeCallError, JudgeUnavailableError, require_trulens

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.llms import LLM

    from llama_index_embft.integrations.trulens.calls import JudgeCalls

Outcome = Literal["scored", "undefined", "unreadable", "failed"]
OUTCOMES: Final[tuple[Outcome, ...]] = ("scored", "undefined", "unreadable", "failed")

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
class Verdict:
    """What one feedback says about one exchange.

    Attributes:
        outcome: ``"scored"``; ``"undefined"``: there is nothing to judge, such as an empty answer; ``"unreadable"``:
            the judge's answer holds no score; ``"failed"``: the judge could not be asked.
        score: In [0, 1], and only where the outcome is ``"scored"``.
        reason: The judge's words, or why there is no score.
    """

    outcome: Outcome
    score: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Feedback:
    """A named score of exchanges.

    Attributes:
        name: Column in the leaderboard.
        score: Verdicts on any number of exchanges, in their order; raises only if no exchange can be scored.
    """

    name: str
    score: Callable[[Sequence[Exchange]], list[Verdict]]


def judge_feedbacks(
    llm: LLM, *, requests_per_minute: int | None = None, retry_limit: int = 3, num_workers: int | None = None
) -> tuple[list[Feedback], JudgeCalls]:
    """The RAG triad by an LLM: ``context_relevance``, ``groundedness``, ``answer_relevance``.

    A question costs one call for each context, one for each sentence of the answer, and one for the answer; a judge
    that does not answer in JSON costs a second call each time.

    Args:
        llm: Any LlamaIndex LLM.
        requests_per_minute: Most requests in any window of a minute; None for no limit.
        retry_limit: Attempts a question to the judge.
        num_workers: Exchanges judged at the same time. None takes 8, or 1 for an LLM without real async calls (local
            models must not be called by two threads).

    Returns:
        The feedbacks, and the counter of the calls that they share.

    Raises:
        ConfigError: A limit is below 1.
        MissingExtraError: The extra ``trulens`` is not installed.
    """
    require_trulens("The RAG triad")
    from llama_index_embft.integrations.trulens.provider import LlamaIndexProvider

    if num_workers is not None and num_workers < 1:
        raise ConfigError(f"`num_workers` must be at least 1, got {num_workers}.")
    provider = LlamaIndexProvider(llm, requests_per_minute=requests_per_minute, retry_limit=retry_limit)
    workers = num_workers or (_WORKERS if provider.calls.concurrent else 1)

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
        _judged("context_relevance", context_relevance, workers, needs_answer=False, needs_contexts=True),
        _judged("groundedness", groundedness, workers, needs_answer=True, needs_contexts=True),
        _judged("answer_relevance", answer_relevance, workers, needs_answer=True, needs_contexts=False),
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

    def cosines(exchanges: Sequence[Exchange], texts: Sequence[Sequence[str]]) -> list[Verdict]:
        questions = list(dict.fromkeys(exchange.question for exchange in exchanges))
        others = list(dict.fromkeys(text for group in texts for text in group))
        if not others:
            return [Verdict("undefined", reason="There is no text to compare.") for _ in exchanges]
        left = dict(zip(questions, _unit(encoder.encode_queries(questions)), strict=True))
        right = dict(zip(others, _unit(encoder.encode_documents(others)), strict=True))
        verdicts = []
        for exchange, group in zip(exchanges, texts, strict=True):
            if not group:
                verdicts.append(Verdict("undefined", reason="There is no text to compare."))
                continue
            values = [min(1.0, max(0.0, float(left[exchange.question] @ right[text]))) for text in group]
            shown = ", ".join(f"{value:.3f}" for value in values)
            verdicts.append(Verdict("scored", sum(values) / len(values), f"Cosines: {shown}."))
        return verdicts

    def contexts(exchanges: Sequence[Exchange]) -> list[Verdict]:
        return cosines(exchanges, [exchange.contexts for exchange in exchanges])

    def answers(exchanges: Sequence[Exchange]) -> list[Verdict]:
        return cosines(exchanges, [(exchange.answer,) if exchange.answer.strip() else () for exchange in exchanges])

    return [Feedback("embedding_context_relevance", contexts), Feedback("embedding_answer_relevance", answers)]


def count_outcomes(verdicts: Sequence[Verdict]) -> dict[str, int]:
    """Outcome -> number of verdicts, all outcomes named."""
    counts = Counter(verdict.outcome for verdict in verdicts)
    return {outcome: counts[outcome] for outcome in OUTCOMES}


def _judged(
    name: str,
    judge: Callable[[Exchange], tuple[float | None, str]],
    workers: int,
    *,
    needs_answer: bool,
    needs_contexts: bool,
) -> Feedback:
    def one(exchange: Exchange) -> Verdict:
        if needs_answer and not exchange.answer.strip():
            return Verdict("undefined", reason="The answer is empty.")
        if needs_contexts and not exchange.contexts:
            return Verdict("undefined", reason="Nothing was retrieved.")
        try:
            score, reason = judge(exchange)
        except JudgeUnavailableError:
            raise
        except JudgeCallError as err:
            return Verdict("failed", reason=str(err))
        if score is None or not np.isfinite(score):
            return Verdict("unreadable", reason=reason)
        return Verdict("scored", score, reason)

    def score(exchanges: Sequence[Exchange]) -> list[Verdict]:
        if workers == 1 or len(exchanges) < 2:
            return [one(exchange) for exchange in exchanges]
        with ThreadPoolExecutor(workers) as pool:
            return list(pool.map(one, exchanges))

    return Feedback(name, score)


def _unit(vectors: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    unit: np.ndarray[Any, Any] = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return unit
