"""Query engines: source nodes and answers, with and without an LLM as judge."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from llama_index.core import MockEmbedding
from llama_index.core.base.response.schema import Response, StreamingResponse
from llama_index.core.evaluation import CorrectnessEvaluator, EvaluationResult
from llama_index.core.llms import MockLLM
from test_retrievers import hit

from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
from llama_index_embft.errors import EvaluationError
from llama_index_embft.evaluation import RetrievalReport, aevaluate_query_engine, compare, evaluate_query_engine
from llama_index_embft.evaluation.systems.query_engine import word_f1


@pytest.fixture
def dataset(tiny_dataset: EmbeddingQAFinetuneDataset) -> EmbeddingQAFinetuneDataset:
    answers = {"q1": "the red apple", "q2": "the yellow banana", "q3": "it is blue"}
    return EmbeddingQAFinetuneDataset(**tiny_dataset.model_dump() | {"reference_answers": answers})


class Engine:
    """Answers from a table; one answer is streamed."""

    def __init__(self, **answers) -> None:
        self.answers = answers

    def query(self, text: str):
        words, node = self.answers[text.replace(" ", "_")]
        if isinstance(words, Exception):
            raise words
        if words.startswith("stream "):
            return StreamingResponse(response_gen=iter(words[7:].split()), source_nodes=[hit(node, 1.0)])
        return Response(response=words, source_nodes=[hit(node, 1.0)])

    async def aquery(self, text: str):
        return self.query(text)


def good() -> Engine:
    return Engine(
        red_fruit=("the red apple", "apple"),
        yellow_fruit=("a yellow lemon", "lemon"),
        sky=("stream it is blue", "apple"),
    )


def test_sources_and_answers_are_scored(dataset: EmbeddingQAFinetuneDataset, tmp_path) -> None:
    report = evaluate_query_engine(dataset, good(), ks=(1,), metrics=("hit_rate",), embed_model=MockEmbedding(4))
    assert report.values["hit_rate@1"].tolist() == [1, 1, 0]
    assert report.answers == ("the red apple", "a yellow lemon", "itisblue")
    assert report.values["answer_f1"].tolist() == pytest.approx([1, 1 / 3, 0])
    assert report.values["answer_similarity"].tolist() == pytest.approx([1, 1, 1])  # the mock gives one vector
    report.to_json(tmp_path / "r.json")
    assert RetrievalReport.from_json(tmp_path / "r.json").answers == report.answers
    result = compare(report, report, primary="answer_f1", n_resamples=10)
    assert result.primary == "answer_f1"


def test_failures_score_zero_everywhere(dataset: EmbeddingQAFinetuneDataset) -> None:
    engine = good()
    engine.answers["sky"] = (RuntimeError("no model"), "blue")
    report = evaluate_query_engine(dataset, engine, ks=(1,), num_workers=2, embed_model=MockEmbedding(4))
    assert report.errors == {"q3": "RuntimeError: no model"}
    assert report.values["answer_f1"][2] == report.values["answer_similarity"][2] == 0


def test_judges_of_every_scale(dataset: EmbeddingQAFinetuneDataset) -> None:
    def judge(**by_query):
        return SimpleNamespace(evaluate=lambda query, **seen: EvaluationResult(**by_query[query.split()[0]]))

    five = judge(red={"score": 5.0}, yellow={"score": 3.0}, sky={"score": None, "passing": True})
    report = evaluate_query_engine(dataset, good(), ks=(1,), judges={"correctness": five})
    assert report.values["correctness"].tolist() == [1.0, 0.5, 1.0]
    partly = judge(red={"score": 0.25}, yellow={"score": float("nan")}, sky={"score": None})
    report = evaluate_query_engine(dataset, good(), ks=(1,), judges={"j": partly})
    assert report.values["j"].tolist() == [0.25, 0, 0]
    assert "gave no score for 2 answers" in report.notes[-1]
    silent = judge(red={}, yellow={}, sky={})
    report = evaluate_query_engine(dataset, good(), judges={"j": silent})  # the answers are paid for
    assert "no score for any answer" in report.notes[-1]
    assert "j" not in report.values
    assert report.answers[0] == "the red apple"
    ones = judge(red={"score": 1.0}, yellow={"score": 5.0}, sky={"score": 1.0})
    report = evaluate_query_engine(dataset, good(), ks=(1,), judges={"correctness": ones})
    assert report.values["correctness"].tolist() == [0.0, 1.0, 0.0]


class Harsh(CorrectnessEvaluator):
    """Gives the worst of its grades from 1 to 5."""

    async def aevaluate(self, *_, **__):
        return EvaluationResult(score=1.0)


def test_the_worst_correctness_of_all_answers_is_not_the_best(dataset: EmbeddingQAFinetuneDataset) -> None:
    judges = {"correctness": Harsh(llm=MockLLM())}
    report = evaluate_query_engine(dataset, good(), ks=1, judges=judges)
    assert report.values["correctness"].tolist() == [0, 0, 0]
    again = asyncio.run(aevaluate_query_engine(dataset, good(), ks=1, judges=judges))
    assert again.values["correctness"].tolist() == [0, 0, 0]


def test_the_asynchronous_twin_gives_the_same(dataset: EmbeddingQAFinetuneDataset) -> None:
    class Judge:
        def evaluate(self, query, **seen):
            return EvaluationResult(score=float(len(query) % 5 + 1))

        async def aevaluate(self, query, **seen):
            if "sky" in query:
                raise TimeoutError("read timed out")
            return self.evaluate(query)

    options = {"ks": (1,), "embed_model": MockEmbedding(4), "judges": {"j": Judge()}}
    one = evaluate_query_engine(dataset, good(), **options)
    two = asyncio.run(aevaluate_query_engine(dataset, good(), num_workers=2, **options))
    assert one.answers == two.answers
    assert one.hit_ids == two.hit_ids
    for name in ("hit_rate@1", "answer_f1", "answer_similarity"):
        assert one.values[name].tolist() == two.values[name].tolist()
    assert one.values["j"].tolist()[:2] == two.values["j"].tolist()[:2]
    assert two.values["j"][2] == 0
    assert "TimeoutError: read timed out" in two.notes[-1]


def test_reference_answers_for_all_or_none(
    dataset: EmbeddingQAFinetuneDataset, tiny_dataset: EmbeddingQAFinetuneDataset
) -> None:
    assert "answer_f1" not in evaluate_query_engine(tiny_dataset, good(), ks=(1,)).values
    some = EmbeddingQAFinetuneDataset(**tiny_dataset.model_dump() | {"reference_answers": {"q1": "x"}})
    with pytest.raises(EvaluationError, match="2 of 3 queries have no reference answer"):
        evaluate_query_engine(some, good())


def test_word_f1() -> None:
    assert word_f1("Red, red apple!", "red apple") == pytest.approx(0.8)
    assert word_f1("", "x") == 0
    # Characters and pairs of them: 5 of 9 on each side are the same.
    assert word_f1("总部在北京", "总部在上海") == pytest.approx(5 / 9)
