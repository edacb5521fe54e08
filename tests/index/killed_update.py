"""A process that starts an update, or its rollback, and kills itself in the middle of it; see test_killed_update."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from index_places import Place, PlainEmbedding

from llama_index_embft.index import rollback_index, update_index
from llama_index_embft.index.stores import open_table

action, kind, folder, uri, table, journal, method, calls = sys.argv[1:]
place = Place(kind, Path(folder), uri, table)
index = place.reopen(PlainEmbedding(model_name="old"))
table_class = type(open_table(index))
real, left = getattr(table_class, method), [int(calls)]


def dying(self, *args):
    result = real(self, *args)
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    return result


setattr(table_class, method, dying)
options = {"journal": journal, "persist_dir": place.persist_dir, "batch_size": 10}
if action == "update":
    update_index(index, PlainEmbedding(model_name="new"), cache=None, **options)
else:
    rollback_index(index, **options)
