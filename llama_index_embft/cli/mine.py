"""``embft mine``: hard negatives for a data set."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  # typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llama_index_embft.cli._ray import RayOption  # noqa: TC001  # typer reads the annotations

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.mining.report import MiningReport


def mine(
    data: Annotated[Path, typer.Argument(help="Data set (JSON with queries, corpus and relevant_docs).")],
    model: Annotated[str, typer.Option(help="Saved result, model folder or name on the Hugging Face hub.")],
    strategy: Annotated[
        list[str] | None,
        typer.Option(
            help="Give it several times: rank:10-50, rank:10-50:random, score:0.3-0.7, margin:0.95, gap:0.05, random, "
            "least-similar, bm25:50, same-document, cross-encoder:MODEL, judge. Default: rank:1-100 and margin:0.95."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where the data set with negatives is written. Default: DATA-mined.json.")
    ] = None,
    num: Annotated[int, typer.Option(help="Negatives for each query.")] = 15,
    export: Annotated[
        list[str] | None,
        typer.Option(help="FORMAT=FILE.jsonl, FORMAT one of pairs, ntuples, triplets, labelled, flag-embedding."),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write the report as a page with a plot and examples.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the report as JSON.")] = None,
    pad: Annotated[bool, typer.Option("--pad", help="Fill up with random documents where too few are left.")] = False,
    relabel: Annotated[
        bool, typer.Option("--relabel", help="What a cross-encoder or judge finds relevant becomes a positive.")
    ] = False,
    near_duplicates: Annotated[
        float, typer.Option(help="Overlap from which two documents count as the same; 0 compares whole texts only.")
    ] = 0.8,
    search: Annotated[str, typer.Option(help="exact; or hnsw, ivf for FAISS's approximate search.")] = "exact",
    metric: Annotated[str, typer.Option(help="cosine or dot.")] = "cosine",
    seed: Annotated[int, typer.Option(help="Same seed, same negatives.")] = 0,
    llm: Annotated[
        str, typer.Option(help="Client of the judge: openai-like (any compatible server), openai, ollama, …")
    ] = "openai-like",
    llm_model: Annotated[str | None, typer.Option(help="Name of the judge's model at its server.")] = None,
    api_base: Annotated[str | None, typer.Option(help="Address of the judge's server.")] = None,
    journal: Annotated[
        Path | None, typer.Option(help="Where the judge's answers are kept. Default: beside --out.")
    ] = None,
    rpm: Annotated[int | None, typer.Option(help="Most requests a minute to the judge.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Texts a batch; default: chosen by device.")] = None,
    device: Annotated[str | None, typer.Option(help="Torch device; default: a GPU if there is one.")] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Embed everything anew.")] = False,
    ray: RayOption = None,
    ray_folder: Annotated[
        Path | None,
        typer.Option(help="With --ray: folder for embeddings that all machines see. Default: beside --out."),
    ] = None,
    examples: Annotated[bool, typer.Option("--examples/--no-examples", help="Print ten queries to read.")] = True,
) -> None:
    """Find hard negatives for every query of a data set."""
    from rich.console import Console

    from llama_index_embft.cli._ray import check_ray, refuse_with_ray
    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.embeddings.loading import load_embed_model
    from llama_index_embft.mining import DEFAULT_STRATEGIES, MiningReport, mine_hard_negatives

    check_ray(ray, ray_folder=ray_folder)
    wanted = [_export(item) for item in export or ()]
    out = out if out is not None else data.with_name(f"{data.stem}-mined.json")
    strategies: list[Any] = list(strategy or DEFAULT_STRATEGIES)
    if "judge" in strategies:
        place = journal or out.with_suffix(".judge.sqlite")
        strategies[strategies.index("judge")] = _judge(llm, llm_model, api_base, place, rpm)
    dataset = EmbeddingQAFinetuneDataset.from_json(data)
    report = MiningReport()
    options: dict[str, Any] = {
        "relabel": relabel,
        "pad": pad,
        "near_duplicates": near_duplicates or None,
        "search": search,
        "metric": metric,
        "seed": seed,
        "batch_size": batch_size,
        "show_progress": True,
        "report": report,
    }
    if ray is None:
        cache = None if no_cache else "default"
        embed_model = load_embed_model(model, device=device)
        mined = mine_hard_negatives(dataset, embed_model, strategies, num, device=device, cache=cache, **options)
    else:
        from llama_index_embft.scale.ray import mine_hard_negatives as mine_on_cluster

        refuse_with_ray(device=device, no_cache=no_cache)
        folder = ray_folder or out.with_suffix(".embeddings")
        mined = mine_on_cluster(dataset, model, strategies, num, work_path=folder, address=ray, **options)
    console = Console(highlight=False, soft_wrap=True)
    console.print(str(report), markup=False)
    if examples:
        console.print("\n" + report.examples_text(), markup=False)
    mined.save_json(out)
    written = [out]
    for form, path in wanted:
        _write(form, path, mined, report)
        written.append(path)
    if html is not None:
        report.to_html(html)
        written.append(html)
    if json is not None:
        report.to_json(json)
        written.append(json)
    console.print()
    for path in written:
        console.print(f"Written: {path}", markup=False)


def _export(item: str) -> tuple[str, Path]:
    from pathlib import Path

    from llama_index_embft.errors import ConfigError

    form, sign, path = item.partition("=")
    if form not in _FORMS or not sign or not path:
        raise ConfigError(f"--export {item!r} is not understood: write FORMAT=FILE with one of {', '.join(_FORMS)}.")
    return form, Path(path)


_FORMS = ("pairs", "ntuples", "triplets", "labelled", "flag-embedding")


def _write(form: str, path: Path, mined: EmbeddingQAFinetuneDataset, report: MiningReport) -> None:
    from llama_index_embft import mining

    scores = report.teacher_scores or None
    rows: dict[str, Iterable[dict[str, Any]]] = {
        "pairs": mining.pairs(mined),
        "ntuples": mining.ntuples(mined, report.num_negatives),
        "triplets": mining.triplets(mined),
        "labelled": mining.labelled_pairs(mined, scores),
        "flag-embedding": mining.flag_embedding_rows(mined, scores),
    }
    mining.write_jsonl(rows[form], path)


def _judge(llm: str, model: str | None, api_base: str | None, journal: Path, rpm: int | None) -> Any:
    from llama_index_embft.calls import CallSettings, make_llm
    from llama_index_embft.errors import ConfigError
    from llama_index_embft.mining import LLMJudge

    if model is None:
        raise ConfigError("The strategy 'judge' needs an LLM: name it with --llm-model (and --llm, --api-base).")
    calls = CallSettings(journal_path=journal, requests_per_minute=rpm)
    return LLMJudge(make_llm(llm, model, api_base=api_base), calls)
