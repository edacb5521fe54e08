"""``embft inspect``: a look at a data set before anything is trained on it."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  # typer reads the annotations
from textwrap import shorten
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llama_index_embft.cli.shared.data import DATA_HELP, read_data

if TYPE_CHECKING:
    from llama_index_embft.dataset.inspection import Inspection


def inspect(
    data: Annotated[Path, typer.Argument(help=DATA_HELP)],
    against: Annotated[
        Path | None, typer.Option(help="A data set that must share nothing with it, such as the test side.")
    ] = None,
    embed_model: Annotated[
        str | None, typer.Option(help="Say how many texts are longer than this model reads: a folder or a hub name.")
    ] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that comes with the model; read it first.")
    ] = False,
    samples: Annotated[int, typer.Option(min=0, help="Queries to show with their passages.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Chooses them.")] = 0,
    fail_on_leak: Annotated[
        bool, typer.Option("--fail-on-leak", help="Exit with code 1 if something is shared with --against.")
    ] = False,
) -> dict[str, Any]:
    """Look at a data set: counts, lengths, languages, duplicates, leaks and samples.

    Examples:
    embft inspect train.json --embed-model BAAI/bge-small-en-v1.5
    embft inspect split/train.json --against split/test.json --fail-on-leak
    """
    from llama_index_embft.cli.shared.console import console
    from llama_index_embft.cli.shared.options import check_only_for
    from llama_index_embft.dataset import inspect_dataset
    from llama_index_embft.errors import ConfigError

    if fail_on_leak and against is None:
        raise ConfigError("--fail-on-leak needs --against: the data set that nothing may be shared with.")
    check_only_for("--embed-model", embed_model is not None, {"trust_remote_code": trust_remote_code})
    dataset = read_data(data)
    other = None if against is None else read_data(against)
    found = inspect_dataset(dataset, other=other, samples=samples, seed=seed)
    cut: dict[str, Any] = {}
    if embed_model is not None:
        from llama_index_embft.cli.shared.console import quiet_libraries
        from llama_index_embft.embeddings import load_embed_model
        from llama_index_embft.embeddings.truncation import truncation_of

        quiet_libraries()
        loaded = load_embed_model(embed_model, trust_remote_code=trust_remote_code)
        for name, texts in (("queries", dataset.queries), ("corpus", dataset.corpus)):
            measured = truncation_of(loaded, list(texts.values()))
            cut[name] = None if measured is None else measured._asdict()
    _show(found, cut)
    shared = [leak for leak in found.leaks if leak.kind in ("shared query", "shared passage", "near passage")]
    if against is not None and not shared:
        console.print(f"Nothing is shared with {against}.", markup=False, soft_wrap=True)
    return {**found.to_dict(), "truncation": cut, "exit_code": int(fail_on_leak and bool(shared))}


def _show(found: Inspection, cut: dict[str, Any]) -> None:
    from llama_index_embft.cli.shared.console import console

    def line(name: str, text: str) -> None:
        console.print(f"{name:<15} {text}", markup=False, soft_wrap=True)

    console.print(str(found.stats), markup=False, soft_wrap=True)
    for name, counts in (("queries in", found.query_languages), ("corpus in", found.corpus_languages)):
        line(name, ", ".join(f"{language} {count:,}" for language, count in counts.items()))
    for name, measured in cut.items():
        what = "too long" if name == "corpus" else "too long (queries)"
        text = "the model says nothing of a limit"
        if measured is not None:
            text = f"{measured['share']:.1%} are longer than the {measured['limit']:,} tokens that the model reads"
        line(what, text)
    twice = found.duplicates
    line(
        "repeated",
        f"{twice.queries:,} queries ({twice.queries_apart:,} of them with other answers than their twins), "
        f"{twice.passages:,} passages; {twice.near_passages:,} passages nearly repeat each other, in "
        f"{twice.near_groups:,} groups",
    )
    for leak in found.leaks:
        line("leak", leak.sentence())
    for sample in found.samples:
        console.print(f"\n{sample.query_id}: {' '.join(sample.query.split())}", markup=False, soft_wrap=True)
        text = shorten(sample.passage, 160, placeholder="…")
        console.print(f"  {sample.passage_id}: {text}", markup=False, soft_wrap=True)
