"""The journal: every answer of the LLM, on disk before the next question is asked.

One SQLite file in WAL mode. An answer is stored under a hash of everything that led to it, so a run that was killed
asks only for what is missing, and two runs on one file share their work: the first answer to a question stays.
No text of a passage and no key of a server is in it; passages are known by their hash.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import queue
import sqlite3
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from llama_index_embft._core.temporary import scratch_folder
from llama_index_embft.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Self

logger = logging.getLogger(__name__)

_VERSION: Final = 1
_APPLICATION_ID: Final = 0x656D6266  # "embf": tells our journals from other SQLite files
_SCHEMA: Final = (
    """CREATE TABLE answers (
    key TEXT PRIMARY KEY, task TEXT NOT NULL, text_hash TEXT NOT NULL, prompt_hash TEXT NOT NULL, model TEXT NOT NULL,
    payload TEXT NOT NULL, prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, stored_at REAL NOT NULL
    ) WITHOUT ROWID""",
    "CREATE INDEX answers_by_text ON answers (task, text_hash)",
    """CREATE TABLE failures (
    key TEXT PRIMARY KEY, task TEXT NOT NULL, reason TEXT NOT NULL, stored_at REAL NOT NULL
    ) WITHOUT ROWID""",
    "CREATE TRIGGER answered AFTER INSERT ON answers BEGIN DELETE FROM failures WHERE key = new.key; END",
)
# Table -> how rows are added: the first answer stays, the last failure is kept.
_INSERT: Final = {
    "answers": "INSERT OR IGNORE INTO answers VALUES ",
    "failures": "INSERT OR REPLACE INTO failures VALUES ",
}
_ROWS_A_STATEMENT: Final = 100  # old SQLite takes 999 parameters
# Two processes commit in turn; a commit takes milliseconds, so waiting this long means that something hangs.
_BUSY_SECONDS: Final = 60.0


@dataclass(frozen=True)
class RequestIdentity:
    """What an answer depends on.

    Attributes:
        task: What was asked for, such as ``"questions"`` or ``"judge"``.
        key: SHA-256 (hex) over task, text, prompt, model and settings.
        text_hash: Hash of the passage.
        prompt_hash: Hash of the prompt without the passage.
        model: Name of the model with the settings that change its answers.
    """

    task: str
    key: str
    text_hash: str
    prompt_hash: str
    model: str

    @classmethod
    def of(cls, task: str, *texts: str, prompt: str, model: str) -> RequestIdentity:
        """Form the identity of a request.

        Args:
            task: What is asked for.
            *texts: What it is asked about, such as a passage, or a query and a passage.
            prompt: The prompt without these texts, and how the answer is to be given.
            model: See `asking.model_identity`.
        """
        # The lengths keep ("ab", "c") and ("a", "bc") apart.
        text_hash = sha256("".join(f"{len(text)}:{text}" for text in texts[:-1]) + texts[-1])
        prompt_hash = sha256(prompt)
        key = sha256("\n".join((task, text_hash, prompt_hash, model)))
        return cls(task, key, text_hash, prompt_hash, model)


class StoredAnswer(NamedTuple):
    """One stored answer: parsed content, and the tokens that it took."""

    payload: Any
    prompt_tokens: int
    completion_tokens: int


def sha256(text: str) -> str:
    """SHA-256 (hex) of a text, of broken Unicode too."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class Journal:
    """Stored answers, open for reading and appending; use as a context manager.

    Writes go through one thread that commits whatever has gathered in one transaction and syncs it to the disk, so
    that 32 workers do not wait for 32 syncs. `put` returns when the answer is safe.

    Args:
        path: The file, made if missing; None for a temporary one that `close` deletes.

    Raises:
        OutputError: The file is no journal, was made by a newer version, or cannot be written.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self._temporary = ExitStack()
        self.path = (
            Path(self._temporary.enter_context(scratch_folder()), "journal.sqlite") if path is None else Path(str(path))
        )
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._reader = self._open()
        except (OSError, sqlite3.Error) as err:
            raise OutputError(f"Cannot open the journal {self.path}: {err}; choose another `journal_path`.") from err
        self._read_lock = threading.Lock()
        self._inbox: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._died: BaseException | None = None
        self._in_hand: list[_Write] = []  # read from the inbox and not yet reported on
        self._thread = threading.Thread(target=self._run_writer, name="embft-journal", daemon=True)
        self._thread.start()

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            with _immediate(connection):  # two processes may make the file at the same time
                found = connection.execute("PRAGMA application_id").fetchone()[0]
                tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
                version = connection.execute("PRAGMA user_version").fetchone()[0]
                if tables and found != _APPLICATION_ID:
                    raise OutputError(
                        f"{self.path} is an SQLite file of something else, not a generation journal; choose another "
                        "`journal_path`."
                    )
                if version > _VERSION:
                    raise OutputError(f"The journal {self.path} was made by a newer llama-index-embft; upgrade it.")
                if not tables:
                    for statement in _SCHEMA:
                        connection.execute(statement)
                    connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                    connection.execute(f"PRAGMA user_version = {_VERSION}")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")  # a commit survives a power cut, not only a kill
        except BaseException:
            connection.close()
            raise
        return connection

    def absorb(self, path: Path) -> None:
        """Take over the answers of another journal, such as one that an earlier version put beside the output."""
        if not path.is_file() or path.samefile(self.path):
            return
        with Journal(path) as other:
            rows = other._query("SELECT * FROM answers", ()).fetchall()
        with self._read_lock:
            self._reader.executemany(f"{_INSERT['answers']}({', '.join('?' * 9)})", rows)

    def get(self, key: str, valid: Callable[[Any], bool] = lambda _: True) -> StoredAnswer | None:
        """Look an answer up; None if it is missing, or damaged: that one is taken out, and asked for again.

        Args:
            key: Of its request.
            valid: Whether content is such as a request of this kind stores.
        """
        row = self._query(
            "SELECT payload, prompt_tokens, completion_tokens FROM answers WHERE key = ?", (key,)
        ).fetchone()
        if row is None:
            return None
        try:
            counts = [count for count in row[1:] if isinstance(count, int) and count >= 0]
            answer = StoredAnswer(json.loads(row[0]), *counts)
        except (TypeError, ValueError, RecursionError):
            answer = None
        if answer is not None and valid(answer.payload):
            return answer
        logger.warning("The journal %s has a damaged answer; it will be asked again.", self.path)
        self._query("DELETE FROM answers WHERE key = ?", (key,))
        return None

    def __contains__(self, key: str) -> bool:
        return self.get(key) is not None

    def answered_otherwise(self, identity: RequestIdentity) -> str | None:
        """Say why a passage that was answered before has to be asked again: ``"prompt"``, ``"model"`` or None."""
        rows = self._query(
            "SELECT DISTINCT prompt_hash, model FROM answers WHERE task = ? AND text_hash = ?",
            (identity.task, identity.text_hash),
        ).fetchall()
        if not rows:
            return None
        return "prompt" if any(model == identity.model for _, model in rows) else "model"

    def failures(self) -> Iterator[tuple[str, str]]:
        """Key and reason of every question that is still without an answer."""
        yield from self._query("SELECT key, reason FROM failures ORDER BY key", ()).fetchall()

    async def put(self, identity: RequestIdentity, answer: StoredAnswer) -> None:
        """Store an answer, unless another process was faster; returns when it is on disk.

        Raises:
            OutputError: The disk is full or read-only.
        """
        payload = json.dumps(answer.payload)  # ASCII: half a surrogate pair is no text that SQLite takes
        values = (identity.key, identity.task, identity.text_hash, identity.prompt_hash, identity.model, payload)
        await self._write("answers", (*values, *answer[1:], time.time()))

    async def put_failure(self, identity: RequestIdentity, reason: str) -> None:
        """Record that a question got no answer, and why; the next run asks it again."""
        reason = reason.encode("utf-8", "replace").decode("utf-8")
        values = (identity.key, identity.task, reason, time.time())
        await self._write("failures", values)

    def close(self) -> None:
        """Finish pending writes and close; a temporary journal is deleted."""
        self._inbox.put(None)
        self._thread.join()
        self._reader.close()
        self._temporary.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close()

    def _query(self, statement: str, values: tuple[Any, ...]) -> sqlite3.Cursor:
        with self._read_lock:
            try:
                return self._reader.execute(statement, values)
            except sqlite3.Error as err:
                raise OutputError(f"Cannot read the journal {self.path}: {err}.") from err

    async def _write(self, table: str, row: tuple[Any, ...]) -> None:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._inbox.put(_Write(table, row, loop, done))
        if self._died is not None:
            self._refuse_waiting()
        # A cancelled worker must not lose an answer that was paid for: the thread writes it all the same.
        await asyncio.shield(done)

    def _run_writer(self) -> None:
        try:
            self._write_all()
        except BaseException as err:  # noqa: BLE001 - out of memory, an interpreter that shuts down: nobody may wait on
            self._died = err
            self._refuse_waiting()

    def _refuse_waiting(self) -> None:
        error = OutputError(f"The journal {self.path} cannot be written any more: {self._died!r}. Run again to go on.")
        for write in [*self._in_hand, *self._drain()]:
            write.report(error)

    def _drain(self) -> Iterator[_Write]:
        while True:
            try:
                write = self._inbox.get_nowait()
            except queue.Empty:
                return
            if write is not None:
                yield write

    def _write_all(self) -> None:
        connection: sqlite3.Connection | None = None
        finished = False
        while not finished:
            batch, finished = self._gather()
            self._in_hand = batch
            for part in _parts(batch):
                error: OutputError | None = None
                try:
                    connection = connection or self._open()
                    # One statement is one transaction. BEGIN, INSERT and COMMIT would each have to wait for the
                    # interpreter lock, which costs more than the sync when the event loop is busy.
                    places = f"({', '.join('?' * len(part[0].row))})"
                    connection.execute(
                        _INSERT[part[0].table] + ", ".join([places] * len(part)),
                        [value for write in part for value in write.row],
                    )
                except Exception as err:  # noqa: BLE001 - whoever waits for this write must hear of it, whatever it is
                    error = OutputError(
                        f"Cannot write the journal {self.path}: {err}; free some space or choose another place. "
                        "Answers stored so far are safe."
                    )
                for write in part:
                    write.report(error)
            self._in_hand = []
        if connection is not None:
            connection.close()

    def _gather(self) -> tuple[list[_Write], bool]:
        """Wait for one write and take all that wait with it; True when the journal is being closed."""
        batch: list[_Write] = []
        item = self._inbox.get()
        while item is not None:
            batch.append(item)
            try:
                item = self._inbox.get_nowait()
            except queue.Empty:
                return batch, False
        return batch, True


def _parts(batch: list[_Write]) -> Iterator[list[_Write]]:
    """Writes that fit into one statement each."""
    for table in _INSERT:
        rows = [write for write in batch if write.table == table]
        for start in range(0, len(rows), _ROWS_A_STATEMENT):
            yield rows[start : start + _ROWS_A_STATEMENT]


@dataclass
class _Write:
    table: str
    row: tuple[Any, ...]
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[None]

    def report(self, error: OutputError | None) -> None:
        with suppress(RuntimeError):  # the loop was closed: nobody waits any more
            self.loop.call_soon_threadsafe(self._settle, error)

    def _settle(self, error: OutputError | None) -> None:
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)


class _immediate:  # noqa: N801 - reads as a statement
    """A transaction that takes the write lock at once, so that it waits instead of failing half-way."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            try:
                self._connection.execute("COMMIT")
            except sqlite3.Error:
                self._roll_back()  # or the next BEGIN would find this transaction still open
                raise
        else:
            self._roll_back()

    def _roll_back(self) -> None:
        with suppress(sqlite3.Error):  # SQLite rolls back by itself after some errors
            self._connection.execute("ROLLBACK")
