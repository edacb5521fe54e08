"""Negatives from the LLM: in the corpus, behind mined ones, resumable, never a copy or a refusal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from loopback_llm import Behaviour, LoopbackLLM

from llama_index_embft.calls import CallSettings
from llama_index_embft.calls.failures import UnusableAnswerError
from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
from llama_index_embft.errors import ConfigError, GenerationError
from llama_index_embft.generation import generate_negatives
from llama_index_embft.generation.negatives import read_passage

POSITIVE = "The valve of the harbour was opened in 1910 by the mayor and holds 40 litres."


@pytest.fixture
def dataset() -> EmbeddingQAFinetuneDataset:
    return EmbeddingQAFinetuneDataset(
        queries={"q1": "When was the valve opened?", "q2": "阀门是什么时候打开的？"},
        corpus={
            "d1": f"title: Harbour\n\n{POSITIVE}",
            "d2": "港口的阀门于1910年由市长打开，容量为四十升。",
            "d3": "Another document.",
        },
        relevant_docs={"q1": ["d1"], "q2": ["d2"]},
        negative_docs={"q1": ["d3"]},
        bare_texts={"d1": POSITIVE},
        source_documents={"d1": "harbour.pdf"},
    )


def test_negatives_join_the_corpus_behind_the_mined_ones(
    dataset: EmbeddingQAFinetuneDataset,
    serve: Callable[..., LoopbackLLM],
    openai_like: Callable[..., Any],
    tmp_path: Path,
) -> None:
    server = serve()
    before = dataset.model_dump()
    options: Any = {"per_query": 2, "calls": CallSettings(journal_path=tmp_path / "j.sqlite"), "show_progress": False}
    result = generate_negatives(dataset, openai_like(server), **options)
    assert dataset.model_dump() == before
    assert server.count == 4
    assert result.negative_docs["q1"][0] == "d3"
    assert len(result.negative_docs["q1"]) == 3
    assert len(result.negative_docs["q2"]) == 2
    written = result.negative_docs["q1"][1]
    assert result.document_of(written) == "harbour.pdf"
    assert result.corpus[written].startswith("A related paragraph on")
    assert "title: Harbour" not in server.requests[0].prompt
    assert any("请另写一段" in request.prompt for request in server.requests)
    assert generate_negatives(dataset, openai_like(server), **options) == result
    assert server.count == 4


def test_tools_are_used_where_there_are_any(
    dataset: EmbeddingQAFinetuneDataset, serve: Callable[..., LoopbackLLM], openai_like: Callable[..., Any]
) -> None:
    server = serve()
    result = generate_negatives(dataset, openai_like(server, is_function_calling_model=True), show_progress=False)
    assert "tools" in server.requests[0].body
    assert len(result.corpus) == 5


def test_a_failed_negative_leaves_the_others(
    dataset: EmbeddingQAFinetuneDataset, serve: Callable[..., LoopbackLLM], openai_like: Callable[..., Any]
) -> None:
    server = serve(script=lambda request: Behaviour(400, error="no") if "市长" in request.prompt else None)
    result = generate_negatives(dataset, openai_like(server), show_progress=False)
    assert list(result.report.failed) == ["q2"]
    assert "q2" not in result.negative_docs
    assert result.report.kept == 1


@pytest.mark.parametrize("text", ["I'm sorry, I can't do that.", "No.", POSITIVE, f"Here is a passage:\n{POSITIVE}"])
def test_an_llm_that_only_refuses_or_copies_is_an_error(
    text: str, dataset: EmbeddingQAFinetuneDataset, serve: Callable[..., LoopbackLLM], openai_like: Callable[..., Any]
) -> None:
    english = dataset.subset(["q1"])
    with pytest.raises(GenerationError, match="no usable negative"):
        generate_negatives(english, openai_like(serve(script=lambda r: Behaviour(text=text))), show_progress=False)


def test_passages_are_unwrapped() -> None:
    expected = "The valve of the harbour is painted red every spring."
    for text in (
        expected,
        f"```\n{expected}\n```",
        f"Sure, here is a passage:\n\n{expected}",
        f"<passage>\n{expected}\n</passage>",
    ):
        assert read_passage(text, positive=POSITIVE) == expected
    assert read_passage({"passage": expected}, positive=POSITIVE) == expected
    with pytest.raises(UnusableAnswerError, match="a copy"):
        read_passage(POSITIVE.upper(), positive=POSITIVE)


def test_senseless_calls_are_refused(dataset: EmbeddingQAFinetuneDataset, openai_like: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match="`per_query` is 0; it must be at least 1"):
        generate_negatives(dataset, openai_like("http://127.0.0.1:9/v1"), per_query=0)
    with pytest.raises(ConfigError, match="no queries"):
        generate_negatives(dataset.subset([]), openai_like("http://127.0.0.1:9/v1"))
