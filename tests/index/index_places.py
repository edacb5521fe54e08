"""Where the tests keep their indexes; imports no torch, so that a process that is to be killed starts fast."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
from llama_index.core import StorageContext, VectorStoreIndex, load_index_from_storage
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import TextNode

from llama_index_embft.embeddings import ModelIdentity

DIM = 32
KINDS = ("simple", "faiss", "faiss_map", "qdrant", "lancedb", "postgres")
SUBJECTS = ("a red fox", "the old king", "my computer", "one green tree", "her small boat", "the tax office")
VERBS = ("sees", "likes", "finds", "sells", "paints")
OBJECTS = ("a river", "the moon", "some bread", "two letters")

ROTATION = np.linalg.qr(np.random.default_rng(0).normal(size=(DIM, DIM)))[0]


def make_nodes(n: int = 60) -> list[TextNode]:
    """Distinct short texts; ids are UUIDs, which Qdrant asks for."""
    texts = [f"{s} {v} {o}" for s in SUBJECTS for v in VERBS for o in OBJECTS]
    return [
        TextNode(text=text, id_=str(UUID(int=row + 1)), metadata={"row": row}) for row, text in enumerate(texts[:n])
    ]


@dataclass
class Place:
    """Where an index lives, and how to open it as another process would."""

    kind: str
    folder: Path
    uri: str | None
    table: str
    dim: int = DIM

    def vector_store(self, dim: int | None = None) -> Any:
        dim = dim or self.dim
        if self.kind == "qdrant":
            from llama_index.vector_stores.qdrant import QdrantVectorStore
            from qdrant_client import QdrantClient

            return QdrantVectorStore(client=QdrantClient(path=str(self.folder)), collection_name=self.table)
        if self.kind == "lancedb":
            from llama_index.vector_stores.lancedb import LanceDBVectorStore

            return LanceDBVectorStore(uri=str(self.folder), table_name=self.table)
        if self.kind == "postgres":
            from llama_index.vector_stores.postgres import PGVectorStore

            assert self.uri is not None
            return PGVectorStore.from_params(
                connection_string=self.uri.replace("postgresql://", "postgresql+psycopg2://"),
                async_connection_string=self.uri.replace("postgresql://", "postgresql+asyncpg://"),
                table_name=self.table,
                embed_dim=dim,
            )
        if self.kind == "simple":
            from llama_index.core.vector_stores import SimpleVectorStore

            return SimpleVectorStore()
        import faiss
        from llama_index.vector_stores.faiss import FaissMapVectorStore, FaissVectorStore

        flat = faiss.IndexFlatIP(dim)
        return FaissVectorStore(flat) if self.kind == "faiss" else FaissMapVectorStore(faiss.IndexIDMap2(flat))

    @property
    def persist_dir(self) -> str | None:
        return str(self.folder) if self.kind in ("simple", "faiss", "faiss_map") else None

    def build(self, nodes: list[TextNode], embed_model: BaseEmbedding, dim: int | None = None) -> VectorStoreIndex:
        context = StorageContext.from_defaults(vector_store=self.vector_store(dim))
        index = VectorStoreIndex(nodes, storage_context=context, embed_model=embed_model)
        if self.persist_dir:
            context.persist(self.persist_dir)
        return index

    def close(self, index: VectorStoreIndex) -> None:
        if self.kind == "qdrant":
            index.vector_store.client.close()  # the folder is locked while it is open

    def reopen(self, embed_model: BaseEmbedding) -> VectorStoreIndex:
        if self.kind == "simple":
            context = StorageContext.from_defaults(persist_dir=str(self.folder))
            return load_index_from_storage(context, embed_model=embed_model)
        if self.persist_dir:
            store = type(self.vector_store()).from_persist_dir(str(self.folder))
            context = StorageContext.from_defaults(vector_store=store, persist_dir=str(self.folder))
            return load_index_from_storage(context, embed_model=embed_model)
        return VectorStoreIndex.from_vector_store(self.vector_store(), embed_model=embed_model)


class PlainEmbedding(BaseEmbedding):
    """Unit vectors made of a hash of the text and of the model's name: a model that loads at once."""

    def identity(self, side, given=None):
        """A class that knows what decides its vectors speaks for itself."""
        return ModelIdentity.of(self.model_name, type(self).__name__, self.model_name, side)

    def _get_text_embedding(self, text: str) -> list[float]:
        seed = int.from_bytes(hashlib.sha256(f"{self.model_name} {text}".encode()).digest()[:8], "little")
        vector = np.random.default_rng(seed).normal(size=DIM)
        return (vector / np.linalg.norm(vector)).tolist()

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


TURNED_DIM = 24


class TurnedPlain(PlainEmbedding):
    """The model "old" turned and cut to 24 dimensions."""

    def _get_text_embedding(self, text: str) -> list[float]:
        vector = np.array(PlainEmbedding(model_name="old").get_text_embedding(text)) @ ROTATION[:, :TURNED_DIM]
        return (vector / np.linalg.norm(vector)).tolist()


# Forked from a process that has imported LlamaIndex already, so that a process to be killed costs no start of its own.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["index_places", "llama_index_embft.index.update", "llama_index_embft.index.reembed"])


def run_and_die(work: Callable[..., None], *arguments: object) -> None:
    """Run a function of a module, in a process of its own, which kills itself."""
    process = PROCESSES.Process(target=work, args=tuple(map(str, arguments)))
    process.start()
    process.join(300)
    assert process.exitcode == -signal.SIGKILL


def die_after(owner: type, method: str, calls: int) -> None:
    """Kill this process when a method has returned so often."""
    real, left = getattr(owner, method), [calls]

    def dying(self, *args, **options):
        result = real(self, *args, **options)
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, method, dying)
