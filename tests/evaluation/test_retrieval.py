"""Evaluating vectors and embedding models, and the report that comes of it."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
from llama_index_embft.errors import ConfigError, EvaluationError
from llama_index_embft.evaluation import RetrievalEvaluator, RetrievalReport, evaluate_embed_model, evaluate_embeddings

QUERIES = np.array([[1, 0, 0], [0, 1, 0.6], [0, 0, 1]], dtype=np.float32)
CORPUS = np.array([[1, 0, 0], [0, 0.6, 0.8], [0, 1, 0], [0, 0.1, 1]], dtype=np.float32)  # apple banana lemon blue


def test_scores_and_hits(tiny_dataset: EmbeddingQAFinetuneDataset) -> None:
    report = evaluate_embeddings(tiny_dataset, QUERIES, CORPUS, ks=(1, 3), label="mine")
    assert report.hit_ids[0][0] == "apple"
    assert report.hit_ids[1] == ("banana", "lemon", "blue")
    assert report.hit_scores[0][0] == pytest.approx(1.0)
    assert report.mean("hit_rate@1") == 1.0
    assert report.values["recall@1"].tolist() == [1.0, 0.5, 1.0]
    assert report.values["ndcg@3"].tolist() == pytest.approx([1, 1, 1])
    assert (report.label, report.ks, report.depth, report.corpus_size) == ("mine", (1, 3), 3, 4)
    assert report.documents == ("fruit", "fruit", "blue")
    assert report.first_ranks().tolist() == [1, 1, 1]


def test_ties_go_to_the_higher_id(tiny_dataset: EmbeddingQAFinetuneDataset) -> None:
    same = np.ones((4, 3), dtype=np.float32)
    report = evaluate_embeddings(tiny_dataset, QUERIES, same, ks=(1, 4))
    assert all(hits == ("lemon", "blue", "banana", "apple") for hits in report.hit_ids)
    assert report.mean("hit_rate@1") == pytest.approx(1 / 3)  # a constant scorer is not perfect


@pytest.mark.parametrize("turned", [False, True])
def test_corpus_order_does_not_matter(tiny_dataset: EmbeddingQAFinetuneDataset, turned: bool) -> None:
    order = [3, 0, 2, 1] if turned else [0, 1, 2, 3]
    ids = [list(tiny_dataset.corpus)[i] for i in order]
    fields = tiny_dataset.model_dump() | {"corpus": {doc: tiny_dataset.corpus[doc] for doc in ids}}
    report = evaluate_embeddings(EmbeddingQAFinetuneDataset(**fields), QUERIES, CORPUS[order])
    assert report.hit_ids == evaluate_embeddings(tiny_dataset, QUERIES, CORPUS).hit_ids


def test_fewer_documents_than_k(tiny_dataset: EmbeddingQAFinetuneDataset) -> None:
    report = evaluate_embeddings(tiny_dataset, QUERIES, CORPUS, ks=(10,))
    assert all(len(hits) == 4 for hits in report.hit_ids)
    assert report.mean("recall@10") == 1.0
    assert report.values["precision@10"].tolist() == pytest.approx([0.1, 0.2, 0.1])


def test_evaluator_scores_like_the_report_and_takes_torch(tiny_dataset: EmbeddingQAFinetuneDataset) -> None:
    torch = pytest.importorskip("torch")
    evaluator = RetrievalEvaluator(tiny_dataset, metrics=("ndcg@10",))
    expected = {"ndcg@10": evaluate_embeddings(tiny_dataset, QUERIES, CORPUS).mean("ndcg@10")}
    assert evaluator.score(QUERIES, CORPUS) == expected
    assert evaluator.score(torch.tensor(QUERIES), torch.tensor(CORPUS)) == expected
    assert evaluator.score(QUERIES, CORPUS[evaluator.corpus_order], ordered=True) == expected
    assert evaluator.corpus_texts == [list(tiny_dataset.corpus.values())[row] for row in evaluator.corpus_order]


def test_r_precision_looks_as_deep_as_it_must(tiny_dataset: EmbeddingQAFinetuneDataset) -> None:
    report = evaluate_embeddings(tiny_dataset, QUERIES, CORPUS, ks=(1,), metrics=("hit_rate", "r_precision"))
    assert report.depth == 2
    assert report.values["r_precision"].tolist() == [1.0, 1.0, 1.0]


def test_real_model_both_ways_and_bare_text(tiny_model_path: str) -> None:
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding
    from sentence_transformers import SentenceTransformer

    dataset = EmbeddingQAFinetuneDataset(
        queries={"a": "one two three", "b": "seven eight"},
        corpus={"x": "file: f.txt\n\none two three", "y": "file: f.txt\n\nseven eight", "z": "file: f.txt\n\nnine"},
        relevant_docs={"a": ["x"], "b": ["y"]},
        bare_texts={"x": "one two three", "y": "seven eight", "z": "nine"},
    )
    model = HuggingFaceEmbedding(tiny_model_path, device="cpu")
    report = evaluate_embed_model(dataset, model, ks=(1, 2), metadata_mode="none", cache=None)
    assert report.mean("hit_rate@1") == 1.0  # the texts are equal
    assert report.hit_scores[0][0] == pytest.approx(1.0, abs=1e-5)
    assert report.text == "the bare text, without metadata"
    embedded = evaluate_embed_model(dataset, model, ks=(1, 2))
    assert embedded.text == "the text the index embeds, metadata included"
    assert embedded.hit_scores[0][0] < 0.9999
    assert embedded.corpus_hash != report.corpus_hash
    assert embedded.data_hash == report.data_hash
    plain = SentenceTransformer(tiny_model_path, device="cpu")
    other = evaluate_embed_model(dataset, plain, ks=(1, 2), cache=None)
    assert other.hit_ids == embedded.hit_ids
    assert set(report.seconds) == {"encode", "search"}
    assert "/" not in report.label.strip("/").replace("/", "", 1)  # the end of the path only


def test_report_survives_json(tiny_dataset: EmbeddingQAFinetuneDataset, tmp_path) -> None:
    report = evaluate_embeddings(tiny_dataset, QUERIES, CORPUS, label="ünï")
    report.to_json(tmp_path / "r.json")
    again = RetrievalReport.from_json(tmp_path / "r.json")
    for name in ("label", "ks", "depth", "query_ids", "queries", "documents", "relevant", "hit_ids", "hit_scores"):
        assert getattr(again, name) == getattr(report, name), name
    assert again.summary() == report.summary()
    assert again.to_pandas().equals(report.to_pandas())
    assert json.loads((tmp_path / "r.json").read_text())["metrics"] == report.summary()


def test_pandas_and_markdown_and_html(tiny_dataset: EmbeddingQAFinetuneDataset) -> None:
    report = evaluate_embeddings(tiny_dataset, QUERIES, CORPUS, label="<b>mine</b>")
    frame = report.to_pandas()
    assert (frame.index.name, list(frame.index)) == ("query_id", ["q1", "q2", "q3"])
    assert list(frame.columns) == list(report.metrics)
    assert frame["recall@1"].mean() == report.mean("recall@1")
    assert "| hit_rate | 1.0000 |" in report.to_markdown()
    page = report._repr_html_()
    assert "&lt;b&gt;mine" in page
    assert "<b>mine" not in page
    assert "hit_rate@10" in repr(report)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is not JSON"),
        ("[]", "not a retrieval report but something else"),
        ('{"queries": {}}', "not a retrieval report"),
        ('{"format": "llama-index-embft/comparison"}', "give the two reports"),
        ('{"format": "llama-index-embft/retrieval-report", "version": 9}', "report version 9"),
        ('{"format": "llama-index-embft/retrieval-report", "version": 1}', "damaged report"),
    ],
)
def test_other_files_are_refused(content: str, message: str, tmp_path) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(EvaluationError, match=message):
        RetrievalReport.from_json(tmp_path / "x.json")
    with pytest.raises(EvaluationError, match="Cannot read"):
        RetrievalReport.from_json(tmp_path / "missing.json")


def test_not_a_number_is_refused(tiny_dataset: EmbeddingQAFinetuneDataset, tmp_path) -> None:
    report = evaluate_embeddings(tiny_dataset, QUERIES, CORPUS, ks=(1,))
    report.to_json(tmp_path / "r.json")
    broken = (tmp_path / "r.json").read_text().replace('"hit_rate@1": [1.0', '"hit_rate@1": [NaN')
    (tmp_path / "r.json").write_text(broken)
    with pytest.raises(EvaluationError, match=re.escape("hit_rate@1 of query 'q1' is not a number")):
        RetrievalReport.from_json(tmp_path / "r.json")
    with pytest.raises(EvaluationError, match="has no metric 'bogus'"):
        report.mean("bogus")


def test_lists_of_numbers_are_vectors_too(tiny_dataset: EmbeddingQAFinetuneDataset) -> None:
    expected = evaluate_embeddings(tiny_dataset, QUERIES, CORPUS).hit_ids
    assert evaluate_embeddings(tiny_dataset, QUERIES.tolist(), CORPUS.tolist()).hit_ids == expected
    assert evaluate_embeddings(tiny_dataset, list(QUERIES), tuple(map(tuple, CORPUS))).hit_ids == expected
    for wrong in (None, "abc", [[1.0], [2.0, 3.0], [4.0]], {"q1": [1.0]}, np.ones(3)):
        with pytest.raises(EvaluationError, match="The query embeddings are no matrix of numbers"):
            evaluate_embeddings(tiny_dataset, wrong, CORPUS)


def test_bad_arguments(tiny_dataset: EmbeddingQAFinetuneDataset) -> None:
    with pytest.raises(EvaluationError, match="3 queries and 4 documents, but there are 2 and 4 vectors"):
        evaluate_embeddings(tiny_dataset, QUERIES[:2], CORPUS)
    with pytest.raises(ConfigError, match="metrics look at 10 hits"):
        evaluate_embeddings(tiny_dataset, QUERIES, CORPUS, top_k=5)
    with pytest.raises(ConfigError, match="`top_k` is '20', which is not a number"):
        evaluate_embeddings(tiny_dataset, QUERIES, CORPUS, top_k="20")  # type: ignore[arg-type]
    with pytest.raises(EvaluationError, match="Unknown metric"):
        evaluate_embeddings(tiny_dataset, QUERIES, CORPUS, metrics=("ndcg@0",))
    with pytest.raises(EvaluationError, match="has no query"):
        evaluate_embeddings(
            EmbeddingQAFinetuneDataset(queries={}, corpus={"a": "b"}, relevant_docs={}), QUERIES, CORPUS
        )
    with pytest.raises(ConfigError, match="`metadata_mode` is 'both'"):
        evaluate_embed_model(tiny_dataset, None, metadata_mode="both")


@pytest.mark.data
@pytest.mark.e2e
def test_uber_gives_the_published_figures(shared_data, minilm_path: str) -> None:
    from llama_index_embft.embeddings import load_embed_model

    dataset = EmbeddingQAFinetuneDataset.from_json(shared_data / "uber_10k_2021.json")
    report = evaluate_embed_model(dataset, load_embed_model(minilm_path))
    got = {name: round(report.mean(name), 3) for name in ("hit_rate@1", "hit_rate@5", "hit_rate@10", "ndcg@10")}
    assert got == {"hit_rate@1": 0.496, "hit_rate@5": 0.728, "hit_rate@10": 0.787, "ndcg@10": 0.641}
