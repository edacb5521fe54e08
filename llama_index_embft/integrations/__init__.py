"""Other tools that this package works with, each in a room of its own."""

__all__: list[str] = []
