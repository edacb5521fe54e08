"""The fuzzer finds nothing in a few inputs of the cheap targets, and does find what is planted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def test_sixty_damaged_inputs_give_an_answer_or_one_of_our_errors():
    command = [sys.executable, str(BENCHMARKS / "fuzz.py"), "--inputs", "60", "--no-write"]
    only = ["--only", "readers", "documents", "reports"]
    done = subprocess.run([*command, *only], capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    rows = [line for line in done.stdout.splitlines() if "inputs, ok" in line]
    assert [row.split(":")[0] for row in rows] == ["readers", "documents", "reports"]
    # Damage that is never noticed would mean that nothing was damaged.
    assert all("refused 0," not in row for row in rows)


PLANTED = """
import json, os, sys
sys.path.insert(0, {benchmarks!r})
import fuzz
from pathlib import Path
from llama_index_embft.errors import ConfigError

class Faulty:
    name = "faulty"
    def prepare(self, label, rnd, folder):
        def call():
            if label == "foreign":
                raise KeyError("x")
            if label == "refused":
                raise ConfigError("no")
            if label == "crash":
                os._exit(3)
            if label == "hang":
                while True:
                    pass
        return call

fuzz.SECONDS = 1
cases = [(label, 0) for label in ("ok", "foreign", "crash", "refused", "hang", "ok")]
results = list(fuzz.in_a_child(Faulty(), cases, Path(sys.argv[1])))
print(json.dumps([[result["label"], result["kind"]] for result in results]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the fuzzer forks")
def test_each_kind_of_finding_is_told_apart_and_stops_nothing(tmp_path):
    script = PLANTED.format(benchmarks=str(BENCHMARKS))
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, env=ENVIRONMENT
    )
    assert done.returncode == 0, done.stderr[-2000:]
    kinds = json.loads(done.stdout)
    assert kinds == [[kind, kind] for kind in ("ok", "foreign", "crash", "refused", "hang", "ok")]
