"""``embft split``: train, validation and test that share no document."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  # typer reads the annotations
from typing import Annotated, Any, Final, Literal

import typer

from llama_index_embft.cli.shared.data import DATA_HELP, read_data

_SHOWN: Final = 5  # groups of documents


def split(
    data: Annotated[Path, typer.Argument(help=DATA_HELP)],
    out: Annotated[Path, typer.Option(help="Folder for train.json, val.json and test.json.")],
    by: Annotated[
        Literal["document", "chunk"],
        typer.Option(
            help="What stays together; chunk: for a corpus cut from one document; neighbouring chunks may land on "
            "different sides."
        ),
    ] = "document",
    fractions: Annotated[
        tuple[float, float, float],
        typer.Option(help="Shares of train, validation and test, such as 0.8 0.1 0.1; one may be 0."),
    ] = (0.8, 0.1, 0.1),
    near_duplicates: Annotated[
        float, typer.Option(help="Overlap from which two passages count as one; 1: equal words.")
    ] = 0.8,
    keep_corpus: Annotated[
        bool, typer.Option(help="Leave each side the whole corpus to search, as your index will have it.")
    ] = True,
    seed: Annotated[int, typer.Option(min=0, help="Chooses which documents go where.")] = 0,
) -> dict[str, Any]:
    """Split a data set into train, validation and test that share no document.

    Questions about one document, about passages that say nearly the same, and equal questions stay on one side: what is
    learnt in training is never asked for in the test. It says which documents hang together so, and why.

    Examples:
    embft split data.json --out split/
    embft split beir/scifact --out split/ --fractions 0.5 0 0.5 --seed 1
    """
    from dataclasses import asdict

    from llama_index_embft._core.tables import TextTable
    from llama_index_embft.cli.shared.console import console, written
    from llama_index_embft.dataset import split_dataset, tied_documents
    from llama_index_embft.errors import OutputError

    dataset = read_data(data)
    threshold = None if near_duplicates == 1 else near_duplicates
    sides = split_dataset(
        dataset, by=by, fractions=fractions, seed=seed, keep_corpus=keep_corpus, near_duplicates=threshold
    )
    tied = tied_documents(dataset, by=by, near_duplicates=threshold)
    made = {name: side for name, side in sides._asdict().items() if side.queries}
    stale = [out / f"{name}.json" for name in sides._fields if name not in made and (out / f"{name}.json").exists()]
    if stale:
        raise OutputError(
            f"{stale[0]} is of an earlier split, and this one makes no such side; remove it or choose another folder."
        )
    counts = {name: _counts(side) for name, side in made.items()}
    rows = [(name, *(f"{count:,}" for count in of.values())) for name, of in counts.items()]
    console.print(TextTable(("side", "queries", "documents", "passages asked about"), rows).to_rich())
    if tied:
        documents = sum(len(one.documents) for one in tied)
        console.print(f"{documents:,} documents hang together in {len(tied):,} groups, each on one side:")
    for one in tied[:_SHOWN]:
        names = ", ".join(one.documents[:3]) + (", …" if len(one.documents) > 3 else "")
        line = f"  {len(one.documents)} documents, {one.queries:,} queries: {one.reasons()} ({names})"
        console.print(line, markup=False, soft_wrap=True)
    if len(tied) > _SHOWN:
        console.print(f"  and {len(tied) - _SHOWN:,} smaller groups")
    files = []
    for name, side in made.items():
        files.append(out / f"{name}.json")
        side.save_json(files[-1])
    return {"sides": counts, "tied": [asdict(one) for one in tied], **written(*files)}


def _counts(side: Any) -> dict[str, int]:
    asked = {doc for docs in side.relevant_docs.values() for doc in docs}
    documents = {side.document_of(doc) for doc in asked}
    return {"queries": len(side.queries), "documents": len(documents), "passages": len(asked)}
