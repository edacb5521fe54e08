"""Where each name of llama-index-finetuning and of old LlamaIndex releases is found today."""

from __future__ import annotations

from typing import Final, NamedTuple

OUR_PACKAGE: Final = "llama_index_embft"
# The last is an older name of the same function, with the same arguments.
_OURS: Final = {
    **{name: name for name in ("EmbeddingAdapterFinetuneEngine", "EmbeddingQAFinetuneDataset")},
    **{name: name for name in ("SentenceTransformersFinetuneEngine", "generate_qa_embedding_pairs")},
    "generate_question_context_pairs": "generate_qa_embedding_pairs",
}
# Layers for adapters live on in a package of LlamaIndex; what loads a trained one is ours.
_LOADERS: Final = ("AdapterEmbeddingModel", "LinearAdapterEmbeddingModel")
_LAYERS: Final = ("BaseAdapter", "LinearLayer", "TwoLayerNN")
# Up to 0.9 everything was one package: `llama_index.X`; from 0.10 on that is `llama_index.core.X`, and what talks to
# others is a package of its own.
_CORE: Final = {
    "agent", "callbacks", "chat_engine", "data_structs", "evaluation", "extractors", "indices", "ingestion",
    "llama_dataset", "memory", "node_parser", "objects", "output_parsers", "postprocessor", "prompts", "query_engine",
    "question_gen", "response", "response_synthesizers", "retrievers", "schema", "selectors", "settings", "storage",
    "text_splitter", "tools", "types", "utils", "llms.LLM", "llms.MockLLM", "llms.ChatMessage", "llms.ChatResponse",
    "llms.CompletionResponse", "llms.CustomLLM", "embeddings.BaseEmbedding", "embeddings.resolve_embed_model",
}  # fmt: skip
_VENDORS: Final = {
    "llms.OpenAI": "openai", "llms.AzureOpenAI": "azure_openai", "llms.Anthropic": "anthropic",
    "llms.Ollama": "ollama", "llms.HuggingFaceLLM": "huggingface", "llms.OpenAILike": "openai_like",
    "embeddings.OpenAIEmbedding": "openai", "embeddings.AzureOpenAIEmbedding": "azure_openai",
    "embeddings.HuggingFaceEmbedding": "huggingface", "embeddings.OllamaEmbedding": "ollama",
}  # fmt: skip


class Home(NamedTuple):
    """Module and name to import, and the package to install for it (empty: llama-index-core)."""

    module: str
    name: str
    package: str = ""


def home_of(module: str, name: str) -> Home | None:
    """Where `name`, imported from `module`, is now; None: where it was, or nowhere we know."""
    if module.partition(".")[0] != "llama_index":
        return None
    if name in _OURS:
        return Home(OUR_PACKAGE, _OURS[name], "llama-index-embft")
    if name in _LOADERS:
        return Home(f"{OUR_PACKAGE}.embeddings", name, "llama-index-embft")
    if name in _LAYERS and ".embeddings" in module:
        return Home("llama_index.embeddings.adapter.utils", name, "llama-index-embeddings-adapter")
    old = module.replace("llama_index.legacy", "llama_index", 1)
    family, *rest = old.split(".")[1:] or [""]
    whole = f"{family}.{name}"
    if not family or family in _CORE or (whole in _CORE and not rest):
        return Home(old.replace("llama_index", "llama_index.core", 1), name)
    if whole in _VENDORS and not rest:
        vendor = _VENDORS[whole]
        return Home(f"{old}.{vendor}", name, f"llama-index-{family}-{vendor}".replace("_", "-"))
    return None if old == module else Home(old, name)


def is_gone(module: str, name: str) -> bool:
    """Whether an import that `home_of` leaves alone fails with today's releases, or has no successor here."""
    finetuning = module.startswith(("llama_index.finetuning", "llama_index.legacy.finetuning"))
    return finetuning or (module in ("llama_index.llms", "llama_index.embeddings") and home_of(module, name) is None)
