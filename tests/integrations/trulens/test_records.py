"""Data sets from TruLens' records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llama_index_embft.errors import ConfigError, DatasetError
from llama_index_embft.integrations.trulens import dataset_from_trulens


@pytest.fixture(scope="module")
def trulens_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database that TruLens itself has written: three questions, judged record by record and context by context."""
    pytest.importorskip("trulens.apps.llamaindex", reason="extra trulens")
    from llama_index.core import VectorStoreIndex
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.llms import MockLLM
    from llama_index.core.schema import TextNode
    from trulens.apps.llamaindex import TruLlama
    from trulens.core import Metric, Selector

    from llama_index_embft.integrations.trulens.recording import _silent, open_session

    class Axes(BaseEmbedding):
        def _get_text_embedding(self, text: str) -> list[float]:
            return [text.count(word) + 0.01 for word in ("apples", "pears", "plums")]

        _get_query_embedding = _get_text_embedding

        async def _aget_query_embedding(self, query: str) -> list[float]:
            return self._get_text_embedding(query)

    def overlap(question: str, context: str) -> float:
        return float(any(word in context for word in question.strip("?").split()))

    nodes: Any = [TextNode(text=f"Facts on {fruit}.") for fruit in ("apples", "pears", "plums")]
    engine = VectorStoreIndex(nodes, embed_model=Axes()).as_query_engine(llm=MockLLM(), similarity_top_k=2)
    path = tmp_path_factory.mktemp("trulens") / "t.sqlite"
    session = open_session(path)
    each = Metric(
        implementation=overlap,
        name="each context",
        selectors={"question": Selector.select_record_input(), "context": Selector.select_context(collect_list=False)},
    )
    whole = Metric(
        implementation=lambda question: 0.0 if "plums" in question else 1.0,
        name="whole record",
        selectors={"question": Selector.select_record_input()},
    )
    with _silent("trulens", "opentelemetry"):
        app = TruLlama(engine, app_name="fruit", app_version="v1", feedbacks=[each, whole], start_evaluator=False)
        with app as recording:
            for fruit in ("apples", "pears", "plums"):
                engine.query(f"what about {fruit}?")
        app.retrieve_feedback_results(record_ids=[record.record_id for record in recording.records], timeout=120)
    session.force_flush()
    return path


def test_trulens_feedback_on_each_context(trulens_database: Path) -> None:
    dataset = dataset_from_trulens(trulens_database, "fruit", "v1", feedback="each context")
    texts = {
        dataset.queries[query]: [dataset.corpus[doc] for doc in docs] for query, docs in dataset.relevant_docs.items()
    }
    assert texts == {f"what about {fruit}?": [f"Facts on {fruit}."] for fruit in ("apples", "pears", "plums")}
    assert all(len(docs) == 1 for docs in dataset.negative_docs.values())
    assert dataset.report.impressions == 3


def test_trulens_feedback_on_the_record(trulens_database: Path) -> None:
    dataset = dataset_from_trulens(
        trulens_database, "fruit", feedback="whole record", corpus={"p": "Facts on pears.", "x": "More."}
    )
    assert sorted(dataset.queries.values()) == ["what about apples?", "what about pears?"]
    assert ["p"] in dataset.relevant_docs.values()
    assert dataset.corpus["x"] == "More."


def test_what_trulens_does_not_have(trulens_database: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="has no feedback 'none'; there is each context, whole record"):
        dataset_from_trulens(trulens_database, "fruit", feedback="none")
    with pytest.raises(DatasetError, match="holds no records of the app 'other'"):
        dataset_from_trulens(trulens_database, "other", feedback="whole record")
    with pytest.raises(DatasetError, match="There is no TruLens database"):
        dataset_from_trulens(tmp_path / "none.sqlite", "fruit", feedback="whole record")
    (tmp_path / "text.sqlite").write_text("no database " * 100)
    with pytest.raises(DatasetError, match="is not a TruLens database"):
        dataset_from_trulens(tmp_path / "text.sqlite", "fruit", feedback="whole record")
    with pytest.raises(ConfigError, match="`down` must be below `up`"):
        dataset_from_trulens(trulens_database, "fruit", feedback="whole record", up=0.1, down=0.5)
