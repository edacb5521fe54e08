"""Runs without HTTP: local LLMs, senseless input, interruption, and what importing costs."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from conftest_generation import generate_flat, make_nodes
from llama_index.core.llms import CompletionResponse, CustomLLM, LLMMetadata, MockLLM
from llama_index.core.schema import TextNode
from pydantic import Field

from llama_index_embft.calls.running import run_sync
from llama_index_embft.errors import ConfigError, DatasetError, GenerationError, OutputError
from llama_index_embft.generation import GenerationReport, QuestionFilter


class Local(CustomLLM):
    """A home-made LLM: synchronous, and it notes how many threads call it at once."""

    seconds: float = 0.02
    at_once: int = 0
    most_at_once: int = 0
    calls: int = 0
    fails: int = 0

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name="local")

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        self.calls += 1
        if self.calls <= self.fails:
            raise RuntimeError("out of memory")
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        time.sleep(self.seconds)
        self.at_once -= 1
        name = prompt.partition("number")[2].split()[0]
        return CompletionResponse(text=f"1. What holds the great valve {name}?\n2. Who owns orchard {name}?")

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        raise NotImplementedError


def generate(nodes: Any, llm: Any, **options: Any) -> Any:
    return generate_flat(nodes, llm, **{"output_path": None, "verbose": False, "filters": [], **options})


def test_a_local_llm_is_called_by_one_thread_unless_asked_for() -> None:
    careful = Local()
    assert len(generate(make_nodes(8), careful).queries) == 16
    assert careful.most_at_once == 1
    parallel = Local(seconds=0.1)
    generate(make_nodes(8), parallel, num_workers=4)
    assert parallel.most_at_once == 4


def test_a_local_llm_does_not_block_the_callers_loop() -> None:
    from llama_index_embft.generation import agenerate_qa_embedding_pairs

    async def main() -> int:
        ticks = 0
        work = asyncio.create_task(
            agenerate_qa_embedding_pairs(make_nodes(5), Local(seconds=0.1), output_path=None, verbose=False)
        )
        while not work.done():
            ticks += 1
            await asyncio.sleep(0.01)
        return ticks

    assert asyncio.run(main()) > 20


def test_exceptions_of_a_home_made_llm_are_tried_again() -> None:
    report = GenerationReport()
    assert len(generate(make_nodes(3), Local(fails=2), report=report).queries) == 6
    assert report.retries == 2
    with pytest.raises(GenerationError, match=r"no usable query.*RuntimeError: out of memory"):
        generate(make_nodes(3), Local(fails=99))


def test_an_llm_that_repeats_the_prompt_has_written_no_query() -> None:
    text = "The valve of the harbour stands."
    nodes = [TextNode(id_="a", text=text)]
    with pytest.raises(GenerationError, match=r"no usable query.*no query in"):
        generate(nodes, MockLLM(), kinds={"keyword": 1.0}, example_queries=["an example of mine"])


def test_a_report_without_usage_says_about() -> None:
    report = GenerationReport()
    generate(make_nodes(2), Local(), report=report)
    assert report.estimated
    assert "about" in str(report)
    assert report.prompt_tokens > 100


class Endless(CustomLLM):
    """Answers at once, with real async calls, and notes what the run holds in memory."""

    held: dict[int, tuple[int, int]] = Field(default_factory=dict)
    calls: int = 0

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name="endless", context_window=32_000)

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        raise NotImplementedError

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        raise NotImplementedError

    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        self.calls += 1
        if self.calls in (300, 1400):
            gc.collect()
            self.held[self.calls] = (tracemalloc.get_traced_memory()[0], len(asyncio.all_tasks()))
        await asyncio.sleep(0)
        number = prompt.partition("Chunk ")[2].partition(" ")[0]
        return CompletionResponse(text=f"What is chunk {number} about?\nWhich harbour holds valve {number}?")


def test_memory_does_not_grow_with_the_number_of_chunks_asked() -> None:
    nodes = [TextNode(id_=str(n), text=f"Chunk {n} is about harbours.") for n in range(1450)]
    llm = Endless()
    gc.collect()  # clients of earlier tests, whose closing would else fall into this run and load sources for its log
    tracemalloc.start()
    try:
        generate(nodes, llm, num_workers=8)
    finally:
        tracemalloc.stop()
    (early, _), (late, tasks) = llm.held[300], llm.held[1400]
    assert late - early < 150_000  # bytes; the 1,100 answers between alone would be more
    assert tasks <= 8 + 3


@pytest.mark.parametrize(
    ("nodes", "options", "error", "sentence"),
    [
        ([], {}, ConfigError, "There are no nodes"),
        ([TextNode(text="  \n")], {}, ConfigError, "None of the 1 nodes has text"),
        ([TextNode(id_="a", text="x"), TextNode(id_="a", text="y")], {}, DatasetError, "Two nodes have the id 'a'"),
        (None, {"num_questions_per_chunk": 0}, ConfigError, "`num_questions_per_chunk` is 0; it must be at least 1"),
        (None, {"retry_limit": 0}, ConfigError, "`retry_limit` is 0; it must be at least 1"),
        (
            None,
            {"on_failure": "explode"},
            ConfigError,
            "`on_failure` is 'explode'; it must be one of",
        ),
        (None, {"save_every": -1}, ConfigError, "`save_every` is -1; it must be at least 0"),
        (None, {"num_workers": 0}, ConfigError, "`num_workers` is 0; it must be at least 1"),
        (None, {"prices": (1.0, -1.0)}, ConfigError, "it must be two numbers from 0"),
        (None, {"prices": 5}, ConfigError, "`prices` is 5; it must be two numbers from 0"),
        (None, {"prices": ("1", "2")}, ConfigError, "it must be two numbers from 0"),
        (None, {"structured": "tools"}, ConfigError, "has no tool calls"),
        (None, {"structured": "xml"}, ConfigError, "`structured` is 'xml'; it must be one of"),
        (None, {"metadata_mode": "some"}, ConfigError, "`metadata_mode` must be one of"),
        (None, {"kinds": {"riddle": 1.0}}, ConfigError, "`kinds` is 'riddle'; it must be one of"),
    ],
)
def test_senseless_calls_are_one_sentence(nodes: Any, options: Any, error: type[Exception], sentence: str) -> None:
    llm = Local()
    with pytest.raises(error, match=sentence) as caught:
        generate(make_nodes(2) if nodes is None else nodes, llm, **options)
    assert "\n" not in str(caught.value)
    assert llm.calls == 0


def test_the_output_path_may_not_be_a_folder(tmp_path: Path) -> None:
    llm = Local()
    with pytest.raises(OutputError, match="it is a folder"):
        generate(make_nodes(2), llm, output_path=tmp_path)
    assert llm.calls == 0


def test_an_unwritable_journal_is_said_before_any_call(tmp_path: Path) -> None:
    llm = Local()
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="Cannot open the journal"):
        generate(make_nodes(2), llm, journal_path=tmp_path / "file" / "j.sqlite")
    assert llm.calls == 0


def test_empty_nodes_are_left_out_and_counted() -> None:
    report = GenerationReport()
    nodes = [*make_nodes(2), TextNode(id_="empty", text=" ")]
    dataset = generate(nodes, Local(), report=report)
    assert "empty" not in dataset.corpus
    assert report.empty == 1
    assert "1 chunks without text" in str(report)


def test_broken_unicode_is_survived(tmp_path: Path) -> None:
    node = TextNode(id_="a", text="number\udce9 of the valve \x00 stands")
    dataset = generate([node], Local(), output_path=tmp_path / "t.json")
    assert json.loads((tmp_path / "t.json").read_text())["corpus"] == dataset.corpus


def test_a_filter_of_the_users_own() -> None:
    class NoOrchards(QuestionFilter):
        name = "orchards"

        async def drop(self, candidates: Any, context: Any) -> Any:
            return {n: "an orchard" for n, candidate in enumerate(candidates) if "orchard" in candidate.query}

    report = GenerationReport()
    assert len(generate(make_nodes(4), Local(), filters=[NoOrchards()], report=report).queries) == 4
    assert report.dropped == {"orchards": 4}


def test_every_chunk_without_queries_is_named() -> None:
    twins = [TextNode(id_="a", text="numberx stands"), TextNode(id_="b", text="numberx stands"), *make_nodes(1)]

    class Picky(Local):
        def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
            if "numberx" in prompt:
                return CompletionResponse(text="I'm sorry, I can't do that.")
            return super().complete(prompt)

    report = GenerationReport()
    generate(twins, Picky(), report=report)
    assert report.failed.keys() == {"a", "b"}
    assert all("refused" in reason for reason in report.failed.values())


def test_the_callers_context_is_seen_by_the_calls() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="nobody")
    variable.set("the caller")
    seen: list[str] = []

    async def work() -> str:
        seen.append(variable.get())
        return threading.current_thread().name

    assert run_sync(work()) == "embft-calls"
    assert seen == ["the caller"]


def test_errors_come_through_run_sync_and_the_loop_lives_on() -> None:
    async def fail() -> None:
        raise ValueError("as it is")

    async def fine() -> int:
        return 1

    with pytest.raises(ValueError, match="as it is"):
        run_sync(fail())
    assert run_sync(fine()) == 1


_INTERRUPTED = textwrap.dedent("""
    import signal, sys
    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests started in the background inherit "ignore"
    sys.path.insert(0, sys.argv[1])
    from test_llm_runs import Local, make_nodes
    from llama_index_embft.generation import generate_qa_embedding_pairs
    try:
        sys.stdout.write("started\\n"); sys.stdout.flush()
        generate_qa_embedding_pairs(make_nodes(10_000), Local(), output_path=sys.argv[2], verbose=False)
    except KeyboardInterrupt:
        sys.stdout.write("interrupted\\n")
""")


def test_ctrl_c_stops_soon_and_keeps_what_there_is(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _INTERRUPTED, str(Path(__file__).parent), str(tmp_path / "t.json")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    journal = tmp_path / "t.journal.sqlite"
    deadline = time.monotonic() + 20
    while not journal.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.5)
    os.kill(process.pid, signal.SIGINT)
    assert process.communicate(timeout=60)[0] == "interrupted\n"
    assert process.returncode == 0
    assert not journal.with_name(journal.name + "-wal").exists()  # closed properly
    report = GenerationReport()
    generate(make_nodes(20), Local(), output_path=tmp_path / "t.json", report=report)
    assert report.from_journal > 0


def test_importing_the_folder_loads_neither_llamaindex_nor_torch() -> None:
    heavy = ("llama_index", "torch", "openai", "tqdm", "sqlite3")
    code = f"import sys, llama_index_embft.generation; print([m for m in sys.modules if m.split('.')[0] in {heavy}])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_every_public_name_is_there() -> None:
    import llama_index_embft.generation as generation

    named = [name for name in generation.__all__ if not name.isupper()]
    assert all(getattr(generation, name).__name__ == name for name in named)
    assert set(generation.__all__) == set(dir(generation))
    with pytest.raises(AttributeError, match="attribute nothing"):
        _ = generation.nothing
