"""Commands about data sets."""

__all__: list[str] = []
