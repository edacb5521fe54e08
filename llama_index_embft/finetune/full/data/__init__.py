"""From a data set to rows and batches."""

__all__: list[str] = []
