"""How commands are told where an embedding model runs."""

from __future__ import annotations

from dataclasses import dataclass

from llama_index_embft._core.options import option


@dataclass(frozen=True)
class LocalModelOptions:
    """How a model on this machine is loaded."""

    device: str | None = option(None, "Torch device; default: a GPU if there is one.")
    trust_remote_code: bool = option(False, "Run code that comes with the model; read it first.")


@dataclass(frozen=True)
class HostedModelOptions:
    """Where a hosted model is, and how often it may be called."""

    api_base: str | None = option(
        None, "Address of the hosted model's server, if it is not OpenAI's own: http://host:port/v1."
    )
    requests_per_minute: int | None = option(
        None, "Maximum requests per minute to the hosted model. Default: no limit."
    )
    tokens_per_minute: int | None = option(None, "Maximum tokens per minute to the hosted model. Default: no limit.")
