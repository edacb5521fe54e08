"""LLM clients by name, for the command line: keys come from the environment and from nowhere else."""

from __future__ import annotations

import os
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from llama_index_embft._core.checks import first_line
from llama_index_embft._core.redaction import Redactor, redact
from llama_index_embft.calls.asking import model_name, server_address
from llama_index_embft.calls.failures import classify
from llama_index_embft.errors import ConfigError, GenerationError, MissingExtraError

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
# Where the keys are; the others need none, or have other ways (a cloud's login).
_KEYS: Final = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY", "mistralai": "MISTRAL_API_KEY"}
# What the constructors call the address of the server; the others take none.
_ADDRESS: Final = {
    "openai-like": "api_base",
    "openai": "api_base",
    "azure-openai": "azure_endpoint",
    "anthropic": "base_url",
    "mistralai": "endpoint",
    "ollama": "base_url",
}


_CHECK_SECONDS: Final = 15.0


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
            raise ConfigError(f"The client {client} does not take an API base; leave it out.")
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
    key = _KEYS.get(client)
    if key is not None and not os.environ.get(key):
        raise ConfigError(f"The client {client} needs a key: set {key} in the environment.")
    try:
        made: LLM = getattr(import_module(module), name)(**options)
    except ModuleNotFoundError as err:
        package = module.replace("llama_index.llms.", "llama-index-llms-").replace("_", "-")
        raise MissingExtraError(f"The LLM client {client} is not installed; install it: pip install {package}") from err
    except (ValueError, TypeError, ImportError) as err:
        raise ConfigError(f"The LLM client {client} cannot be made: {first_line(err)}.") from err
    return made


def check_llm(llm: LLM) -> None:
    """Find out before the work, and at no cost, what is wrong with the key, the model's name or the address.

    Asks a server of OpenAI's kind for the list of its models; one that has no such list is taken as it is.

    Raises:
        GenerationError: Nobody listens, the key is refused, or the server has other models only.
    """
    try:
        _ = llm.metadata  # clients look the context window up by the model's name
    except (ValueError, ImportError) as err:
        raise GenerationError(f"The LLM {model_name(llm)!r} cannot be used: {first_line(err)}.") from err
    if not hasattr(llm, "_get_client"):
        return
    at = f" at {redact(address)}" if (address := server_address(llm)) else ""
    try:
        client = llm._get_client().with_options(max_retries=0, timeout=_CHECK_SECONDS)
        models = [str(model.id) for model in client.models.list().data]
    except Exception as err:  # noqa: BLE001 - every client has its own; only what no later call can mend counts
        failure = classify(err, Redactor(llm))
        if failure.kind == "unreachable":
            raise GenerationError(
                f"No connection to the LLM server{at}: {failure.reason} Check the network and the address."
            ) from None
        if failure.kind == "fatal" and "404" not in failure.reason:
            raise GenerationError(f"{failure.reason.rstrip('.')} (model {model_name(llm)!r}{at}).") from None
        return
    if models and model_name(llm) not in models:
        near = get_close_matches(model_name(llm), models, n=3) or models[:3]
        raise GenerationError(
            f"The LLM server{at} has no model {model_name(llm)!r}; it has {len(models)}, such as {', '.join(near)}."
        )
