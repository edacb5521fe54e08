"""Writing questions with an LLM: ours against llama-index-finetuning 0.4.2, limits, memory, and fifty kills.

Both functions talk to one loopback server (a process of its own, 200 ms latency) through the same client class, in one
run, over the same 344 chunks of the 10-K filings of Lyft and Uber.

"labels" does the same for the labels of a reranker: 160 pairs of a question and a passage, the same samples from both.

    python benchmarks/generation.py [--quick] [--only speed labels limits memory kills]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from _common import DATA, RESULTS, write_results
from llama_index.core.llms import CompletionResponse, CustomLLM, LLMMetadata
from llama_index.core.schema import TextNode
from pydantic import Field

from llama_index_embft.calls import CallSettings
from llama_index_embft.generation import agenerate_qa_embedding_pairs, generate_qa_embedding_pairs

TOOLS = Path(__file__).resolve().parents[1] / "tests" / "llm_server"
CHUNKS, LATENCY = 344, 0.2


@contextmanager
def server(latency: float, *options: str) -> Iterator[str]:
    """The loopback server in its own process; yields its API base."""
    command = [sys.executable, str(TOOLS / "loopback_llm.py"), "--latency", str(latency), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


def stats(api_base: str) -> dict[str, Any]:
    with urllib.request.urlopen(api_base.removesuffix("/v1") + "/stats") as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def client(api_base: str) -> Any:
    from llama_index.llms.openai_like import OpenAILike

    return OpenAILike(model="loopback", api_base=api_base, api_key="none", is_chat_model=True, context_window=32_000)


def chunks() -> list[TextNode]:
    texts: list[str] = []
    for name in ("lyft_10k_2021.json", "uber_10k_2021.json"):
        if (DATA / name).exists():
            texts += json.loads((DATA / name).read_text())["corpus"].values()
    texts = texts or [f"Chunk {n} about harbours, valves and orchards. " * 60 for n in range(CHUNKS)]
    return [TextNode(id_=f"chunk-{n}", text=text) for n, text in enumerate(texts[:CHUNKS])]


# --- speed ------------------------------------------------------------------------------------------------------------


def stock(nodes: list[TextNode], llm: Any, folder: Path) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from llama_index.finetuning import generate_qa_embedding_pairs as theirs

        # The import switches INFO on for every logger; two lines a request would be timed too, for both sides.
        logging.getLogger("httpx").setLevel(logging.WARNING)
        started = time.perf_counter()
        theirs(nodes, llm, output_path=str(folder / "stock.json"), verbose=False)
    return time.perf_counter() - started


def ours(nodes: list[TextNode], llm: Any, folder: Path, workers: int, **options: Any) -> tuple[float, float]:
    """Wall-clock and CPU seconds of the whole call: journal, filters and file included."""
    started, cpu = time.perf_counter(), time.process_time()
    calls = CallSettings(num_workers=workers, **options)
    generate_qa_embedding_pairs(nodes, llm, output_path=folder / f"ours-{workers}.json", verbose=False, calls=calls)
    return time.perf_counter() - started, time.process_time() - cpu


def bare_client(nodes: list[TextNode], llm: Any, workers: int) -> float:
    """CPU seconds of the LLM client alone: the same prompts, nothing around them."""
    from llama_index_embft.generation import PromptStyle

    style = PromptStyle()
    prompts = [f"{p.body}\n{p.format_line}" for p in (style.prompt_for(node.text) for node in nodes)]

    async def main() -> None:
        waiting = iter(prompts)

        async def worker() -> None:
            for prompt in waiting:
                await llm.acomplete(prompt)

        await asyncio.gather(*(worker() for _ in range(workers)))

    cpu = time.process_time()
    asyncio.run(main())
    return time.process_time() - cpu


def measure_speed(quick: bool) -> list[dict[str, Any]]:
    nodes = chunks()[: 64 if quick else CHUNKS]
    rows: list[dict[str, Any]] = []
    shared = {"part": "speed", "chunks": len(nodes), "latency_s": LATENCY}
    with server(LATENCY) as api_base, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ours(nodes[:2], client(api_base), folder / "warm", 2)  # imports and the tokenizer, for both
        seconds = stock(nodes, client(api_base), folder)
        rows.append({**shared, "function": "llama-index-finetuning", "workers": 1, "seconds": seconds, "speedup": 1.0})
        for workers in (1, 8, 32, 64):
            if workers == 1 and quick:
                continue
            before = stats(api_base)
            taken, cpu = ours(nodes, client(api_base), folder, workers)
            after = stats(api_base)
            rows.append(
                {
                    **shared,
                    "function": "llama-index-embft",
                    "workers": workers,
                    "seconds": taken,
                    "speedup": seconds / taken,
                    "requests": after["requests"] - before["requests"],
                    # Against a client that costs nothing and never waits for anything but the server.
                    "overhead_ms_per_request": (taken - LATENCY * len(nodes) / workers) / len(nodes) * 1000,
                    "cpu_ms_per_request": cpu / len(nodes) * 1000,
                }
            )
    with server(0.0) as api_base, tempfile.TemporaryDirectory() as name:
        alone = [bare_client(nodes, client(api_base), 32) for _ in range(3)]
        whole = [ours(nodes, client(api_base), Path(name) / str(n), 32) for n in range(3)]
        per_request = 1000 / len(nodes)
        rows.append(
            {
                **shared,
                "latency_s": 0.0,
                "function": "cpu of one request",
                "workers": 32,
                "client_cpu_ms": min(alone) * per_request,
                "client_and_ours_cpu_ms": min(cpu for _, cpu in whole) * per_request,
                "ours_cpu_ms": (min(cpu for _, cpu in whole) - min(alone)) * per_request,
                "wall_ms_per_request": min(wall for wall, _ in whole) * per_request,
            }
        )
    return rows


# --- labels of a reranker ---------------------------------------------------------------------------------------------


def measure_labels(quick: bool) -> list[dict[str, Any]]:
    from llama_index.core import Document, Settings
    from llama_index.embeddings.openai import OpenAIEmbedding

    from llama_index_embft.generation import DEFAULT_QUERY_DOC_RELEVANCE_PROMPT, generate_ce_fine_tuning_dataset

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from llama_index.finetuning.cross_encoders.dataset_gen import generate_ce_fine_tuning_dataset as theirs
    logging.getLogger("httpx").setLevel(logging.WARNING)  # see `stock`
    documents = [Document(text=node.text) for node in chunks()[:64]]
    questions = [f"What is said of {' '.join(d.text.split()[10:16])}?" for d in documents[: 8 if quick else 40]]
    rows: list[dict[str, Any]] = []
    with server(LATENCY) as api_base, server(0.0) as vectors:
        Settings.embed_model = OpenAIEmbedding(api_base=vectors, api_key="none")
        # The same prompt for both. Vectors cost next to nothing here; ours come from the cache after the first run.
        options = {"top_k": 4, "llm": client(api_base), "qa_doc_relevance_prompt": DEFAULT_QUERY_DOC_RELEVANCE_PROMPT}
        started = time.perf_counter()
        expected = theirs(documents, questions, **options)
        seconds = time.perf_counter() - started
        shared = {"part": "labels", "pairs": len(expected), "latency_s": LATENCY}
        rows.append({**shared, "function": "llama-index-finetuning", "workers": 1, "seconds": seconds, "speedup": 1.0})
        for workers in (1, 8, 32):
            with tempfile.TemporaryDirectory() as folder:
                calls = CallSettings(num_workers=workers, journal_path=Path(folder) / "labels.sqlite")
                started = time.perf_counter()
                found = generate_ce_fine_tuning_dataset(
                    documents, questions, calls=calls, show_progress=False, **options
                )
                taken = time.perf_counter() - started
            same = [vars(sample) for sample in found] == [vars(sample) for sample in expected]
            counts = {"workers": workers, "seconds": taken, "speedup": seconds / taken, "same_samples": same}
            rows.append({**shared, "function": "llama-index-embft", **counts})
    return rows


# --- limits -----------------------------------------------------------------------------------------------------------


def worst(events: list[tuple[float, float]], window: float = 60.0) -> float:
    """The most units in any window of a minute, as the server saw them."""
    events = sorted(events)
    best = total = 0.0
    tail = 0
    for when, units in events:
        total += units
        while events[tail][0] <= when - window:
            total -= events[tail][1]
            tail += 1
        best = max(best, total)
    return best


def measure_limits(quick: bool) -> list[dict[str, Any]]:
    rpm, tpm = 200, 60_000
    count = 210 if quick else 500
    nodes = [TextNode(id_=f"n{n}", text=f"Chunk {n} about harbours, valves and orchards. " * 12) for n in range(count)]
    rows = []
    for name, options in (("requests", {"requests_per_minute": rpm}), ("tokens", {"tokens_per_minute": tpm})):
        with server(0.05) as api_base, tempfile.TemporaryDirectory() as folder:
            seconds, _ = ours(nodes, client(api_base), Path(folder), 32, **options)
            seen = stats(api_base)
        rows.append(
            {
                "part": "limits",
                "limit": name,
                "per_minute": rpm if name == "requests" else tpm,
                "chunks": count,
                "most_requests_in_a_minute": worst([(when, 1.0) for when in seen["times"]]),
                "most_tokens_in_a_minute": worst([(when, tokens) for when, tokens in seen["tokens"]]),
                "seconds": seconds,
            }
        )
    return rows


# --- memory -----------------------------------------------------------------------------------------------------------


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


class InProcess(CustomLLM):
    """An LLM that answers at once, and notes how much memory the process holds."""

    every: int
    samples: list[tuple[int, float]] = Field(default_factory=list)
    calls: int = 0

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name="in-process", context_window=32_000)

    def complete(self, *_: Any, **__: Any) -> CompletionResponse:
        raise NotImplementedError

    def stream_complete(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError

    async def acomplete(self, prompt: str, *_: Any, **__: Any) -> CompletionResponse:
        self.calls += 1
        if self.calls % self.every == 0:
            self.samples.append((self.calls, resident_mb()))
        await asyncio.sleep(0)
        number = prompt.partition("Chunk ")[2].partition(" ")[0]
        text = f"What is chunk {number} about?\nWhich harbour holds valve {number}?"
        usage = {"prompt_tokens": len(prompt) // 4, "completion_tokens": 20}
        return CompletionResponse(text=text, additional_kwargs=usage)


def measure_memory(quick: bool) -> list[dict[str, Any]]:
    count = 10_000 if quick else 100_000
    nodes = [TextNode(id_=f"n{n}", text=f"Chunk {n} about harbours, valves and orchards. " * 20) for n in range(count)]
    llm = InProcess(every=count // 10)
    with tempfile.TemporaryDirectory() as folder:
        before = resident_mb()
        started = time.perf_counter()
        dataset = asyncio.run(
            agenerate_qa_embedding_pairs(
                nodes,
                llm,
                output_path=f"{folder}/d.json",
                verbose=False,
                filters=[],
                save_every=0,
                calls=CallSettings(num_workers=32),
            )
        )
        seconds = time.perf_counter() - started
        journal = Path(folder, "d.journal.sqlite").stat().st_size / 1e6
    asking = dict(llm.samples)
    first, last = min(asking), max(asking)
    return [
        {
            "part": "memory",
            "chunks": count,
            "seconds": seconds,
            "chunks_per_s": count / seconds,
            "resident_mb_before": before,
            "resident_mb_while_asking": asking,
            "growth_mb_while_asking": asking[last] - asking[first],
            "resident_mb_after": resident_mb(),
            "journal_mb": journal,
            "queries": dataset.report.kept,
        }
    ]


# --- kills ------------------------------------------------------------------------------------------------------------


def measure_kills(quick: bool) -> list[dict[str, Any]]:
    kills, count, workers = (10 if quick else 50), (400 if quick else 2000), 16
    dice = random.Random(0)
    with server(0.05) as api_base, tempfile.TemporaryDirectory() as name:
        files = {kind: Path(name, f"{kind}.json") for kind in ("calm", "storm")}
        helpers = {
            kind: subprocess.Popen(
                [sys.executable, str(TOOLS / "killed_run.py"), api_base, str(file), str(count), str(workers)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for kind, file in files.items()
        }

        def tell(kind: str, command: str) -> int:
            helper = helpers[kind]
            assert helper.stdin is not None
            assert helper.stdout is not None
            helper.stdin.write(command + "\n")
            helper.stdin.flush()
            return int(helper.stdout.readline())

        unfinished = 0
        for _ in range(kills):
            seen = stats(api_base)["requests"]
            pid = tell("storm", "start")
            while dice.random() < 0.99 and stats(api_base)["requests"] == seen:
                time.sleep(0.01)
            time.sleep(dice.uniform(0, 0.4))
            os.kill(pid, signal.SIGKILL)
            unfinished += tell("storm", "wait") == signal.SIGKILL
        tell("storm", "start")
        assert tell("storm", "wait") == 0
        storm = stats(api_base)
        tell("calm", "start")
        assert tell("calm", "wait") == 0
        same = files["storm"].read_bytes() == files["calm"].read_bytes()
        for helper in helpers.values():
            assert helper.stdin is not None
            helper.stdin.close()
            helper.wait()
    return [
        {
            "part": "kills",
            "kills": kills,
            "kills_before_the_end": unfinished,
            "chunks": count,
            "workers": workers,
            "requests": storm["requests"],
            "repeated_requests": storm["requests"] - storm["distinct"],
            "allowed_repeats": kills * workers,
            "same_bytes_as_one_run": same,
        }
    ]


PARTS = {
    "speed": measure_speed,
    "labels": measure_labels,
    "limits": measure_limits,
    "memory": measure_memory,
    "kills": measure_kills,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller, to see that it runs; writes no results")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for part in arguments.only:
        for row in PARTS[part](arguments.quick):
            print(json.dumps(row), flush=True)
            rows.append(row)
    if not arguments.quick:
        # Parts that were not run keep their rows: only "speed" needs the machine to itself.
        path = RESULTS / "generation.json"
        kept = json.loads(path.read_text())["rows"] if path.exists() else []
        rows += [row for row in kept if row["part"] not in arguments.only]
        write_results("generation", sorted(rows, key=lambda row: list(PARTS).index(row["part"])))


if __name__ == "__main__":
    main()
