"""``embft train``, the one command with parts."""

__all__: list[str] = []
