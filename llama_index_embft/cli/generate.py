"""``embft generate``: from documents to a data set, by an LLM."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  # typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llama_index_embft.cli._ray import RayOption  # noqa: TC001  # typer reads the annotations

if TYPE_CHECKING:
    from llama_index_embft.generation.prompts import QueryKind


def generate(
    docs: Annotated[list[Path], typer.Argument(help="Files and folders of documents.")],
    model: Annotated[str, typer.Option(help="Name of the model at the server.")],
    out: Annotated[Path, typer.Option(help="The data set (JSON); its journal stands beside it.")],
    llm: Annotated[
        str, typer.Option(help="Client: openai-like (any compatible server), openai, ollama, anthropic, …")
    ] = "openai-like",
    api_base: Annotated[
        str | None, typer.Option(help="Address of the server, such as http://localhost:8000/v1.")
    ] = None,
    context_window: Annotated[int, typer.Option(help="Tokens that an openai-like model can read.")] = 8192,
    temperature: Annotated[float | None, typer.Option(help="Leave out for the client's default.")] = None,
    tools: Annotated[bool, typer.Option("--tools", help="The openai-like model has function calling.")] = False,
    chunk_size: Annotated[int, typer.Option(help="Tokens of a chunk.")] = 512,
    chunk_overlap: Annotated[int, typer.Option(help="Tokens that neighbouring chunks share.")] = 64,
    questions: Annotated[int, typer.Option(help="Queries a chunk.")] = 2,
    kind: Annotated[
        list[str] | None, typer.Option(help="KIND=SHARE: question, keyword, title, paraphrase, similar_question.")
    ] = None,
    persona: Annotated[list[str] | None, typer.Option(help="Who asks; give it several times.")] = None,
    examples: Annotated[Path | None, typer.Option(help="Real queries of your users, one a line.")] = None,
    answers: Annotated[bool, typer.Option("--answers", help="Ask for answers too.")] = False,
    negatives: Annotated[int, typer.Option(help="Negatives a query written by the LLM; mining is usually better.")] = 0,
    judge: Annotated[
        int, typer.Option(help="Keep queries that the LLM grades at least so (1 to 5); 0 for no judge.")
    ] = 0,
    round_trip: Annotated[
        str | None, typer.Option(help="Embedding model (name or folder) that must find a query's chunk again.")
    ] = None,
    top_k: Annotated[int, typer.Option(help="Rank that --round-trip allows.")] = 10,
    no_filters: Annotated[bool, typer.Option("--no-filters", help="Keep every query.")] = False,
    workers: Annotated[int | None, typer.Option(help="Requests in flight.")] = None,
    rpm: Annotated[int | None, typer.Option(help="Most requests a minute.")] = None,
    tpm: Annotated[int | None, typer.Option(help="Most tokens a minute.")] = None,
    retries: Annotated[int, typer.Option(help="Attempts a chunk.")] = 3,
    price: Annotated[
        tuple[float, float] | None, typer.Option(help="US dollars for a million tokens sent and received.")
    ] = None,
    ray: RayOption = None,
    ray_workers: Annotated[
        int | None, typer.Option(help="With --ray: processes that ask. Default: one for each CPU of the cluster.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would take.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Let an LLM write queries for your documents.

    Run the same command again to continue after a stop. Keys come from the environment (OPENAI_API_KEY, …) only.
    """
    from rich.console import Console

    from llama_index_embft.calls.clients import make_llm
    from llama_index_embft.cli._ray import check_ray
    from llama_index_embft.dataset.documents.loading import documents_to_nodes, load_documents
    from llama_index_embft.errors import ConfigError
    from llama_index_embft.generation import (
        GenerationReport,
        Judge,
        RoundTrip,
        generate_negatives,
        generate_qa_embedding_pairs,
    )
    from llama_index_embft.generation.filters.base import default_filters

    check_ray(ray, ray_workers=ray_workers)
    if ray is not None and negatives:
        raise ConfigError(
            "--negatives is not worked on by a cluster; leave it out, then run the same command with it and without "
            "--ray: the journal keeps the queries."
        )
    client = make_llm(
        llm, model, api_base=api_base, temperature=temperature, context_window=context_window, tools=tools
    )
    filters = [] if no_filters else default_filters()
    if round_trip is not None:
        filters.append(RoundTrip(_embed_model(round_trip), top_k=top_k))
    if judge:
        filters.append(Judge(judge))
    nodes = documents_to_nodes(
        load_documents(docs, show_progress=not quiet),
        chunk_size=chunk_size,
        chunk_overlap=chunk_overlap,
        show_progress=not quiet,
    )
    limits: dict[str, Any] = {"num_workers": workers, "requests_per_minute": rpm, "tokens_per_minute": tpm}
    limits |= {"retry_limit": retries, "verbose": not quiet, "prices": price}
    report = GenerationReport()
    options: dict[str, Any] = {
        "num_questions_per_chunk": questions,
        "output_path": out,
        "kinds": _kinds(kind),
        "personas": persona or (),
        "example_queries": _lines(examples),
        "with_answers": answers,
        "filters": filters,
        "report": report,
        **limits,
    }
    console = Console(highlight=False, soft_wrap=True)
    if dry_run:  # what it would take is the same on a cluster, whose workers share the limits, so none is asked
        console.print(str(generate_qa_embedding_pairs(nodes, client, dry_run=True, **options)), markup=False)
        return
    if ray is None:
        dataset = generate_qa_embedding_pairs(nodes, client, **options)
    else:
        from llama_index_embft.scale.ray import generate_qa_embedding_pairs as generate_on_cluster

        dataset = generate_on_cluster(nodes, client, workers=ray_workers, address=ray, **options)
    if negatives:
        journal = out.with_suffix(".journal.sqlite")
        dataset = generate_negatives(dataset, client, per_query=negatives, journal_path=journal, **limits)
        dataset.save_json(out)
    if quiet:  # else the summary stands below the progress bar
        console.print(str(report), markup=False)
    console.print(f"Written to {out}", markup=False)


def _kinds(given: list[str] | None) -> dict[QueryKind, float] | None:
    from llama_index_embft.errors import ConfigError

    if not given:
        return None
    kinds: dict[Any, float] = {}
    for pair in given:
        name, _, share = pair.partition("=")
        try:
            kinds[name] = float(share or 1)
        except ValueError:
            raise ConfigError(f"--kind {pair}: the share must be a number, such as keyword=0.3.") from None
    return kinds


def _lines(path: Path | None) -> list[str]:
    from llama_index_embft.errors import DocumentError

    if path is None:
        return []
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as err:
        raise DocumentError(f"Cannot read the example queries {path}: {err}.") from err
    found = [line for line in lines if line]
    if not found:
        raise DocumentError(f"The file {path} holds no example queries; write one a line.")
    return found


def _embed_model(name: str) -> object:
    from llama_index_embft.embeddings.loading import load_embed_model

    return load_embed_model(name)
