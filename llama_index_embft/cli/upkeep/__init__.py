"""Commands that look after an installation, its caches and old code."""

__all__: list[str] = []
