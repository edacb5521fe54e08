"""The journal keeps what it was given, whatever is killed, shared, full or broken."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from llama_index_embft.calls.journal import Journal, RequestIdentity, StoredAnswer
from llama_index_embft.errors import OutputError


def identity(key: str, *, text: str = "t", prompt: str = "p", model: str = "m") -> RequestIdentity:
    return RequestIdentity("questions", key, text, prompt, model)


def put(journal: Journal, key: str, payload: object = "x", **parts: str) -> None:
    asyncio.run(journal.put(identity(key, **parts), StoredAnswer(payload, 3, 4)))


def test_an_answer_comes_back_after_reopening(tmp_path: Path) -> None:
    with Journal(tmp_path / "new" / "j.sqlite") as journal:
        put(journal, "a", [["问题？", "答案"]])
    with Journal(tmp_path / "new" / "j.sqlite") as journal:
        assert journal.get("a") == StoredAnswer([["问题？", "答案"]], 3, 4)
        assert "a" in journal
        assert "b" not in journal
        assert journal.get("b") is None


def test_the_first_answer_stays(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.sqlite") as journal:
        put(journal, "a", "first")
        put(journal, "a", "second")
        assert journal.get("a") == StoredAnswer("first", 3, 4)


def test_failures_are_listed_until_answered(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.sqlite") as journal:
        asyncio.run(journal.put_failure(identity("a"), "HTTP 500"))
        assert list(journal.failures()) == [("a", "HTTP 500")]
        assert "a" not in journal
        put(journal, "a")
        assert list(journal.failures()) == []


def test_it_knows_why_a_passage_must_be_asked_again(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.sqlite") as journal:
        put(journal, "a")
        assert journal.answered_otherwise(identity("b", prompt="p2")) == "prompt"
        assert journal.answered_otherwise(identity("b", model="m2")) == "model"
        assert journal.answered_otherwise(identity("b", text="t2")) is None


def test_a_temporary_journal_leaves_nothing() -> None:
    with Journal() as journal:
        put(journal, "a")
        path = journal.path
        assert path.exists()
    assert not path.parent.exists()


def test_many_writers_at_once_are_all_stored(tmp_path: Path) -> None:
    async def write_all(journal: Journal) -> None:
        await asyncio.gather(*(journal.put(identity(str(n)), StoredAnswer(n, 0, 0)) for n in range(500)))

    with Journal(tmp_path / "j.sqlite") as journal:
        asyncio.run(write_all(journal))
        assert all(journal.get(str(n)) == StoredAnswer(n, 0, 0) for n in range(500))


def test_a_cancelled_writer_still_writes(tmp_path: Path) -> None:
    async def cancelled(journal: Journal) -> None:
        task = asyncio.create_task(journal.put(identity("a"), StoredAnswer("paid for", 0, 0)))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    with Journal(tmp_path / "j.sqlite") as journal:
        asyncio.run(cancelled(journal))
    with Journal(tmp_path / "j.sqlite") as journal:
        assert journal.get("a") == StoredAnswer("paid for", 0, 0)


def test_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database, certainly not one " * 100)
    with pytest.raises(OutputError, match=r"Cannot open the journal.*choose another `journal_path`"):
        Journal(tmp_path / "text")
    with sqlite3.connect(tmp_path / "other.sqlite") as other:
        other.execute("CREATE TABLE mine (x)")
    with pytest.raises(OutputError, match="an SQLite file of something else"):
        Journal(tmp_path / "other.sqlite")
    with pytest.raises(OutputError, match="Cannot open the journal"):
        Journal(tmp_path)


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    Journal(tmp_path / "j.sqlite").close()
    with sqlite3.connect(tmp_path / "j.sqlite") as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(OutputError, match="newer llama-index-embft"):
        Journal(tmp_path / "j.sqlite")


def test_a_failing_disk_is_reported_and_later_writes_work_again(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.sqlite") as journal:
        put(journal, "a")
        lock = sqlite3.connect(tmp_path / "j.sqlite", isolation_level=None)
        # A trigger stands in for the disk: it fails in the middle of the transaction.
        lock.execute("CREATE TRIGGER full BEFORE INSERT ON answers BEGIN SELECT RAISE(ABORT, 'disk is full'); END")
        with pytest.raises(OutputError, match="disk is full; free some space"):
            put(journal, "b")
        lock.execute("DROP TRIGGER full")
        put(journal, "c")
        assert "b" not in journal
        assert "c" in journal


_WRITER = textwrap.dedent("""
    import asyncio, sys
    from llama_index_embft.calls.journal import StoredAnswer, RequestIdentity, Journal
    async def main(name):
        with Journal(sys.argv[1]) as journal:
            for n in range(int(sys.argv[2])):
                await journal.put(RequestIdentity("t", f"{n}", "t", "p", "m"), StoredAnswer(name, 0, 0))
                await journal.put(RequestIdentity("t", f"{name}-{n}", "t", "p", "m"), StoredAnswer(name, 0, 0))
                sys.stdout.write(f"{n}\\n"); sys.stdout.flush()
    asyncio.run(main(sys.argv[3]))
""")


def _writer(path: Path, count: int, name: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(path), str(count), name], stdout=subprocess.PIPE, text=True
    )


def test_processes_share_one_journal_from_its_first_moment(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    writers = [_writer(path, 60, name) for name in "abc"]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    with Journal(path) as journal:
        assert all(f"{name}-{n}" in journal for name in "abc" for n in range(60))
        winners = {journal.get(str(n)).payload for n in range(60)}  # type: ignore[union-attr]
        assert winners <= set("abc")
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_what_put_has_returned_for_survives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    writer = _writer(path, 100_000, "a")
    assert writer.stdout is not None
    seen = [writer.stdout.readline() for _ in range(50)]
    os.kill(writer.pid, signal.SIGKILL)
    seen += writer.stdout.readlines()
    writer.wait()
    complete = [int(line) for line in seen if line.endswith("\n")]
    with Journal(path) as journal:
        assert all(f"a-{n}" in journal for n in complete)


def test_opening_does_not_fail_while_another_thread_writes(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    stop, written, opened = threading.Event(), 0, 0

    def write() -> None:
        nonlocal written
        with Journal(path) as journal:
            while not stop.is_set():
                put(journal, str(written))
                written += 1

    thread = threading.Thread(target=write)
    thread.start()
    try:
        deadline = time.monotonic() + 0.5
        while time.monotonic() < deadline or not (opened and written):
            Journal(path).close()
            opened += 1
            assert time.monotonic() < deadline + 60
    finally:
        stop.set()
        thread.join()
    with Journal(path) as journal:  # and what was written meanwhile is all there
        assert all(str(n) in journal for n in range(written))
