"""Fifty SIGKILLs at random moments over one run leave no trace but a few repeated calls."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from loopback_llm import LoopbackLLM

SCRIPT = Path(__file__).resolve().parents[1] / "llm_server" / "killed_run.py"
KILLS, CHUNKS, WORKERS = 50, 700, 8


class Runs:
    """Runs of one generation, forked by a helper process."""

    def __init__(self, server: LoopbackLLM, output: Path, chunks: int = CHUNKS) -> None:
        command = [sys.executable, str(SCRIPT), server.api_base, str(output), str(chunks), str(WORKERS)]
        self._helper = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, command: str) -> int:
        assert self._helper.stdin is not None
        assert self._helper.stdout is not None
        self._helper.stdin.write(command + "\n")
        self._helper.stdin.flush()
        return int(self._helper.stdout.readline())

    def close(self) -> None:
        assert self._helper.stdin is not None
        self._helper.stdin.close()
        self._helper.wait(10)


def test_fifty_kills_end_in_the_same_bytes(serve: Callable[..., LoopbackLLM], tmp_path: Path) -> None:
    calm_server, server = serve(keep_requests=False), serve(latency=0.02, keep_requests=False)
    calm = Runs(calm_server, tmp_path / "calm.json")
    calm("start")
    dice = random.Random(1)
    storm = Runs(server, tmp_path / "storm.json")
    try:
        assert calm("wait") == 0
        kills, died_unfinished = 0, 0
        while kills < KILLS:
            before = server.count
            pid = storm("start")
            # Most lives end in the middle of asking, some while the journal is being opened or a snapshot written.
            if dice.random() < 0.2:
                time.sleep(dice.uniform(0.0, 0.2))
            deadline = time.monotonic() + 20
            asks_first = dice.random() < 0.8
            while asks_first and server.count == before and time.monotonic() < deadline:
                time.sleep(0.002)
            time.sleep(dice.uniform(0.0, 0.2))
            os.kill(pid, signal.SIGKILL)
            kills += 1
            died_unfinished += storm("wait") == signal.SIGKILL
        assert died_unfinished == KILLS  # else the run was over before the last kill: more chunks are needed
        answered_by_then = sum(server.answered.values())
        assert answered_by_then > KILLS  # the lives were long enough to get something done
        storm("start")
        assert storm("wait") == 0
    finally:
        storm.close()
        calm.close()
    assert (tmp_path / "storm.json").read_bytes() == (tmp_path / "calm.json").read_bytes()
    assert len(json.loads((tmp_path / "storm.json").read_text())["corpus"]) == CHUNKS
    repeated = server.count - len(server.asked)
    assert len(server.asked) == CHUNKS
    assert repeated <= KILLS * WORKERS
    with sqlite3.connect(tmp_path / "storm.journal.sqlite") as journal:
        assert journal.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert {path.name for path in tmp_path.iterdir()} <= {
        f"{name}{end}"
        for name in ("calm", "storm")
        for end in (".json", ".journal.sqlite", ".journal.sqlite-wal", ".journal.sqlite-shm")
    } | {path.name for path in tmp_path.glob(".embft-*.tmp")}


def test_two_processes_share_one_journal_while_they_run(serve: Callable[..., LoopbackLLM], tmp_path: Path) -> None:
    server = serve(latency=0.01, keep_requests=False)
    first, second = Runs(server, tmp_path / "data.json", 150), Runs(server, tmp_path / "data.json", 150)
    try:
        first("start")
        second("start")
        assert first("wait") == 0
        assert second("wait") == 0
    finally:
        first.close()
        second.close()
    with sqlite3.connect(tmp_path / "data.journal.sqlite") as journal:
        assert journal.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert journal.execute("SELECT count(*) FROM answers").fetchone() == (150,)
