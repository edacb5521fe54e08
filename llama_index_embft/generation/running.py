"""Running async code from ordinary functions: on the ground floor, in `calls.running`, for embedding models too."""

from __future__ import annotations

from llama_index_embft.calls.running import run_sync

__all__ = ["run_sync"]
