"""What half an hour of traffic (`soak.py`) promised, and whether it holds: memory, files, time, and nothing lost."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

MIB = 2**20
# What the second half may add: a leak of 1 KiB a question would add 26 MiB in half an hour.
MOST_MEMORY = 8.0
SLOWER = 1.5  # the machine has other work too
Row = dict[str, Any]


def verdict(samples: list[Row], counts: Row) -> list[Row]:
    """A row for each promise: what was found, what it may be, whether it holds."""
    half = len(samples) // 2
    first, second = samples[:half], samples[half:]

    def row(what: str, found: float, limit: str, holds: bool) -> Row:
        return {"what": what, "found": found, "promised": limit, "holds": holds}

    memory = growth(second, lambda sample: sample["resident_mib"])
    rows = [
        row("memory added in the second half, MiB", round(memory, 2), f"at most {MOST_MEMORY:g}", memory <= MOST_MEMORY)
    ]
    early, late = samples[: -len(samples) // 4], samples[-len(samples) // 4 :]
    for what, key in (("open files", "open_files"), ("threads", "threads"), ("files on disk", "files")):
        most, end = max(sample[key] for sample in early), statistics.median(sample[key] for sample in late)
        rows.append(row(f"{what}, last quarter", end, f"at most {most}, as before", end <= most))
    cost = [1000 * each_of(part, "processor_seconds") for part in (first, second)]
    limit = f"at most {SLOWER:g} times {cost[0]:.1f} as in the first"
    rows.append(row("processor ms a question, second half", round(cost[1], 1), limit, cost[1] <= SLOWER * cost[0]))
    for name, of in (
        ("retrieval.jsonl", "answered"),
        ("interleaved.jsonl", "answered"),
        ("judge.sqlite", "scored"),
        ("trulens.sqlite", "scored"),
    ):
        each = [bytes_each(part, name, of) for part in (first, second)]
        what = f"{name}, bytes for each {'question' if of == 'answered' else 'scored answer'}, second half"
        rows.append(
            row(what, round(each[1]), f"at most 1.1 times {each[0]:,.0f} as in the first", each[1] <= 1.1 * each[0])
        )
    pending = max(sample["bytes"].get("judge.sqlite-wal", 0) for sample in samples)
    rows.append(row("judge.sqlite-wal at its largest, bytes", pending, f"at most {5 * MIB:,}", pending <= 5 * MIB))
    for what, found, whole in (
        ("retrievals in the log", "retrievals in the log", "retrievals"),
        ("clicks in the log", "clicks in the log", "clicks"),
        ("interleaved answers in the log", "interleaved in the log", "interleaved"),
        ("interleaved answers with clicks", "interleaved with clicks", "interleaved"),
        ("answers that the scorer saw", "answers seen", "answers"),
        ("records in the database", "records in the database", "scored"),
        ("answers in the journal", "answers in the journal", "questions to the judge"),
        ("live answers scored, or dropped by a full queue", "scored or dropped", "sampled"),
    ):
        same = counts[found] == counts[whole] and counts[whole] > 0
        rows.append(row(what, counts[found], f"{counts[whole]:,}, all", same))
    rows += [row(what, counts[what], "0", counts[what] == 0) for what in ("different answers", "errors", "failed")]
    return rows


def growth(samples: list[Row], of: Callable[[Row], float]) -> float:
    """What a straight line through the samples adds from the first to the last."""
    times = [sample["seconds"] for sample in samples]
    return statistics.linear_regression(times, [of(sample) for sample in samples]).slope * (times[-1] - times[0])


def each_of(samples: list[Row], key: str) -> float:
    """What is used for each question."""
    begin, end = samples[0], samples[-1]
    return (end[key] - begin[key]) / max(1, end["answered"] - begin["answered"])


def bytes_each(samples: list[Row], name: str, of: str) -> float:
    """What a file, with what SQLite has still to move into it, grows by for each unit of work."""
    begin, end = (
        sum(size for file, size in sample["bytes"].items() if file in (name, f"{name}-wal"))
        for sample in (samples[0], samples[-1])
    )
    return (end - begin) / max(1, samples[-1][of] - samples[0][of])
