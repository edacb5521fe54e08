"""Which chunks are asked about: the sample itself, and the run and the command that use it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest_generation import generate_flat, make_nodes, settings_of
from llama_index.core.base.embeddings.base import BaseEmbedding
from loopback_llm import LoopbackLLM
from test_generate_command import docs, embft  # noqa: F401 - `docs` is a fixture

from llama_index_embft.errors import ConfigError
from llama_index_embft.generation import ChunkSampling, Passage, estimate_qa_embedding_pairs
from llama_index_embft.generation.sampling import _shares

SIZES = {"harbour": 600, "orchard": 300, "glacier": 88, "violin": 12}


class Topics(BaseEmbedding):
    """A direction for each topic, and a little of each text's own."""

    def _vector(self, text: str) -> list[float]:
        topic, _, number = text.partition(" ")
        vector = np.random.default_rng(int(number or 0)).normal(0, 0.15, 8)
        vector[list(SIZES).index(topic)] += 1
        return [float(x) for x in vector]

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._vector(text)

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._vector(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._vector(query)


def corpus() -> list[Passage]:
    texts = [f"{topic} {n}" for topic, size in SIZES.items() for n in range(size)]
    return [Passage(text, text, text, text) for text in texts]


def topics(passages: list[Passage]) -> Counter[str]:
    return Counter(passage.id.split()[0] for passage in passages)


@pytest.mark.parametrize("seed", range(5))
def test_clusters_give_chunks_by_their_size_and_small_ones_are_not_left_out(seed: int) -> None:
    passages = corpus()
    drawn = ChunkSampling(100, "clustered", Topics(), seed).draw(passages)
    assert len(drawn) == len({passage.id for passage in drawn}) == 100
    counts = topics(drawn)
    assert counts["violin"] >= 1
    for topic, size in SIZES.items():
        assert counts[topic] == pytest.approx(size / 10, abs=12)
    order = {passage.id: place for place, passage in enumerate(passages)}
    assert [order[passage.id] for passage in drawn] == sorted(order[passage.id] for passage in drawn)


def test_what_lies_near_the_centre_is_drawn_more_often() -> None:
    passages, model = corpus()[:600], Topics()
    vectors = np.array([model._vector(passage.id) for passage in passages])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    centre = vectors.mean(0) / np.linalg.norm(vectors.mean(0))
    nearness = dict(zip((passage.id for passage in passages), vectors @ centre, strict=True))
    means = [
        np.mean([nearness[p.id] for p in ChunkSampling(7, "clustered", model, seed).draw(passages)])
        for seed in range(20)
    ]
    assert np.mean(means) > np.mean(list(nearness.values())) + 0.005


@pytest.mark.parametrize("sampling", ["random", "clustered"])
def test_the_seed_decides(sampling: Any) -> None:
    model = Topics() if sampling == "clustered" else None
    first, again, other = (ChunkSampling(50, sampling, model, seed).draw(corpus()) for seed in (3, 3, 4))
    assert first == again != other


@pytest.mark.parametrize("sampling", ["random", "clustered"])
@pytest.mark.parametrize("wanted", [1, 2, 5, 999, 1000, 5000])
def test_as_many_as_wanted(sampling: Any, wanted: int) -> None:
    model = Topics() if sampling == "clustered" else None
    drawn = ChunkSampling(wanted, sampling, model).draw(corpus())
    assert len({passage.id for passage in drawn}) == len(drawn) == min(wanted, 1000)


@pytest.mark.parametrize(
    ("sizes", "total", "shares"),
    [([6, 3, 1], 3, [1, 1, 1]), ([60, 30, 10], 10, [5, 3, 2]), ([1, 1], 2, [1, 1]), ([5], 4, [4]), ([4, 4], 7, [4, 3])],
)
def test_shares_are_proportional_and_at_least_one(sizes: list[int], total: int, shares: list[int]) -> None:
    assert _shares(np.array(sizes), total).tolist() == shares


def test_only_the_sample_is_asked_and_the_corpus_is_whole(
    serve: Callable[..., LoopbackLLM], openai_like: Callable[..., Any], tmp_path: Path
) -> None:
    server, nodes = serve(), make_nodes(12)
    options = {"sample": ChunkSampling(4), "journal_path": tmp_path / "j.sqlite", "output_path": None}
    estimate = estimate_qa_embedding_pairs(nodes, openai_like(server), **settings_of(options))
    dataset = generate_flat(nodes, openai_like(server), verbose=False, filters=[], **options)
    assert estimate.calls == server.count == 4
    assert list(dataset.corpus) == [node.node_id for node in nodes]
    assert dataset.report.unasked == 8
    assert "8 chunks left out by the sample" in str(dataset.report)
    options["sample"] = ChunkSampling(12)
    generate_flat(nodes, openai_like(server), verbose=False, filters=[], **options)
    assert server.count == 12  # the four are in the journal


def test_a_comparison_takes_its_other_chunk_from_the_whole_corpus(
    serve: Callable[..., LoopbackLLM], openai_like: Callable[..., Any]
) -> None:
    nodes = make_nodes(12)
    for node in nodes:
        node.metadata["file_path"] = "one.txt"
    server = serve(queries=1)
    dataset = generate_flat(
        nodes,
        openai_like(server),
        verbose=False,
        output_path=None,
        kinds={"comparison": 1.0},
        num_questions_per_chunk=1,
        sample=ChunkSampling(1),
    )
    (relevant,) = dataset.relevant_docs.values()
    assert len(relevant) == 2


def test_from_the_command_line(
    docs: Path,  # noqa: F811
    serve: Callable[..., LoopbackLLM],
    tmp_path: Path,
    tiny_model_path: str,
) -> None:
    server, out = serve(), tmp_path / "t.json"
    command = [
        docs,
        "--llm-model",
        "m",
        "--api-base",
        server.api_base,
        "--out",
        out,
        "--no-progress",
        "--max-chunks",
        3,
    ]
    embft(*command, "--sampling", "clustered", "--embed-model", tiny_model_path)
    assert server.count == 3
    assert len(json.loads(out.read_text())["corpus"]) == 18  # each page is three chunks for this model
    with pytest.raises(ConfigError, match="--sampling clustered needs a model to cluster by; name it with --embed-mo"):
        embft(*command, "--sampling", "clustered")
    with pytest.raises(ConfigError, match="--seed is for --max-chunks; leave it out, or give --max-chunks"):
        embft(*command[:-2], "--seed", 3)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"max_chunks": 0}, "`max_chunks` is 0; it must be at least 1"),
        ({"max_chunks": 1, "sampling": "best"}, "`sampling` is 'best'; it must be one of"),
        ({"max_chunks": 1, "sampling": "clustered"}, "there is no `embed_model` to cluster by; give one"),
        ({"max_chunks": 1, "embed_model": "m"}, "`embed_model` is for `sampling='clustered'`"),
    ],
)
def test_senseless_samples_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        ChunkSampling(**options)
