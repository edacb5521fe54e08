"""Options that buy speed: dropout that is left out, and torch.compile."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer

from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
from llama_index_embft.errors import ConfigError
from llama_index_embft.finetune import SentenceTransformersFinetuneEngine
from llama_index_embft.finetune.full import engine_arguments
from llama_index_embft.finetune.full.run_settings import TrainSettings
from llama_index_embft.finetune.full.settings import HardwareSettings, LoraSettings
from llama_index_embft.finetune.full.training import trainer as trainer_module
from llama_index_embft.finetune.running.dropout import dropout_off
from llama_index_embft.finetune.running.lora import add_lora


def make_dataset() -> EmbeddingQAFinetuneDataset:
    things = ["cat", "dog", "bird", "fish", "horse", "mouse", "snake", "frog"]
    return EmbeddingQAFinetuneDataset(
        queries={f"q{n}": f"where is the {thing}" for n, thing in enumerate(things)},
        corpus={f"d{n}": f"item {n * 3 % 8} of class {thing[0]}" for n, thing in enumerate(things)},
        relevant_docs={f"q{n}": [f"d{n}"] for n in range(len(things))},
    )


def rates(model) -> dict[str, float]:
    return {path: module.p for path, module in model.named_modules() if isinstance(module, torch.nn.Dropout)}


def test_each_kind_of_dropout_is_switched_off_alone_and_back(tiny_model_path):
    model = SentenceTransformer(tiny_model_path, device="cpu")
    add_lora(model, LoraSettings(rank=2, dropout=0.3))
    before = rates(model)
    attention = {path for path in before if path.endswith("attention.self.dropout")}
    lora = {path for path in before if "lora_" in path}
    hidden = before.keys() - attention - lora
    assert attention
    assert lora
    assert len(hidden) >= 3  # after the embeddings, the attention and the layer
    for switched, expected in (
        ({"attention": True, "hidden": False}, attention),
        ({"attention": False, "hidden": True}, hidden),
        ({"attention": True, "hidden": True}, attention | hidden),
        ({"attention": False, "hidden": False}, set()),
    ):
        restore = dropout_off(model, **switched)
        assert {path for path, rate in rates(model).items() if rate != before[path]} == expected
        assert all(rates(model)[path] == 0.0 for path in expected)
        restore()
        assert rates(model) == before


def test_rates_that_a_layer_keeps_as_numbers_are_found():
    class BartLikeLayer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dropout = 0.1
            self.activation_dropout = 0.2

    class BartLikeAttention(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention_dropout = 0.3
            self.dropout = 0.4  # this too is one of attention

    model = torch.nn.Sequential(BartLikeLayer(), BartLikeAttention())
    restore = dropout_off(model, attention=False, hidden=True)
    layer, attention = model
    assert (layer.dropout, layer.activation_dropout) == (0.0, 0.0)
    assert (attention.attention_dropout, attention.dropout) == (0.3, 0.4)
    restore()
    assert (layer.dropout, layer.activation_dropout) == (0.1, 0.2)


def test_hidden_dropout_is_off_in_training_only_when_asked(tiny_model_path, tmp_path, monkeypatch):
    seen = []
    original = trainer_module.SentenceTransformerTrainer.training_step

    def look(self, model, inputs, num_items_in_batch=None):
        seen.append({rate for path, rate in rates(self.model).items() if "attention.self" not in path})
        return original(self, model, inputs, num_items_in_batch)

    monkeypatch.setattr(trainer_module.SentenceTransformerTrainer, "training_step", look)
    for wanted, expected in ((None, {0.1}), (False, {0.0})):
        seen.clear()
        tuner = SentenceTransformersFinetuneEngine(
            make_dataset(), tiny_model_path, str(tmp_path / "m"), epochs=1, show_progress_bar=False, device="cpu",
            hardware=HardwareSettings(hidden_dropout=wanted),
        )  # fmt: skip
        tuner.finetune()
        assert seen[0] == expected
        assert set(rates(tuner.model).values()) == {0.1}


def test_a_checkpoint_without_the_option_is_still_resumed():
    """What None means did not exist before, and is what was done before."""
    assert TrainSettings().course()["hidden_dropout"] is None


@pytest.mark.system
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile on a CPU needs a C++ compiler")
def test_a_compiled_run_trains_and_saves_a_plain_model(tiny_model_path, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    options = {
        "epochs": 1, "batch_size": 8, "learning_rate": 1e-3, "show_progress_bar": False, "device": "cpu",
        "bf16": False, "hidden_dropout": False, "mini_batch_size": 8, "val_dataset": make_dataset(),
    }  # fmt: skip
    found = {}
    for name, compiled in (("plain", False), ("compiled", True)):
        tuner = SentenceTransformersFinetuneEngine(
            make_dataset(), tiny_model_path, str(tmp_path / name), **engine_arguments(compile=compiled, **options)
        )
        result = tuner.finetune()
        assert result.steps == 1
        found[name] = load_file(str(tmp_path / name / "model.safetensors"))
    before = SentenceTransformer(tiny_model_path, device="cpu")
    assert (
        SentenceTransformer(str(tmp_path / "compiled"), device="cpu").state_dict().keys() == before.state_dict().keys()
    )
    assert found["compiled"].keys() == found["plain"].keys()
    assert all(torch.allclose(found["compiled"][name], found["plain"][name], atol=1e-4) for name in found["plain"])
    assert json.loads((tmp_path / "compiled" / "embft.json").read_text())["settings"]["compile"] is True


def test_compiling_without_a_compiler_is_one_sentence(tiny_model_path, tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(
        ConfigError, match=r"compile=True needs a C\+\+ compiler on a CPU, and there is no no-such-compiler"
    ):
        SentenceTransformersFinetuneEngine(
            make_dataset(), tiny_model_path, str(tmp_path / "m"), hardware=HardwareSettings(compile=True), device="cpu"
        )
