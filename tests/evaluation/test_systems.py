"""Lexical, dense and hybrid systems, each with and without a re-ranker, in one comparison."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
from evaluation_helpers import many_queries, noisy_report
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.retrievers import QueryFusionRetriever

from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
from llama_index_embft.errors import ConfigError
from llama_index_embft.evaluation import compare_systems, evaluate_bm25, rerank_run
from llama_index_embft.retrievers import CrossEncoderReranker


class Backwards(BaseNodePostprocessor):
    """Turns the order round and keeps the old scores; drops the last node."""

    def _postprocess_nodes(self, nodes, query_bundle=None):
        return list(reversed(nodes))[:-1]


class Oracle:
    """Shaped like a CrossEncoder: knows that query "thing 7" is about "thing 7"."""

    def predict(self, pairs, show_progress_bar=False):
        def number(text: str) -> str:
            return "".join(filter(str.isdigit, text))

        return [float(number(query) == number(text)) for query, text in pairs]


def test_bm25_finds_words_and_skips_what_shares_none(tiny_dataset: EmbeddingQAFinetuneDataset) -> None:
    report = evaluate_bm25(tiny_dataset, ks=(1, 3))
    assert report.hit_ids == (("apple",), ("banana",), ("blue",))
    assert report.mean("hit_rate@1") == 1.0
    assert len(report.latencies) == 3
    assert report.label == "BM25"


def test_an_unknown_metadata_mode_is_refused(tiny_dataset: EmbeddingQAFinetuneDataset) -> None:
    report = evaluate_bm25(tiny_dataset)
    for call in (partial(evaluate_bm25, tiny_dataset), partial(rerank_run, tiny_dataset, report, len)):
        with pytest.raises(ConfigError, match="`metadata_mode` is 'all'"):
            call(metadata_mode="all")


def test_reranking_by_scores_puts_the_right_one_first() -> None:
    dataset = many_queries(60)
    first = noisy_report(dataset, 1.6, top_k=30)
    better = rerank_run(dataset, first, Oracle(), label="better")
    assert better.mean("hit_rate@1") == pytest.approx(first.values["recall@10"].mean(), abs=0.35)
    found = [doc in hits for doc, hits in zip(dataset.corpus, first.hit_ids, strict=True)]
    assert better.values["hit_rate@1"].tolist() == [float(x) for x in found]
    assert better.seconds["re-rank"] > 0
    shallow = rerank_run(dataset, first, Oracle(), top_n=5)
    assert [hits[5:] for hits in shallow.hit_ids] == [hits[5:] for hits in first.hit_ids]
    assert rerank_run(dataset, first, lambda query, texts: [0.0] * len(texts)).hit_ids[0] == tuple(
        sorted(first.hit_ids[0], reverse=True)
    )


def test_reranking_by_a_postprocessor_keeps_its_order() -> None:
    dataset = many_queries(10)
    first = noisy_report(dataset, 1.0)
    turned = rerank_run(dataset, first, Backwards())
    assert turned.hit_ids[0] == first.hit_ids[0][::-1][:-1]
    assert turned.label == "system + re-ranker"


class Twice(BaseNodePostprocessor):
    """Returns the first two nodes, the second of them twice."""

    def _postprocess_nodes(self, nodes, query_bundle=None):
        return [nodes[1], nodes[0], nodes[1]]


def test_a_postprocessor_that_cuts_or_repeats_counts_each_hit_once_and_is_noted() -> None:
    dataset = many_queries(10)
    first = noisy_report(dataset, 1.0)
    cut = rerank_run(dataset, first, Twice())
    assert cut.hit_ids[0] == first.hit_ids[0][1::-1]
    assert any("At most 2 hits came back" in note for note in cut.notes)
    assert rerank_run(dataset, first, lambda _, texts: [0.0] * len(texts)).notes == first.notes


def test_a_first_stage_without_scores_counts_by_its_places_as_it_does_in_use() -> None:
    dataset = many_queries(4)
    first = replace(noisy_report(dataset, 1.0), hit_scores=((),) * 4)
    half = CrossEncoderReranker(lambda _, texts: [float(text == texts[-1]) for text in texts], weight=0.1)
    kept = rerank_run(dataset, first, half)
    for before, after in zip(first.hit_ids, kept.hit_ids, strict=True):
        assert [doc for doc in after if doc != before[-1]] == list(before[:-1])


def test_bad_rerankers() -> None:
    dataset = many_queries(5)
    for top_n in (0, -1):
        with pytest.raises(ConfigError, match=f"`top_n` is {top_n}; it must be at least 1"):
            rerank_run(dataset, noisy_report(dataset, 1.0), Oracle(), top_n=top_n)
    report = noisy_report(dataset, 1.0)
    with pytest.raises(ConfigError, match="got int"):
        rerank_run(dataset, report, 3)
    with pytest.raises(ConfigError, match="1 scores for 5 texts"):
        rerank_run(dataset, report, lambda query, texts: [1.0])
    with pytest.raises(ConfigError, match="'stranger' of 'system' is not in the data set"):
        rerank_run(dataset, replace(report, hit_ids=(("stranger",), *report.hit_ids[1:])), Oracle())


def test_everything_in_one_table(tmp_path) -> None:
    dataset = many_queries(45)
    base, tuned = noisy_report(dataset, 1.6, top_k=20), noisy_report(dataset, 1.2, top_k=20)
    result = compare_systems(
        dataset,
        {"base": base, "tuned": tuned, "BM25": "bm25"},
        hybrids={"hybrid": ("tuned", "BM25")},
        rerankers={"oracle": Oracle()},
        ks=(1, 10),
        metrics=("hit_rate", "ndcg"),
        depth=20,
        n_resamples=200,
    )
    names = [result.base.label, *(system.label for system in result.systems)]
    assert names == ["base", "tuned", "BM25", "hybrid"] + [
        f"{name} + oracle" for name in ("base", "tuned", "BM25", "hybrid")
    ]
    board = result.leaderboard()
    assert list(board.index) == names
    assert board.loc["BM25 + oracle", "hit_rate@1"] == 1.0
    assert {"ndcg@10", "decision", "seconds"} <= set(board.columns)
    result.to_html(tmp_path / "r.html", dataset)
    assert "All systems" in (tmp_path / "r.html").read_text()
    with pytest.raises(ConfigError, match="Hybrid 'h' is made of 'x'"):
        compare_systems(dataset, {"base": base}, hybrids={"h": ("base", "x")})
    with pytest.raises(ConfigError, match="only base to compare"):
        compare_systems(dataset, {"base": base})
    with pytest.raises(ConfigError, match="is 'bm52'"):
        compare_systems(dataset, {"base": base, "x": "bm52"})


def test_llama_index_fusion_retriever_is_a_system(
    tiny_dataset: EmbeddingQAFinetuneDataset, tiny_model_path: str
) -> None:
    from llama_index.core import MockEmbedding, VectorStoreIndex
    from llama_index.core.llms import MockLLM
    from llama_index.core.schema import TextNode
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding

    nodes = [TextNode(id_=doc, text=text) for doc, text in tiny_dataset.corpus.items()]
    model = HuggingFaceEmbedding(tiny_model_path, device="cpu")
    one = VectorStoreIndex(nodes, embed_model=model).as_retriever(similarity_top_k=4)
    two = VectorStoreIndex(nodes, embed_model=MockEmbedding(embed_dim=32)).as_retriever(similarity_top_k=4)
    fusion = QueryFusionRetriever(
        [one, two], llm=MockLLM(), num_queries=1, mode="reciprocal_rerank", similarity_top_k=4, use_async=False
    )
    result = compare_systems(tiny_dataset, {"dense": model, "fusion": fusion}, ks=(1, 3), n_resamples=50)
    assert result.systems[0].report.mean("hit_rate@3") > 0
    assert len(result.systems[0].report.latencies) == 3
