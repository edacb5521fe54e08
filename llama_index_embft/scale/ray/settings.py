"""How a cluster divides work."""

from __future__ import annotations

from dataclasses import dataclass

from llama_index_embft._core.checks import check_number
from llama_index_embft._core.options import option


@dataclass(frozen=True)
class MiningWorkers:
    """How a cluster divides the work of mining.

    Raises:
        ConfigError: A value is not allowed.
    """

    parts: int | None = option(
        None, "Parts of the corpus, one worker each; none: one per CPU (or GPU), with at least 1024 rows each."
    )
    gpus_per_worker: float = option(0.0, "GPUs per worker; 0 uses CPUs.")
    batch_size: int | None = option(None, "Batch size of the embedding model, in texts; none: chosen by device.")
    rows_per_shard: int = option(4096, "Texts that are read, embedded and written at a time.")

    def __post_init__(self) -> None:
        if self.parts is not None:
            check_number("parts", self.parts, at_least=1)
        check_number("gpus_per_worker", self.gpus_per_worker, at_least=0)
        check_number("rows_per_shard", self.rows_per_shard, at_least=1)
