"""``embft evaluate``: how well does a model, or an existing index, find the right documents?"""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  # typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llama_index_embft.cli.shared.data import DATA_HELP, read_data

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding

    from llama_index_embft.evaluation import RetrievalReport


def evaluate(
    data: Annotated[Path | None, typer.Argument(help=f"{DATA_HELP} Not with --index.")] = None,
    embed_model: Annotated[
        str | None,
        typer.Option(help="Saved result, model folder, name on the Hugging Face hub, or openai:MODEL (with --index)."),
    ] = None,
    index: Annotated[
        str | None,
        typer.Option(
            help="An existing index: a folder (persisted LlamaIndex, Qdrant or LanceDB), http://… (Qdrant) or "
            "postgresql://…"
        ),
    ] = None,
    table: Annotated[str | None, typer.Option(help="Collection or table of --index, where there are several.")] = None,
    questions: Annotated[
        Path | None,
        typer.Option(
            help="With --index: questions with node_ids, or with document and page, or a data set whose texts stand in "
            "the index."
        ),
    ] = None,
    drop: Annotated[
        bool, typer.Option("--drop", help="With --index: leave out questions of which a label names nothing there.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Write the report of every query, for `embft compare`.")] = None,
    label: Annotated[str | None, typer.Option(help="Name in tables; default: the model's.")] = None,
    k: Annotated[list[int] | None, typer.Option("--k", help="Cut-off; repeat for several. Default: 1 3 5 10.")] = None,
    metadata_mode: Annotated[
        str, typer.Option(help="'embed': texts with metadata, as the index embeds them; 'none': without.")
    ] = "embed",
    csv: Annotated[Path | None, typer.Option(help="Write one row per query and one column per metric.")] = None,
    trec_run: Annotated[Path | None, typer.Option(help="Write the hits as a TREC run file.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Texts a batch; default: chosen by device.")] = None,
    device: Annotated[str | None, typer.Option(help="Torch device; default: a GPU if there is one.")] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Embed everything anew.")] = False,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that comes with the model; read it first.")
    ] = False,
) -> dict[str, Any]:
    """Evaluate one embedding model on a data set, or an existing index, on your questions.

    Examples:
    embft evaluate test.json --embed-model BAAI/bge-small-en-v1.5 --out base.json
    embft evaluate beir/scifact --embed-model runs/model --k 10 --json
    embft evaluate --index storage/ --questions asked.csv --embed-model BAAI/bge-small-en-v1.5
    """
    from llama_index_embft.cli.shared.console import console, quiet_libraries, written
    from llama_index_embft.cli.shared.options import check_not_with, check_only_for, check_outputs
    from llama_index_embft.errors import ConfigError

    if (data is None) == (index is None):
        raise ConfigError("Give a data set to search, or --index with --questions: one of the two.")
    if (index is None) != (questions is None):
        raise ConfigError("--index and --questions belong together: the index, and what is asked of it.")
    if embed_model is None:
        raise ConfigError("Name the embedding model with --embed-model; with --index the one that embedded it.")
    check_only_for("--index", index is not None, {"table": table, "drop": drop})
    other_mode = None if metadata_mode == "embed" else metadata_mode
    of_texts = {"metadata_mode": other_mode, "batch_size": batch_size, "no_cache": no_cache}
    check_not_with("--index", index is not None, of_texts)
    check_outputs({"out": out, "csv": csv, "trec_run": trec_run}, (data, questions))
    ks = tuple(k) if k else (1, 3, 5, 10)
    dataset = None if data is None else read_data(data)
    quiet_libraries()
    loaded = _load(embed_model, device=device, trust_remote_code=trust_remote_code)
    if dataset is not None:
        from llama_index_embft.cli.shared.console import show_cut
        from llama_index_embft.evaluation import evaluate_embed_model

        report = evaluate_embed_model(
            dataset,
            loaded,
            ks=ks,
            label=label,
            metadata_mode=metadata_mode,  # type: ignore[arg-type]  # checked there
            cache=None if no_cache else "default",
            batch_size=batch_size,
            show_progress=True,
            device=device,
        )
        _show(report)
        show_cut(loaded, dataset)
        more: dict[str, Any] = {}
    else:
        assert index is not None
        assert questions is not None
        report, more = _of_index(index, table, questions, loaded, ks=ks, label=label or embed_model, drop=drop)
        _show(report)
        if dropped := more["dropped"]:
            console.print(f"Left out: {len(dropped):,} questions of which a label names nothing in the index, such as")
        for asked, reason in list(dropped.items())[:3]:
            console.print(f"  {asked}: {reason}", markup=False, soft_wrap=True)
    if out is not None:
        report.to_json(out)
    if csv is not None:
        report.to_csv(csv)
    if trec_run is not None:
        report.to_trec_run(trec_run)
    return {
        "label": report.label,
        "metrics": report.summary(),
        "queries": len(report.query_ids),
        "corpus": report.corpus_size,
        "notes": list(report.notes),
        **more,
        **written(out, csv, trec_run),
    }


def _load(name: str, *, device: str | None, trust_remote_code: bool) -> BaseEmbedding:
    if name.startswith("openai:"):
        from llama_index_embft.embeddings import make_embed_model

        return make_embed_model(name)
    from llama_index_embft.embeddings import load_embed_model

    return load_embed_model(name, device=device, trust_remote_code=trust_remote_code)


def _of_index(
    where: str,
    table: str | None,
    questions: Path,
    embed_model: BaseEmbedding,
    *,
    ks: tuple[int, ...],
    label: str,
    drop: bool,
) -> tuple[RetrievalReport, dict[str, Any]]:
    """Ask the index itself: its own vectors, as its users search it."""
    from llama_index_embft.cli.shared.console import console
    from llama_index_embft.evaluation import evaluate_retriever
    from llama_index_embft.index import check_index, questions_for_index
    from llama_index_embft.index.stores import open_index, open_table

    opened = open_index(where, table=table, embed_model=embed_model)
    stamped = open_table(opened.index, persist_dir=opened.persist_dir).read_stamp() is not None
    if stamped:
        check_index(opened.index, embed_model)
    else:
        console.print(
            "Note: the index does not say which model embedded it; figures of another model mean nothing. "
            "`embft apply MODEL --index … --stamp` writes it down.",
            markup=False,
            soft_wrap=True,
        )
    asked = questions_for_index(opened.index, questions, persist_dir=opened.persist_dir, drop=drop)
    retriever = opened.index.as_retriever(similarity_top_k=max(ks))
    report = evaluate_retriever(asked.dataset, retriever, ks=ks, label=label, show_progress=True)
    return report, {"labels": asked.labels, "dropped": asked.dropped, "stamped": stamped}


def _show(report: RetrievalReport) -> None:
    from rich.markup import escape

    from llama_index_embft.cli.shared.console import console

    console.print(f"[bold]{escape(report.label)}[/bold]")
    console.print(report.table().to_rich())
    console.print(
        f"{len(report.query_ids):,} queries, {report.corpus_size:,} chunks{f'; {report.text}' if report.text else ''}"
    )
    for note in report.notes:
        console.print(f"Note: {escape(note)}")
