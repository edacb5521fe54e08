"""The settings of ``embft train``: flags and a YAML file as one, checked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from llama_index_embft._core.options import option
from llama_index_embft.cli.shared.command import CONFIG_HELP
from llama_index_embft.cli.shared.config import SHARED, unknown_key
from llama_index_embft.cli.shared.config_file import read_config_file
from llama_index_embft.cli.shared.models import HostedModelOptions
from llama_index_embft.cli.shared.options import Option, options_of
from llama_index_embft.cli.shared.ray import RAY_HELP
from llama_index_embft.cli.train.options import GROUPS, METHODS, engine_options
from llama_index_embft.errors import ConfigError
from llama_index_embft.finetune.options import flat_fields

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DEFAULT_MODEL: Final = "BAAI/bge-small-en-v1.5"
DATA_HELP: Final = "Training set, in any format that embft convert reads."
DEFAULT_OUT: Final = Path("runs") / "model"


@dataclass(frozen=True)
class TrainOptions:
    """What the command has beside the engines' own settings; None is "not given"."""

    data: Path | None = option(None, DATA_HELP)
    config: Path | None = option(None, CONFIG_HELP)
    embed_model: str | None = option(
        None,
        "The model to tune: a folder, or a name on the Hugging Face hub. By adapter or nudge also a hosted one, as "
        f"openai:MODEL; the key is OPENAI_API_KEY. Default: {DEFAULT_MODEL}.",
    )
    method: str | None = option(
        None,
        f"One of {', '.join(METHODS)}. adapter: a layer over a frozen model, in seconds; nudge: moved document "
        "vectors; reranker: puts what the first stage finds into a better order; distill: a small model that gives the "
        "vectors of a larger one. Default: full.",
    )
    val: Path | None = option(None, "Data set that chooses the best state.")
    guard: Path | None = option(None, "Data set that must not get worse, or: general.")
    out: Path | None = option(None, "Folder to save to; an earlier result there is replaced. Default: runs/model.")
    loss: str | None = option(
        None,
        "A loss of sentence-transformers by the name of its class, or cosent; of a reranker list_net, lambda, "
        "rank_net, bce or in_batch. Default: chosen by the data, or the kind of reranker.",
    )
    first_stage: str | None = option(
        None,
        "With --method reranker: the embedding model whose hits, mixed with BM25's, it reads. Default: BM25.",
    )
    teacher: str | None = option(
        None,
        "With --method distill: the model whose vectors are learned, a folder, a name, or openai:MODEL; --embed-model "
        "is the student.",
    )
    teacher_scores: Path | None = option(
        None,
        "Scores of a cross-encoder (JSON: query id, document id, score) to learn from. Default: those of the data set.",
    )
    recipe: str | None = option(
        None, "auto: try temperatures, learning rates and epochs first; values you set are not searched."
    )
    time_budget: float | None = option(
        None, "Seconds for that, default 600, or for --kind auto of the adapter, default 120."
    )
    ray: str | None = option(None, RAY_HELP)
    ray_workers: int | None = option(None, "With --ray: processes, which share each batch. Default: 2.")
    ray_cpus: float | None = option(None, "With --ray: CPUs of each. Default: 1.")
    ray_gpus: float | None = option(None, "With --ray: GPUs of each; 0 trains on CPUs. Default: 0.")
    progress: bool | None = option(None, "Show progress bars. Default: yes.")
    push_to_hub: str | None = option(
        None, "Upload the result to this repository (owner/name); the token comes from HF_TOKEN."
    )
    private: bool | None = option(None, "Make the repository private if it is new. Default: yes.")


@lru_cache(maxsize=1)
def train_options() -> dict[str, Option]:
    """Every option of the command by name, its own first."""
    made_here = (*options_of(TrainOptions), *options_of(HostedModelOptions, "A hosted model"))
    own = {made.name: replace(made, kinds=made.kinds - {"None"}) for made in made_here}
    return own | {name: made.without_default() for name, made in engine_options().items() if name not in own}


def read_settings(config: Path | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """File and flags as one, each value as its reader wants it; flags win.

    Args:
        config: The YAML file.
        given: Flags by name; None is "not given".

    Raises:
        ConfigError: The file cannot be read, or a name or a value is not known.
    """
    known = train_options().keys() - {"config"} | set(SHARED)
    settings: dict[str, Any] = {}
    for key, value in _in_one_row(config) if config is not None else ():
        name = str(key).replace("-", "_")
        if name not in known:
            raise unknown_key(config, key, known)  # type: ignore[arg-type]  # there is a key, so there is a file
        if name in SHARED:
            continue  # read before the command is called
        if name in settings:
            raise ConfigError(f"{config}: {name} is set twice; keep one.")
        if value is not None or (name in engine_options() and "None" in engine_options()[name].kinds):
            settings[name] = _converted(name, value, f"{name} in {config}")
    for name, value in given.items():
        if value is not None:
            settings[name] = _converted(name, value, f"--{name.replace('_', '-')}")
    return settings


def _in_one_row(config: Path) -> Iterator[tuple[Any, Any]]:
    """Keys and values of the file; a group such as ``lora: {rank: 8}`` becomes ``lora_rank: 8``."""
    for key, value in read_config_file(config).items():
        groups = [settings for settings in GROUPS.values() if str(key) in settings]
        if not groups or not isinstance(value, dict):
            yield key, value
            continue
        names = {
            field.name: name
            for settings in groups
            for name, argument, field in flat_fields(settings)
            if argument == str(key)
        }
        for inner, part in value.items():
            plain = str(inner).replace("-", "_")
            if plain not in names:
                raise unknown_key(config, inner, names, f" in {key}")
            yield names[plain], part


def _converted(name: str, value: Any, shown: str) -> Any:
    if name not in engine_options() and isinstance(value, str) and not value.strip():
        raise ConfigError(f"{shown} is empty; name one, or leave it out.")
    return train_options()[name].convert(value, shown)
