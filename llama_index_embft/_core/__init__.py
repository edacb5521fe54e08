"""The ground floor: files, optional packages, logs, languages. It knows nothing of data sets or models."""

__all__: list[str] = []
