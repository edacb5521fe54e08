"""Training of all weights and LoRA: what went in, what came out wrong without a word, and what is right."""

from __future__ import annotations

import base64
import json
import logging
import random
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer

from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
from llama_index_embft.embeddings import as_encoder, load_embed_model
from llama_index_embft.errors import ConfigError, EmbftError, ModelError, TrainingError
from llama_index_embft.evaluation import evaluate_embed_model
from llama_index_embft.finetune import (
    LoraSettings,
    LossSettings,
    SentenceTransformersFinetuneEngine,
    TextSettings,
    ValidationSettings,
    choose_recipe,
)


@pytest.fixture(autouse=True)
def _own_folder_and_one_thread(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make_data(n: int = 24, seed: int = 0, front: str = "") -> EmbeddingQAFinetuneDataset:
    draw = random.Random(seed)
    words = ["".join(draw.choice("abcdefghijklmnop") for _ in range(4)) for _ in range(200)]
    corpus = {f"d{i}": front + " ".join(draw.sample(words, 6)) for i in range(n)}
    queries = {f"q{i}": " ".join(corpus[f"d{i}"].split()[-3:]) for i in range(n)}
    return EmbeddingQAFinetuneDataset(
        queries=queries, corpus=corpus, relevant_docs={f"q{i}": [f"d{i}"] for i in range(n)}
    )


def engine(model, out="out", data=None, **options):
    options = {
        "epochs": 1,
        "batch_size": 8,
        "show_progress_bar": False,
        "device": "cpu",
        "learning_rate": 1e-4,
    } | options
    return SentenceTransformersFinetuneEngine(data or make_data(), str(model), str(out), **options)


def weights(folder) -> dict[str, torch.Tensor]:
    return load_file(str(Path(folder) / "model.safetensors"))


def in_precision(source, folder, dtype) -> str:
    model = SentenceTransformer(source, device="cpu")
    model[0].auto_model.to(dtype)
    model.save_pretrained(str(folder), create_model_card=False)
    return str(folder)


# --- A: silently wrong ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_a6_half_precision_is_trained_in_float32(tiny_model_path, tmp_path, dtype, method):
    half = in_precision(tiny_model_path, tmp_path / "half", dtype)
    assert {t.dtype for t in weights(half).values() if t.is_floating_point()} == {dtype}
    tuner = engine(half, method=method)
    assert {p.dtype for p in tuner.model.parameters()} == {torch.float32}
    before = {
        name: p.detach().clone() for name, p in tuner.model.named_parameters() if "encoder" in name and p.ndim == 2
    }
    tuner.finetune()
    after = dict(tuner.model.named_parameters())
    moved = [float((after[name] != before[name]).float().mean()) for name in before]
    assert min(moved) > 0.9
    assert max(float((after[name] - before[name]).abs().max()) for name in before) < 0.1
    assert {t.dtype for t in weights("out").values() if t.is_floating_point()} == {torch.float32}
    assert json.loads(Path("out/config.json").read_text())["dtype"] == "float32"


def test_a6_the_recipe_trains_in_float32_too(tiny_model_path, tmp_path, monkeypatch):
    half = in_precision(tiny_model_path, tmp_path / "half", torch.float16)
    seen = set()
    original = SentenceTransformersFinetuneEngine.finetune

    def look(self):
        seen.update(p.dtype for p in self.model.parameters())
        return original(self)

    monkeypatch.setattr(SentenceTransformersFinetuneEngine, "finetune", look)
    choose_recipe(
        make_data(), half, make_data(seed=1), temperatures=(0.05,), learning_rates=(1e-4,), epochs=(1,), batch_size=8,
        device="cpu", time_budget=60,
    )  # fmt: skip
    assert seen == {torch.float32}


@pytest.fixture
def short(tiny_model_path, tmp_path) -> str:
    """The tiny model, reading 8 tokens only."""
    model = SentenceTransformer(tiny_model_path, device="cpu")
    model.max_seq_length = 8
    model.save_pretrained(str(tmp_path / "short"), create_model_card=False)
    return str(tmp_path / "short")


def front_data(n: int, seed: int) -> EmbeddingQAFinetuneDataset:
    """Passages that begin with their answer, and go on with what all of them say."""
    data = make_data(n, seed)
    filler = " and then again of the same old things that are said in each of them every time"
    corpus = {f"d{i}": data.queries[f"q{i}"] + filler for i in range(n)}
    return EmbeddingQAFinetuneDataset(queries=data.queries, corpus=corpus, relevant_docs=data.relevant_docs)


def test_a8_the_guards_base_is_the_users_base(short):
    guard, val = front_data(24, 2), make_data(24, 1, front="a b c d e f g h i j k ")
    base = evaluate_embed_model(guard, load_embed_model(short, device="cpu"), cache=None).mean("ndcg@10")
    tuner = engine(
        short, data=make_data(front="a b c d e f g h i j k "), val_dataset=val, guard_dataset=guard,
        validation=ValidationSettings(merge="auto", max_guard_loss=0.005),
    )  # fmt: skip
    assert tuner.model.max_seq_length > 8, "it reads more, so that its own first score is another than the base's"
    result = tuner.finetune()
    recorded = json.loads(Path("out/embft.json").read_text())["metrics"]
    saved = evaluate_embed_model(guard, tuner.get_finetuned_model(), cache=None).mean("ndcg@10")
    assert recorded["guard_base"] == result.guard_base_score == pytest.approx(base)
    assert recorded["guard_best"] == result.guard_score == pytest.approx(saved)
    assert base - saved <= 0.005 + 1e-9


def test_a9_the_recipe_measures_the_base_with_its_own_arguments(tiny_model_path):
    text = TextSettings(query_prompt="zzzz qqqq wwww vvvv jjjj kkkk ")
    train, val = make_data(), make_data(seed=1)
    alone = engine(tiny_model_path, data=train, val_dataset=val, text=text, learning_rate=1e-9).finetune()
    recipe = choose_recipe(
        train, tiny_model_path, val, temperatures=(0.05,), learning_rates=(1e-9,), epochs=(1,), batch_size=8,
        device="cpu", time_budget=60, text=text, guard=val,
    )  # fmt: skip
    plain = evaluate_embed_model(val, load_embed_model(tiny_model_path, device="cpu"), cache=None).mean("ndcg@10")
    assert recipe.base_score == recipe.base_guard_score == alone.base_score != pytest.approx(plain)


CHECKPOINTED = {"epochs": 2, "save_checkpoints": True, "checkpoint_save_steps": 2}


def shuffled(data: EmbeddingQAFinetuneDataset) -> EmbeddingQAFinetuneDataset:
    ids = list(data.queries)
    random.Random(1).shuffle(ids)
    return EmbeddingQAFinetuneDataset(
        queries={i: data.queries[i] for i in ids},
        corpus=data.corpus,
        relevant_docs={i: data.relevant_docs[i] for i in ids},
    )


@pytest.mark.parametrize("what", ["guide", "order", "loss", "nothing"])
def test_a10_resume_refuses_another_guide_order_or_loss(tiny_model_path, tmp_path, what):
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss as Loss

    data = make_data()
    first, second = {"data": data}, {"data": data}
    if what == "guide":
        other = SentenceTransformer(tiny_model_path, device="cpu")
        torch.nn.init.normal_(next(other.parameters()))
        other.save_pretrained(str(tmp_path / "guide"), create_model_card=False)
        first["loss_settings"] = LossSettings(guide_model=tiny_model_path)
        second["loss_settings"] = LossSettings(guide_model=str(tmp_path / "guide"))
    elif what == "order":
        second["data"] = shuffled(data)
    elif what == "loss":
        first["loss"], second["loss"] = (lambda m: Loss(m, scale=20)), (lambda m: Loss(m, scale=100))
    engine(tiny_model_path, **CHECKPOINTED, **first).finetune()
    again = engine(tiny_model_path, **CHECKPOINTED, **second, resume_from_checkpoint=True)
    if what == "nothing":
        again.finetune()
        return
    with pytest.raises(ConfigError, match=r"cannot be resumed: (guide_model|training rows|loss)"):
        again.finetune()


def test_a11_a_popular_passage_shrinks_batches_with_a_word(tiny_model_path, caplog):
    data = make_data(40)
    popular = {q: ["d0"] if number < 20 else docs for number, (q, docs) in enumerate(data.relevant_docs.items())}
    data = EmbeddingQAFinetuneDataset(queries=data.queries, corpus=data.corpus, relevant_docs=popular)
    with caplog.at_level(logging.WARNING):
        result = engine(tiny_model_path, data=data, batch_size=20).finetune()
    assert result.steps == 20
    assert "20 questions ask about one passage" in caplog.text
    assert "20 batches of at most 2 rows instead of 2 of 20" in caplog.text


def test_a23_cosines_stay_float32_under_autocast(tiny_model_path):
    from llama_index_embft.finetune.full.data.rows import training_rows
    from llama_index_embft.finetune.full.losses.choosing import loss_maker
    from llama_index_embft.finetune.full.losses.similarity import cosines

    torch.manual_seed(0)
    a = torch.nn.functional.normalize(torch.randn(64, 384), dim=1)
    b = torch.nn.functional.normalize(a + 0.02 * torch.randn(64, 384), dim=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = cosines(a, b)
    assert found.dtype == torch.float32
    assert float((found - a @ b.T).abs().max()) / 0.01 < 1e-3
    model = SentenceTransformer(tiny_model_path, device="cpu")
    maker = loss_maker(model, training_rows(make_data()), LossSettings())
    assert maker.make(None).similarity_fct is maker.make(4).similarity_fct is cosines


def test_a22_a_router_is_trained_on_both_branches(tiny_model_path, tmp_path):
    from sentence_transformers.sentence_transformer.modules import Normalize, Router

    one, two = (SentenceTransformer(tiny_model_path, device="cpu") for _ in range(2))
    torch.nn.init.normal_(next(two.parameters()), std=0.02)
    router = Router.for_query_document(query_modules=[one[0], one[1]], document_modules=[two[0], two[1]])
    SentenceTransformer(modules=[router, Normalize()], device="cpu").save_pretrained(str(tmp_path / "router"))
    tuner = engine(tmp_path / "router", val_dataset=make_data(seed=1), learning_rate=1e-3)
    before = {name: p.detach().clone() for name, p in tuner.model.named_parameters()}
    result = tuner.finetune()
    assert result.steps == 3
    trained = load_embed_model("out", device="cpu")
    encoder = as_encoder(trained, cache=None)
    assert abs(encoder.encode_queries(["a text"]) - encoder.encode_documents(["a text"])).max() > 1e-3
    if result.improved:
        moved = {name for name, p in tuner.model.named_parameters() if not torch.equal(p, before[name])}
        assert any("query" in name for name in moved)
        assert any("document" in name for name in moved)


# --- B: what it was trained on ----------------------------------------------------------------------------------------


def test_b5_the_record_names_what_it_was_trained_and_chosen_on(tiny_model_path):
    train, val = make_data(), make_data(seed=1)
    engine(tiny_model_path, data=train, val_dataset=val).finetune()
    record = json.loads(Path("out/embft.json").read_text())
    for key, data in (("trained_on", train), ("chosen_on", val)):
        assert {len(record[key][part]) for part in ("queries", "documents")} == {len(data.queries)}
        assert all(
            len(one) == 16 and int(one, 16) >= 0 for part in ("queries", "documents") for one in record[key][part]
        )
        assert all(len(base64.b64decode(one)) == 64 for one in record[key]["document_sketches"])
    assert not set(record["trained_on"]["queries"]) & set(record["chosen_on"]["queries"])
    text = json.dumps(record)
    assert not any(query in text for query in train.queries.values())


# --- C: files ---------------------------------------------------------------------------------------------------------


def test_c2_runs_with_one_last_name_keep_their_checkpoints_apart(tiny_model_path):
    engine(tiny_model_path, "runs/a/model", **CHECKPOINTED).finetune()
    first = set(Path("checkpoints").rglob("checkpoint-*"))
    live = next(iter(first)).parent / ".embft-what-a-live-run-is-writing.tmp"
    live.mkdir()
    engine(tiny_model_path, "runs/b/model", **CHECKPOINTED).finetune()
    assert first < set(Path("checkpoints").rglob("checkpoint-*"))
    engine(tiny_model_path, "runs/a/model", **CHECKPOINTED).finetune()
    assert live.is_dir()
    engine(tiny_model_path, "runs/a/model", **CHECKPOINTED, resume_from_checkpoint=True).finetune()


@pytest.mark.parametrize("default", ["s2p_query", "passage"])
def test_c9_a_saved_model_loads_whatever_its_default_prompt_was(tiny_model_path, tmp_path, default):
    model = SentenceTransformer(
        tiny_model_path, device="cpu", prompts={default: "represent: "}, default_prompt_name=default
    )
    model.save_pretrained(str(tmp_path / "base"), create_model_card=False)
    engine(tmp_path / "base", text=TextSettings(query_prompt="q: ", document_prompt="d: ")).finetune()
    saved = SentenceTransformer("out", device="cpu")
    assert saved.prompts["query"] == "q: "
    assert load_embed_model("out", device="cpu").get_query_embedding("x") == pytest.approx(
        saved.encode_query("x").tolist(), abs=1e-5
    )


def test_c10_checkpoints_of_lora_hold_the_matrices_alone(tiny_model_path):
    tuner = engine(
        tiny_model_path, method="lora", lora=LoraSettings(rank=2), val_dataset=make_data(seed=1), **CHECKPOINTED
    )
    tuner.finetune()
    files = list(Path("checkpoints").rglob("*.safetensors"))
    assert {path.name for path in files} == {"trainable.safetensors", "embft_best.safetensors"}
    assert all("lora_" in name for path in files for name in load_file(str(path)))


# --- D: does not work -------------------------------------------------------------------------------------------------


@pytest.fixture
def remote(tiny_model_path, tmp_path) -> str:
    """The tiny model, with a class of its own whose code lies in the folder."""
    folder = tmp_path / "remote"
    shutil.copytree(tiny_model_path, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own_bert", "architectures": ["OwnModel"]}
    config["auto_map"] = {"AutoConfig": "own_code.OwnConfig", "AutoModel": "own_code.OwnModel"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own_code.py").write_text(
        "from transformers import BertConfig, BertModel\n"
        "class OwnConfig(BertConfig):\n    model_type = 'own_bert'\n"
        "class OwnModel(BertModel):\n    config_class = OwnConfig\n"
    )
    return str(folder)


def test_d1_code_that_was_trusted_is_trusted_after_training(remote):
    tuner = engine(remote, trust_remote_code=True, val_dataset=make_data(seed=1))
    tuner.finetune()
    assert len(tuner.get_finetuned_model().get_text_embedding("a")) == 32
    assert len(load_embed_model("out", device="cpu", trust_remote_code=True).get_text_embedding("a")) == 32
    with pytest.raises(EmbftError):
        load_embed_model("out", device="cpu")


def test_d2_static_models_are_trained(tiny_model_path, tmp_path):
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    tokenizer = SentenceTransformer(tiny_model_path, device="cpu").tokenizer
    static = SentenceTransformer(modules=[StaticEmbedding(tokenizer.backend_tokenizer, embedding_dim=32)], device="cpu")
    static.save_pretrained(str(tmp_path / "static"))
    tuner = engine(tmp_path / "static", val_dataset=make_data(seed=1), learning_rate=5e-2, epochs=2)
    result = tuner.finetune()
    assert result.steps == 6
    assert len(load_embed_model("out", device="cpu").get_query_embedding("x")) == 32
    with pytest.raises(ConfigError, match="adapts a transformer"):
        engine(tmp_path / "static", method="lora").finetune()


def test_d9_the_mini_batch_follows_the_texts_and_not_the_models_limit(tiny_model_path):
    from llama_index_embft.finetune.full.losses.choosing import first_mini_batch
    from llama_index_embft.finetune.running.base_model import longest_tokens

    model = SentenceTransformer(tiny_model_path, device="cpu")
    model.max_seq_length = 32768
    tokens = longest_tokens(model, list(make_data().corpus.values()))
    assert tokens < 64
    assert first_mini_batch(None, 64, 1, "cpu", tokens) == 16
    assert first_mini_batch(None, 64, 1, "cpu", 8192) == 1


def test_d13_older_gpus_get_no_emulated_bfloat16(monkeypatch):
    from llama_index_embft.finetune.running import arguments

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    for capability, supported in (((7, 0), False), ((7, 5), False)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_, c=capability: c)
        assert arguments.use_bf16(None, "cuda:1") is supported
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (8, 0))
    assert arguments.use_bf16(None, "cuda:1") is True
    assert arguments.use_bf16(False, "cuda:1") is False


def test_d13_the_device_that_was_asked_for_is_the_one_that_trains(monkeypatch, tmp_path):
    """With four GPUs the Trainer would take the first, and all of them through DataParallel."""
    from accelerate import PartialState
    from sentence_transformers import SentenceTransformerTrainingArguments

    from llama_index_embft.finetune.full.training.arguments import EngineArguments

    current = []

    def of_the_trainer(self):
        self._n_gpu, self.distributed_state = 4, PartialState(cpu=True)
        return torch.device("cuda:0")

    monkeypatch.setattr(SentenceTransformerTrainingArguments, "_setup_devices", property(of_the_trainer))
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    made = EngineArguments(output_dir=str(tmp_path), model_device="cuda:1", report_to="none")
    assert (made.device, made.n_gpu) == (torch.device("cuda:1"), 1)
    assert current[-1] == torch.device("cuda:1")


def test_d13_tf32_is_set_by_one_kind_of_call_and_put_back(monkeypatch):
    from llama_index_embft.finetune.running.arguments import tf32

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (8, 0))
    before = torch.get_float32_matmul_precision()
    with tf32(torch.device("cuda:0")):
        assert torch.get_float32_matmul_precision() == "high"
    assert torch.get_float32_matmul_precision() == before
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (7, 5))
    with tf32(torch.device("cuda:0")):
        assert torch.get_float32_matmul_precision() == before


# --- E: hostile input -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["trainer_state.json", "optimizer.pt", "model.safetensors", "embft_best.json"])
def test_e12_a_damaged_checkpoint_gives_way_to_the_one_before(tiny_model_path, caplog, name):
    whole = engine(tiny_model_path, "whole", **CHECKPOINTED, val_dataset=make_data(seed=1))
    whole.finetune()
    engine(tiny_model_path, **CHECKPOINTED, val_dataset=make_data(seed=1)).finetune()
    folders = sorted(Path("checkpoints").glob("out-*/checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    assert len(folders) == 2
    for folder, shown in ((folders[-1], folders[-1]), (folders[0], None)):
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])
        caplog.clear()
        again = engine(tiny_model_path, **CHECKPOINTED, val_dataset=make_data(seed=1), resume_from_checkpoint=True)
        if shown is None:
            with pytest.raises(TrainingError, match=r"All 2 checkpoints in .* are damaged"):
                again.finetune()
        else:
            again.finetune()
            assert f"The checkpoint {shown} is damaged" in caplog.text
            # The run has written its newest anew.
            (shown / name).write_bytes((shown / name).read_bytes()[:10])
    expected, found = weights("whole"), weights("out")
    assert all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, "`seed` is -1; it must be at least 0"),
        ({"device": ""}, "`device` is empty"),
        ({"device": "gpu"}, "`device` is 'gpu', which torch does not know"),
        ({"learning_rate": float("inf")}, "`learning_rate` is inf"),
    ],
)
def test_e13_odd_arguments_are_one_sentence(tiny_model_path, options, message):
    with pytest.raises(ConfigError, match=message):
        engine(tiny_model_path, **options)


@pytest.mark.parametrize("flag", ["embed_model", "out", "val", "config", "teacher_scores", "data"])
def test_e13_names_that_no_disk_takes_are_one_sentence(tiny_model_path, flag):
    from llama_index_embft.cli.train.command import train

    make_data().save_json("train.json")
    given = {"data": "train.json", "embed_model": tiny_model_path, "out": "out", "device": "cpu", "progress": False}
    with pytest.raises(EmbftError) as raised:
        train(given | {flag: "x" * 300})
    assert "\n" not in str(raised.value)
    assert not Path("out").exists()


def test_e14_weights_that_are_no_numbers_are_refused(tiny_model_path, tmp_path):
    shutil.copytree(tiny_model_path, tmp_path / "nan")
    tensors = weights(tmp_path / "nan")
    next(t for t in tensors.values() if t.ndim == 2)[0, 0] = float("nan")
    save_file(tensors, str(tmp_path / "nan" / "model.safetensors"), metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"NaN|not finite"):
        engine(tmp_path / "nan").finetune()


BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefg", "bcdefgh", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs: !!int abc", "c.yaml is not valid YAML in line 1: 'abc' cannot be read as !!int; write a plain value"),
        ("!!int abc: 1", "is not valid YAML"),
        ("learning_rate: !!float x", "is not valid YAML"),
        ("a: 1\nb: 2\nmodel: !!timestamp x", "in line 3: 'x' cannot be read as !!timestamp"),
        ("epochs: " + "9" * 6000, "it must be a whole number|in line 1: '9{40}' cannot be read as !!int"),
        ('out: "\\UFFFFFFFF"', "is not valid YAML"),
        ("epochs: 0x" + "f" * 6000, "it must be a whole number|a number of thousands"),
        ("learning_rate: 1" + "0" * 400, "learning_rate"),
        ("epochs: .inf", "it must be a whole number"),
        ("learning_rate: .nan", "`learning_rate` is nan"),
        (BOMB, "anchors"),
        ("&a {model: *a}", "anchors"),
        ("<<: [1]", "is not valid YAML|unknown key"),
        ("null: 1", "unknown key"),
        ("? [a]\n: b", "is not valid YAML|unknown key"),
        ("# " + "x" * 2**21, "has 2,097,154 bytes"),
        ("out: ''", "is empty"),
    ],
)
def test_e9_any_yaml_ends_in_one_sentence(tiny_model_path, text, message):
    from llama_index_embft.cli.train.command import _engine
    from llama_index_embft.cli.train.settings import read_settings

    make_data().save_json("train.json")
    Path("c.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message) as raised:
        _engine(read_settings(Path("c.yaml"), {"data": "train.json", "embed_model": tiny_model_path, "device": "cpu"}))
    assert len(str(raised.value)) < 400
    assert "\n" not in str(raised.value)


def test_e9_a_date_is_the_name_of_a_folder():
    from llama_index_embft.cli.train.settings import read_settings

    Path("c.yaml").write_text("out: 2026-11-31\n")
    assert read_settings(Path("c.yaml"), {}) == {"out": Path("2026-11-31")}


def test_a11_negatives_that_keep_rows_apart_are_named_as_the_reason(tiny_model_path, caplog):
    data = make_data(24)
    ids = list(data.corpus)
    negatives = {f"q{i}": [ids[(i + j) % 24] for j in range(1, 13)] for i in range(24)}
    data = EmbeddingQAFinetuneDataset(
        queries=data.queries, corpus=data.corpus, relevant_docs=data.relevant_docs, negative_docs=negatives
    )
    with caplog.at_level(logging.WARNING):
        engine(tiny_model_path, data=data, batch_size=12).finetune()
    assert "Hard negatives of many questions answer others" in caplog.text
    assert "1 questions" not in caplog.text
