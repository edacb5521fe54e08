"""Changing the document vectors of an index in place: in batches, resumable, and back again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from llama_index_embft.errors import ConfigError
from llama_index_embft.index.changes import Change, as_change, check_new
from llama_index_embft.index.identity import required_stamp
from llama_index_embft.index.journal import Header, UpdateJournal, require_journal
from llama_index_embft.index.stamp import Stamp, StoreError
from llama_index_embft.index.stores.opening import capital, check_unique, matrix, open_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from llama_index.core.base.embeddings.base import BaseEmbedding
    from numpy.typing import NDArray

    from llama_index_embft.embeddings.encoding.cache import EmbeddingCache
    from llama_index_embft.embeddings.identity import ModelIdentity
    from llama_index_embft.index.journal import Row
    from llama_index_embft.index.stores.opening import IndexLike, VectorTable

Missing = Literal["error", "skip"]
# Two vectors nearer than this are one: float32 keeps seven digits of numbers below 1.
_SAME: Final = 1e-6


@dataclass(frozen=True)
class UpdateResult:
    """What an update, its resumption or its rollback did.

    Attributes:
        source: Whose vectors the index held.
        target: Whose vectors it holds now.
        written: Vectors that were replaced, by killed runs of the same update too.
        unchanged: Vectors that are as they were, and were not written.
        lost: Nodes that have left the index since; skipped.
        journal: The file with the old vectors, for `rollback_index`; delete it when you will not go back. None where
            nothing was to be done.
    """

    source: ModelIdentity
    target: ModelIdentity
    written: int
    unchanged: int
    lost: int
    journal: Path | None


@dataclass(frozen=True)
class UpdatePlan:
    """What `update_index` would do.

    Attributes:
        source: Whose vectors the index holds.
        target: Whose it would hold.
        nodes: Nodes that would be looked at.
        changed: How many of their vectors would change; None where only embedding every text would tell.
        action: In words.
    """

    source: ModelIdentity
    target: ModelIdentity
    nodes: int
    changed: int | None
    action: str


def update_index(
    index: IndexLike,
    change: Mapping[str, Sequence[float]] | BaseEmbedding,
    *,
    journal: str | Path,
    embed_model: BaseEmbedding | None = None,
    persist_dir: str | Path | None = None,
    batch_size: int = 512,
    missing: Missing = "error",
    cache: EmbeddingCache | Literal["default"] | None = "default",
) -> UpdateResult:
    """Replace document vectors of a stamped index.

    First every new vector goes into the journal beside the old one, with the index untouched. Then the stamp says
    "updating", changed vectors are written in batches, and the stamp names the new model. Killed before the stamp
    changes, nothing has happened; killed after it, `check_index` refuses the index until `update_index` with the same
    arguments (or `resume_update`, which needs no model) has finished it or `rollback_index` has taken it back. Nodes
    that are added to the index meanwhile are updated too.

    An index in memory is changed in memory; with ``persist_dir`` its file there is replaced at once at the end.

    Args:
        index: The index or vector store, see `open_table`; stamped, see `stamp_index`.
        change: Vectors by node id; or a `NudgedEmbedding`, whose moved vectors are written; or an `AdapterEmbedding`
            with a document side over the model that embedded the index, through which the stored vectors are sent
            (nothing is embedded); or any other model of the same dimension, which embeds every text again.
        journal: File for the old and new vectors, see `journal`.
        embed_model: With vectors by node id: the model that makes the index's vectors from now on.
        persist_dir: See `open_table`.
        batch_size: Vectors a batch; 512 are about 1 MB and a transaction.
        missing: Nodes that are listed and not, or no longer, in the index: ``"error"`` or ``"skip"``.
        cache: For embedding texts, see `as_encoder`.

    Raises:
        StoreError: The index is not stamped, is under another update, cannot be updated in place, lost nodes, or has
            another dimension.
        ModelError: New vectors are NaN or zero, or were made from another model's than the index holds.
        ConfigError: An argument is not allowed.
        OutputError: The journal cannot be written, or holds another update.
    """
    _check(batch_size, missing)
    table = open_table(index, persist_dir=persist_dir)
    stamp = required_stamp(table)
    wanted = as_change(change, stamp, embed_model, cache)
    same = stamp.state == "ready" and wanted.target == stamp.model and not wanted.ids
    if same and not Path(journal).exists():
        return UpdateResult(stamp.model, stamp.model, 0, 0, 0, None)
    table.check_writable()
    header = Header(table.label, stamp.model, wanted.target, wanted.whole, table.dim())
    with UpdateJournal(journal, header) as book:
        _check_journal(book, header, stamp)
        if book.phase == "done" and stamp.model == wanted.target:
            return _result(book)
        if book.phase in ("planning", "done"):
            _plan(table, wanted, book, batch_size, missing)
        return _carry_out(table, book, wanted, batch_size, missing)


def plan_update(
    index: IndexLike,
    change: Mapping[str, Sequence[float]] | BaseEmbedding,
    *,
    embed_model: BaseEmbedding | None = None,
    batch_size: int = 512,
) -> UpdatePlan:
    """What `update_index` would do; writes nothing and embeds nothing.

    Args:
        index: See `update_index`.
        change: See `update_index`.
        embed_model: See `update_index`.
        batch_size: See `update_index`.

    Raises:
        EmbftError: As `update_index` would before it writes.
    """
    table = open_table(index)
    stamp = required_stamp(table)
    wanted = as_change(change, stamp, embed_model, None)
    if stamp.state == "ready" and wanted.target == stamp.model and not wanted.ids:
        return UpdatePlan(stamp.model, stamp.model, 0, 0, "nothing: the index holds this model's document vectors")
    table.check_writable()
    from llama_index_embft.index.changes import Embedded

    seen: set[str] = set()
    changed = 0
    for ids in _id_batches(table, wanted, batch_size):
        found = table.fetch(ids)
        here = [i for i in ids if i in found and i not in seen]
        seen.update(here)
        if here and not isinstance(wanted, Embedded):
            old = matrix(found, here)
            changed += int(
                _differ(old, check_new(table, wanted.vectors(table, here, old), stamp.dim, wanted.target)).sum()
            )
    embedded = isinstance(wanted, Embedded)
    return UpdatePlan(stamp.model, wanted.target, len(seen), None if embedded else changed, wanted.words)


def resume_update(
    index: IndexLike,
    journal: str | Path,
    *,
    persist_dir: str | Path | None = None,
    batch_size: int = 512,
    missing: Missing = "error",
) -> UpdateResult:
    """Finish a killed update from its journal; the model is not needed.

    Args:
        index: The index.
        journal: That of the update; the stamp names it.
        persist_dir: See `open_table`.
        batch_size: See `update_index`.
        missing: See `update_index`.

    Raises:
        StoreError: The journal belongs to another index, was killed before all new vectors were in it (the index is
            untouched then: call `update_index` again), or nodes were lost.
        OutputError: The journal cannot be opened.
    """
    _check(batch_size, missing)
    table = open_table(index, persist_dir=persist_dir)
    with require_journal(journal, table.label) as book:
        if book.phase == "planning":
            raise StoreError(
                f"The journal {book.path} does not hold all new vectors yet, and the index is untouched; call "
                "update_index again with the same arguments."
            )
        if book.phase in ("rolling back", "rolled back"):
            raise StoreError(
                f"The update of the journal {book.path} was taken back; call rollback_index to finish that."
            )
        if book.phase == "done" and required_stamp(table).model == book.header.target:
            return _result(book)
        return _carry_out(table, book, None, batch_size, missing)


def rollback_index(
    index: IndexLike,
    journal: str | Path,
    *,
    persist_dir: str | Path | None = None,
    batch_size: int = 512,
    missing: Missing = "error",
) -> UpdateResult:
    """Write the old vectors back, after an update or a killed one; killed itself, it is simply called again.

    Args:
        index: The index.
        journal: That of the update.
        persist_dir: See `open_table`.
        batch_size: See `update_index`.
        missing: Nodes that have left the index since the update: ``"error"`` or ``"skip"``.

    Raises:
        StoreError: The journal belongs to another index; nodes were lost, changed by somebody else, or, where the
            update changed the whole index, added since (their vectors are the new model's).
        OutputError: The journal cannot be opened.
    """
    _check(batch_size, missing)
    table = open_table(index, persist_dir=persist_dir)
    with require_journal(journal, table.label) as book:
        header, stamp = book.header, required_stamp(table)
        untouched = book.phase in ("planning", "rolled back") and stamp.state == "ready"
        if untouched and stamp.model == header.source:
            book.enter("rolled back")
            return _result(book, back=True)
        if stamp.state == "ready" and stamp.model not in (header.target, header.source):
            raise StoreError(
                f"{capital(table.label)} was embedded by {stamp.model} since, and the journal {book.path} takes back "
                f"an update to {header.target}; roll back the later update first."
            )
        table.check_writable()
        _refuse_added(table, book)
        book.enter("rolling back")
        table.write_stamp(Stamp(header.target, header.dim, "updating", header.source, str(book.path)))
        book.mark_all("written")  # a killed run may have written more than it has marked
        _write(table, book, batch_size, missing, back=True)
        table.write_stamp(Stamp(header.source, header.dim))
        book.enter("rolled back")
        return _result(book, back=True)


def _check(batch_size: int, missing: str) -> None:
    if batch_size < 1:
        raise ConfigError(f"`batch_size` must be at least 1, got {batch_size}.")
    if missing not in ("error", "skip"):
        raise ConfigError(f"`missing` must be 'error' or 'skip', got {missing!r}.")


def _check_journal(book: UpdateJournal, header: Header, stamp: Stamp) -> None:
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
        raise StoreError(
            f"{capital(known.label)} is under another update, to {stamp.target or stamp.model}; finish it, or take it "
            f"back, with its journal {stamp.journal}."
        )


def _id_batches(table: VectorTable, change: Change, size: int) -> Iterator[list[str]]:
    for start in range(0, len(change.ids), size):
        yield list(change.ids[start : start + size])
    if change.whole:
        yield from table.id_batches(size)


def _plan(table: VectorTable, change: Change, book: UpdateJournal, size: int, missing: Missing) -> int:
    """Put the new vectors of all nodes that are not in the journal into it; returns how many those were."""
    dim, planned = book.header.dim, 0
    for batch in _id_batches(table, change, size):
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
        book.plan(here, old, new, _differ(old, new))
        planned += len(here)
    return planned


def _carry_out(
    table: VectorTable, book: UpdateJournal, change: Change | None, size: int, missing: Missing
) -> UpdateResult:
    header = book.header
    if table.volatile or required_stamp(table).state == "ready":
        book.mark_all(
            "planned"
        )  # what was written into a killed process's memory, or before a backup came back, is gone
    book.enter("writing")
    table.write_stamp(Stamp(header.source, header.dim, "updating", header.target, str(book.path)))
    while True:
        _write(table, book, size, missing, back=False)
        added = header.whole and any(book.unknown(batch) for batch in table.id_batches(size))
        if not added:
            break
        if change is None:
            raise StoreError(
                f"Nodes were added to {table.label} since the update began; call update_index again, with the model."
            )
        _plan(table, change, book, size, missing)
    table.write_stamp(Stamp(header.target, header.dim))
    book.enter("done")
    return _result(book)


def _write(table: VectorTable, book: UpdateJournal, size: int, missing: Missing, *, back: bool) -> None:
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


def _present(table: VectorTable, book: UpdateJournal, rows: list[Row], missing: Missing) -> list[Row]:
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
        if _differ(now, row.old[None, :])[0] and _differ(now, row.new[None, :])[0]:
            raise StoreError(
                f"The vector of the node {row.node_id} of {table.label} is neither the old one nor the new one of the "
                f"update: somebody has written it since {book.path} was made; delete the node or put its vector back."
            )
    return here


def _refuse_added(table: VectorTable, book: UpdateJournal) -> None:
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


def _differ(old: NDArray[np.float32], new: NDArray[np.float32]) -> NDArray[np.bool_]:
    if old.shape != new.shape:
        return np.ones(len(new), dtype=np.bool_)
    differ: NDArray[np.bool_] = np.abs(old - new).max(axis=1) > _SAME
    return differ


def _result(book: UpdateJournal, *, back: bool = False) -> UpdateResult:
    header, counts = book.header, book.counts()
    source, target = (header.target, header.source) if back else (header.source, header.target)
    changed = counts["planned"] if back else counts["written"]
    return UpdateResult(source, target, changed, counts["same"], counts["lost"], book.path)
