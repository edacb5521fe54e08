"""``embft evaluate``: how well does a model find the right documents of a data set?"""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  # typer reads the annotations
from typing import Annotated, Any

import typer

from llama_index_embft.cli.shared.data import DATA_HELP, read_data


def evaluate(
    data: Annotated[Path, typer.Argument(help=DATA_HELP)],
    embed_model: Annotated[str, typer.Option(help="Saved result, model folder or name on the Hugging Face hub.")],
    out: Annotated[Path | None, typer.Option(help="Write the report of every query, for `embft compare`.")] = None,
    label: Annotated[str | None, typer.Option(help="Name in tables; default: the model's.")] = None,
    k: Annotated[list[int] | None, typer.Option("--k", help="Cut-off; repeat for several. Default: 1 3 5 10.")] = None,
    metadata_mode: Annotated[
        str, typer.Option(help="'embed': texts with metadata, as the index embeds them; 'none': without.")
    ] = "embed",
    csv: Annotated[Path | None, typer.Option(help="Write a line a query, a column a metric.")] = None,
    trec_run: Annotated[Path | None, typer.Option(help="Write the hits as a TREC run file.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Texts a batch; default: chosen by device.")] = None,
    device: Annotated[str | None, typer.Option(help="Torch device; default: a GPU if there is one.")] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Embed everything anew.")] = False,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that comes with the model; read it first.")
    ] = False,
) -> dict[str, Any]:
    """Evaluate one embedding model on a data set.

    Examples:
    embft evaluate test.json --embed-model BAAI/bge-small-en-v1.5 --out base.json
    embft evaluate beir/scifact --embed-model runs/model --k 10 --json
    """
    from rich.markup import escape

    from llama_index_embft.cli.shared.console import console, quiet_libraries, show_cut, written
    from llama_index_embft.embeddings.loading import load_embed_model
    from llama_index_embft.evaluation import evaluate_embed_model

    dataset = read_data(data)
    quiet_libraries()
    loaded = load_embed_model(embed_model, device=device, trust_remote_code=trust_remote_code)
    report = evaluate_embed_model(
        dataset,
        loaded,
        ks=tuple(k) if k else (1, 3, 5, 10),
        label=label,
        metadata_mode=metadata_mode,  # type: ignore[arg-type]  # checked there
        cache=None if no_cache else "default",
        batch_size=batch_size,
        show_progress=True,
        device=device,
    )
    console.print(f"[bold]{escape(report.label)}[/bold]")
    console.print(report.table().to_rich())
    console.print(f"{len(report.query_ids):,} queries, {report.corpus_size:,} chunks; {report.text}")
    for note in report.notes:
        console.print(f"Note: {escape(note)}")
    show_cut(loaded, dataset)
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
        **written(out, csv, trec_run),
    }
