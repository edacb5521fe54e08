"""LLM clients by name, for the command line: keys come from the environment and from nowhere else."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from llama_index_embft.errors import ConfigError, MissingExtraError

if TYPE_CHECKING:
    from llama_index.core.llms import LLM

# Name -> module and class of the LlamaIndex integration; the package is named like the module.
_CLIENTS: Final = {
    "openai-like": ("llama_index.llms.openai_like", "OpenAILike"),
    "openai": ("llama_index.llms.openai", "OpenAI"),
    "azure-openai": ("llama_index.llms.azure_openai", "AzureOpenAI"),
    "anthropic": ("llama_index.llms.anthropic", "Anthropic"),
    "mistralai": ("llama_index.llms.mistralai", "MistralAI"),
    "google-genai": ("llama_index.llms.google_genai", "GoogleGenAI"),
    "ollama": ("llama_index.llms.ollama", "Ollama"),
}
# What the constructors call the address of the server; the others take none.
_ADDRESS: Final = {
    "openai-like": "api_base",
    "openai": "api_base",
    "azure-openai": "azure_endpoint",
    "anthropic": "base_url",
    "mistralai": "endpoint",
    "ollama": "base_url",
}


def make_llm(
    client: str,
    model: str,
    *,
    api_base: str | None = None,
    temperature: float | None = None,
    context_window: int = 8192,
    tools: bool = False,
) -> LLM:
    """Make an LLM client.

    The clients read their own environment variables (``OPENAI_API_KEY``, ``ANTHROPIC_API_KEY``, …). ``openai-like``
    takes ``OPENAI_API_KEY`` if it is set; local servers need none.

    Args:
        client: One of the names that the error message lists.
        model: Name of the model at the server.
        api_base: Address of the server; needed for ``openai-like``.
        temperature: None for the client's default.
        context_window: Tokens that an ``openai-like`` model can read; the other clients know.
        tools: Whether an ``openai-like`` model has function calling; the other clients know.

    Raises:
        ConfigError: The name is unknown, an address is missing or not taken, or the client refuses its arguments.
        MissingExtraError: The client's package is not installed.
    """
    if client not in _CLIENTS:
        raise ConfigError(f"There is no LLM client {client!r}; the clients are {', '.join(_CLIENTS)}.")
    options: dict[str, Any] = {"model": model}
    if api_base:
        if client not in _ADDRESS:
            raise ConfigError(f"The client {client} takes no API base; leave it out.")
        options[_ADDRESS[client]] = api_base
    if temperature is not None:
        options["temperature"] = temperature
    if client == "openai-like":
        if not api_base:  # an empty one would send the documents to api.openai.com
            raise ConfigError("The client openai-like needs the address of the server: --api-base http://host:port/v1")
        # An absent key must not become None: the client below would then look for one and fail.
        options |= {"api_key": os.environ.get("OPENAI_API_KEY") or "none", "is_chat_model": True}
        options |= {"context_window": context_window, "is_function_calling_model": tools}
    module, name = _CLIENTS[client]
    try:
        made: LLM = getattr(import_module(module), name)(**options)
    except ModuleNotFoundError as err:
        package = module.replace("llama_index.llms.", "llama-index-llms-").replace("_", "-")
        raise MissingExtraError(f"The LLM client {client} is not installed; install it: pip install {package}") from err
    except (ValueError, TypeError, ImportError) as err:
        raise ConfigError(f"The LLM client {client} cannot be made: {err}") from err
    return made
