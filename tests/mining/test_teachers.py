"""Cross-encoder and judge: what they find relevant is dropped or becomes a positive, and their scores are kept."""

from __future__ import annotations

import numpy as np
import pytest
from llama_index.core.llms import CompletionResponse, CustomLLM, LLMMetadata

from llama_index_embft.calls import CallSettings
from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
from llama_index_embft.dataset.formats import flag_embedding_rows, labelled_pairs, teacher_rows
from llama_index_embft.embeddings import EmbeddingCache
from llama_index_embft.errors import ConfigError, ModelError
from llama_index_embft.mining import (
    CrossEncoder,
    LLMJudge,
    MiningSettings,
    mine_hard_negatives,
    parse_strategy,
)

PAD = MiningSettings(pad=True)


@pytest.fixture
def data():
    """One query; documents a (positive), b, c, d, e by falling similarity. c answers too, and c2 is its copy."""
    dataset = EmbeddingQAFinetuneDataset(
        queries={"q": "which?"},
        corpus={
            "a": "alpha one",
            "b": "beta two",
            "c": "this answers as well as the first document does",
            "c2": "This answers as well as the first document does!",
            "d": "delta four",
            "e": "epsilon five",
        },
        relevant_docs={"q": ["a"]},
    )
    cosine = np.array([0.9, 0.8, 0.7, 0.65, 0.6, 0.5])
    return dataset, (np.array([[1.0, 0.0]]), np.stack([cosine, np.sqrt(1 - cosine**2)], axis=1))


class Reranker:
    """Scores pairs by a table, and counts what it is asked."""

    def __init__(self, table):
        self.table, self.asked = table, []

    def predict(self, pairs, batch_size, show_progress_bar):
        self.asked += [text for _, text in pairs]
        return np.array([next(v for k, v in self.table.items() if k in text.casefold()) for _, text in pairs])


TABLE = {"alpha": 2.0, "beta": 1.0, "answers": 3.5, "delta": -1.0, "epsilon": -4.0}


def test_a_cross_encoder_drops_what_is_as_relevant_and_keeps_its_scores(data):
    dataset, vectors = data
    reranker = Reranker(TABLE)
    mined = mine_hard_negatives(dataset, vectors, ["rank:1-5", CrossEncoder(reranker)], 2)
    assert mined.negative_docs == {"q": ["b", "d"]}
    assert mined.relevant_docs == {"q": ["a"]}
    assert mined.report.dropped == {"cross-encoder:Reranker": 2}
    assert mined.teacher_scores["q"]["a"] == 2.0
    assert mined.teacher_scores["q"]["d"] == -1.0
    assert not any("epsilon" in text for text in reranker.asked)  # enough had been found
    assert next(iter(teacher_rows(mined, mined.teacher_scores, 2)))["label"] == [2.0, 1.0, -1.0]
    assert [row["score"] for row in labelled_pairs(mined, mined.teacher_scores)] == [2.0, 1.0, -1.0]
    assert next(iter(flag_embedding_rows(mined, mined.teacher_scores)))["neg_scores"] == [1.0, -1.0]


def test_the_gap_asks_for_more(data):
    mined = mine_hard_negatives(*data, ["rank:1-5", CrossEncoder(Reranker(TABLE), gap=1.0)], 2)
    assert mined.negative_docs == {"q": ["d", "e"]}


def test_relabelling_makes_a_positive_and_forbids_its_copies(data):
    strategies = ["rank:1-5", CrossEncoder(Reranker(TABLE | {"this answers": 3.5}))]
    mined = mine_hard_negatives(*data, strategies, 3, relabel=True)
    assert mined.relevant_docs == {"q": ["a", "c"]}
    assert mined.negative_docs == {"q": ["b", "d", "e"]}
    assert mined.report.relabelled == [("q", "c")]
    assert mined.report.dropped == {"cross-encoder:Reranker": 2}


def test_a_copy_that_was_accepted_before_is_taken_back(data):
    """The copy c2 ranks above c and the reranker misses it; when c becomes a positive, c2 has to go."""
    dataset, (queries, corpus) = data
    corpus = corpus[[0, 1, 3, 2, 4, 5]]
    reranker = Reranker({"does!": 0.0, **TABLE})
    strategies = ["rank:1-5", CrossEncoder(reranker)]
    mined = mine_hard_negatives(dataset, (queries, corpus), strategies, 3, relabel=True, settings=PAD)
    assert mined.report.dropped == {"cross-encoder:Reranker": 1, "likeness to a new positive": 1}
    assert mined.relevant_docs == {"q": ["a", "c"]}
    assert mined.negative_docs == {"q": ["b", "d", "e"]}


def test_scores_of_a_real_cross_encoder_come_from_the_cache_the_second_time(data, tiny_model_path, tmp_path):
    from sentence_transformers import CrossEncoder as Model
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    folder = tmp_path / "reranker"
    config = BertConfig(
        vocab_size=200, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, num_labels=1
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    BertTokenizerFast.from_pretrained(tiny_model_path).save_pretrained(folder)
    cache = EmbeddingCache(tmp_path / "cache.sqlite")
    strategies = ["rank:1-5", CrossEncoder(str(folder), gap=0.0, cache=cache)]
    mine = mine_hard_negatives
    results = [mine(*data, strategies, 1, settings=PAD)]
    model = Model(str(folder), device="cpu")
    expected = model.predict([("which?", "alpha one")])[0]
    assert results[0].teacher_scores["q"]["a"] == pytest.approx(expected, abs=1e-5)

    def fail(*_, **__):
        raise AssertionError("asked again")

    model.predict = fail
    results.append(mine(*data, ["rank:1-5", CrossEncoder(model, cache=cache)], 1, settings=PAD))
    assert results[0].teacher_scores == results[1].teacher_scores
    assert results[0] == results[1]


@pytest.mark.parametrize("answer", [[[1.0, 2.0]] * 6, [np.nan] * 6])
def test_a_model_that_is_no_reranker_is_named(data, answer):
    class Classifier:
        def predict(self, pairs, **_):
            return np.array(answer[: len(pairs)])

    with pytest.raises(ModelError, match="cross-encoder:Classifier gave an array of shape"):
        mine_hard_negatives(*data, ["rank:1-5", CrossEncoder(Classifier())], 2)


def test_a_reranker_that_does_not_exist(data, tmp_path):
    with pytest.raises(ModelError, match=r"The model folder '.*nothing' does not exist"):
        mine_hard_negatives(*data, ["rank:1-5", f"cross-encoder:{tmp_path}/nothing"], 2)
    with pytest.raises(ConfigError, match="at least 0, got -1"):
        CrossEncoder(Reranker(TABLE), gap=-1)


class Oracle(CustomLLM):
    """Says yes to passages that hold the word "answers"."""

    calls: list[str]
    fails: bool = False

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(context_window=4096, num_output=16, model_name="oracle")

    def complete(self, prompt, formatted=False, **_):
        passage = prompt.split("<passage>")[1].split("</passage>")[0]
        self.calls.append(passage.strip())
        if self.fails and "delta" in passage:
            return CompletionResponse(text="Hard to say.")
        return CompletionResponse(text="Yes." if "answers" in passage else "<think>yes or no?</think> No.")

    def stream_complete(self, prompt, formatted=False, **_):
        raise NotImplementedError


def test_a_judge_drops_or_relabels(data):
    llm = Oracle(calls=[])
    mined = mine_hard_negatives(*data, ["rank:1-5", "judge"], 2, llm=llm)
    assert mined.negative_docs == {"q": ["b", "d"]}
    assert mined.report.dropped == {"judge": 2}
    relabelled = mine_hard_negatives(*data, ["rank:1-5", LLMJudge(llm)], 2, relabel=True)
    assert relabelled.relevant_docs == {"q": ["a", "c"]}
    assert relabelled.negative_docs == {"q": ["b", "d"]}


def test_a_judges_answers_outlive_the_run(data, tmp_path):
    llm = Oracle(calls=[])
    for _ in range(2):
        mine_hard_negatives(*data, ["rank:1-5", LLMJudge(llm, CallSettings(journal_path=tmp_path / "judge.sqlite"))], 2)
    assert len(llm.calls) == len(set(llm.calls)) > 2


def test_what_the_judge_cannot_tell_is_no_negative(data):
    llm = Oracle(calls=[], fails=True)
    judge = LLMJudge(llm)
    mined = mine_hard_negatives(*data, ["rank:1-5", judge], 2)
    assert mined.negative_docs == {"q": ["b", "e"]}
    assert len(judge.counts.failed) == 1


class Counting(LLMJudge):
    """Finds nothing relevant, and counts the pairs that it is asked about."""

    def __init__(self):
        self.scores, self.asked = {}, 0

    def relevant(self, context, pairs):
        del context
        self.asked += len(pairs)
        return [False] * len(pairs)


@pytest.mark.parametrize(
    "source", [*("rank:3-9", "rank:2-20:random", "score:0.1-0.9", "random", "least-similar", "bm25:7", "same-document")]
)
def test_a_source_proposes_no_more_than_it_says(source):
    rng = np.random.default_rng(0)
    dataset = EmbeddingQAFinetuneDataset(
        queries={f"q{n}": f"what is thing {n}?" for n in range(5)},
        corpus={f"d{n}": f"thing {n} is the number {n * n} of its kind" for n in range(200)},
        relevant_docs={f"q{n}": [f"d{n}"] for n in range(5)},
        source_documents={f"d{n}": "whole" for n in range(200)},
    )
    teacher = Counting()
    vectors = rng.normal(size=(5, 16)) + 1, rng.normal(size=(200, 16)) + 1
    mine_hard_negatives(dataset, vectors, [source, teacher], 2)
    assert 0 < teacher.asked <= 5 * parse_strategy(source).most(2, 200)
    assert parse_strategy(source).most(2, 3) <= 3
