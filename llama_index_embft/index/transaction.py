"""The steps of an update between the journal and the store, each of which a killed run can repeat."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from llama_index_embft.index.changes import VectorChange, check_new
from llama_index_embft.index.identity import required_stamp
from llama_index_embft.index.stamp import Stamp, StoreError
from llama_index_embft.index.stores.base import VectorTable, capital, check_unique, matrix

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from llama_index_embft.embeddings.identity import ModelIdentity
    from llama_index_embft.index.canaries import Canary
    from llama_index_embft.index.journal import ChangedVector, UpdateHeader, UpdateJournal

Missing = Literal["error", "skip"]
# Two vectors nearer than this are one: float32 keeps seven digits of numbers below 1.
_SAME: Final = 1e-6


def check_journal(book: UpdateJournal, header: UpdateHeader, stamp: Stamp) -> None:
    """Make sure that an existing journal is of this very update, and that no other one is under way."""
    known = book.header
    if (known.label, known.target, known.whole) != (header.label, header.target, header.whole):
        raise StoreError(
            f"The journal {book.path} is of another update ({known.label}, from {known.source} to {known.target}); "
            "keep it for a rollback and give another path."
        )
    if book.phase in ("rolling back", "rolled back"):
        raise StoreError(f"The update of the journal {book.path} was taken back; give another path for a new one.")
    if stamp.state == "ready" and stamp.model not in (known.source, known.target):
        raise StoreError(
            f"The journal {book.path} starts from {known.source}, but {stamp.model} has embedded the index since; give "
            "another path."
        )
    if stamp.state != "ready" and (stamp.state != "updating" or stamp.journal != str(book.path)):
        raise StoreError(_other_update(known.label, stamp))


def check_latest(book: UpdateJournal, stamp: Stamp) -> None:
    """Make sure that the journal's update is the last one of its index, before it is finished or taken back.

    The path is not compared: a journal may have been moved.

    Raises:
        StoreError: Another update has begun, or was carried out, since.
    """
    known = book.header
    if stamp.state == "ready" and stamp.model not in (known.source, known.target):
        raise StoreError(
            f"{capital(known.label)} was embedded by {stamp.model} since, and the journal {book.path} is of an update "
            f"from {known.source} to {known.target}; roll back the later update first."
        )
    if stamp.state != "ready" and {stamp.model, stamp.target} != {known.source, known.target}:
        raise StoreError(_other_update(known.label, stamp))


def refuse_other_update(label: str, stamp: Stamp, target: ModelIdentity) -> None:
    """Make sure that no other change of an index is under way than one to a model.

    Raises:
        StoreError: Another one is.
    """
    if stamp.state != "ready" and stamp.target != target:
        raise StoreError(_other_update(label, stamp))


def _other_update(label: str, stamp: Stamp) -> str:
    if stamp.state == "building":
        return f"{capital(label)} is being filled with the vectors of {stamp.model}; finish that first: reembed_index."
    return (
        f"{capital(label)} is under another update, to {stamp.target or stamp.model}; finish it, or take it back, with "
        f"its journal {stamp.journal}."
    )


def change_batches(table: VectorTable, change: VectorChange, size: int) -> Iterator[list[str]]:
    """Node ids that a change is about, ``size`` at a time; some come twice where ids are listed and all change."""
    for start in range(0, len(change.ids), size):
        yield list(change.ids[start : start + size])
    if change.whole:
        yield from table.id_batches(size)


def plan_vectors(table: VectorTable, change: VectorChange, book: UpdateJournal, size: int, missing: Missing) -> int:
    """Put the new vectors of all nodes that are not in the journal into it; returns how many those were."""
    dim, planned = book.header.dim, 0
    for batch in change_batches(table, change, size):
        check_unique(batch, table.label)
        ids = book.unknown(batch)
        found = table.fetch(ids) if ids else {}
        lost = [i for i in ids if i not in found]
        if lost and missing == "error":
            raise StoreError(_lost(table, lost, "The index is as it was."))
        here = [i for i in ids if i in found]
        if not here:
            continue
        old = matrix(found, here)
        if old.shape[1] != dim:
            raise StoreError(
                f"{capital(table.label)} holds vectors of {old.shape[1]} and of {dim} dimensions; build it again."
            )
        new = check_new(table, change.vectors(table, here, old), dim, change.target)
        book.plan(here, old, new, differ(old, new))
        planned += len(here)
    return planned


def carry_out(
    table: VectorTable,
    book: UpdateJournal,
    change: VectorChange | None,
    size: int,
    missing: Missing,
    canaries: tuple[Canary, ...] = (),
) -> None:
    """Write what is in the journal, and plan and write what was added meanwhile, which needs the change.

    The stamp keeps its test sentences, for a rollback, beside those of the new model.
    """
    header, stamp = book.header, required_stamp(table)
    canaries = tuple(dict.fromkeys((*stamp.canaries, *canaries)))
    if table.volatile or stamp.state == "ready":
        book.mark_all(
            "planned"
        )  # what was written into a killed process's memory, or before a backup came back, is gone
    book.enter("writing")
    table.write_stamp(Stamp(header.source, header.dim, "updating", header.target, str(book.path), canaries))
    while True:
        write_planned(table, book, size, missing, back=False)
        added = header.whole and any(book.unknown(batch) for batch in table.id_batches(size))
        if not added:
            break
        if change is None:
            raise StoreError(
                f"Nodes were added to {table.label} since the update began; call update_index again, with the model."
            )
        plan_vectors(table, change, book, size, missing)
    table.write_stamp(Stamp(header.target, header.dim, canaries=canaries))
    book.enter("done")


def write_planned(table: VectorTable, book: UpdateJournal, size: int, missing: Missing, *, back: bool) -> None:
    """Write the new vectors that wait in the journal, or back the old ones of those that were written."""
    for rows in book.batches(size, written=back):
        rows_here = _present(table, book, rows, missing)
        if rows_here:
            table.write(
                [row.node_id for row in rows_here], np.stack([row.old if back else row.new for row in rows_here])
            )
            if not table.volatile:
                book.mark([row.node_id for row in rows_here], "planned" if back else "written")
    if table.volatile:
        table.flush()
        book.mark_all("planned" if back else "written")


def _present(
    table: VectorTable, book: UpdateJournal, rows: list[ChangedVector], missing: Missing
) -> list[ChangedVector]:
    """Those rows that the index still holds, with their old vector or their new one."""
    found = table.fetch([row.node_id for row in rows])
    lost = [row.node_id for row in rows if row.node_id not in found]
    if lost:
        if missing == "error":
            raise StoreError(_lost(table, lost, "The update is not finished."))
        book.mark(lost, "lost")
    here = [row for row in rows if row.node_id in found]
    for row in here:
        now = found[row.node_id][None, :]
        if differ(now, row.old[None, :])[0] and differ(now, row.new[None, :])[0]:
            raise StoreError(
                f"The vector of the node {row.node_id} of {table.label} is neither the old one nor the new one of the "
                f"update: it was written by something else since {book.path} was made; delete the node or put its "
                "vector back."
            )
    return here


def refuse_added(table: VectorTable, book: UpdateJournal) -> None:
    """Make sure that a rollback leaves no vectors of the new model behind.

    Raises:
        StoreError: Nodes were added since an update of the whole index.
    """
    if not book.header.whole:
        return
    added = [i for batch in table.id_batches(512) for i in book.unknown(batch)]
    if added:
        raise StoreError(
            f"{len(added)} nodes were added to {table.label} since the update (first: {added[0]}) and have vectors of "
            f"{book.header.target}; delete them before the rollback and add them again after it."
        )


def _lost(table: VectorTable, lost: list[str], outcome: str) -> str:
    return (
        f"{len(lost)} nodes are not in {table.label} any more (first: {lost[0]}). {outcome} Call again with "
        "missing='skip' to go on without them."
    )


def differ(old: NDArray[np.float32], new: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Shape ``(n,)``: which rows of two arrays of shape ``(n, dim)`` are not the same vector."""
    if old.shape != new.shape:
        return np.ones(len(new), dtype=np.bool_)
    # A stored NaN is the same as itself: it must be found again, and is replaced since no new vector holds one.
    same = (np.abs(old - new) <= _SAME) | (old == new) | (np.isnan(old) & np.isnan(new))
    changed: NDArray[np.bool_] = np.logical_not(same).any(axis=1)
    return changed
