"""Two retrievers in one list, and what users' clicks on it say."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter

import pytest
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.schema import NodeWithScore, TextNode

from llama_index_embft.dataset import RetrievalLog, dataset_from_clicks
from llama_index_embft.errors import ConfigError, DatasetError, EvaluationError
from llama_index_embft.evaluation import compare_interleaved
from llama_index_embft.retrievers import InterleavedRetriever


class Fixed(BaseRetriever):
    """Finds the same nodes for each question."""

    def __init__(self, *ids: str) -> None:
        self.ids = ids
        super().__init__()

    def _retrieve(self, query_bundle):
        return [NodeWithScore(node=TextNode(id_=i, text=f"text {i}"), score=0.9) for i in self.ids]


def answered(log):
    """The answers that a log holds."""
    return [row for line in log.path.read_text().splitlines() if "query" in (row := json.loads(line))]


def test_the_two_take_turns_and_a_coin_begins_each_round(tmp_path):
    log = RetrievalLog(tmp_path / "log.jsonl")
    retriever = InterleavedRetriever(Fixed(*"abcd"), Fixed(*"bxcy"), log=log, similarity_top_k=4, names=("old", "new"))
    firsts = Counter()
    for _ in range(60):
        nodes = retriever.retrieve("q")
        ids = [hit.node.node_id for hit in nodes]
        assert len(set(ids)) == 4
        assert [hit.score for hit in nodes] == [1, 1 / 2, 1 / 3, 1 / 4]
        by = {item["id"]: item["by"] for item in answered(log)[-1]["shown"]}
        assert list(by) == ids
        assert Counter(by.values()) == {"old": 2, "new": 2}
        assert {by[ids[0]], by[ids[1]]} == {"old", "new"}  # one each in a round
        assert ids.index("a") < ids.index("d") if "d" in ids else True
        firsts[by[ids[0]]] += 1
    assert 18 <= firsts["old"] <= 42


def test_where_one_has_no_more_nodes_the_rest_counts_for_neither(tmp_path):
    log = RetrievalLog(tmp_path / "log.jsonl")
    retriever = InterleavedRetriever(Fixed("a"), Fixed("a", "b", "c", "d"), log=log, similarity_top_k=3)
    nodes = asyncio.run(retriever.aretrieve("q"))
    assert nodes[0].node.node_id == "a"
    assert len(nodes) == 3
    teams = [item.get("by") for item in answered(log)[0]["shown"]]
    assert teams in (["first", None, None], ["second", None, None], ["first", "second", None])


def test_clicks_decide_and_the_log_still_makes_a_data_set(tmp_path):
    log = RetrievalLog(tmp_path / "log.jsonl")
    retriever = InterleavedRetriever(
        Fixed("a", "b", "c"), Fixed("good", "a", "b"), log=log, similarity_top_k=3, names=("old", "new")
    )
    dice = random.Random(0)
    for n in range(120):
        ids = [hit.node.node_id for hit in retriever.retrieve("which one?")]
        wanted = "good" if dice.random() < 0.8 else ids[0]
        if n % 4:
            log.feedback(log.last_id, clicked=wanted if wanted in ids else ids[:1])  # one id needs no list
    found = compare_interleaved(log.path)
    assert (found.answers, found.clicked) == (120, 90)
    assert sum(found.wins) == 90
    assert found.preferred == "new"
    assert found.p < 0.001
    assert str(found).startswith("120 answers, 90 with clicks: new won")
    assert "Users prefer new: old wins" in str(found)
    assert found.to_dict()["preferred"] == "new"
    assert dataset_from_clicks(log.path).relevant_docs  # the same log trains


def test_equal_retrievers_are_not_told_apart():
    rows = []
    dice = random.Random(1)
    for n in range(200):
        first, second = ("A", "B") if dice.random() < 0.5 else ("B", "A")
        shown = [{"id": "x", "text": "x", "by": first}, {"id": "y", "text": "y", "by": second}]
        clicked = [["x"], ["y"], ["x", "y"], []][dice.randrange(4)]
        rows.append({"id": str(n), "query": "q", "shown": shown, "clicked": clicked})
    found = compare_interleaved(rows)
    assert found.preferred is None
    assert found.clicked > sum(found.wins)  # both clicked: a draw
    assert "It is not shown yet whom users prefer" in str(found)
    unclicked = compare_interleaved([{**row, "clicked": []} for row in rows])
    assert unclicked.preferred is None
    assert "Nobody has clicked" in str(unclicked)


def test_bad_input_is_one_sentence(tmp_path):
    log = RetrievalLog(tmp_path / "log.jsonl")
    with pytest.raises(ConfigError, match="different names"):
        InterleavedRetriever(Fixed("a"), Fixed("b"), log=log, names=("x", "x"))
    with pytest.raises(ConfigError, match="similarity_top_k"):
        InterleavedRetriever(Fixed("a"), Fixed("b"), log=log, similarity_top_k=0)
    with pytest.raises(EvaluationError, match="does not say who put a node there"):
        compare_interleaved([{"query": "q", "shown": [{"id": "a", "text": "a"}]}])
    with pytest.raises(DatasetError, match=r"`clicked` is 'a' \(str\); it must be a list"):
        compare_interleaved([{"query": "q", "shown": [{"id": "a", "by": "x"}], "clicked": "a"}])
    log.attach()
    try:
        with pytest.raises(ConfigError, match="not attached"):
            InterleavedRetriever(Fixed("a"), Fixed("b"), log=log)
    finally:
        log.detach()
