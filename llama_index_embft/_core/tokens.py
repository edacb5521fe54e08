"""How a model counts the tokens of a text."""

from __future__ import annotations

from collections.abc import Callable  # noqa: TC003  # a field's annotation
from typing import NamedTuple


class ModelTokens(NamedTuple):
    """How the model that reads chunks counts tokens, and how many it reads.

    Attributes:
        encode: Text -> tokens, without those that mark beginning and end.
        limit: Tokens of a text that are read, beside these marks and the prompt; None: any number.
    """

    encode: Callable[[str], list[int]]
    limit: int | None
