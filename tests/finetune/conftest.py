"""Tiny models compute on one thread: two threads wait for each other longer than they compute."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True, scope="package")
def _one_thread():
    import torch

    threads, setting = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # of child processes
    yield
    torch.set_num_threads(threads)
    if setting is None:
        del os.environ["OMP_NUM_THREADS"]
    else:
        os.environ["OMP_NUM_THREADS"] = setting
