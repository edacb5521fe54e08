"""Merging: between base and tuned on the straight line, best on validation within the guard's limit."""

from __future__ import annotations

import copy

import pytest
import torch
from sentence_transformers import SentenceTransformer

from llama_index_embft.errors import ConfigError, ModelError
from llama_index_embft.finetune import choose_merge, merge_models
from llama_index_embft.finetune.full.merging.interpolation import WEIGHTS


@pytest.fixture
def model(tiny_model_path):
    return SentenceTransformer(tiny_model_path, device="cpu")


def clone(model):
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def moved(weights, by=1.0):
    return {name: t + by if t.is_floating_point() else t + 1 for name, t in weights.items()}


class Measured:
    """Stands in for an evaluation: a metric that depends on how far the model has gone from its base."""

    def __init__(self, model, base, curve):
        self.model, self.curve, self.calls = model, curve, []
        self.name = next(name for name, tensor in base.items() if tensor.is_floating_point())
        self.base = base[self.name]

    def __call__(self):
        far = round(float((self.model.state_dict()[self.name] - self.base).mean()), 4)
        self.calls.append(far)
        return {"ndcg@10": self.curve(far), "mrr@10": 0.5}


def choose(model, val, guard=None, **options):
    base = clone(model)
    tuned = moved(base)
    evaluate = Measured(model, base, val)
    evaluate_guard = Measured(model, base, guard) if guard else None
    choice = choose_merge(model, base, tuned, evaluate, evaluate_guard, **options)
    return choice, evaluate, evaluate_guard, base, tuned


def test_without_a_guard_the_best_on_validation_wins_and_is_loaded(model):
    choice, evaluate, _, base, tuned = choose(model, lambda far: 1 - abs(far - 0.7))
    assert choice.weight == 0.7
    assert [point["weight"] for point in choice.curve] == list(WEIGHTS)
    assert evaluate.calls == pytest.approx(WEIGHTS, abs=1e-3)  # once a weight, at that weight
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            assert torch.allclose(tensor, 0.3 * base[name] + 0.7 * tuned[name], atol=1e-5)
        else:
            assert torch.equal(tensor, tuned[name])


def test_the_guard_limits_how_far_it_goes(model):
    # Validation rises all the way, the guard falls by 0.002 a step of a tenth: 0.2 is the last within 0.005.
    choice, _, guard, *_ = choose(model, lambda far: far, lambda far: 0.9 - 0.02 * far)
    assert choice.weight == 0.2
    assert len(guard.calls) == 11
    assert choice.curve[10]["guard_ndcg@10"] == pytest.approx(0.88)
    assert choice.curve[10]["guard_mrr@10"] == 0.5


def test_exactly_at_the_limit_is_within_it(model):
    choice, *_ = choose(model, lambda far: far, lambda far: 0.970 - 0.005 * far, weights=[1.0])
    assert choice.weight == 1.0  # 0.970 - 0.965 > 0.005 in floating point


def test_ties_take_the_smaller_weight(model):
    assert choose(model, lambda far: 0.5)[0].weight == 0.0
    assert choose(model, lambda far: min(far, 0.4))[0].weight == 0.4


def test_a_guard_that_only_falls_gives_the_base_back_bit_for_bit(model):
    choice, _, _, base, _ = choose(model, lambda far: far, lambda far: 1.0 - far, max_guard_loss=0.0)
    assert choice.weight == 0.0
    assert all(torch.equal(tensor, base[name]) for name, tensor in model.state_dict().items())


def test_the_whole_way_is_the_tuned_model_bit_for_bit(model):
    choice, _, _, _, tuned = choose(model, lambda far: far)
    assert choice.weight == 1.0
    assert all(torch.equal(tensor, tuned[name]) for name, tensor in model.state_dict().items())


def test_the_base_is_added_and_the_order_does_not_matter(model):
    choice, evaluate, *_ = choose(model, lambda far: -far, weights=[1, 0.5, 0.5])
    assert choice.weight == 0.0
    assert [point["weight"] for point in choice.curve] == [0.0, 0.5, 1.0]
    assert len(evaluate.calls) == 3


def test_not_a_number_disqualifies(model):
    nan = float("nan")
    assert choose(model, lambda far: nan if far > 0.45 else far)[0].weight == 0.4
    assert choose(model, lambda far: far, lambda far: nan if far > 0.55 else 1.0)[0].weight == 0.5
    assert choose(model, lambda far: nan if far < 0.05 else far / 2)[0].weight == 1.0


def test_half_precision_is_interpolated_in_float32(model):
    model.to(torch.bfloat16)
    base = clone(model)
    tuned = {n: (t * 1.01).to(t.dtype) if t.is_floating_point() else t for n, t in base.items()}
    choose_merge(model, base, tuned, lambda: {"ndcg@10": 0.5}, None, weights=[0.3])
    evaluated = []

    def look():
        evaluated.append(clone(model))
        return {"ndcg@10": float(len(evaluated))}

    assert choose_merge(model, base, tuned, look, None, weights=[0.3]).weight == 0.3
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == base[name].dtype
        if tensor.is_floating_point():
            assert torch.equal(tensor, torch.lerp(base[name].float(), tuned[name].float(), 0.3).to(torch.bfloat16))


def test_a_failing_evaluation_leaves_the_tuned_weights(model):
    base = clone(model)
    tuned = moved(base)
    calls = []

    def fails():
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return {"ndcg@10": 0.1}

    with pytest.raises(KeyboardInterrupt):
        choose_merge(model, base, tuned, fails, None)
    assert all(torch.equal(tensor, tuned[name]) for name, tensor in model.state_dict().items())


def test_weights_of_another_model_are_refused_before_anything_is_evaluated(model):
    base = clone(model)
    first = min(base)

    def never():
        raise AssertionError("evaluated")

    lacking = {name: tensor for name, tensor in base.items() if name != first}
    with pytest.raises(
        ModelError, match=rf"1 tensor\(s\) of the base weights are missing in the tuned weights \(first: {first}"
    ):
        choose_merge(model, base, lacking, never, None)
    with pytest.raises(ModelError, match=r"1 tensor\(s\) of the tuned weights are missing in the base"):
        choose_merge(model, base, base | {"more": torch.zeros(1)}, never, None)
    with pytest.raises(ModelError, match=r"has shape .* merge only a model with its own fine-tuned descendant"):
        choose_merge(model, base, base | {first: torch.zeros(3, 3)}, never, None)
    more = base | {"more": torch.zeros(1)}
    with pytest.raises(ModelError, match="missing in the model"):
        choose_merge(model, more, more, never, None)
    assert all(torch.equal(tensor, base[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": [0.5, 1.5]}, "`weight` is 1.5; it must be at least 0"),
        ({"weights": [float("nan")]}, "`weight` is nan; it must be"),
        ({"max_guard_loss": -0.1}, "`max_guard_loss` is -0.1"),
        ({"metric": "ndcg@7"}, "The validation set is not measured by ndcg@7; choose one of ndcg@10, mrr@10"),
    ],
)
def test_bad_arguments(model, options, message):
    with pytest.raises(ConfigError, match=message):
        choose(model, lambda far: far, **options)


def test_two_folders(tiny_model_path, model, tmp_path):
    tuned = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in tuned.parameters():
            parameter.add_(0.5)
    tuned.prompts = {"query": "ask: "}
    tuned.max_seq_length = 33
    tuned.save_pretrained(str(tmp_path / "tuned"), create_model_card=False)
    merged = merge_models(tiny_model_path, tmp_path / "tuned", 0.4)
    for name, tensor in merged.state_dict().items():
        expected = torch.lerp(model.state_dict()[name].float(), tuned.state_dict()[name].float(), 0.4)
        assert torch.allclose(tensor.float(), expected, atol=1e-6)
    assert merged.prompts["query"] == "ask: "
    assert merged.max_seq_length == 33
    again = merge_models(model, tuned, 0.0)
    assert torch.equal(
        again.encode("a red cat", convert_to_tensor=True), model.encode("a red cat", convert_to_tensor=True)
    )
    assert again is not tuned


def test_two_folders_that_do_not_fit(tiny_model_path, model, tmp_path):
    from sentence_transformers.sentence_transformer.modules import Dense

    other = SentenceTransformer(modules=[*model, Dense(32, 8)], device="cpu")
    with pytest.raises(ModelError, match=r"Cannot merge: \d+ tensor\(s\) of the tuned model are missing in .*model "):
        merge_models(tiny_model_path, other)
    with pytest.raises(ModelError, match="does not exist"):
        merge_models(tiny_model_path, tmp_path / "no" / "model")
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="it is an adapter"):
        merge_models(tiny_model_path, tmp_path / "adapter")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="cannot be loaded"):
        merge_models(tiny_model_path, tmp_path / "empty")
    with pytest.raises(ConfigError, match="`weight` is 2"):
        merge_models(tiny_model_path, tiny_model_path, 2)
