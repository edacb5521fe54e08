"""Nodes to questions by any LlamaIndex LLM: the public functions."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from llama_index_embft.calls.running import run_sync, synchronous
from llama_index_embft.calls.settings import CallSettings, OnFailure
from llama_index_embft.generation.settings import QuestionSettings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from llama_index.core.llms import LLM
    from llama_index.core.schema import BaseNode

    from llama_index_embft.generation.assemble import GeneratedDataset
    from llama_index_embft.generation.filters.base import QuestionFilter
    from llama_index_embft.generation.report import GenerationEstimate
    from llama_index_embft.generation.sampling import ChunkSampling


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
    questions: QuestionSettings = QuestionSettings(),  # noqa: B008 - frozen
    calls: CallSettings = CallSettings(),  # noqa: B008 - frozen
    filters: Sequence[QuestionFilter] | None = None,
    sample: ChunkSampling | None = None,
) -> GeneratedDataset:
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
        questions: Kinds of queries, personas, examples, answers, language, and how the index embeds a chunk.
        calls: Requests in flight, limits, prices, the journal.
        filters: Applied in order to all queries at the end; none of them calls the LLM but `Judge`. None takes
            `RefersToText`, `WrongLanguage` and `NearDuplicates`; an empty list keeps everything.
        sample: Ask about some of the chunks only; all are in the corpus. None asks about all.

    Returns:
        The data set; its ``report`` has counts, failures and what the filters dropped.

    Raises:
        ConfigError: An argument is not allowed, or there are no nodes with text.
        DatasetError: Two nodes share an id.
        GenerationError: Nothing usable came back for any chunk, no further call can succeed, or a chunk failed with
            ``on_failure="fail"``.
        OutputError: The journal or the data set cannot be written.
    """
    from llama_index_embft.generation.run import GenerationRun, RunOptions

    options = RunOptions(
        qa_generate_prompt_tmpl=qa_generate_prompt_tmpl,
        num_questions_per_chunk=num_questions_per_chunk,
        retry_limit=retry_limit,
        on_failure=on_failure,
        save_every=save_every,
        output_path=output_path,
        verbose=verbose,
        questions=questions,
        calls=calls,
        filters=filters,
        sample=sample,
    )
    run = await asyncio.to_thread(GenerationRun, nodes, llm, options)  # a sample may embed all chunks
    return await run.generate()


generate_qa_embedding_pairs = synchronous(agenerate_qa_embedding_pairs)
"""Let an LLM write questions for nodes: `agenerate_qa_embedding_pairs` for code that is not async.

Works in scripts and in notebooks with a running event loop alike. Ctrl-C stops it; the same call goes on later.
"""


def estimate_qa_embedding_pairs(
    nodes: Sequence[BaseNode],
    llm: LLM,
    qa_generate_prompt_tmpl: str | None = None,
    num_questions_per_chunk: int = 2,
    *,
    output_path: str | Path | None = "qa_finetune_dataset.json",
    questions: QuestionSettings = QuestionSettings(),  # noqa: B008 - frozen
    calls: CallSettings = CallSettings(),  # noqa: B008 - frozen
    sample: ChunkSampling | None = None,
) -> GenerationEstimate:
    """Count what `generate_qa_embedding_pairs` would ask with these arguments; the LLM is not called, nothing written.

    A clustered `sample` embeds the chunks.

    Raises:
        ConfigError: An argument is not allowed, or there are no nodes with text.
        DatasetError: Two nodes share an id.
    """
    from llama_index_embft.generation.run import GenerationRun, RunOptions

    options = RunOptions(
        qa_generate_prompt_tmpl=qa_generate_prompt_tmpl,
        num_questions_per_chunk=num_questions_per_chunk,
        output_path=output_path,
        questions=questions,
        calls=calls,
        sample=sample,
    )
    return run_sync(GenerationRun(nodes, llm, options).estimate())
