"""One small question before the work: a wrong key, model or address should show before anything is read or paid."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_index_embft._core.redaction import Redactor
from llama_index_embft.calls.failures import classify
from llama_index_embft.errors import GenerationError

if TYPE_CHECKING:
    from llama_index.core.llms import LLM


def check_llm(llm: LLM) -> None:
    """Ask an LLM one small question, once.

    A server that is busy, or answers with nonsense, is no reason to stop here: the work itself waits and tries again.

    Raises:
        GenerationError: No further call can succeed: the key or the model is refused, or nobody listens.
    """
    try:
        llm.complete("Reply with the word yes.")
    except Exception as err:  # clients raise what they like
        failure = classify(err, Redactor(llm))
        if failure.kind in ("fatal", "unreachable"):
            raise GenerationError(
                f"The LLM cannot be asked: {failure.reason.rstrip('.')}; check the key, the model's name and the "
                "address, then start again. Nothing was asked for your documents."
            ) from err
