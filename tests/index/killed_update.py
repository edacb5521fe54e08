"""A process that starts an update, or its rollback, and kills itself in the middle of it; see test_killed_update."""

from __future__ import annotations

from pathlib import Path

from index_places import Place, PlainEmbedding, die_after

from llama_index_embft.index import rollback_index, update_index
from llama_index_embft.index.stores import open_table


def killed_update(action, kind, folder, uri, table, journal, method, calls):
    place = Place(kind, Path(folder), uri, table)
    index = place.reopen(PlainEmbedding(model_name="old"))
    die_after(type(open_table(index)), method, int(calls))
    options = {"journal": journal, "persist_dir": place.persist_dir, "batch_size": 10}
    if action == "update":
        update_index(index, PlainEmbedding(model_name="new"), cache=None, **options)
    else:
        rollback_index(index, **options)
