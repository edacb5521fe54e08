"""What the full engine does beside plain training: LoRA, guard, merging, distillation, memory, bad input."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
from llama_index_embft.embeddings import as_encoder, load_embed_model
from llama_index_embft.errors import ConfigError, DatasetError, ModelError, TrainingError
from llama_index_embft.finetune import SentenceTransformersFinetuneEngine
from llama_index_embft.finetune.full import engine_arguments
from llama_index_embft.finetune.full.run_settings import TrainSettings
from llama_index_embft.finetune.full.settings import LoraSettings
from llama_index_embft.finetune.full.training import trainer as trainer_module
from llama_index_embft.finetune.running.lora import add_lora, merge_lora

COLOURS = ["red", "green", "blue", "black", "white", "grey"]
THINGS = ["cat", "dog", "bird", "fish"]


def make_dataset(form: int = 0, negatives: int = 0, shift: int = 0) -> EmbeddingQAFinetuneDataset:
    pairs = [(colour, thing) for colour in COLOURS for thing in THINGS]
    texts = [f"where is the {c} {t}" if form == 0 else f"find a {t} in {c}" for c, t in pairs]
    n = len(pairs)
    return EmbeddingQAFinetuneDataset(
        queries={f"q{i}": text for i, text in enumerate(texts)},
        corpus={f"d{i}": f"item {i * 7 % 24} of class {c[0]}{t[0]}" for i, (c, t) in enumerate(pairs)},
        relevant_docs={f"q{i}": [f"d{(i + shift) % n}"] for i in range(n)},
        negative_docs={f"q{i}": [f"d{(i + shift + k) % n}" for k in range(1, negatives + 1)] for i in range(n)}
        if negatives
        else {},
    )


def engine(model, out, dataset=None, **options):
    options = {
        "epochs": 4,
        "batch_size": 8,
        "learning_rate": 3e-3,
        "show_progress_bar": False,
        "device": "cpu",
        "bf16": False,
        "patience": 99,
    } | options
    dataset = dataset or make_dataset()
    if "teacher_scores" in options:
        dataset = dataset.replace(teacher_scores=options.pop("teacher_scores"))
    return SentenceTransformersFinetuneEngine(dataset, str(model), str(out), **engine_arguments(**options))


def vectors(model) -> object:
    return as_encoder(model, cache=None).encode_queries(["where is the red cat", "find a dog in green"])


# --- LoRA -------------------------------------------------------------------------------------------------------------


def test_lora_learns_and_the_folder_is_a_plain_model(tiny_model_path, tmp_path):
    from sentence_transformers import SentenceTransformer

    tuner = engine(
        tiny_model_path, tmp_path / "m", method="lora", val_dataset=make_dataset(1), epochs=6, mini_batch_size=4,
        learning_rate=2e-2, lora_dropout=0.0,
    )  # fmt: skip
    result = tuner.finetune()
    assert result.method == "lora"
    assert result.best_score > result.base_score + 0.03
    assert result.mini_batch_size == 4
    saved = SentenceTransformer(str(tmp_path / "m"), device="cpu")
    names = set(saved.state_dict())
    assert names == set(SentenceTransformer(tiny_model_path, device="cpu").state_dict())
    assert vectors(tuner.get_finetuned_model()) == pytest.approx(vectors(tuner._base.embedding), abs=1e-6)
    assert json.loads((tmp_path / "m" / "embft.json").read_text())["kind"] == "lora"


def test_lora_trains_its_matrices_alone_and_merging_changes_no_vector(tiny_model_path):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(tiny_model_path, device="cpu").eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    text = ["a red cat"]
    plain = model.encode(text)
    trainable = add_lora(model, LoraSettings(rank=4, targets=("query", "value")))
    assert trainable == 2 * (4 * 32 + 32 * 4)
    assert model.encode(text) == pytest.approx(plain, abs=1e-6)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert "lora_" in name
            torch.nn.init.normal_(parameter)
    changed = model.encode(text)
    assert abs(changed - plain).max() > 1e-3
    merge_lora(model)
    assert model.encode(text) == pytest.approx(changed, abs=1e-5)
    assert set(model.state_dict()) == set(before)
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {name.split(".")[-2] for name in moved} == {"query", "value"}
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_an_unknown_lora_target_names_the_layers(tiny_model_path, tmp_path):
    tuner = engine(tiny_model_path, tmp_path / "m", method="lora", lora_targets=["q_proj"])
    with pytest.raises(ConfigError, match=r"cannot adapt 'q_proj'.*its linear layers are dense, key, query, value"):
        tuner.finetune()


# --- guard and merging ------------------------------------------------------------------------------------------------


def test_guard_is_watched_and_merging_keeps_the_limit(tiny_model_path, tmp_path):
    """The guard contradicts the training set, so the further the weights go, the more it loses."""
    options = {"val_dataset": make_dataset(1), "guard_dataset": make_dataset(0, shift=5), "learning_rate": 1e-2}
    free = engine(tiny_model_path, tmp_path / "free", merge="auto", max_guard_loss=1.0, **options).finetune()
    bound = engine(tiny_model_path, tmp_path / "bound", merge="auto", max_guard_loss=0.01, **options).finetune()
    assert all("guard_ndcg@10" in entry for entry in free.history)
    base = free.history[0]["guard_ndcg@10"]
    at = {result: next(p for p in result.merge_curve if p["weight"] == result.merge_weight) for result in ()}
    assert at == {}
    chosen_free = next(p for p in free.merge_curve if p["weight"] == free.merge_weight)
    chosen = next(p for p in bound.merge_curve if p["weight"] == bound.merge_weight)
    assert free.best_score == max(p["ndcg@10"] for p in free.merge_curve) == chosen_free["ndcg@10"]
    assert base - chosen["guard_ndcg@10"] <= 0.01 + 1e-9
    assert bound.best_score == chosen["ndcg@10"]
    assert bound.merge_weight < free.merge_weight
    assert [p["weight"] for p in bound.merge_curve] == [round(0.1 * n, 1) for n in range(11)]

    record = json.loads((tmp_path / "bound" / "embft.json").read_text())
    assert record["metrics"]["merge_weight"] == bound.merge_weight
    assert record["metrics"]["guard_base"] == base
    assert record["metrics"]["guard_best"] == chosen["guard_ndcg@10"]
    assert record["data"]["guard_queries"] == 24
    # What is on the disk is the interpolation, not one of its ends.
    from llama_index_embft.evaluation import evaluate_embed_model

    saved = load_embed_model(tmp_path / "bound", device="cpu")
    assert evaluate_embed_model(make_dataset(1), saved, cache=None).mean("ndcg@10") == pytest.approx(bound.best_score)


def test_a_merge_weight_can_be_given(tiny_model_path, tmp_path):
    result = engine(tiny_model_path, tmp_path / "m", merge=0.5, val_dataset=make_dataset(1)).finetune()
    assert [point["weight"] for point in result.merge_curve] == [0.0, 0.5]
    assert result.merge_weight in (0.0, 0.5)


def test_the_engine_splits_off_a_validation_set_by_document(tiny_model_path, tmp_path):
    tuner = engine(tiny_model_path, tmp_path / "m", val_split=0.25, epochs=1)
    asked = [
        {doc for docs in part.relevant_docs.values() for doc in docs} for part in (tuner.dataset, tuner.val_dataset)
    ]
    assert asked[0].isdisjoint(asked[1])
    assert len(tuner.val_dataset.queries) == 6
    assert tuner.finetune().base_score is not None


# --- what is learned from ---------------------------------------------------------------------------------------------


def test_a_teacher_is_followed(tiny_model_path, tmp_path):
    """The teacher ranks the first negative above the positive; the student learns to, the contrastive one does not."""
    data = make_dataset(negatives=2)
    teacher = {
        q: {data.relevant_docs[q][0]: 0.0, **dict(zip(data.negative_docs[q], (4.0, -4.0), strict=True))}
        for q in data.queries
    }
    options = {"epochs": 8, "temperature": 0.1, "learning_rate": 5e-3}
    shares = {}
    for name, more in (
        ("taught", {"teacher_scores": teacher, "distill_weight": 1.0}),
        ("plain", {}),
    ):
        tuner = engine(tiny_model_path, tmp_path / name, data, **options, **more)
        tuner.finetune()
        encoder = as_encoder(tuner.get_finetuned_model(), cache=None)
        queries = encoder.encode_queries(list(data.queries.values()))
        docs = dict(zip(data.corpus, encoder.encode_documents(list(data.corpus.values())), strict=True))
        wins = [
            float(query @ docs[data.negative_docs[q][0]]) > float(query @ docs[data.relevant_docs[q][0]])
            for q, query in zip(data.queries, queries, strict=True)
        ]
        shares[name] = sum(wins) / len(wins)
    assert shares["taught"] > shares["plain"] + 0.3


def test_guide_matryoshka_and_cosent_train(tiny_model_path, tmp_path):
    negatives = make_dataset(negatives=2)
    engine(
        tiny_model_path, tmp_path / "g", negatives, guide_model=tiny_model_path, epochs=1, mini_batch_size=4
    ).finetune()
    engine(tiny_model_path, tmp_path / "m", matryoshka_dims=[8], epochs=1, mini_batch_size=4).finetune()
    result = engine(tiny_model_path, tmp_path / "c", negatives, loss="cosent", epochs=1).finetune()
    assert result.steps == 72 // 8
    record = json.loads((tmp_path / "c" / "embft.json").read_text())
    assert record["settings"]["loss"] == "CoSENTLoss"


def test_evaluators_and_trackers(tiny_model_path, tmp_path, monkeypatch):
    from sentence_transformers.sentence_transformer.evaluation import TripletEvaluator
    from transformers import TrainerCallback

    monkeypatch.chdir(tmp_path)
    seen = []

    class Tracker(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            seen.append(dict(logs))

    from transformers import integrations

    monkeypatch.setitem(integrations.integration_utils.INTEGRATION_TO_CALLBACK, "tensorboard", Tracker)
    data = make_dataset(1, negatives=1)
    texts = list(data.queries.values())
    evaluator = TripletEvaluator(
        anchors=texts,
        positives=[data.corpus[data.relevant_docs[q][0]] for q in data.queries],
        negatives=[data.corpus[data.negative_docs[q][0]] for q in data.queries],
        name="val",
    )
    result = engine(
        tiny_model_path, "m", evaluators=[evaluator], evaluation_steps=2, epochs=2, batch_sampler="no_duplicates",
        report_to="tensorboard", val_dataset=data,
    ).finetune()  # fmt: skip
    assert [entry["step"] for entry in result.history] == [0, 2, 4, 6]
    assert all("val_cosine_accuracy" in entry for entry in result.history)
    logged = [entry for entry in seen if "eval_ndcg_at_10" in entry]
    assert [entry["eval_ndcg_at_10"] for entry in logged] == [e["ndcg@10"] for e in result.history[1:]]
    # Without a validation set nothing is chosen, and the last weights stay.
    alone = engine(tiny_model_path, "n", evaluators=[evaluator], epochs=1).finetune()
    assert alone.base_score is None
    assert alone.best_step == alone.steps


# --- memory -----------------------------------------------------------------------------------------------------------


def test_full_memory_halves_the_mini_batch_and_changes_no_weight(tiny_model_path, tmp_path, monkeypatch, caplog):
    whole = engine(tiny_model_path, tmp_path / "whole", epochs=1, mini_batch_size=2)
    whole.finetune()
    original = trainer_module.SentenceTransformerTrainer.training_step

    def scarce(self, model, inputs, num_items_in_batch=None):
        if (self.mini_batch_size or 99) > 2:
            original(
                self, model, inputs, num_items_in_batch
            )  # the failed step leaves gradients and uses random numbers
            raise RuntimeError(
                "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
            )
        return original(self, model, inputs, num_items_in_batch)

    monkeypatch.setattr(trainer_module.SentenceTransformerTrainer, "training_step", scarce)
    halved = engine(tiny_model_path, tmp_path / "halved", epochs=1)
    assert halved.finetune().mini_batch_size == 2
    assert "going on with 4" in caplog.text
    assert "going on with 2" in caplog.text
    assert (vectors(whole.get_finetuned_model()) == vectors(halved.get_finetuned_model())).all()


def test_memory_that_never_suffices_is_said(tiny_model_path, tmp_path, monkeypatch):
    def never(self, model, inputs, num_items_in_batch=None):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(trainer_module.SentenceTransformerTrainer, "training_step", never)
    with pytest.raises(TrainingError, match="Not even one row fits in memory"):
        engine(tiny_model_path, tmp_path / "m").finetune()
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    with pytest.raises(TrainingError, match="MultipleNegativesRankingLoss cannot be cut here; lower batch_size"):
        engine(tiny_model_path, tmp_path / "m", loss=MultipleNegativesRankingLoss).finetune()


def test_attention_dropout_is_off_in_training_on_cpu_and_back_afterwards(tiny_model_path, tmp_path, monkeypatch):
    rates = []
    original = trainer_module.SentenceTransformerTrainer.training_step

    def look(self, model, inputs, num_items_in_batch=None):
        rates.append([m.dropout.p for m in self.model.modules() if type(m).__name__ == "BertSelfAttention"])
        return original(self, model, inputs, num_items_in_batch)

    monkeypatch.setattr(trainer_module.SentenceTransformerTrainer, "training_step", look)
    for wanted, rate in ((None, 0.0), (True, 0.1)):
        rates.clear()
        tuner = engine(tiny_model_path, tmp_path / "m", epochs=1, attention_dropout=wanted)
        tuner.finetune()
        assert rates[0] == [rate]
        after = [m.dropout.p for m in tuner.model.modules() if type(m).__name__ == "BertSelfAttention"]
        assert after == [0.1]


@pytest.mark.parametrize("method", ["full", "lora"])
def test_gradient_checkpointing_and_bf16_train(tiny_model_path, tmp_path, method):
    tuner = engine(
        tiny_model_path, tmp_path / "m", method=method, gradient_checkpointing=True, bf16=True, mini_batch_size=4,
        val_dataset=make_dataset(1), epochs=6, learning_rate=1e-2,
    )  # fmt: skip
    result = tuner.finetune()
    assert result.best_score > result.base_score + 0.02
    assert next(tuner.model.parameters()).dtype == torch.float32


# --- bad input --------------------------------------------------------------------------------------------------------


def test_one_training_pair(tiny_model_path, tmp_path):
    one = make_dataset(negatives=1).subset(["q0"])
    engine(tiny_model_path, tmp_path / "m", one, epochs=1).finetune()  # a hard negative is enough
    alone = make_dataset().subset(["q0"])
    with pytest.raises(DatasetError, match="one question and one passage, and nothing to tell the passage from"):
        engine(tiny_model_path, tmp_path / "n", alone).finetune()


def test_all_questions_about_one_passage(tiny_model_path, tmp_path):
    data = EmbeddingQAFinetuneDataset(
        queries={f"q{n}": f"question {n}" for n in range(5)},
        corpus={"d": "the one passage"},
        relevant_docs={f"q{n}": ["d"] for n in range(5)},
    )
    with pytest.raises(DatasetError, match="All 5 rows of the training set ask about the same passage"):
        engine(tiny_model_path, tmp_path / "m", data).finetune()


def test_a_batch_larger_than_the_data(tiny_model_path, tmp_path):
    assert engine(tiny_model_path, tmp_path / "m", batch_size=1000, epochs=2).finetune().steps == 2


def test_a_model_without_a_tokenizer(tiny_model_path, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(tiny_model_path, bare)
    for file in bare.rglob("*"):
        if file.name.startswith(("tokenizer", "vocab", "special_tokens")):
            file.unlink()
    with pytest.raises(ModelError, match="tokenizer"):
        engine(bare, tmp_path / "m").finetune()
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "dora"}, "`method` is 'dora'; it must be one of 'full', 'lora'"),
        ({"merge": "auto"}, "give val_dataset or val_split"),
        ({"merge": "half"}, "`merge` is 'half'; it must be one of 'auto': or a number between 0 and 1"),
        ({"merge": 1.5}, "`merge` is 1.5; it must be at least 0 and at most 1"),
        ({"val_split": 1.0}, "`val_split` is 1.0; it must be above 0 and below 1"),
        ({"val_split": 0.1, "val_dataset": make_dataset(1)}, "both name a validation set"),
        ({"lora_rank": 0}, "`lora_rank` is 0"),
        ({"batch_sampler": "random"}, "`batch_sampler` is 'random'"),
        ({"mini_batch_size": 0}, "`mini_batch_size` is 0"),
        ({"max_guard_loss": -1.0}, "`max_guard_loss` is -1.0"),
        ({"report_to": "tensorbord"}, "`report_to` is 'tensorbord'.*did you mean 'tensorboard'"),
    ],
)
def test_contradictions_are_refused_at_once(tiny_model_path, tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        engine(tiny_model_path, tmp_path / "m", **options)


def test_a_tracker_whose_package_is_missing_is_said_before_the_work(tiny_model_path, tmp_path, monkeypatch):
    from transformers.integrations import integration_utils

    def without_package():
        raise RuntimeError("WandbCallback requires wandb to be installed. Run `pip install wandb`.")

    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "wandb", without_package)
    with pytest.raises(ConfigError, match=r"`report_to` is 'wandb', which cannot be used: .* `pip install wandb"):
        engine(tiny_model_path, tmp_path / "m", report_to=["wandb"])


def test_the_loss_stands_behind_the_bar_and_nothing_on_standard_output(tiny_model_path, tmp_path, capfd):
    engine(tiny_model_path, tmp_path / "m", epochs=1, show_progress_bar=True).finetune()
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "loss " in shown.err
    assert "{" not in shown.err
    engine(tiny_model_path, tmp_path / "n", epochs=1).finetune()
    assert "loss" not in capfd.readouterr().err


def test_the_card_is_written(tiny_model_path, tmp_path):
    engine(tiny_model_path, tmp_path / "m", val_dataset=make_dataset(1), epochs=1).finetune()
    card = Path(tmp_path / "m" / "README.md").read_text()
    assert card.startswith("---\n")
    assert "| validation" in card


def test_a_loss_of_the_users_gets_the_teachers_scores(tiny_model_path, tmp_path):
    from sentence_transformers.sentence_transformer.losses import MarginMSELoss

    data = make_dataset(negatives=1)
    teacher = {q: {data.relevant_docs[q][0]: 3.0, data.negative_docs[q][0]: 1.0} for q in data.queries}
    seen = []

    class Looking(MarginMSELoss):
        def forward(self, features, labels):
            seen.append(labels.tolist())
            return super().forward(features, labels)

    result = engine(tiny_model_path, tmp_path / "m", data, loss=Looking, teacher_scores=teacher, epochs=1).finetune()
    assert result.steps == len(seen) >= 3
    assert all(row == [3.0, 1.0] for batch in seen for row in batch)


def test_lora_takes_longer_steps_unless_told_otherwise(tiny_model_path, tmp_path):
    assert engine(tiny_model_path, tmp_path / "m", learning_rate=None).settings.learning_rate == 1e-4
    assert engine(tiny_model_path, tmp_path / "m", learning_rate=None, method="lora").settings.learning_rate == 2e-4


def test_wide_models_take_shorter_steps():
    assert TrainSettings().default_learning_rate(384) == 1e-4
    assert TrainSettings().default_learning_rate(768) == 5e-5
    assert TrainSettings(method="lora").default_learning_rate(768) == 2e-4
