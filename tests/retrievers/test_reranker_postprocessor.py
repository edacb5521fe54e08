"""A reranker as LlamaIndex uses it, with whatever a retriever hands it."""

from __future__ import annotations

import pytest
from llama_index.core.schema import NodeWithScore, TextNode

from llama_index_embft.errors import ModelError
from llama_index_embft.retrievers import CrossEncoderReranker


def hits(*scores: float | None) -> list[NodeWithScore]:
    return [NodeWithScore(node=TextNode(text="x" * n, id_=str(n)), score=score) for n, score in enumerate(scores)]


def by_length(_query: str, texts: list[str]) -> list[float]:
    return [float(len(text)) for text in texts]


@pytest.mark.parametrize("odd", [None, float("nan"), float("inf")])
def test_a_hit_without_a_number_costs_no_node(odd):
    found = CrossEncoderReranker(by_length, weight=0.6).postprocess_nodes(hits(0.9, odd, 0.1), query_str="q")
    assert [hit.node.node_id for hit in found] == ["2", "1", "0"]


@pytest.mark.parametrize("returned", [["a"], None, [[1.0, 2.0]], [float("nan")]])
def test_what_is_no_score_is_said(returned):
    reranker = CrossEncoderReranker(lambda _query, _texts: returned)
    with pytest.raises(ModelError, match="it must give one finite number for each"):
        reranker.postprocess_nodes(hits(0.5), query_str="q")
