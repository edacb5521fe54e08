"""Score the live traffic of a deployed query engine: sampled, in the background, never in the way of a request.

Nothing of TruLens runs in a request: it hands on question, contexts and answer. A thread scores them and writes them
into the TruLens database afterwards.
"""

from __future__ import annotations

import atexit
import logging
import random
import threading
from collections import deque
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from llama_index.core.base.base_query_engine import BaseQueryEngine

from llama_index_embft._core.checks import check_number
from llama_index_embft._core.redaction import redact
from llama_index_embft.errors import ConfigError
from llama_index_embft.evaluation.statistics.sequential import MeanSequence
from llama_index_embft.integrations.trulens.calls import JudgeUnavailableError, require_trulens
from llama_index_embft.integrations.trulens.database import DEFAULT_DATABASE
from llama_index_embft.integrations.trulens.feedback import (
    OUTCOMES,
    Exchange,
    FeedbackVerdict,
    JudgeSettings,
    feedbacks_for,
)

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterator, Iterator, Sequence

    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.llms import LLM
    from typing_extensions import Self

    from llama_index_embft.evaluation.statistics.sequential import AnytimeMean
    from llama_index_embft.integrations.trulens.feedback import Feedback

logger = logging.getLogger(__name__)

_STORE_SECONDS = 60.0


@dataclass(frozen=True)
class LiveStats:
    """What has become of the traffic so far.

    Attributes:
        seen: Answers that passed.
        sampled: Those of them that were to be scored.
        dropped: Sampled ones that were not: the queue was full, the scorer was closed, a stream was not read to its
            end.
        scored: Sampled ones that were scored and stored.
        failed: Sampled ones that could not be read, or whose verdicts could not be stored.
        waiting: Sampled ones that are still to be scored.
    """

    seen: int
    sampled: int
    dropped: int
    scored: int
    failed: int
    waiting: int


class LiveScorer:
    """Scores a sample of what query engines answer, in a thread of its own.

    The verdicts go into a TruLens database beside those of `evaluate_app` (give another version, such as ``"tuned,
    live"``, or both are averaged). Questions, contexts and answers are stored there in clear. One database at a time is
    open in a process: while `evaluate_app` writes to another one, live answers are not stored and count as failed.

    Args:
        app_name: Name of the app.
        app_version: Name of the version.
        llm: The judge of the RAG triad: any LlamaIndex LLM.
        embed_model: For relevance by embeddings; None: that of `llama_index.core.Settings` if one is set.
        database: A SQLite file, or the URL of another database.
        rate: Share of the answers to score, 0 to 1.
        seed: Which answers these are: the same for the same traffic.
        max_waiting: Answers that may wait to be scored; beyond them, answers are dropped and counted.
        judging: Limits of the calls to the judge; answers are judged one at a time, whatever `num_workers` says.

    Raises:
        MissingExtraError: The extra ``trulens`` is not installed.
        ConfigError: There is neither a judge nor an embedding model, or an argument has a value that is not allowed.
        EvaluationError: The database cannot be read.
        OutputError: The database cannot be opened.

    Example:
        >>> with LiveScorer("manuals", "tuned, live", llm=judge, rate=0.05) as scorer:  # doctest: +SKIP
        ...     engine = scorer.watch(engine)
        ...     serve(engine)
    """

    def __init__(
        self,
        app_name: str,
        app_version: str,
        *,
        llm: LLM | None = None,
        embed_model: BaseEmbedding | None = None,
        database: str | os.PathLike[str] = DEFAULT_DATABASE,
        rate: float = 0.1,
        seed: int = 0,
        max_waiting: int = 100,
        judging: JudgeSettings = JudgeSettings(),  # noqa: B008  # frozen
    ) -> None:
        check_number("rate", rate, at_least=0, at_most=1)
        check_number("max_waiting", max_waiting, at_least=1)
        require_trulens("`LiveScorer`")
        self._feedbacks: Sequence[Feedback]
        self._feedbacks, self._calls = feedbacks_for(llm, embed_model, replace(judging, num_workers=1))
        if not self._feedbacks:
            raise ConfigError("Nothing can be scored: give a judge (`llm`) or an embedding model (`embed_model`).")
        self._sink = _Sink(database, app_name, app_version, [feedback.name for feedback in self._feedbacks])
        self._rate = rate
        self._dice = random.Random(seed)
        self._max_waiting = max_waiting
        self._changed = threading.Condition()
        self._waiting: deque[Exchange] = deque()
        self._busy = self._closed = False
        self._counts = dict.fromkeys(("seen", "sampled", "dropped", "scored", "failed"), 0)
        self._outcomes: dict[str, dict[str, int]] = {
            feedback.name: {str(outcome): 0 for outcome in OUTCOMES} for feedback in self._feedbacks
        }
        self._sequences = {feedback.name: MeanSequence() for feedback in self._feedbacks}
        self._warned = False
        self._thread = threading.Thread(target=self._work, name="embft-live-scorer", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def watch(self, query_engine: Any) -> WatchedEngine:
        """A query engine that answers exactly as this one does, and whose answers are offered for scoring."""
        return WatchedEngine(query_engine, self)

    def observe(self, question: str, response: Any) -> Any:
        """Offer an answer for scoring, as a callback of your own would; returns the response.

        Costs a look at a random number, and for a sampled answer reading its texts. It raises nothing. A streaming
        response is scored when the last piece has been read; its stream is passed on piece by piece.
        """
        try:
            with self._changed:
                self._counts["seen"] += 1
                if self._dice.random() >= self._rate:
                    return response
                self._counts["sampled"] += 1
            contexts = tuple(node.get_content() for node in response.source_nodes)
            if getattr(response, "response_txt", "") is None:  # a stream that nobody has read yet
                stream = response.response_gen
                tee = self._atee if hasattr(stream, "__aiter__") else self._tee
                response.response_gen = tee(question, contexts, stream)
            else:
                text = response.response_txt if hasattr(response, "response_txt") else response.response
                self._offer(Exchange(question, str(text or ""), contexts))
        except Exception:  # noqa: BLE001  # the answer is on its way to a user; whatever is odd about it, they get it
            self._count("failed", "An answer could not be read for scoring")
        return response

    @property
    def stats(self) -> LiveStats:
        """Counts so far."""
        with self._changed:
            return LiveStats(**self._counts, waiting=len(self._waiting) + self._busy)

    def counts(self) -> dict[str, dict[str, int]]:
        """Feedback -> how many answers are ``scored``, ``undefined``, ``unreadable`` and ``failed``."""
        with self._changed:
            return {name: dict(outcomes) for name, outcomes in self._outcomes.items()}

    def means(self) -> dict[str, float]:
        """Feedback -> mean over the answers with a score; those without any are left out."""
        return {name: found.estimate for name, found in self.intervals().items() if found.estimate is not None}

    def intervals(self) -> dict[str, AnytimeMean]:
        """Feedback -> mean over the answers with a score, and a 95 % interval that may be looked at at any time.

        One that excludes a limit of yours, or two versions whose intervals do not overlap, stay so however long one
        looks on. An empty interval shows that the scores changed since the scorer was made.
        """
        with self._changed:
            found = {name: sequence.result for name, sequence in self._sequences.items()}
        return {name: mean for name, mean in found.items() if mean.n}

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until nothing waits to be scored; False if that takes longer than `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting and not self._busy, timeout)

    def close(self, timeout: float = 30.0) -> None:
        """Score what waits, for at most `timeout` seconds, and stop; what is left then is dropped and counted.

        Watched engines keep answering.
        """
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if not self.flush(timeout):
            with self._changed:
                self._counts["dropped"] += len(self._waiting)
                self._waiting.clear()
            if self._calls is not None:
                self._calls.stop()
        self._thread.join(min(timeout, 5.0))
        atexit.unregister(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _tee(self, question: str, contexts: tuple[str, ...], stream: Any) -> Iterator[str]:
        pieces: list[str] = []
        whole = False
        try:
            for piece in stream:
                pieces.append(piece)
                yield piece
            whole = True
        finally:
            self._finish(question, contexts, pieces, whole)

    async def _atee(self, question: str, contexts: tuple[str, ...], stream: Any) -> AsyncIterator[str]:
        pieces: list[str] = []
        whole = False
        try:
            async for piece in stream:
                pieces.append(piece)
                yield piece
            whole = True
        finally:
            self._finish(question, contexts, pieces, whole)

    def _finish(self, question: str, contexts: tuple[str, ...], pieces: list[str], whole: bool) -> None:
        if whole:
            self._offer(Exchange(question, "".join(map(str, pieces)), contexts))
        else:  # the user went away, or the model failed: half an answer is not what it would have been
            self._count("dropped")

    def _offer(self, exchange: Exchange) -> None:
        with self._changed:
            if self._closed or len(self._waiting) >= self._max_waiting:
                self._counts["dropped"] += 1
                return
            self._waiting.append(exchange)
            self._changed.notify_all()

    def _count(self, what: str, warning: str = "") -> None:
        with self._changed:
            self._counts[what] += 1
            first, self._warned = not self._warned and bool(warning), self._warned or bool(warning)
        if first:
            logger.warning("%s; further ones are only counted.", warning, exc_info=True)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._waiting) or self._closed)
                if not self._waiting:
                    return
                exchange = self._waiting.popleft()
                self._busy = True
            try:
                verdicts = self._score(exchange)
                self._sink.store(exchange, verdicts)
                self._add_up(verdicts)
            except Exception:  # noqa: BLE001  # a thread that dies would stop scoring for good, unseen
                self._count("failed", "A live answer could not be scored")
            finally:
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()

    def _score(self, exchange: Exchange) -> dict[str, FeedbackVerdict]:
        found = {feedback.name: _score_one(feedback, exchange) for feedback in self._feedbacks}
        if self._calls is not None:
            self._calls.forgive()  # a service outlives a wrong key and a server that restarts
        return found

    def _add_up(self, verdicts: dict[str, FeedbackVerdict]) -> None:
        with self._changed:
            self._counts["scored"] += 1
            for name, verdict in verdicts.items():
                self._outcomes[name][verdict.outcome] += 1
                if verdict.score is not None:
                    self._sequences[name].add(verdict.score)


class WatchedEngine(BaseQueryEngine):
    """A query engine that hands its answers to a `LiveScorer` as well; see `LiveScorer.watch`.

    Attributes:
        engine: The engine that answers.
    """

    def __init__(self, engine: Any, scorer: LiveScorer) -> None:
        super().__init__(callback_manager=getattr(engine, "callback_manager", None))
        self.engine = engine
        self._scorer = scorer

    def query(self, str_or_query_bundle: Any) -> Any:
        """Ask the engine."""
        return self._scorer.observe(_words(str_or_query_bundle), self.engine.query(str_or_query_bundle))

    async def aquery(self, str_or_query_bundle: Any) -> Any:
        """Ask the engine."""
        return self._scorer.observe(_words(str_or_query_bundle), await self.engine.aquery(str_or_query_bundle))

    def retrieve(self, query_bundle: Any) -> Any:
        """What the engine retrieves; not scored."""
        return self.engine.retrieve(query_bundle)

    def synthesize(self, *args: Any, **options: Any) -> Any:
        """What the engine makes of nodes; not scored."""
        return self.engine.synthesize(*args, **options)

    async def asynthesize(self, *args: Any, **options: Any) -> Any:
        """What the engine makes of nodes; not scored."""
        return await self.engine.asynthesize(*args, **options)

    def _get_prompt_modules(self) -> Any:
        return {"engine": self.engine} if hasattr(self.engine, "get_prompts") else {}

    def _query(self, query_bundle: Any) -> Any:
        return self.engine.query(query_bundle)

    async def _aquery(self, query_bundle: Any) -> Any:
        return await self.engine.aquery(query_bundle)


class _Sink:
    """Writes exchanges with their verdicts into the database, by a replay of each."""

    def __init__(self, database: str | os.PathLike[str], app_name: str, app_version: str, names: Sequence[str]) -> None:
        from llama_index_embft.integrations.trulens import recording

        self._recording = recording
        self._session = recording.open_session(database)
        self._recorder = recording.Recorder(self._session, self, app_name, app_version, names, whole_app=False)
        self._exchange: Exchange | None = None

    def query(self, _question: str) -> Any:
        """The response that is replayed."""
        assert self._exchange is not None
        nodes = [SimpleNamespace(get_content=lambda text=text: text) for text in self._exchange.contexts]
        return SimpleNamespace(response=self._exchange.answer, source_nodes=nodes)

    def store(self, exchange: Exchange, verdicts: dict[str, FeedbackVerdict]) -> None:
        self._recording.require_open(self._session)
        self._exchange = exchange
        ((record_id, _, _),) = self._recorder.record([exchange.question])
        of_record = {name: {record_id: verdict} for name, verdict in verdicts.items()}
        self._recorder.store(of_record, timeout=_STORE_SECONDS)


def _score_one(feedback: Feedback, exchange: Exchange) -> FeedbackVerdict:
    try:
        return feedback.score([exchange])[0]
    except JudgeUnavailableError as err:
        return FeedbackVerdict("failed", reason=redact(str(err)))


def _words(query: Any) -> str:
    return query if isinstance(query, str) else str(getattr(query, "query_str", query))
