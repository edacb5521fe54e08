"""Requests and tokens a minute: on the ground floor, in `calls.limits`, where embedding models find it too."""

from __future__ import annotations

from llama_index_embft.calls.limits import RateLimiter, SlidingWindow, Ticket

__all__ = ["RateLimiter", "SlidingWindow", "Ticket"]
