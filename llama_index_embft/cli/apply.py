"""``embft apply``: a tuned model onto an index that exists."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llama_index_embft.cli.shared.models import HostedModelOptions, LocalModelOptions  # noqa: TC001

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding

    from llama_index_embft.index.stores.opening import OpenedIndex
    from llama_index_embft.index.update import UpdateResult


def apply(
    model: Annotated[
        str, typer.Argument(help="Saved result, model folder, name on the Hugging Face hub, or openai:MODEL.")
    ],
    index: Annotated[
        str,
        typer.Option(
            help="The index: a folder (persisted LlamaIndex, Qdrant or LanceDB), http://… (Qdrant) or postgresql://…"
        ),
    ],
    table: Annotated[str | None, typer.Option(help="Collection or table, where there are several.")] = None,
    base: Annotated[
        str | None,
        typer.Option(help="Model below an adapter or moved documents, hosted ones as openai:MODEL; default: as saved."),
    ] = None,
    stamp: Annotated[bool, typer.Option("--stamp", help="Write into the index that MODEL embedded it.")] = False,
    check: Annotated[bool, typer.Option("--check", help="May MODEL search the index? Exit code 2 if not.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Finish a killed update from its journal.")] = False,
    rollback: Annotated[bool, typer.Option("--rollback", help="Write the old vectors back.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would change, and change nothing.")] = False,
    journal: Annotated[
        Path | None, typer.Option(help="File for old and new vectors; default for a folder: FOLDER.embft-journal.")
    ] = None,
    verify: Annotated[
        int | None, typer.Option(help="Documents to embed again and compare. Default: 3 with --stamp, else 0.")
    ] = None,
    skip_missing: Annotated[bool, typer.Option("--skip-missing", help="Go on without nodes that are gone.")] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Vectors a batch.")] = 512,
    *,
    local: Annotated[LocalModelOptions, "A model that runs here"],
    server: Annotated[HostedModelOptions, "A hosted model"],
) -> dict[str, Any]:
    """Put a model onto an index: stamp it, check it, update its vectors, or take an update back.

    Without a flag the document vectors are changed as MODEL wants them: moved documents (NUDGE) are written, a
    document-side adapter goes over the stored vectors, any other model embeds every text again. For a query-side
    adapter there is nothing to do.

    Examples:
    embft apply runs/model --index storage/ --dry-run
    embft apply runs/model --index storage/
    embft apply runs/model --index http://localhost:6333 --table docs --journal docs.journal
    """
    from llama_index_embft.cli.shared.console import console
    from llama_index_embft.cli.shared.options import check_not_with, check_only_for
    from llama_index_embft.errors import ConfigError
    from llama_index_embft.index.identity import check_index, stamp_index
    from llama_index_embft.index.stores.opening import open_index
    from llama_index_embft.index.update import resume_update, rollback_index, update_index

    if sum((stamp, check, resume, rollback)) > 1:
        raise ConfigError("Give one of --stamp, --check, --resume and --rollback.")
    if dry_run and (stamp or check or resume or rollback):
        raise ConfigError("--dry-run is for an update; the other actions say what they do.")
    check_only_for("--stamp or --check", stamp or check, {"verify": verify})
    of_update = {"journal": journal, "skip_missing": skip_missing}
    check_not_with("--stamp", stamp, of_update)
    check_not_with("--check", check, of_update)
    embed_model = _load(model, base, _given(local), _given(server))
    opened = open_index(index, table=table, embed_model=embed_model)
    if stamp:
        made = stamp_index(
            opened.index, embed_model, verify=3 if verify is None else verify, persist_dir=opened.persist_dir
        )
        console.print(f"Stamped: the index holds vectors of {made.model}, {made.dim} dimensions.", markup=False)
        return {"action": "stamp", "model": made.model, "dim": made.dim}
    if check:
        found = check_index(opened.index, embed_model, verify=verify or 0)
        fits = f"Fits: the index was embedded by {found.model}, and {embed_model.model_name} may search it."
        console.print(fits, markup=False, soft_wrap=True)
        return {"action": "check", "model": found.model, "dim": found.dim}
    if dry_run:
        return _show_plan(opened, embed_model, batch_size)
    place = journal or _journal_beside(index, table, opened)
    options = {"persist_dir": opened.persist_dir, "batch_size": batch_size}
    missing = "skip" if skip_missing else "error"
    if resume:
        return _show(resume_update(opened.index, place, missing=missing, **options), "Finished")  # type: ignore[arg-type]
    if rollback:
        return _show(rollback_index(opened.index, place, missing=missing, **options), "Taken back")  # type: ignore[arg-type]
    result = update_index(opened.index, embed_model, journal=place, missing=missing, **options)  # type: ignore[arg-type]
    return _show(result, "Updated")


def _load(model: str, base: str | None, local: dict[str, Any], server: dict[str, Any]) -> BaseEmbedding:
    from llama_index_embft.embeddings.distilled import DistilledEmbedding
    from llama_index_embft.embeddings.drift import DriftEmbedding, holds_drift
    from llama_index_embft.embeddings.loading import load_embed_model
    from llama_index_embft.embeddings.wrapped import WrappedEmbedding
    from llama_index_embft.errors import ConfigError

    if server and not any(_is_hosted(name) for name in (model, base)):
        raise ConfigError(f"{next(iter(server))} is for a hosted model; name one as openai:MODEL, or leave it out.")
    below = None if base is None else _open_model(base, local, server)
    if holds_drift(Path(model)):
        if below is None:
            raise ConfigError(f"{model} is a drift map; give the new model below it: --base.")
        return DriftEmbedding(below, model)
    if _is_hosted(model):
        loaded = _open_model(model, local, server)
    else:
        loaded = load_embed_model(model, base_embed_model=below, **local)
    if below is not None and not isinstance(loaded, (WrappedEmbedding, DistilledEmbedding)):
        raise ConfigError(
            f"base is for an adapter, moved documents or a distilled model, and {model} is a whole model; leave it out."
        )
    return loaded


def _is_hosted(name: str | None) -> bool:
    return name is not None and name.startswith("openai:")


def _open_model(name: str, local: dict[str, Any], server: dict[str, Any]) -> BaseEmbedding:
    """A model by its name alone: a hosted one, whose key is in the environment, or one that runs here."""
    from llama_index_embft.embeddings.encoding.hosted import make_embed_model
    from llama_index_embft.embeddings.loading import load_embed_model
    from llama_index_embft.errors import ConfigError

    if not _is_hosted(name):
        return load_embed_model(name, **local)
    for option in local:
        raise ConfigError(f"{option} is for a model that runs here, and {name} runs on its server; leave it out.")
    return make_embed_model(name, **server)


def _given(options: LocalModelOptions | HostedModelOptions) -> dict[str, Any]:
    return {name: value for name, value in vars(options).items() if value is not None and value is not False}


def _journal_beside(index: str, table: str | None, opened: OpenedIndex) -> Path:
    from llama_index_embft.errors import ConfigError

    if "://" in index:
        raise ConfigError(
            "The index is no folder; say where the journal with the old vectors is to be: --journal FILE."
        )
    folder = Path(index).absolute()
    suffix = "" if table is None or opened.persist_dir is not None else f".{table}"
    return folder.with_name(f"{folder.name}{suffix}.embft-journal")


def _show_plan(opened: OpenedIndex, embed_model: BaseEmbedding, batch_size: int) -> dict[str, Any]:
    from llama_index_embft.cli.shared.console import console
    from llama_index_embft.index.update import plan_update

    plan = plan_update(opened.index, embed_model, batch_size=batch_size)
    if plan.nodes:
        changed = "all" if plan.changed is None else f"{plan.changed:,}"
        text = f"From: {plan.source}\nTo:   {plan.target}\n"
        text += f"Would {plan.action}: {plan.nodes:,} nodes looked at, {changed} vectors to be written."
    else:
        text = f"Nothing would change: the index holds the document vectors of {plan.source} already."
    console.print(text, markup=False, soft_wrap=True)
    return {"action": "dry-run", **asdict(plan)}


def _show(result: UpdateResult, done: str) -> dict[str, Any]:
    from llama_index_embft.cli.shared.console import console

    if result.journal is None:
        text = f"Nothing to do: the index holds the document vectors of {result.target} already."
    else:
        lost = f", {result.lost:,} nodes are gone" if result.lost else ""
        text = f"{done}: the index now holds vectors of {result.target}.\n{result.written:,} vectors written, "
        text += f"{result.unchanged:,} as they were{lost}. Journal: {result.journal}"
    console.print(text, markup=False, soft_wrap=True)
    return {"action": done.lower(), **asdict(result)}
