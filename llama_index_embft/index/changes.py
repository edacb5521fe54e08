"""What an index is to hold instead: listed vectors, a document-side adapter's, or another model's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from llama_index_embft.embeddings.identity import ModelIdentity, identify
from llama_index_embft.errors import ConfigError, ModelError
from llama_index_embft.index.stamp import StoreError
from llama_index_embft.index.stores.base import capital

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.schema import BaseNode
    from numpy.typing import NDArray

    from llama_index_embft.embeddings.adapter.embedding import AdapterEmbedding
    from llama_index_embft.embeddings.encoding.cache import EmbeddingCache
    from llama_index_embft.index.stamp import Stamp
    from llama_index_embft.index.stores.base import VectorTable


class VectorChange(ABC):
    """New document vectors for an index.

    Attributes:
        target: Whose vectors the index holds afterwards.
        ids: Nodes that are asked for by name; they must be in the index.
        whole: Whether all nodes of the index change, so that none may be left out.
        words: What is done, for messages.
    """

    target: ModelIdentity
    ids: Sequence[str] = ()
    whole: bool = True
    words: str

    @abstractmethod
    def vectors(self, table: VectorTable, ids: Sequence[str], old: NDArray[np.float32]) -> NDArray[np.float32]:
        """New vectors of some nodes; ``old`` and the result have shape ``(len(ids), dim)``."""


class ListedVectors(VectorChange):
    """Vectors by node id, such as those that NUDGE moved."""

    words = "write the listed vectors"

    def __init__(self, vectors: Mapping[str, Sequence[float]], target: ModelIdentity, *, whole: bool) -> None:
        self.target = target
        self.whole = whole
        self.ids = list(vectors)
        self._vectors = vectors

    def vectors(self, table: VectorTable, ids: Sequence[str], old: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `VectorChange.vectors`."""
        del old
        left_out = [i for i in ids if i not in self._vectors]
        if left_out:
            raise StoreError(
                f"No vector is given for {len(left_out)} nodes of {table.label} (first: {left_out[0]}), which would "
                f"keep another model's beside those of {self.target}; give vectors for all nodes."
            )
        return _matrix([self._vectors[i] for i in ids], "The listed vectors")


class AdaptedVectors(VectorChange):
    """A document-side adapter over the model that embedded the index: the stored vectors go through it."""

    words = "send the stored vectors through the adapter"

    def __init__(self, model: AdapterEmbedding, target: ModelIdentity) -> None:
        self.target = target
        self._model = model

    def vectors(self, table: VectorTable, ids: Sequence[str], old: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `VectorChange.vectors`."""
        broken = np.flatnonzero(~np.isfinite(old).all(axis=1))
        if broken.size:
            raise StoreError(
                f"{capital(table.label)} holds NaN or infinity in {broken.size} vectors (first: the node "
                f"{ids[broken[0]]}); embed these nodes again: update_index(index, MODEL) with the model below."
            )
        return self._model.transform(old, "document")


class ReembeddedVectors(VectorChange):
    """Another model: every text is embedded again."""

    words = "embed every text again"

    def __init__(
        self, model: BaseEmbedding, target: ModelIdentity, cache: EmbeddingCache | Literal["default"] | None
    ) -> None:
        from llama_index_embft.embeddings.encoding.encoder import as_encoder

        self.target = target
        self._encoder = as_encoder(model, cache=cache)

    def vectors(self, table: VectorTable, ids: Sequence[str], old: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `VectorChange.vectors`."""
        del old
        return self._encoder.encode_documents(list(texts_of(table, ids).values()))


def as_change(
    change: Any,
    table: VectorTable,
    stamp: Stamp,
    embed_model: BaseEmbedding | None,
    cache: EmbeddingCache | Literal["default"] | None,
    identity: str | None = None,
) -> VectorChange:
    """What the first argument of `update_index` means for an index with this stamp.

    Raises:
        ConfigError: It is neither vectors nor an embedding model, or vectors without the model that made them.
        ModelError: Vectors were moved from another model's than the index holds.
    """
    from llama_index.core.base.embeddings.base import BaseEmbedding

    from llama_index_embft.embeddings.adapter.embedding import AdapterEmbedding
    from llama_index_embft.embeddings.nudge import NudgedEmbedding

    if isinstance(change, Mapping):
        if embed_model is None:
            raise ConfigError("Vectors alone do not say who made them; pass the model too: embed_model=...")
        target = identify(embed_model, identity=identity)
        moved_from = (
            identify(embed_model.base_embed_model, identity=identity)
            if isinstance(embed_model, NudgedEmbedding)
            else target
        )
        return ListedVectors(change, target, whole=stamp.model not in (target, moved_from))
    if not isinstance(change, BaseEmbedding):
        raise ConfigError(
            f"`change` is a {type(change).__name__}; it must be vectors by node id or an embedding model."
        )
    if embed_model is not None:
        raise ConfigError("`embed_model` belongs to vectors by node id; a model needs no other beside it.")
    if isinstance(change, NudgedEmbedding):
        base = identify(change.base_embed_model, identity=identity)
        if stamp.model not in (base, identify(change, identity=identity)):
            raise ModelError(
                f"The moved vectors start from those of {base}, but {stamp.model} embedded the index; run NUDGE over "
                "the model that embedded it."
            )
        return ListedVectors(change.moved, identify(change, identity=identity), whole=False)
    if (
        isinstance(change, AdapterEmbedding)
        and identify(change.base_embed_model, identity=identity) == stamp.model
        and not _needs_lost_lengths(change, table, stamp.dim)
    ):
        return AdaptedVectors(change, identify(change, identity=identity))
    return ReembeddedVectors(change, identify(change, identity=identity), cache)


def _needs_lost_lengths(model: AdapterEmbedding, table: VectorTable, dim: int) -> bool:
    """Whether an adapter turns longer vectors otherwise than shorter ones, and the store has scaled all to length 1."""
    if model.normalize:  # the model below gives vectors of length 1 by itself
        return False
    one = np.full((1, dim), 0.5, dtype=np.float32)
    if not np.allclose(table.as_stored(one), table.as_stored(4 * one)):
        return False
    return not np.allclose(4 * model.transform(one, "document"), model.transform(4 * one, "document"), rtol=1e-4)


def texts_of(table: VectorTable, ids: Sequence[str]) -> dict[str, str]:
    """Node id to the text that LlamaIndex embeds (with its metadata), in the order of ``ids``.

    Raises:
        StoreError: Some nodes are gone.
    """
    return {i: embedded_text(node) for i, node in nodes_of(table, ids).items()}


def nodes_of(table: VectorTable, ids: Sequence[str]) -> dict[str, BaseNode]:
    """Node id to node, in the order of ``ids``.

    Raises:
        StoreError: Some nodes are gone.
    """
    found = table.nodes(ids)
    lost = [i for i in ids if i not in found]
    if lost:
        raise StoreError(
            f"{len(lost)} of {len(ids)} nodes of {table.label} have a vector and no text (first: {lost[0]}); "
            "delete them, or build the index again from its documents."
        )
    return {i: found[i] for i in ids}


def embedded_text(node: BaseNode) -> str:
    """What LlamaIndex embeds of a node."""
    from llama_index.core.schema import MetadataMode

    return node.get_content(MetadataMode.EMBED)


def check_new(table: VectorTable, new: NDArray[np.float32], dim: int, target: ModelIdentity) -> NDArray[np.float32]:
    """Vectors as the store will hold them.

    Raises:
        StoreError: They have another dimension than the index.
        ModelError: Some are NaN, infinite or zero.
    """
    check_values(new, target)
    if new.shape[1] != dim:
        raise StoreError(
            f"{target} makes vectors of {new.shape[1]} dimensions, but {table.label} holds {dim}: it cannot change in "
            "place; re-embed into a new store: reembed_index(index, embed_model, new_store)."
        )
    return table.as_stored(new)


def check_values(new: NDArray[np.float32], target: ModelIdentity) -> None:
    """Make sure that vectors of shape ``(n, dim)`` can be searched.

    Raises:
        ModelError: Some are NaN, infinite or zero.
    """
    bad = np.logical_not(np.isfinite(new).all(axis=1) & new.any(axis=1))
    if bad.any():
        raise ModelError(
            f"{int(bad.sum())} of {len(new)} new vectors are NaN, infinite or zero; nothing was written: check the "
            f"model {target.name}."
        )


def _matrix(rows: list[Sequence[float]], what: str) -> NDArray[np.float32]:
    if len({len(row) for row in rows}) > 1:
        raise ConfigError(f"{what} have different dimensions; give vectors of one model.")
    return np.asarray(rows, dtype=np.float32)
