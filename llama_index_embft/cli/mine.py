"""``embft mine``: hard negatives for a data set."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path  # noqa: TC003  # typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llama_index_embft.calls import CallSettings  # noqa: TC001
from llama_index_embft.cli.shared.data import DATA_HELP, read_data
from llama_index_embft.cli.shared.llm import LLMOptions  # noqa: TC001
from llama_index_embft.cli.shared.ray import RayOption  # noqa: TC001
from llama_index_embft.mining.settings import MiningSettings  # noqa: TC001
from llama_index_embft.scale.ray.settings import MiningWorkers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.mining import MinedDataset


def mine(
    data: Annotated[Path, typer.Argument(help=DATA_HELP)],
    embed_model: Annotated[str, typer.Option(help="Saved result, model folder or name on the Hugging Face hub.")],
    strategy: Annotated[
        list[str] | None,
        typer.Option(
            help="Give it several times: rank:10-50, rank:10-50:random, score:0.3-0.7, margin:0.95, gap:0.05, random, "
            "least-similar, bm25:50, same-document, cross-encoder:MODEL, judge. Default: rank:1-100 and margin:0.95."
        ),
    ] = None,
    num_negatives: Annotated[int, typer.Option(help="Negatives for each query.")] = 15,
    out: Annotated[
        Path | None, typer.Option(help="Where the data set with negatives is written. Default: DATA-mined.json.")
    ] = None,
    export: Annotated[
        list[str] | None,
        typer.Option(
            help="FORMAT=FILE (.jsonl, .csv or .parquet), FORMAT one of pairs, ntuples, triplets, labelled, "
            "flag-embedding."
        ),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write the report as a page with a plot and examples.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write the figures as JSON.")] = None,
    relabel: Annotated[
        bool, typer.Option("--relabel", help="What a cross-encoder or judge finds relevant becomes a positive.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same negatives.")] = 0,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Texts a batch; default: chosen by device.")] = None,
    device: Annotated[str | None, typer.Option(help="Torch device; default: a GPU if there is one.")] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Embed everything anew.")] = False,
    ray: RayOption = None,
    ray_folder: Annotated[
        Path | None,
        typer.Option(help="With --ray: folder for embeddings that all machines see. Default: beside --out."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before the LLM of --strategy judge is paid.")] = False,
    examples: Annotated[bool, typer.Option("--examples/--no-examples", help="Print ten queries to read.")] = True,
    *,
    settings: Annotated[MiningSettings, "What never counts as a negative, and how to search"],
    llm: Annotated[LLMOptions, "LLM of the strategy judge"],
    calls: Annotated[CallSettings, "Its calls"],
    workers: Annotated[MiningWorkers, "With --ray"],
) -> dict[str, Any]:
    """Find hard negatives for every query of a data set.

    What it writes, embft train reads: the negatives, and the scores of a cross-encoder for distillation.

    Examples:
    embft mine train.json --embed-model BAAI/bge-small-en-v1.5
    embft mine train.json --embed-model runs/model --strategy rank:10-50 --strategy margin:0.95 --out mined.json
    """
    from llama_index_embft.cli.shared.console import console, written
    from llama_index_embft.cli.shared.options import changed, check_not_with, check_only_for
    from llama_index_embft.cli.shared.ray import check_ray
    from llama_index_embft.errors import OutputError
    from llama_index_embft.mining import LLMJudge

    of_workers = asdict(workers).items() - asdict(MiningWorkers(batch_size=batch_size)).items()
    check_ray(ray, ray_folder=ray_folder, **dict(of_workers))
    check_not_with("--ray", ray is not None, {"device": device, "no_cache": no_cache})
    given = strategy or []
    check_only_for("--strategy judge", "judge" in given, {**changed(llm), **changed(calls), "yes": yes})
    exports = [_export(item) for item in export or ()]
    out = out if out is not None else data.with_name(f"{data.stem}-mined.json")
    for file in (out, html, report, *(path for _, path in exports)):
        if file is not None and file.is_dir():  # known before the work, not after it
            raise OutputError(f"Cannot write {file}: it is a folder; give the name of a file.")
    strategies = [LLMJudge(llm.client(), calls) if text == "judge" else text for text in given]
    dataset = read_data(data)
    if "judge" in given:
        _confirm(dataset, strategies, num_negatives, yes=yes, calls=calls)
    common: dict[str, Any] = {"relabel": relabel, "seed": seed, "show_progress": True, "settings": settings}
    if strategies:
        common["strategies"] = strategies
    if ray is None:
        from llama_index_embft.embeddings import load_embed_model
        from llama_index_embft.mining import mine_hard_negatives

        common |= {"device": device, "cache": None if no_cache else "default", "batch_size": batch_size}
        mined = mine_hard_negatives(
            dataset,
            load_embed_model(embed_model, device=device, trust_remote_code=settings.trust_remote_code),
            num_negatives=num_negatives,
            **common,
        )
    else:
        from llama_index_embft.scale.ray import mine_hard_negatives as mine_on_cluster

        common |= {"work_path": ray_folder or out.with_suffix(".embeddings"), "address": ray, "workers": workers}
        mined = mine_on_cluster(dataset, embed_model, num_negatives=num_negatives, **common)
    console.print(str(mined.report), markup=False, soft_wrap=True)
    if examples:
        console.print("\n" + mined.report.examples_text(), markup=False, soft_wrap=True)
    mined.save_json(out)
    for write, path in exports:
        _write_export(write(mined), path, set(mined.queries.values()))
    if html is not None:
        mined.report.to_html(html)
    if report is not None:
        mined.report.to_json(report)
    console.print()
    return {**mined.report.as_dict(), **written(out, *(path for _, path in exports), html, report)}


def _confirm(
    dataset: EmbeddingQAFinetuneDataset, strategies: list[Any], num_negatives: int, *, yes: bool, calls: CallSettings
) -> None:
    """Say what the judge would be asked at most, ask whether to go on, and see that it answers."""
    from llama_index_embft.calls import check_llm
    from llama_index_embft.cli.shared.cost import confirm_cost
    from llama_index_embft.mining import LLMJudge
    from llama_index_embft.mining.parsing import as_strategies
    from llama_index_embft.mining.strategies import Source

    parsed, n_docs = as_strategies(strategies), len(dataset.corpus)
    candidates = sum(one.most(num_negatives, n_docs) for one in parsed if isinstance(one, Source))
    judge = next(one for one in parsed if isinstance(one, LLMJudge))
    estimate = judge.estimate(dataset, min(candidates, n_docs))
    confirm_cost(
        estimate, yes=yes, max_cost=calls.max_cost, cheaper="give a narrower window, such as --strategy rank:10-30"
    )
    check_llm(judge.llm)


def _write_export(rows: Iterable[dict[str, Any]], path: Path, queries: set[str]) -> None:
    """Write rows, and say how many queries gave none: they lack negatives, or a teacher's scores."""
    from llama_index_embft.cli.shared.console import console
    from llama_index_embft.dataset.formats import write_rows

    def seen() -> Iterator[dict[str, Any]]:
        for row in rows:
            left.discard(next(iter(row.values())))  # the query stands first in every format
            yield row

    left = set(queries)
    count = write_rows(seen(), path)
    missing = f"; {len(left):,} of {len(queries):,} queries give none" if left else ""
    console.print(f"{path}: {count:,} rows{missing}", markup=False, soft_wrap=True)


def _export(item: str) -> tuple[Callable[[MinedDataset], Iterable[dict[str, Any]]], Path]:
    """The writer of rows that ``FORMAT=FILE`` names, and the file."""
    from pathlib import Path

    from llama_index_embft.dataset import formats
    from llama_index_embft.dataset.formats.rows import container_of
    from llama_index_embft.errors import ConfigError

    writers: dict[str, Callable[[MinedDataset], Iterable[dict[str, Any]]]] = {
        "pairs": formats.pairs,
        "ntuples": lambda mined: formats.ntuples(mined, mined.report.num_negatives),
        "triplets": formats.triplets,
        "labelled": lambda mined: formats.labelled_pairs(mined, mined.teacher_scores or None),
        "flag-embedding": lambda mined: formats.flag_embedding_rows(mined, mined.teacher_scores or None),
    }
    form, sign, path = item.partition("=")
    if form not in writers or not sign or not path:
        raise ConfigError(f"--export {item!r} is not understood: write FORMAT=FILE with one of {', '.join(writers)}.")
    kinds = ("jsonl", "json", "parquet", *(("csv", "tsv") if form != "flag-embedding" else ()))
    if container_of(path) not in kinds or path.lower().endswith(".gz"):
        raise ConfigError(f"--export {item!r}: the file must end in one of .{', .'.join(kinds)}.")
    return writers[form], Path(path)
