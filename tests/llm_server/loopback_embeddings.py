"""What the loopback server answers to ``/v1/embeddings``: the same vector for the same text, always."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import random
import struct
from functools import lru_cache
from typing import Any


@lru_cache(maxsize=4096)
def _word(word: str, dim: int) -> tuple[float, ...]:
    dice = random.Random(hashlib.sha256(word.encode()).digest())
    return tuple(dice.gauss(0.0, 1.0) for _ in range(dim))


def embed(text: str, dim: int) -> list[float]:
    """A unit vector that texts with the same words share; the empty text has one too."""
    words = [_word(word, dim) for word in text.lower().split() or [""]]
    total = [sum(values) for values in zip(*words, strict=True)]
    length = math.sqrt(sum(value * value for value in total)) or 1.0
    return [value / length for value in total]


def embeddings_body(body: dict[str, Any], dim: int, flaw: str) -> bytes:
    """The answer to a request, or one with a flaw: ``nan``, ``missing`` (a vector too few), ``ragged``."""
    texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
    vectors = [embed(text, body.get("dimensions") or dim) for text in texts]
    if flaw == "nan":
        vectors[-1][0] = math.nan
    elif flaw == "missing":
        vectors.pop()
    elif flaw == "ragged":
        vectors[-1].append(0.0)
    data = []
    for index, vector in enumerate(vectors):
        packed: Any = vector
        if body.get("encoding_format") == "base64":  # what OpenAI's client asks for
            packed = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
        data.append({"object": "embedding", "index": index, "embedding": packed})
    tokens = sum(len(text.split()) for text in texts)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return json.dumps({"object": "list", "model": body.get("model", ""), "data": data, "usage": usage}).encode()
