"""Run an example as its reader does: as a script of its own, offline, on the small data that comes with it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def run_example(tiny_model_path, tmp_path):
    def run(name: str, *arguments: str) -> str:
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("OPENAI_", "EMBFT_"))}
        environment |= {
            "EMBFT_EXAMPLE_MODEL": tiny_model_path,
            "EMBFT_EXAMPLE_OUT": str(tmp_path),
            "EMBFT_CACHE_DIR": str(tmp_path / "cache"),
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_CACHE": str(tmp_path / "datasets"),
            "PYTHONIOENCODING": "utf-8",
        }
        done = subprocess.run(
            [sys.executable, str(EXAMPLES / f"{name}.py"), *arguments],
            capture_output=True,
            text=True,
            encoding="utf-8",
            cwd=tmp_path,
            env=environment,
            timeout=900,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return done.stdout

    return run
