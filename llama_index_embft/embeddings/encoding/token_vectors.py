"""A vector for each token of a text: what an embedding model holds before it pools them into one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_index_embft.embeddings.encoding.batching import (
    PADDING_CPU,
    TOKENS_PER_BATCH_CPU,
    TOKENS_PER_BATCH_GPU,
    cut_into_batches,
)
from llama_index_embft.embeddings.encoding.masks import masks_without_looking
from llama_index_embft.embeddings.encoding.tokenizing import preprocess
from llama_index_embft.embeddings.sentence_transformer import own_errors
from llama_index_embft.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer


def encode_tokens(
    model: SentenceTransformer, texts: Sequence[str], *, prompt: str = "", **options: Any
) -> list[NDArray[np.float16]]:
    """The last hidden states of a model, scaled to length 1.

    Args:
        model: The model; its device and maximum length are respected.
        texts: Texts, in any order.
        prompt: Put before each text.
        **options: For the model's `preprocess` and `forward`, such as ``task``.

    Returns:
        For each text an array of shape ``(tokens, dim)``, those of the prompt and the special tokens included.

    Raises:
        ModelError: The model has no vector for each token.
    """
    import torch

    if not texts:
        return []
    on_cpu = model.device.type == "cpu"
    features = preprocess(model, list(texts), prompt or None, **options)
    batches = cut_into_batches(
        features,
        len(texts),
        TOKENS_PER_BATCH_CPU["float32"] if on_cpu else TOKENS_PER_BATCH_GPU,
        most_padding=PADDING_CPU if on_cpu else 1.0,
    )
    found: list[Any] = [None] * len(texts)
    model.eval()
    with torch.inference_mode(), masks_without_looking(model, model.device.type == "cuda"):
        for rows, cut in batches or ():
            kept = cut["attention_mask"].bool().numpy()  # before a pooling that leaves the prompt out changes it
            placed = {
                name: value.to(model.device) if isinstance(value, torch.Tensor) else value
                for name, value in cut.items()
            }
            with own_errors():
                states = model(placed, **options).get("token_embeddings")
            if states is None or states.ndim != 3:
                raise _no_tokens(model)
            vectors = torch.nn.functional.normalize(states.float(), dim=-1).half().cpu().numpy()
            for place, row in enumerate(rows.tolist()):
                found[row] = vectors[place][kept[place]]
    if batches is None:
        raise _no_tokens(model)
    return found


def _no_tokens(model: SentenceTransformer) -> ModelError:
    return ModelError(
        f"The model has no vector for each token of a text (its first part is a {type(model[0]).__name__}); late "
        "interaction needs a transformer."
    )
