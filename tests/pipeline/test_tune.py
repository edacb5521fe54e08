"""The best retriever for some documents, by a tiny model, from all that `tune` takes: what is found and handed over."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
import time

import pytest
from llama_index.core import Document, VectorStoreIndex
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import TextNode

from llama_index_embft import (
    EmbeddingQAFinetuneDataset,
    compare,
    evaluate_retriever,
    load_embed_model,
    load_retriever,
    tune,
)
from llama_index_embft.errors import ConfigError, DatasetError, EmbftError, ModelError
from llama_index_embft.pipeline.trained.candidates import methods_for
from llama_index_embft.retrievers import LateInteractionReranker

SUBJECTS = ["harbour", "violin", "glacier", "printer", "orchard", "volcano", "lighthouse", "tractor"]
PLACES = ["Norway", "Chile", "Kenya", "Japan", "Malta", "Peru", "Estonia", "Canada", "Nepal", "Portugal"]


def sentences(n, seed=0):
    rng = random.Random(seed)
    for number in range(n):
        subject, place = rng.choice(SUBJECTS), rng.choice(PLACES)
        yield (
            f"The {subject} of {place} number {number} was finished in {rng.randint(1850, 2020)} because the people "
            f"of {place} needed a {subject} with {rng.randint(3, 99)} rooms. It stands near the "
            f"{rng.choice(SUBJECTS)} and costs {rng.randint(10, 900)} million dollars a year."
        )


@pytest.fixture
def labelled():
    """Sixty chunks of fifteen documents, and a question with words of its passage about each of 48."""
    corpus = {f"c{n:02}": text for n, text in enumerate(sentences(60))}
    asked = list(corpus)[:48]
    return EmbeddingQAFinetuneDataset(
        queries={f"q{c}": "When was the " + " ".join(corpus[c].split()[1:6]) + " finished?" for c in asked},
        corpus=corpus,
        relevant_docs={f"q{c}": [c] for c in asked},
        source_documents={c: f"d{n // 4}" for n, c in enumerate(corpus)},
    )


@pytest.fixture
def found(labelled, tiny_model_path):
    return tune(labelled, model=tiny_model_path, methods="none", show_progress=False)


def test_the_stack_that_people_s_questions_prove_is_handed_over(found, labelled):
    assert found.decision == "adopt"
    assert found.chosen.weight <= 0.5  # random weights find little, and the questions share words with their passages
    assert found.comparison.systems[0].report.folds == 5
    assert len(found.proof["chosen"].query_ids) == len(labelled.queries)
    assert {row.name for row in found.rows} >= {"base", "BM25"}
    # What is handed over scores as was measured on the questions that chose.
    handed = evaluate_retriever(labelled, found.retriever(similarity_top_k=10))
    row = max((row for row in found.rows if row.score is not None), key=lambda row: row.score)
    assert handed.mean("ndcg@10") == pytest.approx(row.score, abs=1e-9)


def test_it_is_saved_and_loaded_over_an_index_of_its_own(found, labelled, tmp_path):
    saved = found.save(tmp_path / "out")
    assert saved.folder == tmp_path / "out"
    files = {str(path.relative_to(saved.folder)) for path in saved.folder.rglob("*") if path.is_file()}
    assert {"report.html", "report.json", "tune.json", "model/embft.json", "retriever/embft.json"} <= files
    record = json.loads((saved.folder / "tune.json").read_text())
    assert record["decision"] == json.loads((saved.folder / "report.json").read_text())["decision"] == "adopt"
    assert record["questions"]["proven_on_by"] == "people"
    nodes = [TextNode(id_=doc, text=text) for doc, text in labelled.corpus.items()]
    index = VectorStoreIndex(nodes, embed_model=load_embed_model(saved.folder / "model"))
    loaded = load_retriever(saved.folder / "retriever", index)
    question = labelled.queries["qc07"]
    before = [hit.node.node_id for hit in found.retriever().retrieve(question)]
    assert [hit.node.node_id for hit in loaded.retrieve(question)] == before
    assert before[0] == "c07"


def test_an_index_is_searched_as_it_is_and_what_is_added_later_is_found(labelled, tiny_model_path, tmp_path):
    nodes = [TextNode(id_=doc, text=text) for doc, text in labelled.corpus.items()]
    index = VectorStoreIndex(nodes, embed_model=load_embed_model(tiny_model_path))
    result = tune(index, questions=labelled, methods="none", show_progress=False)
    assert not result.reembeds
    retriever = result.retriever(index)
    index.storage_context.persist(tmp_path / "stored")
    stored = tune([tmp_path / "stored"], model=tiny_model_path, questions=labelled, methods="none", show_progress=False)
    assert stored.chosen.label == result.chosen.label
    assert stored.source.words == "an index of 60 chunks"
    with pytest.raises(ModelError, match="holds another vector for the node"):  # the same size, and not its own
        tune(index, model=load_embed_model(tiny_model_path, document_prompt="passage of another model: "))
    index.insert_nodes([TextNode(id_="new", text="The xylophone of Bhutan was finished in 1777.")])
    assert retriever.retrieve("xylophone Bhutan 1777")[0].node.node_id == "new"


def test_without_questions_nothing_counts_as_proven(tiny_model_path, tmp_path):
    texts = list(sentences(80))
    documents = [Document(text="\n\n".join(texts[n : n + 8]), id_=f"d{n}") for n in range(0, 80, 8)]
    usual = tune(documents, model=tiny_model_path, show_progress=False)
    assert usual.rows[-1].name == "trained"
    assert usual.rows[-1].note.startswith("left out: beside BM25, training on questions from the text gained nothing")
    assert not usual.reembeds
    methods = ["adapter", "full"]
    result = tune(documents, model=tiny_model_path, methods=methods, output_path=tmp_path / "out", show_progress=False)
    assert result.decision == "not proven"
    assert "No questions by people were given" in result.comparison.verdict
    assert "Significant gain" not in result.comparison.verdict
    assert result.comparison.chosen == f"chosen ({result.chosen.label})"
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert ": handed over all the same" in page
    assert ": keep <span" not in page
    assert 0 <= result.copied_share <= 1
    assert 0 < result.chosen.weight < 1
    assert {row.name for row in result.rows} >= {"base", "BM25", "adapter", "full"}
    assert result.retriever().retrieve("When was the violin of Chile finished?")
    assert (tmp_path / "out" / "dataset" / "train.json").is_file()


def test_text_without_a_sentence_gets_the_mixture_at_equal_weight_and_a_note(tiny_model_path):
    lists = [
        Document(text="\n".join(f"{name}{n} {n * row}" for row, name in enumerate("abc")), id_=f"d{n}")
        for n in range(9)
    ]
    result = tune(lists, model=tiny_model_path, methods="none", show_progress=False)
    assert (result.decision, result.chosen.weight, result.copied_share) == ("not proven", 0.5, None)
    assert any("hold no sentence that a question could be made from" in note for note in result.comparison.notes)
    with pytest.raises(EmbftError, match="No question of the kind pattern"):
        tune(lists[:1], model=tiny_model_path, methods="none", show_progress=False)


def test_questions_of_a_data_set_that_an_llm_made_are_not_taken_for_people_s(labelled, tiny_model_path):
    made = labelled.replace(provenance={"made_by": "llm"})
    result = tune(made, model=tiny_model_path, methods="none", show_progress=False)
    assert (result.evidence.proof_by, result.realism is None) == ("llm", False)
    assert any("written by an LLM" in note for note in result.comparison.notes)
    given = tune(labelled.subset([]), questions=made, model=tiny_model_path, methods="none", show_progress=False)
    assert given.evidence.proof_by == "llm"


def test_a_report_names_what_the_questions_are(labelled, tiny_model_path, found):
    assert found.comparison.data.endswith("48 questions that people asked")
    named = labelled.replace(provenance={"made_by": "titles of tickets"})
    result = tune(named, model=tiny_model_path, methods="none", show_progress=False)
    assert result.comparison.data.endswith("48 questions (titles of tickets)")


class Broken:
    """A reranker that gives up in the middle."""

    def __init__(self, after):
        self.left = after

    def __call__(self, query, texts):
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("out of memory")
        return [float(-len(text)) for text in texts]


class BrokenPostprocessor(BaseNodePostprocessor):
    """The same as a node postprocessor, whose scores are not kept: it fails while the choice is proven."""

    left: int

    def _postprocess_nodes(self, nodes, query_bundle=None):
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("out of memory")
        return nodes[::-1]


class Shortener(BaseNodePostprocessor):
    """Somebody's own postprocessor: it gives no scores."""

    def _postprocess_nodes(self, nodes, query_bundle=None):
        return nodes[:20]


@pytest.mark.parametrize("reranker", [Broken(5), BrokenPostprocessor(left=60)])
def test_a_reranker_that_fails_is_left_out_and_said(labelled, tiny_model_path, reranker):
    result = tune(labelled, model=tiny_model_path, methods="none", reranker=reranker, show_progress=False)
    assert result.decision == "adopt"
    assert not result.chosen.reranked
    assert any("reranker failed" in note and "out of memory" in note for note in result.comparison.notes)
    assert result.rows[-1].name == "reranker"


def test_a_reranker_that_helps_is_kept(labelled, tiny_model_path):
    # Several passages are about each of these, so words alone cannot tell which is meant.
    vague = {q: " ".join(query.split()[2:6]) for q, query in labelled.queries.items()}
    labelled = labelled.replace(queries={q: f"{text} {n % 7}?" for n, (q, text) in enumerate(vague.items())})
    numbers = {query: labelled.corpus[labelled.relevant_docs[q][0]] for q, query in labelled.queries.items()}

    def knows(query, texts):
        return [float(text == numbers[query]) for text in texts]

    result = tune(labelled, model=tiny_model_path, methods="none", reranker=knows, show_progress=False)
    assert result.chosen.reranked
    assert "reranked" in result.chosen.label
    assert 0 < result.chosen.rerank_weight <= 1
    assert result.reranker.weight == result.chosen.rerank_weight
    assert not result.reranker.remember  # the search remembers scores, a server does not


@pytest.mark.usefixtures("few_train")
def test_a_reranker_is_trained_and_saved_with_the_stack(labelled, tiny_model_path, tmp_path, monkeypatch):
    from llama_index_embft.pipeline import choice

    monkeypatch.setattr(choice, "best_of", lambda scores: len(scores) - 1)  # the dearest, whatever it scores
    options = {"model": tiny_model_path, "methods": "none", "reranker": "train", "show_progress": False}
    result = tune(labelled, **options, output_path=tmp_path / "out")
    assert result.chosen.reranked
    folder = tmp_path / "out" / "retriever" / "reranker"
    assert (folder / "model.safetensors").is_file()
    assert any("The reranker adds to each question" in note for note in result.comparison.notes)
    loaded = result.reloaded()
    assert loaded.reranker.weight == result.chosen.rerank_weight
    query = next(iter(labelled.queries.values()))
    expected = [hit.node.node_id for hit in result.retriever().retrieve(query)]
    assert [hit.node.node_id for hit in loaded.retrieve(query)] == expected


def test_the_model_in_use_reranks_token_by_token(labelled, tiny_model_path, tmp_path, monkeypatch):
    from llama_index_embft.pipeline import choice

    monkeypatch.setattr(choice, "best_of", lambda scores: len(scores) - 1)  # the dearest, whatever it scores
    options = {"model": tiny_model_path, "methods": "none", "reranker": "late-interaction", "show_progress": False}
    result = tune(labelled, **options, output_path=tmp_path / "out")
    assert isinstance(result.reranker, LateInteractionReranker)
    assert result.reranker.weight == result.chosen.rerank_weight > 0
    assert result.rows[-1].name.endswith(f"reranked {result.chosen.rerank_weight:.0%}")
    assert any("hits that it has in memory it is" in note for note in result.comparison.notes)
    query = next(iter(labelled.queries.values()))
    expected = [(hit.node.node_id, hit.score) for hit in result.retriever().retrieve(query)]
    assert [(hit.node.node_id, hit.score) for hit in result.reloaded().retrieve(query)] == expected


def test_a_reranker_that_takes_longer_than_the_budget_is_left_out(labelled, tiny_model_path):
    def slow(_query, texts):
        time.sleep(1)
        return [0.0] * len(texts)

    started = time.monotonic()
    result = tune(labelled, model=tiny_model_path, methods="none", reranker=slow, budget="30 s", show_progress=False)
    assert not result.chosen.reranked
    row = next(row for row in result.rows if row.name == "reranker")
    assert "left out: reading the hits of 96 questions takes about" in row.note
    assert time.monotonic() - started < 30


def test_too_few_questions_train_no_reranker_and_that_is_said(labelled, tiny_model_path):
    result = tune(labelled, model=tiny_model_path, methods="none", reranker="train", show_progress=False)
    assert not result.chosen.reranked
    row = next(row for row in result.rows if row.name == "reranker")
    assert "left out: a reranker learns from what people asked" in row.note


@pytest.mark.parametrize(("reranker", "message"), [(7, "`reranker` is a int"), ("no/such/model", "does not exist")])
def test_a_reranker_that_is_none_is_refused_before_the_work(reranker, message, labelled, tiny_model_path):
    with pytest.raises(EmbftError, match=message):
        tune(labelled, model=tiny_model_path, reranker=reranker, show_progress=False)


@pytest.fixture
def few_train(monkeypatch):
    """So few questions by people are enough to train on, and no share of copied sentences speaks against it."""
    from llama_index_embft.pipeline import evidence

    monkeypatch.setattr(evidence, "_ENOUGH_TO_TRAIN", 24)
    monkeypatch.setattr(evidence, "_ENOUGH_DOCUMENTS", 2)


@pytest.mark.usefixtures("few_train")
def test_a_reranker_teaches_and_the_table_shows_what_each_step_brought(labelled, tiny_model_path, tmp_path):
    answers = {query: labelled.corpus[labelled.relevant_docs[q][0]] for q, query in labelled.queries.items()}
    asked = []

    def knows(query, texts):
        asked.append((query, len(texts)))
        return [4.0 * (text == answers[query]) for text in texts]

    said = []
    options = {"model": tiny_model_path, "methods": ["distill"], "reranker": knows, "show_progress": False}
    result = tune(labelled, **options, watch=lambda status: said.append(status.doing), output_path=tmp_path / "out")
    names = [row.name for row in result.rows if row.score is not None]
    assert names.index("distilled") > max(n for n, name in enumerate(names) if "reranked" in name)
    assert methods_for("distill", result.base, reranker=knows) == ("full", "distill")
    assert any(name.startswith("The reranker judges passages of") for name in said)
    assert any(n == 1 for _, n in asked)  # single pairs were judged, beside the lists that are put in order
    record = json.loads((tmp_path / "out" / "tune.json").read_text())
    assert "distilled" in [row["name"] for row in record["candidates"]]


@pytest.mark.usefixtures("few_train")
def test_a_teacher_that_fails_is_left_out_and_one_that_cannot_teach_is_said(labelled, tiny_model_path):
    def one_at_a_time(_query, texts):
        if len(texts) == 1:
            raise RuntimeError("one text is not enough")
        return [0.0] * len(texts)

    options = {"model": tiny_model_path, "methods": ["distill"], "show_progress": False}
    result = tune(labelled, **options, reranker=one_at_a_time)
    assert result.rows[-1].note == "failed: one text is not enough"
    assert any("Training by distill failed" in note for note in result.comparison.notes)
    result = tune(labelled, **options, reranker=Shortener())
    assert "left out: it learns from scores of single pairs, which Shortener does not give" in result.rows[-1].note
    with pytest.raises(ConfigError, match="`methods` asks for 'distill', which learns from a reranker; name one"):
        tune(labelled, **options)


def test_each_candidate_is_printed_once_in_columns(labelled, tiny_model_path):
    from io import StringIO

    from llama_index_embft._core.terminal import SafeConsole
    from llama_index_embft.pipeline.status import printed_to

    to = StringIO()
    console = SafeConsole(file=to, width=200)
    result = tune(labelled, model=tiny_model_path, methods="none", show_progress=False, watch=printed_to(console))
    lines = to.getvalue().splitlines()
    assert sum("nDCG@10" in line and "found in 10" in line for line in lines) == 1
    for row in result.rows:
        (line,) = [line for line in lines if line.startswith(f"{'':9}{row.name:<36}")]
        assert f"{row.score:.3f}" in line
    names = [row.name for row in result.rows]
    assert names[-2:] == ["base + BM25 by RRF", "base + BM25 by DBSF"]  # as others mix; learnt weights have rivals


def test_bad_input_is_one_sentence(labelled, tiny_model_path, tmp_path, monkeypatch):
    monkeypatch.setenv("EMBFT_CACHE_DIR", str(tmp_path / "empty"))  # what was embedded before costs nothing
    with pytest.raises(ConfigError, match="`budget` is 1 s, and embedding 60 chunks alone takes about"):
        tune(labelled, model=tiny_model_path, budget=1e-6, show_progress=False)
    with pytest.raises(ConfigError, match="`methods` names 'nudge'"):
        tune(labelled, model=tiny_model_path, methods="nudge", show_progress=False)
    with pytest.raises(ConfigError, match="`source` is a int"):
        tune(7, model=tiny_model_path, show_progress=False)
    with pytest.raises(ConfigError, match="`source` is empty"):
        tune([], model=tiny_model_path, show_progress=False)
    gone = labelled.replace(corpus={doc: f"{doc} says something else entirely now" for doc in labelled.corpus})
    with pytest.raises(DatasetError, match="None of the 48 questions is about these documents"):
        tune(labelled, model=tiny_model_path, questions=gone, show_progress=False)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(Exception, match=r"notes\.txt"):
        tune(labelled, model=tiny_model_path, output_path=tmp_path / "mine", show_progress=False)


def test_two_searches_do_not_write_to_one_folder(labelled, tiny_model_path, tmp_path):
    def second(status):
        if "Proving" in status.doing:
            with pytest.raises(ConfigError, match="Another search is writing to"):
                tune(labelled, model=tiny_model_path, output_path=tmp_path / "o", show_progress=False)
            seen.append(status.doing)

    seen = []
    tune(labelled, model=tiny_model_path, methods="none", output_path=tmp_path / "o", watch=second)
    assert seen


def test_an_interrupted_search_goes_on_with_what_it_trained(labelled, tiny_model_path, monkeypatch):
    def watch(status):
        if status.doing == "Trying the reranker":
            raise KeyboardInterrupt

    # Of sixty chunks even random weights find most by a copied sentence, and nothing would be trained.
    monkeypatch.setattr("llama_index_embft.pipeline.no_labels._NOTHING_TO_GAIN", 1.1)

    options = {"model": tiny_model_path, "methods": "adapter", "reranker": lambda q, t: [0.0] * len(t)}
    with pytest.raises(KeyboardInterrupt):
        tune(labelled, **options, watch=watch, show_progress=False)
    monkeypatch.setattr("llama_index_embft.pipeline.trained.engines.make_engine", None)  # nothing is trained again
    result = tune(labelled, **options, show_progress=False)
    assert any(row.name == "adapter" and row.score is not None for row in result.rows)


def test_a_trained_result_that_was_saved_is_saved_again_elsewhere(labelled, tiny_model_path, tmp_path, monkeypatch):
    from llama_index_embft.pipeline import choice

    monkeypatch.setattr("llama_index_embft.pipeline.no_labels._NOTHING_TO_GAIN", 1.1)
    monkeypatch.setattr(choice, "best_of", lambda scores: len(scores) - 1)  # the dearest, whatever it scores
    options = {"model": tiny_model_path, "methods": "adapter", "show_progress": False}
    result = tune(labelled, **options, budget="1 h", output_path=tmp_path / "one")
    assert result.chosen.model.folder == tmp_path / "one" / "model"
    result.save(tmp_path / "two")
    assert (tmp_path / "two" / "model" / "embft.json").is_file()
    shutil.rmtree(tmp_path / "one")
    with pytest.raises(ModelError, match="The trained model of this result is gone"):
        result.save(tmp_path / "three")
    assert not (tmp_path / "three").exists()
    record = json.loads((tmp_path / "two" / "tune.json").read_text())
    assert record["asked"] == {"methods": ["adapter"], "budget": 3600.0, "seed": 0}
    assert record["versions"]
    assert "rerank_weight" in record["stack"]


def test_a_model_that_needs_new_vectors_must_be_better_than_what_needs_none(labelled, tiny_model_path, monkeypatch):
    from llama_index_embft.pipeline.choice import Choosing

    final, proof = Choosing.final, Choosing.proof
    monkeypatch.setattr("llama_index_embft.pipeline.no_labels._NOTHING_TO_GAIN", 1.1)

    def needs_new_vectors(self, **options):
        stack = final(self, **options)
        return stack if options else dataclasses.replace(stack, model=self.furthest)

    def no_better_than_the_mixture(self, **options):
        found = proof(self, **options)
        return found if options else {**found, "chosen": dataclasses.replace(found["chosen"], label="chosen (full)")}

    monkeypatch.setattr(Choosing, "final", needs_new_vectors)
    monkeypatch.setattr(Choosing, "proof", no_better_than_the_mixture)
    result = tune(labelled, model=tiny_model_path, methods="full", show_progress=False)
    assert (
        compare(result.proof["base"], result.proof["dearer"]).decision == "adopt"
    )  # it is better than the model in use
    assert not result.reembeds
    assert any("is not proven to be better than the best stack over" in note for note in result.comparison.notes)


def test_what_is_not_proven_and_needs_new_vectors_gives_way_to_what_does_not(labelled, tiny_model_path, monkeypatch):
    from llama_index_embft.pipeline import choice

    monkeypatch.setattr("llama_index_embft.pipeline.no_labels._NOTHING_TO_GAIN", 1.1)
    monkeypatch.setattr(choice, "best_of", lambda scores: len(scores) - 1)  # the dearest, whatever it scores
    real = choice.Choosing.proof

    def no_better(self, **options):
        found = real(self, **options)
        return found if options else {**found, "chosen": dataclasses.replace(found["base"], label="chosen (full)")}

    monkeypatch.setattr(choice.Choosing, "proof", no_better)
    result = tune(labelled, model=tiny_model_path, methods="full", show_progress=False)
    assert not result.reembeds
    # The verdict and the cost are about what is handed over, and the other one is tested beside it.
    first, second = result.comparison.systems
    assert first.label == f"chosen ({result.chosen.label})"
    assert first.cost.texts == 0
    assert second.label == "dearer: chosen (full)"
    assert any("is not proven to be better" in note for note in result.comparison.notes)
