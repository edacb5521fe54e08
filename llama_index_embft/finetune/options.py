"""Options in one row, as a command line and a YAML file have them, and the settings objects that engines take."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from dataclasses import Field


def flat_fields(settings: Mapping[str, tuple[type, str]]) -> Iterator[tuple[str, str, Field[Any]]]:
    """Each field of the settings classes as an option.

    Yields:
        The option's name, the engine's argument that it is part of, and the field.
    """
    for argument, (kind, prefix) in settings.items():
        for field in fields(kind):
            yield prefix + field.name, argument, field


def grouped(given: Mapping[str, Any], settings: Mapping[str, tuple[type, str]]) -> dict[str, Any]:
    """Options in one row as an engine's arguments: those of a settings class in one object of it.

    Raises:
        ConfigError: A value is out of range.
    """
    left, parts = dict(given), dict[str, dict[str, Any]]()
    for name, argument, field in flat_fields(settings):
        if name in left:
            parts.setdefault(argument, {})[field.name] = left.pop(name)
    return {**left, **{argument: settings[argument][0](**values) for argument, values in parts.items()}}
