"""The benchmark of full fine-tuning runs, and its row holds what its table promises."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "full_finetune.py"


def test_the_tiny_run():
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), "--tiny", "--contenders", "ours", "--batch-sizes", "10", "--no-save"],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    header, row = done.stdout.splitlines()[:2]
    assert header.split()[:3] == ["contender", "batch", "seconds"]
    assert "test ndcg@10" in header
    cells = row.split()
    assert cells[:2] == ["ours", "10"]
    assert all(float(cell) > 0 for cell in cells[2:])
