"""TruLens (extra ``trulens``): score a query engine's answers, watch one in use, read what was recorded."""

from typing import Any

import lazy_loader

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    """Load a public name; without the extra that is one sentence with the command, whatever the name.

    Raises:
        MissingExtraError: The extra ``trulens`` is not installed.
    """
    if name in __all__:
        from llama_index_embft.integrations.trulens.calls import require_trulens

        require_trulens(f"`{name}`")
    return _load(name)
