"""``embft train --ray ADDRESS``: the full engine in the processes of a Ray cluster."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from llama_index_embft.cli.shared.console import console
from llama_index_embft.cli.shared.options import check_not_with
from llama_index_embft.cli.shared.ray import check_ray
from llama_index_embft.cli.train.frozen import FROZEN
from llama_index_embft.errors import ConfigError

if TYPE_CHECKING:
    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.finetune.engine import FinetuneResult

_DEFAULT_WORKERS: Final = 2
# Option -> what it sets for each worker.
_EACH: Final = {"ray_cpus": "cpus_per_worker", "ray_gpus": "gpus_per_worker"}
# The device follows from --ray-gpus, and nobody else's server is trained.
_NOT_THERE: Final = ("device", "api_base", "requests_per_minute", "tokens_per_minute", "time_budget")


def check_cluster(method: str, settings: dict[str, Any]) -> None:
    """Refuse what does not go together with ``--ray``, and options of a cluster where there is none.

    Raises:
        ConfigError: The settings contradict each other.
    """
    each = {name: settings.get(name) for name in _EACH}
    check_ray(settings.get("ray"), ray_workers=settings.get("ray_workers"), **each)
    if "ray" not in settings:
        return
    if method in (*FROZEN, "reranker", "distill"):
        raise ConfigError(
            f"method {method} trains in one process and has no meaning together with --ray; leave --ray out, or choose "
            "--method full or lora."
        )
    if "recipe" in settings:
        raise ConfigError(
            "recipe auto runs in one process; look for the recipe without --ray first, then give it to the run on the "
            "cluster."
        )
    check_not_with("--ray", True, {name: settings.get(name) for name in _NOT_THERE})
    for name, value in each.items():
        if value is not None and not value >= 0:
            raise ConfigError(f"--{name.replace('_', '-')} is {value:g}; it must be 0 or more.")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("--ray starts its processes itself; call embft train without torchrun, or leave --ray out.")


def process_count(settings: dict[str, Any]) -> int:
    """How many processes train."""
    if "ray" in settings:
        return int(settings.get("ray_workers", _DEFAULT_WORKERS))
    return int(os.environ.get("WORLD_SIZE", "1"))


@dataclass(frozen=True)
class ClusterRun:
    """A run on a cluster, started like an engine.

    Attributes:
        dataset: The training set.
        model: Folder or name of the base model.
        settings: Of the command.
        arguments: Of the engine, but for the training set and the model.
    """

    dataset: EmbeddingQAFinetuneDataset
    model: str
    settings: dict[str, Any]
    arguments: dict[str, Any]

    def finetune(self) -> FinetuneResult:
        """Train; see `scale.ray.finetune`."""
        from llama_index_embft.scale.ray import finetune

        workers, progress = process_count(self.settings), self.settings.get("progress", True)
        if progress:  # the workers' bars do not come here, and training can take hours
            processes = f"{workers} process{'es' if workers > 1 else ''}"
            console.print(
                f"Training in {processes} on the Ray cluster {self.settings['ray']}; progress is in the workers' logs.",
                markup=False,
                soft_wrap=True,
            )
        return finetune(
            self.dataset,
            self.model,
            workers=workers,
            address=self.settings["ray"],
            show_progress_bar=progress,
            **{_EACH[name]: self.settings[name] for name in _EACH if name in self.settings},
            **self.arguments,
        )
