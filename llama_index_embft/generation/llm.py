"""Nodes to questions by any LlamaIndex LLM: the public functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, overload

from llama_index_embft.calls.running import run_sync

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from llama_index.core.llms import LLM
    from llama_index.core.schema import BaseNode, MetadataMode

    from llama_index_embft.calls.asking import Structured
    from llama_index_embft.calls.pool import OnFailure
    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.generation.filters.base import QuestionFilter
    from llama_index_embft.generation.prompts import PromptLanguage, QueryKind
    from llama_index_embft.generation.report import GenerationEstimate, GenerationReport


@overload
async def agenerate_qa_embedding_pairs(
    nodes: Sequence[BaseNode], llm: LLM, *args: Any, dry_run: Literal[True], **options: Any
) -> GenerationEstimate: ...
@overload
async def agenerate_qa_embedding_pairs(
    nodes: Sequence[BaseNode],
    llm: LLM,
    qa_generate_prompt_tmpl: str | None = None,
    num_questions_per_chunk: int = 2,
    retry_limit: int = 3,
    on_failure: OnFailure = "continue",
    save_every: int = 500,
    output_path: str | Path | None = "qa_finetune_dataset.json",
    verbose: bool = True,
    *,
    num_workers: int | None = None,
    requests_per_minute: int | None = None,
    tokens_per_minute: int | None = None,
    journal_path: str | Path | None = None,
    kinds: Mapping[QueryKind, float] | None = None,
    personas: Sequence[str] = (),
    example_queries: Sequence[str] = (),
    with_answers: bool = False,
    language: PromptLanguage = "auto",
    structured: Structured = "auto",
    filters: Sequence[QuestionFilter] | None = None,
    metadata_mode: MetadataMode | str = "embed",
    prices: tuple[float, float] | None = None,
    report: GenerationReport | None = None,
    dry_run: Literal[False] = False,
) -> EmbeddingQAFinetuneDataset: ...
async def agenerate_qa_embedding_pairs(  # type: ignore[misc]  # overload 1 does not spell the options out again
    nodes: Sequence[BaseNode],
    llm: LLM,
    qa_generate_prompt_tmpl: str | None = None,
    num_questions_per_chunk: int = 2,
    retry_limit: int = 3,
    on_failure: OnFailure = "continue",
    save_every: int = 500,
    output_path: str | Path | None = "qa_finetune_dataset.json",
    verbose: bool = True,
    *,
    num_workers: int | None = None,
    requests_per_minute: int | None = None,
    tokens_per_minute: int | None = None,
    journal_path: str | Path | None = None,
    kinds: Mapping[QueryKind, float] | None = None,
    personas: Sequence[str] = (),
    example_queries: Sequence[str] = (),
    with_answers: bool = False,
    language: PromptLanguage = "auto",
    structured: Structured = "auto",
    filters: Sequence[QuestionFilter] | None = None,
    metadata_mode: MetadataMode | str = "embed",
    prices: tuple[float, float] | None = None,
    report: GenerationReport | None = None,
    dry_run: bool = False,
) -> EmbeddingQAFinetuneDataset | GenerationEstimate:
    """Let an LLM write questions for nodes, many at a time, and keep the good ones.

    The first nine arguments are those of llama-index-finetuning, with their meaning; what differs is said there.

    Every answer is stored in a journal before the next question is asked. Killed at any moment and called again with
    the same nodes, the function asks only for what is missing and returns the same data set, byte for byte. Nodes are
    recognised by their text, not by their number: a chunk that failed shifts nothing, and other nodes get their own
    answers even from the same journal. A changed prompt, model or setting asks again and says so. Chunks that failed
    are asked again too.

    Args:
        nodes: The nodes of the index. Their ids become the corpus ids.
        llm: Any LlamaIndex LLM. Its own retries are switched off (on a copy), so that limits hold and retries are not
            multiplied.
        qa_generate_prompt_tmpl: A prompt of your own with ``{context_str}`` and ``{num_questions_per_chunk}``. None
            takes the built-in prompts, English or Chinese after the language of each chunk.
        num_questions_per_chunk: Queries a chunk; an LLM that writes more is cut, one that writes fewer is counted.
        retry_limit: Attempts a chunk. Waiting for a rate limit (429) does not count as one.
        on_failure: ``"continue"`` records a chunk that no attempt could save, with the reason, and goes on; the chunk
            stays in the corpus, without queries. ``"fail"`` stops at the first. A wrong key, an unknown model or no
            network stops in either case, after the first call.
        save_every: Write the queries so far to ``output_path`` after so many chunks (and not before the data set has
            grown by a tenth, so that writing stays cheap). They are unfiltered until the end. 0 writes at the end only.
        output_path: File of the data set; None for no file. It is written from these nodes alone. A file there that was
            made from other nodes, such as the training set when this call makes the validation set, is renamed and
            a warning says so: nothing is mixed and nothing lost.
        verbose: Show a progress bar with requests a second, tokens and cost, and a summary, on standard error.
        num_workers: Requests in flight. None takes 16, or 1 for an LLM without real async calls (`CustomLLM`: llama.cpp
            and many local models must not be called by two threads).
        requests_per_minute: Limit in any sliding minute, retries included. None for no limit.
        tokens_per_minute: Limit of prompt and answer tokens in any sliding minute. None for no limit.
        journal_path: File of the journal. None puts it beside ``output_path`` (``….journal.sqlite``); without either
            there is a temporary one. Several processes may share one.
        kinds: Kind of query -> share, such as ``{"question": 0.6, "keyword": 0.3, "title": 0.1}``; None for questions
            only. For symmetric tasks: ``"paraphrase"`` and ``"similar_question"``.
        personas: Who asks, such as ``["a first-year analyst", "a driver"]``; one is drawn for each chunk.
        example_queries: Real queries of your users, whose style and length the LLM should match; 6 are drawn for each
            chunk.
        with_answers: Ask for answers too; they become ``reference_answers``.
        language: Language of the prompt: ``"auto"`` (by chunk), ``"en"`` or ``"zh"``.
        structured: How answers come: ``"tools"`` (function calling), ``"llm"`` (`as_structured_llm`), ``"text"``, or
            ``"auto"`` for the best that the LLM has, with text if the server refuses.
        filters: Applied in order to all queries at the end; none of them calls the LLM but `Judge`. None takes
            `RefersToText`, `WrongLanguage` and `NearDuplicates`; an empty list keeps everything.
        metadata_mode: Text of the corpus; the default is ``MetadataMode.EMBED``, which is what an index embeds. The LLM
            reads the text without metadata.
        prices: US dollars for a million tokens sent and received, to show the cost.
        dry_run: Call nothing, write nothing, and return what it would take.
        report: An empty `GenerationReport` to be filled in with counts, failures and what the filters dropped.

    Returns:
        The data set; for ``dry_run=True`` a `GenerationEstimate`.

    Raises:
        ConfigError: An argument is not allowed, or there are no nodes with text.
        DatasetError: Two nodes share an id.
        GenerationError: Nothing usable came back for any chunk, no further call can succeed, or a chunk failed with
            ``on_failure="fail"``.
        OutputError: The journal or the data set cannot be written.
    """
    arguments = dict(locals())
    from llama_index_embft.generation.run import GenerationRun, RunSettings

    run = GenerationRun(arguments.pop("nodes"), arguments.pop("llm"), RunSettings(**arguments))
    return await (run.estimate() if dry_run else run.generate())


@overload
def generate_qa_embedding_pairs(
    nodes: Sequence[BaseNode], llm: LLM, *args: Any, dry_run: Literal[True], **options: Any
) -> GenerationEstimate: ...
@overload
def generate_qa_embedding_pairs(
    nodes: Sequence[BaseNode],
    llm: LLM,
    qa_generate_prompt_tmpl: str | None = None,
    num_questions_per_chunk: int = 2,
    retry_limit: int = 3,
    on_failure: OnFailure = "continue",
    save_every: int = 500,
    output_path: str | Path | None = "qa_finetune_dataset.json",
    verbose: bool = True,
    *,
    num_workers: int | None = None,
    requests_per_minute: int | None = None,
    tokens_per_minute: int | None = None,
    journal_path: str | Path | None = None,
    kinds: Mapping[QueryKind, float] | None = None,
    personas: Sequence[str] = (),
    example_queries: Sequence[str] = (),
    with_answers: bool = False,
    language: PromptLanguage = "auto",
    structured: Structured = "auto",
    filters: Sequence[QuestionFilter] | None = None,
    metadata_mode: MetadataMode | str = "embed",
    prices: tuple[float, float] | None = None,
    report: GenerationReport | None = None,
    dry_run: Literal[False] = False,
) -> EmbeddingQAFinetuneDataset: ...
def generate_qa_embedding_pairs(  # type: ignore[misc]  # overload 1 does not spell the options out again
    nodes: Sequence[BaseNode],
    llm: LLM,
    qa_generate_prompt_tmpl: str | None = None,
    num_questions_per_chunk: int = 2,
    retry_limit: int = 3,
    on_failure: OnFailure = "continue",
    save_every: int = 500,
    output_path: str | Path | None = "qa_finetune_dataset.json",
    verbose: bool = True,
    *,
    num_workers: int | None = None,
    requests_per_minute: int | None = None,
    tokens_per_minute: int | None = None,
    journal_path: str | Path | None = None,
    kinds: Mapping[QueryKind, float] | None = None,
    personas: Sequence[str] = (),
    example_queries: Sequence[str] = (),
    with_answers: bool = False,
    language: PromptLanguage = "auto",
    structured: Structured = "auto",
    filters: Sequence[QuestionFilter] | None = None,
    metadata_mode: MetadataMode | str = "embed",
    prices: tuple[float, float] | None = None,
    report: GenerationReport | None = None,
    dry_run: bool = False,
) -> EmbeddingQAFinetuneDataset | GenerationEstimate:
    """Let an LLM write questions for nodes: `agenerate_qa_embedding_pairs` for code that is not async.

    Works in scripts and in notebooks with a running event loop alike. Ctrl-C stops it; the same call goes on later.
    """
    arguments = dict(locals())
    result: EmbeddingQAFinetuneDataset | GenerationEstimate = run_sync(agenerate_qa_embedding_pairs(**arguments))
    return result
