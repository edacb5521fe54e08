"""``embft generate``: from documents to a data set, by an LLM."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path  # noqa: TC003  # typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llama_index_embft._core.options import option
from llama_index_embft.calls import CallSettings  # noqa: TC001
from llama_index_embft.cli.shared.documents import ChunkOptions  # noqa: TC001
from llama_index_embft.cli.shared.llm import LLMOptions  # noqa: TC001
from llama_index_embft.cli.shared.ray import RayOption  # noqa: TC001
from llama_index_embft.dataset import ReadingSettings  # noqa: TC001
from llama_index_embft.generation import QuestionSettings
from llama_index_embft.generation.sampling import Sampling  # noqa: TC001

if TYPE_CHECKING:
    from llama_index_embft.generation import ChunkSampling, QuestionFilter
    from llama_index_embft.generation.settings import QueryKind


@dataclass(frozen=True)
class QuestionOptions:
    """What the LLM writes, as the command line says it; see `QuestionSettings`."""

    questions_per_chunk: int = option(2, "Queries a chunk.")
    kind: list[str] | None = option(
        None,
        "KIND=SHARE, several times: question, keyword, title, claim, layperson, comparison, paraphrase, "
        "similar_question.",
    )
    persona: list[str] | None = option(None, "Who asks; give it several times.")
    examples: Path | None = option(None, "File of real queries of your users, one a line, to match in style.")
    query_language: str | None = option(
        None, "Language that users ask in (de, en, zh, …), where it is not that of the documents."
    )
    answers: bool = option(False, "Ask for answers too.")
    negatives: int = option(0, "Negatives a query written by the LLM; mining is usually better.")
    retry_limit: int = option(3, "Attempts a chunk.")

    def settings(self, *, chat: bool) -> QuestionSettings:
        """The settings, for an LLM that chats or one that only completes text.

        Raises:
            ConfigError: A kind is not known, or its share is no number.
            DocumentError: The file of examples cannot be read, or holds none.
        """
        return QuestionSettings(
            kinds=_kinds(self.kind),
            personas=self.persona or (),
            example_queries=_lines(self.examples),
            with_answers=self.answers,
            query_language=self.query_language,
            few_shot=not chat,
        )


@dataclass(frozen=True)
class SamplingOptions:
    """Which chunks are asked about."""

    max_chunks: int | None = option(None, "Chunks to ask about; the others stay in the corpus. Default: all.")
    sampling: Sampling = option(
        "random", "How they are drawn: random, or clustered by the vectors of --embed-model, to cover the corpus."
    )
    seed: int = option(0, "Of the draw.")

    def sample(self, embed_model: str | None) -> ChunkSampling | None:
        """The sample, with its model loaded; None for all chunks.

        Raises:
            ConfigError: A value is not allowed, or no model is named to cluster by.
        """
        from llama_index_embft.embeddings import load_embed_model
        from llama_index_embft.errors import ConfigError
        from llama_index_embft.generation import ChunkSampling

        if self.max_chunks is None:
            return None
        if self.sampling != "clustered":
            return ChunkSampling(self.max_chunks, self.sampling, seed=self.seed)
        if embed_model is None:
            raise ConfigError("--sampling clustered needs a model to cluster by; name it with --embed-model.")
        return ChunkSampling(self.max_chunks, self.sampling, load_embed_model(embed_model), self.seed)


@dataclass(frozen=True)
class FilterOptions:
    """Which queries are dropped."""

    filters: bool = option(True, "Drop bad queries.")
    judge: int = option(0, "Keep queries that the LLM grades this high or higher (1 to 5); 0 for no judge.")
    round_trip: str | None = option(None, "Embedding model (name or folder) that must find a query's chunk again.")
    trust_remote_code: bool = option(False, "Run code that comes with the model of --round-trip; read it first.")
    top_k: int = option(10, "Rank that --round-trip allows.")
    dense_weight: float = option(0.5, "Share of the vectors in the search of --round-trip, 0 to 1; the rest are words.")

    def wanted(self) -> list[QuestionFilter]:
        """The filters, with their model loaded."""
        from llama_index_embft.embeddings import load_embed_model
        from llama_index_embft.generation import Judge, RoundTrip, default_filters

        wanted = default_filters() if self.filters else []
        if self.round_trip is not None:
            found_by = load_embed_model(self.round_trip, trust_remote_code=self.trust_remote_code)
            wanted.append(RoundTrip(found_by, top_k=self.top_k, dense_weight=self.dense_weight))
        if self.judge:
            wanted.append(Judge(self.judge))
        return wanted


def generate(
    docs: Annotated[list[Path], typer.Argument(help="Files and folders of documents.")],
    out: Annotated[Path, typer.Option(help="The data set (JSON).")],
    llm: Annotated[LLMOptions, "LLM"],
    reading: Annotated[ReadingSettings, "Files"],
    chunks: Annotated[ChunkOptions, "Chunks"],
    sampling: Annotated[SamplingOptions, "Sample"],
    questions: Annotated[QuestionOptions, "Questions"],
    filters: Annotated[FilterOptions, "Filters"],
    calls: Annotated[CallSettings, "Calls of the LLM"],
    ray: RayOption = None,
    ray_workers: Annotated[
        int | None, typer.Option(help="With --ray: processes that ask. Default: one for each CPU of the cluster.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would take.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask whether to go on.")] = False,
    progress: Annotated[bool, typer.Option("--progress/--no-progress", help="Show progress bars.")] = True,
) -> dict[str, Any]:
    """Let an LLM write queries for your documents.

    Run the same command again to continue after a stop. Keys come from the environment (OPENAI_API_KEY, …) only.

    Examples:
    embft generate docs/ --out train.json --llm openai --llm-model gpt-4o-mini --dry-run
    embft generate docs/ --out train.json --llm-model qwen3 --api-base http://localhost:8000/v1 --yes
    """
    from llama_index_embft.calls import check_llm
    from llama_index_embft.cli.shared.console import console
    from llama_index_embft.cli.shared.cost import confirm_cost
    from llama_index_embft.cli.shared.options import changed, check_not_with, check_only_for
    from llama_index_embft.cli.shared.ray import check_ray
    from llama_index_embft.dataset import load_documents
    from llama_index_embft.dataset.documents.finding import is_among
    from llama_index_embft.errors import ConfigError, OutputError
    from llama_index_embft.generation import (
        estimate_qa_embedding_pairs,
        generate_negatives,
        generate_qa_embedding_pairs,
    )
    from llama_index_embft.generation.assemble import OutputFile

    check_ray(ray, ray_workers=ray_workers)
    only_there = ("trust_remote_code", "top_k", "dense_weight")
    of_round_trip = {name: value for name, value in changed(filters).items() if name in only_there}
    check_only_for("--round-trip", filters.round_trip is not None, of_round_trip)
    if ray is not None and questions.negatives:
        raise ConfigError(
            "--negatives is not worked on by a cluster; leave it out, then run the same command with it and without "
            "--ray: the journal keeps the queries."
        )
    check_only_for("--max-chunks", sampling.max_chunks is not None, changed(sampling))
    check_not_with(
        "--no-chat", not llm.chat, {"judge": filters.judge or None, "negatives": questions.negatives or None}
    )
    asked, client = questions.settings(chat=llm.chat), llm.client()
    OutputFile(out, [])  # a folder of that name should show before the work
    for folder in docs:
        if folder.is_dir() and out.resolve().is_relative_to(folder.resolve()):
            raise OutputError(
                f"{out} lies in {folder}, and the next run would read it as a document; choose another --out."
            )
    if questions.examples is not None and is_among(questions.examples, docs, reading):
        raise ConfigError(
            f"The examples {questions.examples} lie among the documents, and would be read as one; move them elsewhere."
        )
    sample = sampling.sample(chunks.embed_model)
    wanted = filters.wanted()
    if not dry_run:
        check_llm(client)
    documents = load_documents(docs, settings=reading, show_progress=progress)
    nodes = chunks.cut(documents, show_progress=progress)
    common: dict[str, Any] = {
        "num_questions_per_chunk": questions.questions_per_chunk,
        "output_path": out,
        "questions": asked,
        "calls": calls,
        "sample": sample,
    }
    # What it takes is the same on a cluster, whose workers share the limits, so none is asked.
    estimate = estimate_qa_embedding_pairs(nodes, client, **common).with_more(
        calls_per_query=bool(filters.judge) + questions.negatives, queries_per_chunk=questions.questions_per_chunk
    )
    if dry_run:
        console.print(str(estimate), markup=False, soft_wrap=True)
        return {"estimate": asdict(estimate), "out": None}
    confirm_cost(estimate, yes=yes, max_cost=calls.max_cost)
    common |= {"retry_limit": questions.retry_limit, "verbose": progress, "filters": wanted}
    if ray is None:
        dataset = generate_qa_embedding_pairs(nodes, client, **common)
    else:
        from llama_index_embft.scale.ray import generate_qa_embedding_pairs as generate_on_cluster

        dataset = generate_on_cluster(nodes, client, workers=ray_workers, address=ray, **common)
    if not progress:  # else the summary stands below the progress bar
        console.print(str(dataset.report), markup=False, soft_wrap=True)
    if questions.negatives:
        dataset = generate_negatives(
            dataset,
            client,
            per_query=questions.negatives,
            retry_limit=questions.retry_limit,
            show_progress=progress,
            calls=calls,
        )
        dataset.save_json(out)
    for sentence in documents.sentences():  # said once while reading, pages above
        console.print(sentence, markup=False, soft_wrap=True)
    console.print(f"Written to {out}", markup=False, soft_wrap=True)
    return {"estimate": asdict(estimate), "out": out, "queries": len(dataset.queries), "corpus": len(dataset.corpus)}


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
