"""``embft train`` for models that stay as they are: adapters and moved documents, over local and hosted models."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from llama_index_embft._core.redaction import without_secret_addresses
from llama_index_embft.cli.train.settings import DEFAULT_MODEL
from llama_index_embft.errors import ConfigError
from llama_index_embft.finetune.adapter.settings import AdapterSearchSettings

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.finetune.engine import BaseFinetuneEngine, FinetuneResult

FROZEN: Final = ("adapter", "nudge")
PROMPTS: Final = ("query_prompt", "document_prompt", "trust_remote_code")
_HOSTED: Final = re.compile(r"[a-z][a-z0-9_-]+:(?!//)")  # a service; one letter is a drive of Windows
_OF_SERVER: Final = ("api_base", "requests_per_minute", "tokens_per_minute")


def is_hosted(settings: dict[str, Any]) -> bool:
    """Whether the model to tune runs on somebody else's server."""
    return is_hosted_name(settings.get("embed_model"))


def check_hosted(method: str, settings: dict[str, Any]) -> None:
    """Refuse a hosted model where its weights are needed, and its options where there is none.

    Raises:
        ConfigError: The settings contradict each other.
    """
    if not is_hosted(settings):
        for name in _OF_SERVER:
            if name in settings and not (method == "distill" and is_hosted_name(settings.get("teacher"))):
                raise ConfigError(
                    f"{name} is for a hosted model; name one as embed_model openai:MODEL, or leave it out."
                )
        return
    if method not in FROZEN:
        raise ConfigError(
            f"method {method} trains the weights of a model, and a hosted one keeps them to itself; choose --method "
            "adapter or nudge, or a model that runs here."
        )
    for name in PROMPTS:
        if name in settings:
            raise ConfigError(f"{name} has no meaning with a hosted model; leave it out.")


def is_hosted_name(name: str | None) -> bool:
    """Whether a model's name is that of one behind a web API."""
    return name is not None and _HOSTED.match(str(name)) is not None


def hosted_model(name: str, settings: dict[str, Any]) -> BaseEmbedding:
    """A hosted model, with the server and the limits of the command."""
    from llama_index_embft.embeddings.encoding.hosted import make_embed_model

    return make_embed_model(name, **{option: settings[option] for option in _OF_SERVER if option in settings})


def frozen_engine(
    method: str, dataset: EmbeddingQAFinetuneDataset, settings: dict[str, Any], arguments: dict[str, Any]
) -> BaseFinetuneEngine:
    """The engine of an adapter or of moved documents.

    Args:
        method: One of `FROZEN`.
        dataset: The training set.
        settings: Of the command.
        arguments: Of the engine, but for the training set and the model.
    """
    progress = settings.get("progress", True)
    base = _base(settings, arguments)
    if method == "nudge":
        from llama_index_embft.finetune.nudge.engine import NudgeFinetuneEngine

        return NudgeFinetuneEngine(dataset, base, show_progress=progress, **arguments)
    from llama_index_embft.finetune.adapter.engine import EmbeddingAdapterFinetuneEngine

    if "time_budget" in settings:
        search = arguments.get("search") or AdapterSearchSettings()
        arguments["search"] = replace(search, time_budget=settings["time_budget"])
    return EmbeddingAdapterFinetuneEngine(dataset, base, verbose=progress, **arguments)


def _base(settings: dict[str, Any], arguments: dict[str, Any]) -> BaseEmbedding:
    loading = {name: arguments.pop(name) for name in PROMPTS if name in arguments}
    if is_hosted(settings):
        return hosted_model(settings["embed_model"], settings)
    from llama_index_embft.embeddings.loading import load_embed_model

    return load_embed_model(settings.get("embed_model", DEFAULT_MODEL), device=arguments.get("device"), **loading)


def how_to_load(result: FinetuneResult, settings: dict[str, Any]) -> list[str]:
    """The lines of Python that load a result.

    Args:
        result: Of the run.
        settings: Of the command; a hosted model has to be made again, since its key and address are not in the folder.
    """
    folder = repr(str(result.output_path))
    if result.method == "reranker":
        return ["from llama_index_embft import load_reranker", f"reranker = load_reranker({folder}, top_n=5)"]
    lines = ["from llama_index_embft import load_embed_model"]
    hosted = settings.get("teacher") if result.method == "distill" else settings.get("embed_model")
    if not is_hosted_name(hosted):
        return [*lines, f"embed_model = load_embed_model({folder})"]
    arguments = [f"model_name={str(hosted).partition(':')[2]!r}"]
    if "api_base" in settings:
        arguments.append(f"api_base={without_secret_addresses(settings['api_base'])!r}")
    return [
        "from llama_index.embeddings.openai import OpenAIEmbedding",
        *lines,
        f"base = OpenAIEmbedding({', '.join(arguments)})",
        f"embed_model = load_embed_model({folder}, base_embed_model=base)",
    ]
