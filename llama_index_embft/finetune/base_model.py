"""The model that training begins with, loaded the way LlamaIndex's users load it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from llama_index_embft.embeddings.encode import SentenceTransformerBackend, as_encoder
from llama_index_embft.embeddings.fingerprint import fingerprint_sentence_transformer
from llama_index_embft.embeddings.loading import describe_base, load_embed_model
from llama_index_embft.errors import ConfigError
from llama_index_embft.finetune.arguments import check_tokenizer

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from sentence_transformers import SentenceTransformer


class BaseModel(NamedTuple):
    """A base model.

    Attributes:
        embedding: LlamaIndex's embedding around the model; what is trained is what its users have today.
        model: The model itself.
        prompts: ``query`` and ``document``: put before texts.
        normalize: Whether vectors are scaled to length 1 after the model.
        description: What `load_embed_model` needs to load it again.
        fingerprint: Hash of the model before training.
    """

    embedding: BaseEmbedding
    model: SentenceTransformer
    prompts: dict[str, str]
    normalize: bool
    description: dict[str, Any]
    fingerprint: str


def load_base_model(
    name: str,
    *,
    query_prompt: str | None,
    document_prompt: str | None,
    max_seq_length: int | None,
    device: str | None,
    trust_remote_code: bool,
) -> BaseModel:
    """Load a model to be trained; see the arguments of `SentenceTransformersFinetuneEngine`.

    Raises:
        ConfigError: It is a saved adapter, or moved documents.
        ModelError: It cannot be loaded, or has no tokenizer.
    """
    embedding = load_embed_model(
        name,
        query_prompt=query_prompt,
        document_prompt=document_prompt,
        device=device,
        trust_remote_code=trust_remote_code,
    )
    backend = as_encoder(embedding, cache=None).backend
    if not isinstance(backend, SentenceTransformerBackend):
        raise ConfigError(
            f"{name} is a saved adapter, which has no weights of its own to train in full; give the model below it, or "
            "use EmbeddingAdapterFinetuneEngine.from_model_path."
        )
    model = backend.model
    check_tokenizer(model, name)
    if max_seq_length is not None:
        model.max_seq_length = max_seq_length
    return BaseModel(
        embedding,
        model,
        {"query": backend.prompts["query"], "document": backend.prompts["document"]},
        backend.normalize,
        describe_base(embedding),
        fingerprint_sentence_transformer(model, normalize=backend.normalize),
    )
