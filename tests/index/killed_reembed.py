"""A process that starts to re-embed an index and kills itself in the middle of it; see test_killed_reembed."""

from __future__ import annotations

from pathlib import Path

from index_places import TURNED_DIM, Place, PlainEmbedding, TurnedPlain, die_after

from llama_index_embft.embeddings import EmbeddingCache
from llama_index_embft.index import reembed_index
from llama_index_embft.index.stores import open_table


def log_texts(path: Path) -> None:
    """Have the new model write down each text that it embeds, one a line."""
    real = TurnedPlain._get_text_embedding

    def logged(self, text):
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{text!r}\n")
        return real(self, text)

    TurnedPlain._get_text_embedding = logged


def killed_reembed(kind, folder, uri, table, old_folder, cache, log, owner, method, calls):
    model = TurnedPlain(model_name="new")
    log_texts(Path(log))
    place = Place(kind, Path(folder), uri or None, table, TURNED_DIM)
    new = place.reopen(model)
    die_after(type(new.vector_store if owner == "store" else open_table(new)), method, int(calls))
    old = Place("simple", Path(old_folder), None, "").reopen(PlainEmbedding(model_name="old"))
    vectors = EmbeddingCache(cache) if cache else None
    reembed_index(old, model, new, batch_size=10, persist_dir=place.persist_dir, cache=vectors)
