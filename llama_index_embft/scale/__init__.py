"""The same functions on more than one machine."""

__all__: list[str] = []
