"""One request to an LLM: structured where it can, read, counted, and tried again where that helps."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import itertools
import logging
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from llama_index_embft._core.environment import default_cache_dir
from llama_index_embft._core.redaction import Redactor
from llama_index_embft.calls.connections import close_own_connections, without_retries
from llama_index_embft.calls.counts import as_prices
from llama_index_embft.calls.failures import Failure
from llama_index_embft.calls.journal import sha256
from llama_index_embft.calls.limits import RateLimiter
from llama_index_embft.calls.server import ApiServer, GivenUpError, RetryPolicy
from llama_index_embft.calls.tokens import certainly_fits, count_in_any_tokenizer, count_tokens, cut_to_tokens
from llama_index_embft.errors import ConfigError, GenerationError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from llama_index.core.llms import LLM, ChatMessage
    from pydantic import BaseModel

    from llama_index_embft.calls.counts import CallCounts
    from llama_index_embft.calls.settings import CallSettings, Structured

logger = logging.getLogger(__name__)

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
_WORKERS: Final = 16
# Answers: characters, nested levels and entries that are looked at, and from where on reading leaves the event loop.
_LONGEST_ANSWER: Final = 1_000_000
_DEEPEST_ANSWER: Final = 12
_LARGEST_ANSWER: Final = 1000
_READ_AT_ONCE: Final = 4000
# A cut passage with less would say too little to ask about; and what the marks of a chat take.
_SHORTEST_PASSAGE: Final = 64
_TOKENS_OF_CHAT: Final = 24
_MOST_TOKENS: Final = 10**9  # a server that reports more for one call does not know


class LLMResponse(NamedTuple):
    """A response that could be used, and what it took."""

    payload: Any
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class LLMRequest:
    """What to ask.

    Attributes:
        body: The request.
        format_line: How to answer, for plain text.
        schema: Pydantic model of a structured answer.
        read: Turns a text or a dict into what is kept; raises `UnusableAnswerError`.
        expected_tokens: Length of the answer, for the tokens-per-minute limit.
        messages: A chat to send as it is, instead of ``body`` and ``format_line``; the answer is its text.
    """

    body: str
    format_line: str
    schema: type[BaseModel] | None
    read: Callable[[Any], Any]
    expected_tokens: int
    messages: Sequence[ChatMessage] = ()


@dataclass
class LLMCaller:
    """Calls one LLM; shared by everything in a run that asks it.

    Attributes:
        llm: The LLM, with its own retries switched off; see `without_retries`.
        mode: How answers come.
        may_fall_back: Go on with plain text if the server refuses structured output.
        server: The retry loop, the limits and the counts.
        callers_llm: The LLM as the caller gave it; its connections are the caller's.
    """

    llm: LLM
    mode: Literal["tools", "llm", "text"]
    may_fall_back: bool
    server: ApiServer
    callers_llm: LLM
    _in_threads: bool = field(init=False)
    _window: int = field(init=False)
    _output: int = field(init=False)

    def __post_init__(self) -> None:
        self._in_threads = is_synchronous(self.llm)
        metadata = self.llm.metadata
        self._window, self._output = metadata.context_window, max(metadata.num_output, 0)

    @classmethod
    def for_llm(cls, llm: LLM, settings: CallSettings, counts: CallCounts, retry_limit: int = 3) -> LLMCaller:
        """Prepare an LLM with limits of its own.

        Raises:
            ConfigError: ``retry_limit`` is below 1, or ``llm`` is none; else see `with_server`.
            GenerationError: See `with_server`.
        """
        if not hasattr(type(llm), "metadata"):  # the value itself may fail, which is said elsewhere
            raise ConfigError(
                f"`llm` is {str(llm)[:60]!r}; it must be a LlamaIndex LLM, such as `OpenAI(model=...)`, or one of "
                "`make_llm`."
            )
        limiter = RateLimiter(settings.requests_per_minute, settings.tokens_per_minute)
        server = ApiServer(
            RetryPolicy(limit=retry_limit),
            limiter,
            Redactor(llm),
            counts,
            prices=as_prices(settings.prices),
            max_cost=settings.max_cost,
        )
        return cls.with_server(llm, settings.structured, server)

    @classmethod
    def with_server(cls, llm: LLM, structured: Structured, server: ApiServer) -> LLMCaller:
        """Prepare an LLM: find out what it can do, and switch its own retries off.

        Raises:
            ConfigError: It cannot do what ``structured`` asks for.
            GenerationError: The client does not know the model.
        """
        try:
            mode = structured_mode(llm, structured)
            return cls(without_retries(llm), mode, structured == "auto", server, llm)
        except ConfigError:
            raise
        except (ValueError, ImportError) as err:  # clients look the context window up by the model's name
            raise GenerationError(f"The LLM {model_name(llm)!r} cannot be used: {server.redact(str(err))}") from err

    def sibling(self, llm: LLM) -> LLMCaller:
        """Prepare another LLM under the same limits and counts."""
        ours = self.server
        server = ApiServer(
            ours.policy, ours.limiter, Redactor(llm), ours.counts, prices=ours.prices, max_cost=ours.max_cost
        )
        return self.with_server(llm, "auto", server)

    async def hang_up(self) -> None:
        """Close the connections that were opened for us; the next question opens new ones."""
        if self.llm is not self.callers_llm:
            await close_own_connections(self.llm, self.callers_llm)

    def fit(self, passage: str, rest: str, answer_tokens: int, *, share: float = 1.0) -> str:
        """Cut a passage to the model's context window, next to the rest of the prompt and the answer.

        Args:
            passage: To be cut.
            rest: What else the prompt says.
            answer_tokens: Room that the answer needs.
            share: Of what is left beside them, how much this passage may take.

        Raises:
            GivenUpError: The window leaves no room for a passage.
        """
        room = self._window - min(max(self._output, answer_tokens), self._window // 2)
        if share == 1 and certainly_fits(passage + rest, room):  # nearly always; counting tokens costs a millisecond
            return passage
        others = count_in_any_tokenizer(rest) + _TOKENS_OF_CHAT
        if room - others < _SHORTEST_PASSAGE:
            reason = (
                f"The LLM's context window of {self._window} tokens has no room for a passage beside the prompt (about "
                f"{others}) and the answer ({self._window - room}): start its server with a larger one and set "
                "`context_window`, or ask for fewer queries at once."
            )
            raise GivenUpError(Failure("passage", reason))
        return cut_to_tokens(passage, int((room - others) * share))

    def fit_both(self, first: str, second: str, rest: str, answer_tokens: int) -> tuple[str, str]:
        """Cut two passages likewise: where both are too long, each gets half."""
        if self.fit(first + second, rest, answer_tokens) == first + second:
            return first, second
        half = self.fit(first, rest, answer_tokens, share=0.5)
        shown = self.fit(second, rest + half, answer_tokens)
        return self.fit(first, rest + shown, answer_tokens), shown

    async def ask(self, request: LLMRequest) -> LLMResponse:
        """Ask until there is a usable answer.

        Raises:
            GivenUpError: No attempt gave one.
            GenerationError: No further call can succeed (wrong key, unknown model, nobody listens).
        """
        try:
            return await self.server.try_often(lambda: self._attempt(request))
        except GivenUpError as err:
            if self.server.refuses_all(err.failure):
                raise GenerationError(self._fatal_message(err.failure)) from None
            raise

    async def _attempt(self, request: LLMRequest) -> LLMResponse:
        server = self.server
        tokens = 0
        if server.limiter.counts_tokens:
            tokens = count_tokens(request.body) + request.expected_tokens
        ticket = await server.admit(tokens)
        try:
            content, usage = await self._call(request)
        except Exception as err:
            failure = server.classify(err)
            if failure.refuses_tools and self.may_fall_back and self.mode != "text":
                logger.info(
                    "The LLM server takes no structured output (%s); answers are read from text.", failure.reason
                )
                self.mode = "text"
                return await self._attempt(request)
            raise
        content = _valid(content, server.redact)
        sent, received = usage or (count_tokens(request.body), count_tokens(str(content)))
        server.limiter.settle(ticket, sent + received)
        server.counts.prompt_tokens += sent
        server.counts.completion_tokens += received
        server.counts.estimated |= usage is None
        server.proven = True  # even if the answer is of no use
        # Reading takes regular expressions over what somebody else wrote: long answers are read beside the event loop.
        if len(str(content)) > _READ_AT_ONCE:
            return LLMResponse(await asyncio.to_thread(request.read, content), sent, received)
        return LLMResponse(request.read(content), sent, received)

    async def _call(self, request: LLMRequest) -> tuple[Any, tuple[int, int] | None]:
        """One call; returns the answer (text or dict) and (prompt, completion) tokens if the server counts them."""
        if request.messages:
            messages = list(request.messages)
            chat = self.llm.achat(messages) if not self._in_threads else asyncio.to_thread(self.llm.chat, messages)
            response = await chat
            return response.message.content or "", _usage(response)
        if self.mode == "tools":
            return await self._call_tool(request)
        if self.mode == "llm":
            from llama_index.core.llms import ChatMessage

            assert request.schema is not None
            structured = self.llm.as_structured_llm(request.schema)
            answer = await structured.achat([ChatMessage(role="user", content=request.body)])
            dump = getattr(answer.raw, "model_dump", None)
            return answer.message.content if dump is None else dump(), None
        prompt = f"{request.body}\n{request.format_line}".rstrip()
        if self._in_threads:
            completion = await asyncio.to_thread(self.llm.complete, prompt)
        else:
            completion = await self.llm.acomplete(prompt)
        return completion.text, _usage(completion)

    async def _call_tool(self, request: LLMRequest) -> tuple[Any, tuple[int, int] | None]:
        from llama_index.core.program.function_program import get_function_tool

        llm: Any = self.llm
        assert request.schema is not None
        tool = get_function_tool(request.schema)
        response = await llm.achat_with_tools([tool], user_msg=request.body, tool_required=True)
        calls = llm.get_tool_calls_from_response(response, error_on_no_tool_call=False)
        if calls:
            return calls[0].tool_kwargs, _usage(response)
        return response.message.content or "", _usage(response)  # the model wrote the answer instead of calling

    def _fatal_message(self, failure: Failure) -> str:
        where = server_address(self.llm)
        at = f" at {self.server.redact(where)}" if where else ""
        if failure.kind == "unreachable":
            return f"No connection to the LLM server{at}: {failure.reason} Check the network and the address."
        return f"{failure.reason.rstrip('.')} (model {model_name(self.llm)!r}{at})."


def _valid(content: Any, redact: Redactor, depth: int = 0) -> Any:
    """An answer as it may go on: Unicode that can be stored, of bounded size and depth, without our own keys."""
    if isinstance(content, str):
        text = content if len(content) <= _LONGEST_ANSWER else content[:_LONGEST_ANSWER]
        return redact.known(text.encode("utf-8", "replace").decode("utf-8"))
    if depth >= _DEEPEST_ANSWER:
        return None
    if isinstance(content, dict):
        return {
            _valid(str(name), redact): _valid(value, redact, depth + 1)
            for name, value in itertools.islice(content.items(), _LARGEST_ANSWER)
        }
    if isinstance(content, (list, tuple)):
        return [_valid(value, redact, depth + 1) for value in content[:_LARGEST_ANSWER]]
    return content


def _usage(response: Any) -> tuple[int, int] | None:
    """Tokens as reported, in the names of the OpenAI and the Anthropic family; None if absent."""
    counts = dict(getattr(response, "additional_kwargs", None) or {})
    raw = getattr(response, "raw", None)
    usage = raw.get("usage") if isinstance(raw, dict) else getattr(raw, "usage", None)
    if usage is not None:
        counts = {**(usage if isinstance(usage, dict) else getattr(usage, "__dict__", {})), **counts}
    for sent, received in (("prompt_tokens", "completion_tokens"), ("input_tokens", "output_tokens")):
        found = counts.get(sent), counts.get(received)
        if all(type(count) is int and 0 <= count <= _MOST_TOKENS for count in found):
            return found  # type: ignore[return-value]  # as `all` has just found
    return None


def structured_mode(llm: LLM, wanted: Structured) -> Literal["tools", "llm", "text"]:
    """Choose how answers come.

    Raises:
        ConfigError: The LLM has no tool calls and ``"tools"`` is asked for.
    """
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


def workers_for(llm: LLM, settings: CallSettings) -> int:
    """Requests in flight for an LLM."""
    return settings.num_workers or (1 if is_synchronous(llm) else _WORKERS)


def model_name(llm: LLM) -> str:
    """Name of the model, without the lookups of `metadata`, which fail for names that a client does not know."""
    return str(getattr(llm, "model", None) or getattr(llm, "model_name", None) or llm.class_name())


def server_address(llm: LLM) -> str:
    """Where an LLM is called; empty for a service that has one address only."""
    for name in ("api_base", "base_url", "azure_endpoint", "endpoint"):
        if found := getattr(llm, name, None):
            return str(found)
    return ""


def default_journal(llm: LLM) -> Path | None:
    """The journal of a model at a server, in the user's cache folder: what was asked once is not paid for again.

    None for an LLM class of one's own, whose answers its name does not tell from those of an edited one, and where
    the folder cannot be written.
    """
    module = type(llm).__module__
    if not module.startswith("llama_index.") or module.startswith("llama_index.core"):
        return None
    folder = default_cache_dir() / "journals"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    name = re.sub(r"[^\w.-]+", "-", model_name(llm))[:60]
    return folder / f"{name}-{sha256(f'{model_identity(llm)} {server_address(llm)}')[:16]}.sqlite"


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
