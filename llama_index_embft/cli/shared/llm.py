"""The LLM of a command, as the command line names it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llama_index_embft._core.options import option
from llama_index_embft.errors import ConfigError

if TYPE_CHECKING:
    from llama_index.core.llms import LLM


@dataclass(frozen=True)
class LLMOptions:
    """Which LLM is asked; its keys come from the environment."""

    llm: str = option("openai-like", "Client: openai-like (any compatible server), openai, ollama, anthropic, …")
    llm_model: str | None = option(None, "Name of the LLM at its server.")
    api_base: str | None = option(None, "Address of the server, such as http://localhost:8000/v1.")
    context_window: int = option(8192, "Tokens that an openai-like or ollama model can read.")
    temperature: float | None = option(None, "Leave out for the client's default.")
    tools: bool = option(False, "The openai-like model has function calling.")
    chat: bool = option(True, "Off: the openai-like model only completes text (a base model).")
    timeout: float | None = option(
        None, "Seconds that an answer may take. Default: the client's, half an hour for openai-like and ollama."
    )

    def client(self) -> LLM:
        """The client.

        Raises:
            ConfigError: No model is named, or the client is not known.
        """
        from llama_index_embft.calls import make_llm

        if self.llm_model is None:
            raise ConfigError("An LLM is needed here; name it with --llm-model (and --llm, --api-base).")
        return make_llm(
            self.llm,
            self.llm_model,
            api_base=self.api_base,
            temperature=self.temperature,
            context_window=self.context_window,
            tools=self.tools,
            chat=self.chat,
            timeout=self.timeout,
        )
