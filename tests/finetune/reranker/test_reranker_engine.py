"""A reranker is trained on what the first stage finds, and is never worse than what was there before."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from llama_index.core.postprocessor import SentenceTransformerRerank
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from safetensors.torch import load_file

from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
from llama_index_embft.errors import ConfigError, DatasetError, ModelError, TrainingError
from llama_index_embft.finetune import (
    CandidateSettings,
    HardwareSettings,
    LoraSettings,
    RerankerFinetuneEngine,
    RerankerSettings,
)
from llama_index_embft.finetune.reranker.candidates import find_candidates
from llama_index_embft.finetune.reranker.rows import columns, reranker_rows
from llama_index_embft.finetune.reranker.validation import RerankValidation
from llama_index_embft.retrievers import CrossEncoderReranker, load_reranker

WORDS = (
    "amber birch cedar delta ember fjord grove heath inlet jetty knoll lagoon marsh north ocean prism".split()  # noqa: SIM905
)


def make_data(n: int = 16, start: int = 0) -> EmbeddingQAFinetuneDataset:
    """Questions about n passages that all share the question's words; one says the code word that is asked for."""
    corpus, queries, relevant = {}, {}, {}
    for number in range(start, start + n):
        first, second = WORDS[number % 16], WORDS[(number * 7 + 3) % 16]
        for kind in ("right", "wrong"):
            corpus[f"{kind}{number:02}"] = f"the {first} {second} report of team {number} is {kind} and closed"
        queries[f"q{number:02}"] = f"which {first} {second} report of team {number}"
        relevant[f"q{number:02}"] = [f"right{number:02}"]
    return EmbeddingQAFinetuneDataset(queries=queries, corpus=corpus, relevant_docs=relevant)


def settings(**options) -> RerankerSettings:
    candidates = options.pop("candidates", CandidateSettings(depth=6, negatives=2))
    given = {"batch_size": 4, "epochs": 2, "learning_rate": 3e-3, "device": "cpu", "candidates": candidates}
    given["kind"] = "cross-encoder"
    return RerankerSettings(**{**given, **options})


def engine(model: str, out: object, **options) -> RerankerFinetuneEngine:
    val = options.pop("val_dataset", make_data(8, 16))
    more = {name: options.pop(name) for name in ("loss_maker", "guard_dataset") if name in options}
    return RerankerFinetuneEngine(
        make_data(),
        model,
        str(out),
        val,
        settings=settings(**options),
        show_progress=False,
        loss=more.get("loss_maker"),
        guard_dataset=more.get("guard_dataset"),
    )


@pytest.mark.parametrize("loss", ["list_net", "lambda", "rank_net", "bce"])
def test_each_loss_trains_and_the_result_is_never_worse(loss, tiny_model_path, tmp_path):
    made = engine(tiny_model_path, tmp_path / "m", loss=loss)
    assert made.new_head
    result = made.finetune()
    assert result.best_score >= result.base_score == result.first_stage_score
    assert result.steps == 8
    assert 0 <= result.weight <= 1
    record = json.loads((tmp_path / "m" / "embft.json").read_text())
    assert (record["kind"], record["weight"]) == ("reranker", result.weight)
    assert record["settings"]["loss"] == loss
    assert "reranker" in (tmp_path / "m" / "README.md").read_text()


def test_what_is_learnt_is_used_with_the_share_that_it_earned(tiny_model_path, tmp_path):
    made = engine(tiny_model_path, tmp_path / "m", epochs=12)
    result = made.finetune()
    assert result.weight > 0
    assert result.best_score > result.first_stage_score + 0.05  # BM25 cannot tell right from wrong, the model can
    reranker = made.get_finetuned_model(top_n=2)
    assert (reranker.weight, reranker.top_n) == (result.weight, 2)
    data = make_data(8, 16)
    validation = RerankValidation(data, find_candidates(data, list(data.queries), None, made.settings.candidates))
    assert validation.mixed(reranker._model, result.weight) == pytest.approx(result.best_score, abs=1e-6)
    # LlamaIndex's own class reads the folder too.
    stock = SentenceTransformerRerank(model=str(tmp_path / "m"), top_n=1, device="cpu")
    nodes = [NodeWithScore(node=TextNode(text=text, id_=doc), score=1.0) for doc, text in data.corpus.items()]
    query = data.queries["q16"]
    alone = load_reranker(tmp_path / "m", weight=1.0, top_n=1)
    best = alone.postprocess_nodes(nodes, query_str=query)[0]
    assert stock.postprocess_nodes(nodes, query_str=query)[0].node.id_ == best.node.id_


def test_what_is_cut_and_what_is_out_of_reach_is_said(tiny_model_path, tmp_path, caplog):
    result = engine(tiny_model_path, tmp_path / "m", epochs=1, max_length=12).finetune()
    assert "100% of the pairs of question and passage are longer than the 12 tokens that are read" in caplog.text
    assert result.within_reach == 1.0
    assert json.loads((tmp_path / "m" / "embft.json").read_text())["max_length"] == 12
    assert load_reranker(tmp_path / "m")._model.max_seq_length == 12


def test_a_reranker_as_base_is_the_one_to_beat(tiny_model_path, tmp_path):
    engine(tiny_model_path, tmp_path / "first", epochs=8).finetune()
    again = engine(str(tmp_path / "first"), tmp_path / "second", epochs=1, learning_rate=1e-7)
    assert not again.new_head
    result = again.finetune()
    first = json.loads((tmp_path / "first" / "embft.json").read_text())["metrics"]["best"]
    assert result.base_score == pytest.approx(first, abs=1e-6)
    assert result.best_score >= result.base_score


def test_lora_adds_up_and_keeps_a_plain_model(tiny_model_path, tmp_path):
    lora = engine(tiny_model_path, tmp_path / "m", method="lora", lora=LoraSettings(rank=4, alpha=8))
    before = {name: value.clone() for name, value in lora.model.state_dict().items()}
    lora.settings  # noqa: B018
    lora.val_dataset = None  # keep the last weights
    lora.finetune()
    after = load_file(str(tmp_path / "m" / "model.safetensors"))
    assert not any("lora" in name for name in after)
    changed = [name for name in after if not torch.equal(after[name], before[f"0.model.{name}"])]
    assert any("classifier" in name for name in changed)
    assert any("attention" in name for name in changed)


def test_a_run_that_was_stopped_goes_on_to_the_same_weights(tiny_model_path, tmp_path, monkeypatch):
    from llama_index_embft.finetune.running import callbacks

    monkeypatch.chdir(tmp_path)
    whole = engine(tiny_model_path, "whole", save_checkpoints=True, checkpoint_save_steps=3).finetune()
    original = callbacks.BestStateCallback.on_step_end

    def stop(self, args, state, control, **kwargs):
        if state.global_step == 5:
            self.interrupted = True
        return original(self, args, state, control, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(callbacks.BestStateCallback, "on_step_end", stop)
        with pytest.raises(TrainingError, match="Stopped by Ctrl-C after step 5 of 8"):
            engine(tiny_model_path, "m", save_checkpoints=True, checkpoint_save_steps=3).finetune()
    resumed = engine(tiny_model_path, "m", resume_from_checkpoint=True).finetune()
    # What is measured after the resumption is of the model as it then stands.
    names = ("step", "ndcg@10", "ndcg@10_alone")
    first, second = ([[entry.get(name) for name in names] for entry in run.history] for run in (resumed, whole))
    assert first == second
    assert first[-1][2] is not None
    found, expected = (load_file(f"{name}/model.safetensors") for name in ("m", "whole"))
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    with pytest.raises(ConfigError, match="cannot be resumed: epochs was 2 and is 3 now"):
        engine(tiny_model_path, "m", epochs=3, resume_from_checkpoint=True).finetune()


def test_a_checkpoint_of_another_loss_is_refused(tiny_model_path, tmp_path, monkeypatch):
    """The name alone does not tell: a loss of one's own has numbers, and the default one may be replaced by it."""
    from functools import partial

    from sentence_transformers.cross_encoder.losses import LambdaLoss

    monkeypatch.chdir(tmp_path)
    first = partial(LambdaLoss, k=5)
    engine(tiny_model_path, "m", epochs=1, loss_maker=first, save_checkpoints=True, checkpoint_save_steps=2).finetune()
    engine(tiny_model_path, "m", epochs=1, loss_maker=first, resume_from_checkpoint=True).finetune()
    for other in (partial(LambdaLoss, k=3), None):
        with pytest.raises(ConfigError, match="cannot be resumed: loss was 'LambdaLoss "):
            engine(tiny_model_path, "m", epochs=1, loss_maker=other, resume_from_checkpoint=True).finetune()


@pytest.mark.parametrize("loss", ["list_net", "bce"])
def test_the_last_parts_of_an_epoch_weigh_each_question_alike(loss, tiny_model_path, tmp_path):
    """16 questions in steps of 10: the second has 6, in parts of 5 and 1; the one must not count as five."""
    norms = []
    for size in (None, 5):
        hardware = HardwareSettings(mini_batch_size=size, hidden_dropout=False, attention_dropout=False)
        options = {"epochs": 1, "batch_size": 10, "learning_rate": 1e-9, "hardware": hardware, "val_dataset": None}
        result = engine(tiny_model_path, tmp_path / "m", loss=loss, **options).finetune()
        assert (result.steps, len(result.losses)) == (2, 1)
        norms.append(result.losses[0]["grad_norm"])  # of the second step
    assert norms[0] == pytest.approx(norms[1], rel=1e-3)


def test_the_guard_is_measured_and_a_loss_of_ones_own_is_taken(tiny_model_path, tmp_path):
    from sentence_transformers.cross_encoder.losses import PListMLELoss

    made = engine(tiny_model_path, tmp_path / "m", guard_dataset=make_data(4, 24), loss_maker=PListMLELoss)
    result = made.finetune()
    assert result.guard_base_score is not None
    assert result.guard_score is not None
    assert json.loads((tmp_path / "m" / "embft.json").read_text())["settings"]["loss"] == "PListMLELoss"


def test_a_guard_alone_is_measured_and_chooses_nothing(tiny_model_path, tmp_path):
    result = engine(tiny_model_path, tmp_path / "m", val_dataset=None, guard_dataset=make_data(4, 24)).finetune()
    assert result.best_score is None
    assert result.weight == 1.0
    assert (result.guard_base_score, result.guard_score) == (
        result.history[0]["guard_ndcg@10"],
        result.history[-1]["guard_ndcg@10"],
    )
    assert len(result.history) == 3


def test_rows_hold_no_negative_that_answers(tiny_model_path):
    data = make_data(4)
    copy = {**data.corpus, "copy": data.corpus["right00"]}
    data = data.replace(corpus=copy, negative_docs={"q00": ["copy", "wrong03"]})
    found = find_candidates(data, list(data.queries), None, CandidateSettings(depth=9))
    rows, dropped = reranker_rows(data, found, negatives=3, seed=0)
    assert (len(rows), dropped) == (4, 0)
    first = rows[0]
    assert [text for text, grade in zip(first.documents, first.grades, strict=True) if grade] == [copy["right00"]]
    assert first.documents.count(copy["right00"]) == 1
    assert copy["wrong03"] in first.documents


def test_grades_share_the_probability_and_many_relevant_make_several_rows():
    data = make_data(6)
    graded = data.replace(
        relevant_docs={**data.relevant_docs, "q00": ["right00", "right01", "right02"]},
        relevance_grades={"q00": {"right00": 3, "right01": 1, "right02": 1}},
    )
    found = find_candidates(graded, ["q00"], None, CandidateSettings(depth=12))
    rows, _ = reranker_rows(graded, found, negatives=2, seed=0)
    assert [sum(grade > 0 for grade in row.grades) for row in rows] == [2, 1]
    labels = columns(rows, "list_net")["labels"][0]
    assert sorted(np.exp(labels)) == pytest.approx([0, 0, 0.25, 0.75])
    assert max(columns(rows, "bce")["label"]) == 1.0


def test_questions_without_a_negative_are_counted(caplog):
    data = EmbeddingQAFinetuneDataset(
        queries={"a": "one thing", "b": "other thing"},
        corpus={"x": "one thing only", "y": "other thing"},
        relevant_docs={"a": ["x", "y"], "b": ["y"]},
    )
    found = find_candidates(data, ["a", "b"], None, CandidateSettings(depth=5))
    rows, dropped = reranker_rows(data, found, negatives=2, seed=0)
    assert (len(rows), dropped) == (1, 1)
    assert "1 of 2 questions have no negative" in caplog.text
    with pytest.raises(DatasetError, match="None of the 1 questions has a passage"):
        reranker_rows(data, find_candidates(data, ["a"], None, CandidateSettings(depth=5)), negatives=2, seed=0)


def test_questions_whose_answer_the_first_stage_misses_stay_in_the_figure():
    data = EmbeddingQAFinetuneDataset(
        queries={"a": "one thing", "b": "no word of it"},
        corpus={"x": "one thing only", "y": "quite different"},
        relevant_docs={"a": ["x"], "b": ["y"]},
    )
    found = find_candidates(data, ["a", "b"], None, CandidateSettings(depth=2))
    validation = RerankValidation(data, found)
    assert (validation.first_stage, validation.within_reach) == (0.5, 0.5)


class Table:
    """A reranker that knows scores by heart."""

    def __init__(self, scores):
        self.scores, self.asked = scores, 0

    def predict(self, pairs, **_):
        self.asked += len(pairs)
        return np.array([self.scores[text] for _, text in pairs])


def nodes(*scores: float | None) -> list[NodeWithScore]:
    return [NodeWithScore(node=TextNode(text=f"t{n}", id_=str(n)), score=score) for n, score in enumerate(scores)]


def ids(hits: list[NodeWithScore]) -> list[str]:
    return [hit.node.id_ for hit in hits]


def test_the_share_decides_between_both_orders():
    model = Table({"t0": 0.0, "t1": 1.0, "t2": 5.0})
    query = QueryBundle("q")
    by_weight = {weight: CrossEncoderReranker(model, weight=weight) for weight in (0.0, 0.2, 1.0)}
    assert ids(by_weight[0.0].postprocess_nodes(nodes(3.0, 2.0, 1.0), query)) == ["0", "1", "2"]
    assert model.asked == 0  # with no share nothing is read
    assert ids(by_weight[0.2].postprocess_nodes(nodes(3.0, 2.0, 1.0), query)) == ["0", "1", "2"]
    assert ids(by_weight[1.0].postprocess_nodes(nodes(3.0, 2.0, 1.0), query)) == ["2", "1", "0"]
    # Without scores the places count.
    assert ids(by_weight[0.2].postprocess_nodes(nodes(None, None, None), query)) == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": "a"}, "`weight` is 'a', which is not a number"),
        ({"weight": 1.5}, "`weight`"),
        ({"top_n": 0}, "`top_n`"),
        ({"batch_size": 0}, "`batch_size`"),
    ],
)
def test_values_out_of_range(options, message):
    with pytest.raises(ConfigError, match=message):
        CrossEncoderReranker(Table({}), **options)


def test_as_many_tokens_are_read_as_the_model_has_positions_for(tiny_model_path, tmp_path):
    made = engine(tiny_model_path, tmp_path / "m", epochs=1, max_length=128)  # by itself it reads 64
    made.finetune()
    assert made.get_finetuned_model().cross_encoder.max_seq_length == 128
    with pytest.raises(ConfigError, match=r"`max_length` is 129, and .* reads at most 128 tokens"):
        engine(tiny_model_path, tmp_path / "n", max_length=129)


def test_a_first_stage_that_finds_nothing_is_said(tiny_model_path, tmp_path):
    data = EmbeddingQAFinetuneDataset(
        queries={"q": "qu'est-ce que c'est", "p": "comment ça va"},
        corpus={"a": "a green hill", "b": "two red houses"},
        relevant_docs={"q": ["a"], "p": ["b"]},
    )
    with pytest.raises(DatasetError, match="BM25 alone finds what shares words with a question: give `embed_model`"):
        RerankerFinetuneEngine(data, tiny_model_path, str(tmp_path / "m"), show_progress=False).finetune()
    found_by = {"embed_model": Path(tiny_model_path), "settings": settings(epochs=1)}
    made = RerankerFinetuneEngine(data, tiny_model_path, str(tmp_path / "m"), show_progress=False, **found_by)
    assert made.finetune().steps == 1


def test_a_bi_encoder_is_no_reranker(tiny_model_path):
    with pytest.raises(ModelError, match="is not a cross-encoder: it has no layer that scores"):
        CrossEncoderReranker(tiny_model_path)


def test_a_classifier_of_three_classes_is_no_reranker(tiny_model_path, tmp_path):
    from sentence_transformers import CrossEncoder

    CrossEncoder(tiny_model_path, num_labels=3).save_pretrained(str(tmp_path / "nli"))
    with pytest.raises(ModelError, match="gives 3 scores for a pair"):
        RerankerFinetuneEngine(make_data(), str(tmp_path / "nli"), str(tmp_path / "m"))


def test_a_damaged_or_foreign_folder_is_refused(tiny_model_path, tmp_path):
    engine(tiny_model_path, tmp_path / "m", epochs=1).finetune()
    record = tmp_path / "m" / "embft.json"
    whole = json.loads(record.read_text())
    for change, message in (
        ({"weight": 7}, "damaged"),
        ({"kind": "full"}, "no reranker"),
        ({"weight": "x"}, "damaged"),
    ):
        record.write_text(json.dumps({**whole, **change}))
        with pytest.raises(ModelError, match=message):
            load_reranker(tmp_path / "m")
    record.write_text("{")
    with pytest.raises(ModelError, match="damaged"):
        load_reranker(tmp_path / "m")
    shutil.rmtree(tmp_path / "m")
    with pytest.raises(TrainingError, match="call finetune"):
        engine(tiny_model_path, Path(tmp_path / "m")).get_finetuned_model()
