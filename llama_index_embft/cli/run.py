"""``embft run``: from a folder of documents to the best retriever for them, chosen, proven and saved."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  # typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from llama_index_embft.cli.shared.console import command_line, quiet_libraries, steps
from llama_index_embft.cli.shared.outcome import show_result
from llama_index_embft.dataset import ReadingSettings

if TYPE_CHECKING:
    from llama_index.core.llms import LLM

    from llama_index_embft.generation import GenerationEstimate


def run(
    docs: Annotated[
        list[Path],
        typer.Argument(help="Files or folders (PDF, Markdown, HTML, text, …), or one folder of a stored index."),
    ],
    reading: Annotated[ReadingSettings, "Files"],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder to write to; an earlier result there is replaced. Default: a folder in runs/ named by the "
            "time, and runs/latest leads to it."
        ),
    ] = None,
    embed_model: Annotated[
        str, typer.Option(help="The embedding model in use: a folder, or a name on the Hugging Face hub.")
    ] = "BAAI/bge-small-en-v1.5",
    questions: Annotated[
        Path | None,
        typer.Option(
            help="Questions that people asked, with the passages that answer them: a file of any format that "
            "embft convert reads. A few dozen are enough to choose and to prove."
        ),
    ] = None,
    budget: Annotated[str, typer.Option(help="How long it may take: '10 min', '1 h'.")] = "10 min",
    method: Annotated[
        Literal["auto", "none", "adapter", "lora", "full", "distill"],
        typer.Option(
            help="What to train beside trying BM25 and mixtures. auto: the adapter, and all weights if there is time. "
            "none: nothing. distill: all weights, then once more on what --reranker says of the passages."
        ),
    ] = "auto",
    reranker: Annotated[
        str | None,
        typer.Option(
            help="A cross-encoder to try on top, by name or folder; train: the token vectors of the model in use, "
            "trained on what people asked; late-interaction: the model in use itself, token by token, untrained."
        ),
    ] = None,
    llm: Annotated[
        str | None,
        typer.Option(
            help="Let an LLM write questions to train on: openai-like, openai, ollama, …; see embft generate."
        ),
    ] = None,
    llm_model: Annotated[str | None, typer.Option(help="Name of the LLM at its server.")] = None,
    api_base: Annotated[str | None, typer.Option(help="Address of its server; keys come from the environment.")] = None,
    prices: Annotated[
        tuple[float, float] | None, typer.Option(help="Dollars for a million tokens sent and received.")
    ] = None,
    max_cost: Annotated[
        float | None, typer.Option(help="Do not start if the LLM would cost more than this, in US dollars.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before the LLM is paid.")] = False,
    chunk_size: Annotated[
        int, typer.Option(help="Tokens of a chunk by the model's count, metadata included; no more than it reads.")
    ] = 256,
    chunk_overlap: Annotated[int, typer.Option(help="Tokens that neighbouring chunks share.")] = 32,
    questions_per_chunk: Annotated[int, typer.Option(min=1, help="Questions made from each chunk, at most.")] = 1,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that comes with the model; read it first.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of questions, divisions and training.")] = 0,
) -> dict[str, Any]:
    """Find the best retriever for your own documents: embedding model, BM25, their mixture, trained models.

    With --questions the choice is made on, and proven by, what people asked. Without, the share of BM25 follows a rule
    measured on other documents; an LLM's questions train the model, ones taken from the text only if you name --method.

    Examples:
    embft run docs/
    embft run docs/ --questions asked.csv --budget "1 h" --out runs/first
    embft run docs/ --llm openai-like --llm-model qwen3 --api-base http://localhost:8000/v1
    """
    from llama_index_embft.calls import CallSettings
    from llama_index_embft.cli.shared.cost import confirm_cost
    from llama_index_embft.cli.shared.dated import dated_folder, point_latest
    from llama_index_embft.cli.shared.options import check_only_for
    from llama_index_embft.embeddings import resolve_model_name
    from llama_index_embft.pipeline import TuneSettings, tune
    from llama_index_embft.pipeline.status import printed_to

    of_llm = {"api_base": api_base, "prices": prices, "max_cost": max_cost, "yes": yes}
    check_only_for("--llm", llm is not None or llm_model is not None, of_llm)
    client = _client(llm, llm_model, api_base)
    resolve_model_name(embed_model)  # a wrong path should show before the work, not after it
    target = dated_folder("runs") if out is None else out

    def confirm(estimate: GenerationEstimate) -> None:
        confirm_cost(estimate, yes=yes, max_cost=max_cost)

    calls = TuneSettings().calls_or_default()
    settings = TuneSettings(
        reading=reading,
        chunk_size=chunk_size,
        chunk_overlap=chunk_overlap,
        questions_per_chunk=questions_per_chunk,
        calls=CallSettings(prices=prices, journal_path=calls.journal_path),
        confirm=confirm,
        trust_remote_code=trust_remote_code,
    )
    quiet_libraries()
    result = tune(
        docs,
        model=embed_model,
        questions=questions,
        llm=client,
        methods=method,
        reranker=reranker,
        budget=budget,
        output_path=target,
        settings=settings,
        seed=seed,
        watch=printed_to(steps()),
        command=command_line(),
    )
    if out is None:
        point_latest(target)
    how = "" if reading == ReadingSettings() else f", settings={reading!r}"
    cut = (
        f"nodes = documents_to_nodes(load_documents({[str(path) for path in docs]}{how}), chunk_size={chunk_size}, "
        f"chunk_overlap={chunk_overlap}, tokens=model_tokens(embed_model))"
    )
    show_result(result, target, "" if result.source.index is not None else cut)
    return {**result.to_dict(), "output_path": target}


def _client(llm: str | None, llm_model: str | None, api_base: str | None) -> LLM | None:
    """The LLM, once it has answered: nothing is read and nothing paid for a key or a name that is wrong."""
    from llama_index_embft.calls import make_llm
    from llama_index_embft.calls.trial import check_llm
    from llama_index_embft.errors import ConfigError

    if (llm is None) != (llm_model is None):
        raise ConfigError("Give --llm and --llm-model together: the client and the model it asks for.")
    if llm is None or llm_model is None:
        return None
    client = make_llm(llm, llm_model, api_base=api_base)
    check_llm(client)
    return client
