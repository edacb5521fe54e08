"""LLM clients by name, for the command line: keys come from the environment and from nowhere else."""

from __future__ import annotations

import os
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from llama_index_embft._core.checks import check_number, first_line
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


# What the constructors call the time that an answer may take.
_TIMEOUT: Final = {
    "openai-like": "timeout",
    "openai": "timeout",
    "azure-openai": "timeout",
    "anthropic": "timeout",
    "mistralai": "timeout",
    "ollama": "request_timeout",
}
_LOCAL: Final = ("openai-like", "ollama")
_LOCAL_SECONDS: Final = 1800.0
_COMPLETION_TOKENS: Final = 256
_STOPS: Final = ["\nPassage:", "\n段落："]
_CHECK_SECONDS: Final = 15.0


def make_llm(
    client: str,
    model: str,
    *,
    api_base: str | None = None,
    temperature: float | None = None,
    context_window: int = 8192,
    tools: bool = False,
    chat: bool = True,
    timeout: float | None = None,
) -> LLM:
    """Make an LLM client.

    The clients read their own environment variables (``OPENAI_API_KEY``, ``ANTHROPIC_API_KEY``, …). ``openai-like``
    takes ``OPENAI_API_KEY`` if it is set; local servers need none.

    Args:
        client: One of the names that the error message lists.
        model: Name of the model at the server.
        api_base: Address of the server; needed for ``openai-like``.
        temperature: None for the client's default.
        context_window: Tokens that an ``openai-like`` or ``ollama`` model can read; the other clients know.
        tools: Whether an ``openai-like`` model has function calling; the other clients know.
        chat: Whether an ``openai-like`` model can chat. A base model is sent text to complete, and answers with at most
            256 tokens; see `QuestionSettings.few_shot`.
        timeout: Seconds that an answer may take. None takes the client's own, and half an hour for ``openai-like`` and
            ``ollama``: a server on a CPU reads a prompt and writes 2 tokens a second, for one request after another.

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
    options |= _timeout(client, timeout)
    if client == "ollama":
        options["context_window"] = context_window
    if not chat and client != "openai-like":
        raise ConfigError(f"The client {client} is for models that chat; take openai-like for one that completes text.")
    if temperature is not None:
        options["temperature"] = temperature
    if client == "openai-like":
        if not api_base:  # an empty one would send the documents to api.openai.com
            raise ConfigError("The client openai-like needs the address of the server: --api-base http://host:port/v1")
        options |= _openai_like(context_window, tools=tools, chat=chat)
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


def _timeout(client: str, seconds: float | None) -> dict[str, float]:
    if seconds is None:
        return {_TIMEOUT[client]: _LOCAL_SECONDS} if client in _LOCAL else {}
    check_number("timeout", seconds, above=0)
    if client not in _TIMEOUT:
        raise ConfigError(f"The client {client} does not take a timeout; leave it out.")
    return {_TIMEOUT[client]: seconds}


def _openai_like(context_window: int, *, tools: bool, chat: bool) -> dict[str, Any]:
    # An absent key must not become None: the client would then look for one and fail.
    options = {"api_key": os.environ.get("OPENAI_API_KEY") or "none", "is_chat_model": chat}
    options |= {"context_window": context_window, "is_function_calling_model": tools}
    if not chat:
        if tools:
            raise ConfigError("A model without chat has no tool calls; leave one of the two out.")
        # A base model writes on and on, and servers stop after 16 tokens where they are not told.
        options |= {"max_tokens": _COMPLETION_TOKENS, "additional_kwargs": {"stop": _STOPS}}
    return options


def check_llm(llm: LLM) -> None:
    """Find out before the work, and at no cost, what is wrong with the key, the model's name or the address.

    Asks a server of OpenAI's kind for the list of its models; one that has no such list is taken as it is.

    Raises:
        GenerationError: Nobody listens, the key is refused, the server has other models only, or it says that it reads
            less than the client thinks.
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
        listed = list(client.models.list().data)
    except Exception as err:  # noqa: BLE001 - every client has its own; only what no later call can mend counts
        failure = classify(err, Redactor(llm))
        if failure.kind == "unreachable":
            raise GenerationError(
                f"No connection to the LLM server{at}: {failure.reason} Check the network and the address."
            ) from None
        if failure.kind == "fatal" and "404" not in failure.reason:
            raise GenerationError(f"{failure.reason.rstrip('.')} (model {model_name(llm)!r}{at}).") from None
        return
    models = [str(model.id) for model in listed]
    if models and model_name(llm) not in models:
        near = get_close_matches(model_name(llm), models, n=3) or models[:3]
        raise GenerationError(
            f"The LLM server{at} has no model {model_name(llm)!r}; it has {len(models)}, such as {', '.join(near)}."
        )
    for model in listed:  # vLLM says how much it reads
        reads = getattr(model, "max_model_len", None)
        if str(model.id) == model_name(llm) and isinstance(reads, int) and reads < llm.metadata.context_window:
            raise GenerationError(
                f"The LLM server{at} reads {reads} tokens, and the LLM's context window is set to "
                f"{llm.metadata.context_window}; set it to {reads} (`context_window`, --context-window)."
            )
