"""Command-line options made from the fields of settings objects."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import typer


def option_of(settings: type, name: str, *flags: str) -> Any:
    """The option of a settings field: its help is the field's.

    Args:
        settings: A dataclass whose fields were made by `option`.
        name: The field.
        *flags: Names on the command line; without any, the parameter's.
    """
    (found,) = (field for field in fields(settings) if field.name == name)
    return typer.Option(*flags, help=found.metadata["help"])
