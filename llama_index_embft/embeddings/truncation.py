"""How many texts are longer than what a model reads: what is cut off is neither learned nor found."""

from __future__ import annotations

import logging
from collections.abc import Callable  # noqa: TC003  # a field's annotation
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from llama_index_embft.embeddings.sentence_transformer import position_limit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llama_index.core.base.embeddings.base import BaseEmbedding
    from sentence_transformers import SentenceTransformer

    from llama_index_embft.embeddings.encoding.backends import SentenceTransformerBackend

logger = logging.getLogger(__name__)

# Below this share the cut texts are the exceptions of any corpus.
WORTH_SAYING: Final = 0.1
# A token is seldom longer than this, so that a text of more characters for each token is cut in any case: of a book in
# one string only the beginning has to be tokenized.
_CHARACTERS_A_TOKEN: Final = 20
_SAMPLE: Final = 1000


class Truncation(NamedTuple):
    """What a model leaves unread.

    Attributes:
        share: Of the texts, between 0 and 1, that are longer than the limit.
        limit: Tokens that are read (``max_seq_length``).
        positions: Tokens that the model could read, None if its kind sets no limit.
    """

    share: float
    limit: int
    positions: int | None

    def sentence(self) -> str:
        """What it means and what to do."""
        more = self.positions is not None and self.positions > self.limit
        advice = (
            f"its positions go to {self.positions}: raise max_seq_length, or cut smaller chunks"
            if more
            else "cut smaller chunks"
        )
        return (
            f"{self.share:.0%} of the passages are longer than the {self.limit} tokens that the model reads, and the "
            f"rest of them is neither learned nor found; {advice}."
        )


def truncation(model: SentenceTransformer, texts: Sequence[str]) -> Truncation | None:
    """Measure the texts, or an evenly spaced sample of 1,000, with the model's own tokenizer.

    Returns:
        None where the model has no limit, or no tokenizer of transformers, or there are no texts.
    """
    limit, tokenizer = model.max_seq_length, model.tokenizer
    # Static embeddings read any number: infinity. Word embeddings split by themselves.
    if not isinstance(limit, int) or not callable(tokenizer) or not texts:
        return None
    step = max(1, len(texts) // _SAMPLE)
    sample = [text[: limit * _CHARACTERS_A_TOKEN] for text in texts[::step]]
    rows = tokenizer(sample, truncation=True, max_length=limit + 1, padding=False)["input_ids"]
    return Truncation(sum(len(row) > limit for row in rows) / len(rows), limit, position_limit(model))


def truncation_of(embed_model: BaseEmbedding, texts: Sequence[str]) -> Truncation | None:
    """The same for a LlamaIndex embedding, or for the model below an adapter; None where no model runs here."""
    backend = _local_backend(embed_model)
    return None if backend is None else truncation(backend.model, texts)


class ModelTokens(NamedTuple):
    """How the model that reads chunks counts tokens, and how many it reads.

    Attributes:
        encode: Text -> tokens, without those that mark beginning and end.
        limit: Tokens of a text that are read, beside these marks and the prompt; None: any number.
    """

    encode: Callable[[str], list[int]]
    limit: int | None


def model_tokens(embed_model: BaseEmbedding) -> ModelTokens | None:
    """How an embedding model counts tokens, for `documents_to_nodes` to cut chunks that it reads to the end.

    Args:
        embed_model: Any LlamaIndex embedding; for an adapter, the tokenizer of the model below.

    Returns:
        None where no model runs here, such as at a hosted API, or it has no tokenizer of transformers.
    """
    backend = _local_backend(embed_model)
    tokenizer: Any = None if backend is None else backend.model.tokenizer
    if backend is None or not hasattr(tokenizer, "num_special_tokens_to_add"):
        return None
    encode = _encode_by(tokenizer)
    positions = backend.model.max_seq_length
    if not isinstance(positions, int):
        return ModelTokens(encode, None)
    taken = tokenizer.num_special_tokens_to_add() + len(encode(backend.prompts["document"]))
    return ModelTokens(encode, max(1, positions - taken))


def _encode_by(tokenizer: Any) -> Callable[[str], list[int]]:
    fast = getattr(tokenizer, "backend_tokenizer", None)
    if fast is None:
        return partial(tokenizer.encode, add_special_tokens=False)
    from tokenizers import Tokenizer

    alone = Tokenizer.from_str(fast.to_str())  # a copy, for the model sets truncation and padding of its own
    alone.no_truncation()
    alone.no_padding()

    def encode(text: str) -> list[int]:
        ids: list[int] = alone.encode(text, add_special_tokens=False).ids
        return ids

    return encode


def _local_backend(embed_model: BaseEmbedding) -> SentenceTransformerBackend | None:
    from llama_index_embft.embeddings.encoding.backends import SentenceTransformerBackend
    from llama_index_embft.embeddings.encoding.encoder import as_encoder

    backend = as_encoder(embed_model, cache=None).backend
    while hasattr(backend, "base"):
        backend = backend.base.backend
    return backend if isinstance(backend, SentenceTransformerBackend) else None


def warn_if_cut(model: SentenceTransformer, texts: Sequence[str]) -> None:
    """Log a warning where more than a tenth of the texts is longer than what the model reads."""
    found = truncation(model, texts)
    if found is not None and found.share > WORTH_SAYING:
        logger.warning("%s", found.sentence())
