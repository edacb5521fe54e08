"""The journal of an update: old and new vectors, on disk before the index is touched.

One SQLite file. A killed update is finished from it, or taken back, without the model and without embedding anything
again. It holds 8 bytes a dimension and changed vector: 3 GB for a million vectors of 384 dimensions.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeVar, cast, get_args

import numpy as np

from llama_index_embft._core.checks import first_line
from llama_index_embft.embeddings.identity import ModelIdentity
from llama_index_embft.errors import EmbftError, OutputError
from llama_index_embft.index.stamp import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from typing_extensions import Self

Phase = Literal["planning", "writing", "done", "rolling back", "rolled back"]
_APPLICATION_ID: Final = 0x656D6269  # "embi": tells our journals from other SQLite files
_VERSION: Final = 1
_BUSY_SECONDS: Final = 1.0
_IDS_A_SELECT: Final = 500  # SQLite's historic limit on parameters is 999
_PLANNED, _WRITTEN, _SAME, _LOST = 0, 1, 2, 3


Method = TypeVar("Method", bound=Callable[..., Any])


def _guarded(method: Method) -> Method:
    """The boundary of the journal: damage, a full disk or a lost lock become one sentence."""

    @wraps(method)
    def call(self: UpdateJournal, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        except (sqlite3.Error, KeyError, ValueError, TypeError, OverflowError) as err:
            raise OutputError(
                f"The journal {self.path} cannot be read or written ({first_line(err)}); free some space if the disk "
                "is full, and if the file is damaged restore it, or build the index again."
            ) from err

    return cast("Method", call)


class ChangedVector(NamedTuple):
    """A vector that changes, shapes ``(dim,)``."""

    node_id: str
    old: NDArray[np.float32]
    new: NDArray[np.float32]


@dataclass(frozen=True)
class UpdateHeader:
    """What an update is about.

    Attributes:
        label: The index.
        source: Whose vectors it holds before.
        target: Whose vectors it holds after.
        whole: Whether every vector of the index belongs to the update, or only those listed.
        dim: Dimension.
    """

    label: str
    source: ModelIdentity
    target: ModelIdentity
    whole: bool
    dim: int


class UpdateJournal:
    """An open journal; a context manager. It is locked, so that two processes cannot run one update at once.

    Args:
        path: The file.
        header: Makes the file if it does not exist; None opens an existing one.

    Raises:
        OutputError: It cannot be opened, is something else, is in use, or does not exist and no header is given.
    """

    def __init__(self, path: str | Path, header: UpdateHeader | None = None) -> None:
        self.path = Path(path).absolute()
        try:
            if header is None and not self.path.is_file():
                raise OutputError(f"There is no journal {self.path}; give the path that the update was started with.")
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self.path, timeout=_BUSY_SECONDS)
            self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
            self._db.execute("PRAGMA synchronous=FULL")  # what is in the journal must survive a power cut
            self._db.execute("BEGIN EXCLUSIVE")
            self._prepare(header)
            self._db.commit()
        except EmbftError:
            raise
        except (OSError, ValueError, sqlite3.Error) as err:
            advice = "another process is using it" if "locked" in str(err) else "give another path"
            raise OutputError(f"Cannot open the journal {self.path} ({err}): {advice}.") from err

    def _prepare(self, header: UpdateHeader | None) -> None:
        found = self._db.execute("PRAGMA application_id").fetchone()[0]
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        tables = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if (tables and found != _APPLICATION_ID) or (not tables and header is None):
            raise OutputError(f"{self.path} is not the journal of an update; give another path.")
        if version > _VERSION:
            raise OutputError(f"The journal {self.path} was made by a newer llama-index-embft; upgrade it.")
        if tables:
            return
        assert header is not None
        self._db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        self._db.execute(f"PRAGMA user_version = {_VERSION}")
        self._db.execute("CREATE TABLE header (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
        self._db.execute(
            "CREATE TABLE vectors (seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, old BLOB, new BLOB, "
            "state INTEGER NOT NULL)"
        )
        self._db.execute("CREATE INDEX by_state ON vectors (state, seq)")
        values = {
            "label": header.label,
            "source": header.source.fingerprint,
            "source_name": header.source.name,
            "target": header.target.fingerprint,
            "target_name": header.target.name,
            "whole": str(int(header.whole)),
            "dim": str(header.dim),
            "phase": "planning",
        }
        self._db.executemany("INSERT INTO header VALUES (?, ?)", values.items())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and give its lock back."""
        self._db.close()

    @property
    @_guarded
    def header(self) -> UpdateHeader:
        """What the update is about."""
        found = dict(self._db.execute("SELECT key, value FROM header"))
        if not all(isinstance(value, str) for value in found.values()) or int(found["dim"]) < 1:
            raise ValueError("a header that is none")
        return UpdateHeader(
            label=found["label"],
            source=ModelIdentity(found["source"], found["source_name"]),
            target=ModelIdentity(found["target"], found["target_name"]),
            whole=found["whole"] == "1",
            dim=int(found["dim"]),
        )

    @property
    @_guarded
    def phase(self) -> Phase:
        """How far the update is."""
        phase: Phase = self._db.execute("SELECT value FROM header WHERE key = 'phase'").fetchone()[0]
        if phase not in get_args(Phase):
            raise ValueError(f"an unknown phase {phase!r}")
        return phase

    @_guarded
    def enter(self, phase: Phase) -> None:
        """Note that a phase begins."""
        with self._db:
            self._db.execute("UPDATE header SET value = ? WHERE key = 'phase'", (phase,))

    @_guarded
    def unknown(self, ids: Sequence[str]) -> list[str]:
        """Those ids that are not in the journal yet, in order."""
        known: set[str] = set()
        for start in range(0, len(ids), _IDS_A_SELECT):
            part = ids[start : start + _IDS_A_SELECT]
            marks = ",".join("?" * len(part))
            known.update(row[0] for row in self._db.execute(f"SELECT id FROM vectors WHERE id IN ({marks})", part))  # noqa: S608
        return [node_id for node_id in ids if node_id not in known]

    @_guarded
    def plan(
        self, ids: Sequence[str], old: NDArray[np.float32], new: NDArray[np.float32], changed: NDArray[np.bool_]
    ) -> None:
        """Add a batch in one transaction.

        Args:
            ids: Node ids.
            old: Their vectors in the index, shape ``(len(ids), dim)``.
            new: What they are to be, same shape.
            changed: Shape ``(len(ids),)``: which of them differ. The others are noted without their vectors.
        """
        rows = [
            (node_id, _blob(before), _blob(after), _PLANNED) if differs else (node_id, None, None, _SAME)
            for node_id, before, after, differs in zip(ids, old, new, changed, strict=True)
        ]
        with self._db:
            self._db.executemany("INSERT INTO vectors (id, old, new, state) VALUES (?, ?, ?, ?)", rows)

    def batches(self, size: int, *, written: bool = False) -> Iterator[list[ChangedVector]]:
        """Rows that wait to be written, or those that were, in the order of the index; marking them is allowed."""
        state, last = _WRITTEN if written else _PLANNED, 0
        while found := self._read(state, last, size):
            last = found[-1][0]
            yield [row for _, row in found]

    @_guarded
    def _read(self, state: int, last: int, size: int) -> list[tuple[int, ChangedVector]]:
        found = self._db.execute(
            "SELECT seq, id, old, new FROM vectors WHERE state = ? AND seq > ? ORDER BY seq LIMIT ?",
            (state, last, size),
        ).fetchall()
        dim = self.header.dim
        return [
            (int(seq), ChangedVector(_text(node_id), _vector(old, dim), _vector(new, dim)))
            for seq, node_id, old, new in found
        ]

    @_guarded
    def mark(self, ids: Sequence[str], state: Literal["planned", "written", "lost"]) -> None:
        """Note what became of rows, in one transaction."""
        number = {"planned": _PLANNED, "written": _WRITTEN, "lost": _LOST}[state]
        with self._db:
            self._db.executemany("UPDATE vectors SET state = ? WHERE id = ?", [(number, i) for i in ids])

    @_guarded
    def mark_all(self, state: Literal["planned", "written"]) -> None:
        """The same for all rows that change and are not lost."""
        numbers = (_PLANNED, _WRITTEN) if state == "planned" else (_WRITTEN, _PLANNED)
        with self._db:
            self._db.execute("UPDATE vectors SET state = ? WHERE state = ?", numbers)

    @_guarded
    def counts(self) -> dict[str, int]:
        """Rows that are ``planned`` (to be written), ``written``, the ``same`` as before, ``lost`` from the index."""
        found = dict(self._db.execute("SELECT state, count(*) FROM vectors GROUP BY state"))
        names = {"planned": _PLANNED, "written": _WRITTEN, "same": _SAME, "lost": _LOST}
        return {name: found.get(number, 0) for name, number in names.items()}


def require_journal(path: str | Path, label: str) -> UpdateJournal:
    """Open an existing journal and make sure that it belongs to an index.

    Raises:
        OutputError: It cannot be opened.
        StoreError: It belongs to another index.
    """
    journal = UpdateJournal(path)
    try:
        other = journal.header.label
    except OutputError:
        journal.close()
        raise
    if other != label:
        journal.close()
        raise StoreError(f"The journal {path} belongs to {other}, not to {label}; give the right one.")
    return journal


def _blob(vector: NDArray[np.float32]) -> bytes:
    return np.ascontiguousarray(vector, dtype="<f4").tobytes()


def _vector(blob: Any, dim: int) -> NDArray[np.float32]:
    if not isinstance(blob, bytes) or len(blob) != 4 * dim:
        raise ValueError(f"a vector that has not {dim} dimensions")
    return np.frombuffer(blob, dtype="<f4")


def _text(node_id: Any) -> str:
    if not isinstance(node_id, str):
        raise TypeError("a node id that is no text")
    return node_id
