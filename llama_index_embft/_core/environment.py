"""What is around a run: versions of what decides its result, memory, the cache folder, and whether the hub answers."""

from __future__ import annotations

import os
import platform
import time
from importlib import metadata
from pathlib import Path
from typing import Final

from llama_index_embft._core.checks import first_line

_PACKAGES: Final = ("llama-index-embft", "llama-index-core", "sentence-transformers", "transformers", "torch")
_ASKED_AGAIN_AFTER: Final = 60.0  # seconds that the hub counts as out of reach; a command loads a few models
# Address -> until when it is not asked again, and what was wrong.
_hub_answers: dict[str, tuple[float, str | None]] = {}


def package_versions() -> dict[str, str]:
    """Versions that decide a training result."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # noqa: PERF203 (a handful of names)
            found[name] = "not installed"
    return found


def peak_memory_bytes() -> int | None:
    """Highest resident set size of this process, in bytes; None on Windows."""
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if platform.system() == "Darwin" else 1024
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * unit


def default_cache_dir() -> Path:
    """Folder of caches and journals: ``$EMBFT_CACHE_DIR``, else the user's cache folder of the platform."""
    if configured := os.environ.get("EMBFT_CACHE_DIR"):
        return Path(configured)
    import platformdirs

    return Path(platformdirs.user_cache_dir("llama-index-embft"))


def hub_failure(seconds: float | None = None) -> str | None:
    """Why the Hugging Face hub cannot be reached; None where it answers, or is switched off by ``HF_HUB_OFFLINE``.

    huggingface_hub asks for each file of a model six times with growing pauses, which takes minutes without a network.
    This asks once, as it does: by its proxies and certificates. An answer holds for the life of the process, a failure
    for a minute.

    Args:
        seconds: To wait; None takes ``HF_HUB_ETAG_TIMEOUT``, 10 by default.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session  # type: ignore[attr-defined, unused-ignore]

    address = constants.ENDPOINT
    until, failure = _hub_answers.get(address, (0.0, None))
    if time.monotonic() < until:
        return failure
    if constants.HF_HUB_OFFLINE:
        return None
    try:
        get_session().head(address, timeout=seconds or constants.HF_HUB_ETAG_TIMEOUT)
        failure, until = None, float("inf")
    except Exception as err:  # noqa: BLE001  # its HTTP library differs between versions, and so do the errors
        failure, until = first_line(err) or type(err).__name__, time.monotonic() + _ASKED_AGAIN_AFTER
    _hub_answers[address] = (until, failure)
    return failure
