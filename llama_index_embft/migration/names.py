"""Where each name of llama-index-finetuning and of old LlamaIndex releases is found today."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

OUR_PACKAGE: Final = "llama_index_embft"
OURS: Final = frozenset(
    {
        "EmbeddingAdapterFinetuneEngine",
        "EmbeddingQAFinetuneDataset",
        "SentenceTransformersFinetuneEngine",
        "generate_qa_embedding_pairs",
    }
)
# An older name of the same function, with the same arguments.
RENAMED: Final = {"generate_question_context_pairs": "generate_qa_embedding_pairs"}

# Up to 0.9 everything was one package: `llama_index.X`; from 0.10 on that is `llama_index.core.X`, and what talks to
# others is a package of its own.
_CORE: Final = frozenset(
    {"agent", "callbacks", "chat_engine", "data_structs", "evaluation", "extractors", "indices", "ingestion", "memory"}
    | {"node_parser", "objects", "output_parsers", "postprocessor", "prompts", "query_engine", "question_gen"}
    | {"response", "response_synthesizers", "retrievers", "schema", "selectors", "settings", "storage", "text_splitter"}
    | {"tools", "types", "utils", "llama_dataset"}
)
_INTEGRATIONS: Final = {
    ("llms", "OpenAI"): "openai",
    ("llms", "AzureOpenAI"): "azure_openai",
    ("llms", "Anthropic"): "anthropic",
    ("llms", "HuggingFaceLLM"): "huggingface",
    ("llms", "Ollama"): "ollama",
    ("llms", "OpenAILike"): "openai_like",
    ("embeddings", "OpenAIEmbedding"): "openai",
    ("embeddings", "AzureOpenAIEmbedding"): "azure_openai",
    ("embeddings", "HuggingFaceEmbedding"): "huggingface",
    ("embeddings", "OllamaEmbedding"): "ollama",
}
_CORE_OF: Final = {
    "llms": frozenset({"LLM", "MockLLM", "ChatMessage", "ChatResponse", "CompletionResponse", "CustomLLM"}),
    "embeddings": frozenset({"BaseEmbedding", "resolve_embed_model"}),
}


@dataclass(frozen=True)
class Home:
    """Where a name is now.

    Attributes:
        module: Module to import it from.
        name: Its name there.
        package: What has to be installed for it; empty for llama-index-core.
    """

    module: str
    name: str
    package: str = ""


def home_of(module: str, name: str) -> Home | None:
    """Where `name`, imported from `module`, is now; None: where it was, or nowhere we know."""
    if module != "llama_index" and not module.startswith("llama_index."):
        return None
    if name in OURS:
        return Home(OUR_PACKAGE, name, "llama-index-embft")
    if name in RENAMED:
        return Home(OUR_PACKAGE, RENAMED[name], "llama-index-embft")
    old = module.replace("llama_index.legacy", "llama_index", 1)
    parts = old.split(".")
    if len(parts) == 1:
        return Home("llama_index.core", name)
    family = parts[1]
    if family in _CORE:
        return Home(".".join(["llama_index", "core", *parts[1:]]), name)
    if len(parts) == 2 and family in _CORE_OF:
        if name in _CORE_OF[family]:
            return Home(f"llama_index.core.{family}", name)
        vendor = _INTEGRATIONS.get((family, name))
        if vendor is not None:
            package = f"llama-index-{family}-{vendor}".replace("_", "-")
            return Home(f"llama_index.{family}.{vendor}", name, package)
    return None if old == module else Home(old, name)


def is_gone(module: str, name: str) -> bool:
    """Whether an import that `home_of` leaves alone fails with today's releases, or has no successor here."""
    finetuning = module.startswith(("llama_index.finetuning", "llama_index.legacy.finetuning"))
    return finetuning or (module in ("llama_index.llms", "llama_index.embeddings") and home_of(module, name) is None)
