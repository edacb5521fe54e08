"""JSON Lines for Cohere's rerankers: every relevant passage, and negatives that are none of them."""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_index.core import Settings
from loopback_embeddings import embed
from loopback_llm import LoopbackLLM

from llama_index_embft import (
    CohereRerankerFinetuneDataset,
    EmbeddingQAFinetuneDataset,
    generate_cohere_reranker_finetuning_dataset as generate,
    read_dataset,
)
from llama_index_embft.errors import ConfigError, DatasetError, OutputError

DATASET = EmbeddingQAFinetuneDataset(
    queries={"q1": "Who built the harbour?", "q2": "What does the orchard bear?", "q3": "谁建了港口？"},
    corpus={
        "a": "The harbour was built by the mayor.",
        "b": "The mayor had the harbour built in 1901.",
        "c": "the HARBOUR  was built by the mayor",  # a copy of a
        "d": "The orchard bears apples.",
        "e": "A turbine lights the town.",
        "f": "港口由市长建造。",
        "g": "Saffron is sold here.",
    },
    relevant_docs={"q1": ["a", "b"], "q2": ["d"], "q3": ["f", "a"]},
)


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def lines(path: str = "train.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def test_without_negatives_all_relevant_passages_are_kept() -> None:
    entries = generate(DATASET)
    assert [entry.relevant_passages for entry in entries] == [
        [DATASET.corpus[doc] for doc in docs] for docs in DATASET.relevant_docs.values()
    ]
    assert lines() == [entry.model_dump() for entry in entries]
    assert all(entry.hard_negatives == [] for entry in entries)
    assert entries[0].to_jsonl() == Path("train.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)[0]


@pytest.mark.parametrize("seed", range(8))
def test_random_negatives_are_never_relevant_nor_copies(seed: int) -> None:
    for entry in generate(DATASET, 3, seed=seed):
        assert len(set(entry.hard_negatives)) == 3
        relevant = {"".join(filter(str.isalnum, text.lower())) for text in entry.relevant_passages}
        assert relevant.isdisjoint("".join(filter(str.isalnum, text.lower())) for text in entry.hard_negatives)


def test_the_seed_decides_and_queries_do_not_disturb_each_other() -> None:
    first = generate(DATASET, 2, finetune_dataset_file_name="a.jsonl")
    generate(DATASET, 2, finetune_dataset_file_name="b.jsonl")
    assert Path("a.jsonl").read_bytes() == Path("b.jsonl").read_bytes()
    assert len({tuple(generate(DATASET, 2, seed=seed)[0].hard_negatives) for seed in range(8)}) > 1
    assert generate(DATASET.subset(["q2"]), 2) == first[1:2]


def test_the_nearest_are_taken_by_cosine(
    serve: Callable[..., LoopbackLLM], openai_embedding: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = openai_embedding(serve())
    entries = generate(DATASET, 1, hard_negatives_gen_method="cosine_similarity", embed_model=model)
    for (query_id, query), allowed, entry in zip(
        DATASET.queries.items(), ("defg", "abefg", "bdeg"), entries, strict=True
    ):
        near = {doc: np.dot(embed(query, 32), embed(DATASET.corpus[doc], 32)) for doc in allowed}
        assert entry.hard_negatives == [DATASET.corpus[max(near, key=near.__getitem__)]], query_id
    more = generate(DATASET, 3, 2, "cosine_similarity", embed_model=model)
    assert [len(entry.hard_negatives) for entry in more] == [2, 2, 2]
    assert [entry.hard_negatives[:1] for entry in more] == [entry.hard_negatives for entry in entries]
    monkeypatch.setattr(Settings, "_embed_model", model)
    assert generate(DATASET, 1, hard_negatives_gen_method="cosine_similarity") == entries


@pytest.mark.parametrize("method", ["random", "cosine_similarity"])
def test_the_negatives_of_the_data_set_come_first(
    method: str, serve: Callable[..., LoopbackLLM], openai_embedding: Callable[..., Any]
) -> None:
    dataset = DATASET.replace(negative_docs={"q1": ["c", "g", "e"]})  # c is a copy of a relevant passage
    model = openai_embedding(serve())
    entry = generate(dataset, 3, hard_negatives_gen_method=method, embed_model=model)[0]
    assert entry.hard_negatives[:2] == [dataset.corpus["g"], dataset.corpus["e"]]
    assert len(set(entry.hard_negatives)) == 3
    assert entry.hard_negatives[2] in {dataset.corpus["d"], dataset.corpus["f"]}


def test_a_corpus_that_has_no_more_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        entries = generate(DATASET, 5)
    assert [len(entry.hard_negatives) for entry in entries] == [4, 5, 4]
    assert "2 of 3 queries have fewer than 5 negatives" in caplog.text


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"num_negatives": -1}, "`num_negatives` is -1; it must be at least 0"),
        ({"top_k_dissimilar": 0}, "`top_k_dissimilar` is 0; it must be at least 1"),
        (
            {"hard_negatives_gen_method": "cosine"},
            "`hard_negatives_gen_method` is 'cosine'; it must be one of 'random'",
        ),
    ],
)
def test_bad_arguments_are_one_sentence(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        generate(DATASET, **options)
    assert not Path("train.jsonl").exists()


def test_the_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        generate(DATASET, finetune_dataset_file_name=tmp_path)


def test_the_lines_are_read_as_a_data_set() -> None:
    entries = generate(DATASET, 2)
    read = read_dataset("train.jsonl")
    assert list(read.queries.values()) == [entry.query for entry in entries]
    for query_id, entry in zip(read.queries, entries, strict=True):
        assert [read.corpus[doc] for doc in read.relevant_docs[query_id]] == entry.relevant_passages
        assert [read.corpus[doc] for doc in read.negative_docs[query_id]] == entry.hard_negatives
    Path("bad.jsonl").write_text('{"query": "q", "relevant_passages": [], "hard_negatives": ["a"]}', encoding="utf-8")
    with pytest.raises(DatasetError, match="`relevant_passages` is empty"):
        read_dataset("bad.jsonl")


def test_names_and_arguments_are_those_of_the_stock_package() -> None:
    stock = pytest.importorskip("llama_index.finetuning.rerankers.dataset_gen")
    theirs = inspect.signature(stock.generate_cohere_reranker_finetuning_dataset).parameters.values()
    ours = [p for p in inspect.signature(generate).parameters.values() if p.kind is not p.KEYWORD_ONLY]
    assert [(p.name, p.default) for p in theirs] == [(p.name, p.default) for p in ours]
    fields = {"query": "q", "relevant_passages": ["a"], "hard_negatives": ["b"]}
    assert (
        CohereRerankerFinetuneDataset(**fields).to_jsonl() == stock.CohereRerankerFinetuneDataset(**fields).to_jsonl()
    )


def test_the_stock_function_writes_the_same_file() -> None:
    stock = pytest.importorskip("llama_index.finetuning.rerankers.dataset_gen")
    dataset = EmbeddingQAFinetuneDataset(
        queries=DATASET.queries, corpus=DATASET.corpus, relevant_docs={"q1": ["a"], "q2": ["d"], "q3": ["f"]}
    )
    generate(dataset, finetune_dataset_file_name="ours.jsonl")
    stock.generate_cohere_reranker_finetuning_dataset(dataset, finetune_dataset_file_name="theirs.jsonl")
    assert Path("ours.jsonl").read_bytes() == Path("theirs.jsonl").read_bytes()
