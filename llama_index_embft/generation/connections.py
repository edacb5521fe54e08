"""The HTTP connections of a client: on the ground floor, in `calls.connections`, where embedding models find it too."""

from __future__ import annotations

from llama_index_embft.calls.connections import close_own_connections, without_retries

__all__ = ["close_own_connections", "without_retries"]
