"""Fine-tuning on a cluster: our engine in the workers of Ray Train, negatives shared across all of them."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from llama_index_embft._core.files import atomic_write_text, check_output_folder
from llama_index_embft._core.optional import require
from llama_index_embft._core.temporary import scratch_folder
from llama_index_embft.errors import ConfigError, EmbftError, TrainingError
from llama_index_embft.finetune.engine import FinetuneResult
from llama_index_embft.scale.ray.cluster import ScaleError, connected, resources
from llama_index_embft.scale.ray.model import from_anywhere, same_model_everywhere

if TYPE_CHECKING:
    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset

_RESULT: Final = "result.json"
_ERROR: Final = "error.txt"


def finetune(
    dataset: EmbeddingQAFinetuneDataset,
    model_id: str,
    model_output_path: str | Path,
    *,
    workers: int = 2,
    cpus_per_worker: float = 1,
    gpus_per_worker: float = 0,
    max_failures: int = 2,
    address: str | None = None,
    **options: Any,
) -> FinetuneResult:
    """Train a SentenceTransformer in several processes on a Ray cluster.

    Each worker runs `SentenceTransformersFinetuneEngine` with a share of every batch, and compares its queries with the
    passages of all workers: the result is the one of ``torchrun`` with as many processes. With
    ``save_checkpoints=True`` a run that loses a worker, or is killed and called again with
    ``resume_from_checkpoint=True``, goes on from its newest checkpoint; without, it starts anew.

    Args:
        dataset: Training set; sent to the workers.
        model_id: Base model, on every machine under this name. A folder, like that of every other model that is named
            here, is passed on by its whole path: the workers' current folder is another one.
        model_output_path: Folder to save to, on a disk that all machines see. Checkpoints go beside it, to
            ``checkpoints/<name>``.
        workers: Processes; ``batch_size`` must be divisible by it.
        cpus_per_worker: CPUs of each.
        gpus_per_worker: GPUs of each; 0 trains on CPUs.
        max_failures: How often lost workers are replaced. Where a machine is gone and nobody replaces it, Ray waits for
            another.
        address: The cluster, see `connected`.
        **options: The other arguments of `SentenceTransformersFinetuneEngine`, by name.

    Raises:
        ConfigError: An argument is not allowed.
        DatasetError: As in the engine.
        ScaleError: No cluster answers, it is too small, or a machine lacks the model.
        TrainingError: Training failed, or workers were lost too often.
        OutputError: A folder cannot be written.
        MissingExtraError: Ray is not installed.
    """
    require("ray", feature="Training on a Ray cluster")
    if workers < 1:
        raise ConfigError(f"`workers` must be at least 1, got {workers}.")
    if not (cpus_per_worker >= 0 and gpus_per_worker >= 0 and cpus_per_worker + gpus_per_worker > 0):
        raise ConfigError(
            f"A worker needs a CPU or a GPU; got cpus_per_worker={cpus_per_worker}, gpus_per_worker={gpus_per_worker}."
        )
    if "device" in options:
        raise ConfigError("`device` follows from gpus_per_worker here; leave it out.")
    model_id, options = from_anywhere(model_id), _models_from_anywhere(options)
    output = Path(model_output_path).expanduser().resolve()
    check_output_folder(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    # Beside the output, since all machines must see it: what Ray Train notes, and how the run ended.
    with scratch_folder(output) as notes:
        with connected(address):
            _check_size(workers, cpus_per_worker, gpus_per_worker)
            device = "cuda" if gpus_per_worker else "cpu"
            same_model_everywhere(
                model_id,
                device=device,
                resource="GPU" if gpus_per_worker else "CPU",
                trust_remote_code=bool(options.get("trust_remote_code", False)),
            )
            config = {
                "dataset": dataset,
                "engine": {"model_id": model_id, "model_output_path": str(output), **options},
                "on_gpu": bool(gpus_per_worker),
                "notes": str(notes),
            }
            _fit(config, workers, cpus_per_worker, gpus_per_worker, max_failures)
        record = json.loads((notes / _RESULT).read_text(encoding="utf-8"))
    return FinetuneResult(**{**record, "output_path": Path(record["output_path"])})


def _models_from_anywhere(options: dict[str, Any]) -> dict[str, Any]:
    """The engine's arguments, with whole paths in those that name models."""
    found = dict(options)
    loss, mining = found.get("loss_settings"), found.get("mining")
    if loss is not None and isinstance(loss.guide_model, str):
        found["loss_settings"] = replace(loss, guide_model=from_anywhere(loss.guide_model))
    if mining is not None and isinstance(mining.strategies, (list, tuple)):
        reranker = "cross-encoder:"
        strategies = [
            reranker + from_anywhere(one[len(reranker) :]) if isinstance(one, str) and one.startswith(reranker) else one
            for one in mining.strategies
        ]
        found["mining"] = replace(mining, strategies=strategies)
    return found


def _check_size(workers: int, cpus: float, gpus: float) -> None:
    have = resources()
    for name, each in (("CPU", cpus), ("GPU", gpus)):
        if workers * each > have.get(name, 0):
            raise ScaleError(
                f"{workers} workers need {workers * each:g} {name}s and the cluster has {have.get(name, 0):g}; ask for "
                "fewer, or add nodes."
            )


def _fit(config: dict[str, Any], workers: int, cpus: float, gpus: float, max_failures: int) -> None:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    each: dict[str, float] = {"CPU": cpus, **({"GPU": gpus} if gpus else {})}
    trainer = TorchTrainer(
        train_worker,
        train_loop_config=config,
        torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=bool(gpus), resources_per_worker=each),
        run_config=RunConfig(
            name="embft", storage_path=config["notes"], failure_config=FailureConfig(max_failures=max_failures)
        ),
    )
    notes = Path(config["notes"])
    try:
        trainer.fit()
    except Exception as err:  # Ray has other classes for this in each of its versions
        with suppress(OSError):
            name, _, message = (notes / _ERROR).read_text(encoding="utf-8").partition("\n")
            raise _known(name)(message) from err
        reason = next((line.strip() for line in reversed(str(err).splitlines()) if line.strip()), type(err).__name__)
        raise TrainingError(
            f"Training on the cluster failed: {reason[:300].rstrip('.')}. With save_checkpoints=True the same call "
            "with resume_from_checkpoint=True goes on from the newest checkpoint."
        ) from err


def _known(name: str) -> type[EmbftError]:
    from llama_index_embft import errors

    found = getattr(errors, name, TrainingError)
    return found if isinstance(found, type) and issubclass(found, EmbftError) else TrainingError


def train_worker(config: dict[str, Any]) -> None:
    """What each worker of Ray Train runs."""
    from llama_index_embft.finetune.full.engine import SentenceTransformersFinetuneEngine
    from llama_index_embft.finetune.running.processes import is_first_process

    notes = Path(config["notes"])
    options = dict(config["engine"])
    output = Path(options["model_output_path"])
    os.chdir(output.parent)  # checkpoints go there, and not to a folder of Ray's
    again = notes / "begun"
    if (notes / _ERROR).exists():  # it would fail again: Ray Train replaces workers whatever they died of
        raise TrainingError((notes / _ERROR).read_text(encoding="utf-8").partition("\n")[2])
    if again.exists() and options.get("save_checkpoints"):
        options["resume_from_checkpoint"] = True
    try:
        engine = SentenceTransformersFinetuneEngine(
            config["dataset"], **options, device=None if config["on_gpu"] else "cpu"
        )
        atomic_write_text(again, "")
        result = engine.finetune()
    except TypeError as err:
        error = ConfigError(f"An argument of the engine is not known: {err}.")
        atomic_write_text(notes / _ERROR, f"{type(error).__name__}\n{error}")
        raise error from err
    except EmbftError as err:
        atomic_write_text(notes / _ERROR, f"{type(err).__name__}\n{err}")
        raise
    if is_first_process():
        atomic_write_text(notes / _RESULT, json.dumps({**asdict(result), "output_path": str(result.output_path)}))
