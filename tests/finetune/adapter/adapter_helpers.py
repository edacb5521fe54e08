"""The engine's settings objects from flat options, as a test names them."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from llama_index_embft.finetune.adapter import AdapterLayerSettings, AdapterSearchSettings, AdapterSettings

_OBJECTS = {"layer": AdapterLayerSettings, "training": AdapterSettings, "search": AdapterSearchSettings}


def as_arguments(**options: Any) -> dict[str, Any]:
    """Options of the settings objects are put into one each; the others stay."""
    for name, settings in _OBJECTS.items():
        names = {field.name for field in fields(settings)} & set(options)
        if names:
            options[name] = settings(**{field: options.pop(field) for field in names})
    return options
