"""Test sentences in a stamp: a hosted model that changed behind its name is noticed before it gives bad answers.

The weights of a local model are part of its identity. A hosted model is known by its name alone, and a provider may put
another one behind it: an alias moves, a version is withdrawn, a server is started with other weights.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from llama_index_embft._core.vectors import unit_rows
from llama_index_embft.embeddings.identity import identify, is_known_service
from llama_index_embft.embeddings.wrapped import WrappedEmbedding
from llama_index_embft.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llama_index.core.base.embeddings.base import BaseEmbedding
    from numpy.typing import NDArray

SAME_VECTOR: Final = 0.999
"""Below this cosine a vector was not made by the model that is said to have made it. Rounding to 16 bits, other batch
sizes and devices leave more; a model tuned for one epoch on few data falls below it at once."""

# Two scripts, so that a change of the tokenizer is seen too. A stamp keeps its own texts: these may change.
_TEXTS: Final = (
    "The warranty ends two years after delivery, unless the seal is broken.",
    "本合同自双方签字之日起生效。",
)


class Canary(NamedTuple):
    """A text, and what a hosted model made of it.

    Attributes:
        fingerprint: Of the model's documents.
        text: The text, embedded as a document.
        vector: Of length 1, as base64 of little-endian float16.
    """

    fingerprint: str
    text: str
    vector: str


def canaries_of(
    embed_model: BaseEmbedding, known: Sequence[Canary] = (), *, identity: str | None = None
) -> tuple[Canary, ...]:
    """Test sentences for the stamp of an index; () for models that run here, whose weights identify them.

    Args:
        embed_model: Embeds the documents; of a wrapped one, the model at the bottom is asked.
        known: Those that the stamp holds; a model that has some is not asked again.
        identity: See `stamp_index`.
    """
    hosted = _hosted(embed_model, identity)
    if hosted is None:
        return ()
    who = identify(hosted, identity=identity).fingerprint
    if own := tuple(canary for canary in known if canary.fingerprint == who):
        return own
    return tuple(
        Canary(who, text, base64.b64encode(vector.astype("<f2").tobytes()).decode())
        for text, vector in zip(_TEXTS, _embed(hosted, _TEXTS), strict=True)
    )


def check_canaries(
    canaries: Sequence[Canary], embed_model: BaseEmbedding, where: str, *, identity: str | None = None
) -> None:
    """Embed the test sentences of a stamp again, with one request.

    Args:
        canaries: Those of the stamp.
        embed_model: Is to search the index.
        where: The index, for messages.
        identity: See `stamp_index`.

    Raises:
        ModelError: The hosted model gives other vectors than when the index was stamped.
    """
    hosted = _hosted(embed_model, identity)
    if hosted is None or not canaries:
        return
    who = identify(hosted, identity=identity)
    own = [canary for canary in canaries if canary.fingerprint == who.fingerprint]
    if not own:
        return
    for canary, now in zip(own, _embed(hosted, [canary.text for canary in own]), strict=True):
        then = np.frombuffer(base64.b64decode(canary.vector), dtype="<f2").astype(np.float32)
        same_dim = then.shape == now.shape
        cosine = float(then @ now) if same_dim else float("nan")
        if not cosine >= SAME_VECTOR:  # NaN is not
            found = f"cosine {cosine:.3f}" if same_dim else f"{len(now)} dimensions instead of {len(then)}"
            raise ModelError(
                f"{who.name} gives other vectors than when {where} was stamped ({found} for a test sentence): another "
                "model answers behind its name; use the one that embedded the index, or embed the index again and "
                "stamp it."
            )


def _hosted(model: BaseEmbedding, identity: str | None) -> BaseEmbedding | None:
    """The model at the bottom, where nothing but its name says what it is."""
    while isinstance(model, WrappedEmbedding):
        model = model.base_embed_model
    return model if identity is not None or is_known_service(model) else None


def _embed(model: BaseEmbedding, texts: Sequence[str]) -> NDArray[np.float32]:
    from llama_index_embft.embeddings.encoding.encoder import as_encoder

    # Not from the cache: it is the model of today that is asked.
    return unit_rows(as_encoder(model, cache=None).encode_documents(list(texts)))
