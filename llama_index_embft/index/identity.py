"""An index knows who embedded it, and is not searched with another model's vectors."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Final

import numpy as np

from llama_index_embft._core.checks import check_number
from llama_index_embft.embeddings.drift import DriftEmbedding
from llama_index_embft.embeddings.identity import identify
from llama_index_embft.errors import ConfigError, ModelError
from llama_index_embft.index.canaries import SAME_VECTOR, canaries_of, check_canaries
from llama_index_embft.index.stamp import Stamp, StoreError
from llama_index_embft.index.stores.base import capital
from llama_index_embft.index.stores.opening import open_table

if TYPE_CHECKING:
    from pathlib import Path

    from llama_index.core.base.embeddings.base import BaseEmbedding

    from llama_index_embft.embeddings.identity import ModelIdentity
    from llama_index_embft.index.stores.base import VectorTable
    from llama_index_embft.index.stores.opening import IndexLike


_LOOKED_AT: Final = 200  # nodes among which there is one with a text, as far as an index keeps texts


def stamp_index(
    index: IndexLike,
    embed_model: BaseEmbedding,
    *,
    verify: int = 3,
    persist_dir: str | Path | None = None,
    overwrite: bool = False,
    identity: str | None = None,
) -> Stamp:
    """Write into an index which model embedded it; see `open_table` for the place.

    A query-side adapter stamps its base model, which embeds the documents. With the name of a hosted model go two test
    sentences and their vectors, so that `check_index` and `checked_retriever` notice another model behind that name.

    Args:
        index: The index or vector store, see `open_table`.
        embed_model: The model that embedded the documents.
        verify: Documents that are embedded again and compared with what the index holds, so that a wrong stamp is
            noticed; 3 cost nothing and catch another model. 0 believes you, and the model is not asked for anything.
        persist_dir: See `open_table`.
        overwrite: Replace the stamp of another model, or one that says an update is under way.
        identity: For a model of a class that is not known: a name that you change whenever its vectors change.

    Returns:
        The stamp.

    Raises:
        ModelError: The index is stamped by another model, or holds other vectors than this model makes.
        StoreError: It is empty, or being updated.
    """
    table = open_table(index, persist_dir=persist_dir)
    who = identify(embed_model, identity=identity)
    known = None if overwrite else table.read_stamp()  # a damaged one can be overwritten
    if known is not None:
        if known.state != "ready":
            raise StoreError(_busy(table, known))
        # A stamp of an earlier version says nothing that could be compared; `verify` compares vectors instead.
        if known.model.fingerprint != who.fingerprint and not (verify and known.model.of_earlier_version):
            raise ModelError(
                f"{capital(table.label)} was embedded by {known.model}, not by {who}; to change its vectors call "
                "update_index or reembed_index, and if the stamp is wrong pass overwrite=True."
            )
    stamp = Stamp(model=who, dim=table.dim())
    if verify:
        verify_vectors(table, embed_model, verify)
        stamp = replace(stamp, canaries=canaries_of(embed_model, identity=identity))
    table.write_stamp(stamp)
    return stamp


def check_index(
    index: IndexLike,
    embed_model: BaseEmbedding,
    *,
    verify: int = 0,
    canaries: bool = True,
    persist_dir: str | Path | None = None,
    identity: str | None = None,
) -> Stamp:
    """Make sure that a model's queries may search an index.

    They may if its documents are those the index holds: the model itself, a query-side adapter over it, a student of it
    (`DistilledEmbedding`), or a `DriftEmbedding` into its space.

    Args:
        index: The index or vector store, see `open_table`.
        embed_model: The model that is to search it.
        verify: Documents that are embedded again and compared with what the index holds.
        canaries: Send the test sentences of the stamp to a hosted model (one request), which shows that another model
            answers behind its name. Nothing is sent for a local model, whose weights identify it.
        persist_dir: See `open_table`.
        identity: See `stamp_index`.

    Returns:
        The stamp of the index.

    Raises:
        ModelError: Another model embedded the index, and the message names both; or a hosted model gives other vectors
            than when the index was stamped.
        StoreError: The index is not stamped, or it is being updated and holds the vectors of two models.
    """
    table = open_table(index, persist_dir=persist_dir)
    stamp = check_stamp(table, identify(embed_model, identity=identity))
    if canaries:
        check_canaries(stamp.canaries, embed_model, table.label, identity=identity)
    if verify:
        verify_vectors(table, embed_model, verify)
    return stamp


def check_stamp(table: VectorTable, model: ModelIdentity) -> Stamp:
    """`check_index` for a model whose document identity is known: reads the stamp and nothing else.

    Args:
        table: The index.
        model: Whose documents the index should hold.

    Raises:
        ModelError: See `check_index`.
        StoreError: See `check_index`.
    """
    stamp = required_stamp(table)
    if stamp.state != "ready":
        raise StoreError(_busy(table, stamp))
    refuse_earlier(table, stamp)
    if stamp.model != model:
        raise ModelError(
            f"{capital(table.label)} was embedded by {stamp.model} and cannot be searched with {model}: load "
            "the model that embedded it, fit a DriftAdapter from the one to the other, or re-embed it."
        )
    return stamp


def required_stamp(table: VectorTable) -> Stamp:
    """The stamp of an index.

    Raises:
        StoreError: It has none; the message says how to give it one.
    """
    stamp = table.read_stamp()
    if stamp is None:
        raise StoreError(
            f"{capital(table.label)} does not say which model embedded it; stamp it once with that model: "
            "stamp_index(index, embed_model), or: embft apply MODEL --index INDEX --stamp."
        )
    return stamp


def refuse_earlier(table: VectorTable, stamp: Stamp) -> None:
    """Refuse a stamp that can be compared with no model of today.

    Raises:
        ModelError: It is of an earlier version.
    """
    if stamp.model.of_earlier_version:
        raise ModelError(
            f"{capital(table.label)} was stamped by an earlier version, which identified models by other things; stamp "
            "it again with the model that embedded it: stamp_index(index, embed_model), or: "
            "embft apply MODEL --index INDEX --stamp."
        )


def _busy(table: VectorTable, stamp: Stamp) -> str:
    if stamp.state == "building":
        return (
            f"{capital(table.label)} is being filled with the vectors of {stamp.model} and not complete; call "
            "reembed_index again to finish it, and search the old index until then."
        )
    return (
        f"{capital(table.label)} is being updated from {stamp.model} to {stamp.target} and may hold vectors of both; "
        f"wait for the update, or, if it was stopped, call resume_update or rollback_index with the journal "
        f"{stamp.journal}."
    )


def verify_vectors(table: VectorTable, embed_model: BaseEmbedding, n: int) -> None:
    """Embed some documents again and compare them with what an index holds.

    Args:
        table: The index.
        embed_model: The model that is said to have embedded it.
        n: Number of documents; 0 believes it.

    Raises:
        ModelError: The index holds other vectors than the model makes.
        ConfigError: The model embeds queries alone.
    """
    from llama_index.core.schema import MetadataMode

    from llama_index_embft.embeddings.encoding.encoder import as_encoder

    check_number("verify", n, at_least=0)
    if isinstance(embed_model, DriftEmbedding):
        raise ConfigError(
            f"{embed_model.model_name} did not embed the index and cannot be verified against it; pass verify=0, or "
            "the model that did."
        )
    texts: dict[str, str] = {}
    for ids in islice(table.id_batches(max(n, _LOOKED_AT)), 1 if n else 0):
        found = {i: node.get_content(MetadataMode.EMBED) for i, node in table.nodes(ids).items()}
        texts |= islice(((i, text) for i, text in found.items() if text.strip()), n)
    kept = table.fetch(list(texts))
    if not kept:
        return  # no texts are kept: there is nothing to compare
    # Not from the cache: it is the model of today that will be asked.
    vectors = as_encoder(embed_model, cache=None).encode_documents([texts[i] for i in kept])
    for node_id, stored, vector in zip(kept, kept.values(), vectors, strict=True):
        if stored.shape != vector.shape:
            raise ModelError(
                f"{capital(table.label)} holds vectors of {len(stored)} dimensions and {embed_model.model_name} makes "
                f"{len(vector)}: another model embedded it, or this one has changed since."
            )
        cosine = float(stored @ vector / max(float(np.linalg.norm(stored) * np.linalg.norm(vector)), 1e-12))
        if not cosine >= SAME_VECTOR:  # NaN is not
            raise ModelError(
                f"{capital(table.label)} holds another vector for the node {node_id} than {embed_model.model_name} "
                f"makes now (cosine {cosine:.3f}): another model embedded it, with another prompt, or this one "
                "has changed since; give the right model."
            )
