"""``embft evaluate``: how well does a model find the right documents of a data set?"""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  # typer reads the annotations
from typing import Annotated

import typer


def evaluate(
    data: Annotated[Path, typer.Argument(help="Data set (JSON with queries, corpus and relevant_docs).")],
    model: Annotated[str, typer.Option(help="Saved result, model folder or name on the Hugging Face hub.")],
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
) -> None:
    """Evaluate one embedding model on a data set."""
    from rich.markup import escape

    from llama_index_embft.cli.shared.console import console, show_cut
    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.embeddings.loading import load_embed_model
    from llama_index_embft.evaluation import evaluate_embed_model

    dataset = EmbeddingQAFinetuneDataset.from_json(data)
    embed_model = load_embed_model(model, device=device, trust_remote_code=trust_remote_code)
    report = evaluate_embed_model(
        dataset,
        embed_model,
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
    show_cut(embed_model, dataset)
    if out is not None:
        report.to_json(out)
    if csv is not None:
        report.to_csv(csv)
    if trec_run is not None:
        report.to_trec_run(trec_run)
    for path in (out, csv, trec_run):
        if path is not None:
            console.print(f"Written: {escape(str(path))}")
