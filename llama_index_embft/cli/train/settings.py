"""The settings of ``embft train``: flags and a YAML file as one, checked."""

from __future__ import annotations

import inspect
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer

from llama_index_embft.cli._ray import RAY_HELP
from llama_index_embft.cli.train.options import EngineOption, engine_options, methods
from llama_index_embft.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_MODEL: Final = "BAAI/bge-small-en-v1.5"
DEFAULT_OUT: Final = Path("runs") / "model"

# What the command has beside the engines' own arguments: name -> (type, help).
OWN: Final[dict[str, tuple[Any, str]]] = {
    "config": (Path, "YAML file with any of these options; its paths are relative to the current folder."),
    "model": (str, f"The model to tune: a folder, or a name on the Hugging Face hub. Default: {DEFAULT_MODEL}."),
    "embed_model": (str, "A hosted model to tune by adapter or nudge, as openai:MODEL; the key is OPENAI_API_KEY."),
    "api_base": (str, "Address of its server, if it is not OpenAI's own: http://host:port/v1."),
    "requests_per_minute": (int, "Most calls of it a minute. Default: no limit."),
    "tokens_per_minute": (int, "Most tokens of it a minute. Default: no limit."),
    "method": (
        str,
        f"One of {', '.join(methods())}. adapter: a layer over a frozen model, in seconds; nudge: moved document "
        "vectors. Default: full.",
    ),
    "val": (Path, "Data set that chooses the best state."),
    "guard": (Path, "Data set that must not get worse."),
    "out": (Path, "Folder to save to; an earlier result there is replaced. Default: runs/model."),
    "loss": (str, "A loss of sentence-transformers by the name of its class, or cosent. Default: chosen by the data."),
    "teacher_scores": (Path, "Scores of a cross-encoder (JSON: query id, document id, score) to learn from."),
    "recipe": (str, "auto: try temperatures, learning rates and epochs first; what is given by a flag stays as given."),
    "time_budget": (float, "Seconds for that, default 600, or for --kind auto of the adapter, default 120."),
    "ray": (str, RAY_HELP),
    "ray_workers": (int, "With --ray: processes, which share each batch. Default: 2."),
    "ray_cpus": (float, "With --ray: CPUs of each. Default: 1."),
    "ray_gpus": (float, "With --ray: GPUs of each; 0 trains on CPUs. Default: 0."),
    "progress": (bool, "Show progress bars. Default: yes."),
    "push_to_hub": (str, "Upload the result to this repository (owner/name); the token comes from HF_TOKEN."),
    "private": (bool, "Make the repository private if it is new. Default: yes."),
}


def typer_signature() -> inspect.Signature:
    """The command's parameters: all None unless given, so that a flag can be told from a default."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    data_help = "Training set (JSON with queries, corpus and relevant_docs)."
    parameters = [
        inspect.Parameter(
            "data",
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=typer.Argument(None, help=data_help),
            annotation=Path | None,
        )
    ]
    for name, (kind, text) in OWN.items():
        number = kind in (int, float)
        info = typer.Option(None, help=text, metavar=kind.__name__.upper() if number else None)
        hint = (str if number else kind) | None  # read below, with a message of ours
        parameters.append(inspect.Parameter(name, keyword, default=info, annotation=hint))
    for option in engine_options().values():
        if option.name in OWN:
            continue
        info = typer.Option(None, help=_help(option), rich_help_panel="Training", metavar=_metavar(option))
        hint = (bool if option.is_flag else str) | None
        parameters.append(inspect.Parameter(option.name, keyword, default=info, annotation=hint))
    return inspect.Signature(parameters)


def _help(option: EngineOption) -> str:
    defaults = {method: text for method, text in option.defaults.items() if text not in ("None", "")}
    if len(set(defaults.values())) == 1 and defaults.keys() == option.defaults.keys():
        said = f" Default: {next(iter(defaults.values()))}."
    elif defaults:
        methods_of: dict[str, list[str]] = {}
        for method, text in defaults.items():
            methods_of.setdefault(text, []).append(method)
        said = " Default: " + ", ".join(f"{text} ({', '.join(names)})" for text, names in methods_of.items()) + "."
    else:
        said = ""
    others = [method for method in option.defaults if method not in ("full", "lora")]
    only = f" Only with --method {' or '.join(others)}." if "full" not in option.defaults else ""
    text = option.help.replace("val_dataset", "--val").replace("guard_dataset", "--guard")
    return f"{text}{only}{said}"


def _metavar(option: EngineOption) -> str | None:
    if option.is_flag:
        return None
    kinds = [kind.upper() for kind in ("int", "float", "str", "list") if kind in option.kinds]
    return "|".join([*(kinds[1:] if "FLOAT" in kinds and "INT" in kinds else kinds), *map(str, option.choices)])


def read_settings(config: Path | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """File and flags as one, each value as its reader wants it; flags win."""
    known = {"data", *OWN, *engine_options()} - {"config"}
    settings: dict[str, Any] = {}
    for key, value in (_read(config) if config is not None else {}).items():
        name = str(key).replace("-", "_")
        if name not in known:
            near = get_close_matches(name, sorted(known), n=1)
            advice = f"did you mean {near[0]!r}?" if near else "embft train --help lists the options."
            raise ConfigError(f"{config}: unknown key {str(key)!r}; {advice}")
        if name in settings:
            raise ConfigError(f"{config}: {name} stands there twice; keep one.")
        if value is not None or (name in engine_options() and "None" in engine_options()[name].kinds):
            settings[name] = _converted(name, value, f"{name} in {config}")
    for name, value in given.items():
        if value is not None:
            settings[name] = _converted(name, value, f"--{name.replace('_', '-')}")
    return settings


def _converted(name: str, value: Any, shown: str) -> Any:
    if name not in OWN and name != "data":
        return engine_options()[name].convert(value, shown)
    kind = Path if name == "data" else OWN[name][0]
    if kind is bool:
        if not isinstance(value, bool):
            raise ConfigError(f"{shown} is {value!r}; it must be true or false.")
        return value
    if kind in (int, float):
        return EngineOption(name, frozenset({kind.__name__}), (), "", {}, "").convert(value, shown)
    if isinstance(value, (bool, dict, list)):
        raise ConfigError(f"{shown} is {value!r}; it must be one text.")
    return kind(str(value))


def _read(path: Path) -> dict[Any, Any]:
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML is untyped
        """Refuses a key that stands twice, of which YAML's own loader silently keeps the last."""

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            for key in keys:
                if keys.count(key) > 1:
                    raise ConfigError(f"{path}: {key} stands there twice; keep one.")
            return super().construct_mapping(node, deep)

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as err:
        reason = getattr(err, "strerror", None) or "it is not UTF-8 text"
        raise ConfigError(f"The file {path} cannot be read: {reason}; give --config a YAML file.") from err
    loader = None
    try:
        loader = Loader(text)  # refuses characters that YAML does not allow
        content = loader.get_single_data()
    except yaml.YAMLError as err:
        mark = getattr(err, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark is not None else ""
        reason = getattr(err, "problem", None) or str(err).splitlines()[0]
        raise ConfigError(f"{path} is not valid YAML{where}: {reason}.") from err
    except RecursionError as err:
        raise ConfigError(f"{path} is nested too deeply; it must hold options as 'name: value', a line each.") from err
    finally:
        if loader is not None:
            loader.dispose()
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold options as 'name: value', a line each; it holds {content!r:.60}.")
    return content
