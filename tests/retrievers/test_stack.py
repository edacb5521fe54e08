"""StackRetriever as LlamaIndex users meet it: what it returns, what it asks for, what it notices, what it refuses."""

from __future__ import annotations

import asyncio
import logging
import threading
import time

import numpy as np
import pytest
from llama_index.core import MockEmbedding, VectorStoreIndex
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.bridge.pydantic import Field
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.retrieval import RetrievalEndEvent, RetrievalStartEvent
from llama_index.core.llms import MockLLM
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import IndexNode, MetadataMode, NodeWithScore, QueryBundle, TextNode
from llama_index.core.vector_stores import FilterOperator, MetadataFilter, MetadataFilters

from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
from llama_index_embft.errors import ConfigError
from llama_index_embft.evaluation import aevaluate_retriever, evaluate_retriever, evaluate_run
from llama_index_embft.index import StoreError
from llama_index_embft.retrievers import StackRetriever, StackSettings
from llama_index_embft.search import ExactIndex, LexicalIndex, fuse

QUERIES = ["the owl of the harbour", "wolf mountain number 57", "near the river", "zebra", "fox"]


def ids(hits: list[NodeWithScore]) -> list[str]:
    return [hit.node.node_id for hit in hits]


def texts_of(nodes) -> dict[str, str]:
    return {node.node_id: node.get_content(MetadataMode.EMBED) for node in nodes}


@pytest.mark.parametrize("fusion", ["zscore", "tmm", "minmax", "dbsf", "rrf"])
@pytest.mark.parametrize("weight", [0.0, 0.3, 0.8, 1.0])
def test_it_returns_what_the_arrays_give(index, nodes, embed_model, fusion, weight):
    retriever = StackRetriever(index, StackSettings(dense_weight=weight, fusion=fusion, depth=20), similarity_top_k=15)
    lexical = LexicalIndex.build(texts_of(nodes))
    vectors = np.array(embed_model.get_text_embedding_batch(list(texts_of(nodes).values())), dtype=np.float32)
    asked = np.array([embed_model.get_query_embedding(query) for query in QUERIES], dtype=np.float32)
    dense = ExactIndex(vectors).search(asked, 20)
    fused = fuse(dense, lexical.search(QUERIES, 20), weight, fusion, depth=20)
    for line, query in enumerate(QUERIES):
        hits = retriever.retrieve(query)
        expected = [row for row in fused.rows[line, :15].tolist() if row >= 0]
        np.testing.assert_allclose([hit.score for hit in hits], fused.scores[line, : len(expected)], atol=2e-5)
        # Neighbours whose scores differ by rounding alone may change places.
        assert sorted(ids(hits)[:-1]) == sorted(nodes[row].node_id for row in expected[:-1]) or ids(hits) == [
            nodes[row].node_id for row in expected
        ]


def test_evaluation_gives_the_retriever_the_figures_of_the_arrays(index, nodes, embed_model):
    rng = np.random.default_rng(0)
    relevant = {f"q{i}": [nodes[j].node_id for j in rng.choice(60, 2, replace=False)] for i in range(40)}
    queries = {q: " ".join(nodes[int(d[0][1:])].text.split()[1:7:2]) + f" {q}" for q, d in relevant.items()}
    dataset = EmbeddingQAFinetuneDataset(queries=queries, corpus=texts_of(nodes), relevant_docs=relevant)
    lexical = LexicalIndex.build(dataset.corpus)
    vectors = np.array(embed_model.get_text_embedding_batch(list(dataset.corpus.values())), dtype=np.float32)
    asked = np.array([embed_model.get_query_embedding(query) for query in queries.values()], dtype=np.float32)
    fused = fuse(ExactIndex(vectors).search(asked, 100), lexical.search(list(queries.values()), 100), 0.6)
    run = {
        query: {lexical.ids[r]: float(s) for r, s in zip(rows, scores, strict=True) if r >= 0}
        for query, rows, scores in zip(queries, fused.rows, fused.scores, strict=True)
    }
    by_arrays = evaluate_run(dataset, run, top_k=10)
    retriever = StackRetriever(index, StackSettings(dense_weight=0.6))
    by_retriever = evaluate_retriever(dataset, retriever)
    assert 0.2 < by_arrays.mean("ndcg@10") < 0.99
    assert by_retriever.mean("ndcg@10") == pytest.approx(by_arrays.mean("ndcg@10"), abs=1e-6)
    asynchronous = asyncio.run(aevaluate_retriever(dataset, retriever))
    assert asynchronous.hit_ids == by_retriever.hit_ids


def test_weight_1_is_the_dense_retriever(index):
    hits = StackRetriever(index, StackSettings(dense_weight=1), similarity_top_k=7).retrieve("owl harbour")
    expected = index.as_retriever(similarity_top_k=7).retrieve("owl harbour")
    assert [(hit.node.node_id, hit.score) for hit in hits] == [(hit.node.node_id, hit.score) for hit in expected]


def test_weight_0_never_embeds_a_query(index, embed_model):
    retriever = StackRetriever(index, StackSettings(dense_weight=0))
    hits = retriever.retrieve("wolf harbour")
    assert {"wolf", "harbour"} <= set(hits[0].node.get_content().split())
    assert asyncio.run(retriever.aretrieve("owl"))
    assert embed_model.queries == []


@pytest.mark.parametrize("weight", [0, 1])
def test_a_part_alone_gives_all_that_is_asked_for(index, weight):
    settings = StackSettings(dense_weight=weight, depth=2, rerank_depth=1)
    assert len(StackRetriever(index, settings, similarity_top_k=9).retrieve("the owl of the harbour")) == 9


def test_synchronous_and_asynchronous_are_the_same(index):
    retriever = StackRetriever(index, StackSettings(dense_weight=0.4))
    for query in QUERIES:
        hits = retriever.retrieve(query)
        other = asyncio.run(retriever.aretrieve(query))
        assert [(h.node.node_id, h.score) for h in hits] == [(h.node.node_id, h.score) for h in other]


class EventCounter(BaseEventHandler):
    seen: list[str]

    @classmethod
    def class_name(cls) -> str:
        return "EventCounter"

    def handle(self, event, **kwargs):
        if isinstance(event, RetrievalStartEvent | RetrievalEndEvent):
            self.seen.append(type(event).__name__)


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_a_retrieval_is_one_event(index, weight):
    counter = EventCounter(seen=[])
    dispatcher = get_dispatcher()
    dispatcher.add_event_handler(counter)
    try:
        retriever = StackRetriever(index, StackSettings(dense_weight=weight))
        retriever.retrieve("owl")
        assert counter.seen == ["RetrievalStartEvent", "RetrievalEndEvent"]
        asyncio.run(retriever.aretrieve("owl"))
        assert len(counter.seen) == 4
    finally:
        dispatcher.event_handlers.remove(counter)


def test_a_query_engine_runs_on_it(index):
    engine = RetrieverQueryEngine.from_args(StackRetriever(index, similarity_top_k=3), llm=MockLLM())
    response = engine.query("owl harbour")
    assert len(response.source_nodes) == 3
    assert len(asyncio.run(engine.aquery("owl harbour")).source_nodes) == 3


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_nodes_of_later_are_found_and_deleted_ones_are_not(index, weight):
    retriever = StackRetriever(index, StackSettings(dense_weight=weight), similarity_top_k=5)
    assert "n59" in ids(retriever.retrieve("wolf harbour number 59"))
    index.insert_nodes([TextNode(text="A zebra sleeps on the roof", id_="zebra")])
    assert ids(retriever.retrieve("zebra roof"))[0] == "zebra"
    index.delete_nodes(["n59"])  # stays in the docstore and in the list of the index
    assert "n59" not in ids(retriever.retrieve("wolf harbour number 59"))
    index.delete_nodes(["zebra"], delete_from_docstore=True)
    index.insert_nodes([TextNode(text="A giraffe looks over the wall", id_="giraffe")])  # as many as before
    found = retriever.retrieve("zebra giraffe")
    assert ids(found)[0] == "giraffe"
    assert "zebra" not in ids(found)


def test_a_deleted_node_makes_room_for_the_next(index):
    retriever = StackRetriever(index, StackSettings(dense_weight=0), similarity_top_k=4)
    before = ids(retriever.retrieve("wolf"))
    assert len(before) == 4
    retriever._words._next_update = time.monotonic() + 60  # an update is not due yet
    index.delete_nodes(before[:2])
    after = ids(retriever.retrieve("wolf"))
    assert after[:2] == before[2:]
    assert len(after) == 4


def test_an_update_reads_the_new_texts_alone(index, monkeypatch):
    retriever = StackRetriever(index, similarity_top_k=1)
    asked = []
    nodes_of = retriever._words.source.table.nodes
    monkeypatch.setattr(retriever._words.source.table, "nodes", lambda some: asked.extend(some) or nodes_of(some))
    index.insert_nodes([TextNode(text="A zebra", id_="zebra"), TextNode(text="  ", id_="blank", metadata={"a": 1})])
    retriever.retrieve("zebra")
    assert sorted(set(asked)) == ["blank", "zebra"]
    assert "blank" not in retriever.lexical.ids
    asked.clear()
    retriever.retrieve("zebra")
    assert asked == ["zebra"]  # the node that is returned


def test_refresh_reads_a_text_that_changed_under_its_id(index):
    retriever = StackRetriever(index, StackSettings(dense_weight=0))
    index.docstore.add_documents([TextNode(text="A platypus", id_="n00")], allow_update=True)
    assert retriever.retrieve("platypus") == []
    retriever.refresh()
    assert ids(retriever.retrieve("platypus")) == ["n00"]
    with pytest.raises(ConfigError, match="reads its nodes from an index"):
        retriever.refresh(nodes=[])


def test_threads_may_search_while_nodes_are_added(index):
    retriever = StackRetriever(index, similarity_top_k=3)
    failures: list[BaseException] = []

    def search():
        try:
            for _ in range(30):
                assert retriever.retrieve("owl harbour")
        except BaseException as err:  # noqa: BLE001
            failures.append(err)

    threads = [threading.Thread(target=search) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(10):
        index.insert_nodes([TextNode(text=f"A new owl {number}", id_=f"new{number}")])
    for thread in threads:
        thread.join()
    # SimpleVectorStore itself is no friend of threads: its dictionary may change while it is searched.
    assert [err for err in failures if "changed size during iteration" not in str(err)] == []
    assert "new9" in ids(retriever.retrieve("new owl 9"))


class Reverse(BaseNodePostprocessor):
    """A reranker that likes what is last, and fails where it is told to."""

    fails_on: str = ""
    seen: list[int] = Field(default_factory=list)

    def _postprocess_nodes(self, nodes, query_bundle=None):
        self.seen.append(len(nodes))
        for place, hit in enumerate(nodes):
            hit.score = float(place)
            if self.fails_on and place == 2 and self.fails_on in query_bundle.query_str:
                raise RuntimeError("out of memory")
        return nodes[::-1]


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_a_reranker_orders_the_best_fused_hits(index, weight):
    settings = StackSettings(dense_weight=weight, rerank_depth=6)
    plain = ids(StackRetriever(index, settings, similarity_top_k=6).retrieve("the owl near the river"))
    reranker = Reverse(seen=[])
    retriever = StackRetriever(index, settings, reranker=reranker, similarity_top_k=3)
    hits = retriever.retrieve("the owl near the river")
    assert ids(hits) == plain[::-1][:3]
    assert [hit.score for hit in hits] == [5.0, 4.0, 3.0]
    assert reranker.seen == [6]
    assert ids(asyncio.run(retriever.aretrieve("the owl near the river"))) == plain[::-1][:3]
    retriever.similarity_top_k = 9
    assert len(retriever.retrieve("the owl near the river")) == 9  # never fewer than are wanted


def test_a_reranker_that_fails_leaves_the_fused_ranking(index, caplog):
    plain = StackRetriever(index, similarity_top_k=4).retrieve("the owl near the river")
    retriever = StackRetriever(index, reranker=Reverse(fails_on="owl"), similarity_top_k=4)
    with caplog.at_level(logging.WARNING):
        for hits in (
            retriever.retrieve("the owl near the river"),
            asyncio.run(retriever.aretrieve("the owl near the river")),
        ):
            assert [(h.node.node_id, h.score) for h in hits] == [(h.node.node_id, h.score) for h in plain]
    assert retriever.reranker_failures == 2
    assert [r.message for r in caplog.records if "reranker failed" in r.message] == [
        "The reranker failed (RuntimeError: out of memory), so the ranking without it is returned; later failures are "
        "only counted, in `reranker_failures`."
    ]
    assert retriever.retrieve("a bear")[0].score > 4  # others are reranked
    with pytest.raises(RuntimeError, match="out of memory"):
        StackRetriever(index, reranker=Reverse(fails_on="owl"), strict=True).retrieve("owl")


def test_filters_hold_for_both_parts(index, nodes):
    filters = MetadataFilters(filters=[MetadataFilter(key="place", value="harbour")])
    allowed = {node.node_id for node in nodes if node.metadata["place"] == "harbour"}
    for weight in (0.0, 0.5, 1.0):
        retriever = StackRetriever(index, StackSettings(dense_weight=weight), filters=filters, similarity_top_k=60)
        hits = retriever.retrieve("the owl near the river forest harbour")
        assert set(ids(hits)) == allowed
        index.insert_nodes(
            [
                TextNode(text="A rare gnu at the harbour", id_=f"gnu{weight}", metadata={"place": "harbour"}),
                TextNode(text="A rare gnu in the desert", id_=f"desert{weight}", metadata={"place": "desert"}),
            ]
        )
        allowed.add(f"gnu{weight}")
        assert set(ids(retriever.retrieve("rare gnu harbour"))) <= allowed
        assert ids(retriever.retrieve("rare gnu harbour"))[0].startswith("gnu")
    of_llama_index = index.as_retriever(filters=filters, similarity_top_k=3)
    assert set(ids(StackRetriever(of_llama_index).retrieve("near the river"))) <= allowed


def test_filters_that_cannot_hold_for_both_are_refused(index, embed_model):
    flat = MetadataFilter(key="place", value="harbour")
    with pytest.raises(ConfigError, match="filters inside filters"):
        StackRetriever(index, filters=MetadataFilters(filters=[MetadataFilters(filters=[flat])]))
    wrong_kind = MetadataFilters(filters=[MetadataFilter(key="place", value=3, operator=FilterOperator.GT)])
    with pytest.raises(ConfigError, match=r"The filters cannot be applied to the node 'n00'"):
        StackRetriever(index, filters=wrong_kind)
    nowhere = MetadataFilters(filters=[MetadataFilter(key="place", value="moon")])
    with pytest.raises(StoreError, match="has 60 nodes, but none that has a text matches the filters"):
        StackRetriever(index, filters=nowhere)
    lexical = LexicalIndex.build({"n00": "owl"})
    with pytest.raises(ConfigError, match="`lexical` is given with `filters`"):
        StackRetriever(index, filters=MetadataFilters(filters=[flat]), lexical=lexical)
    with pytest.raises(ConfigError, match="`filters` is for an index"):
        StackRetriever(index.as_retriever(), filters=MetadataFilters(filters=[flat]))
    with pytest.raises(ConfigError, match="only some documents or nodes"):
        StackRetriever(index.as_retriever(doc_ids=["x"]))
    with pytest.raises(ConfigError, match="in the mode 'mmr'"):
        StackRetriever(index.as_retriever(vector_store_query_mode="mmr"))


class Fixed(BaseRetriever):
    """A retriever of somebody else: always the same nodes."""

    def __init__(self, hits):
        self.hits = hits
        super().__init__()

    def _retrieve(self, query_bundle: QueryBundle):
        return [NodeWithScore(node=node, score=score) for node, score in self.hits]


def test_any_retriever_is_a_dense_part_where_the_nodes_are_given(nodes):
    dense = Fixed([(nodes[3], 0.9), (nodes[5], 0.8), (nodes[3], 0.1)])
    with pytest.raises(ConfigError, match=r"pass nodes=\[...\]"):
        StackRetriever(dense)
    retriever = StackRetriever(dense, nodes=nodes[:10])
    found = retriever.retrieve("owl harbour forest")
    assert len(set(ids(found))) == len(found)
    assert {"n03", "n05"} < set(ids(found)) <= {node.node_id for node in nodes[:10]}
    retriever.refresh(nodes=nodes[:5])
    assert "n09" not in ids(retriever.retrieve("owl"))
    with pytest.raises(ConfigError, match="Two of the nodes have the id 'n00'"):
        StackRetriever(dense, nodes=[nodes[0], nodes[0]])


def test_hits_without_scores_can_be_mixed_by_rank_alone(nodes):
    dense = Fixed([(nodes[3], None), (nodes[5], None)])
    with pytest.raises(ConfigError, match="set `fusion='rrf'`"):
        StackRetriever(dense, nodes=nodes).retrieve("fox")
    assert StackRetriever(dense, StackSettings(fusion="rrf"), nodes=nodes).retrieve("fox")


def test_distances_count_as_what_they_are(nodes):
    cosines = [0.9, 0.8, 0.5, -0.2]
    by_cosine = Fixed([(nodes[i], cosine) for i, cosine in enumerate(cosines)])
    by_distance = Fixed([(nodes[i], 2 - 2 * cosine) for i, cosine in enumerate(cosines)])  # squared, of unit vectors
    for fusion in ("zscore", "tmm"):
        settings = StackSettings(dense_weight=0.7, fusion=fusion)
        expected = StackRetriever(by_cosine, settings, nodes=nodes).retrieve("wolf")
        hits = StackRetriever(by_distance, settings, nodes=nodes).retrieve("wolf")
        assert ids(hits) == ids(expected)
        assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in expected], abs=1e-5)


def test_a_vector_of_zeros_has_a_cosine_of_0(nodes):
    """Stores make NaN of it: a text or a question of which a static model knows no word."""
    for fusion in ("zscore", "tmm"):
        settings = StackSettings(dense_weight=0.7, fusion=fusion)
        hits, expected = (
            StackRetriever(
                Fixed([(nodes[i], score) for i, score in enumerate([odd, 0.8, 0.3, odd])]), settings, nodes=nodes
            ).retrieve("wolf")
            for odd in (float("nan"), 0.0)
        )
        assert [(hit.node.node_id, hit.score) for hit in hits] == [(hit.node.node_id, hit.score) for hit in expected]


def test_a_node_that_stands_for_another_retriever_leads_there_once(index):
    inner = index.as_retriever(similarity_top_k=2)
    outer = VectorStoreIndex(
        objects=[IndexNode(text="all about animals", index_id="animals", obj=inner)], embed_model=index._embed_model
    )
    hits = StackRetriever(outer).retrieve("animals")
    assert len(hits) == 2
    assert set(ids(hits)) <= {f"n{i:02}" for i in range(60)}


@pytest.mark.parametrize("query", ["", "   \n"])
def test_a_blank_query_finds_nothing(index, query):
    for weight in (0.0, 0.5, 1.0):
        assert StackRetriever(index, StackSettings(dense_weight=weight)).retrieve(query) == []


@pytest.mark.parametrize("query", ["qqqq", "北京", "!!!", "a" * 10_000, "fox\ud800"])
def test_queries_of_unknown_words_fall_to_the_dense_part(index, query):
    hits = StackRetriever(index, similarity_top_k=100).retrieve(query)
    assert len(hits) == 60  # more than there are is all there are
    assert all(np.isfinite(hit.score) for hit in hits)


def test_equal_texts_are_nodes_of_their_own(embed_model):
    twins = [TextNode(text="the same words", id_=f"t{i}") for i in range(5)]
    retriever = StackRetriever(VectorStoreIndex(twins, embed_model=embed_model))
    assert sorted(ids(retriever.retrieve("same words"))) == [f"t{i}" for i in range(5)]


def test_bad_input_is_named(index, nodes, embed_model):
    with pytest.raises(ConfigError, match="`similarity_top_k` is 0"):
        StackRetriever(index, similarity_top_k=0)
    with pytest.raises(ConfigError, match="`reranker` is a function and no node postprocessor"):
        StackRetriever(index, reranker=lambda query, texts: [0.0] * len(texts))
    with pytest.raises(ConfigError, match="`dense` is a str"):
        StackRetriever("index")
    empty = VectorStoreIndex([], embed_model=embed_model)
    with pytest.raises(StoreError, match="has 0 nodes, but no text is kept"):
        StackRetriever(empty)
    for node in nodes:
        index.docstore.delete_document(node.node_id)
    with pytest.raises(StoreError, match="has 60 nodes, but no text is kept"):
        StackRetriever(index)


def test_an_index_that_shares_its_store_is_refused(index, embed_model):
    other = VectorStoreIndex(
        [TextNode(text="other", id_="other")], storage_context=index.storage_context, embed_model=embed_model
    )
    with pytest.raises(ConfigError, match="give each index a store of its own"):
        StackRetriever(other)


def test_a_model_for_the_queries_can_be_given(index, embed_model):
    class Other(MockEmbedding):
        pass

    retriever = StackRetriever(index, embed_model=Other(embed_dim=24))
    retriever.retrieve("owl")
    assert isinstance(retriever.embed_model, Other)
    assert embed_model.queries == []
