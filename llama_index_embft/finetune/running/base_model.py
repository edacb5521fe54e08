"""The model that training begins with, loaded the way LlamaIndex's users load it, in float32."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from llama_index_embft.embeddings.describe import describe_base
from llama_index_embft.embeddings.encoding.backends import SentenceTransformerBackend
from llama_index_embft.embeddings.encoding.encoder import as_encoder
from llama_index_embft.embeddings.fingerprint import fingerprint_sentence_transformer
from llama_index_embft.embeddings.loading import load_embed_model
from llama_index_embft.embeddings.sentence_transformer import position_limit, set_max_length
from llama_index_embft.embeddings.truncation import WORTH_SAYING, truncation
from llama_index_embft.embeddings.wrapped import TwoSided
from llama_index_embft.errors import ConfigError, ModelError
from llama_index_embft.finetune.running.lora import merge_own_adapters

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llama_index.core.base.embeddings.base import BaseEmbedding
    from sentence_transformers import SentenceTransformer

    from llama_index_embft.finetune.running.settings import TextSettings

logger = logging.getLogger(__name__)

# Attention over longer texts costs more than it has been seen to give; who wants more says so.
_MOST_BY_ITSELF: Final = 512
# Of the longest texts, which say how much memory a row takes.
_LONGEST: Final = 32
_WHAT: Final = {
    "AdapterEmbedding": "a saved adapter; give the model below it, or go on with the adapter by "
    "EmbeddingAdapterFinetuneEngine.from_model_path",
    "NudgedEmbedding": "moved documents over a model; give the model below them",
}
_ELSE: Final = "an exported graph; give the model that it was exported from"


class LoadedBase(NamedTuple):
    """A base model.

    Attributes:
        embedding: LlamaIndex's embedding around the model; what is trained is what its users have today.
        model: The model itself, in float32.
        prompts: ``query`` and ``document``: put before texts.
        normalize: Whether vectors are scaled to length 1 after the model.
        description: What `load_embed_model` needs to load it again.
        fingerprint: Hash of the model as its user has it.
        own_length: Tokens of a text that it reads by itself.
        reads_more: Whether it was set to read more.
    """

    embedding: BaseEmbedding
    model: SentenceTransformer
    prompts: dict[str, str]
    normalize: bool
    description: dict[str, Any]
    fingerprint: str | None
    own_length: Any
    reads_more: bool = False


def load_base_model(
    name: str,
    text: TextSettings,
    *,
    passages: Sequence[str] = (),
    device: str | None,
    trust_remote_code: bool,
) -> LoadedBase:
    """Load a model to be trained.

    Args:
        name: Folder or hub name.
        text: Prompts and length; ``"auto"`` looks at the passages.
        passages: What it will be trained on.
        device: Torch device.
        trust_remote_code: Whether code of the model's repository may run.

    Raises:
        ConfigError: It is a saved adapter, or moved documents; or it cannot read texts of that length.
        ModelError: It cannot be loaded, has no tokenizer or nothing to train, or holds weights that are no numbers.
    """
    embedding = load_embed_model(
        name,
        query_prompt=text.query_prompt,
        document_prompt=text.document_prompt,
        device=device,
        trust_remote_code=trust_remote_code,
    )
    if isinstance(embedding, TwoSided):
        embedding = embedding.model_of("query")  # the one with weights to train
    backend = as_encoder(embedding, cache=None).backend
    if not isinstance(backend, SentenceTransformerBackend):
        what = _WHAT.get(type(embedding).__name__, _ELSE)
        raise ConfigError(f"{name} is no model whose weights can be trained in full, but {what}.")
    model = backend.model
    description = describe_base(embedding)
    fingerprint = fingerprint_sentence_transformer(model, normalize=backend.normalize)
    own_length = model.max_seq_length
    make_trainable(model, name, max_seq_length=text.max_seq_length, passages=passages)
    return LoadedBase(
        embedding,
        model,
        {"query": backend.prompts["query"], "document": backend.prompts["document"]},
        backend.normalize,
        description,
        fingerprint,
        own_length,
        reads_more=text.max_seq_length == "auto" and model.max_seq_length != own_length,
    )


def make_trainable(
    model: SentenceTransformer,
    name: str,
    *,
    max_seq_length: int | Literal["auto"] | None = None,
    passages: Sequence[str] = (),
) -> None:
    """Bring a model into the state that training begins with: float32, whole weights, the length that it is to read.

    Args:
        model: Changed in place.
        name: For messages.
        max_seq_length: Tokens that it is to read, see `TextSettings`.
        passages: What it will be trained on.

    Raises:
        ConfigError: It cannot read texts of that length.
        ModelError: It has no tokenizer or nothing to train.
    """
    _check_tokenizer(model, name)
    merge_own_adapters(model)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ModelError(
            f"The model {name} ({type(model[0]).__name__}) has no weights that can be trained; train an adapter over "
            "it: EmbeddingAdapterFinetuneEngine."
        )
    # A half-precision checkpoint comes as it is stored, and steps of training are smaller than what its numbers can
    # tell apart: most of bfloat16's do not move, and float16's overflow in AdamW.
    model.float()
    wanted = _length_for(model, passages) if max_seq_length == "auto" else max_seq_length
    if isinstance(wanted, int):
        positions = position_limit(model)
        if positions is not None and wanted > positions:
            raise ConfigError(
                f"`max_seq_length` is {wanted}; {name} supports at most {positions} tokens (max_position_embeddings): "
                "lower it."
            )
        set_max_length(model, wanted, name)


def longest_tokens(model: SentenceTransformer, texts: Sequence[str]) -> int | None:
    """Tokens that the model reads of the longest texts.

    Args:
        model: With its tokenizer.
        texts: To be trained on; of those with most characters 32 are counted.

    Returns:
        None where the tokenizer is none of transformers.
    """
    tokenizer, limit = getattr(model, "tokenizer", None), model.max_seq_length
    if not callable(tokenizer) or not texts:
        return None
    longest = sorted(set(texts), key=len)[-_LONGEST:]
    most = limit if isinstance(limit, int) else None
    rows = tokenizer(longest, truncation=most is not None, max_length=most, padding=False)["input_ids"]
    return max(len(row) for row in rows)


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


def _check_tokenizer(model: SentenceTransformer, name: str) -> None:
    """Refuse a model without a vocabulary: transformers makes up an empty one, and every word becomes "unknown".

    Raises:
        ModelError: There is none.
    """
    tokenizer = getattr(model, "tokenizer", None)
    vocabulary = getattr(tokenizer, "get_vocab", None)
    if vocabulary is None:
        return  # other kinds of models bring preprocessing of their own
    if set(vocabulary()) <= set(getattr(tokenizer, "all_special_tokens", ())):
        raise ModelError(
            f"The model {name} has no tokenizer, so all words would be one to it; put tokenizer.json (or vocab.txt) of "
            "its base model beside the weights."
        )
