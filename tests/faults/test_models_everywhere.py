"""Models of all shapes on every way that leads to them: prompts, precision, identity, code of their own."""

from __future__ import annotations

import functools
import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from embedding_models import on_the_hub, static, with_prompts
from llama_index.embeddings.huggingface import HuggingFaceEmbedding
from sentence_transformers import SentenceTransformer, util
from sentence_transformers.sentence_transformer import losses

from llama_index_embft import EmbeddingQAFinetuneDataset
from llama_index_embft.embeddings import as_encoder, linear_adapter, load_embed_model
from llama_index_embft.embeddings.fingerprint import fingerprint_sentence_transformer
from llama_index_embft.errors import ConfigError, ModelError
from llama_index_embft.finetune import (
    EmbeddingAdapterFinetuneEngine,
    LossSettings,
    SentenceTransformersFinetuneEngine,
    TextSettings,
    merge_models,
)
from llama_index_embft.finetune.adapter import AdapterLayerSettings
from llama_index_embft.mining import MiningSettings, mine_hard_negatives


def data(n: int = 24) -> EmbeddingQAFinetuneDataset:
    letters = "abcdefghijklmnopqrstuvwxyz"
    corpus = {f"d{i}": f"{letters[i]} passage about {letters[i] * 3} and {letters[-i]}" for i in range(n)}
    return EmbeddingQAFinetuneDataset(
        queries={f"q{i}": f"what is {letters[i] * 3}" for i in range(n)},
        corpus=corpus,
        relevant_docs={f"q{i}": [f"d{i}"] for i in range(n)},
    )


def engine(model, out, **options):
    options = {"epochs": 1, "batch_size": 8, "show_progress_bar": False, "device": "cpu"} | options
    return SentenceTransformersFinetuneEngine(data(), str(model), str(out), **options)


def prompts(model) -> tuple[str, str]:
    backend = as_encoder(model, cache=None).backend
    return backend.prompt("query"), backend.prompt("document")


def loaded(name, **options):
    return load_embed_model(name, device="cpu", **options)


# --- A7: prompts are the model's own ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["BAAI/bge-small-en-v1.5", "BAAI/bge-small-zh-v1.5", "hkunlp/instructor-base"])
@pytest.mark.parametrize("own", [{}, {"query": "own: "}])
def test_a7_bge_by_name_has_the_prompts_of_bge_by_folder(tiny_model_path, tmp_path, monkeypatch, caplog, name, own):
    folder = with_prompts(tiny_model_path, tmp_path / "m", own)
    monkeypatch.setenv("LLAMA_INDEX_CACHE_DIR", str(tmp_path / "hub"))
    monkeypatch.setattr("llama_index_embft.embeddings.sentence_transformer._said", set())
    on_the_hub(folder, tmp_path / "hub", name)
    with caplog.at_level(logging.WARNING):
        by_name = loaded(name)
    by_folder, plain = loaded(folder), SentenceTransformer(str(folder), device="cpu")
    assert prompts(by_name) == prompts(by_folder) == prompts(plain) == (own.get("query", ""), "")
    if "bge" in name:  # sentence-transformers itself leaves INSTRUCTOR's prompt out of the pooling, by its name
        assert by_name.get_query_embedding("a text") == pytest.approx(by_folder.get_query_embedding("a text"))
    assert ("Nothing is put before each query" in caplog.text) is not own  # LlamaIndex's own class would put something
    tuner = engine(name, tmp_path / "out")
    assert tuner.prompts == {"query": own.get("query", ""), "document": ""}
    # Who wants what LlamaIndex's class does says so, and the class itself is taken as it is.
    assert prompts(loaded(name, query_prompt="x: ")) == ("x: ", "")
    stock = HuggingFaceEmbedding(name, device="cpu", cache_folder=str(tmp_path / "hub"))
    assert prompts(stock)[0].startswith(("Represent", "为"))


def test_a7_a_prompt_of_another_name_is_used_or_said_to_be_unused(tiny_model_path, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("llama_index_embft.embeddings.sentence_transformer._said", set())
    folder = with_prompts(tiny_model_path, tmp_path / "a", {"query": "q: ", "ctx": "c: ", "STS": "s: "})
    with caplog.at_level(logging.WARNING):
        assert prompts(loaded(folder)) == prompts(loaded(folder)) == ("q: ", "")
    said = [record.message for record in caplog.records if "is put before" in record.message]
    assert len(said) == 1
    assert "'ctx' do not say what they are for" in said[0]
    assert "STS" not in said[0]  # another task
    assert "document_prompt=" in said[0]
    # A default of another task is no matter where both sides have one of their own, and refused where one has none.
    both = with_prompts(tiny_model_path, tmp_path / "b", {"query": "q: ", "passage": "p: ", "STS": "s: "}, "STS")
    assert prompts(loaded(both)) == prompts(SentenceTransformer(str(both), device="cpu")) == ("q: ", "p: ")
    one = with_prompts(tiny_model_path, tmp_path / "c", {"query": "q: ", "STS": "s: "}, "STS")
    with pytest.raises(ModelError, match=r"'STS'.*document_prompt="):
        loaded(one)
    assert prompts(loaded(one, document_prompt="")) == ("q: ", "")


# --- A6: precision ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("own", [False, True])
def test_a6_an_adapter_in_half_precision_is_trained_in_float32(tiny_model_path, tmp_path, dtype, own):
    module = torch.nn.Sequential(torch.nn.Linear(32, 32)) if own else linear_adapter(32)
    tuner = EmbeddingAdapterFinetuneEngine(
        data(), loaded(tiny_model_path), adapter_model=module.to(dtype), model_output_path=str(tmp_path / "a"),
        epochs=1, cache=None, device="cpu",
    )  # fmt: skip
    tuner.finetune()
    half = torch.nn.Sequential(torch.nn.Linear(32, 32)).to(dtype) if own else None
    again = load_embed_model(tmp_path / "a", base_embed_model=loaded(tiny_model_path), adapter_model=half)
    for model in (tuner.get_finetuned_model(), again):
        assert {parameter.dtype for parameter in model.adapter.parameters()} == {torch.float32}
        assert np.isfinite(model.get_query_embedding("a text")).all()


def test_d6_an_adapter_that_does_not_fit_is_refused_before_training(tiny_model_path, tmp_path):
    base = loaded(tiny_model_path)

    def tune(module, **options):
        out = str(tmp_path / "a")
        EmbeddingAdapterFinetuneEngine(
            data(), base, val_dataset=data(8), adapter_model=module, model_output_path=out, epochs=1, cache=None,
            device="cpu", **options,
        ).finetune()  # fmt: skip
        return load_embed_model(out, base_embed_model=base, adapter_model=module)

    smaller = torch.nn.Sequential(torch.nn.Linear(32, 16))
    with pytest.raises(ConfigError, match=r"makes 16 of 32 dimensions.*sides='both'"):
        tune(smaller)
    model = tune(smaller, layer=AdapterLayerSettings(sides="both"))
    assert len(model.get_query_embedding("a")) == len(model.get_text_embedding("a")) == 16
    with pytest.raises(ConfigError, match="cannot turn vectors of 32 dimensions"):
        tune(torch.nn.Sequential(torch.nn.Linear(64, 64)))
    with pytest.raises(ConfigError, match="does not go with this model"):
        tune(linear_adapter(64))


# --- A2: a graph is the file that is run ------------------------------------------------------------------------------


def test_a2_of_two_graphs_in_a_folder_the_one_that_runs_counts(tiny_model_path, tmp_path):
    class Graph:
        def __init__(self, **places):
            vars(self).update(places)

    for name, content in (("model.onnx", "one"), ("model_qint8.onnx", "two"), ("model.onnx_data", "weights")):
        (tmp_path / name).write_text(content)

    def fingerprint(**places):
        model = SentenceTransformer(tiny_model_path, device="cpu")
        model[0]._modules.pop("model")
        object.__setattr__(model[0], "model", Graph(**places))
        return fingerprint_sentence_transformer(model, normalize=True)

    full, quantized = (fingerprint(path=tmp_path / name) for name in ("model.onnx", "model_qint8.onnx"))
    assert full is not None
    assert quantized is not None
    assert full != quantized
    assert fingerprint(model_save_dir=tmp_path) is None  # nothing says which of the two
    (tmp_path / "model.onnx_data").write_text("other weights")
    assert fingerprint(path=tmp_path / "model.onnx") != full
    assert fingerprint(path=tmp_path / "model_qint8.onnx") == quantized


# --- A10: a loss of the user's own ------------------------------------------------------------------------------------


def test_a10_the_identity_of_a_loss_sees_what_it_is_made_of(tiny_model_path):
    from llama_index_embft.finetune.running.loss_identity import loss_identity

    model, one, two = (SentenceTransformer(tiny_model_path, device="cpu") for _ in range(3))
    torch.nn.init.normal_(next(two.parameters()))

    def ranking(**options):
        return loss_identity(losses.MultipleNegativesRankingLoss(model, **options), model)

    def scaled(factor):
        return lambda a, b: util.cos_sim(a, b) * factor

    def guided(guide):
        return loss_identity(losses.GISTEmbedLoss(model, guide), model)

    def again(a, b):
        return again(a, b) if a is b else util.cos_sim(a, b)

    assert ranking() == ranking()
    found = [
        ranking(),
        ranking(scale=3),
        ranking(similarity_fct=util.dot_score),
        ranking(similarity_fct=functools.partial(util.cos_sim)),
        ranking(similarity_fct=scaled(2)),
        ranking(similarity_fct=scaled(3)),
        ranking(similarity_fct=lambda a, b: util.cos_sim(a, b) + 1),
        ranking(similarity_fct=torch.nn.CosineSimilarity()),
        ranking(similarity_fct=again),
        guided(one),
        guided(two),
    ]
    assert len(set(found)) == len(found)
    assert ranking(similarity_fct=scaled(2)) == found[4]
    assert guided(SentenceTransformer(tiny_model_path, device="cpu")) == found[-2]


# --- C9, D1, D2, D3: what is named is loaded by one rule --------------------------------------------------------------


@pytest.fixture
def remote(tiny_model_path, tmp_path) -> str:
    """The tiny model, with a class of its own whose code lies in the folder."""
    folder = tmp_path / "remote"
    shutil.copytree(tiny_model_path, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own_bert_everywhere", "architectures": ["OwnModel"]}
    config["auto_map"] = {
        "AutoConfig": "own_code_everywhere.OwnConfig",
        "AutoModel": "own_code_everywhere.OwnModel",
        "AutoModelForSequenceClassification": "own_code_everywhere.OwnReranker",
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own_code_everywhere.py").write_text(
        "from transformers import BertConfig, BertForSequenceClassification, BertModel\n"
        "class OwnConfig(BertConfig):\n    model_type = 'own_bert_everywhere'\n"
        "class OwnModel(BertModel):\n    config_class = OwnConfig\n"
        "class OwnReranker(BertForSequenceClassification):\n    config_class = OwnConfig\n"
    )
    return str(folder)


def test_d1_a_guide_may_bring_code_of_its_own(tiny_model_path, remote, tmp_path):
    guide = LossSettings(guide_model=remote)
    with pytest.raises(ModelError, match=r"guide model .* pass trust_remote_code=True"):
        engine(tiny_model_path, tmp_path / "out", loss_settings=guide).finetune()
    assert engine(tiny_model_path, tmp_path / "out", loss_settings=guide, trust_remote_code=True).finetune().steps == 3


def test_d1_a_cross_encoder_may_bring_code_of_its_own(tiny_model_path, tmp_path, remote):
    reranker = tmp_path / "reranker"
    shutil.copytree(remote, reranker)
    for name in ("modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"):
        (reranker / name).unlink(missing_ok=True)
    config = json.loads((reranker / "config.json").read_text())
    config |= {"architectures": ["OwnReranker"], "id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
    (reranker / "config.json").write_text(json.dumps(config))
    arguments = (data(), loaded(tiny_model_path), ["rank:1-5", f"cross-encoder:{reranker}"], 1)
    with pytest.raises(ModelError, match=r"cross-encoder .* pass trust_remote_code=True"):
        mine_hard_negatives(*arguments, cache=None)
    trusting = MiningSettings(trust_remote_code=True, pad=True)
    assert mine_hard_negatives(*arguments, cache=None, settings=trusting).negative_docs


def test_d1_a_stock_embedding_that_was_trusted_is_trusted_on_the_main_path(remote):
    from llama_index_embft.pipeline.trained.engines import trusts_code

    assert trusts_code(HuggingFaceEmbedding(remote, device="cpu", trust_remote_code=True))
    assert trusts_code(loaded(remote, trust_remote_code=True))


def test_d1_the_workers_of_a_cluster_may_run_code_of_the_model(remote, tmp_path, monkeypatch):
    from llama_index_embft.scale.ray import model as cluster

    encoder = cluster.load_encoder(remote, device="cpu", batch_size=None, trust_remote_code=True)
    assert encoder.encode_documents(["a"]).shape == (1, 32)
    with pytest.raises(ModelError, match="trust_remote_code=True"):
        cluster.load_encoder(remote, device="cpu", batch_size=None)
    # A name on the hub has to be loaded to be told from others.
    monkeypatch.setenv("LLAMA_INDEX_CACHE_DIR", str(tmp_path / "hub"))
    on_the_hub(remote, tmp_path / "hub", "org/own-code")
    assert cluster._ask("org/own-code", "cpu", True)[1] is None
    assert "trust_remote_code=True" in cluster._ask("org/own-code", "cpu", False)[1]


def test_c9_models_are_merged_whatever_their_default_prompt_is(tiny_model_path, tmp_path):
    folder = with_prompts(tiny_model_path, tmp_path / "m", {"query": "q: ", "document": "d: "}, "gone")
    merged = merge_models(folder, folder, 0.5)
    merged.save_pretrained(str(tmp_path / "out"), create_model_card=False)
    assert prompts(loaded(tmp_path / "out")) == ("q: ", "d: ")
    (folder / "model.safetensors").write_bytes(b"cut short")
    with pytest.raises(ModelError, match="cannot be loaded"):
        merge_models(folder, folder, 0.5)


def test_d2_a_length_for_a_static_model_is_refused_in_a_sentence(tiny_model_path, tmp_path):
    folder = static(tiny_model_path, tmp_path / "static")
    with pytest.raises(ModelError, match=r"maximum length is 128.*reads texts whole"):
        engine(folder, tmp_path / "out", text=TextSettings(max_seq_length=128))


def test_d3_a_reranker_and_a_guide_without_a_limit_read_no_further_than_their_positions(tiny_model_path, tmp_path):
    from transformers import AutoTokenizer, XLMRobertaConfig, XLMRobertaForSequenceClassification, XLMRobertaModel

    tokenizer = AutoTokenizer.from_pretrained(tiny_model_path)
    config = XLMRobertaConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=34, pad_token_id=tokenizer.pad_token_id, num_labels=1,
    )  # fmt: skip
    for name, kind in (("reranker", XLMRobertaForSequenceClassification), ("guide", XLMRobertaModel)):
        kind(config).save_pretrained(tmp_path / name)
        tokenizer.model_max_length = 10**30
        tokenizer.save_pretrained(tmp_path / name)
    long = data()
    long = EmbeddingQAFinetuneDataset(
        queries=long.queries,
        corpus={doc: text + " and much more of it" * 30 for doc, text in long.corpus.items()},
        relevant_docs=long.relevant_docs,
    )
    mined = mine_hard_negatives(
        long, loaded(tiny_model_path), ["rank:1-3", f"cross-encoder:{tmp_path / 'reranker'}"], 1, cache=None,
        settings=MiningSettings(pad=True),
    )  # fmt: skip
    assert mined.negative_docs
    tuner = SentenceTransformersFinetuneEngine(
        long, tiny_model_path, str(tmp_path / "out"), epochs=1, batch_size=8, show_progress_bar=False, device="cpu",
        loss_settings=LossSettings(guide_model=str(tmp_path / "guide"), near_duplicates=None),
    )  # fmt: skip
    assert tuner.finetune().steps


def test_e7_weights_that_hold_code_are_refused_without_the_advice_to_run_it(tiny_model_path, tmp_path):
    class Code:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    folder = tmp_path / "evil"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"in_features": 32, "out_features": 32, "bias": False}))
    torch.save({"linear.weight": Code()}, str(folder / "pytorch_model.bin"))
    with pytest.raises(ModelError, match="not numbers alone") as raised:
        load_embed_model(folder, base_embed_model=loaded(tiny_model_path))
    assert "weights_only" not in str(raised.value)
    assert not (tmp_path / "ran").exists()


def test_d2_models_of_words_have_an_identity_and_nothing_to_train(tmp_path):
    from sentence_transformers.sentence_transformer.modules import BoW, Dense, Pooling, WordEmbeddings
    from sentence_transformers.sentence_transformer.modules.tokenizer import WhitespaceTokenizer

    def words(stop_words=(), lower=True):
        tokenizer = WhitespaceTokenizer(["[PAD]", "a", "text"], stop_words=stop_words, do_lower_case=lower)
        vectors = np.arange(12, dtype=np.float32).reshape(3, 4)
        return SentenceTransformer(modules=[WordEmbeddings(tokenizer, vectors), Pooling(4)], device="cpu")

    who = [as_encoder(model, cache=None).fingerprint for model in (words(), words(["a"]), words(lower=False), words())]
    assert None not in who
    assert len(set(who)) == 3
    assert who[0] == who[3]
    bag = SentenceTransformer(modules=[BoW(["a", "text"]), Dense(2, 4)], device="cpu")
    assert as_encoder(bag, cache=None).fingerprint
    words().save_pretrained(str(tmp_path / "words"))
    with pytest.raises(ModelError, match="has no weights that can be trained"):
        engine(tmp_path / "words", tmp_path / "out")


def test_d2_a_router_with_a_static_branch_is_cut_where_it_can_be_and_exported_as_weights(tiny_model_path, tmp_path):
    from sentence_transformers.sentence_transformer.modules import Normalize, Router

    from llama_index_embft.export import export_model

    plain = SentenceTransformer(tiny_model_path, device="cpu")
    words = SentenceTransformer(str(static(tiny_model_path, tmp_path / "static")), device="cpu")
    words[0].embedding = torch.nn.EmbeddingBag(words[0].embedding.num_embeddings, 32)
    both = Router.for_query_document(query_modules=[words[0]], document_modules=[plain[0], plain[1]])
    SentenceTransformer(modules=[both, Normalize()], device="cpu").save_pretrained(str(tmp_path / "router"))
    tuner = engine(tmp_path / "router", tmp_path / "out", text=TextSettings(max_seq_length=8))
    assert [module.max_seq_length for module in tuner.model.modules() if hasattr(module, "auto_model")] == [8]
    for folder in ("router", "static"):
        with pytest.raises(ConfigError, match="the graph of one transformer"):
            export_model(tmp_path / folder, tmp_path / "graph", "onnx")
        export_model(tmp_path / folder, tmp_path / f"{folder}-half", "fp16")
        assert "Infinity" not in (tmp_path / f"{folder}-half" / "embft.json").read_text()
        assert len(loaded(tmp_path / f"{folder}-half").get_query_embedding("a text")) in (16, 32)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_c10_a_base_that_was_saved_with_lora_matrices_is_trained_and_saved_whole(tiny_model_path, tmp_path, method):
    from peft import LoraConfig

    base = SentenceTransformer(tiny_model_path, device="cpu")
    base.add_adapter(LoraConfig(task_type="FEATURE_EXTRACTION", r=2, target_modules=["value"]))
    for name, weight in base.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=1.0)
    base.save_pretrained(str(tmp_path / "base"))
    assert (tmp_path / "base" / "adapter_config.json").is_file()
    expected = loaded(tmp_path / "base").get_text_embedding("a text")
    assert expected != pytest.approx(loaded(tiny_model_path).get_text_embedding("a text"), abs=1e-2)
    tuner = engine(tmp_path / "base", tmp_path / "out", method=method)
    before = loaded(tmp_path / "base")
    assert tuner.model.encode("a text", normalize_embeddings=True) == pytest.approx(expected, abs=1e-5)
    tuner.finetune()
    assert not (tmp_path / "out" / "adapter_config.json").exists()
    saved = tuner.get_finetuned_model().get_text_embedding("a text")
    assert saved == pytest.approx(tuner.model.encode("a text", normalize_embeddings=True), abs=1e-5)
    assert saved != pytest.approx(before.get_text_embedding("a text"), abs=1e-6)
    merged = merge_models(tmp_path / "base", tmp_path / "base", 0.5)
    merged.save_pretrained(str(tmp_path / "merged"), create_model_card=False)
    assert loaded(tmp_path / "merged").get_text_embedding("a text") == pytest.approx(expected, abs=1e-5)
