"""What the commands share: the console, quiet libraries, and how a finished run is shown."""

from __future__ import annotations

import logging
import os
import shlex
import sys
from textwrap import shorten
from typing import TYPE_CHECKING

from llama_index_embft._core.redaction import Redactor
from llama_index_embft._core.terminal import SafeConsole

if TYPE_CHECKING:
    from pathlib import Path

    from llama_index.core.base.embeddings.base import BaseEmbedding

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.evaluation.statistics.findings import QueryChange
    from llama_index_embft.pipeline import TuneOutcome

console = SafeConsole()
errors = SafeConsole(stderr=True)


def quiet_libraries() -> None:
    """Keep the progress bars and advice of the libraries below out of the way of ours."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    from datasets.utils.logging import disable_progress_bar

    disable_progress_bar()
    for name in ("sentence_transformers", "httpx", "pypdf"):
        logging.getLogger(name).setLevel(logging.ERROR)


def command_line() -> str:
    """The command as it was typed, without passwords and keys, for records of a run."""
    return Redactor()(shlex.join(["embft", *sys.argv[1:]]))


def show_cut(embed_model: BaseEmbedding, dataset: EmbeddingQAFinetuneDataset) -> None:
    """Say how many passages are longer than what the model reads, where they are more than a few."""
    from llama_index_embft.embeddings.truncation import WORTH_SAYING, truncation_of

    cut = truncation_of(embed_model, list(dataset.corpus.values()))
    if cut is not None and cut.share > WORTH_SAYING:
        console.print(f"Note: {cut.sentence()}", markup=False, soft_wrap=True)


def show_outcome(outcome: TuneOutcome, test: EmbeddingQAFinetuneDataset) -> None:
    """Print the table, the verdict and three queries before and after."""
    comparison = outcome.comparison
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


def show_files(folder: Path, outcome: TuneOutcome) -> None:
    """Print where the results are."""
    console.print(f"\n[bold]Written to {folder}/[/bold]")
    decision = outcome.comparison.decision
    crossed = outcome.folds > 1
    on_all = ", trained on all documents" if crossed else ""
    data = "all questions, how the folds divide them, and train and validation of the trained model"
    data = data if crossed else "train, validation and test"
    rows = [
        ("report.html", "the comparison as a page: open it in a browser"),
        ("report.json", "the same as data"),
        ("model/", f"the tuned model{on_all}" if outcome.adopted else f"your base model, unchanged: {decision}"),
        ("dataset/", data),
        ("reports/", "the scores of every query, for embft compare"),
    ]
    if not outcome.adopted:
        rows.insert(3, ("candidate/", f"the tuned model{on_all}: {decision}"))
    for name, meaning in rows:
        console.print(f"  {name:<13} {meaning}")
