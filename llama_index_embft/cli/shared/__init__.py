"""What the commands share: the console, options made from settings, a Ray cluster's options."""

__all__: list[str] = []
