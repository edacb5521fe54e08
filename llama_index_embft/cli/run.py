"""``embft run``: from a folder of documents to a compared and saved embedding model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from llama_index_embft.cli._shared import console, quiet_libraries, show_files, show_outcome


def run(
    docs: Annotated[list[Path], typer.Argument(help="Files or folders: PDF, Markdown, HTML, text, …")],
    out: Annotated[Path, typer.Option(help="Folder to write to; an earlier result there is replaced.")] = Path(
        "runs/latest"
    ),
    model: Annotated[
        str, typer.Option(help="The embedding model to tune: a folder, or a name on the Hugging Face hub.")
    ] = "BAAI/bge-small-en-v1.5",
    method: Annotated[
        Literal["adapter", "full"],
        typer.Option(help="adapter: a linear layer on the query side. full: all weights."),
    ] = "adapter",
    split_by: Annotated[
        Literal["document", "chunk"], typer.Option(help="What is never on two sides of the split.")
    ] = "document",
    chunk_size: Annotated[int, typer.Option(help="Tokens of a chunk, metadata included.")] = 256,
    chunk_overlap: Annotated[int, typer.Option(help="Tokens that neighbouring chunks share.")] = 32,
    questions_per_chunk: Annotated[int, typer.Option(help="Questions made from each chunk, at most.")] = 2,
    seed: Annotated[int, typer.Option(help="Of the questions, the split and training.")] = 0,
) -> None:
    """Fine-tune an embedding model on your own documents, and compare it with the one you have.

    Without an LLM the questions are taken from the text itself (titles, key phrases, templates). They show whether
    training works on your documents; whether it helps with your users' questions, only those can prove.
    """
    from llama_index_embft._files import write_folder_atomically
    from llama_index_embft.dataset import documents_to_nodes, load_documents
    from llama_index_embft.embeddings.loading import load_embed_model, resolve_model_name
    from llama_index_embft.generation.extractive import generate_extractive_pairs
    from llama_index_embft.pipeline import reload, split_for_tuning, tune_and_compare

    resolve_model_name(model)  # a wrong path should show before an hour of work, not after it
    with write_folder_atomically(out, replaceable=("report.json",)) as folder:
        documents = load_documents(docs)
        nodes = documents_to_nodes(documents, chunk_size=chunk_size, chunk_overlap=chunk_overlap)
        console.print(f"[bold]1. Documents:[/bold] {len(documents)} pages or files, {len(nodes)} chunks")
        dataset = generate_extractive_pairs(
            nodes, num_questions_per_chunk=questions_per_chunk, seed=seed, show_progress=True
        )
        split = split_for_tuning(dataset, by=split_by, seed=seed)
        sizes = ", ".join(f"{name} {len(part.queries)}" for name, part in split._asdict().items())
        console.print(f"[bold]2. Questions:[/bold] {len(dataset.queries)} taken from the text; {sizes}")
        with console.status("Loading the model"):
            quiet_libraries()
            base = load_embed_model(model)
        console.print(f"[bold]3. Train and compare:[/bold] {model}, method {method}")
        outcome = tune_and_compare(split, base, folder, method=method, seed=seed)
        console.print(f"   {outcome.result}".replace(str(folder), str(out)))
        show_outcome(outcome, split.test)
        reload(folder, base)
    show_files(out, outcome)
