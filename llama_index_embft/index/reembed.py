"""Re-embedding an index with another model while the old one goes on serving.

The new vectors go into a second store: no store ever holds vectors of two models, so none is searched with the wrong
ones. Until the second store is complete the old one answers, through a `DriftEmbedding`; then the new one does.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from llama_index.core.base.base_retriever import BaseRetriever

from llama_index_embft._core.checks import check_number
from llama_index_embft._core.vectors import unit_rows
from llama_index_embft.embeddings.encoding.encoder import as_encoder
from llama_index_embft.embeddings.identity import identify
from llama_index_embft.errors import ConfigError
from llama_index_embft.index.canaries import canaries_of
from llama_index_embft.index.changes import check_values, embedded_text, nodes_of, texts_of
from llama_index_embft.index.identity import check_stamp, required_stamp
from llama_index_embft.index.retrievers import CheckedRetriever
from llama_index_embft.index.stamp import Stamp, StoreError
from llama_index_embft.index.stores.base import capital, check_unique, matrix
from llama_index_embft.index.stores.opening import open_table

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from llama_index.core import VectorStoreIndex
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.schema import NodeWithScore, QueryBundle
    from llama_index.core.vector_stores.types import BasePydanticVectorStore
    from numpy.typing import NDArray

    from llama_index_embft.embeddings.drift import DriftEmbedding
    from llama_index_embft.embeddings.encoding.cache import EmbeddingCache
    from llama_index_embft.embeddings.identity import ModelIdentity
    from llama_index_embft.index.stores.base import VectorTable
    from llama_index_embft.index.stores.opening import IndexLike


_RANKED: Final = "old, ranked by new"


@dataclass(frozen=True)
class ReembedResult:
    """How far a re-embedding is.

    Attributes:
        done: Nodes that are in the new index, by earlier calls too.
        total: Nodes of the old index.
        retrieved: Share of past retrievals that went to nodes which are done; None without counts.
        complete: Whether the new index is whole, and stamped as ready.
    """

    done: int
    total: int
    retrieved: float | None
    complete: bool


def reembed_index(
    old: IndexLike,
    new_embed_model: BaseEmbedding,
    new: VectorStoreIndex | BasePydanticVectorStore,
    *,
    counts: Mapping[str, int] | None = None,
    batch_size: int = 256,
    max_nodes: int | None = None,
    persist_dir: str | Path | None = None,
    cache: EmbeddingCache | Literal["default"] | None = "default",
    identity: str | None = None,
) -> ReembedResult:
    """Embed the nodes of an index with another model, into another store; the old one is only read.

    It may be called in pieces, and again after a kill: what the new store holds is not embedded again (and, thanks to
    the cache, what was embedded and not yet stored is not either). Until all nodes are there the new store's stamp
    says "building" and it cannot be searched alone; `MigratingRetriever` serves from both meanwhile. Nodes that have
    left the old index are taken out of the new one. Before the new one is called ready, texts are compared: a node
    whose text (with the metadata that is embedded) has changed in the old index under its id is embedded again.

    A new index in memory is lost with its process unless it is persisted: with ``persist_dir`` its files there are
    replaced at the end of the call, each at once, and it is called ready when all of them are written. A caller who
    persists it does so after the call, and a kill while LlamaIndex writes its files can leave some old and some new.

    Args:
        old: The index that serves, see `open_table`; its nodes keep their ids.
        new_embed_model: The new model, of any dimension.
        new: An empty index or vector store, or that of an earlier call. A store that keeps no text needs an index.
        counts: Node id to how often it was retrieved, most first; `CheckedRetriever.counts` collects it. Nodes that
            are not in it follow in the order of the store.
        batch_size: Nodes that are embedded and stored at once: a killed run loses no more.
        max_nodes: Stop after so many, to work in pieces; None does all.
        persist_dir: Where a new index over a SimpleVectorStore was persisted, empty at first.
        cache: For embedding, see `as_encoder`.
        identity: Of the new model, see `stamp_index`.

    Raises:
        StoreError: Old and new are one store, the new one holds another model's vectors or cannot delete nodes that
            have left the old one or changed there, or texts are gone.
        ModelError: The model returns NaN or zero vectors.
        ConfigError: A value is out of range, a store is not known, or ``persist_dir`` is not for it.
    """
    check_number("batch_size", batch_size, at_least=1)
    if max_nodes is not None:
        check_number("max_nodes", max_nodes, at_least=1)
    source = open_table(old)
    index = _as_index(new, new_embed_model)
    target = _open_target(index, persist_dir)
    if getattr(source, "store", source) is getattr(target, "store", target):
        raise StoreError(
            f"{capital(source.label)} cannot be re-embedded into itself; give another collection, table or index."
        )
    who = identify(new_embed_model, identity=identity)
    stamp, present = target.read_stamp(), _ids(target)
    if present and (stamp is None or stamp.model != who or stamp.state == "updating"):
        held = "unknown vectors" if stamp is None else f"vectors of {stamp.model}"
        raise StoreError(f"{capital(target.label)} already holds {held}; give an empty one for {who}.")
    order = _by_count(_ids(source), counts)
    check_unique(order, source.label)
    known = set(present)
    absent = [i for i in order if i not in known]
    waiting = absent[:max_nodes]
    changed = [] if len(waiting) < len(absent) else _changed(source, target, [i for i in order if i in known])
    again = changed[: None if max_nodes is None else max_nodes - len(waiting)]
    waiting += again
    encoder = as_encoder(new_embed_model, cache=cache)
    known_canaries = () if stamp is None else stamp.canaries
    canaries = canaries_of(new_embed_model, known_canaries, identity=identity) if waiting else known_canaries
    if again and stamp is not None:
        before, stamp = stamp, Stamp(who, stamp.dim, "building", canaries=canaries)
        target.write_stamp(stamp)
        try:
            target.delete(index, again)
        except StoreError:
            target.write_stamp(before)  # nothing was taken out
            raise
        target.flush()  # before the new texts: a file with an old vector beside a new text would hide it for good
    for start in range(0, len(waiting), batch_size):
        ids = waiting[start : start + batch_size]
        vectors = encoder.encode_documents(list(texts_of(source, ids).values()))
        check_values(vectors, who)
        building = Stamp(who, vectors.shape[1], "building", canaries=canaries)
        # Before the first vector: a store with vectors and no stamp is refused, so a kill must not leave one. (Ready
        # means that nodes were added to the old index since the new one was complete.)
        if stamp != building:
            target.create(building.dim)
            target.write_stamp(building)
        _insert(index, source, ids, vectors)
        stamp = building
    if waiting and stamp is not None:
        # What lists the nodes is written before their vectors: LlamaIndex fails on a vector that it cannot name.
        target.save_nodes()
        target.write_stamp(stamp)
        target.flush()
    gone = sorted(known - set(order))
    if gone:
        target.delete(index, gone)
        target.flush()
    done = known.intersection(order).difference(changed).union(waiting)
    complete = len(done) == len(order) and stamp is not None
    if complete and stamp is not None:
        target.write_stamp(Stamp(who, stamp.dim, canaries=canaries))
    return ReembedResult(len(done), len(order), _share(counts, done), complete)


class MigratingRetriever(BaseRetriever):
    """Serves while an index is re-embedded: each answer is ranked in one space, and no store holds two.

    While the new index is incomplete, candidates come from the old one, found by the mapped query. If the new index has
    vectors of all of them, they are ranked again by these, with the new model's own query vector; if one is missing the
    old ranking stands, since scores of two spaces cannot be compared. So what is asked most improves first. As soon as
    the new index says that it is ready, it alone answers.

    Args:
        old: The old index, stamped.
        new: The new index, filled by `reembed_index`.
        drift: The new model mapped into the old index's space.
        similarity_top_k: Hits a query.
        candidates: Of the old index, to be ranked again; 4 times the hits catch most of what the new model prefers.
        counts: Counts retrieved nodes, for `reembed_index`.

    Attributes:
        counts: Node id to the number of times it was retrieved.
        served_by: ``"old"``, ``"old, ranked by new"`` or ``"new"`` to the number of answers.

    Raises:
        ModelError: The old index was embedded by another model than the map leads to.
        StoreError: The old index is not stamped or is being updated.
        ConfigError: A number is below 1.
    """

    def __init__(
        self,
        old: VectorStoreIndex,
        new: VectorStoreIndex,
        drift: DriftEmbedding,
        *,
        similarity_top_k: int = 10,
        candidates: int | None = None,
        counts: Counter[str] | None = None,
    ) -> None:
        wanted = 4 * similarity_top_k if candidates is None else candidates
        check_number("similarity_top_k", similarity_top_k, at_least=1)
        check_number("candidates", wanted, at_least=similarity_top_k, hint="they are ranked again for similarity_top_k")
        self._new_index, self._k = new, similarity_top_k
        self._old = CheckedRetriever(old, drift, similarity_top_k=wanted)
        self._target = open_table(new)
        self._new_model = drift.new_embed_model
        self._identity = identify(self._new_model)
        self.counts: Counter[str] = Counter() if counts is None else counts
        self.served_by: Counter[str] = Counter()
        super().__init__()

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        text = query_bundle.query_str  # not the bundle: retrievers leave their model's vector in it
        if self._complete():
            return self._counted(self._whole().retrieve(text), "new")
        hits = self._old.retrieve(text)
        vectors = self._new_vectors(hits)
        if vectors is None:
            return self._counted(hits[: self._k], "old")
        return self._counted(self._ranked(hits, vectors, self._new_model.get_query_embedding(text)), _RANKED)

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        text = query_bundle.query_str
        if await asyncio.to_thread(self._complete):
            return self._counted(await self._whole().aretrieve(text), "new")
        hits = await self._old.aretrieve(text)
        vectors = await asyncio.to_thread(self._new_vectors, hits)
        if vectors is None:
            return self._counted(hits[: self._k], "old")
        query = await self._new_model.aget_query_embedding(text)
        return self._counted(self._ranked(hits, vectors, query), _RANKED)

    def _complete(self) -> bool:
        """Whether the new index is whole."""
        stamp = self._target.read_stamp()
        if stamp is None or stamp.state != "ready":
            return False
        check_stamp(self._target, self._identity)
        return True

    def _whole(self) -> BaseRetriever:
        return self._new_index.as_retriever(embed_model=self._new_model, similarity_top_k=self._k)

    def _new_vectors(self, hits: list[NodeWithScore]) -> NDArray[np.float32] | None:
        """The new model's vectors of the candidates; None where one is missing."""
        stamp = self._target.read_stamp()
        ids = [hit.node.node_id for hit in hits]
        found = self._target.fetch(ids) if stamp is not None and stamp.model == self._identity else {}
        return matrix(found, ids) if hits and len(found) == len(set(ids)) else None

    def _ranked(
        self, hits: list[NodeWithScore], vectors: NDArray[np.float32], query: list[float]
    ) -> list[NodeWithScore]:
        scores = unit_rows(vectors) @ unit_rows(np.asarray([query], dtype=np.float32))[0]
        for hit, score in zip(hits, scores.tolist(), strict=True):
            hit.score = score
        return sorted(hits, key=lambda hit: -(hit.score or 0.0))[: self._k]

    def _counted(self, hits: list[NodeWithScore], by: str) -> list[NodeWithScore]:
        self.counts.update(hit.node.node_id for hit in hits)
        self.served_by[by] += 1
        return hits


@dataclass(frozen=True)
class IndexSample:
    """A part of an index, as `DriftAdapter.fit` wants it.

    Attributes:
        texts: What was embedded.
        vectors: The stored vectors, shape ``(len(texts), dim)``.
        model: Whose they are.
        index_size: Nodes of the whole index.
    """

    texts: list[str]
    vectors: NDArray[np.float32]
    model: ModelIdentity
    index_size: int


def sample_index(index: IndexLike, n: int = 4000, *, seed: int = 0) -> IndexSample:
    """Texts and vectors of an index, at random: pairs for `DriftAdapter.fit` without the old model.

    Args:
        index: A stamped index, see `open_table`.
        n: How many; all, where the index has fewer.
        seed: Chooses them.

    Raises:
        StoreError: The index is not stamped, is being updated, or has lost texts.
    """
    table = open_table(index)
    stamp = required_stamp(table)
    check_stamp(table, stamp.model)
    ids = _ids(table)
    rows = np.sort(np.random.default_rng(seed).permutation(len(ids))[:n])
    chosen = [ids[row] for row in rows]
    texts: list[str] = []
    vectors: list[NDArray[np.float32]] = []
    for start in range(0, len(chosen), 512):
        part = chosen[start : start + 512]
        texts += texts_of(table, part).values()
        vectors.append(matrix(table.fetch(part), part))
    if not texts:
        raise StoreError(f"{capital(table.label)} is empty; add nodes to it first.")
    return IndexSample(texts, np.concatenate(vectors), stamp.model, len(ids))


def _open_target(index: VectorStoreIndex, persist_dir: str | Path | None) -> VectorTable:
    from llama_index_embft.index.stores.faiss import FaissTable

    table = open_table(index, persist_dir=persist_dir)
    if persist_dir is not None and isinstance(table, FaissTable):
        raise ConfigError(
            f"`persist_dir` is for a SimpleVectorStore; a {type(table.store).__name__} has files that cannot be "
            "replaced at once: leave it out, and persist the index after each call: "
            "index.storage_context.persist(folder)."
        )
    return table


def _as_index(new: Any, embed_model: BaseEmbedding) -> VectorStoreIndex:
    from llama_index.core import VectorStoreIndex
    from llama_index.core.vector_stores.types import BasePydanticVectorStore

    if isinstance(new, VectorStoreIndex):
        return new
    if isinstance(new, BasePydanticVectorStore) and new.stores_text:
        return VectorStoreIndex.from_vector_store(new, embed_model=embed_model)
    raise ConfigError(
        f"Cannot fill a {type(new).__name__} alone; pass an empty index over it: "
        "VectorStoreIndex([], storage_context=StorageContext.from_defaults(vector_store=...), embed_model=...)."
    )


def _insert(index: VectorStoreIndex, source: VectorTable, ids: list[str], vectors: NDArray[np.float32]) -> None:
    nodes = nodes_of(source, ids)
    copies = []
    for (node_id, node), vector in zip(nodes.items(), vectors.tolist(), strict=True):
        copy = node.model_copy(deep=True)
        copy.embedding = vector
        assert copy.node_id == node_id
        assert embedded_text(copy) == embedded_text(node)
        copies.append(copy)
    index.insert_nodes(copies)  # nodes that carry a vector are not embedded


def _ids(table: VectorTable) -> list[str]:
    return [i for batch in table.id_batches(4096) for i in batch]


def _changed(source: VectorTable, target: VectorTable, ids: list[str], size: int = 512) -> list[str]:
    """Those nodes of which both stores have a text, and not the same one."""
    changed = []
    for start in range(0, len(ids), size):
        part = ids[start : start + size]
        before, now = target.nodes(part), source.nodes(part)
        changed += [i for i in part if i in before and i in now and embedded_text(before[i]) != embedded_text(now[i])]
    return changed


def _by_count(ids: list[str], counts: Mapping[str, int] | None) -> list[str]:
    return sorted(ids, key=lambda i: -counts.get(i, 0)) if counts else ids  # sorted keeps the order of equals


def _share(counts: Mapping[str, int] | None, done: set[str]) -> float | None:
    total = sum(counts.values()) if counts else 0
    return sum(n for i, n in counts.items() if i in done) / total if counts and total else None
