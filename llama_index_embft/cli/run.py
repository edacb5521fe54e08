"""``embft run``: from a folder of documents to a compared and saved embedding model."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  # typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from llama_index_embft.cli.shared.console import (
    command_line,
    console,
    quiet_libraries,
    show_cut,
    show_files,
    show_outcome,
)

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.llms import LLM
    from llama_index.core.schema import BaseNode

    from llama_index_embft.dataset import EmbeddingQAFinetuneDataset

# From this share on, the base model finds nearly every passage by a sentence copied from it, and training on questions
# from the text only lost (docs/explanation/extractive.md).
_NOTHING_TO_GAIN = 0.9


def run(
    docs: Annotated[list[Path], typer.Argument(help="Files or folders: PDF, Markdown, HTML, text, …")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder to write to; an earlier result there is replaced. Default: a folder in runs/ named by the "
            "time, and runs/latest leads to it."
        ),
    ] = None,
    model: Annotated[
        str, typer.Option(help="The embedding model to tune: a folder, or a name on the Hugging Face hub.")
    ] = "BAAI/bge-small-en-v1.5",
    method: Annotated[
        Literal["adapter", "full"],
        typer.Option(help="adapter: a linear layer on the query side, in seconds. full: all weights, in minutes."),
    ] = "adapter",
    llm: Annotated[
        str | None,
        typer.Option(help="Let an LLM write the questions: openai-like, openai, ollama, …; see embft generate."),
    ] = None,
    llm_model: Annotated[str | None, typer.Option(help="Name of the LLM at its server.")] = None,
    api_base: Annotated[str | None, typer.Option(help="Address of its server; keys come from the environment.")] = None,
    prices: Annotated[
        tuple[float, float] | None, typer.Option(help="Dollars for a million tokens sent and received.")
    ] = None,
    max_cost: Annotated[float | None, typer.Option(help="Do not start if the LLM would cost more dollars.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before the LLM is paid.")] = False,
    split_by: Annotated[
        Literal["document", "chunk"], typer.Option(help="What is never on two sides of the split.")
    ] = "document",
    cross_fit: Annotated[
        bool | None,
        typer.Option(
            "--cross-fit/--no-cross-fit",
            help="Test every question, by up to five models that have not seen its document, and then train on all; or "
            "train once, and test on documents held back. Default: what shows more on as many documents.",
        ),
    ] = None,
    chunk_size: Annotated[int, typer.Option(help="Tokens of a chunk, metadata included.")] = 256,
    chunk_overlap: Annotated[int, typer.Option(help="Tokens that neighbouring chunks share.")] = 32,
    questions_per_chunk: Annotated[int, typer.Option(min=1, help="Questions made from each chunk, at most.")] = 4,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that comes with the model; read it first.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of the questions, the split and training.")] = 0,
) -> None:
    """Fine-tune an embedding model on your own documents, and compare it with the one you have.

    Without --llm the questions are taken from the text itself. They show whether training works on your documents;
    whether it helps with what your users ask, only their questions, or an LLM's, can show.
    """
    from llama_index_embft._core.files import write_folder_atomically
    from llama_index_embft.cli.shared.dated import dated_folder, point_latest
    from llama_index_embft.dataset import documents_to_nodes, load_documents
    from llama_index_embft.embeddings import load_embed_model, resolve_model_name
    from llama_index_embft.errors import ConfigError
    from llama_index_embft.pipeline import data_for_tuning, reload, tune_and_compare

    if cross_fit and split_by == "chunk":
        raise ConfigError("--cross-fit divides by document; leave it out, or --split-by chunk.")
    client = _client(llm, llm_model, api_base)
    resolve_model_name(model)  # a wrong path should show before the work, not after it
    target = dated_folder("runs") if out is None else out
    with write_folder_atomically(target) as folder:
        documents = load_documents(docs)
        nodes = documents_to_nodes(documents, chunk_size=chunk_size, chunk_overlap=chunk_overlap)
        console.print(f"[bold]1. Documents:[/bold] {len(documents)} pages or files, {len(nodes)} chunks")
        _check_documents(nodes, questions_per_chunk, split_by, cross_fit)
        with console.status("Loading the model"):
            quiet_libraries()
            base = load_embed_model(model, trust_remote_code=trust_remote_code)
        if client is None:
            dataset = _extractive(nodes, questions_per_chunk, seed)
        else:
            dataset = _asked(nodes, client, questions_per_chunk, prices=prices, max_cost=max_cost, yes=yes)
        split, folds = data_for_tuning(dataset, by=split_by, seed=seed, in_folds=cross_fit)
        sizes = ", ".join(f"{name} {len(part.queries)}" for name, part in split._asdict().items())
        if folds:
            sizes = f"all tested, in {len(folds)} folds by document"
        source = "taken from the text" if client is None else f"written by {llm_model}"
        console.print(f"[bold]2. Questions:[/bold] {len(dataset.queries)} {source}; {sizes}")
        show_cut(base, dataset)
        notes, against = _about_copied_questions(nodes, base, seed) if client is None else ([], [])
        console.print(f"[bold]3. Train and compare:[/bold] {model}, method {method}{_trainings(len(folds))}")
        written = tune_and_compare(
            split,
            base,
            folder,
            folds=folds,
            method=method,
            seed=seed,
            against=against,
            notes=notes,
            command=command_line(),
        )
        reload(folder, base)
        outcome = written.moved(folder, target)
    console.print(f"   {outcome.result}", soft_wrap=True, markup=False)
    show_outcome(outcome, split.test)
    if out is None:
        point_latest(target)
    show_files(target, outcome)
    _show_use(target)


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


def _trainings(folds: int) -> str:
    return f", {folds} models for the verdict and then one on all documents" if folds else ""


def _check_documents(nodes: list[BaseNode], per_chunk: int, split_by: str, cross_fit: bool | None) -> None:
    """Say what the documents can show, and refuse one alone, before questions about them are paid for."""
    from llama_index_embft.crossfit import plan_split
    from llama_index_embft.dataset import dataset_corpus
    from llama_index_embft.errors import DatasetError

    n_documents = len(set(dataset_corpus(nodes).source_documents.values()))
    plan = plan_split(n_documents, len(nodes) * per_chunk, cross_fit=cross_fit)
    if n_documents < 2 and split_by == "document":
        raise DatasetError(
            "The questions would be about one document only, so no other document is left to test on; add documents "
            f"(about {plan.documents_wanted:,} like it would show a gain of 5 points) or split this one by chunk "
            f"(--split-by chunk), which tests on unseen parts of the same document.{_about_tables(nodes)}"
        )
    if n_documents < 2 or split_by == "document":
        console.print(f"   {plan}", markup=False, soft_wrap=True)


def _extractive(nodes: list[BaseNode], per_chunk: int, seed: int) -> EmbeddingQAFinetuneDataset:
    from llama_index_embft.errors import GenerationError
    from llama_index_embft.generation.extractive import generate_extractive_pairs

    try:
        return generate_extractive_pairs(nodes, num_questions_per_chunk=per_chunk, seed=seed, show_progress=True)
    except GenerationError as err:
        advice = " On the command line that is --llm." if "generate_qa_embedding_pairs" in str(err) else ""
        raise GenerationError(f"{err}{advice}{_about_tables(nodes)}") from err


def _about_tables(nodes: list[BaseNode]) -> str:
    """What to do with tables, where there is nothing else: a row may be a question with its answer."""
    names = sorted({str(node.metadata.get("file_name", "")) for node in nodes})
    if not all(name.lower().endswith((".csv", ".tsv", ".xlsx", ".xls")) for name in names):
        return ""
    return (
        f" {names[0]} is a table: if its rows hold questions with answers or passages, they are a data set already; "
        f"read them with `embft convert {names[0]} questions.json` and train on them with `embft train questions.json`."
    )


def _asked(
    nodes: list[BaseNode],
    client: LLM,
    per_chunk: int,
    *,
    prices: tuple[float, float] | None,
    max_cost: float | None,
    yes: bool,
) -> EmbeddingQAFinetuneDataset:
    from llama_index_embft._core.environment import default_cache_dir
    from llama_index_embft.calls import CallSettings
    from llama_index_embft.cli.shared.cost import confirm_cost
    from llama_index_embft.generation import estimate_qa_embedding_pairs, generate_qa_embedding_pairs

    # An answer belongs to the passage, the prompt and the model, not to the folder of a run: another --out, or a run
    # after one that failed, pays only for what is new.
    calls = CallSettings(prices=prices, journal_path=default_cache_dir() / "questions.journal.sqlite")
    calls_for: dict[str, Any] = {"num_questions_per_chunk": per_chunk, "output_path": None, "calls": calls}
    estimate = estimate_qa_embedding_pairs(nodes, client, **calls_for)
    confirm_cost(estimate, yes=yes, max_cost=max_cost)
    return generate_qa_embedding_pairs(nodes, client, **calls_for)


def _about_copied_questions(nodes: list[BaseNode], base: BaseEmbedding, seed: int) -> tuple[list[str], list[str]]:
    """What figures over questions from the text can and cannot show: warnings, and what speaks against the result.

    The share of chunks that the base model finds by a sentence copied from them is, without labels, the best guess of
    how much there is to gain.
    """
    from llama_index_embft.errors import GenerationError
    from llama_index_embft.evaluation import evaluate_embed_model
    from llama_index_embft.generation.extractive import generate_extractive_pairs

    notes = [
        "These questions were taken from your text, not asked by people. For proof, let an LLM write the questions "
        "(--llm), or compare both models on questions of your users (embft evaluate, embft compare)."
    ]
    try:
        copied = generate_extractive_pairs(nodes, kinds=("cloze",), num_questions_per_chunk=1, seed=seed)
    except GenerationError:
        return notes, []
    # A chunk of one sentence has no second one to find it by, and finding a text by itself says nothing.
    of_more = [
        query
        for query, (chunk, *_) in copied.relevant_docs.items()
        if copied.queries[query] != copied.bare_texts.get(chunk, copied.corpus[chunk]).strip()
    ]
    if not of_more:
        return notes, []
    found = evaluate_embed_model(copied.subset(of_more), base, show_progress=True).mean("hit_rate@10")
    share = f"The base model finds {found:.0%} of the chunks by a sentence copied from them"
    if found < _NOTHING_TO_GAIN:
        return [*notes, f"{share}."], []
    return notes, [f"{share}; at 90 % or more, training on such questions only lost, so the base model stays."]


def _show_use(out: Path) -> None:
    console.print("\n[bold]Use it[/bold]")
    lines = (
        "from llama_index.core import VectorStoreIndex",
        "from llama_index_embft import load_embed_model",
        f"index = VectorStoreIndex(nodes, embed_model=load_embed_model({str(out / 'model')!r}))",
    )
    for line in lines:
        console.print(f"  {line}", markup=False, soft_wrap=True)
