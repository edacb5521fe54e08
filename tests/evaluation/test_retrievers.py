"""Any LlamaIndex retriever can be evaluated, and nothing that goes wrong goes unseen."""

from __future__ import annotations

import asyncio
import math
import threading

import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.postprocessor import SimilarityPostprocessor
from llama_index.core.schema import NodeRelationship, NodeWithScore, QueryBundle, RelatedNodeInfo, TextNode

from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
from llama_index_embft.errors import ConfigError, EvaluationError
from llama_index_embft.evaluation import aevaluate_retriever, evaluate_embed_model, evaluate_retriever


class FixedRetriever(BaseRetriever):
    """Returns what a table says, or raises it."""

    def __init__(self, table, wait: float = 0.0) -> None:
        self.table, self.wait = table, wait
        self.now = self.most = 0
        self.lock = threading.Lock()
        super().__init__()

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        found = self.table[query_bundle.query_str]
        if isinstance(found, Exception):
            raise found
        return [node if isinstance(node, NodeWithScore) else hit(*node) for node in found]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(self.wait)
        self.now -= 1
        return self._retrieve(query_bundle)


def hit(node_id: str, score: float | None = None, text: str = "x", source: str | None = None) -> NodeWithScore:
    relations = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=source)} if source else {}
    return NodeWithScore(node=TextNode(id_=node_id, text=text, relationships=relations), score=score)


def table(dataset: EmbeddingQAFinetuneDataset, *answers):
    return FixedRetriever(dict(zip(dataset.queries.values(), answers, strict=True)))


def test_a_vector_index_finds_what_the_exact_search_finds(
    tiny_dataset: EmbeddingQAFinetuneDataset, tiny_model_path: str
) -> None:
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding

    model = HuggingFaceEmbedding(tiny_model_path, device="cpu")
    nodes = [TextNode(id_=doc, text=text) for doc, text in tiny_dataset.corpus.items()]
    index = VectorStoreIndex(nodes, embed_model=model)
    theirs = evaluate_retriever(tiny_dataset, index.as_retriever(similarity_top_k=3), ks=(1, 3))
    ours = evaluate_embed_model(tiny_dataset, model, ks=(1, 3))
    assert theirs.hit_ids == ours.hit_ids
    assert theirs.summary() == ours.summary()
    assert theirs.label == "VectorIndexRetriever"
    assert len(theirs.latencies) == 3
    asynchronous = asyncio.run(aevaluate_retriever(tiny_dataset, index.as_retriever(similarity_top_k=3), ks=(1, 3)))
    assert asynchronous.hit_ids == ours.hit_ids


def test_failures_are_counted_and_score_zero(tiny_dataset: EmbeddingQAFinetuneDataset, caplog) -> None:
    retriever = table(tiny_dataset, [("apple", 1.0)], TimeoutError("too slow"), [])
    report = evaluate_retriever(tiny_dataset, retriever, ks=(1,))
    assert report.values["hit_rate@1"].tolist() == [1.0, 0.0, 0.0]  # LlamaIndex's own evaluator raises on the third
    assert report.errors == {"q2": "TimeoutError: too slow"}
    assert "1 queries failed and score 0" in caplog.text
    broken = table(tiny_dataset, *[ConnectionError("refused")] * 3)
    with pytest.raises(EvaluationError, match="All 3 queries failed; the first one: ConnectionError: refused"):
        evaluate_retriever(tiny_dataset, broken)


def test_unknown_and_repeated_nodes_are_counted(tiny_dataset: EmbeddingQAFinetuneDataset) -> None:
    retriever = table(
        tiny_dataset,
        [hit("what", 2.0), hit("apple", 1.0), hit("APPLE", 0.5)],
        [("lemon", 1.0)],
        [("blue", 1.0)],
    )
    report = evaluate_retriever(tiny_dataset, retriever, ks=(1, 3), match=lambda node: node.node_id.lower())
    assert report.hit_ids[0] == ("what", "apple")
    assert report.values["mrr@3"][0] == 0.5
    assert "1 of 5 nodes returned are not in the data set" in report.notes[0]
    assert "(first: 'what')" in report.notes[0]
    assert "1 repeated hits" in report.notes[1]
    strangers = table(tiny_dataset, [("x", 1.0)], [("y", 1.0)], [])
    with pytest.raises(EvaluationError, match=r"None of the 2 nodes.*match='text'"):
        evaluate_retriever(tiny_dataset, strangers)


def test_order_returned_is_the_ranking_and_ties_go_to_the_higher_id(tiny_dataset: EmbeddingQAFinetuneDataset) -> None:
    retriever = table(
        tiny_dataset,
        [("apple", 0.5), ("lemon", 0.5), ("banana", 0.9)],  # not sorted by score: a re-ranker that keeps old scores
        [("apple", None), ("blue", None)],
        [("apple", math.nan), ("blue", 0.3)],
    )
    report = evaluate_retriever(tiny_dataset, retriever, ks=(3,))
    assert report.hit_ids == (("lemon", "apple", "banana"), ("apple", "blue"), ("apple", "blue"))
    assert report.hit_scores[1] == report.hit_scores[2] == ()
    assert "1 scores are not a number" in report.notes[0]


def test_match_by_text(tiny_dataset: EmbeddingQAFinetuneDataset) -> None:
    parent = "An apple is red.  \n A banana is yellow. And this much more."
    nodes = [hit("n1", 1.0, "An  apple is\nred.")], [hit("n2", 1.0, parent)], [hit("n3", 1.0, "nowhere")]
    report = evaluate_retriever(tiny_dataset, table(tiny_dataset, *nodes), ks=(1,), match="text")
    assert report.hit_ids[0] == ("apple",)
    assert report.hit_ids[1] == ("n2",)  # its parts are too short to be told from chance
    long = {doc: text + " and this goes on for more than forty characters" for doc, text in tiny_dataset.corpus.items()}
    longer = EmbeddingQAFinetuneDataset(**tiny_dataset.model_dump() | {"corpus": long})
    merged = [hit("p", 1.0, f"{long['banana']}\n\n{long['lemon']}")]
    report = evaluate_retriever(
        longer, table(longer, [hit("n", 1.0, long["apple"])], merged, []), ks=(1,), match="text"
    )
    assert report.hit_ids[:2] == (("apple",), ("lemon", "banana"))  # both in one node: a tie, which the id settles


def test_match_by_text_tells_equal_texts_apart_by_their_metadata() -> None:
    """A page that stands in every document: which of them came back is seen in what was embedded."""
    page = "All rights reserved; no part may be copied."
    corpus = {name: f"file: {name}\n\n{page}" for name in ("a.pdf", "b.pdf")}
    for bare_texts in ({}, dict.fromkeys(corpus, page)):
        dataset = EmbeddingQAFinetuneDataset(
            queries={"q1": "May I copy a?", "q2": "May I copy b?"},
            corpus=corpus,
            relevant_docs={"q1": ["a.pdf"], "q2": ["b.pdf"]},
            bare_texts=bare_texts,
        )
        nodes = [
            NodeWithScore(node=TextNode(id_=f"n-{name}", text=page, metadata={"file": name}), score=1.0 - place / 10)
            for place, name in enumerate(corpus)
        ]
        report = evaluate_retriever(dataset, table(dataset, nodes, nodes), ks=(1, 2), match="text")
        assert report.hit_ids == (("a.pdf", "b.pdf"), ("a.pdf", "b.pdf"))
        assert report.values["recall@1"].tolist() == [1, 0]


def test_match_by_document(tiny_dataset: EmbeddingQAFinetuneDataset) -> None:
    other_chunks = [hit("n1", 0.9, source="sky-file"), hit("n2", 0.8, source="fruit"), hit("n3", 0.7, source="fruit")]
    report = evaluate_retriever(
        tiny_dataset, table(tiny_dataset, other_chunks, other_chunks, other_chunks), ks=(1, 2), match="document"
    )
    assert report.hit_ids[0] == ("sky-file", "fruit")
    assert report.relevant == ({"fruit": 1}, {"fruit": 2}, {"blue": 1})
    assert report.values["hit_rate@2"].tolist() == [1, 1, 0]
    assert report.values["recall@2"].tolist() == [1, 1, 0]
    assert report.corpus_size == 2


def test_match_by_function(tiny_dataset: EmbeddingQAFinetuneDataset) -> None:
    nodes = [hit("APPLE", 1.0)], [hit("BANANA+LEMON", 1.0)], [hit("SKIP", 1.0)]

    def match(node: NodeWithScore):
        return None if node.node_id == "SKIP" else node.node_id.lower().split("+")

    report = evaluate_retriever(tiny_dataset, table(tiny_dataset, *nodes), ks=(1, 2), match=match)
    assert report.hit_ids == (("apple",), ("lemon", "banana"), ())
    with pytest.raises(ConfigError, match="`match` must be"):
        evaluate_retriever(tiny_dataset, table(tiny_dataset, *nodes), match="name")


@pytest.mark.parametrize("match", [lambda node: node.node.metadata["id"], lambda _: 5])
def test_a_match_function_that_fails_is_named(tiny_dataset: EmbeddingQAFinetuneDataset, match) -> None:
    retriever = table(tiny_dataset, *[[hit("apple", 1.0)]] * 3)
    with pytest.raises(EvaluationError, match="`match` fails for the node 'apple'"):
        evaluate_retriever(tiny_dataset, retriever, ks=1, match=match)


def test_postprocessors_run(tiny_dataset: EmbeddingQAFinetuneDataset) -> None:
    answers = [("lemon", 0.9), ("apple", 0.2)]
    cut = SimilarityPostprocessor(similarity_cutoff=0.5)
    retriever = table(tiny_dataset, answers, answers, answers)
    report = evaluate_retriever(tiny_dataset, retriever, ks=(2,), postprocessors=[cut])
    assert report.hit_ids == (("lemon",),) * 3
    asynchronous = asyncio.run(aevaluate_retriever(tiny_dataset, retriever, ks=(2,), postprocessors=[cut]))
    assert asynchronous.hit_ids == report.hit_ids


def test_concurrency_is_bounded_and_keeps_order(tiny_dataset: EmbeddingQAFinetuneDataset) -> None:
    queries = {f"q{i}": f"query {i}" for i in range(20)}
    dataset = EmbeddingQAFinetuneDataset(
        queries=queries,
        corpus={f"d{i}": f"text {i}" for i in range(20)},
        relevant_docs={f"q{i}": [f"d{i}"] for i in range(20)},
    )
    retriever = FixedRetriever({text: [(f"d{i}", 1.0)] for i, text in enumerate(queries.values())}, wait=0.005)
    report = asyncio.run(aevaluate_retriever(dataset, retriever, ks=(1,), num_workers=4))
    assert report.mean("hit_rate@1") == 1.0
    assert retriever.most == 4
    assert evaluate_retriever(dataset, retriever, ks=(1,), num_workers=3, show_progress=True).hit_ids == report.hit_ids
    with pytest.raises(ConfigError, match="`num_workers` is 0"):
        evaluate_retriever(dataset, retriever, num_workers=0)


def test_hit_rate_and_mrr_equal_llama_index_evaluator(tiny_dataset: EmbeddingQAFinetuneDataset) -> None:
    from llama_index.core.evaluation.retrieval.metrics import MRR, HitRate

    answers = [("lemon", 3.0), ("apple", 2.0)], [("lemon", 2.0), ("apple", 1.0)], [("apple", 2.0), ("blue", 1.0)]
    report = evaluate_retriever(tiny_dataset, table(tiny_dataset, *answers), ks=(2,))
    for metric, name in ((HitRate(), "hit_rate@2"), (MRR(), "mrr@2")):
        theirs = [
            metric.compute(
                expected_ids=tiny_dataset.relevant_docs[query], retrieved_ids=[doc for doc, _ in answer]
            ).score
            for query, answer in zip(tiny_dataset.queries, answers, strict=True)
        ]
        assert report.values[name].tolist() == theirs
