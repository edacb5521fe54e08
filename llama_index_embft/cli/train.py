"""``embft train``: fine-tune a model on a data set. Every option can stand in a YAML file as well."""

from __future__ import annotations

import inspect
import os
import shlex
import sys
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer

from llama_index_embft.cli._engine_options import EngineOption, engine_options, methods, takes
from llama_index_embft.cli._shared import console, quiet_libraries
from llama_index_embft.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llama_index_embft.finetune.base import BaseFinetuneEngine, FinetuneResult

_DEFAULT_MODEL: Final = "BAAI/bge-small-en-v1.5"
_DEFAULT_OUT: Final = Path("runs") / "model"
_PROMPTS: Final = ("query_prompt", "document_prompt", "trust_remote_code")
_MOST_ROWS: Final = 12  # of the learning curve; the file has them all


def train(
    data: Path | None,
    config: Path | None,
    model: str | None,
    method: str | None,
    val: Path | None,
    guard: Path | None,
    out: Path | None,
    loss: str | None,
    teacher_scores: Path | None,
    progress: bool | None,
    push_to_hub: str | None,
    private: bool | None,
    **options: Any,
) -> None:
    """Fine-tune an embedding model on a data set.

    With --val the best state on it is kept, and the result is never worse on it than the model you began with.
    Every option can also stand in a YAML file given by --config (batch_size: 32); flags win over the file.
    """
    given: dict[str, Any] = {"data": data, "model": model, "method": method, "val": val, "guard": guard, "out": out}
    given |= {"loss": loss, "teacher_scores": teacher_scores, "progress": progress}
    given |= {"push_to_hub": push_to_hub, "private": private, **options}
    settings = _settings(config, given)
    repo_id = settings.get("push_to_hub")
    if repo_id is not None:
        from llama_index_embft.export.hub import check_can_push

        check_can_push(repo_id)  # hours of training later is too late to hear of a missing token
    _check_out(settings.get("out", _DEFAULT_OUT))
    quiet_libraries()
    engine = _engine(settings)
    result = engine.finetune()
    if int(os.environ.get("RANK", "0")) > 0:
        return  # under torchrun the first process alone speaks and writes
    _show(result)
    written = _write_more(result)
    if repo_id is not None:
        from llama_index_embft.export.hub import push_to_hub as push

        written.append((push(result.output_path, repo_id, private=settings.get("private", True)), "on the hub"))
    _show_files(result, written)


# What the command has beside the engines' own arguments: name -> (type, help).
_OWN: Final[dict[str, tuple[Any, str]]] = {
    "config": (Path, "YAML file with any of these options; its paths are relative to the current folder."),
    "model": (str, f"The model to tune: a folder, or a name on the Hugging Face hub. Default: {_DEFAULT_MODEL}."),
    "method": (str, f"One of {', '.join(methods())}. adapter: a layer on the query side, in seconds. Default: full."),
    "val": (Path, "Data set that chooses the best state."),
    "guard": (Path, "Data set that must not get worse."),
    "out": (Path, "Folder to save to; an earlier result there is replaced. Default: runs/model."),
    "loss": (str, "A loss of sentence-transformers by the name of its class, or cosent. Default: chosen by the data."),
    "teacher_scores": (Path, "Scores of a cross-encoder (JSON: query id, document id, score) to learn from."),
    "progress": (bool, "Show progress bars. Default: yes."),
    "push_to_hub": (str, "Upload the result to this repository (owner/name); the token comes from HF_TOKEN."),
    "private": (bool, "Make the repository private if it is new. Default: yes."),
}


def _typer_signature() -> inspect.Signature:
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
    for name, (kind, text) in _OWN.items():
        info = typer.Option(None, help=text)
        parameters.append(inspect.Parameter(name, keyword, default=info, annotation=kind | None))
    for option in engine_options().values():
        if option.name in _OWN:
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
        said = " Default: " + ", ".join(f"{text} ({method})" for method, text in defaults.items()) + "."
    else:
        said = ""
    only = " Only with --method adapter." if "full" not in option.defaults else ""
    text = option.help.replace("val_dataset", "--val").replace("guard_dataset", "--guard")
    return f"{text}{only}{said}"


def _metavar(option: EngineOption) -> str | None:
    if option.is_flag:
        return None
    kinds = [kind.upper() for kind in ("int", "float", "str", "list") if kind in option.kinds]
    return "|".join([*(kinds[1:] if "FLOAT" in kinds and "INT" in kinds else kinds), *map(str, option.choices)])


train.__signature__ = _typer_signature()  # type: ignore[attr-defined]
train.__annotations__ = {name: p.annotation for name, p in train.__signature__.parameters.items()}  # type: ignore[attr-defined]


def _settings(config: Path | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """File and flags as one, each value as its reader wants it; flags win."""
    known = {"data", *_OWN, *engine_options()} - {"config"}
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
    if name not in _OWN and name != "data":
        return engine_options()[name].convert(value, shown)
    kind = Path if name == "data" else _OWN[name][0]
    if kind is bool:
        if not isinstance(value, bool):
            raise ConfigError(f"{shown} is {value!r}; it must be true or false.")
        return value
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
    try:
        content = yaml.load(text, Loader)  # noqa: S506  # a SafeLoader
    except yaml.YAMLError as err:
        mark = getattr(err, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark is not None else ""
        raise ConfigError(f"{path} is not valid YAML{where}: {getattr(err, 'problem', None) or err}.") from err
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold options as 'name: value', a line each; it holds {content!r:.60}.")
    return content


def _engine(settings: dict[str, Any]) -> BaseFinetuneEngine:
    """The engine of the method, with every setting handed to it or refused."""
    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset

    method = settings.get("method", "full")
    if method not in methods():
        raise ConfigError(f"--method is {method!r}; choose one of {', '.join(methods())}.")
    if "data" not in settings:
        raise ConfigError("There is no training set: name the file (embft train DATA.json), or data: in the YAML file.")
    arguments = _arguments(method, settings)
    dataset = EmbeddingQAFinetuneDataset.from_json(settings["data"])
    model, progress = settings.get("model", _DEFAULT_MODEL), settings.get("progress", True)
    arguments["model_output_path"] = str(settings.get("out", _DEFAULT_OUT))
    if method == "adapter":
        from llama_index_embft.embeddings.loading import load_embed_model
        from llama_index_embft.finetune.adapter import EmbeddingAdapterFinetuneEngine

        loading = {name: arguments.pop(name) for name in _PROMPTS if name in arguments}
        base = load_embed_model(model, device=arguments.get("device"), **loading)
        return EmbeddingAdapterFinetuneEngine(dataset, base, verbose=progress, **arguments)
    from llama_index_embft.finetune.sentence_transformer import SentenceTransformersFinetuneEngine

    return SentenceTransformersFinetuneEngine(dataset, model, show_progress_bar=progress, **arguments)


def _arguments(method: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The engine's arguments but for the training set and the model; what it does not take is refused."""
    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset

    arguments = {name: settings[name] for name in engine_options() if name in settings}
    renamed = {"val": "val_dataset", "guard": "guard_dataset", "loss": "loss", "teacher_scores": "teacher_scores"}
    arguments |= {renamed[name]: settings[name] for name in renamed if name in settings}
    for name in arguments:
        loads_model = method == "adapter" and name in _PROMPTS
        if not (takes(method, name) or loads_model) or (name.startswith("lora_") and method != "lora"):
            shown = name.removesuffix("_dataset")
            raise ConfigError(f"{shown} has no meaning with method {method}; leave it out, or choose another method.")
    for name in ("val_dataset", "guard_dataset"):
        if name in arguments:
            arguments[name] = EmbeddingQAFinetuneDataset.from_json(arguments[name])
    if "loss" in arguments:
        arguments["loss"] = _loss(arguments["loss"])
    if "teacher_scores" in arguments:
        arguments["teacher_scores"] = _teacher_scores(arguments["teacher_scores"])
    if takes(method, "method"):
        arguments["method"] = method
    return arguments


def _loss(name: str) -> Any:
    from sentence_transformers.sentence_transformer import losses

    if name == "cosent":
        return name  # the engine's own word: it takes another form of the data
    found = getattr(losses, name, None)
    if not (isinstance(found, type) and name.endswith("Loss")):
        names = [loss for loss in dir(losses) if loss.endswith("Loss")]
        near = get_close_matches(name, names, n=1)
        advice = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}."
        raise ConfigError(f"--loss {name!r} is no loss of sentence-transformers; {advice}")
    return found


def _teacher_scores(path: Path) -> dict[str, dict[str, float]]:
    import json

    try:
        scores = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        reason = getattr(err, "strerror", None) or "it is not JSON"
        raise ConfigError(f"The file {path} cannot be read: {reason}; give --teacher-scores a JSON file.") from err
    rows = scores.values() if isinstance(scores, dict) else [None]
    if not all(isinstance(row, dict) and all(isinstance(x, (int, float)) for x in row.values()) for row in rows):
        raise ConfigError(f'{path} must hold scores as {{"query id": {{"document id": 1.5, …}}, …}}.')
    return {query: {doc: float(x) for doc, x in row.items()} for query, row in scores.items()}


def _check_out(out: Path) -> None:
    """Find out before training, not after it, that the folder cannot be written."""
    from llama_index_embft._files import write_folder_atomically

    class TriedError(Exception):
        pass

    with suppress(TriedError), write_folder_atomically(out):
        raise TriedError


def _show(result: FinetuneResult) -> None:
    console.print(str(result), soft_wrap=True, markup=False)
    _show_curve(result)
    seconds = ", ".join(f"{phase} {value:.1f}" for phase, value in result.seconds.items())
    peaks = {"peak memory": result.peak_memory_bytes, "on the GPU": result.peak_gpu_memory_bytes}
    memory = "".join(f"; {name} {value / 2**30:.2f} GiB" for name, value in peaks.items() if value is not None)
    console.print(f"Seconds: {seconds}{memory}")
    if result.merge_weight is not None:
        console.print(f"Merged: {result.merge_weight:g} of the way from the base weights to the trained ones.")


def _show_curve(result: FinetuneResult) -> None:
    from rich.table import Table

    columns = ["step", "epoch", "loss", result.metric, f"guard_{result.metric}"]
    columns = [name for name in columns if any(name in entry for entry in result.history)]
    entries = result.history
    if len(entries) > _MOST_ROWS:
        step = (len(entries) - 1) / (_MOST_ROWS - 1)
        kept = {round(step * row) for row in range(_MOST_ROWS)}
        entries = [e for i, e in enumerate(entries) if i in kept or e.get("step") == result.best_step]
    if not entries:
        return
    table = Table()
    for name in columns:
        table.add_column(name, justify="right")
    table.add_column("")
    for entry in entries:
        best = entry.get("step") == result.best_step and result.metric in entry
        cells = [_cell(name, entry.get(name)) for name in columns]
        table.add_row(*cells, "best" if best else "")
    console.print(table)


def _cell(name: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if name == "step" else f"{value:.2f}" if name == "epoch" else f"{value:.4f}"


def _write_more(result: FinetuneResult) -> list[tuple[str, str]]:
    """Files beside the model: the learning curve, and the card with the command that made it."""
    import json

    from llama_index_embft._files import atomic_write_text
    from llama_index_embft.finetune.curves import training_svg
    from llama_index_embft.finetune.model_card import model_card

    folder = result.output_path
    record_path = folder / "embft.json"
    record = json.loads(record_path.read_text(encoding="utf-8"))
    record["command"] = shlex.join(["embft", *sys.argv[1:]])
    atomic_write_text(record_path, json.dumps(record, indent=2) + "\n")
    atomic_write_text(folder / "README.md", model_card(record))
    written = [("embft.json", "data, settings, metrics and versions"), ("README.md", "the model card")]
    svg = training_svg(
        result.history,
        metric=result.metric,
        best_step=result.best_step if result.base_score is not None else None,
        losses=result.losses,
        merge_curve=result.merge_curve,
        merge_weight=result.merge_weight,
    )
    if svg is not None:
        atomic_write_text(folder / "training.svg", svg)
        written.append(("training.svg", "the learning curve"))
    return written


def _show_files(result: FinetuneResult, written: list[tuple[str, str]]) -> None:
    console.print(f"\n[bold]Written to {result.output_path}/[/bold]", soft_wrap=True)
    for name, meaning in written:
        console.print(f"  {name:<13} {meaning}", markup=False, soft_wrap=True)
    console.print("\n[bold]Use it[/bold]")
    console.print("  from llama_index_embft import load_embed_model", markup=False)
    console.print(f"  embed_model = load_embed_model({str(result.output_path)!r})", markup=False, soft_wrap=True)
