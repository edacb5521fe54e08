"""Changing the document vectors of an index in place: in batches, resumable, and back again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from llama_index_embft._core.checks import check_choice, check_number
from llama_index_embft.index.canaries import canaries_of
from llama_index_embft.index.changes import ReembeddedVectors, as_change, check_new
from llama_index_embft.index.identity import refuse_earlier, required_stamp
from llama_index_embft.index.journal import UpdateHeader, UpdateJournal, require_journal
from llama_index_embft.index.stamp import Stamp, StoreError
from llama_index_embft.index.stores.base import matrix
from llama_index_embft.index.stores.opening import open_table
from llama_index_embft.index.transaction import (
    Missing,
    carry_out,
    change_batches,
    check_journal,
    check_latest,
    differ,
    plan_vectors,
    refuse_added,
    refuse_other_update,
    write_planned,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llama_index.core.base.embeddings.base import BaseEmbedding

    from llama_index_embft.embeddings.encoding.cache import EmbeddingCache
    from llama_index_embft.embeddings.identity import ModelIdentity
    from llama_index_embft.index.stores.opening import IndexLike


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
    identity: str | None = None,
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
            (nothing is embedded, unless the adapter needs lengths that the store has scaled away); or any other model
            of the same dimension, which embeds every text again.
        journal: File for the old and new vectors, see `journal`.
        embed_model: With vectors by node id: the model that makes the index's vectors from now on.
        persist_dir: See `open_table`.
        batch_size: Vectors a batch; 512 are about 1 MB and a transaction.
        missing: Nodes that are listed and not, or no longer, in the index: ``"error"`` or ``"skip"``.
        cache: For embedding texts, see `as_encoder`.
        identity: Of the new model, see `stamp_index`.

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
    refuse_earlier(table, stamp)
    wanted = as_change(change, table, stamp, embed_model, cache, identity)
    same = stamp.state == "ready" and wanted.target == stamp.model and not wanted.ids
    if same and not Path(journal).exists():
        return UpdateResult(stamp.model, stamp.model, 0, 0, 0, None)
    table.check_writable()
    table.prepare()
    header = UpdateHeader(table.label, stamp.model, wanted.target, wanted.whole, table.dim())
    with UpdateJournal(journal, header) as book:
        check_journal(book, header, stamp)
        if book.phase == "done" and stamp.model == wanted.target:
            return _result(book)
        if book.phase in ("planning", "done"):
            plan_vectors(table, wanted, book, batch_size, missing)
        model = embed_model if isinstance(change, Mapping) else change
        canaries = () if model is None else canaries_of(model, stamp.canaries, identity=identity)
        carry_out(table, book, wanted, batch_size, missing, canaries)
        return _result(book)


def plan_update(
    index: IndexLike,
    change: Mapping[str, Sequence[float]] | BaseEmbedding,
    *,
    embed_model: BaseEmbedding | None = None,
    batch_size: int = 512,
    identity: str | None = None,
) -> UpdatePlan:
    """What `update_index` would do; writes nothing and embeds nothing.

    Args:
        index: See `update_index`.
        change: See `update_index`.
        embed_model: See `update_index`.
        batch_size: See `update_index`.
        identity: See `update_index`.

    Raises:
        EmbftError: As `update_index` would before it writes.
    """
    check_number("batch_size", batch_size, at_least=1)
    table = open_table(index)
    stamp = required_stamp(table)
    refuse_earlier(table, stamp)
    wanted = as_change(change, table, stamp, embed_model, None, identity)
    if stamp.state == "ready" and wanted.target == stamp.model and not wanted.ids:
        return UpdatePlan(stamp.model, stamp.model, 0, 0, "nothing: the index holds this model's document vectors")
    refuse_other_update(table.label, stamp, wanted.target)
    table.check_writable()
    seen: set[str] = set()
    changed = 0
    for ids in change_batches(table, wanted, batch_size):
        found = table.fetch(ids)
        here = [i for i in ids if i in found and i not in seen]
        seen.update(here)
        if here and not isinstance(wanted, ReembeddedVectors):
            old = matrix(found, here)
            changed += int(
                differ(old, check_new(table, wanted.vectors(table, here, old), stamp.dim, wanted.target)).sum()
            )
    embedded = isinstance(wanted, ReembeddedVectors)
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
        StoreError: The journal belongs to another index or to an update before the last one, was killed before all new
            vectors were in it (the index is untouched then: call `update_index` again), or nodes were lost.
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
        stamp = required_stamp(table)
        check_latest(book, stamp)
        if book.phase == "done" and stamp.state == "ready" and stamp.model == book.header.target:
            return _result(book)
        carry_out(table, book, None, batch_size, missing)
        return _result(book)


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
        StoreError: The journal belongs to another index or to an update before the last one; nodes were lost, changed
            by somebody else, or, where the update changed the whole index, added since (their vectors are the new
            model's).
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
        check_latest(book, stamp)
        table.check_writable()
        table.prepare()
        refuse_added(table, book)
        book.enter("rolling back")
        table.write_stamp(Stamp(header.target, header.dim, "updating", header.source, str(book.path), stamp.canaries))
        book.mark_all("written")  # a killed run may have written more than it has marked
        write_planned(table, book, batch_size, missing, back=True)
        table.write_stamp(Stamp(header.source, header.dim, canaries=stamp.canaries))
        book.enter("rolled back")
        return _result(book, back=True)


def _check(batch_size: int, missing: str) -> None:
    check_number("batch_size", batch_size, at_least=1)
    check_choice("missing", missing, get_args(Missing))


def _result(book: UpdateJournal, *, back: bool = False) -> UpdateResult:
    header, counts = book.header, book.counts()
    source, target = (header.target, header.source) if back else (header.source, header.target)
    changed = counts["planned"] if back else counts["written"]
    return UpdateResult(source, target, changed, counts["same"], counts["lost"], book.path)
