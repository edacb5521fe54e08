"""Forks generation runs on command, so that a test can kill fifty of them without fifty slow starts of Python.

Reads from stdin, one line each: ``start`` forks a run over the chunks and prints its process id; ``wait`` waits for the
last run to end by itself and prints its exit status. The imports are done once, before the first fork, and no thread
and no event loop is started in this process.

    python tests/llm_server/killed_run.py API_BASE OUTPUT_PATH CHUNKS WORKERS
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import llama_index.core.program.function_program  # noqa: F401
import openai.resources.chat.completions  # noqa: F401
import tenacity  # noqa: F401
import tqdm.auto  # noqa: F401
from llama_index.core.schema import TextNode
from llama_index.llms.openai_like import OpenAILike

import llama_index_embft.generation.run  # noqa: F401
from llama_index_embft.calls import CallSettings
from llama_index_embft.generation import generate_qa_embedding_pairs


def run(api_base: str, output: Path, chunks: int, workers: int) -> None:
    nodes: list[Any] = [
        TextNode(id_=f"n{i}", text=f"Chunk number {i} is about harbours, valves and orchards of the year {i}.")
        for i in range(chunks)
    ]
    llm = OpenAILike(model="m", api_base=api_base, api_key="none", is_chat_model=True, context_window=8000)
    generate_qa_embedding_pairs(
        nodes,
        llm,
        output_path=output,
        verbose=False,
        save_every=50,
        calls=CallSettings(num_workers=workers, journal_path=output.with_suffix(".journal.sqlite")),
    )


def main() -> None:
    api_base, output, chunks, workers = sys.argv[1:]
    child = 0
    for line in sys.stdin:
        if line.strip() == "start":
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    run(api_base, Path(output), int(chunks), int(workers))
                    status = 0
                finally:
                    os._exit(status)
            answer = child
        else:
            answer = os.waitpid(child, 0)[1]
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
