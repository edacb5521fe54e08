"""The engines' settings: defaults stand in two places and agree, objects are frozen and loaded without torch."""

from __future__ import annotations

import inspect
import subprocess
import sys
from dataclasses import FrozenInstanceError, fields

import pytest

from llama_index_embft.finetune import EmbeddingAdapterFinetuneEngine, NudgeFinetuneEngine
from llama_index_embft.finetune.adapter import AdapterOptions
from llama_index_embft.finetune.adapter.settings import SETTINGS as OF_ADAPTERS
from llama_index_embft.finetune.drift.settings import SETTINGS as OF_DRIFT
from llama_index_embft.finetune.nudge import NudgeOptions
from llama_index_embft.finetune.nudge.settings import SETTINGS as OF_NUDGE


@pytest.mark.parametrize(
    ("engine", "options", "settings", "most"),
    [
        (EmbeddingAdapterFinetuneEngine, AdapterOptions, OF_ADAPTERS, 20),
        (NudgeFinetuneEngine, NudgeOptions, OF_NUDGE, 9),
    ],
)
def test_plain_options_have_the_debroken_rules_the_engine(engine, options, settings, most):
    parameters = dict(inspect.signature(engine).parameters)
    assert len(parameters) <= most
    for field in fields(options):
        assert parameters[field.name].default == field.default
    for one in settings:
        [parameter] = [p for p in parameters.values() if one.__name__ in str(p.annotation).split(" ")]
        assert parameter.kind is parameter.KEYWORD_ONLY
        assert parameter.default is None


def test_the_stock_arguments_come_first_and_in_order():
    stock = ["dataset", "embed_model", "batch_size", "epochs", "adapter_model", "dim", "device", "model_output_path"]
    stock += ["model_checkpoint_path", "checkpoint_save_steps", "verbose", "bias"]
    parameters = inspect.signature(EmbeddingAdapterFinetuneEngine).parameters.values()
    assert [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD] == stock


def test_fields_have_help_and_cannot_be_set():
    names = [field.name for one in (*OF_ADAPTERS, AdapterOptions) for field in fields(one)]
    assert len(names) == len(set(names))
    for one in (*OF_ADAPTERS, *OF_NUDGE, *OF_DRIFT, AdapterOptions, NudgeOptions):
        assert all(field.metadata["help"].endswith(".") for field in fields(one))
        with pytest.raises(FrozenInstanceError):
            setattr(one(), fields(one)[0].name, None)


def test_settings_load_no_torch():
    code = "import sys; {}; assert not {{'torch', 'llama_index.core'}} & set(sys.modules)"
    imports = "; ".join(f"import llama_index_embft.finetune.{name}.settings" for name in ("adapter", "nudge", "drift"))
    subprocess.run([sys.executable, "-c", code.format(imports)], check=True)
