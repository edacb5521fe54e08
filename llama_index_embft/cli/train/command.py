"""``embft train``: fine-tune a model on a data set. Every option can stand in a YAML file as well."""

from __future__ import annotations

import os
from difflib import get_close_matches
from inspect import getdoc
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from llama_index_embft._core.checks import check_choice
from llama_index_embft.cli.shared.command import CONFIG_HELP, register
from llama_index_embft.cli.shared.config import SHARED, shared_options_in
from llama_index_embft.cli.shared.console import command_line, console, quiet_libraries, steps
from llama_index_embft.cli.shared.data import read_data
from llama_index_embft.cli.train.frozen import (
    FROZEN,
    PROMPTS,
    check_hosted,
    frozen_engine,
    hosted_model,
    how_to_load,
    is_hosted_name,
)
from llama_index_embft.cli.train.options import GROUPS, METHODS, engine_of, engine_options, takes
from llama_index_embft.cli.train.ray import ClusterRun, check_cluster, process_count
from llama_index_embft.cli.train.settings import DATA_HELP, DEFAULT_MODEL, DEFAULT_OUT, read_settings, train_options
from llama_index_embft.cli.train.tries import show_tries
from llama_index_embft.errors import ConfigError, OutputError
from llama_index_embft.finetune.options import grouped

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.finetune.distill.engine import DistillationEngine
    from llama_index_embft.finetune.engine import BaseFinetuneEngine, FinetuneResult
    from llama_index_embft.finetune.full.recipe import Recipe
    from llama_index_embft.finetune.reranker.engine import RerankerFinetuneEngine

# What the short runs of the search for a recipe go without.
_NOT_IN_SEARCH: Final = frozenset(
    {"val_dataset", "guard_dataset", "model_output_path", "mining", "save_checkpoints", "resume_from_checkpoint"}
    | {"checkpoint_save_steps", "checkpoint_save_total_limit"}
)
# Named in place of a file; a file or folder of that name goes before.
_GENERAL_GUARD: Final = Path("general")
_NOT_SETTINGS: Final = ("val_dataset", "guard_dataset", "model_output_path")
# Options of the command that engines take, beside their own.
_TAKEN: Final = {
    "full": ("val", "guard", "loss", "teacher_scores"),
    "adapter": ("val",),
    "nudge": ("val",),
    "reranker": ("val", "guard", "loss", "first_stage"),
    "distill": ("teacher",),
}
_TAKEN_BY_SOME: Final = ("val", "guard", "loss", "teacher_scores", "first_stage", "teacher")
# What `--help` shows; `--help-all` shows the others too.
_COMMON: Final = (
    "data",
    "embed_model",
    "method",
    "val",
    "guard",
    "out",
    "epochs",
    "batch_size",
    "learning_rate",
    "device",
)
_MOST_ROWS: Final = 12  # of the learning curve; the file has them all


def _register(app: typer.Typer) -> None:
    data = ("data", str | None, typer.Argument(None, help=DATA_HELP, show_default=False))
    info = typer.Option("--config", metavar="FILE", callback=_shared_in_file, is_eager=True, help=CONFIG_HELP)
    config = ("config", Annotated[Path | None, info], None)
    flags = (option.parameter() for name, option in train_options().items() if name not in ("data", "config"))

    def run(_values: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any] | None:
        return train({name: value for name, value in given.items() if name not in SHARED})

    register(app, "train", getdoc(train), (data, config, *flags), run, common=_COMMON)


def _shared_in_file(ctx: typer.Context, path: Path | None) -> Path | None:
    """What the file says of the output must be known before the command begins."""
    if path is not None and not ctx.resilient_parsing:
        ctx.default_map = shared_options_in(path, ctx.command.params)
    return path


def train(given: Mapping[str, Any]) -> dict[str, Any] | None:
    """Fine-tune an embedding model on a data set.

    With --val the saved model is never worse on it than the one you began with.

    Examples:
    embft train train.json --val val.json --method adapter --out runs/adapter
    embft train train.json --val val.json --embed-model intfloat/e5-small-v2 --epochs 3
    embft train --config train.yaml --method lora --guard general.json
    """
    from llama_index_embft._core.files import check_output_folder

    config = given.get("config")
    flags = {name: value for name, value in given.items() if name != "config"}
    settings = read_settings(None if config is None else Path(config), flags)
    repo_id = settings.get("push_to_hub")
    if repo_id is not None:
        from llama_index_embft.export.hub import check_can_push

        check_can_push(repo_id)  # hours of training later is too late to hear of a missing token
    check_output_folder(settings.get("out", DEFAULT_OUT))
    quiet_libraries()
    engine, chosen = _engine(settings)
    result = engine.finetune()
    if int(os.environ.get("RANK", "0")) > 0:
        return None  # under torchrun the first process alone speaks and writes
    _show(result)
    written = _write_more(result, chosen, process_count(settings))
    uploaded = None
    if repo_id is not None:
        from llama_index_embft.export.hub import push_to_hub as push

        uploaded = push(result.output_path, repo_id, private=settings.get("private", True))
        written.append((uploaded, "on the hub"))
    _show_files(result, written, settings)
    names = ("method", "metric", "base_score", "best_score", "best_step", "merge_weight", "selection", "seconds")
    record = {name: getattr(result, name) for name in names}
    return {"output_path": result.output_path, **record, "history": result.history, "uploaded": uploaded}


def _engine(
    settings: dict[str, Any],
) -> tuple[BaseFinetuneEngine | RerankerFinetuneEngine | ClusterRun, Recipe | None]:
    """The engine of the method, with every setting handed to it or refused, and the recipe if one was looked for."""
    method = settings.get("method", "full")
    check_choice("--method", method, METHODS)
    if "data" not in settings:
        raise ConfigError("There is no training set: name the file (embft train DATA.json), or data: in the YAML file.")
    check_cluster(method, settings)
    _check_recipe(method, settings)
    check_hosted(method, settings)
    arguments = _arguments(method, settings)
    dataset = read_data(settings["data"])
    if "teacher_scores" in settings:
        dataset = dataset.replace(teacher_scores=_teacher_scores(settings["teacher_scores"]))
    model, progress = settings.get("embed_model", DEFAULT_MODEL), settings.get("progress", True)
    arguments["model_output_path"] = str(settings.get("out", DEFAULT_OUT))
    if method in FROZEN:
        return frozen_engine(method, dataset, settings, arguments), None
    if "ray" in settings:
        return ClusterRun(dataset, model, settings, arguments), None
    if method == "reranker":
        return _reranker_engine(dataset, model, settings, arguments), None
    if method == "distill":
        return _distillation_engine(dataset, settings, arguments), None
    from llama_index_embft.finetune.full.engine import SentenceTransformersFinetuneEngine

    chosen = None
    if "recipe" in settings:
        chosen = _recipe(dataset, model, arguments, settings)
        arguments |= chosen.engine_arguments(arguments.get("loss_settings"))
    return SentenceTransformersFinetuneEngine(dataset, model, show_progress_bar=progress, **arguments), chosen


def _reranker_engine(
    dataset: EmbeddingQAFinetuneDataset, model: str, settings: dict[str, Any], arguments: dict[str, Any]
) -> RerankerFinetuneEngine:
    from llama_index_embft.finetune.reranker.engine import RerankerFinetuneEngine
    from llama_index_embft.finetune.reranker.settings import RerankerSettings

    own = {name: arguments.pop(name) for name in _NOT_SETTINGS if name in arguments}
    return RerankerFinetuneEngine(
        dataset,
        model,
        **own,
        embed_model=settings.get("first_stage"),
        settings=RerankerSettings(**arguments),
        show_progress=settings.get("progress", True),
    )


def _distillation_engine(
    dataset: EmbeddingQAFinetuneDataset, settings: dict[str, Any], arguments: dict[str, Any]
) -> DistillationEngine:
    from llama_index_embft.finetune.distill.engine import DistillationEngine
    from llama_index_embft.finetune.distill.settings import DistillationSettings

    teacher = settings.get("teacher")
    if teacher is None:
        raise ConfigError("--method distill learns the vectors of a teacher; name it: --teacher MODEL.")
    out = arguments.pop("model_output_path")
    return DistillationEngine(
        dataset,
        hosted_model(teacher, settings) if is_hosted_name(teacher) else teacher,
        settings.get("embed_model"),
        out,
        settings=DistillationSettings(**arguments),
        show_progress=settings.get("progress", True),
    )


def _arguments(method: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The engine's arguments but for the training set and the model; what it does not take is refused."""
    from llama_index_embft.dataset.documents import general_guard

    engine = engine_of(method)
    given = {name: settings[name] for name in engine_options() if name in settings}
    for name in (*given, *(name for name in _TAKEN_BY_SOME if name in settings)):
        loads_model = method in FROZEN and name in PROMPTS
        known = takes(method, name) if name in given else name in _TAKEN[engine]
        if not (known or loads_model) or (name.startswith("lora_") and method != "lora"):
            raise ConfigError(f"{name} is not an option of --method {method}; leave it out, or choose another method.")
    arguments = grouped(given, GROUPS[engine])
    for name in ("val", "guard"):
        if name in settings:
            arguments[f"{name}_dataset"] = (
                general_guard()
                if name == "guard" and settings[name] == _GENERAL_GUARD and not _GENERAL_GUARD.exists()
                else read_data(settings[name])
            )
    if "loss" in settings:
        arguments["loss"] = settings["loss"] if engine == "reranker" else _loss(settings["loss"])
    if engine == "full":
        arguments["method"] = method
    return arguments


def _check_recipe(method: str, settings: dict[str, Any]) -> None:
    if settings.get("recipe", "auto") != "auto":
        raise ConfigError(f"--recipe is {settings['recipe']!r}; the only one is auto.")
    if "recipe" in settings and method in (*FROZEN, "reranker", "distill"):
        raise ConfigError(f"recipe is not an option of --method {method}; leave it out, or choose another method.")
    if "recipe" in settings and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("recipe auto runs in one process; look for the recipe first, then give it to torchrun's run.")
    if "time_budget" in settings and "recipe" not in settings and method != "adapter":
        raise ConfigError("time_budget is for the search of --recipe auto; give both, or leave it out.")


def _recipe(
    dataset: EmbeddingQAFinetuneDataset, model: str, arguments: dict[str, Any], settings: dict[str, Any]
) -> Recipe:
    """Search on the same data with the same arguments; what the user has set is not searched."""
    from rich.table import Table

    from llama_index_embft.finetune.full.recipe import choose_recipe

    same = {name: value for name, value in arguments.items() if name not in _NOT_IN_SEARCH}
    given: dict[str, Any] = {
        plural: (settings[name],)
        for name, plural in (("temperature", "temperatures"), ("learning_rate", "learning_rates"), ("epochs", "epochs"))
        if name in settings
    }
    same = {name: value for name, value in same.items() if name not in ("learning_rate", "epochs")}
    limit = {"max_guard_loss": settings["max_guard_loss"]} if "max_guard_loss" in settings else {}
    guard, val, budget = (
        arguments.get("guard_dataset"),
        arguments.get("val_dataset"),
        settings.get("time_budget", 600.0),
    )
    with steps().status("Looking for a recipe"):
        chosen = choose_recipe(dataset, model, val, time_budget=budget, guard=guard, **given, **limit, **same)
    table = Table()
    rows = [{k: v for k, v in row.items() if guard is not None or not k.startswith("guard_")} for row in chosen.rows()]
    for name in rows[0]:
        table.add_column(name, justify="left" if name == "note" else "right")
    for row in rows:
        table.add_row(*(f"{v:.4g}" if isinstance(v, float) else str("" if v is None else v) for v in row.values()))
    console.print(table)
    console.print(str(chosen), markup=False, soft_wrap=True)
    return chosen


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


def _show(result: FinetuneResult) -> None:
    console.print(str(result), soft_wrap=True, markup=False)
    show_tries(result)
    _show_curve(result)
    seconds = ", ".join(f"{phase} {value:.1f}" for phase, value in result.seconds.items())
    peaks = {"peak memory": result.peak_memory_bytes, "on the GPU": result.peak_gpu_memory_bytes}
    memory = "".join(f"; {name} {value / 2**30:.2f} GiB" for name, value in peaks.items() if value is not None)
    console.print(f"Seconds: {seconds}{memory}")
    if result.merge_weight is not None:
        console.print(f"Merge weight: {result.merge_weight:g} (0 is the base model, 1 the trained one)")


def _show_curve(result: FinetuneResult) -> None:
    from rich.table import Table

    columns = ["step", "epoch", "loss", result.metric, f"guard_{result.metric}"]
    columns = [name for name in columns if any(name in entry for entry in result.history)]
    entries = result.history
    # Step 0 has two rows where a closed form was tried: the base model's and its own. The score says which was saved.
    at_best = [e for e in entries if e.get("step") == result.best_step and result.metric in e]
    best = next((e for e in at_best if e[result.metric] == result.best_score), at_best[0] if at_best else None)
    if len(entries) > _MOST_ROWS:
        step = (len(entries) - 1) / (_MOST_ROWS - 1)
        kept = {round(step * row) for row in range(_MOST_ROWS)}
        entries = [e for i, e in enumerate(entries) if i in kept or e is best]
    if not entries:
        return
    table = Table()
    for name in columns:
        table.add_column(name, justify="right")
    table.add_column("")
    for entry in entries:
        cells = [_cell(name, entry.get(name)) for name in columns]
        table.add_row(*cells, "best" if entry is best else "")
    console.print(table)


def _cell(name: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if name == "step" else f"{value:.2f}" if name == "epoch" else f"{value:.4f}"


def _write_more(result: FinetuneResult, chosen: Recipe | None, processes: int) -> list[tuple[str, str]]:
    """Files beside the model: the learning curve, and the card with the command that made it."""
    try:
        return _add_files(result, chosen, processes)
    except OutputError:  # another run may have replaced the folder just then
        return _add_files(result, chosen, processes)


def _add_files(result: FinetuneResult, chosen: Recipe | None, processes: int) -> list[tuple[str, str]]:
    import json

    from llama_index_embft._core.files import atomic_write_text
    from llama_index_embft.finetune.curves import training_svg
    from llama_index_embft.finetune.model_card import model_card

    folder = result.output_path
    record_path = folder / "embft.json"
    record = json.loads(record_path.read_text(encoding="utf-8"))
    if (record.get("metrics") or {}).get("best") != result.best_score:
        return []  # another run's result stands there by now: this command did not make it
    record["command"] = command_line()
    record["processes"] = processes
    if chosen is not None:
        record["recipe"] = chosen.rows()
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


def _show_files(result: FinetuneResult, written: list[tuple[str, str]], settings: dict[str, Any]) -> None:
    console.print(f"\n[bold]Written to {result.output_path}/[/bold]", soft_wrap=True)
    for name, meaning in written:
        console.print(f"  {name:<13} {meaning}", markup=False, soft_wrap=True)
    console.print("\n[bold]Use it[/bold]")
    for line in how_to_load(result, settings):
        console.print(f"  {line}", markup=False, soft_wrap=True)


train.register = _register  # type: ignore[attr-defined]  # its options come from the engines
