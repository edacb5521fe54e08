"""From the shape of the data to the loss."""

__all__: list[str] = []
