"""Evaluation: each case gave a wrong figure, lost something, or said nothing."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import typer
from llama_index.core import MockEmbedding, VectorStoreIndex
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.evaluation import BaseEvaluator, EvaluationResult
from llama_index.core.llms import MockLLM
from llama_index.core.schema import NodeRelationship, NodeWithScore, RelatedNodeInfo, TextNode
from typer.testing import CliRunner

from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
from llama_index_embft.errors import ConfigError, EvaluationError
from llama_index_embft.evaluation import (
    RetrievalEvaluator,
    RetrievalReport,
    aevaluate_query_engine,
    compare,
    compare_systems,
    evaluate_bm25,
    evaluate_embed_model,
    evaluate_query_engine,
    evaluate_retriever,
    evaluate_run,
    fuse_runs,
    paired_tests,
    rerank_run,
)


class Fixed(BaseRetriever):
    """Returns the same nodes for every query."""

    def __init__(self, *nodes: TextNode) -> None:
        super().__init__()
        self._found = [NodeWithScore(node=node, score=1.0 - i / 100) for i, node in enumerate(nodes)]

    def _retrieve(self, query_bundle):
        return list(self._found)


class Letters(BaseEmbedding):
    """Vectors of letter counts; `folder` stands for the saved result that a model came from."""

    folder: str = ""

    def _vector(self, text: str) -> list[float]:
        return [text.count(letter) + 0.01 for letter in "abcdefghijklmnopqrstuvwxyz"]

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._vector(text)

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._vector(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._vector(query)


def numbered(n: int) -> EmbeddingQAFinetuneDataset:
    return EmbeddingQAFinetuneDataset(
        queries={f"q{i}": f"what is thing {i}?" for i in range(n)},
        corpus={f"d{i}": f"text number {i} is about thing {i}." for i in range(n)},
        relevant_docs={f"q{i}": [f"d{i}"] for i in range(n)},
    )


@pytest.mark.parametrize("options", [{"metrics": ["recall@40"]}, {"ks": (40,), "metrics": ["recall"]}])
def test_a12_bm25_keeps_as_many_hits_as_its_metrics_look_at(options) -> None:
    corpus = {f"d{i:02}": "apple " * (60 - i) + f"w{i}" for i in range(50)}
    dataset = EmbeddingQAFinetuneDataset(queries={"q": "apple"}, corpus=corpus, relevant_docs={"q": list(corpus)[:40]})
    report = evaluate_bm25(dataset, **options)
    assert report.mean("recall@40") == 1.0
    assert len(report.hit_ids[0]) == 40
    assert evaluate_bm25(dataset, metrics=["r_precision"]).mean("r_precision") == 1.0
    with pytest.raises(ConfigError, match="`top_k` is 5, but the metrics look at 40 hits"):
        evaluate_bm25(dataset, top_k=5, **options)


def test_a12_metrics_of_a_shallow_retriever_are_named_by_what_was_measured() -> None:
    dataset = numbered(30)
    index = VectorStoreIndex([TextNode(id_=k, text=v) for k, v in dataset.corpus.items()], embed_model=Letters())
    two, ten = (evaluate_retriever(dataset, index.as_retriever(similarity_top_k=k)) for k in (2, 10))
    assert "hit_rate@10" not in two.values
    assert {"hit_rate@1", "hit_rate@2", "ndcg@2"} <= set(two.values)
    assert "At most 2 hits came back" in two.notes[-1]
    assert "hit_rate@10" in ten.values
    assert not ten.notes
    with pytest.raises(EvaluationError, match=r"ndcg@10.*2 hits a query"):
        compare(two, ten)
    with pytest.raises(EvaluationError, match="`primary` is 'ndcg@10'"):
        compare(ten, two, primary="ndcg@10")
    result = compare(two, ten, primary="ndcg@1", n_resamples=50)
    assert any("different numbers of hits" in note for note in result.notes)


def test_a12_a_corpus_smaller_than_the_cut_off_is_no_shallow_retriever() -> None:
    dataset = numbered(4)
    report = evaluate_retriever(dataset, Fixed(*(TextNode(id_=k, text=v) for k, v in dataset.corpus.items())))
    assert "hit_rate@10" in report.values
    assert not report.notes


@pytest.mark.parametrize("child", ["k0", "k3", "k7"])
def test_a12_a_merged_parent_counts_at_its_own_place_whatever_the_childs_id(child: str) -> None:
    children = {f"k{i}": f"Child number {i} holds a sentence long enough to be found in its parent." for i in range(8)}
    corpus = children | {f"x{i}": f"Other text {i}." for i in range(20)}
    dataset = EmbeddingQAFinetuneDataset(queries={"q": "which?"}, corpus=corpus, relevant_docs={"q": [child]})
    parent = TextNode(id_="p", text=" ".join(children.values()))
    first = evaluate_retriever(dataset, Fixed(parent), match="text", metrics=["mrr@1", "ndcg@1"])
    assert first.mean("mrr@1") == first.mean("ndcg@1") == 1.0
    second = evaluate_retriever(
        dataset, Fixed(TextNode(id_="x1", text="Other text 1."), parent), match="text", metrics=["mrr@2"]
    )
    assert second.mean("mrr@2") == 0.5
    assert "hold several entries" in " ".join(second.notes)


def test_a12_match_document_knows_the_packages_own_nodes_of_pages() -> None:
    nodes = []
    for i in range(6):
        node = TextNode(id_=f"n{i}", text=f"Page {i} on topic {i}.", metadata={"file_path": f"/docs/{i // 3}.pdf"})
        node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=f"/docs/{i // 3}.pdf_part_{i % 3}")
        nodes.append(node)
    dataset = EmbeddingQAFinetuneDataset(
        queries={"q": "topic 4?"},
        corpus={node.node_id: node.text for node in nodes},
        relevant_docs={"q": ["n4"]},
        source_documents={node.node_id: node.metadata["file_path"] for node in nodes},
    )
    report = evaluate_retriever(dataset, Fixed(nodes[5]), match="document", metrics=["hit_rate@1"])
    assert report.mean("hit_rate@1") == 1.0  # another page of the file that is asked for
    # Chunks that the data set does not know are told by their file.
    other = TextNode(id_="new", text="cut otherwise", metadata={"file_path": "/docs/1.pdf"})
    other.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id="/docs/1.pdf_part_0")
    assert evaluate_retriever(dataset, Fixed(other), match="document", metrics=["mrr@1"]).mean("mrr@1") == 1.0


def test_a13_queries_without_a_relevant_document_are_counted_and_said() -> None:
    qrels = {"a": {"x": 1}, "b": {"y": 1}, "c": {"z": 0}}
    run = {"a": {"x": 1.0}, "b": {"x": 1.0, "y": 0.5}, "c": {"z": 1.0}}
    report = evaluate_run(qrels, run, metrics=["mrr@10"])
    assert report.mean("mrr@10") == 0.75
    (note,) = (note for note in report.notes if "no relevant document" in note)
    assert "1 judged queries" in note
    assert "0.6667 times" in note  # trec_eval's mean is 0.5
    assert "trec_eval counts it with 0" in " ".join((evaluate_run.__doc__ or "").split())


def test_a14_a_run_does_not_score_the_query_itself() -> None:
    qrels = {f"a{i}": {f"b{i}": 1} for i in range(5)}
    run = {f"a{i}": {f"a{i}": 1.0, f"b{i}": 0.9, "c": 0.1} for i in range(5)}
    report = evaluate_run(qrels, run, ks=(1, 10))
    assert report.mean("ndcg@1") == 1.0
    assert any("5 queries found themselves" in note for note in report.notes)
    assert evaluate_run(qrels, run, ks=(1, 10), ignore_identical=False).mean("ndcg@1") == 0.0
    # Queries and documents that are merely numbered alike are different things.
    same = {"1": {"1": 1}, "2": {"3": 1}}
    assert evaluate_run(same, {"1": {"1": 1.0}, "2": {"2": 1.0, "3": 0.5}}, metrics=["mrr@10"]).mean("mrr@10") == 0.75


def test_a14_the_querys_own_text_in_the_corpus_is_no_hit() -> None:
    texts = {"d0": "Alpha beta gamma", "d1": "alpha beta gamma delta", "d2": "zzz", "d3": "qqq", "d4": "xxx"}
    dataset = EmbeddingQAFinetuneDataset(queries={"q": "alpha  BETA gamma"}, corpus=texts, relevant_docs={"q": ["d1"]})
    model = Letters()
    report = evaluate_embed_model(dataset, model, ks=(1, 3), cache=None)
    assert report.mean("mrr@1") == 1.0
    assert len(report.hit_ids[0]) == 3
    assert "d0" not in report.hit_ids[0]
    assert "1 queries found themselves" in report.notes[0]
    counted = evaluate_embed_model(dataset, model, ks=(1, 3), cache=None, ignore_identical=False)
    assert counted.mean("mrr@1") == 0.0
    queries, corpus = (
        np.array([model._vector(text) for text in part.values()], np.float32) for part in (dataset.queries, texts)
    )
    scores = RetrievalEvaluator(dataset, ks=(1,)).score(queries, corpus)
    assert scores["mrr@1"] == 1.0  # validation during training measures the same
    index = VectorStoreIndex([TextNode(id_=k, text=v) for k, v in texts.items()], embed_model=model)
    assert evaluate_retriever(dataset, index.as_retriever(similarity_top_k=3), ks=(1,)).mean("mrr@1") == 1.0
    engine = index.as_query_engine(llm=MockLLM(), similarity_top_k=3)
    assert evaluate_query_engine(dataset, engine, ks=(1,)).mean("mrr@1") == 1.0
    assert evaluate_query_engine(dataset, engine, ks=(1,), ignore_identical=False).mean("mrr@1") == 0.0
    later = aevaluate_query_engine(dataset, engine, ks=(1,), ignore_identical=False)
    assert asyncio.run(later).mean("mrr@1") == 0.0
    systems = {"one": model, "two": index.as_retriever(similarity_top_k=50)}
    for counted, expected in ((True, 1.0), (False, 0.0)):
        table = compare_systems(dataset, systems, metrics=["mrr@1"], ignore_identical=counted, n_resamples=100)
        assert [table.base.mean("mrr@1"), table.systems[0].report.mean("mrr@1")] == [expected, expected]
    assert evaluate_bm25(dataset, ks=(1,)).mean("mrr@1") == 1.0
    # A relevant document is never taken for the query itself.
    asked = EmbeddingQAFinetuneDataset(queries={"q": "zzz"}, corpus=texts, relevant_docs={"q": ["d2"]})
    assert evaluate_embed_model(asked, model, ks=(1,), cache=None).mean("mrr@1") == 1.0


def run_compare(folder: Path):
    from llama_index_embft.cli.measure.compare import compare as command
    from llama_index_embft.cli.shared.command import add_command

    app = typer.Typer()
    add_command(app, command)
    return CliRunner().invoke(app, [str(folder / "base.json"), str(folder / "tuned.json"), "--resamples", "50"])


def seen_model(folder: Path, dataset: EmbeddingQAFinetuneDataset, n: int, use: str = "trained_on") -> Letters:
    from llama_index_embft.dataset.hashes import text_hashes

    folder.mkdir()
    part = dataset.subset(list(dataset.queries)[:n])
    (folder / "embft.json").write_text(json.dumps({use: text_hashes(part)}), "utf-8")
    return Letters(folder=str(folder))


@pytest.mark.parametrize("use", ["trained_on", "chosen_on"])
def test_b5_what_a_model_was_trained_on_is_seen_in_every_artefact(tmp_path: Path, use: str) -> None:
    dataset = numbered(30)
    base = evaluate_embed_model(dataset, Letters(), label="base", cache=None)
    tuned = evaluate_embed_model(dataset, seen_model(tmp_path / "m", dataset, 12, use), label="tuned", cache=None)
    assert not base.overlap
    assert tuned.overlap == {f"{use}_queries": 12, f"{use}_documents": 12}
    assert "12 of the 30 questions" in tuned.notes[-1]
    tuned.to_json(tmp_path / "tuned.json")
    base.to_json(tmp_path / "base.json")
    better = json.loads((tmp_path / "tuned.json").read_text("utf-8"))
    better["values"] = {name: [1.0] * 30 for name in better["values"]}
    worse = json.loads((tmp_path / "base.json").read_text("utf-8"))
    worse["values"] = {name: [0.0] * 30 for name in worse["values"]}
    (tmp_path / "tuned.json").write_text(json.dumps(better), "utf-8")
    (tmp_path / "base.json").write_text(json.dumps(worse), "utf-8")
    result = compare(tmp_path / "base.json", tmp_path / "tuned.json", n_resamples=500)
    assert result.decision == "not proven"
    assert "12 of these 30 questions" in result.verdict
    result.to_html(tmp_path / "r.html")
    shown = [(tmp_path / "r.html").read_text("utf-8"), result.to_markdown(), json.dumps(result.to_dict())]
    assert all("12 of these 30 questions" in text for text in shown)
    said = run_compare(tmp_path)
    assert "12 of these 30 questions" in " ".join(said.output.split())


def test_b5_the_overlap_is_found_inside_of_retrievers_and_engines(tmp_path: Path) -> None:
    dataset = numbered(20)
    model = seen_model(tmp_path / "m", dataset, 5)
    index = VectorStoreIndex([TextNode(id_=k, text=v) for k, v in dataset.corpus.items()], embed_model=model)
    retriever = index.as_retriever(similarity_top_k=10)
    assert evaluate_retriever(dataset, retriever).overlap["trained_on_queries"] == 5
    engine = index.as_query_engine(llm=MockLLM(), similarity_top_k=10)
    assert evaluate_query_engine(dataset, engine).overlap["trained_on_queries"] == 5
    # Case, space and punctuation do not hide a question.
    shouted = EmbeddingQAFinetuneDataset(
        **dataset.model_dump() | {"queries": {k: f"  {v.upper()}!" for k, v in dataset.queries.items()}}
    )
    assert evaluate_retriever(shouted, retriever).overlap["trained_on_queries"] == 5


def prose(seed: int, words: int = 200) -> list[str]:
    return [f"w{n}" for n in np.random.default_rng(seed).integers(0, 50_000, words)]


def about(texts: dict[str, str]) -> EmbeddingQAFinetuneDataset:
    return EmbeddingQAFinetuneDataset(
        queries={f"q{doc}": f"what of {doc}" for doc in texts},
        corpus=texts,
        relevant_docs={f"q{d}": [d] for d in texts},
    )


def test_b5_documents_that_nearly_repeat_those_of_training_are_seen(tmp_path: Path) -> None:
    trained = {f"a{n}": " ".join(prose(n)) for n in range(40)}
    folder = tmp_path / "m"
    seen_model(folder, about(trained), 40)
    edited = {}
    for n in range(40):  # a page number, a date and a word are others, as in a new edition
        words = trained[f"a{n}"].split()
        words[10], words[60], words[-1] = "new", "2027", "page"
        edited[f"b{n}"] = " ".join(words)
    # Forms: three fifths of the words in a row are the same, and they say different things.
    forms = {f"c{n}": " ".join([*prose(n)[:120], *prose(1000 + n, 80)]) for n in range(40)}
    report = evaluate_embed_model(about(edited | forms), Letters(folder=str(folder)), cache=None)
    assert report.overlap == {"trained_on_documents": 40}
    assert "40 of the 80 documents that answer them (or near-duplicates)" in report.notes[-1]


def test_b5_questions_that_differ_in_a_name_are_not_taken_for_seen(tmp_path: Path) -> None:
    words = (
        "What was the total revenue from the {} segment in the United States for the year that ended in December 2021"
    )
    dataset = numbered(2)
    parts = [
        EmbeddingQAFinetuneDataset(
            **dataset.model_dump() | {"queries": dict.fromkeys(dataset.queries, words.format(name))}
        )
        for name in ("Mobility", "Delivery")
    ]
    model = seen_model(tmp_path / "m", parts[0], 2)
    assert "trained_on_queries" not in evaluate_embed_model(parts[1], model, cache=None).overlap


def test_b5_the_record_of_what_was_seen_is_small(tmp_path: Path) -> None:
    model = seen_model(tmp_path / "m", about({f"d{n}": " ".join(prose(n)) for n in range(300)}), 300)
    assert (Path(model.folder) / "embft.json").stat().st_size < 300 * 160


def test_b5_a_model_that_only_names_the_whole_training_set_is_seen_too(tmp_path: Path) -> None:
    dataset = numbered(10)
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "embft.json").write_text(json.dumps({"data": {"train_hash": dataset.content_hash()}}), "utf-8")
    report = evaluate_embed_model(dataset, Letters(folder=str(tmp_path / "m")), cache=None)
    assert report.overlap["trained_on_queries"] == 10
    (tmp_path / "m" / "embft.json").write_text("[1]", "utf-8")  # not a record
    assert not evaluate_embed_model(dataset, Letters(folder=str(tmp_path / "m")), cache=None).overlap


def two_queries(**fields) -> RetrievalReport:
    judged = {"a": {"1": 1}, "b": {"2": 1}}
    report = evaluate_run(judged, {"a": {"1": 1.0, "2": 0.5}, "b": {"2": 1.0, "1": 0.5}}, ks=(1, 2))
    return replace(report, **fields)


def test_b5_what_was_seen_stays_known_when_runs_are_fused_and_re_ranked() -> None:
    dataset = EmbeddingQAFinetuneDataset(
        queries={"a": "x y", "b": "z w"}, corpus={"1": "one", "2": "two"}, relevant_docs={"a": ["1"], "b": ["2"]}
    )
    seen = two_queries(overlap={"trained_on_queries": 2}, folds=3)
    fused = fuse_runs([two_queries(), seen])
    ranked = rerank_run(dataset, seen, lambda _, texts: [1.0] * len(texts))
    for made in (fused, ranked):
        assert (made.overlap, made.folds) == ({"trained_on_queries": 2}, 3)


def test_c3_fused_runs_say_which_queries_failed() -> None:
    failed = two_queries(errors={"b": "TimeoutError: read"}, hit_ids=(("1",), ()), hit_scores=((1.0,), ()))
    assert fuse_runs([failed, failed]).errors == {"b": "TimeoutError: read"}
    half = fuse_runs([two_queries(), failed])
    assert half.errors == {}
    assert any(
        "1 queries failed and stand on other hits alone (first: 'b': TimeoutError" in note for note in half.notes
    )


def test_e14_a_report_with_an_infinite_score_can_be_saved(tmp_path: Path) -> None:
    judged = {"a": {"1": 1}, "b": {"2": 1}}
    report = evaluate_run(judged, {"a": {"1": float("inf"), "2": 0.5}, "b": {"2": 1.0}}, ks=(1,))
    assert report.mean("ndcg@1") == 1.0
    assert report.hit_scores == ((), (1.0,))
    assert any("1 queries have scores that are no finite numbers" in note for note in report.notes)
    report.to_json(tmp_path / "r.json")
    assert RetrievalReport.from_json(tmp_path / "r.json").hit_ids == report.hit_ids


def test_e4_errors_of_a_retriever_are_kept_without_secrets(tmp_path: Path) -> None:
    class Refused(Fixed):
        def _retrieve(self, query_bundle):
            if "second" in query_bundle.query_str:
                raise RuntimeError("401 for http://bob:hunter2canary@host/v1?code=functioncanary8")
            return super()._retrieve(query_bundle)

    dataset = EmbeddingQAFinetuneDataset(
        queries={"a": "first", "b": "second"}, corpus={"1": "one"}, relevant_docs={"a": ["1"], "b": ["1"]}
    )
    report = evaluate_retriever(dataset, Refused(TextNode(id_="1", text="one")), ks=(1,))
    report.to_json(tmp_path / "r.json")
    compare(report, replace(report, label="other"), n_resamples=100).to_html(tmp_path / "c.html")
    assert "401 for http" in report.errors["b"]
    for path in tmp_path.iterdir():
        assert "canary" not in path.read_text("utf-8")


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.2])
def test_b4_the_interval_is_of_the_level_that_is_asked_for(alpha: float) -> None:
    rng = np.random.default_rng(0)
    results = paired_tests(rng.normal(0.4, 1.0, size=(40, 300)) * 0.2, n_resamples=2000, alpha=alpha)
    outside = [result.interval[0] > 0 or result.interval[1] < 0 for result in results]
    assert outside == [result.p < alpha for result in results]
    assert 0 < sum(outside) < len(results)


def test_b4_every_artefact_names_the_level_of_its_interval(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    judged = {f"q{n}": {f"d{n}": 1} for n in range(40)}
    base, tuned = (
        evaluate_run(judged, {f"q{n}": {f"d{n}": 1.0, "x": rng.normal(1, 1)} for n in range(40)}, ks=(1,), label=label)
        for label in ("base", "tuned")
    )
    result = compare(base, tuned, alpha=0.1, n_resamples=500)
    result.to_html(tmp_path / "c.html")
    for shown in (result.verdict, result.to_markdown(), (tmp_path / "c.html").read_text("utf-8")):
        assert "90 % interval" in shown
        assert "95 % interval" not in shown


def test_b9_what_was_shown_on_these_documents_stands_in_the_report() -> None:
    corpus = {f"d{n}": f"text {n}" for n in range(40)}
    dataset = EmbeddingQAFinetuneDataset(
        queries={f"q{n}": f"question {n}" for n in range(40)},
        corpus=corpus,
        relevant_docs={f"q{n}": [f"d{n}"] for n in range(40)},
        source_documents=dict.fromkeys(corpus, "only.pdf"),
    )
    good = evaluate_run(dataset, {f"q{n}": {f"d{n}": 1.0} for n in range(40)}, ks=(1,), label="good")
    bad = evaluate_run(dataset, {f"q{n}": {f"d{(n + 1) % 40}": 1.0} for n in range(40)}, ks=(1,), label="bad")
    result = compare(good, bad, n_resamples=500)
    (system,) = result.to_dict()["systems"]
    assert result.decision == "do not adopt"
    assert system["on_these"]["difference"] == -1.0
    assert system["on_these"]["clusters"] == 40
    assert system["on_these"]["p"] < 0.05


@pytest.mark.parametrize("wanted", ["NDCG@10", "ndcg@20", "mrr", ""])
def test_b8_an_unknown_primary_metric_is_refused(wanted: str) -> None:
    dataset = numbered(12)
    report = evaluate_embed_model(dataset, Letters(), cache=None)
    with pytest.raises(EvaluationError, match="`primary` is") as refused:
        compare(report, report, primary=wanted)
    assert "ndcg@10" in str(refused.value)


def test_b8_another_deciding_metric_than_usual_is_said() -> None:
    report = evaluate_embed_model(numbered(12), Letters(), ks=(1, 5), cache=None)
    result = compare(report, report, n_resamples=20)
    assert result.primary == "ndcg@5"
    assert "The reports have no ndcg@10; ndcg@5 decides." in result.notes


def test_b9_one_record_feeds_every_artefact(tmp_path: Path) -> None:
    dataset = numbered(12)
    base = evaluate_embed_model(dataset, Letters(), label="base", cache=None)
    kept = compare(base, base, n_resamples=20).amended(
        decision="do not adopt",
        reasons=["The base was kept: a reason."],
        notes=["A warning."],
        command="embft run docs",
    )
    kept.to_html(tmp_path / "r.html")
    kept.to_json(tmp_path / "r.json")
    content = json.loads((tmp_path / "r.json").read_text("utf-8"))
    assert content["decision"] == kept.decision == "do not adopt"
    assert kept.regressed()
    assert content["reasons"][0] == "The base was kept: a reason."
    assert content["warnings"] == list(kept.notes)
    assert content["command"] == "embft run docs"
    assert content["data"]["hash"] == base.data_hash
    assert "llama-index-embft" in content["versions"]
    page = (tmp_path / "r.html").read_text("utf-8")
    for text in (
        "Do not adopt",
        "The base was kept: a reason.",
        "A warning.",
        "embft run docs",
        base.data_hash,
        kept.date,
    ):
        assert text in page
    assert "The base was kept: a reason." in kept.to_markdown()


def test_b9_a_time_that_is_the_caches_is_no_time_of_the_model(tiny_model_path: str, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    from llama_index_embft.embeddings.encoding.cache import EmbeddingCache

    dataset, model, cache = (
        numbered(12),
        SentenceTransformer(tiny_model_path, device="cpu"),
        EmbeddingCache(tmp_path / "cache"),
    )
    first, second = (evaluate_embed_model(dataset, model, cache=cache).seconds for _ in range(2))
    assert "encode" in first
    assert "encode" not in second


class LastCallFails(BaseEvaluator):
    """A judge whose last call fails."""

    calls: int = 0

    def _get_prompts(self):
        return {}

    def _update_prompts(self, prompts) -> None:
        pass

    async def aevaluate(self, query=None, response=None, contexts=None, **more):
        type(self).calls += 1
        if type(self).calls == 20:
            raise TimeoutError("read timed out")
        return EvaluationResult(score=1.0)


def test_c3_answers_and_verdicts_survive_a_judge_that_fails_late() -> None:
    dataset = numbered(20)
    nodes = [TextNode(id_=k, text=v) for k, v in dataset.corpus.items()]
    index = VectorStoreIndex(nodes, embed_model=MockEmbedding(embed_dim=4))
    engine = index.as_query_engine(llm=MockLLM(), similarity_top_k=10)
    report = evaluate_query_engine(dataset, engine, judges={"faithfulness": LastCallFails()})
    assert report.values["faithfulness"].sum() == 19
    assert all(report.answers)
    assert "no score for 1 answers (first: TimeoutError: read timed out)" in report.notes[-1]


def test_c3_a_judges_worst_mark_is_not_taken_for_its_best() -> None:
    class Five(LastCallFails):
        async def aevaluate(self, query=None, **more):
            return EvaluationResult(score=1.0 if query.endswith("0?") else 5.0)

    dataset = numbered(20)
    nodes = [TextNode(id_=k, text=v) for k, v in dataset.corpus.items()]
    engine = VectorStoreIndex(nodes, embed_model=MockEmbedding(embed_dim=4)).as_query_engine(
        llm=MockLLM(), similarity_top_k=10
    )
    values = evaluate_query_engine(dataset, engine, judges={"correctness": Five()}).values["correctness"]
    assert values.tolist() == [0.0 if i % 10 == 0 else 1.0 for i in range(20)]


HOSTILE = "Hello \x1b]52;c;cm0gLXJm\x1b\\ \x1b[2J\x9b31m w\x07orld \u202e [red]x[/]\r"


def test_d12_texts_reach_the_terminal_without_control_sequences(tmp_path: Path) -> None:
    import io

    from llama_index_embft._core.terminal import SafeConsole, plain_text

    assert plain_text("a\tb\n公司 é 👩‍👩‍👧") == "a\tb\n公司 é 👩‍👩‍👧"
    file = io.StringIO()
    console = SafeConsole(file=file, force_terminal=True, width=100)
    from rich.table import Table
    from rich.text import Text

    table = Table(HOSTILE)
    table.add_row(Text(HOSTILE, style="bold"))
    console.print(HOSTILE, markup=False)
    console.print(Text(HOSTILE), table)
    shown = file.getvalue()
    assert "Hello" in shown
    assert "orld" in shown
    assert "\x1b[1m" in shown  # its own styles stay
    for bad in ("\x1b]", "52;c", "\x1b[2J", "\x9b", "\x07", "\u202e", "\r"):
        assert bad not in shown
    dataset = numbered(12)
    for name in ("base", "tuned"):
        evaluate_embed_model(dataset, Letters(), label=f"{name} {HOSTILE}", cache=None).to_json(
            tmp_path / f"{name}.json"
        )
    said = run_compare(tmp_path)
    assert said.exit_code == 0, said.output
    assert "\x1b]" not in said.output
    assert "\u202e" not in said.output


DAMAGE = [
    ("[" * 100_000, "not JSON"),
    ("{", "not JSON"),
    ("3", "not a retrieval report"),
    (("errors", [1]), "damaged"),
    (("values", []), "damaged"),
    (("queries", 7), "damaged"),
    (("overlap", 3), "damaged"),
    (("depth", "x" * 9), "damaged report .depth"),
    (("values", {"ndcg@10": [1e400] * 3}), "not a number in"),
    (("queries", [{"id": 1}]), "damaged"),
]


@pytest.mark.parametrize(("change", "said"), DAMAGE)
def test_e12_a_damaged_report_is_one_sentence(tmp_path: Path, change, said) -> None:
    path = tmp_path / "r.json"
    if isinstance(change, str):
        path.write_text(change, "utf-8")
    else:
        evaluate_embed_model(numbered(3), Letters(), cache=None).to_json(path)
        content = json.loads(path.read_text("utf-8"))
        content[change[0]] = change[1]
        path.write_text(json.dumps(content), "utf-8")
    with pytest.raises(EvaluationError, match=said):
        RetrievalReport.from_json(path)


def test_e16_ids_in_a_csv_are_no_formulas(tmp_path: Path) -> None:
    evil = "=cmd|' /C calc'!A0"
    dataset = EmbeddingQAFinetuneDataset(
        queries={evil: "x", "-5": "y", "@SUM(1)": "z"},
        corpus={"d": "t"},
        relevant_docs={query: ["d"] for query in (evil, "-5", "@SUM(1)")},
    )
    evaluate_embed_model(dataset, Letters(), cache=None).to_csv(tmp_path / "r.csv")
    lines = (tmp_path / "r.csv").read_text("utf-8").splitlines()[1:]
    assert [line[:2].strip('"') for line in lines] == ["'=", "-5", "'@"]
