"""``embft run``: from a folder of documents to a compared and saved embedding model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from llama_index_embft.cli.shared.console import console, quiet_libraries, show_cut, show_files, show_outcome

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.schema import BaseNode

    from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
    from llama_index_embft.pipeline import TuneOutcome

# From this share on, the base model finds nearly every passage by a sentence copied from it, and training on questions
# from the text only lost (docs/explanation/extractive.md).
_NOTHING_TO_GAIN = 0.9


def run(
    docs: Annotated[list[Path], typer.Argument(help="Files or folders: PDF, Markdown, HTML, text, …")],
    out: Annotated[Path, typer.Option(help="Folder to write to; an earlier result there is replaced.")] = Path(
        "runs/latest"
    ),
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
    split_by: Annotated[
        Literal["document", "chunk"], typer.Option(help="What is never on two sides of the split.")
    ] = "document",
    chunk_size: Annotated[int, typer.Option(help="Tokens of a chunk, metadata included.")] = 256,
    chunk_overlap: Annotated[int, typer.Option(help="Tokens that neighbouring chunks share.")] = 32,
    questions_per_chunk: Annotated[int, typer.Option(help="Questions made from each chunk, at most.")] = 4,
    seed: Annotated[int, typer.Option(help="Of the questions, the split and training.")] = 0,
) -> None:
    """Fine-tune an embedding model on your own documents, and compare it with the one you have.

    Without --llm the questions are taken from the text itself. They show whether training works on your documents;
    whether it helps with what your users ask, only their questions, or an LLM's, can show.
    """
    from llama_index_embft._core.files import write_folder_atomically
    from llama_index_embft.dataset import documents_to_nodes, load_documents
    from llama_index_embft.embeddings.describe import resolve_model_name
    from llama_index_embft.embeddings.loading import load_embed_model
    from llama_index_embft.errors import ConfigError
    from llama_index_embft.pipeline import reload, split_for_tuning, tune_and_compare

    if (llm is None) != (llm_model is None):
        raise ConfigError("Give --llm and --llm-model together: the client and the model it asks for.")
    resolve_model_name(model)  # a wrong path should show before the work, not after it
    with write_folder_atomically(out) as folder:
        documents = load_documents(docs)
        nodes = documents_to_nodes(documents, chunk_size=chunk_size, chunk_overlap=chunk_overlap)
        console.print(f"[bold]1. Documents:[/bold] {len(documents)} pages or files, {len(nodes)} chunks")
        with console.status("Loading the model"):
            quiet_libraries()
            base = load_embed_model(model)
        if llm is None or llm_model is None:
            dataset = _extractive(nodes, questions_per_chunk, seed)
        else:
            dataset = _asked(nodes, llm, llm_model, api_base, questions_per_chunk, out)
        split = split_for_tuning(dataset, by=split_by, seed=seed)
        sizes = ", ".join(f"{name} {len(part.queries)}" for name, part in split._asdict().items())
        source = "taken from the text" if llm is None else f"written by {llm_model}"
        console.print(f"[bold]2. Questions:[/bold] {len(dataset.queries)} {source}; {sizes}")
        show_cut(base, dataset)
        found = _found_by_copying(nodes, base, seed) if llm is None else 0.0
        console.print(f"[bold]3. Train and compare:[/bold] {model}, method {method}")
        outcome = tune_and_compare(split, base, folder, method=method, seed=seed, may_adopt=found < _NOTHING_TO_GAIN)
        console.print(f"   {outcome.result}".replace(str(folder), str(out)), soft_wrap=True)
        show_outcome(outcome, split.test)
        if llm is None:
            _warn(outcome, found)
        reload(folder, base)
    show_files(out, outcome)
    _show_use(out)


def _extractive(nodes: list[BaseNode], per_chunk: int, seed: int) -> EmbeddingQAFinetuneDataset:
    from llama_index_embft.generation.extractive import generate_extractive_pairs

    return generate_extractive_pairs(nodes, num_questions_per_chunk=per_chunk, seed=seed, show_progress=True)


def _asked(
    nodes: list[BaseNode], llm: str, llm_model: str, api_base: str | None, per_chunk: int, out: Path
) -> EmbeddingQAFinetuneDataset:
    from llama_index_embft.calls.clients import make_llm
    from llama_index_embft.generation import generate_qa_embedding_pairs

    # Beside the folder, not in it: what an LLM was paid for survives a run that fails later.
    return generate_qa_embedding_pairs(
        nodes,
        make_llm(llm, llm_model, api_base=api_base),
        num_questions_per_chunk=per_chunk,
        output_path=out.with_name(f"{out.name}.questions.json"),
    )


def _found_by_copying(nodes: list[BaseNode], base: BaseEmbedding, seed: int) -> float:
    """Share of chunks that the base model finds by a sentence copied from them.

    Without labels it is the best guess of how much there is to gain.
    """
    from llama_index_embft.evaluation import evaluate_embed_model
    from llama_index_embft.generation.extractive import generate_extractive_pairs

    copied = generate_extractive_pairs(nodes, kinds=("cloze",), num_questions_per_chunk=1, seed=seed)
    return evaluate_embed_model(copied, base, show_progress=True).mean("hit_rate@10")


def _warn(outcome: TuneOutcome, found: float) -> None:
    """Say what figures over questions from the text can and cannot show."""
    console.print(
        f"\n[bold yellow]These questions were taken from your text, not asked by people.[/bold yellow] Your base model "
        f"finds {found:.0%} of the chunks by a sentence copied from them."
    )
    if found >= _NOTHING_TO_GAIN:
        console.print("At 90 % or more, training on such questions only lost: model/ stays your base model.")
    elif not outcome.adopted:
        console.print("No gain is proven: model/ stays your base model.")
    console.print(
        "For proof, use --llm (an LLM writes the questions), or compare both models on questions of your users with "
        "embft evaluate and embft compare."
    )


def _show_use(out: Path) -> None:
    console.print("\n[bold]Use it[/bold]")
    lines = (
        "from llama_index.core import VectorStoreIndex",
        "from llama_index_embft import load_embed_model",
        f"index = VectorStoreIndex(nodes, embed_model=load_embed_model({str(out / 'model')!r}))",
    )
    for line in lines:
        console.print(f"  {line}", markup=False, soft_wrap=True)
