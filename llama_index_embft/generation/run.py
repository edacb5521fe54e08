"""One run of the generation, from nodes to a data set."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args

from pydantic import BaseModel, Field

from llama_index_embft._core.checks import check_choice, check_number
from llama_index_embft.calls.asking import LLMCaller, LLMRequest, default_journal, model_identity, workers_for
from llama_index_embft.calls.counts import as_prices
from llama_index_embft.calls.failures import UnusableAnswerError
from llama_index_embft.calls.journal import Journal, RequestIdentity
from llama_index_embft.calls.progress import CallProgress
from llama_index_embft.calls.queue import QueuedRequest, RequestQueue
from llama_index_embft.calls.server import GivenUpError
from llama_index_embft.calls.settings import CallSettings, OnFailure
from llama_index_embft.calls.tokens import count_tokens
from llama_index_embft.errors import ConfigError, GenerationError
from llama_index_embft.generation.assemble import GeneratedDataset, OutputFile, build_dataset, gather_candidates
from llama_index_embft.generation.filters.base import FilterContext, QuestionFilter, apply_filters, default_filters
from llama_index_embft.generation.languages import detected_as
from llama_index_embft.generation.parse import Item, asks, is_refusal, parse_items
from llama_index_embft.generation.passages import read_passages
from llama_index_embft.generation.prompts.few_shot import read_continuation
from llama_index_embft.generation.prompts.style import Prompt, PromptStyle
from llama_index_embft.generation.prompts.tasks import QueryTask, TaskPlan
from llama_index_embft.generation.report import GenerationEstimate, GenerationReport
from llama_index_embft.generation.settings import QueryKind, QuestionSettings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from llama_index.core.llms import LLM
    from llama_index.core.schema import BaseNode

    from llama_index_embft.generation.sampling import ChunkSampling

logger = logging.getLogger(__name__)

# Lines of an answer that are looked at; LLMs that write more than asked do not write this many more.
_READ_AT_MOST: Final = 100
_TOKENS_A_QUERY: Final = 30
_TOKENS_AN_ANSWER: Final = 40


class Queries(BaseModel):
    """Search queries for the passage."""

    queries: list[str] = Field(description="The queries, in the order asked for")


class QueryWithAnswer(BaseModel):
    """A search query and its answer."""

    query: str
    answer: str = Field(description="Short, taken from the passage")


class QueriesWithAnswers(BaseModel):
    """Search queries for the passage, each with its answer."""

    queries: list[QueryWithAnswer] = Field(description="The queries, in the order asked for")


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The arguments of `agenerate_qa_embedding_pairs` besides nodes and LLM, checked; see there."""

    qa_generate_prompt_tmpl: str | None = None
    num_questions_per_chunk: int = 2
    retry_limit: int = 3
    on_failure: OnFailure = "continue"
    save_every: int = 500
    output_path: str | Path | None = "qa_finetune_dataset.json"
    verbose: bool = True
    questions: QuestionSettings = field(default_factory=QuestionSettings)
    calls: CallSettings = field(default_factory=CallSettings)
    filters: Sequence[QuestionFilter] | None = None
    sample: ChunkSampling | None = None

    def __post_init__(self) -> None:
        check_choice("on_failure", self.on_failure, get_args(OnFailure))
        check_number("save_every", self.save_every, at_least=0, hint="0 writes at the end only")
        check_number("retry_limit", self.retry_limit, at_least=1)
        if isinstance(self.filters, QuestionFilter):
            raise ConfigError(f"`filters` is one {type(self.filters).__name__}; put it into brackets.")
        wrong = [filter_ for filter_ in self.filters or () if not isinstance(filter_, QuestionFilter)]
        if wrong:
            raise ConfigError(
                f"`filters` holds {wrong[0]!r}, which is not a QuestionFilter; did you forget the brackets?"
            )

    def beside_output(self) -> Path | None:
        """The journal beside the output; None without one."""
        return None if self.output_path is None else Path(str(self.output_path)).with_suffix(".journal.sqlite")

    def journal_file(self, llm: LLM) -> Path | None:
        """Where the journal is; None for a temporary one."""
        if self.calls.journal_path is not None:
            return Path(str(self.calls.journal_path))
        return default_journal(llm) or self.beside_output()


class GenerationRun:
    """Everything that one call of `agenerate_qa_embedding_pairs` needs.

    Args:
        nodes: The nodes of the index.
        llm: Any LlamaIndex LLM.
        options: The other arguments.

    Raises:
        ConfigError: There are no nodes, or none has text.
        DatasetError: Two nodes share an id.
        GenerationError: The LLM client does not know its model.
    """

    def __init__(self, nodes: Sequence[BaseNode], llm: LLM, options: RunOptions) -> None:
        self.options = options
        nodes = list(nodes)
        self.report = GenerationReport(chunks=len(nodes))
        self.prices = as_prices(options.calls.prices)
        self.style = PromptStyle(options.qa_generate_prompt_tmpl, options.num_questions_per_chunk, options.questions)
        self.passages = read_passages(nodes, options.questions.metadata_mode)
        self.report.empty = len(nodes) - len(self.passages)
        sample = options.sample
        asked = self.passages if sample is None else sample.draw(self.passages, show_progress=options.verbose)
        self.report.unasked = len(self.passages) - len(asked)
        self._plan = TaskPlan(self.style, asked, self.passages)
        self.report.alone = self._plan.alone
        # What is continued is text, whatever else the LLM can do.
        calls = replace(options.calls, structured="text") if options.questions.few_shot else options.calls
        self.caller = LLMCaller.for_llm(llm, calls, self.report, options.retry_limit)
        self.num_workers = workers_for(llm, options.calls)
        self._model = model_identity(self.caller.llm)
        with_answers = options.questions.with_answers
        self._answer_tokens = self.style.n * (_TOKENS_A_QUERY + _TOKENS_AN_ANSWER * with_answers)
        self._schema: type[BaseModel] = QueriesWithAnswers if with_answers else Queries

    async def generate(self) -> GeneratedDataset:
        """Ask for what the journal lacks, filter, and write the data set."""
        started = time.monotonic()
        options, report = self.options, self.report
        output = OutputFile(options.output_path, self.passages)  # before anything is paid for
        with Journal(options.journal_file(self.caller.callers_llm)) as journal:
            if options.calls.journal_path is None and (beside := options.beside_output()) is not None:
                journal.absorb(beside)
            queue = RequestQueue(self.caller, journal, self.num_workers, options.on_failure)
            progress = CallProgress(
                len(self._plan), report, self.prices, show=options.verbose, label="Writing questions"
            )
            snapshots = _Snapshots(self, journal, output, options.save_every)

            async def on_done() -> None:
                await progress.advance()
                await snapshots.count()

            try:
                await queue.get_all(self._requests(journal), on_done=on_done, on_failed=report.failed.__setitem__)
            finally:
                report.answered, report.from_journal = queue.answered, queue.from_journal
                progress.close()
            dataset = await self._assemble(journal, queue)
        report.seconds = time.monotonic() - started
        if self.prices is not None:
            report.cost = self.prices.cost(report.prompt_tokens, report.completion_tokens)
        await asyncio.to_thread(output.save, dataset)
        logger.info("%s", report)
        progress.say(str(report))
        return dataset

    async def estimate(self) -> GenerationEstimate:
        """Count what `generate` would ask."""
        file = self.options.journal_file(self.caller.callers_llm)
        calls = known = prompt_tokens = 0
        with Journal(file if file is not None and file.exists() else None) as journal:
            for n, task in enumerate(self._plan):
                prompt = self._prompt(task)
                if self._identity(task, prompt).key in journal:
                    known += 1
                    continue
                calls += 1
                try:
                    prompt_tokens += count_tokens(self._request(task, prompt).body)
                except GivenUpError as err:
                    raise GenerationError(err.failure.reason) from None
                if n % 50 == 0:
                    await asyncio.sleep(0)
        return GenerationEstimate.counted(calls, known, prompt_tokens, self._answer_tokens, self.options.calls)

    def _requests(self, journal: Journal) -> Iterator[QueuedRequest]:
        for task in self._plan:
            prompt = self._prompt(task)
            identity = self._identity(task, prompt)
            if identity.key not in journal and (changed := journal.answered_otherwise(identity)) is not None:
                self._note_change(changed, journal)
            yield QueuedRequest(task.label, identity, partial(self._request, task, prompt), _are_pairs)

    def _prompt(self, task: QueryTask) -> Prompt:
        return self.style.prompt_for(*task.texts, kinds=task.kinds)

    def _identity(self, task: QueryTask, prompt: Prompt) -> RequestIdentity:
        return RequestIdentity.of("questions", *task.texts, prompt=prompt.without_passage, model=self._model)

    def _request(self, task: QueryTask, prompt: Prompt) -> LLMRequest:
        texts, around = task.texts, prompt.body + prompt.format_line
        for text in texts:
            around = around.replace(text, "", 1)
        if len(texts) == 1:
            shown = [self.caller.fit(texts[0], around, self._answer_tokens)]
        else:
            first, second = texts
            shown = list(self.caller.fit_both(first, second, around, self._answer_tokens))
        if shown != texts:
            self._note_cut(task, sum(map(len, texts)), sum(map(len, shown)))
            prompt = self.style.prompt_for(*task.texts, kinds=task.kinds, shown=shown)

        def read(content: Any) -> list[list[str]]:
            return read_queries(content, prompt, self.style, asked_with=around)

        return LLMRequest(prompt.body, prompt.format_line, self._schema, read, self._answer_tokens)

    def _note_cut(self, task: QueryTask, characters: int, shown: int) -> None:
        self.report.cut += 1
        if self.report.cut == 1:
            logger.warning(
                "The chunk %r has %d characters and was cut to %d for the LLM's context window; chunk smaller, or set "
                "the LLM's `context_window` if it is larger. Further chunks that are cut are counted in the report.",
                task.label,
                characters,
                shown,
            )

    def _note_change(self, changed: str, journal: Journal) -> None:
        self.report.reasked[changed] += 1
        if self.report.reasked[changed] == 1:
            logger.warning(
                "The journal %s has answers made with another %s; these chunks are asked again (see the report).",
                journal.path,
                "prompt" if changed == "prompt" else "model or other settings of it",
            )

    def stored(self, journal: Journal) -> Iterator[tuple[QueryTask, list[list[str]]]]:
        """Stored answers in the order of the nodes."""
        for task in self._plan:
            answer = journal.get(self._identity(task, self._prompt(task)).key, _are_pairs)
            if answer is not None:
                yield task, answer.payload

    async def _assemble(self, journal: Journal, queue: RequestQueue) -> GeneratedDataset:
        report = self.report
        answers = list(self.stored(journal))
        self._explain_missing(answers, journal)
        report.short = sum(len(pairs) < len(task.kinds) for task, pairs in answers)
        report.covered = len({passage.id for task, _ in answers for passage in task.passages})
        report.generated = sum(len(pairs) for _, pairs in answers)
        candidates = gather_candidates((task.passages, pairs) for task, pairs in answers)
        report.merged = report.generated - len(candidates)
        if not candidates:
            reason = next(iter(report.failed.values()), "no reason was given")
            raise GenerationError(
                f"The LLM gave no usable query for any of {len(self.passages) - report.unasked} chunks, so there is no "
                f"data set; the first chunk failed with: {reason}"
            )
        language = self.options.questions.query_language
        expected = None if language is None else detected_as(language)
        context = FilterContext(self.passages, queue, report, self.prices, self.options.verbose, expected)
        filters = default_filters() if self.options.filters is None else list(self.options.filters)
        candidates = await apply_filters(candidates, filters, context)
        report.kept = len(candidates)
        if not candidates:
            name, ((query, reason), *_) = next(iter(report.examples.items()))
            raise GenerationError(
                f"The filters dropped all {report.generated} queries ({dict(report.dropped)}), the first by {name!r}: "
                f"{query!r} {reason}; loosen or leave out a filter. Nothing needs to be asked again."
            )
        return build_dataset(self.passages, candidates, report)

    def _explain_missing(self, answers: Sequence[tuple[QueryTask, Any]], journal: Journal) -> None:
        """Name every chunk without queries; of several with one text only the first was asked."""
        answered = {task.label for task, _ in answers}
        missing = [task for task in self._plan if task.label not in answered]
        reasons = dict(journal.failures()) if missing else {}
        for task in missing:
            key = self._identity(task, self._prompt(task)).key
            self.report.failed.setdefault(task.label, reasons.get(key, "no answer was stored"))


class _Snapshots:
    """Writes the queries so far now and then, for those who look; the journal is what keeps them safe."""

    def __init__(self, run: GenerationRun, journal: Journal, output: OutputFile, every: int) -> None:
        self._run, self._journal, self._output = run, journal, output
        self._every = every if output.path is not None else 0
        self._done = 0
        self._next = every

    async def count(self) -> None:
        self._done += 1
        if not self._every or self._done < self._next:
            return
        # Each file is written whole: growing by a tenth keeps the sum of all writing in proportion to the last.
        self._next = self._done + max(self._every, self._done // 10)
        await asyncio.to_thread(self._save)

    def _save(self) -> None:
        stored = self._run.stored(self._journal)
        candidates = gather_candidates((task.passages, pairs) for task, pairs in stored)
        if candidates:
            asked = {passage.id for candidate in candidates for passage in candidate.passages}
            passages = [passage for passage in self._run.passages if passage.id in asked]
            self._output.save(build_dataset(passages, candidates, self._run.report))


def read_queries(content: Any, prompt: Prompt, style: PromptStyle, *, asked_with: str) -> list[list[str]]:
    """Take ``[query, answer]`` pairs out of an LLM's answer.

    Raises:
        UnusableAnswerError: There is no query in it, or no answer although answers were asked for.
    """
    if style.settings.few_shot:
        content = read_continuation(str(content), with_answers=style.settings.with_answers)
    items = parse_items(content, limit=_READ_AT_MOST, questions_only=prompt.questions_only)
    items = _of_kinds([item for item in items if item.query not in asked_with], prompt.kinds)[: len(prompt.kinds)]
    shown = " ".join(str(content).split())[:160]
    if not items:
        raise UnusableAnswerError(f"the LLM refused: {shown!r}" if is_refusal(shown) else f"no query in: {shown!r}")
    if style.settings.with_answers and not any(item.answer for item in items):
        raise UnusableAnswerError(f"no answer to the queries in: {shown!r}")
    return [[item.query, item.answer if style.settings.with_answers else ""] for item in items]


def _of_kinds(items: Sequence[Item], kinds: Sequence[QueryKind]) -> list[Item]:
    """Leave out questions in place of claims: no more lines may ask than were asked for as anything else."""
    room = sum(kind != "claim" for kind in kinds) if "claim" in kinds else len(items)
    kept: list[Item] = []
    for item in items:
        asking = asks(item.query)
        if not asking or room > 0:
            kept.append(item)
        room -= asking
    return kept


def _are_pairs(payload: Any) -> bool:
    """Whether stored content is what the LLM's questions are stored as: pairs of query and answer."""
    return isinstance(payload, list) and all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair) for pair in payload
    )
