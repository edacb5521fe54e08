"""An exported reranker gives the model's logits, keeps its share in the ranking, and loads by the same call."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="extra onnx")
pytest.importorskip("onnxscript", reason="extra onnx")
pytest.importorskip("openvino", reason="extra openvino")

from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from llama_index_embft import load_embed_model, load_reranker
from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
from llama_index_embft.embeddings import load_cross_encoder, pair_logits
from llama_index_embft.errors import ConfigError, ModelError, OutputError
from llama_index_embft.export import export_model

FORMATS = ["fp16", "onnx", "onnx-int8", "openvino", "openvino-int8"]
PAIRS = [
    ("where is the cat", "the cat is on the roof"),
    ("where is the cat", "a dog barks " * 60),
    ("", "x"),
    ("ÄÖ 漢字 end", "where is the dog"),
    ("a long question of many words " * 30, "the end"),
]


@pytest.fixture(scope="module")
def reranker_path(tiny_model_path: str, tmp_path_factory) -> str:
    """As the engine saves it: 48 tokens, a share of 0.4; with logits that lie apart, as a trained one's do."""
    folder = tmp_path_factory.mktemp("reranker") / "model"
    model = load_cross_encoder(tiny_model_path, add_head=True, max_length=48, device="cpu")
    for weight in model.parameters():
        weight.data *= 16 if weight.dim() > 1 else 1
    model.save_pretrained(str(folder), create_model_card=False)
    record = {"format": 1, "kind": "reranker", "weight": 0.4, "max_length": 48, "top_n": 2}
    (folder / "embft.json").write_text(json.dumps(record))
    return str(folder)


@pytest.fixture(scope="module")
def exported(reranker_path, tmp_path_factory):
    out = tmp_path_factory.mktemp("exported") / "all"
    return out, export_model(reranker_path, out, FORMATS)


@pytest.mark.parametrize("name", FORMATS)
def test_logits_are_those_of_the_model(exported, reranker_path, name: str):
    expected = pair_logits(load_cross_encoder(reranker_path, max_length=48, device="cpu"), PAIRS)
    assert np.ptp(expected) > 0.5  # or a difference would say nothing
    loaded = load_reranker(exported[0] / name, device="cpu")
    assert (loaded.weight, loaded.top_n) == (0.4, 2)
    found = pair_logits(loaded.cross_encoder, PAIRS, batch_size=2)
    if "int8" in name:  # random weights make much of what rounding changes; a trained model's do not
        assert np.corrcoef(found, expected)[0, 1] > 0.8
        return
    assert np.abs(found - expected).max() < {"fp16": 1e-2, "onnx": 1e-5, "openvino": 1e-4}[name]
    by_one = np.array([pair_logits(loaded.cross_encoder, [pair])[0] for pair in PAIRS])
    np.testing.assert_allclose(by_one, found, atol=1e-3)


def test_the_report_and_the_card_speak_of_pairs(exported):
    out, report = exported
    assert [row.format for row in report.rows] == ["torch", *FORMATS]
    assert report["onnx"].logit_difference < 1e-4
    assert report["onnx"].cosine_min is None
    assert "| pairs/s |" in str(report)
    assert "speed on 7 pairs" in report.basis()
    assert report["fp16"].megabytes < report["onnx"].megabytes
    card = (out / "onnx" / "README.md").read_text()
    assert "pipeline_tag: text-ranking" in card
    assert 'reranker = load_reranker("PATH")' in card
    assert "logit difference" in card


def test_an_exported_reranker_ranks_in_an_index(exported, reranker_path):
    nodes = [NodeWithScore(node=TextNode(text=text), score=1.0) for _, text in PAIRS]
    query = QueryBundle("where is the cat")
    ranked = [
        [hit.node.text for hit in load_reranker(path, weight=1.0, top_n=5).postprocess_nodes(nodes, query)]
        for path in (reranker_path, exported[0] / "onnx")
    ]
    assert ranked[0] == ranked[1]


def test_a_validation_set_gives_the_pairs(reranker_path, tmp_path, exported, monkeypatch):
    from llama_index_embft.export import formats

    def written(_model, _inputs, file, **_options):
        shutil.copy(exported[0] / "onnx" / "model.onnx", file)

    monkeypatch.setattr(formats, "write_onnx", written)
    data = EmbeddingQAFinetuneDataset(
        queries={"a": "where is it", "b": "what is it"}, corpus={"x": "here", "y": "there"},
        relevant_docs={"a": ["x"], "b": ["y"]},
    )  # fmt: skip
    assert export_model(reranker_path, tmp_path / "m", "onnx", val_dataset=data).texts == 7 + 4
    model = load_cross_encoder(reranker_path, max_length=48, device="cpu")
    assert export_model(model, tmp_path / "loaded", "onnx")["onnx"].logit_difference < 1e-4
    assert load_reranker(tmp_path / "loaded").weight == 1.0

    from llama_index_embft.embeddings.graph import runtime

    monkeypatch.setattr(runtime.OnnxGraph, "run", lambda self, inputs: np.ones((len(inputs["input_ids"]), 1)))
    with pytest.raises(ModelError, match=r"The onnx graph gives other logits than the model.*nothing was written"):
        export_model(reranker_path, tmp_path / "other", "onnx")
    assert not (tmp_path / "other").exists()


def test_a_model_is_not_replaced_by_its_export(reranker_path, tiny_model_path, tmp_path):
    with pytest.raises(OutputError, match="the model that the result is made from lies there"):
        export_model(reranker_path, reranker_path, "fp16")
    with pytest.raises(OutputError, match="the model that the result is made from lies there"):
        export_model(tiny_model_path, tiny_model_path, "fp16")


def test_bad_input(reranker_path, exported, tmp_path):
    with pytest.raises(ConfigError, match="are for embedding models, and this is a reranker"):
        export_model(reranker_path, tmp_path / "m", "onnx", query_prompt="q: ")
    with pytest.raises(
        ModelError, match="holds an exported reranker, which makes no vectors; load it with load_reranker"
    ):
        load_embed_model(exported[0] / "onnx")
    copy = tmp_path / "copy"
    shutil.copytree(exported[0] / "onnx", copy)
    (copy / "model.onnx").unlink()
    with pytest.raises(ModelError, match=r"was exported as onnx and holds no model\.onnx"):
        load_reranker(copy)
    record = json.loads((copy / "embft.json").read_text())
    del record["export"]["tokenization"]
    (copy / "embft.json").write_text(json.dumps(record))
    with pytest.raises(ModelError, match="is damaged"):
        load_reranker(copy)
    prompted = load_cross_encoder(reranker_path, max_length=48, device="cpu")
    prompted.prompts, prompted.default_prompt_name = {"p": "Judge: "}, "p"
    with pytest.raises(ConfigError, match="puts a prompt of its own before each pair"):
        export_model(prompted, tmp_path / "m", "onnx")
    assert not Path(tmp_path / "m").exists()
