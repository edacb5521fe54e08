"""The soak holds in a short run, and its verdict falls on whatever leaks, grows, slows down, is lost or differs."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def soak(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("soak")


def sample(n: int) -> dict[str, Any]:
    """What a look finds where all is well: n half minutes after the start."""
    grown = {"retrieval.jsonl": 900, "interleaved.jsonl": 140, "judge.sqlite": 100, "trulens.sqlite": 1_000}
    return {
        "seconds": 30.0 * n,
        "resident_mib": 850.0 + (n % 3) / 10,
        "open_files": 29 - n % 2,
        "threads": 27,
        "files": 6,
        "bytes": {name: 600 * n * size for name, size in grown.items()} | {"judge.sqlite-wal": 4_000_000},
        "answered": 600 * n,
        "errors": 0,
        "scored": 60 * n,
        "waiting": 0,
        "processor_seconds": 10.0 * n,
    }


COUNTS = {
    **dict.fromkeys(("retrievals", "retrievals in the log"), 4_000),
    **dict.fromkeys(("clicks", "clicks in the log"), 2_000),
    **dict.fromkeys(("interleaved", "interleaved in the log", "interleaved with clicks"), 700),
    **dict.fromkeys(("answers", "answers seen"), 1_500),
    **dict.fromkeys(("scored", "records in the database"), 140),
    **dict.fromkeys(("sampled", "scored or dropped"), 150),
    **dict.fromkeys(("questions to the judge", "answers in the journal"), 900),
    **dict.fromkeys(("different answers", "errors", "failed"), 0),
}


def failing(
    soak: Any, change: Callable[[int, dict[str, Any]], None] = lambda n, found: None, **counts: int
) -> list[str]:
    """Lines of the verdict that do not hold, after a change to each sample and to the counts."""
    samples = [sample(n) for n in range(1, 41)]
    for n, found in enumerate(samples):
        change(n, found)
    return [row["what"] for row in soak.verdict(samples, COUNTS | counts) if not row["holds"]]


def test_a_run_where_all_is_well_holds(soak):
    assert failing(soak) == []


@pytest.mark.parametrize(
    ("key", "a_look", "line"),
    [
        ("resident_mib", 0.5, "memory added in the second half, MiB"),  # 900 bytes a question
        ("open_files", 0.2, "open files, last quarter"),
        ("threads", 0.2, "threads, last quarter"),
        ("files", 0.2, "files on disk, last quarter"),
    ],
)
def test_what_leaks_slowly_is_found(soak, key, a_look, line):
    def leak(n: int, found: dict[str, Any]) -> None:
        found[key] += a_look * n if key == "resident_mib" else int(a_look * n)

    assert failing(soak, leak) == [line]


def test_what_grows_faster_than_the_work_is_found(soak):
    def slower(n: int, found: dict[str, Any]) -> None:
        found["processor_seconds"] += 0.3 * n * n

    def larger(n: int, found: dict[str, Any]) -> None:
        found["bytes"]["retrieval.jsonl"] += 10_000 * n * n

    assert failing(soak, slower) == ["processor ms a question, second half"]
    assert failing(soak, larger) == ["retrieval.jsonl, bytes for each question, second half"]
    assert failing(soak, lambda _, found: found["bytes"].update({"judge.sqlite-wal": 6_000_000})) == [
        "judge.sqlite-wal at its largest, bytes"
    ]


@pytest.mark.parametrize(
    ("lost", "line"),
    [
        ("retrievals in the log", "retrievals in the log"),
        ("clicks in the log", "clicks in the log"),
        ("interleaved in the log", "interleaved answers in the log"),
        ("answers seen", "answers that the scorer saw"),
        ("records in the database", "records in the database"),
        ("answers in the journal", "answers in the journal"),
        ("scored or dropped", "live answers scored, or dropped by a full queue"),
    ],
)
def test_one_that_is_lost_is_found(soak, lost, line):
    assert failing(soak, **{lost: COUNTS[lost] - 1}) == [line]


@pytest.mark.parametrize("wrong", ["different answers", "errors", "failed"])
def test_one_answer_that_is_wrong_is_found(soak, wrong):
    assert failing(soak, **{wrong: 1}) == [wrong]


def test_ten_seconds_of_traffic_lose_nothing_and_answer_alike():
    pytest.importorskip("trulens.feedback", reason="extra trulens")
    command = [sys.executable, str(BENCHMARKS / "soak.py"), "--minutes", "0.17", "--no-write"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    lines = {line[:55].strip(): line.split()[-1] for line in done.stdout.splitlines() if not line.startswith("{")}
    # What needs half an hour to tell is not asked of ten seconds: only what must hold after any time.
    for line in ("retrievals in the log", "clicks in the log", "interleaved answers in the log", "different answers"):
        assert lines[line] == "True", done.stdout + done.stderr[-2000:]
    for line in (
        "records in the database",
        "answers in the journal",
        "answers that the scorer saw",
        "errors",
        "failed",
    ):
        assert lines[line] == "True", done.stdout + done.stderr[-2000:]
