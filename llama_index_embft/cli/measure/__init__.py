"""Commands that measure and compare."""

__all__: list[str] = []
