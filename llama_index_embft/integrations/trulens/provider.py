"""Any LlamaIndex LLM as a TruLens judge."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pydantic import PrivateAttr
from trulens.core.feedback.endpoint import Endpoint
from trulens.feedback.llm_provider import LLMProvider
from trulens.feedback.templates import rag as templates

from llama_index_embft.errors import ConfigError
from llama_index_embft.generation.parse import without_reasoning
from llama_index_embft.integrations.trulens.calls import JudgeCalls

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from llama_index.core.llms import LLM
    from pydantic import BaseModel

_SCALE = (0, 3)


class _DirectEndpoint(Endpoint):  # type: ignore[misc, unused-ignore]
    """TruLens' endpoint without its pace (60 requests a minute) and retries (after 2, 4, 8 s): `JudgeCalls` has both.

    It also turned every exception into one `RuntimeError`, so that a wrong key looked like a bad moment.
    """

    def run_in_pace(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        return func(*args, **kwargs)


class LlamaIndexProvider(LLMProvider):  # type: ignore[misc, unused-ignore]
    """A TruLens feedback provider over any LlamaIndex LLM: OpenAI's, Ollama's, a local one, your own.

    All feedback functions of TruLens' `LLMProvider` work with it. `groundedness` replaces the one that downloads a
    sentence splitter each time it is called.

    Args:
        llm: The judge. Settings such as its temperature are its own; TruLens' wishes for them are not passed on, since
            many servers refuse what they do not know.
        requests_per_minute: Most requests in any window of a minute; None for no limit.
        retry_limit: Attempts a question; waiting for a rate limit does not count.
        first_wait: Upper bound of the first pause between attempts in seconds; it doubles.
        journal_path: File that keeps what the LLM has said; None: for the life of this object alone.

    Attributes:
        calls: Requests and retries so far.

    Raises:
        ConfigError: A limit is below 1.
    """

    model_engine: str = "llama-index"
    # Private, so that it is not written into the database with the rest.
    _calls: Any = PrivateAttr(default=None)

    def __init__(
        self,
        llm: LLM,
        *,
        requests_per_minute: int | None = None,
        retry_limit: int = 3,
        first_wait: float = 1.0,
        journal_path: str | Path | None = None,
    ) -> None:
        calls = JudgeCalls(
            llm,
            requests_per_minute=requests_per_minute,
            retry_limit=retry_limit,
            first_wait=first_wait,
            journal_path=journal_path,
        )
        make: Any = _DirectEndpoint  # its constructor fills in fields that its type says are needed
        endpoint = make(name=f"llama-index:{calls.name}", _register_instance=False)
        super().__init__(model_engine=calls.name, endpoint=endpoint)  # type: ignore[no-untyped-call, unused-ignore]
        self._calls = calls

    @property
    def calls(self) -> JudgeCalls:
        """The calls to the LLM, with their counts."""
        calls: JudgeCalls = self._calls
        return calls

    def groundedness(self, contexts: Sequence[str], answer: str) -> tuple[float | None, str]:
        """How much of an answer its contexts bear out, sentence by sentence.

        Args:
            contexts: Texts that the answer was made from.
            answer: The answer.

        Returns:
            Mean over the sentences with a readable verdict, 0 to 1, and the verdicts in words; None if none is.

        Raises:
            JudgeUnavailableError: The LLM cannot be asked at all.
            JudgeCallError: A question got no answer.
        """
        low, high = _SCALE
        system = templates.Groundedness.generate_system_prompt(min_score=low, max_score=high, output_space="LIKERT_0_3")
        scores, lines = [], []
        for sentence in sentences(answer):
            user = templates.Groundedness.user_prompt.format(premise="\n\n".join(contexts), hypothesis=sentence)
            score, reason = self.readable_score(self.generate_score_and_reasons, system, user, low, high)
            lines.append(f"{'unreadable' if score is None else format(score, '.2f')}: {sentence}\n{reason}")
            if score is not None:
                scores.append(score)
        return (sum(scores) / len(scores) if scores else None), "\n".join(lines)

    def groundedness_measure_with_cot_reasons(
        self, source: str | list[str], statement: str, *args: Any, **options: Any
    ) -> tuple[float, dict[str, str]]:
        """`groundedness` under TruLens' name and in its form.

        Raises:
            ConfigError: An option of the original is given (criteria, examples, another scale, …): they belong to its
                own way of splitting and asking, and to leave them out unsaid would change what the score means.
        """
        given = [name for name, value in options.items() if value is not None]
        if given or any(value is not None for value in args):
            raise ConfigError(
                "groundedness_measure_with_cot_reasons of LlamaIndexProvider takes a source and a statement only; "
                f"leave out {', '.join(given) or 'the further arguments'}, or use a provider of TruLens' own."
            )
        score, reason = self.groundedness([source] if isinstance(source, str) else source, statement)
        return (-1.0 if score is None else score), {"reason": reason}  # -1 is TruLens' word for unreadable

    def readable_score(self, function: Callable[..., Any], *args: Any) -> tuple[float | None, str]:
        """Call one of TruLens' feedback functions; a verdict that cannot be read is None, not -1, NaN or an error.

        Returns:
            A score in [0, 1] or None, and the judge's reason.
        """
        import warnings

        from trulens.feedback.generated import ParseError

        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="No supporting evidence provided")
                score, reason = function(*args)
        except (ParseError, ValueError) as err:
            if isinstance(err, ValueError) and type(err) is not ValueError:
                raise  # an error of ours or of a client, not TruLens' word for an answer it cannot read
            return None, str(err)
        words = str(reason.get("reason", "")) if isinstance(reason, dict) else str(reason)
        return (float(score) if 0 <= score <= 1 else None), words

    def _create_chat_completion(
        self,
        prompt: str | None = None,
        messages: Sequence[Mapping[str, Any]] | None = None,
        response_format: type[BaseModel] | None = None,
        **_ignored: Any,
    ) -> str:
        from llama_index.core.llms import ChatMessage, MessageRole

        asked = messages or [{"role": "user", "content": prompt or ""}]
        chat = [ChatMessage(role=MessageRole(message["role"]), content=message["content"]) for message in asked]
        if response_format is None:
            return without_reasoning(self.calls.chat(chat))
        schema = json.dumps(response_format.model_json_schema())
        wish = f"Answer with one JSON object only, matching this schema: {schema}"
        text = without_reasoning(self.calls.chat([*chat, ChatMessage(role=MessageRole.USER, content=wish)]))
        start, end = text.find("{"), text.rfind("}")  # a fence or a sentence around it
        return text[start : end + 1] if 0 <= start < end else text


def sentences(text: str) -> list[str]:
    """Split a text into sentences, without the network; Chinese and Japanese stops count too.

    Bare list marks are left out, unless the text is nothing else: "42." is an answer.
    """
    import re

    from llama_index.core.node_parser.text.utils import split_by_sentence_tokenizer

    parts = [piece for line in text.splitlines() if line.strip() for piece in split_by_sentence_tokenizer()(line)]
    pieces = [piece.strip() for part in parts for piece in re.split(r"(?<=[。！？])", part)]
    kept = [piece for piece in pieces if re.search(r"\w", piece) and not re.fullmatch(r"\d+[.)]?", piece)]
    return kept or ([text.strip()] if text.strip() else [])
