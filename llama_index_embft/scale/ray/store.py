"""Shards into a LlamaIndex vector store, in order, once."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Final

from llama_index_embft._core.files import atomic_write_text
from llama_index_embft.errors import ConfigError, OutputError
from llama_index_embft.scale.ray.manifest import read_shard

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from llama_index.core.vector_stores.types import BasePydanticVectorStore

    from llama_index_embft.scale.ray.manifest import OutputFolder
    from llama_index_embft.scale.ray.shards import Shard

_NODES_A_CALL: Final = 1024


class StoreLoader:
    """Fills a vector store with the shards of a job as they become ready.

    Args:
        store: The store; None does nothing.
        name: Names a store that outlives this process, see `encode`.
        folder: Of the shards, and of the notes about what is in the store.

    Raises:
        ConfigError: There is a name and no store.
    """

    def __init__(self, store: BasePydanticVectorStore | None, name: str | None, folder: OutputFolder) -> None:
        if store is None and name is not None:
            raise ConfigError("`store_name` names a vector store, and there is none; give `vector_store` too.")
        self._store, self._folder = store, folder
        self._ready: set[int] = set()
        self._note: Path | None = None
        self._next = 0
        if name is not None:
            key = hashlib.blake2b(name.encode(), digest_size=8).hexdigest()
            self._note = folder.path / f"store-{key}.json"
            self._next = self._loaded()

    def _loaded(self) -> int:
        assert self._note is not None
        try:
            return int(json.loads(self._note.read_text(encoding="utf-8"))["shards"])
        except FileNotFoundError:
            return 0
        except (OSError, ValueError, KeyError, TypeError) as err:
            raise OutputError(
                f"{self._note} cannot be read ({err}); delete it, and the store is filled from the first shard on."
            ) from err

    def offer(self, shards: Iterable[Shard]) -> None:
        """Note that shards are ready, and load those whose turn it is."""
        if self._store is None:
            return
        self._ready.update(shard.number for shard in shards)
        while self._next in self._ready:
            self._load(self._store, self._folder.shards[self._next])
            self._ready.discard(self._next)
            self._next += 1
            if self._note is not None:
                atomic_write_text(self._note, json.dumps({"shards": self._next}) + "\n")

    def _load(self, store: BasePydanticVectorStore, shard: Shard) -> None:
        from llama_index.core.schema import TextNode

        content = read_shard(self._folder.file_of(shard))
        assert content.texts is not None
        for start in range(0, len(content.ids), _NODES_A_CALL):
            some = slice(start, start + _NODES_A_CALL)
            nodes = [
                TextNode(id_=id_, text=text, embedding=vector.tolist())
                for id_, text, vector in zip(content.ids[some], content.texts[some], content.vectors[some], strict=True)
            ]
            # A run that was killed between the store and the note has them in the store already, and not every store
            # replaces nodes of the same id.
            if self._note is not None and start == 0:
                _forget(store, content.ids)
            store.add(nodes)


def _forget(store: BasePydanticVectorStore, ids: list[str]) -> None:
    try:
        store.delete_nodes(node_ids=ids)
    except NotImplementedError as err:
        raise ConfigError(
            f"{type(store).__name__} cannot delete nodes by id, so a run that was stopped could load some twice; leave "
            "`store_name` out and begin with an empty store."
        ) from err
