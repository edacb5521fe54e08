"""The tutorial's evaluations give what the tutorial's own code gives."""

from __future__ import annotations

import itertools
import re

import pytest

from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
from llama_index_embft.errors import ConfigError, EvaluationError
from llama_index_embft.evaluation import evaluate, evaluate_embed_model, evaluate_st, evaluate_triplets
from llama_index_embft.evaluation.tutorial import sentence_transformers_scores, summary_frame


@pytest.fixture(scope="module")
def dataset() -> EmbeddingQAFinetuneDataset:
    words = ["red", "green", "blue", "cat", "dog", "bird", "sun", "moon", "star", "iron", "gold", "salt"]
    corpus = {f"c{i}": f"{a} {b} and {words[(i * 5) % 12]}" for i, (a, b) in enumerate(itertools.pairwise(words))}
    queries = {f"q{i}": f"where is {word}" for i, word in enumerate(words[:8])}
    relevant = {f"q{i}": [f"c{i}", f"c{(i + 3) % 11}"] for i in range(8)}
    negative = {f"q{i}": [f"c{(i + 5) % 11}", f"c{(i + 6) % 11}"] for i in range(8)}
    return EmbeddingQAFinetuneDataset(
        queries=queries,
        corpus=corpus,
        relevant_docs=relevant,
        negative_docs=negative,
        relevance_grades={"q1": {"c1": 3}},
    )


@pytest.fixture(scope="module")
def model(tiny_model_path: str):
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(tiny_model_path, device="cpu")


def test_hit_rate_loop(dataset: EmbeddingQAFinetuneDataset, model) -> None:
    results = evaluate(dataset, model, top_k=3)
    assert set(results[0]) == {"is_hit", "retrieved", "expected", "query"}
    assert [line["query"] for line in results] == list(dataset.queries)
    for line in results:
        assert line["expected"] == dataset.relevant_docs[line["query"]][0]  # the tutorial assumes one
        assert line["is_hit"] == (line["expected"] in line["retrieved"])
        assert len(line["retrieved"]) == 3
    frame = summary_frame({"tiny": results, "report": evaluate_embed_model(dataset, model)})
    assert frame.loc["tiny", "is_hit"] == sum(line["is_hit"] for line in results) / 8
    assert frame.index.name == "model"
    assert frame.loc["report", "ndcg@10"] > 0


def test_same_scores_and_file_as_sentence_transformers(dataset: EmbeddingQAFinetuneDataset, model, tmp_path) -> None:
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

    relevant = {query: set(docs) for query, docs in dataset.relevant_docs.items()}
    theirs = InformationRetrievalEvaluator(dataset.queries, dataset.corpus, relevant, name="tiny")
    expected = theirs(model, output_path=str(tmp_path / "theirs"))
    folder = tmp_path / "not" / "there"  # the tutorial stopped here
    got = evaluate_st(dataset, model, "tiny", folder)
    assert {f"tiny_{key}": value for key, value in got.items()} == pytest.approx(expected, abs=1e-9)
    file = "Information-Retrieval_evaluation_tiny_results.csv"
    ours, original = (folder / file).read_text().splitlines(), (tmp_path / "theirs" / file).read_text().splitlines()
    assert ours[0] == original[0]
    assert [float(x) for x in ours[1].split(",")] == pytest.approx([float(x) for x in original[1].split(",")])
    evaluate_st(dataset, model, "tiny", folder)
    assert len((folder / file).read_text().splitlines()) == 3
    assert summary_frame({"tiny": folder / file}).loc["tiny", "cosine-Accuracy@1"] == got["cosine_accuracy@1"]


def test_map_is_left_out_where_it_is_not_known(dataset: EmbeddingQAFinetuneDataset, model) -> None:
    shallow = sentence_transformers_scores(evaluate_embed_model(dataset, model, ks=(1, 5)))
    assert "cosine_map@100" not in shallow
    assert "cosine_accuracy@5" in shallow


def test_files_of_another_kind_are_kept(dataset: EmbeddingQAFinetuneDataset, model, tmp_path) -> None:
    file = tmp_path / "Information-Retrieval_evaluation_x_results.csv"
    file.write_text("epoch,steps,dot-Accuracy@1\n1,2,0.5\n")
    with pytest.raises(EvaluationError, match="has other columns"):
        evaluate_st(dataset, model, "x", tmp_path)
    assert "dot-Accuracy@1" in file.read_text()
    with pytest.raises(EvaluationError, match="Cannot read"):
        summary_frame({"x": tmp_path / "none.csv"})


def test_triplets_equal_sentence_transformers(dataset: EmbeddingQAFinetuneDataset, model) -> None:
    from sentence_transformers.sentence_transformer.evaluation import TripletEvaluator

    triplets = [
        (dataset.queries[query], dataset.corpus[positive], dataset.corpus[negative])
        for query in dataset.queries
        for positive in dataset.relevant_docs[query]
        for negative in dataset.negative_docs[query]
    ]
    expected = TripletEvaluator(*map(list, zip(*triplets, strict=True)))(model)["cosine_accuracy"]
    got = evaluate_triplets(dataset, model, negatives_per_query=None)
    assert got == {"cosine_accuracy": pytest.approx(expected), "triplets": 32}
    assert evaluate_triplets(dataset, model)["triplets"] == 16
    bare = EmbeddingQAFinetuneDataset(**dataset.model_dump() | {"negative_docs": {}})
    with pytest.raises(EvaluationError, match=re.escape("no `negative_docs`")):
        evaluate_triplets(bare, model)
    with pytest.raises(ConfigError, match="`negatives_per_query` is -1"):
        evaluate_triplets(dataset, model, negatives_per_query=-1)
