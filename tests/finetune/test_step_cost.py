"""What a training step and an encoded batch cost beside the model, as counts: no clock, so nothing to be late for."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Transformer
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoConfig, AutoModel, TrainerCallback

from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
from llama_index_embft.embeddings.encoding import masks
from llama_index_embft.embeddings.encoding.batching import encode_texts
from llama_index_embft.embeddings.encoding.tokenizing import preprocess
from llama_index_embft.finetune import HardwareSettings, SentenceTransformersFinetuneEngine
from llama_index_embft.finetune.full.training import trainer as trainer_module
from llama_index_embft.finetune.running.tokens import KeptTokens, read_ahead

# On a GPU each of these waits until all work that was sent there is done.
WAITS = {"aten::_local_scalar_dense", "aten::is_nonzero", "aten::nonzero", "aten::masked_select", "aten::equal"}
TEXTS = ["one", "the second text is longer", "a third, of some length", "one", ""]


class Counted(TorchDispatchMode):
    """Counts what is sent to the device."""

    def __init__(self) -> None:
        super().__init__()
        self.all = 0
        self.waits: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.all += 1
        if func.name() in WAITS:
            self.waits[func.name()] += 1
        return func(*args, **(kwargs or {}))


class EachStep(TrainerCallback):
    """Counts each step of a trainer, and the calls of the tokenizer in each epoch."""

    def __init__(self, calls: list[int]) -> None:
        self.steps: list[Counted] = []
        self.calls = calls
        self.read: list[int] = []  # texts by epoch

    def on_epoch_begin(self, *args: Any, **kwargs: Any) -> None:
        self.calls.clear()

    def on_epoch_end(self, *args: Any, **kwargs: Any) -> None:
        self.read.append(sum(self.calls))

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self.steps.append(Counted())
        self.steps[-1].__enter__()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.steps[-1].__exit__(None, None, None)


@pytest.fixture
def model(tiny_model_path) -> SentenceTransformer:
    return SentenceTransformer(tiny_model_path, device="cpu")


@pytest.fixture
def calls(monkeypatch) -> list[int]:
    """Texts of each call of the tokenizer."""
    seen: list[int] = []
    original = Transformer.preprocess

    def counted(self: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(len(inputs))
        return original(self, inputs, *args, **kwargs)

    monkeypatch.setattr(Transformer, "preprocess", counted)
    return seen


def rows(n: int = 32) -> EmbeddingQAFinetuneDataset:
    return EmbeddingQAFinetuneDataset(
        queries={f"q{k}": f"where is number {k}" for k in range(n)},
        corpus={f"d{k}": f"number {k} stands in room {k * 7 % n} of the house" for k in range(n)},
        relevant_docs={f"q{k}": [f"d{k}"] for k in range(n)},
    )


def same(found: dict[str, Any], expected: dict[str, Any]) -> bool:
    return found.keys() == expected.keys() and all(
        torch.equal(found[name], value) and found[name].dtype == value.dtype
        if isinstance(value, torch.Tensor)
        else found[name] == value
        for name, value in expected.items()
    )


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("prompt", [None, "query: "])
def test_kept_tokens_are_what_the_tokenizer_gives(model, prompt, side, calls):
    model.tokenizer.padding_side = side
    tokens = KeptTokens(model)
    for batch in (TEXTS, TEXTS[::-1], [*TEXTS[:1], "new"], TEXTS[1:3]):
        assert same(tokens(batch, prompt=prompt), preprocess(model, batch, prompt))
    before = len(calls)
    tokens([*TEXTS, "new"], prompt=prompt)
    assert len(calls) == before
    tokens(TEXTS, prompt="another: ")  # a prompt is part of the text
    assert calls[before] == len(set(TEXTS))


def test_pairs_are_kept_as_pairs(tiny_model_path):
    reranker = CrossEncoder(tiny_model_path, device="cpu", num_labels=1)
    tokens = KeptTokens(reranker)
    for pairs in ([["a b", "c"], ["a", "b c"]], [("a", "b c"), ("a b", "c"), ("longer than these", "two")]):
        assert same(tokens(pairs), preprocess(reranker, pairs))


def test_what_has_no_room_is_read_each_time(model, calls):
    tokens = KeptTokens(model, most_bytes=4)
    tokens(TEXTS)
    assert tokens.full
    expected = preprocess(model, ["unseen", *TEXTS])
    calls.clear()
    assert same(tokens(["unseen", *TEXTS]), expected)
    assert calls == [len(TEXTS) + 1]


def test_batches_are_read_ahead_and_none_twice(model, calls):
    tokens, seen = KeptTokens(model), []

    def collate(batch: list[dict[str, str]]) -> None:
        tokens([row["anchor"] for row in batch])
        seen.append(len(batch))

    data = [{"anchor": f"text {k}"} for k in range(10)]
    with read_ahead(tokens, collate, data, [[0, 1, 2], [3, 4], [5]]):
        while len(seen) < 3:
            pass
    calls.clear()
    tokens([f"text {k}" for k in range(6)])
    assert calls == []


def test_a_mask_that_nobody_looks_at_gives_the_same_vectors(model):
    for texts in (TEXTS, ["equal size", "just so so"]):
        features = model.preprocess(texts)
        expected = model(dict(features))["sentence_embedding"]
        with masks.masks_without_looking(model), masks.masks_without_looking(model), Counted() as counted:
            found = model(dict(features))["sentence_embedding"]
        assert torch.equal(found, expected)
        assert not counted.waits
    with Counted() as counted:
        model(model.preprocess(TEXTS))
    assert counted.waits  # so that the count above can fail


@pytest.mark.parametrize("kind", ["bert", "roberta", "xlm-roberta", "camembert", "electra"])
def test_each_kind_of_encoder_takes_the_mask_as_a_matrix(kind):
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        kind, vocab_size=50, hidden_size=16, embedding_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=40, attn_implementation="sdpa",
    )  # fmt: skip
    model = AutoModel.from_config(config).eval()
    ids = torch.randint(5, 50, (3, 9))
    mask = (torch.arange(9) < torch.tensor([[9], [4], [6]])).long()
    with torch.no_grad():
        expected = model(input_ids=ids, attention_mask=mask).last_hidden_state
        matrix = mask.bool()[:, None, None, :].expand(3, 1, 9, 9)
        with Counted() as counted:
            found = model(input_ids=ids, attention_mask=matrix).last_hidden_state
    assert torch.equal(found, expected)
    assert not counted.waits


def test_a_step_reads_no_text_again_and_waits_for_nothing(tiny_model_path, tmp_path, monkeypatch, calls):
    """As on a GPU: the whole batch at once, with masks that nobody looks at."""
    watch = EachStep(calls)
    original = trainer_module.EngineTrainer.__init__
    trainers = []

    def watched(self: Any, **options: Any) -> None:
        original(self, **options)
        self.add_callback(watch)
        self.ahead, self.look_every = True, 100
        trainers.append(self)

    monkeypatch.setattr(trainer_module.EngineTrainer, "__init__", watched)
    engine = SentenceTransformersFinetuneEngine(
        rows(), tiny_model_path, str(tmp_path / "m"), epochs=2, batch_size=16, show_progress_bar=False, device="cpu",
        hardware=HardwareSettings(mini_batch_size=16),
    )  # fmt: skip
    engine.finetune()
    (trainer,) = trainers
    assert [dict(step.waits) for step in watch.steps] == [{}] * 4
    assert max(step.all for step in watch.steps[1:]) <= 650
    assert watch.read[1] == 0
    assert [sorted(batch) for batch in trainer.first_batches()] == [sorted(batch) for batch in trainer.plan.epoch(0)]
    assert not [one for one in threading.enumerate() if one.name == "read-ahead"]


def test_an_encoded_batch_waits_for_nothing(model):
    texts = [f"text number {k} " * (1 + k % 9) for k in range(200)]
    with masks.masks_without_looking(model), Counted() as few:
        encode_texts(model, texts[:100], tokens_per_batch=256)
    with masks.masks_without_looking(model), Counted() as many:
        encode_texts(model, texts, tokens_per_batch=256)
    assert few.waits == many.waits  # what is looked at is looked at once a block, on the host
