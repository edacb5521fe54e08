"""``embft generate``: from documents to a data set, by an LLM."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  # typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llama_index_embft.calls import CallSettings
from llama_index_embft.cli.shared.fields import option_of
from llama_index_embft.cli.shared.ray import RayOption  # noqa: TC001  # typer reads the annotations
from llama_index_embft.generation import QuestionSettings

if TYPE_CHECKING:
    from llama_index_embft.generation.settings import QueryKind


def generate(
    docs: Annotated[list[Path], typer.Argument(help="Files and folders of documents.")],
    llm_model: Annotated[str, typer.Option(help="Name of the LLM at its server.")],
    out: Annotated[Path, typer.Option(help="The data set (JSON).")],
    llm: Annotated[
        str, typer.Option(help="Client: openai-like (any compatible server), openai, ollama, anthropic, …")
    ] = "openai-like",
    api_base: Annotated[
        str | None, typer.Option(help="Address of the server, such as http://localhost:8000/v1.")
    ] = None,
    context_window: Annotated[int, typer.Option(help="Tokens that an openai-like model can read.")] = 8192,
    temperature: Annotated[float | None, typer.Option(help="Leave out for the client's default.")] = None,
    tools: Annotated[bool, typer.Option("--tools", help="The openai-like model has function calling.")] = False,
    chunk_size: Annotated[int, typer.Option(help="Tokens of a chunk, metadata included.")] = 256,
    chunk_overlap: Annotated[int, typer.Option(help="Tokens that neighbouring chunks share.")] = 32,
    questions_per_chunk: Annotated[int, typer.Option(help="Queries a chunk.")] = 2,
    kind: Annotated[list[str] | None, option_of(QuestionSettings, "kinds")] = None,
    persona: Annotated[list[str] | None, option_of(QuestionSettings, "personas")] = None,
    examples: Annotated[Path | None, option_of(QuestionSettings, "example_queries")] = None,
    answers: Annotated[bool, option_of(QuestionSettings, "with_answers", "--answers")] = False,
    negatives: Annotated[int, typer.Option(help="Negatives a query written by the LLM; mining is usually better.")] = 0,
    judge: Annotated[
        int, typer.Option(help="Keep queries that the LLM grades at least so (1 to 5); 0 for no judge.")
    ] = 0,
    round_trip: Annotated[
        str | None, typer.Option(help="Embedding model (name or folder) that must find a query's chunk again.")
    ] = None,
    trust_remote_code: Annotated[
        bool,
        typer.Option("--trust-remote-code", help="Run code that comes with the model of --round-trip; read it first."),
    ] = False,
    top_k: Annotated[int, typer.Option(help="Rank that --round-trip allows.")] = 10,
    filters: Annotated[bool, typer.Option("--filters/--no-filters", help="Drop bad queries.")] = True,
    num_workers: Annotated[int | None, option_of(CallSettings, "num_workers")] = None,
    requests_per_minute: Annotated[int | None, option_of(CallSettings, "requests_per_minute")] = None,
    tokens_per_minute: Annotated[int | None, option_of(CallSettings, "tokens_per_minute")] = None,
    retry_limit: Annotated[int, typer.Option(help="Attempts a chunk.")] = 3,
    prices: Annotated[tuple[float, float] | None, option_of(CallSettings, "prices")] = None,
    ray: RayOption = None,
    ray_workers: Annotated[
        int | None, typer.Option(help="With --ray: processes that ask. Default: one for each CPU of the cluster.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would take.")] = False,
    max_cost: Annotated[float | None, option_of(CallSettings, "max_cost")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask whether to go on.")] = False,
    progress: Annotated[bool, typer.Option("--progress/--no-progress", help="Show progress bars.")] = True,
) -> None:
    """Let an LLM write queries for your documents.

    Run the same command again to continue after a stop. Keys come from the environment (OPENAI_API_KEY, …) only.
    """
    from rich.console import Console

    from llama_index_embft.calls import check_llm, make_llm
    from llama_index_embft.cli.shared.cost import confirm_cost
    from llama_index_embft.cli.shared.ray import check_ray
    from llama_index_embft.dataset import documents_to_nodes, load_documents
    from llama_index_embft.errors import ConfigError
    from llama_index_embft.generation import (
        Judge,
        RoundTrip,
        default_filters,
        estimate_qa_embedding_pairs,
        generate_negatives,
        generate_qa_embedding_pairs,
    )
    from llama_index_embft.generation.assemble import OutputFile

    check_ray(ray, ray_workers=ray_workers)
    if ray is not None and negatives:
        raise ConfigError(
            "--negatives is not worked on by a cluster; leave it out, then run the same command with it and without "
            "--ray: the journal keeps the queries."
        )
    questions = QuestionSettings(
        kinds=_kinds(kind), personas=persona or (), example_queries=_lines(examples), with_answers=answers
    )
    calls = CallSettings(
        num_workers=num_workers,
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        prices=prices,
        max_cost=max_cost,
    )
    client = make_llm(
        llm, llm_model, api_base=api_base, temperature=temperature, context_window=context_window, tools=tools
    )
    OutputFile(out, [])  # a folder of that name should show before the work
    wanted = default_filters() if filters else []
    if round_trip is not None:
        wanted.append(RoundTrip(_embed_model(round_trip, trust_remote_code), top_k=top_k))
    if judge:
        wanted.append(Judge(judge))
    if not dry_run:
        check_llm(client)
    documents = load_documents(docs, show_progress=progress)
    nodes = documents_to_nodes(documents, chunk_size=chunk_size, chunk_overlap=chunk_overlap, show_progress=progress)
    console = Console(highlight=False, soft_wrap=True)
    # What it takes is the same on a cluster, whose workers share the limits, so none is asked.
    estimate = estimate_qa_embedding_pairs(
        nodes,
        client,
        num_questions_per_chunk=questions_per_chunk,
        output_path=out,
        questions=questions,
        calls=calls,
    ).with_more(calls_per_query=bool(judge) + negatives, queries_per_chunk=questions_per_chunk)
    if dry_run:
        console.print(str(estimate), markup=False)
        return
    confirm_cost(estimate, yes=yes, max_cost=max_cost)
    options: dict[str, Any] = {
        "num_questions_per_chunk": questions_per_chunk,
        "retry_limit": retry_limit,
        "output_path": out,
        "verbose": progress,
        "questions": questions,
        "calls": calls,
        "filters": wanted,
    }
    if ray is None:
        dataset = generate_qa_embedding_pairs(nodes, client, **options)
    else:
        from llama_index_embft.scale.ray import generate_qa_embedding_pairs as generate_on_cluster

        dataset = generate_on_cluster(nodes, client, workers=ray_workers, address=ray, **options)
    if not progress:  # else the summary stands below the progress bar
        console.print(str(dataset.report), markup=False)
    if negatives:
        dataset = generate_negatives(
            dataset, client, per_query=negatives, retry_limit=retry_limit, verbose=progress, calls=calls
        )
        dataset.save_json(out)
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


def _embed_model(name: str, trust_remote_code: bool) -> object:
    from llama_index_embft.embeddings.loading import load_embed_model

    return load_embed_model(name, trust_remote_code=trust_remote_code)
