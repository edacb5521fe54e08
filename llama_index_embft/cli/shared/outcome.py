"""How a search for the best retriever is shown: each step while it works, and then what came of it."""

from __future__ import annotations

from textwrap import shorten
from typing import TYPE_CHECKING

from llama_index_embft.cli.shared.console import console

if TYPE_CHECKING:
    from pathlib import Path

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.evaluation import Comparison
    from llama_index_embft.evaluation.statistics.findings import QueryChange
    from llama_index_embft.pipeline import TuneResult


def show_result(result: TuneResult, target: Path, cut: str = "") -> None:
    """The candidates, the verdict, three examples, and what to do next.

    Args:
        result: Of the search.
        target: Where it was saved.
        cut: The line of Python that cuts the same nodes again; empty: they come from an index.
    """
    console.print()
    console.print(result.table().to_rich())
    console.print(f"[bold]Handed over:[/bold] {result.chosen.label}", soft_wrap=True)
    _show_comparison(result.comparison, result.proving())
    console.print(f"\n[bold]Written to {target}/[/bold]")
    for name, meaning in (
        ("report.html", "the comparison as a page: open it in a browser"),
        ("retriever/", "the retriever's settings and its BM25 index"),
        ("model/", "its embedding model" if result.reembeds else "its embedding model; your index stays as it is"),
        ("tune.json", "all candidates, times and what was seen"),
        ("dataset/", "the questions that trained, chose and proved"),
    ):
        console.print(f"  {name:<13} {meaning}")
    console.print("\n[bold]Use it[/bold]")
    reading = [
        "from llama_index.core import VectorStoreIndex",
        "from llama_index_embft import load_documents, load_embed_model, load_retriever",
        "from llama_index_embft.dataset import ReadingSettings, documents_to_nodes"
        if "ReadingSettings" in cut
        else "from llama_index_embft.dataset import documents_to_nodes",
        "from llama_index_embft.embeddings import model_tokens",
    ]
    given = "from llama_index_embft import load_embed_model, load_retriever  # index: yours, of the nodes searched here"
    for line in (
        *(reading if cut else [given]),
        f"embed_model = load_embed_model({str(target / 'model')!r})",
        *([cut, "index = VectorStoreIndex(nodes, embed_model=embed_model)"] if cut else []),
        f"retriever = load_retriever({str(target / 'retriever')!r}, index, embed_model=embed_model)",
    ):
        console.print(f"  {line}", markup=False, soft_wrap=True)
    if result.evidence.proof_by != "people":
        console.print("\nNext: give questions of your users (--questions); a few dozen choose better, and prove.")


def _show_comparison(comparison: Comparison, test: EmbeddingQAFinetuneDataset) -> None:
    """Print the table, the verdict and three queries before and after."""
    console.print()
    console.print(comparison.to_rich())
    for line in comparison.verdict.split("\n"):
        console.print(line, markup=False, soft_wrap=True)
    for note in comparison.notes:
        console.print(f"Note: {note}", markup=False, soft_wrap=True, style="dim")
    console.print("\n[bold]Before and after[/bold] (the two most improved queries and the most harmed one)")
    for change in (*comparison.improved(2), *comparison.harmed(1)):
        _show_change(change, test)


def _show_change(change: QueryChange, test: EmbeddingQAFinetuneDataset) -> None:
    from rich.text import Text

    passage = " ".join(test.corpus[test.relevant_docs[change.query_id][0]].split())
    line = Text.assemble("  ", (change.query, "italic"), "\n    ")
    line.append(f"rank {_rank(change.base_rank)} → {_rank(change.tuned_rank)}", style="bold")
    line.append(f"  {shorten(passage, 120, placeholder='…')}", style="dim")
    console.print(line, soft_wrap=False)


def _rank(rank: int | None) -> str:
    return "not in the first ten" if rank is None else str(rank)
