"""One run of the trainer: steps, evaluations, checkpoints, processes."""

__all__: list[str] = []
