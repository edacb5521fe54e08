"""What a result was made with: versions of what decides it, and the memory it took."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Final

_PACKAGES: Final = ("llama-index-embft", "llama-index-core", "sentence-transformers", "transformers", "torch")


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
