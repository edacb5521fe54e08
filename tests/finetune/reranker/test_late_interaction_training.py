"""Token vectors of an embedding model are trained to rank: the loss, the engine, and what comes out of it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_reranker_engine import engine, make_data
from torch.nn.functional import cross_entropy

from llama_index_embft.embeddings import load_embed_model
from llama_index_embft.embeddings.encoding.token_vectors import encode_tokens
from llama_index_embft.errors import ConfigError, ModelError, TrainingError
from llama_index_embft.finetune import HardwareSettings, LoraSettings, RerankerFinetuneEngine, RerankerSettings
from llama_index_embft.finetune.reranker.late_interaction import InBatchLoss, open_late_interaction
from llama_index_embft.mining import CrossEncoder, mine_hard_negatives
from llama_index_embft.retrievers import LateInteractionReranker, load_reranker

QUERIES = ["which amber report", "which cedar bridge of the north"]
LISTS = [
    ["the amber report is closed", "the delta report"],
    ["a cedar bridge", "the amber report is closed", "a grove"],
]
GRADES = [torch.tensor([2.0, 0.0]), torch.tensor([1.0, 0.0, 1.0])]


def late(model: str, out: object, **options) -> RerankerFinetuneEngine:
    return engine(model, out, **{"kind": "late-interaction", **options})


@pytest.fixture
def opened(tiny_model_path):
    model = open_late_interaction(tiny_model_path, device="cpu", max_length=None, trust_remote_code=False)
    return model.eval()


def plain_logits(opened, queries: list[str], texts: list[str]) -> torch.Tensor:
    """40 times the mean over a query's tokens of the best cosine in a text."""
    model = opened.scorer.model
    asked, found = encode_tokens(model, queries), encode_tokens(model, texts)
    rows = [[(q.astype(np.float32) @ t.astype(np.float32).T).max(1).mean() for t in found] for q in asked]
    return 40 * torch.tensor(rows)


def test_the_loss_compares_with_all_passages_of_the_batch_but_those_that_answer_too(opened):
    texts = list(dict.fromkeys(text for some in LISTS for text in some))
    logits = plain_logits(opened, QUERIES, texts)
    targets = torch.tensor([[1.0, 0, 0, 0], [0, 0, 0.5, 0.5]])
    assert InBatchLoss(opened)([QUERIES, LISTS], GRADES).item() == pytest.approx(
        cross_entropy(logits, targets).item(), abs=2e-2
    )
    # "a grove" answers the first question as well; what is in a question's own list is not barred by it.
    forbidden = {QUERIES[0]: frozenset({"a grove", LISTS[0][0]})}
    logits[0, texts.index("a grove")] = -1e4
    assert InBatchLoss(opened, forbidden)([QUERIES, LISTS], GRADES).item() == pytest.approx(
        cross_entropy(logits, targets).item(), abs=2e-2
    )


def test_reading_in_parts_changes_neither_the_loss_nor_its_gradients(opened):
    found = []
    for at_once in (None, 1):
        opened.zero_grad()
        loss = InBatchLoss(opened, mini_batch_size=at_once)([QUERIES, LISTS], GRADES)
        loss.backward()
        found.append((loss.item(), [p.grad.clone() for p in opened.parameters() if p.grad is not None]))
    (whole, gradients), (parts, others) = found
    assert whole == pytest.approx(parts, rel=1e-5)
    assert len(gradients) == len(others) > 0
    for one, other in zip(gradients, others, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
    assert max(float(one.abs().max()) for one in gradients) > 0


def test_pairs_are_scored_in_training_as_in_use(opened):
    pairs = [(query, text) for query, some in zip(QUERIES, LISTS, strict=True) for text in some]
    with torch.no_grad():
        trained = opened(opened.preprocess(pairs))["scores"]
    expected = [plain_logits(opened, [query], [text]).item() for query, text in pairs]
    assert trained.tolist() == pytest.approx(expected, abs=2e-2)
    used = opened.predict(pairs)
    for rows in (slice(0, 2), slice(2, 5)):
        assert np.argsort(used[rows]).tolist() == np.argsort(trained[rows].numpy()).tolist()


def test_an_embedding_model_is_trained_for_late_interaction_and_learns(tiny_model_path, tmp_path):
    made = engine(tiny_model_path, tmp_path / "m", kind="auto", epochs=10)
    assert made.late
    assert (made.settings.loss, made.settings.kind) == ("in_batch", "late-interaction")
    result = made.finetune()
    assert result.best_score >= max(result.base_score, result.first_stage_score)
    assert result.history[0]["step"] == 0  # an embedding model ranks before any training
    assert result.alone_score > result.history[0]["ndcg@10_alone"] + 0.05  # BM25 cannot tell right from wrong
    reranker = made.get_finetuned_model(top_n=2)
    assert isinstance(reranker, LateInteractionReranker)
    assert (reranker.weight, reranker.top_n) == (result.weight, 2)
    pairs = [(QUERIES[0], text) for text in LISTS[1]]
    assert reranker.scores(QUERIES[0], LISTS[1]).tolist() == pytest.approx(made.model.predict(pairs).tolist(), abs=1e-3)
    record = json.loads((tmp_path / "m" / "embft.json").read_text())
    assert record["base"]["class_name"] == "SentenceTransformer"
    assert record["base_fingerprint"] != reranker._model.fingerprint
    card = (tmp_path / "m" / "README.md").read_text()
    assert "late-interaction" in card
    assert "load_reranker" in card
    assert "CrossEncoder(" not in card


def test_what_was_trained_before_is_what_there_is_to_beat(tiny_model_path, tmp_path):
    late(tiny_model_path, tmp_path / "first", epochs=8).finetune()
    again = engine(str(tmp_path / "first"), tmp_path / "second", kind="auto", epochs=1, learning_rate=1e-7)
    assert again.late
    first = json.loads((tmp_path / "first" / "embft.json").read_text())["metrics"]["best"]
    assert again.finetune().base_score == pytest.approx(first, abs=1e-6)


def test_the_size_of_parts_leaves_all_passages_of_a_batch_to_compare_with(tiny_model_path, tmp_path):
    for name, at_once in (("whole", None), ("parts", 1)):
        hardware = HardwareSettings(mini_batch_size=at_once, hidden_dropout=False)
        late(tiny_model_path, tmp_path / name, epochs=1, hardware=hardware, val_dataset=None).finetune()
    whole, parts = (load_file(str(tmp_path / name / "model.safetensors")) for name in ("whole", "parts"))
    for name, weights in whole.items():
        torch.testing.assert_close(parts[name], weights, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("loss", ["list_net", "lambda", "rank_net"])
def test_losses_over_lists_train_it_too(loss, tiny_model_path, tmp_path):
    result = late(tiny_model_path, tmp_path / "m", loss=loss, epochs=1).finetune()
    assert result.best_score >= result.base_score
    assert json.loads((tmp_path / "m" / "embft.json").read_text())["settings"]["loss"] == loss


def test_lora_adds_up_to_a_plain_embedding_model(tiny_model_path, tmp_path):
    made = late(tiny_model_path, tmp_path / "m", method="lora", lora=LoraSettings(rank=4, alpha=8), val_dataset=None)
    before = {name: value.clone() for name, value in made.model.state_dict().items()}
    made.guard_dataset = make_data(4, 24)
    result = made.finetune()
    # Nothing says how much it counts: it gets the share that it has untrained, and the guard is measured with that.
    assert result.weight == made.get_finetuned_model().weight == LateInteractionReranker.prior
    guard = made._validation(made.guard_dataset)
    assert result.guard_score == pytest.approx(guard.mixed(made.model, LateInteractionReranker.prior))
    after = load_file(str(tmp_path / "m" / "model.safetensors"))
    assert set(after) <= {name.removeprefix("0.model.") for name in before}
    assert any(not torch.equal(after[name], before[f"0.model.{name}"]) for name in after)


def test_a_stopped_run_goes_on_to_the_same_weights(tiny_model_path, tmp_path, monkeypatch):
    from llama_index_embft.finetune.running import callbacks

    monkeypatch.chdir(tmp_path)
    late(tiny_model_path, "whole", save_checkpoints=True, checkpoint_save_steps=3).finetune()
    original = callbacks.BestStateCallback.on_step_end

    def stop(self, args, state, control, **kwargs):
        self.interrupted = self.interrupted or state.global_step == 5
        return original(self, args, state, control, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(callbacks.BestStateCallback, "on_step_end", stop)
        with pytest.raises(TrainingError, match="Stopped by Ctrl-C after step 5 of 8"):
            late(tiny_model_path, "m", save_checkpoints=True, checkpoint_save_steps=3).finetune()
    late(tiny_model_path, "m", resume_from_checkpoint=True).finetune()
    found, expected = (load_file(f"{name}/model.safetensors") for name in ("m", "whole"))
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_what_is_trained_teaches_by_its_folder_and_its_scores_are_kept(tiny_model_path, tmp_path, monkeypatch):
    late(tiny_model_path, tmp_path / "m", epochs=1).finetune()
    data = make_data(4)
    strategies = ["rank:1-6", f"cross-encoder:{tmp_path / 'm'}"]
    model = load_embed_model(tiny_model_path, device="cpu")
    mined = mine_hard_negatives(data, model, strategies, 1, show_progress=False)
    reranker = load_reranker(tmp_path / "m")
    for query, scores in mined.teacher_scores.items():
        expected = reranker.scores(data.queries[query], [data.corpus[doc] for doc in scores])
        assert list(scores.values()) == pytest.approx(expected.tolist(), abs=1e-3)
    record = tmp_path / "m" / "embft.json"
    said = record.read_text()
    record.write_text(said.replace('"cache_mb": 512', '"cache_mb": 7'))  # it decides no score
    monkeypatch.setattr(CrossEncoder, "_predict", None)  # a second run reads nothing
    assert mine_hard_negatives(data, model, strategies, 1, show_progress=False) == mined
    record.write_text(said.replace('"routes": true', '"routes": 3'))
    with pytest.raises(ModelError, match=r"is damaged \(its entry of late interaction\)"):
        mine_hard_negatives(data, model, strategies, 1, show_progress=False)


def test_what_does_not_go_together_is_said(tiny_model_path, tmp_path, monkeypatch):
    with pytest.raises(
        ConfigError, match="`loss` is 'bce', which is not for a reranker of the kind 'late-interaction'"
    ):
        late(tiny_model_path, tmp_path / "m", loss="bce")
    with pytest.raises(ConfigError, match="`loss` is 'in_batch', which is not for a reranker of the kind 'cross-enc"):
        engine(tiny_model_path, tmp_path / "m", loss="in_batch")
    with pytest.raises(ConfigError, match="`kind` is 'colbert'"):
        RerankerSettings(kind="colbert")
    with pytest.raises(ConfigError, match="`compile` is for cross-encoders"):
        late(tiny_model_path, tmp_path / "m", hardware=HardwareSettings(compile=True))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="trained by one process"):
        engine(tiny_model_path, tmp_path / "m")
    monkeypatch.delenv("WORLD_SIZE")
    engine(tiny_model_path, tmp_path / "pairs", epochs=1).finetune()
    with pytest.raises(ModelError, match="is a cross-encoder, which was not made to compare the vectors of tokens"):
        late(str(tmp_path / "pairs"), tmp_path / "m")
