"""The settings of ``embft train``: flags and a YAML file as one, checked."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from llama_index_embft.cli.shared.ray import RAY_HELP
from llama_index_embft.cli.train.config_file import read_config_file
from llama_index_embft.cli.train.options import GROUPS, METHODS, EngineOption, engine_options, shortened
from llama_index_embft.errors import ConfigError
from llama_index_embft.finetune.options import flat_fields

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DEFAULT_MODEL: Final = "BAAI/bge-small-en-v1.5"
DEFAULT_OUT: Final = Path("runs") / "model"

# What the command has beside the engines' own settings: name -> (type, help).
OWN: Final[dict[str, tuple[type, str]]] = {
    "config": (Path, "YAML file with any of these options; its paths are relative to the current folder."),
    "model": (str, f"The model to tune: a folder, or a name on the Hugging Face hub. Default: {DEFAULT_MODEL}."),
    "embed_model": (str, "A hosted model to tune by adapter or nudge, as openai:MODEL; the key is OPENAI_API_KEY."),
    "api_base": (str, "Address of its server, if it is not OpenAI's own: http://host:port/v1."),
    "requests_per_minute": (int, "Maximum requests per minute to the hosted model. Default: no limit."),
    "tokens_per_minute": (int, "Maximum tokens per minute to the hosted model. Default: no limit."),
    "method": (
        str,
        f"One of {', '.join(METHODS)}. adapter: a layer over a frozen model, in seconds; nudge: moved document "
        "vectors. Default: full.",
    ),
    "val": (Path, "Data set that chooses the best state."),
    "guard": (Path, "Data set that must not get worse."),
    "out": (Path, "Folder to save to; an earlier result there is replaced. Default: runs/model."),
    "loss": (str, "A loss of sentence-transformers by the name of its class, or cosent. Default: chosen by the data."),
    "teacher_scores": (
        Path,
        "Scores of a cross-encoder (JSON: query id, document id, score) to learn from. Default: those of the data set.",
    ),
    "recipe": (str, "auto: try temperatures, learning rates and epochs first; values you set are not searched."),
    "time_budget": (float, "Seconds for that, default 600, or for --kind auto of the adapter, default 120."),
    "ray": (str, RAY_HELP),
    "ray_workers": (int, "With --ray: processes, which share each batch. Default: 2."),
    "ray_cpus": (float, "With --ray: CPUs of each. Default: 1."),
    "ray_gpus": (float, "With --ray: GPUs of each; 0 trains on CPUs. Default: 0."),
    "progress": (bool, "Show progress bars. Default: yes."),
    "push_to_hub": (str, "Upload the result to this repository (owner/name); the token comes from HF_TOKEN."),
    "private": (bool, "Make the repository private if it is new. Default: yes."),
}


def read_settings(config: Path | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """File and flags as one, each value as its reader wants it; flags win.

    Args:
        config: The YAML file.
        given: Flags by name; None is "not given".

    Raises:
        ConfigError: The file cannot be read, or a name or a value is not known.
    """
    known = {"data", *OWN, *engine_options()} - {"config"}
    settings: dict[str, Any] = {}
    for key, value in _in_one_row(config) if config is not None else ():
        name = str(key).replace("-", "_")
        if name not in known:
            near = get_close_matches(name, sorted(known), n=1)
            advice = f"did you mean {near[0]!r}?" if near else "embft train --help lists the options."
            raise ConfigError(f"{config}: unknown key {shortened(str(key))}; {advice}")
        if name in settings:
            raise ConfigError(f"{config}: {name} stands there twice; keep one.")
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
                near = get_close_matches(plain, sorted(names), n=1)
                advice = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}."
                raise ConfigError(f"{config}: unknown key {shortened(str(inner))} in {key}; {advice}")
            yield names[plain], part


def _converted(name: str, value: Any, shown: str) -> Any:
    if name not in OWN and name != "data":
        return engine_options()[name].convert(value, shown)
    kind = Path if name == "data" else OWN[name][0]
    if kind is bool:
        if not isinstance(value, bool):
            raise ConfigError(f"{shown} is {shortened(value)}; it must be true or false.")
        return value
    if kind in (int, float):
        return EngineOption(name, frozenset({kind.__name__})).convert(value, shown)
    if isinstance(value, (bool, dict, list)):
        raise ConfigError(f"{shown} is {shortened(value)}; it must be one text.")
    try:
        text = str(value)
    except ValueError:  # a number of more than 4,300 digits
        raise ConfigError(f"{shown} is {shortened(value)}; it must be one text.") from None
    if not text.strip():
        raise ConfigError(f"{shown} is empty; name one, or leave it out.")
    return kind(text)
