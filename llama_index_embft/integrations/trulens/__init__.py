"""TruLens (extra ``trulens``): score a query engine's answers, watch one in use, read what was recorded."""

from typing import Any

import lazy_loader

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    """Load a public name; one that is made of TruLens' own classes says which extra it needs.

    The others load without it, so that ``from llama_index_embft import *`` works, and say so when they are called.

    Raises:
        MissingExtraError: The extra ``trulens`` is not installed.
    """
    try:
        return _load(name)
    except ModuleNotFoundError as err:
        if (err.name or "").partition(".")[0] == "trulens":
            from llama_index_embft.integrations.trulens.calls import require_trulens

            require_trulens(f"`{name}`")
        raise
