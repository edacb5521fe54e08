"""The model that training begins with, loaded the way LlamaIndex's users load it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from llama_index_embft.embeddings.describe import describe_base
from llama_index_embft.embeddings.encoding.backends import SentenceTransformerBackend
from llama_index_embft.embeddings.encoding.encoder import as_encoder
from llama_index_embft.embeddings.fingerprint import fingerprint_sentence_transformer
from llama_index_embft.embeddings.loading import load_embed_model
from llama_index_embft.embeddings.sentence_transformer import position_limit
from llama_index_embft.embeddings.truncation import WORTH_SAYING, truncation
from llama_index_embft.errors import ConfigError
from llama_index_embft.finetune.full.arguments import check_tokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llama_index.core.base.embeddings.base import BaseEmbedding
    from sentence_transformers import SentenceTransformer

logger = logging.getLogger(__name__)

# Attention over longer texts costs more than it has been seen to give; who wants more says so.
_MOST_BY_ITSELF: Final = 512


class BaseModel(NamedTuple):
    """A base model.

    Attributes:
        embedding: LlamaIndex's embedding around the model; what is trained is what its users have today.
        model: The model itself.
        prompts: ``query`` and ``document``: put before texts.
        normalize: Whether vectors are scaled to length 1 after the model.
        description: What `load_embed_model` needs to load it again.
        fingerprint: Hash of the model before training.
        reads_more: Whether it was set to read more tokens than it does by itself.
    """

    embedding: BaseEmbedding
    model: SentenceTransformer
    prompts: dict[str, str]
    normalize: bool
    description: dict[str, Any]
    fingerprint: str | None
    reads_more: bool = False


def load_base_model(
    name: str,
    *,
    query_prompt: str | None,
    document_prompt: str | None,
    max_seq_length: int | Literal["auto"] | None,
    passages: Sequence[str] = (),
    device: str | None,
    trust_remote_code: bool,
) -> BaseModel:
    """Load a model to be trained; see the arguments of `SentenceTransformersFinetuneEngine`.

    Args:
        name: Folder or hub name.
        query_prompt: Before queries.
        document_prompt: Before passages.
        max_seq_length: Tokens to read; ``"auto"`` looks at the passages.
        passages: What it will be trained on.
        device: Torch device.
        trust_remote_code: Whether code of the model's repository may run.

    Raises:
        ConfigError: It is a saved adapter, or moved documents; or it cannot read texts of `max_seq_length`.
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
    own_length = model.max_seq_length
    wanted = _length_for(model, passages) if max_seq_length == "auto" else max_seq_length
    if wanted is not None:
        positions = position_limit(model)
        if positions is not None and wanted > positions:
            raise ConfigError(
                f"max_seq_length is {wanted}, and {name} has positions for {positions} tokens; give at most that."
            )
        model.max_seq_length = wanted
    return BaseModel(
        embedding,
        model,
        {"query": backend.prompts["query"], "document": backend.prompts["document"]},
        backend.normalize,
        describe_base(embedding),
        fingerprint_sentence_transformer(model, normalize=backend.normalize),
        reads_more=max_seq_length == "auto" and model.max_seq_length != own_length,
    )


def _length_for(model: SentenceTransformer, passages: Sequence[str]) -> int | None:
    """More tokens than the model reads by itself, where that cuts passages and it has the positions; else None."""
    found = truncation(model, passages)
    if found is None or found.share <= WORTH_SAYING or found.positions is None:
        return None
    most = min(found.positions, _MOST_BY_ITSELF)
    if most <= found.limit:
        return None
    logger.warning(
        "%.0f%% of the passages are longer than the %d tokens that the model reads; it is trained to read %d.",
        100 * found.share,
        found.limit,
        most,
    )
    return most
