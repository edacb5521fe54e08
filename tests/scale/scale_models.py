"""Models for the workers of a test cluster: made there, in the blink of an eye, without torch."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding

from llama_index_embft.embeddings import ModelIdentity

DIM = 8


class HashEmbedding(BaseEmbedding):
    """Vectors from a hash of the text; scripted to be slow or to fail.

    Args:
        log: Folder where each text that is embedded leaves a file, named by its hash; None for no trace.
        poison: A text with this word fails as long as the file ``cured`` is not in `log`.
        seconds: Pause a text.
    """

    log: str | None = None
    poison: str | None = None
    seconds: float = 0.0

    def identity(self, side: str, given: str | None = None) -> ModelIdentity:
        """A class that knows what decides its vectors speaks for itself."""
        return ModelIdentity.of(self.model_name, "HashEmbedding", self.model_name, side)

    def _get_text_embedding(self, text: str) -> list[float]:
        digest = hashlib.blake2b(text.encode(), digest_size=DIM).digest()
        time.sleep(self.seconds)
        if self.log is not None:
            folder = Path(self.log)
            if self.poison is not None and self.poison in text.split() and not (folder / "cured").exists():
                raise RuntimeError(f"cannot read {self.poison}")
            with (folder / digest.hex()).open("a") as file:
                file.write(f"{os.getpid()}\n")
        return [byte / 255 - 0.5 for byte in digest]

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding("query: " + query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)


class MakeHashEmbedding:
    """A function without arguments that makes the model on a worker."""

    def __init__(self, **options: Any) -> None:
        self.options = options

    def __call__(self) -> HashEmbedding:
        return HashEmbedding(**{"model_name": "hash", **self.options})
