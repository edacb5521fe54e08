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
    header, *rows = done.stdout.splitlines()[:3]
    assert header.split()[:5] == ["contender", "tokens", "read", "batch", "seconds"]
    assert "test ndcg@10" in header
    for cells in (row.split() for row in rows):  # like the peer, and with all defaults
        assert cells[:3] == ["ours", "64", "10"]
        assert all(float(cell) > 0 for cell in cells[3:])
    assert len(rows) == 2
