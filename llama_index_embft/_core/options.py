"""Fields of settings objects that carry their own help, so that the command line and YAML are made from them."""

from __future__ import annotations

from dataclasses import field
from typing import Any


def option(default: Any, help: str) -> Any:
    """A dataclass field with a default and a sentence for ``--help``.

    Args:
        default: Immutable default value.
        help: One or two plain sentences: what it does, its unit, and why the default is what it is.

    Returns:
        What `dataclasses.field` returns; typed as anything so that it can stand behind any annotation.
    """
    return field(default=default, metadata={"help": help})
