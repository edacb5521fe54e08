"""Bases of every kind: language models, models whose scoring layer stands apart, and embedding models in disguise."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
from llama_index_embft.embeddings.cross_encoder import has_scoring_head, load_cross_encoder, pair_logits
from llama_index_embft.errors import ModelError
from llama_index_embft.finetune import CandidateSettings, LoraSettings, RerankerFinetuneEngine, RerankerSettings
from llama_index_embft.finetune.running.lora import add_lora, merge_lora

PAIRS = [("which amber", "the amber report"), ("which birch", "no cedar")]


def data() -> EmbeddingQAFinetuneDataset:
    kinds = [(number, kind) for number in range(6) for kind in ("right", "wrong")]
    return EmbeddingQAFinetuneDataset(
        queries={f"q{number}": f"report of team {number}" for number in range(6)},
        corpus={f"{kind}{number}": f"report of team {number} is {kind}" for number, kind in kinds},
        relevant_docs={f"q{number}": [f"right{number}"] for number in range(6)},
    )


def language_model(
    tiny_model_path: str, folder: Path, words: tuple[str, ...] = ("yes", "no"), tied: bool = True
) -> str:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_path)
    tokenizer.add_tokens(list(words))
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        intermediate_size=64,
        max_position_embeddings=130,
        pad_token_id=0,
        tie_word_embeddings=tied,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def train(model: str, out: Path, **options) -> RerankerFinetuneEngine:
    candidates = CandidateSettings(depth=6, negatives=2)
    given = {"batch_size": 2, "epochs": 2, "learning_rate": 1e-2, "device": "cpu", "candidates": candidates}
    settings = RerankerSettings(**given, lora=LoraSettings(rank=4, alpha=8), **options)
    engine = RerankerFinetuneEngine(data(), model, str(out), settings=settings, show_progress=False)
    engine.finetune()
    return engine


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_language_model_that_says_yes_or_no_is_trained_and_saved(method, tiny_model_path, tmp_path):
    base = language_model(tiny_model_path, tmp_path / "base")
    engine = train(base, tmp_path / "m", method=method)
    assert not engine.new_head
    trained = pair_logits(engine.model, PAIRS)
    assert not np.allclose(trained, pair_logits(load_cross_encoder(base, device="cpu"), PAIRS), atol=1e-3)
    assert np.allclose(trained, pair_logits(engine.get_finetuned_model()._model, PAIRS), atol=1e-6)


def test_lora_leaves_words_that_share_their_weights_alone(tiny_model_path, tmp_path):
    """Matrices beside the output layer would be added to the token embeddings too, which had none in training."""
    model = load_cross_encoder(language_model(tiny_model_path, tmp_path / "base"), device="cpu")
    add_lora(model, LoraSettings(rank=4, alpha=8, dropout=0.0))
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    before = pair_logits(model, PAIRS)
    merge_lora(model)
    assert np.allclose(before, pair_logits(model, PAIRS), atol=1e-6)


def test_a_language_model_without_the_words_is_refused(tiny_model_path, tmp_path):
    base = language_model(tiny_model_path, tmp_path / "base", words=())
    with pytest.raises(ModelError, match='has no tokens "yes" and "no"'):
        load_cross_encoder(base, device="cpu")


def test_an_embedding_model_made_of_a_language_model_is_no_reranker(tiny_model_path, tmp_path):
    inner = Transformer(language_model(tiny_model_path, tmp_path / "base"), max_seq_length=64)
    SentenceTransformer(modules=[inner, Pooling(32, "lasttoken"), Normalize()], device="cpu").save_pretrained(
        str(tmp_path / "embeds")
    )
    file = tmp_path / "embeds" / "config.json"  # as Qwen3-Embedding says of itself
    file.write_text(json.dumps({**json.loads(file.read_text()), "architectures": ["Qwen3ForCausalLM"]}))
    with pytest.raises(ModelError, match="is not a cross-encoder"):
        load_cross_encoder(tmp_path / "embeds", device="cpu")


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_scoring_layer_behind_the_transformer_is_trained(method, tiny_model_path, tmp_path):
    scores = Dense(
        32, 1, activation_function=torch.nn.Identity(), module_input_name="sentence_embedding",
        module_output_name="scores",
    )  # fmt: skip
    modules = [Transformer(tiny_model_path, max_seq_length=64), Pooling(32), scores]
    CrossEncoder(modules=modules, device="cpu").save_pretrained(str(tmp_path / "base"))
    before = load_cross_encoder(tmp_path / "base", device="cpu").state_dict()["2.linear.weight"].clone()
    engine = train(str(tmp_path / "base"), tmp_path / "m", method=method)
    assert not torch.equal(engine.model.state_dict()["2.linear.weight"], before)
    assert np.allclose(
        pair_logits(engine.model, PAIRS), pair_logits(engine.get_finetuned_model()._model, PAIRS), atol=1e-6
    )


def test_a_model_whose_configuration_cannot_be_read(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be loaded"):
        has_scoring_head(str(tmp_path))


@pytest.mark.parametrize(("batch", "mini"), [(6, 4), (6, 1), (5, 3)])
def test_mini_batches_leave_the_rows_of_a_step_as_they_are(batch, mini, tiny_model_path, tmp_path):
    from llama_index_embft.finetune import HardwareSettings
    from llama_index_embft.finetune.reranker import training

    seen = []
    arguments = training.RerankerArguments

    def look(**options):
        seen.append(options["per_device_train_batch_size"] * options["gradient_accumulation_steps"])
        return arguments(**options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "RerankerArguments", look)
        settings = RerankerSettings(
            batch_size=batch, epochs=1, device="cpu", hardware=HardwareSettings(mini_batch_size=mini)
        )
        RerankerFinetuneEngine(
            data(), tiny_model_path, str(tmp_path / "m"), settings=settings, show_progress=False
        ).finetune()
    assert seen == [batch]


def test_half_a_character_is_read_as_a_question_mark(tiny_model_path):
    model = load_cross_encoder(tiny_model_path, add_head=True, device="cpu")
    broken, sound = pair_logits(model, [("where\ud83d", "a \ud83d"), ("where?", "a ?")])
    assert broken == pytest.approx(sound, abs=1e-6)
