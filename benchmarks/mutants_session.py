"""A pytest plugin that holds the tests against each mutant of `mutmut`, in a forked process of one session.

`mutmut run` starts pytest anew for each mutant, which takes ten times as long as the few tests that reach it. Here
tests are collected once and run once without a mutant, and each mutant's process inherits all that: imports, models,
drawn numbers. The results stand where `mutmut` keeps its own, so `mutmut results`, `show` and `browse` know them.
"""

from __future__ import annotations

import fnmatch
import gc
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _pytest.runner import runtestprotocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

_SURVIVED, _KILLED, _NO_TESTS, _TIMEOUT = 0, 1, 33, 36  # mutmut's own numbers


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--only", action="append", default=[], help="mutants to try again, with wildcards")


def pytest_runtestloop(session: pytest.Session) -> bool:
    """Run all tests without a mutant, to see which functions each of them reaches; then those of each mutant."""
    from mutmut.mutation.trampoline import set_mutant_under_test
    from mutmut.state import state

    seconds: dict[str, float] = {}
    reaching: dict[str, list[pytest.Item]] = {}
    set_mutant_under_test("stats")  # functions put down that they were called
    for number, item in enumerate(session.items):
        start = time.perf_counter()
        # There is always a next one: what tests share is kept for the mutants.
        following = session.items[(number + 1) % len(session.items)]
        failed = [report for report in runtestprotocol(item, nextitem=following, log=False) if report.failed]
        if failed:
            raise session.Failed(f"{item.nodeid} fails without a mutant:\n{failed[0].longreprtext}")
        seconds[item.nodeid] = time.perf_counter() - start
        for function in state()._stats:
            reaching.setdefault(function, []).append(item)
        state()._stats.clear()
    gc.freeze()  # forked processes write to no page that they only read
    begun = time.monotonic()
    for tried, (data, name) in enumerate(_mutants(session.config.getoption("--only")), 1):
        items = sorted(reaching.get(name.partition("__mutmut_")[0], ()), key=lambda item: seconds[item.nodeid])
        limit = 20 + 20 * sum(seconds[item.nodeid] for item in items)
        data.exit_code_by_key[name] = _tried(name, items, limit) if items else _NO_TESTS
        data.save()
        if tried % 100 == 0:
            print(f"{tried} mutants, {tried / (time.monotonic() - begun):.1f} a second", flush=True)
    return True


def _mutants(only: list[str]) -> Iterator[tuple[Any, str]]:
    """Those not tried since their function changed, or those of these names; with the results of their file."""
    from mutmut.mutation.data import SourceFileMutationData
    from mutmut.utils.file_utils import walk_mutatable_files

    for path in sorted(walk_mutatable_files()):
        data = SourceFileMutationData(path=path)
        data.meta_path = Path(f"{path}.meta")  # this runs inside of mutants/
        data.load()
        for name, code in list(data.exit_code_by_key.items()):
            if any(fnmatch.fnmatch(name, pattern) for pattern in only) if only else code is None:
                yield data, name


def _tried(name: str, items: list[pytest.Item], limit: float) -> int:
    """Whether one of the tests fails with a mutant, in a process of its own and within so many seconds."""
    from mutmut.mutation.trampoline import set_mutant_under_test

    process = os.fork()
    if process == 0:
        code = _KILLED
        try:
            silence = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silence, 1)
            os.dup2(silence, 2)
            set_mutant_under_test(name)
            items[0].session._setupstate.teardown_exact(items[0])
            following = [*items[1:], items[0]]
            failed = (
                any(report.failed for report in runtestprotocol(item, nextitem=after, log=False))
                for item, after in zip(items, following, strict=True)
            )
            code = _KILLED if any(failed) else _SURVIVED
        finally:
            os._exit(code)
    until = time.monotonic() + limit
    while time.monotonic() < until:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return _TIMEOUT
