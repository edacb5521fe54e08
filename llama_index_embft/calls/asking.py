"""One question to the LLM: structured where it can, within the limits, tried again where that helps."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias, get_args

from llama_index_embft.calls.connections import close_own_connections, without_retries
from llama_index_embft.calls.failures import Failure, Redactor, classify
from llama_index_embft.calls.retrying import Patience
from llama_index_embft.calls.retrying import RetryPolicy as RetryPolicy  # others find it here
from llama_index_embft.calls.tokens import certainly_fits, count_tokens, cut_to_tokens
from llama_index_embft.errors import ConfigError, GenerationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from llama_index.core.llms import LLM
    from pydantic import BaseModel

    from llama_index_embft.calls.limits import RateLimiter
    from llama_index_embft.generation.report import GenerationReport

logger = logging.getLogger(__name__)

Structured: TypeAlias = Literal["auto", "tools", "llm", "text"]
"""How answers come: through a tool call, through `as_structured_llm`, as text, or the best that the LLM has."""

# Fields of LlamaIndex LLMs that change what they answer. The address of the server is not among them: a run may be
# continued on another replica, and the key must never get near a hash.
_SETTINGS: Final = (
    "temperature",
    "max_tokens",
    "top_p",
    "seed",
    "system_prompt",
    "reasoning_effort",
    "additional_kwargs",
)


class Reply(NamedTuple):
    """An answer that could be used, and what it took."""

    payload: Any
    prompt_tokens: int
    completion_tokens: int
    estimated: bool


@dataclass(frozen=True)
class Question:
    """What to ask.

    Attributes:
        body: The request.
        format_line: How to answer, for plain text.
        schema: Pydantic model of a structured answer.
        read: Turns a text or a dict into what is kept; raises `UnusableAnswerError`.
        expected_tokens: Length of the answer, for the tokens-per-minute limit.
    """

    body: str
    format_line: str
    schema: type[BaseModel]
    read: Callable[[Any], Any]
    expected_tokens: int


class GivenUpError(Exception):
    """A question without a usable answer after all attempts; carries the last `Failure`."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.reason)
        self.failure = failure


@dataclass
class Asker:
    """Asks one LLM; shared by everything in a run that asks it.

    Attributes:
        llm: The LLM, with its own retries switched off; see `without_retries`.
        mode: How answers come.
        may_fall_back: Go on with plain text if the server refuses structured output.
        limiter: Requests and tokens a minute.
        policy: How long to try.
        report: Where calls and tokens are counted.
        redact: Hides keys.
        callers_llm: The LLM as the caller gave it; its connections are the caller's.
        proven: A call has succeeded, so the server is there and accepts us.
    """

    llm: LLM
    mode: Literal["tools", "llm", "text"]
    may_fall_back: bool
    limiter: RateLimiter
    policy: RetryPolicy
    report: GenerationReport
    redact: Redactor
    callers_llm: LLM
    proven: bool = False
    _in_threads: bool = field(init=False)
    _window: int = field(init=False)
    _output: int = field(init=False)

    def __post_init__(self) -> None:
        self._in_threads = is_synchronous(self.llm)
        metadata = self.llm.metadata
        self._window, self._output = metadata.context_window, max(metadata.num_output, 0)

    @classmethod
    def for_llm(
        cls, llm: LLM, structured: Structured, limiter: RateLimiter, policy: RetryPolicy, report: GenerationReport
    ) -> Asker:
        """Prepare an LLM: find out what it can do, and switch its own retries off.

        Raises:
            ConfigError: It cannot do what ``structured`` asks for.
            GenerationError: The client does not know the model.
        """
        redact = Redactor(llm)
        try:
            mode = structured_mode(llm, structured)
            return cls(without_retries(llm), mode, structured == "auto", limiter, policy, report, redact, llm)
        except ConfigError:
            raise
        except (ValueError, ImportError) as err:  # clients look the context window up by the model's name
            raise GenerationError(f"The LLM {model_name(llm)!r} cannot be used: {redact(str(err))}") from err

    async def hang_up(self) -> None:
        """Close the connections that were opened for us; the next question opens new ones."""
        if self.llm is not self.callers_llm:
            await close_own_connections(self.llm, self.callers_llm)

    def fit(self, passage: str, rest: str, answer_tokens: int) -> str:
        """Cut a passage to the model's context window, next to the rest of the prompt and the answer."""
        room = self._window - min(max(self._output, answer_tokens), self._window // 2)
        if certainly_fits(passage + rest, room):  # nearly always; counting tokens costs a millisecond
            return passage
        return cut_to_tokens(passage, max(64, room - count_tokens(rest)))

    async def ask(self, question: Question) -> Reply:
        """Ask until there is a usable answer.

        Raises:
            GivenUpError: No attempt gave one.
            GenerationError: No further call can succeed (wrong key, unknown model, nobody listens).
        """
        from tenacity import AsyncRetrying, retry_if_exception

        patience = Patience(self)
        attempts = 0
        try:
            async for attempt in AsyncRetrying(
                retry=retry_if_exception(patience.should_retry),
                wait=patience.wait,
                stop=patience.stop,
                sleep=asyncio.sleep,
                reraise=True,
            ):
                with attempt:
                    attempts += 1
                    self.report.retries += attempts > 1
                    return await self._attempt(question)
        except GenerationError:
            raise
        except Exception as err:  # noqa: BLE001 - every LLM client has its own exceptions; classify() sorts them
            failure = classify(err, self.redact)
            if failure.kind == "fatal" or (failure.kind == "unreachable" and not self.proven):
                # Not `from err`: a traceback that somebody logs would show the server's words, with the key in them.
                raise GenerationError(self._fatal_message(failure)) from None
            raise GivenUpError(failure) from None
        raise AssertionError("tenacity returns or raises")  # pragma: no cover

    async def _attempt(self, question: Question) -> Reply:
        tokens = 0
        if self.limiter.counts_tokens:
            tokens = count_tokens(question.body) + question.expected_tokens
        entry = await self.limiter.acquire(tokens)
        self.report.requests += 1
        try:
            content, usage = await self._call(question)
        except Exception as err:
            failure = classify(err, self.redact)
            if failure.refuses_tools and self.may_fall_back and self.mode != "text":
                logger.info(
                    "The LLM server takes no structured output (%s); answers are read from text.", failure.reason
                )
                self.mode = "text"
                return await self._attempt(question)
            raise
        estimated = usage is None
        sent, received = usage or (count_tokens(question.body), count_tokens(str(content)))
        self.limiter.settle(entry, sent + received)
        self.report.prompt_tokens += sent
        self.report.completion_tokens += received
        self.report.estimated |= estimated
        self.proven = True
        return Reply(question.read(content), sent, received, estimated)

    async def _call(self, question: Question) -> tuple[Any, tuple[int, int] | None]:
        """One request; returns the answer (text or dict) and (prompt, completion) tokens if the server counts them."""
        if self.mode == "tools":
            return await self._call_tool(question)
        if self.mode == "llm":
            from llama_index.core.llms import ChatMessage

            structured = self.llm.as_structured_llm(question.schema)
            answer = await structured.achat([ChatMessage(role="user", content=question.body)])
            return answer.raw.model_dump() if hasattr(answer.raw, "model_dump") else answer.message.content, None
        prompt = f"{question.body}\n{question.format_line}".rstrip()
        if self._in_threads:
            completion = await asyncio.to_thread(self.llm.complete, prompt)
        else:
            completion = await self.llm.acomplete(prompt)
        return completion.text, _usage(completion)

    async def _call_tool(self, question: Question) -> tuple[Any, tuple[int, int] | None]:
        from llama_index.core.program.function_program import get_function_tool

        llm: Any = self.llm
        tool = get_function_tool(question.schema)
        response = await llm.achat_with_tools([tool], user_msg=question.body, tool_required=True)
        calls = llm.get_tool_calls_from_response(response, error_on_no_tool_call=False)
        if calls:
            return calls[0].tool_kwargs, _usage(response)
        return response.message.content or "", _usage(response)  # the model wrote the answer instead of calling

    def _fatal_message(self, failure: Failure) -> str:
        where = getattr(self.llm, "api_base", None) or getattr(self.llm, "base_url", None)
        at = f" at {self.redact(str(where))}" if where else ""
        if failure.kind == "unreachable":
            return f"No connection to the LLM server{at}: {failure.reason} Check the network and the address."
        return f"{failure.reason.rstrip('.')} (model {model_name(self.llm)!r}{at})."


def _usage(response: Any) -> tuple[int, int] | None:
    """Tokens as reported, in the names of the OpenAI and the Anthropic family; None if absent."""
    counts = dict(getattr(response, "additional_kwargs", None) or {})
    raw = getattr(response, "raw", None)
    usage = raw.get("usage") if isinstance(raw, dict) else getattr(raw, "usage", None)
    if usage is not None:
        counts = {**(usage if isinstance(usage, dict) else vars(usage)), **counts}
    for sent, received in (("prompt_tokens", "completion_tokens"), ("input_tokens", "output_tokens")):
        if isinstance(counts.get(sent), int) and isinstance(counts.get(received), int):
            return counts[sent], counts[received]
    return None


def structured_mode(llm: LLM, wanted: Structured) -> Literal["tools", "llm", "text"]:
    """Choose how answers come.

    Raises:
        ConfigError: The LLM has no tool calls and ``"tools"`` is asked for, or the mode is unknown.
    """
    if wanted not in get_args(Structured):
        raise ConfigError(f"`structured` must be one of {', '.join(get_args(Structured))}, got {wanted!r}.")
    has_tools = bool(getattr(llm.metadata, "is_function_calling_model", False)) and hasattr(llm, "achat_with_tools")
    if wanted == "tools" and not has_tools:
        raise ConfigError(f"`structured='tools'`: {model_name(llm)!r} has no tool calls; use 'auto', 'llm' or 'text'.")
    if wanted != "auto":
        return wanted
    if has_tools:
        return "tools"
    return "llm" if getattr(llm, "should_use_structured_outputs", False) else "text"


def is_synchronous(llm: LLM) -> bool:
    """Whether the async calls block: those of a `CustomLLM` (llama.cpp, Hugging Face, home-made) wrap its sync ones."""
    from llama_index.core.llms import CustomLLM

    # LlamaIndex wraps the methods of every subclass for its instrumentation.
    return inspect.unwrap(type(llm).acomplete) is inspect.unwrap(CustomLLM.acomplete)


def model_name(llm: LLM) -> str:
    """Name of the model, without the lookups of `metadata`, which fail for names that a client does not know."""
    return str(getattr(llm, "model", None) or getattr(llm, "model_name", None) or llm.class_name())


def model_identity(llm: LLM) -> str:
    """Name of the model and a hash of the settings that change its answers; the same for every run, server and key."""
    parts: list[str] = []
    for name in _SETTINGS:
        value = getattr(llm, name, None)
        if isinstance(value, dict):  # extra headers carry keys
            value = {k: v for k, v in sorted(value.items()) if "header" not in str(k).lower() and "key" not in str(k)}
        if value not in (None, {}, ""):
            parts.append(f"{name}={value!r}")
    # A hash, since this goes into the journal: nobody knows what a user puts into `additional_kwargs`.
    return f"{model_name(llm)} {hashlib.sha256(' '.join(parts).encode()).hexdigest()[:16]}"
