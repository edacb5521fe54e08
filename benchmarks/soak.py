"""Half an hour of traffic: do memory, threads and files stay bounded, is nothing lost, does the same question get the
same answer?

Six workers ask at a steady pace: two threads and an event loop a `StackRetriever` (vectors and BM25, with a
`RetrievalLog` that listens and gets clicks), a thread an `InterleavedRetriever` with a log of its own, and a thread and
an event loop a query engine that a `LiveScorer` watches, whose judge is a server on loopback. Each answer of the engine
is worded anew, so that the judge's journal has something to store. A tiny random model is used, so that what is
measured is the package.

Every half minute memory, open files, threads and files on disk are looked at, and at the end a verdict is given. The
process ends with 1 if a line of it does not hold.

    python benchmarks/soak.py                          # a third of a core
    python benchmarks/soak.py --minutes 0.2 --no-write
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import sqlite3
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from _common import parser, print_table, write_results
from generation import client, server, stats
from soak_verdict import MIB, Row, verdict
from tiny_bert import save_tiny_bert

QUESTIONS, CHUNKS, K = 200, 160, 5
SCORED = 0.1  # share of the engine's answers
WARM_UP = 120.0  # seconds at most
NAMES = ["valve", "harbour", "orchard", "engine", "ledger", "bridge", "lantern", "kettle", "saddle", "compass"]
VERDICT = json.dumps({"criteria": "as asked", "supporting_evidence": "the text", "score": 2})


@dataclass
class Traffic:
    """What was asked, and what came of it.

    Attributes:
        first: Way and question -> ids of the nodes at the first time.
        asked: Way -> questions asked.
        different: Answers to a question that are not those of the first time.
        errors: What was raised.
        clicks: Clicks that were reported.
    """

    first: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    different: int = 0
    errors: list[str] = field(default_factory=list)
    clicks: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, way: str, question: str, ids: list[str], *, clicks: int = 0) -> None:
        """Count an answer, and hold it against the first to the same question."""
        with self.lock:
            self.asked[way] += 1
            self.clicks += clicks
            self.different += ids != self.first.get((way, question), ids) or len(ids) != K

    def fail(self, err: Exception) -> None:
        with self.lock:
            self.errors.append(f"{type(err).__name__}: {err}")


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--minutes", type=float, default=30.0)
    options.add_argument("--rate", type=float, default=20.0, help="questions a second, of all workers together")
    options.add_argument("--no-write", action="store_true", help="leave the results file as it is")
    arguments = options.parse_args()
    with tempfile.TemporaryDirectory() as folder, server(0.01, "--text", VERDICT) as api_base:
        os.environ["EMBFT_CACHE_DIR"] = str(Path(folder) / "cache")
        samples, counts = soak(Path(folder), api_base, 60 * arguments.minutes, arguments.rate)
    rows = verdict(samples, counts)
    print_table(rows)
    if not arguments.no_write:
        write_results("soak", rows, counts=counts, samples=samples)
    raise SystemExit(0 if all(row["holds"] for row in rows) else 1)


# --- traffic ----------------------------------------------------------------------------------------------------------


def soak(folder: Path, api_base: str, seconds: float, rate: float) -> tuple[list[Row], Row]:
    """Put everything up, ask for so long, look at regular intervals; return the looks and the counts of the end."""
    from llama_index_embft.dataset import RetrievalLog
    from llama_index_embft.integrations.trulens import JudgeSettings, LiveScorer
    from llama_index_embft.retrievers import InterleavedRetriever, StackRetriever, StackSettings

    work = folder / "work"
    work.mkdir()
    index = make_index(folder)
    traffic, log, shown = Traffic(), RetrievalLog(work / "retrieval.jsonl"), RetrievalLog(work / "interleaved.jsonl")
    stack = StackRetriever(index, StackSettings(dense_weight=0.5), similarity_top_k=K)
    old = StackRetriever(index, StackSettings(dense_weight=0.0), similarity_top_k=K)
    new = StackRetriever(index, StackSettings(dense_weight=1.0), similarity_top_k=K)
    mixed = InterleavedRetriever(old, new, log=shown, similarity_top_k=K, names=("words", "vectors"))
    scorer = LiveScorer(
        "soak",
        "live",
        llm=client(api_base),
        embed_model=index._embed_model,
        database=work / "trulens.sqlite",
        rate=SCORED,
        judging=JudgeSettings(journal_path=work / "judge.sqlite"),
    )
    engine = scorer.watch(Engine(stack))

    def ask_stack(question: str) -> None:
        ids = [hit.node.node_id for hit in stack.retrieve(question)]
        log.feedback(log.last_id, clicked=ids[:1])
        traffic.note("stack", question, ids, clicks=1)

    async def ask_stack_later(question: str) -> None:
        ids = [hit.node.node_id for hit in await stack.aretrieve(question)]
        log.feedback(log.last_id, clicked=ids[:1])
        traffic.note("stack", question, ids, clicks=1)

    def ask_mixed(question: str) -> None:
        ids = [hit.node.node_id for hit in mixed.retrieve(question)]
        shown.feedback(shown.last_id, clicked=ids[:1])
        by_parts = [traffic.first.get((way, question)) for way in ("words", "vectors")]
        # Which retriever begins a round is a coin's choice; whoever it is puts its best node that is not there yet.
        drafted = all(part is None for part in by_parts) or all(
            any(part and node_id == next((i for i in part if i not in ids[:place]), None) for part in by_parts)
            for place, node_id in enumerate(ids)
        )
        traffic.note("interleaved", question, ids if drafted else [])

    def ask_engine(question: str) -> None:
        traffic.note("engine", question, engine.query(question).ids)

    async def ask_engine_later(question: str) -> None:
        traffic.note("engine", question, (await engine.aquery(question)).ids)

    known = questions()
    for question in known:  # the first answers; the retrievers are warm after them
        for way, part in (("stack", stack), ("words", old), ("vectors", new)):
            traffic.first[way, question] = [hit.node.node_id for hit in part.retrieve(question)]
        traffic.first["engine", question] = traffic.first["stack", question]
    log.attach()
    stop, pace = threading.Event(), rate / 6
    workers = [Worker(known, pace, stop, traffic, seed) for seed in range(6)]
    asking, later = (ask_stack, ask_stack, ask_mixed, ask_engine), (ask_stack_later, ask_engine_later)
    works = [partial(one.ask, ask) for one, ask in zip(workers[:4], asking, strict=True)]
    works += [partial(one.ask_later, ask) for one, ask in zip(workers[4:], later, strict=True)]
    threads = [threading.Thread(target=work, name=f"soak-{n}") for n, work in enumerate(works)]
    for thread in threads:
        thread.start()
    warm_up(scorer)
    samples = watch(work, traffic, scorer, seconds)
    stop.set()
    for thread in threads:
        thread.join()
    scorer.close()
    log.detach()
    return samples, final_counts(work, traffic, scorer, api_base)


def stream(known: Sequence[str], seed: int) -> Iterator[str]:
    """Questions without an end: three of four are known ones, in another order for each worker."""
    dice = random.Random(seed)
    for n in itertools.count():
        yield f"{dice.choice(NAMES)} {dice.choice(NAMES)} number {seed}-{n}?" if n % 4 == 3 else dice.choice(known)


@dataclass
class Worker:
    """Asks so many questions a second until told to stop.

    Attributes:
        known: What is asked again and again.
        pace: Questions a second.
        stop: Told to.
        traffic: Counts.
        seed: Of the order.
    """

    known: Sequence[str]
    pace: float
    stop: threading.Event
    traffic: Traffic
    seed: int

    def ask(self, ask: Callable[[str], None]) -> None:
        """One after another."""
        begun = time.monotonic()
        for n, question in enumerate(stream(self.known, self.seed)):
            if self.stop.wait(max(0.0, begun + n / self.pace - time.monotonic())):
                return
            try:
                ask(question)
            except Exception as err:  # noqa: BLE001  # counted, and the verdict says so
                self.traffic.fail(err)

    def ask_later(self, ask: Callable[[str], Coroutine[Any, Any, None]]) -> None:
        """In an event loop of its own, four at a time."""
        asyncio.run(self._all(ask))

    async def _all(self, ask: Callable[[str], Coroutine[Any, Any, None]]) -> None:
        # The loop's threads grow up to their limit whenever many are busy at once: here all at the start.
        await asyncio.gather(*(asyncio.to_thread(time.sleep, 0.1) for _ in range(40)))
        begun, source = time.monotonic(), stream(self.known, self.seed)
        for n in itertools.count():
            await asyncio.sleep(max(0.0, begun + 4 * n / self.pace - time.monotonic()))
            if self.stop.is_set():
                return
            await asyncio.gather(*(self._one(ask, next(source)) for _ in range(4)))

    async def _one(self, ask: Callable[[str], Coroutine[Any, Any, None]], question: str) -> None:
        try:
            await ask(question)
        except Exception as err:  # noqa: BLE001  # counted, and the verdict says so
            self.traffic.fail(err)


@dataclass(frozen=True)
class Answer:
    """What the engine answers: LlamaIndex' attributes, and the ids."""

    response: str
    source_nodes: list[Any]

    @property
    def ids(self) -> list[str]:
        return [hit.node.node_id for hit in self.source_nodes]


class Engine:
    """A query engine whose every answer is worded anew, so that the judge has to read it."""

    def __init__(self, retriever: Any) -> None:
        self.retriever = retriever
        self._numbers = itertools.count()

    def query(self, question: str) -> Answer:
        return self._answer(self.retriever.retrieve(question))

    async def aquery(self, question: str) -> Answer:
        return self._answer(await self.retriever.aretrieve(question))

    def _answer(self, hits: list[Any]) -> Answer:
        return Answer(f"Answer {next(self._numbers)}. {hits[0].node.get_content()}", hits)


def make_index(folder: Path) -> Any:
    from llama_index.core import VectorStoreIndex
    from llama_index.core.schema import TextNode

    from llama_index_embft import load_embed_model

    dice = random.Random(0)
    nodes = [
        TextNode(
            id_=f"c{n}",
            text=f"The {dice.choice(NAMES)} of the {dice.choice(NAMES)} {n} was built in {1700 + n}. It serves the "
            f"{dice.choice(NAMES)} and costs {dice.randrange(100)} crowns.",
        )
        for n in range(CHUNKS)
    ]
    return VectorStoreIndex(nodes, embed_model=load_embed_model(save_tiny_bert(folder / "tiny")))


def questions() -> list[str]:
    dice = random.Random(1)
    return [f"When was the {dice.choice(NAMES)} of the {dice.choice(NAMES)} {n} built?" for n in range(QUESTIONS)]


# --- looking ----------------------------------------------------------------------------------------------------------


def warm_up(scorer: Any) -> None:
    """Until live answers have been scored: TruLens starts up with the first."""
    until = time.monotonic() + WARM_UP
    while scorer.stats.scored < 5 and time.monotonic() < until:
        time.sleep(0.1)


def watch(work: Path, traffic: Traffic, scorer: Any, seconds: float) -> list[Row]:
    """Look every half minute, in a short run twenty times."""
    import psutil

    process, begun = psutil.Process(), time.monotonic()
    looks = max(20, round(seconds / 30))
    samples = []
    for n in range(1, looks + 1):
        time.sleep(max(0.0, begun + n * seconds / looks - time.monotonic()))
        sizes = {path.name: path.stat().st_size for path in work.iterdir()}
        counts = scorer.stats
        with traffic.lock:
            asked, errors = sum(traffic.asked.values()), len(traffic.errors)
        samples.append(
            {
                "seconds": round(time.monotonic() - begun, 1),
                "resident_mib": round(process.memory_info().rss / MIB, 2),
                "open_files": lowest(process.num_fds),
                "threads": lowest(process.num_threads),
                "files": len(sizes),
                "bytes": sizes,
                "answered": asked,
                "errors": errors,
                "scored": counts.scored,
                "waiting": counts.waiting,
                "processor_seconds": round(sum(process.cpu_times()[:2]), 1),
            }
        )
        print(json.dumps(samples[-1]), flush=True)
    return samples


def lowest(count: Callable[[], int]) -> int:
    """Of five looks within a tenth of a second: a log is open for a moment while a line is written."""
    found = []
    for _ in range(5):
        found.append(count())
        time.sleep(0.02)
    return min(found)


def final_counts(work: Path, traffic: Traffic, scorer: Any, api_base: str) -> Row:
    """What was asked, and what the files hold of it."""
    from llama_index_embft.evaluation import compare_interleaved

    lines = [json.loads(line) for line in (work / "retrieval.jsonl").read_text(encoding="utf-8").splitlines()]
    compared = compare_interleaved(work / "interleaved.jsonl")
    asked, live = traffic.asked, scorer.stats
    return {
        # The listener sees an interleaved retrieval and its two parts.
        "retrievals": asked["stack"] + asked["engine"] + 3 * asked["interleaved"],
        "retrievals in the log": sum("shown" in line for line in lines),
        "clicks": traffic.clicks,
        "clicks in the log": sum("clicked" in line for line in lines),
        "interleaved": asked["interleaved"],
        "interleaved in the log": compared.answers,
        "interleaved with clicks": compared.clicked,
        "answers": asked["engine"],
        "answers seen": live.seen,
        "sampled": live.sampled,
        "scored": live.scored,
        "dropped": live.dropped,
        "scored or dropped": live.scored + live.dropped,
        "failed": live.failed,
        "records in the database": of_sqlite(
            work / "trulens.sqlite",
            "SELECT count(*) FROM trulens_events WHERE record_attributes LIKE '%embft.contexts%'",
        ),
        "questions to the judge": stats(api_base)["requests"],
        "answers in the journal": of_sqlite(work / "judge.sqlite", "SELECT count(*) FROM answers"),
        "different answers": traffic.different,
        "errors": len(traffic.errors),
        "first error": traffic.errors[0] if traffic.errors else "",
    }


def of_sqlite(file: Path, query: str) -> int:
    with closing(sqlite3.connect(file)) as connection:
        return int(connection.execute(query).fetchone()[0])


if __name__ == "__main__":
    main()
