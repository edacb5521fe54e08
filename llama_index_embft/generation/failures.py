"""What a failed call means: on the ground floor, in `calls.failures`, where embedding models find it too."""

from __future__ import annotations

from llama_index_embft.calls.failures import Failure, FailureKind, Redactor, UnusableAnswerError, classify

__all__ = ["Failure", "FailureKind", "Redactor", "UnusableAnswerError", "classify"]
