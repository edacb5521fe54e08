"""``embft convert``: a data set from one format into another."""

from __future__ import annotations

import re
from pathlib import Path  # noqa: TC003  # typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from llama_index_embft._core.logs import errors_only

if TYPE_CHECKING:
    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset

# What it would say stands in the lines that the command prints.
_LOG: Final = "llama_index_embft.dataset.formats.registry"


def convert(
    source: Annotated[Path | None, typer.Argument(metavar="IN", help="File or folder to read.")] = None,
    out: Annotated[Path | None, typer.Argument(metavar="OUT", help="File or new folder to write.")] = None,
    from_: Annotated[
        str | None, typer.Option("--from", help="Format of IN. Default: guessed from names, keys and columns.")
    ] = None,
    to: Annotated[str, typer.Option(help="Format of OUT; --list shows all.")] = "rag",
    split: Annotated[str | None, typer.Option(help="Split to read, where IN has several.")] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            help="PART=NAME: which column is the anchor, positive, negative, score or answer, or to ignore. "
            "Give it several times."
        ),
    ] = None,
    read_option: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE: another option of reading; --list shows them.")
    ] = None,
    write_option: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE: an option of writing; --list shows them.")
    ] = None,
    drop: Annotated[
        bool, typer.Option("--drop", help="Leave broken rows out, and count them, instead of stopping at the first.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a folder that holds a data set.")] = False,
    list_: Annotated[bool, typer.Option("--list", help="Show the formats and stop.")] = False,
) -> dict[str, Any]:
    """Convert a data set from one format into another, and say what the other has no place for.

    Examples:
    embft convert --list
    embft convert pairs.csv train.json
    embft convert beir/scifact scifact.json --split test
    embft convert train.json triplets.jsonl --to triplets
    """
    from llama_index_embft.cli.shared.console import console
    from llama_index_embft.dataset.formats.build import counted
    from llama_index_embft.dataset.formats.guess import guess_format
    from llama_index_embft.dataset.formats.registry import format_named, read_dataset, write_dataset
    from llama_index_embft.errors import ConfigError, OutputError

    if list_:
        return _show_formats()
    if source is None or out is None:
        raise ConfigError("Name what to read and what to write: embft convert IN OUT --to FORMAT (--list shows them).")
    format_named(to)
    if source.exists() and out.exists():
        ends = (source.resolve(), out.resolve())
        if source.samefile(out) or ends[0] in ends[1].parents or ends[1] in ends[0].parents:
            raise OutputError(f"{out} is, holds or lies in what is read, which would be lost; choose another OUT.")
    name = from_ if from_ is not None else guess_format(source)
    reading: dict[str, Any] = _pairs(read_option, "--read-option")
    if split is not None:
        reading["split"] = split
    if column:
        ignored = [item.partition("=")[2] for item in column if item.startswith("ignore=")]
        reading["columns"] = {**_pairs(column, "--column", plain=True), **({"ignore": ignored} if ignored else {})}
    with errors_only(_LOG):
        dataset = read_dataset(source, name, on_error="drop" if drop else "raise", **reading)
    if not dataset.queries and out.exists():
        raise OutputError(f"{source} holds no queries, and {out} would be replaced by such a file; choose another OUT.")
    console.print(f"Read {source} as {name}: {_contents(dataset)}", markup=False, soft_wrap=True)
    writing = _pairs(write_option, "--write-option")
    with errors_only(_LOG):
        written = write_dataset(dataset, out, to, overwrite=overwrite, **writing)
    console.print(f"Written: {out} as {to}, {written.rows:,} rows", markup=False, soft_wrap=True)
    lost = written.lost
    if dataset.dropped:
        console.print(f"Left out on reading: {dataset.dropped}", markup=False, soft_wrap=True)
    if lost:
        console.print(f"Lost, for {to!r} has no place for it: {counted(lost)}", markup=False, soft_wrap=True)
    return {
        "from": name,
        "to": to,
        "out": out,
        "rows": written.rows,
        "queries": len(dataset.queries),
        "corpus": len(dataset.corpus),
        "dropped": str(dataset.dropped) if dataset.dropped else None,
        "lost": lost,
    }


def _contents(dataset: EmbeddingQAFinetuneDataset) -> str:
    relevant, negative = (sum(map(len, section.values())) for section in (dataset.relevant_docs, dataset.negative_docs))
    return (
        f"{len(dataset.queries):,} queries, {len(dataset.corpus):,} documents, {relevant:,} judged relevant and "
        f"{negative:,} negative, {len(dataset.reference_answers):,} answers"
    )


def _pairs(items: list[str] | None, option: str, *, plain: bool = False) -> dict[str, Any]:
    from llama_index_embft.errors import ConfigError

    made: dict[str, Any] = {}
    for item in items or ():
        name, sign, value = item.partition("=")
        if not name or not sign:
            raise ConfigError(f"{option} {item!r} is not understood: write NAME=VALUE.")
        if name in made and name != "ignore":
            raise ConfigError(f"{option} gives {name} twice; keep one.")
        made[name] = value if plain else _value(value)
    return made


def _value(text: str) -> Any:
    """A whole number, a number, or true or false, if it is one."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if re.fullmatch(r"[+-]?\d+", text):
        return int(text)
    return float(text) if re.fullmatch(r"[+-]?(\d+\.?|\d*\.\d+)(e[+-]?\d+)?", text, re.IGNORECASE) else text


def _show_formats() -> dict[str, Any]:
    from llama_index_embft.cli.shared.console import console
    from llama_index_embft.dataset.formats.registry import FORMATS

    for name, made in FORMATS.items():
        console.print(f"{name:<16}{made.title}; kept in: {made.files}", markup=False, soft_wrap=True)
        for way in ("read", "write"):
            if made.options(way):
                console.print(f"{'':<18}--{way}-option {', '.join(made.options(way))}", markup=False, soft_wrap=True)
    return {
        "formats": {
            name: {
                "title": made.title,
                "files": made.files,
                "read_options": list(made.options("read")),
                "write_options": list(made.options("write")),
            }
            for name, made in FORMATS.items()
        }
    }
