"""Fingerprints that are kept on disk: of all that decides vectors, of nothing else, and the same in every version."""

from __future__ import annotations

import hashlib
import json
import linecache
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import torch
from tokenizers import AddedToken
from torch import nn

from llama_index_embft.embeddings.fingerprint import (
    fingerprint_module,
    fingerprint_sentence_transformer,
    hash_files,
    hash_parts,
    state_of_weights,
)


def blake(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def test_parts_are_hashed_with_their_lengths_in_bytes() -> None:
    expected = b"\x03\0\0\0\0\0\0\0a\xc3\xa9" + b"\0" * 8 + b"\x03\0\0\0\0\0\0\0\xed\xa0\x80"
    assert hash_parts("aé", "", "\ud800") == blake(expected)  # the last is half a character


def test_files_are_hashed_with_their_names_and_lengths(tmp_path) -> None:
    for name, content in (("a", b"one"), ("b", b"")):
        (tmp_path / name).write_bytes(content)
    assert hash_files([tmp_path / "a", tmp_path / "b"]) == blake(b"a\n3\none" + b"b\n0\n")


def test_modules_are_hashed_with_names_shapes_types_and_values() -> None:
    module = nn.Module()
    module.weight = nn.Parameter(torch.tensor([[1.0, 2.0], [3.0, 4.0]]).t())  # laid out by columns
    module.register_buffer("an", torch.tensor([], dtype=torch.int32))
    values = torch.tensor([1.0, 3.0, 2.0, 4.0]).numpy().tobytes()
    assert fingerprint_module(module) == blake(b"an(0,)torch.int32" + b"weight(2, 2)torch.float32" + values)


# --- whole models ---------------------------------------------------------------------------------------------------


class Fields:
    """An object with these fields."""

    def __init__(self, **fields) -> None:
        vars(self).update(fields)


class Part(nn.Module):
    """A module of a SentenceTransformer, with what such modules say of themselves."""

    def __init__(self, config=None, **fields) -> None:
        super().__init__()
        if config is not None:
            self.get_config_dict = lambda: config
        for name, value in fields.items():
            object.__setattr__(self, name, value)


class Whole(nn.Module):
    def __init__(self, *parts: nn.Module, max_seq_length: int | None = 64, **fields) -> None:
        super().__init__()
        self.max_seq_length = max_seq_length
        for name, value in fields.items():
            setattr(self, name, value)
        for number, part in enumerate(parts):
            self.add_module(str(number), part)


Part.__module__ = Whole.__module__ = "sentence_transformers.stand_ins"  # what they do is known by name


def expected(settings: list, model: nn.Module) -> str:
    return hash_parts(json.dumps(settings, sort_keys=True), fingerprint_module(model))


def fingerprint(*parts: nn.Module, normalize: bool = True, **fields) -> str | None:
    return fingerprint_sentence_transformer(Whole(*parts, **fields), normalize=normalize)


def test_a_model_is_its_settings_its_modules_and_its_weights() -> None:
    pooling = Part({"pooling": "mean", "cls": False, "modality_config": {"a": 1}, "transformer_task": "x"})
    weights = Part(max_seq_length=32)
    weights.linear = nn.Linear(2, 2)
    model = Whole(pooling, weights, Part({"width": 3}, max_seq_length=16), truncate_dim=8)
    settings = [True, 64, 8, ["0", "Part", None, {"pooling": "mean"}], ["2", "Part", 16, {"width": 3}]]
    assert fingerprint_sentence_transformer(model, normalize=True) == expected(settings, model)
    settings[0] = False
    assert fingerprint_sentence_transformer(model, normalize=False) == expected(settings, model)
    bare = Whole(max_seq_length=None)
    assert fingerprint_sentence_transformer(bare, normalize=True) == expected([True, None, None], bare)


class Configuration:
    """A configuration as transformers has it: all of it, or what differs from the defaults."""

    def __init__(self, **different) -> None:
        self.different = different

    def to_dict(self) -> dict:
        return {**self.different, "a_default": 1}

    def to_diff_dict(self) -> dict:
        return self.different


def transformer(config, peft=None) -> Part:
    inner = nn.Module()
    object.__setattr__(inner, "config", config)
    if peft is not None:
        object.__setattr__(inner, "peft_config", peft)
    return Part(auto_model=inner)


def test_a_configuration_counts_where_it_differs_and_decides() -> None:
    text = Configuration(width=8, attention_dropout=0.1, dtype="float32")
    given = Configuration(hidden_act="relu", hidden_dropout_prob=0.1, _name_or_path="x", text=text, layers={3: "a"})
    plain = Fields(to_dict=lambda: {"r": 4, "lora_dropout": 0.1})
    model = Whole(transformer(given, {"default": plain}))
    described = {
        "config": {"hidden_act": "relu", "layers": {"3": "a"}, "text": {"width": 8}},
        "graph": "",
        "peft": {"default": {"r": 4}},
    }
    assert fingerprint_sentence_transformer(model, normalize=True) == expected(
        [True, 64, None, ["0", "Part", None, described]], model
    )
    bare = Whole(Part(auto_model=nn.Module()))
    nothing = {"config": None, "graph": "", "peft": None}
    assert fingerprint_sentence_transformer(bare, normalize=True) == expected(
        [True, 64, None, ["0", "Part", None, nothing]], bare
    )


class Backend:
    """A fast tokenizer."""

    def __init__(self, **state) -> None:
        self.state = state

    def to_str(self) -> str:
        return json.dumps(self.state)


def of_tokenizer(tokenizer, state, sides=(None, None, None), limit=None) -> bool:
    """Whether a tokenizer's part of the fingerprint is this."""
    model = Whole(Part(tokenizer=tokenizer))
    hashed = hash_parts(json.dumps([state, list(sides), limit], sort_keys=True))
    return fingerprint_sentence_transformer(model, normalize=True) == expected(
        [True, 64, None, ["0", "Part", None, {"tokenizer": hashed}]], model
    )


def test_a_tokenizer_counts_whole_but_for_what_the_last_call_used() -> None:
    backend = Backend(model={"vocab": {"a": 1}}, padding={"length": 3}, truncation={"max_length": 9})
    state = {"model": {"vocab": {"a": 1}}}
    assert of_tokenizer(backend, state)  # a bare one, as static models have
    assert of_tokenizer(Backend(**state), state)
    wrapped = Fields(
        backend_tokenizer=backend, padding_side="left", truncation_side="right", pad_token="<p>", model_max_length=512
    )
    assert of_tokenizer(wrapped, state, ("left", "right", "<p>"), 512)
    for unlimited in (1_000_000, 10**30, 1e30, None):
        assert of_tokenizer(Fields(backend_tokenizer=backend, model_max_length=unlimited), state)
    assert of_tokenizer(Fields(backend_tokenizer=backend, model_max_length=999_999), state, limit=999_999)


def test_what_is_no_json_counts_by_its_text_and_order_does_not_count() -> None:
    odd = Part({"place": Path("weights"), "pooling": "mean"})
    described = {"place": "weights", "pooling": "mean"}
    assert fingerprint(odd) == expected([True, 64, None, ["0", "Part", None, described]], Whole(odd))
    token = AddedToken("[PAD]")
    assert of_tokenizer(Fields(backend_tokenizer=Backend(a=1), pad_token=token), {"a": 1}, (None, None, str(token)))
    one, other = (Whole(Part(tokenizer=Backend(**state))) for state in ({"a": 1, "b": 2}, {"b": 2, "a": 1}))
    both = {fingerprint_sentence_transformer(model, normalize=True) for model in (one, other)}
    assert len(both) == 1


class Words:
    """A tokenizer of words, with a vocabulary of any kind."""

    def __init__(self, vocabulary, **fields) -> None:
        self._vocabulary = {"of": vocabulary}
        vars(self).update(fields)

    def get_vocab(self):
        return self._vocabulary["of"]


def test_a_tokenizer_of_words_counts_by_its_fields() -> None:
    fields = {"lower": True, "n": 3, "name": "x"}
    state = ["Words", [["a", 1], ["b", 0]], fields, ["and", "the"]]
    assert of_tokenizer(Words({"b": 0, "a": 1}, stop_words={"the", "and"}, **fields), state)
    assert of_tokenizer(Words(["b", "a"]), ["Words", ["b", "a"], {}, []])  # the order is that of the vectors
    assert of_tokenizer(Words(["b"], stop_words=None), ["Words", ["b"], {}, []])
    assert of_tokenizer(Fields(lower=False), ["Fields", [], {"lower": False}, []])


def test_a_tokenizer_that_two_modules_share_is_read_once() -> None:
    read = []

    class Counted(Backend):
        def to_str(self) -> str:
            read.append(self)
            return super().to_str()

    one, other = Counted(a=1), Counted(a=1)
    assert fingerprint(Part(tokenizer=one), Part(tokenizer=one)) == fingerprint(
        Part(tokenizer=one), Part(tokenizer=other)
    )
    assert len(read) == 3


# --- graphs ---------------------------------------------------------------------------------------------------------


def graph(**places) -> str | None:
    return fingerprint(Part(auto_model=Fields(config=None, **places)))


@pytest.fixture
def folder(tmp_path):
    for name, content in (("model.onnx", "one"), ("model.onnx_data", "weights"), ("config.json", "{}")):
        (tmp_path / name).write_text(content)
    return tmp_path


def test_a_graph_is_its_files_wherever_its_place_is_written(folder) -> None:
    model = Whole(Part(auto_model=Fields(config=None, path=folder / "model.onnx")))
    files = hash_files([folder / "model.onnx", folder / "model.onnx_data"])
    assert fingerprint_sentence_transformer(model, normalize=True) == expected(
        [True, 64, None, ["0", "Part", None, {"config": None, "peft": None, "graph": files}]], model
    )
    found = graph(path=folder / "model.onnx")
    place = str(folder / "model.onnx")
    for name in ("path", "model_path", "_model_path"):
        assert graph(**{name: place}) == found
        assert graph(session=Fields(**{name: place})) == found
        assert graph(model=Fields(**{name: place})) == found
    assert graph(model_save_dir=folder) == graph(path=folder) == found
    assert graph(path=7, model_path=folder / "gone.onnx", model_save_dir=folder) == found


def test_of_a_folder_with_several_graphs_the_named_one_counts(folder) -> None:
    found = graph(path=folder / "model.onnx")
    (folder / "model_q[8].onnx").write_text("small")
    assert graph(path=folder) is None  # nothing says which
    assert graph(path=folder / "model.onnx") == found
    small = graph(path=folder / "model_q[8].onnx")
    assert small not in (None, found)
    (folder / "model_q[8].onnx").write_text("other")
    assert graph(path=folder / "model_q[8].onnx") != small
    assert graph(path=folder) is None
    assert graph() is None
    assert graph(path=folder / "gone.onnx") is None


def test_an_openvino_graph_is_its_xml_and_its_weights(tmp_path) -> None:
    (tmp_path / "openvino_model.xml").write_text("<net/>")
    (tmp_path / "openvino_model.bin").write_bytes(b"1")
    found = graph(model_save_dir=tmp_path)
    assert found is not None
    (tmp_path / "openvino_model.bin").write_bytes(b"2")
    assert graph(model_save_dir=tmp_path) != found
    (tmp_path / "openvino_model.xml").unlink()
    assert graph(model_save_dir=tmp_path) is None  # weights alone are no graph


# --- parts of the user's own ----------------------------------------------------------------------------------------

OWN_PART = """
from torch import nn

class Shift(nn.Module):
    def __init__(self, by, config=None):
        super().__init__()
        self.by, self.last = by, {}
        if config is not None:
            self.get_config_dict = lambda: config

    def forward(self, features):
        features["sentence_embedding"] = features["sentence_embedding"] + self.by
        return features
"""


def shift(folder: Path, code: str, name: str) -> type[nn.Module]:
    """The class of a file, as a user imports it from beside a notebook."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.py").write_text(code)
    spec = spec_from_file_location(name, folder / f"{name}.py")
    sys.modules[name] = module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Shift


def test_a_part_of_the_users_own_counts_by_its_code_and_its_fields(tmp_path) -> None:
    before, again = (shift(tmp_path / name, OWN_PART, f"own_part_{name}") for name in ("one", "two"))
    edited = shift(tmp_path / "three", OWN_PART.replace("+ self.by", "* self.by"), "own_part_three")
    assert fingerprint(before(1.0)) == fingerprint(again(1.0))
    assert len({fingerprint(before(1.0)), fingerprint(before(2.0)), fingerprint(edited(1.0))}) == 3
    assert fingerprint(before(1.0, {"by": 3})) == fingerprint(before(2.0, {"by": 3}))  # its configuration says it
    part = before(1.0)
    source = OWN_PART[OWN_PART.index("class") :]
    described = {"code": hash_parts(source), "fields": {"training": True, "by": 1.0}}
    assert fingerprint(part) == expected([True, 64, None, ["0", "Shift", None, described]], Whole(part))
    # Of a library the name is enough: a new version of it is not another model.
    installed, upgraded = (
        shift(tmp_path / name / "site-packages", code, f"own_part_{name}")
        for name, code in (("four", OWN_PART), ("five", OWN_PART.replace("+ self.by", "* self.by")))
    )
    assert fingerprint(installed(1.0)) == fingerprint(upgraded(2.0))


def test_a_part_whose_code_cannot_be_read_is_not_known(tmp_path) -> None:
    hidden = shift(tmp_path, OWN_PART, "own_part_hidden")
    (tmp_path / "own_part_hidden.py").unlink()
    linecache.clearcache()
    assert fingerprint(hidden(1.0)) is None


def test_the_state_of_weights_is_told_wherever_and_however_they_lie() -> None:
    model = torch.nn.ParameterList([torch.ones(3, 2).t(), torch.ones(()), torch.empty(2, device="meta"), torch.ones(0)])
    before = state_of_weights(model)
    optimizer = torch.optim.AdamW(list(model)[:2], fused=True)  # torch does not count its changes
    (model[0].sum() + model[1]).backward()
    optimizer.step()
    assert state_of_weights(model) != before
    assert state_of_weights(model) == state_of_weights(model)
