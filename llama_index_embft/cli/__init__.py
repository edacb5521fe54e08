"""The command line: one file a command; each only parses, calls the public API and prints."""

__all__: list[str] = []
