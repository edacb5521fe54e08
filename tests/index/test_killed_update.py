"""SIGKILL in the middle of an update: it is seen, and it is finished or taken back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from index_places import Place, PlainEmbedding, make_nodes, run_and_die
from killed_update import killed_update
from test_update import all_vectors, assert_same

from llama_index_embft.embeddings.identity import identify
from llama_index_embft.index import StoreError, check_index, resume_update, rollback_index, stamp_index, update_index
from llama_index_embft.index.identity import required_stamp
from llama_index_embft.index.stores import open_table

# What dies, after how many calls, and what the index says of itself then.
CASES = [
    ("simple", "write", 2, "updating"),  # in memory; the file is whole and old
    ("faiss_map", "flush", 1, "updating"),  # the file is whole and new
    ("qdrant", "write", 2, "updating"),
    ("postgres", "write", 2, "updating"),
    ("postgres", "fetch", 3, "ready"),  # while the new vectors go into the journal: the index is untouched
]


def update_and_die(action: str, place: Place, tmp_path: Path, method: str, calls: int) -> None:
    places = (place.kind, place.folder, place.uri or "", place.table, tmp_path / "journal")
    run_and_die(killed_update, action, *places, method, calls)


@pytest.mark.parametrize(("kind", "method", "calls", "state"), CASES)
def test_a_killed_update_is_seen_then_finished_or_taken_back(
    place_of: Callable[..., Place],
    kind: str,
    method: str,
    calls: int,
    state: str,
    tmp_path: Path,
) -> None:
    place, old_model, model = place_of(kind), PlainEmbedding(model_name="old"), PlainEmbedding(model_name="new")
    index = place.build(make_nodes(40), old_model)
    stamp_index(index, old_model, verify=0, persist_dir=place.persist_dir)
    before = all_vectors(index)
    place.close(index)
    options = {"persist_dir": place.persist_dir}
    journal = tmp_path / "journal"

    update_and_die("update", place, tmp_path, method, calls)
    index = place.reopen(old_model)
    stamp = required_stamp(open_table(index))
    assert stamp.state == state
    if state == "updating":
        assert (stamp.model, stamp.target, stamp.journal) == (identify(old_model), identify(model), str(journal))
        for embed_model in (old_model, model):
            with pytest.raises(StoreError, match="may hold vectors of both"):
                check_index(index, embed_model)
        back = rollback_index(index, journal, **options)
        assert back.written == 40
        assert_same(all_vectors(index), before)
        check_index(index, old_model)
    else:
        check_index(index, old_model)
        assert_same(all_vectors(index), before)
        with pytest.raises(StoreError, match="untouched; call update_index again"):
            resume_update(index, journal, **options)
        assert update_index(index, model, journal=journal, **options).written == 40
        check_index(index, model)
    place.close(index)


@pytest.mark.parametrize("kind", ["lancedb"])
def test_a_killed_update_is_resumed_without_the_model_and_a_killed_rollback_called_again(
    place_of: Callable[..., Place], kind: str, tmp_path: Path
) -> None:
    place, old_model, model = place_of(kind), PlainEmbedding(model_name="old"), PlainEmbedding(model_name="new")
    index = place.build(make_nodes(40), old_model)
    stamp_index(index, old_model, verify=0, persist_dir=place.persist_dir)
    before = all_vectors(index)
    options = {"persist_dir": place.persist_dir}

    update_and_die("update", place, tmp_path, "write", 2)
    index = place.reopen(old_model)
    assert resume_update(index, tmp_path / "journal", **options).written == 40
    index = place.reopen(model)
    check_index(index, model, verify=40)

    update_and_die("rollback", place, tmp_path, "write", 2)
    index = place.reopen(old_model)
    with pytest.raises(StoreError, match="may hold vectors of both"):
        check_index(index, old_model)
    with pytest.raises(StoreError, match="taken back"):
        resume_update(index, tmp_path / "journal", **options)
    rollback_index(index, tmp_path / "journal", **options)
    index = place.reopen(old_model)
    assert_same(all_vectors(index), before)
    check_index(index, old_model)
