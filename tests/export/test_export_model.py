"""Exported formats give the model's vectors, and say what they cost."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="extra onnx")
pytest.importorskip("onnxscript", reason="extra onnx")

from llama_index_embft import load_embed_model
from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
from llama_index_embft.embeddings import OnnxEmbedding, OpenVINOEmbedding, load_exported
from llama_index_embft.embeddings.graph.signal_stack import signal_stack
from llama_index_embft.errors import ConfigError, MissingExtraError, ModelError, OutputError
from llama_index_embft.export import export_model

FORMATS = ["fp16", "bf16", "onnx", "onnx-int8", "openvino", "openvino-int8"]
TEXTS = ["where is the red cat", "x", "", "ÄÖ 漢字 \ud800 end", "a long text of many words " * 60]


@pytest.fixture(scope="module")
def dataset() -> EmbeddingQAFinetuneDataset:
    words = ["red", "green", "blue", "cat", "dog", "bird", "sun", "moon", "star", "iron", "gold", "salt"]
    return EmbeddingQAFinetuneDataset(
        queries={f"q{i}": f"where is {word}" for i, word in enumerate(words)},
        corpus={f"d{i}": f"here is {word}, and nothing else" for i, word in enumerate(words)},
        relevant_docs={f"q{i}": [f"d{i}"] for i in range(len(words))},
    )


@pytest.fixture(scope="module")
def prompted(tiny_model_path: str):
    return load_embed_model(tiny_model_path, query_prompt="query: ", document_prompt="passage: ", device="cpu")


@pytest.fixture(scope="module")
def exported(prompted, dataset, tmp_path_factory):
    pytest.importorskip("openvino", reason="extra openvino")
    out = tmp_path_factory.mktemp("exported") / "all"
    return out, export_model(prompted, out, FORMATS, val_dataset=dataset)


@pytest.fixture
def made_before(exported, monkeypatch):
    """PyTorch's exporter takes seconds: where it is not the point, its earlier graph does."""
    from llama_index_embft.export import formats

    def written(_model, _inputs, file, **_options):
        shutil.copy(exported[0] / "onnx" / "model.onnx", file)

    monkeypatch.setattr(formats, "write_onnx", written)


def vectors(model, texts=TEXTS) -> tuple[np.ndarray, np.ndarray]:
    return (
        np.array([model.get_query_embedding(text) for text in texts]),
        np.array(model.get_text_embedding_batch(list(texts))),
    )


# Cosine to the float32 model that the tiny model keeps at least, over texts that are long, empty, or no words.
@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("fp16", 0.9999),
        ("bf16", 0.99),
        ("onnx", 0.999999),
        ("onnx-int8", 0.97),
        ("openvino", 0.99999),
        ("openvino-int8", 0.97),
    ],
)
def test_vectors_are_those_of_the_model(exported, prompted, name: str, least: float) -> None:
    clean = [text.encode("utf-8", "replace").decode() for text in TEXTS]  # transformers refuses lone surrogates
    model = load_embed_model(exported[0] / name, device="cpu")
    texts = clean if name in ("fp16", "bf16") else TEXTS
    for got, expected in zip(vectors(model, texts), vectors(prompted, clean), strict=True):
        assert got.shape == expected.shape
        assert np.linalg.norm(got, axis=1) == pytest.approx(1, abs=5e-3)
        assert ((got * expected).sum(axis=1) > least).all()


def test_the_report_says_what_each_costs_and_keeps(exported, dataset) -> None:
    out, report = exported
    assert [row.format for row in report.rows] == ["torch", *FORMATS]
    assert report.metric == "ndcg@10"
    base = report["torch"]
    assert base.difference is None
    assert base.cosine_min == 1
    for row in report.rows[1:]:
        assert row.folder == out / row.format
        assert row.texts_per_second > 0
        assert row.quality == pytest.approx(base.quality + row.difference)
        assert row.ci95[0] <= row.difference + 1e-9
        assert row.cosine_min <= row.cosine_mean <= 1.0001
    assert report["onnx"].cosine_min > 0.99999
    assert report["onnx"].outcome == "same"
    assert report["onnx-int8"].cosine_min < report["onnx"].cosine_min
    lines = str(report).splitlines()
    assert len(lines) == 2 + 7 + 2
    assert lines[-1] == "Quality on 12 queries; speed on 12 texts, torch on cpu, graphs on the cpu."
    assert list(report.to_pandas().index) == ["torch", *FORMATS]
    report.to_json(out / "report.json")
    assert json.loads((out / "report.json").read_text())["rows"][3]["format"] == "onnx"


def test_a_folder_says_where_it_comes_from(exported, prompted) -> None:
    from huggingface_hub import ModelCard

    out, report = exported
    record = json.loads((out / "onnx-int8" / "embft.json").read_text())
    assert record["prompts"] == {"query": "query: ", "document": "passage: "}
    assert record["measured"]["rows"][1]["quality"] == pytest.approx(report["onnx-int8"].quality)
    assert str(out) not in json.dumps(record["base"])
    card = ModelCard((out / "onnx-int8" / "README.md").read_text())
    assert card.data.library_name == "onnx"
    assert "load_exported" in card.text
    assert sorted(p.name for p in (out / "onnx-int8").iterdir()) == [
        ".embft-files.json",
        "README.md",
        "embft.json",
        "model.onnx",
        "tokenizer.json",
    ]
    assert not list(out.glob(".embft*"))


def test_prompts_can_be_replaced_on_loading(exported, prompted) -> None:
    bare = load_exported(exported[0] / "onnx", query_prompt="", document_prompt="query: ", num_threads=1)
    assert bare.get_query_embedding("query: cat") == pytest.approx(prompted.get_query_embedding("cat"), abs=1e-5)
    assert bare.get_text_embedding("cat") == pytest.approx(prompted.get_query_embedding("cat"), abs=1e-5)


def test_half_precision_loads_everywhere(exported, prompted) -> None:
    from sentence_transformers import SentenceTransformer

    plain = SentenceTransformer(str(exported[0] / "fp16"), device="cpu")
    assert next(plain.parameters()).dtype.itemsize == 2
    expected = prompted.get_query_embedding("cat")
    assert plain.encode_query("cat", normalize_embeddings=True).astype(float) == pytest.approx(expected, abs=5e-3)
    ours = load_embed_model(exported[0] / "fp16", device="cpu")
    assert ours.get_query_embedding("cat") == pytest.approx(expected, abs=5e-3)


def test_an_index_over_a_graph_without_torch(exported) -> None:
    code = (
        "import sys; from llama_index_embft.embeddings import load_exported\n"
        "from llama_index.core import VectorStoreIndex; from llama_index.core.schema import TextNode\n"
        f"model = load_exported({str(exported[0] / 'onnx')!r})\n"
        "nodes = [TextNode(text=t, id_=t) for t in ('red cat', 'gold and iron')]\n"
        "index = VectorStoreIndex(nodes, embed_model=model)\n"
        "print(index.as_retriever(similarity_top_k=1).retrieve('red cat')[0].node.node_id)\n"
        "print([m for m in ('torch', 'sentence_transformers') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines() == ["red cat", "[]"]


def test_without_a_validation_set_likeness_and_speed_remain(made_before, tiny_model_path: str, tmp_path) -> None:
    report = export_model(tiny_model_path, tmp_path / "m", "onnx")
    assert report.metric is None
    assert report["onnx"].quality is None
    assert "quality not measured" in str(report).lower()
    export_model(tiny_model_path, tmp_path / "m", "onnx-int8")  # an earlier export is replaced
    assert isinstance(load_exported(tmp_path / "m"), OnnxEmbedding)


def test_weights_beyond_one_file(tiny_model_path: str, tmp_path, monkeypatch) -> None:
    from llama_index_embft.export import graph

    monkeypatch.setattr(graph, "_MAX_INLINE_BYTES", 100)
    report = export_model(tiny_model_path, tmp_path / "m", ["onnx", "onnx-int8"])
    assert (tmp_path / "m" / "onnx" / "model.onnx.data").stat().st_size > 10_000
    assert {p.name for p in (tmp_path / "m" / "onnx-int8").glob("*onnx*")} >= {"model.onnx"}
    assert report["onnx"].cosine_min > 0.9999
    assert load_exported(tmp_path / "m" / "onnx-int8").get_text_embedding("moved after it was written")


class TestBadInput:
    def test_formats(self, tiny_model_path: str, tmp_path) -> None:
        for wrong, message in (
            ("onnx-int4", "`format` is 'onnx-int4'; it must be one of"),
            ([], "it must be one of"),
            (["onnx", "onnx"], "one twice"),
        ):
            with pytest.raises(ConfigError, match=message):
                export_model(tiny_model_path, tmp_path / "m", wrong)

    def test_a_missing_package(self, tiny_model_path: str, tmp_path, monkeypatch) -> None:
        monkeypatch.setitem(sys.modules, "openvino", None)
        with pytest.raises(MissingExtraError, match=r"needs the package `openvino`.*llama-index-embft\[openvino\]"):
            export_model(tiny_model_path, tmp_path / "m", "openvino")
        monkeypatch.setitem(sys.modules, "onnxscript", None)
        with pytest.raises(MissingExtraError, match=r"llama-index-embft\[onnx\]"):
            export_model(tiny_model_path, tmp_path / "m", "onnx")
        assert not (tmp_path / "m").exists()

    def test_an_adapter_and_a_hosted_model(self, tiny_model_path: str, tmp_path) -> None:
        from llama_index.core.embeddings import MockEmbedding

        (tmp_path / "adapter").mkdir()
        (tmp_path / "adapter" / "adapter.safetensors").write_bytes(b"")
        with pytest.raises(ConfigError, match=r"holds an adapter.*export the model below it"):
            export_model(tmp_path / "adapter", tmp_path / "m")
        with pytest.raises(ConfigError, match="there are no weights to export"):
            export_model(MockEmbedding(embed_dim=4), tmp_path / "m")
        with pytest.raises(ModelError, match="does not exist"):
            export_model(tmp_path / "a" / "b", tmp_path / "m")

    def test_out_is_in_the_way(self, tiny_model_path: str, tmp_path) -> None:
        (tmp_path / "file").write_text("mine")
        with pytest.raises(OutputError, match="a file has that name"):
            export_model(tiny_model_path, tmp_path / "file", "fp16")
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "thesis.txt").write_text("mine")
        with pytest.raises(OutputError, match="is not a result of llama-index-embft"):
            export_model(tiny_model_path, tmp_path / "folder", "fp16")
        assert (tmp_path / "file").read_text() == (tmp_path / "folder" / "thesis.txt").read_text() == "mine"

    def test_a_full_disk_leaves_nothing(self, made_before, tiny_model_path: str, tmp_path, monkeypatch) -> None:
        import errno

        from llama_index_embft.export import formats

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(formats, "quantize_onnx", full)
        with pytest.raises(OutputError, match="No space left on device; free some space"):
            export_model(tiny_model_path, tmp_path / "m", ["onnx", "onnx-int8"])
        assert list(tmp_path.iterdir()) == []

    def test_a_graph_that_computes_something_else(
        self, made_before, tiny_model_path: str, tmp_path, monkeypatch
    ) -> None:
        from llama_index_embft.embeddings.graph import embedding

        monkeypatch.setattr(
            embedding.OnnxEmbedding, "_run", lambda self, inputs: np.ones((len(inputs["input_ids"]), 32), np.float32)
        )
        with pytest.raises(ModelError, match=r"The onnx graph gives other vectors than the model.*nothing was written"):
            export_model(tiny_model_path, tmp_path / "m", "onnx")
        assert list(tmp_path.iterdir()) == []

    def test_damaged_and_other_folders(self, exported, tiny_model_path: str, tmp_path) -> None:
        with pytest.raises(ModelError, match="holds no exported model"):
            load_exported(tmp_path)
        copy = tmp_path / "copy"
        shutil.copytree(exported[0] / "onnx", copy)
        with pytest.raises(ModelError, match=re.escape("holds no model.xml; use load_exported")):
            OpenVINOEmbedding(copy)
        with pytest.raises(ConfigError, match="num_threads"):
            OnnxEmbedding(copy, num_threads=0)
        (copy / "model.onnx").write_bytes(b"not a graph")
        with pytest.raises(ModelError, match="cannot be loaded"):
            load_exported(copy)
        (copy / "tokenizer.json").write_text("{")
        with pytest.raises(ModelError, match=r"tokenizer\.json cannot be read"):
            load_exported(copy)
        record = json.loads((copy / "embft.json").read_text())
        del record["export"]["tokenization"]["pad_id"]
        (copy / "embft.json").write_text(json.dumps(record))
        with pytest.raises(ModelError, match="is damaged"):
            load_exported(copy)
        for text, message in (("[]", "but no exported model"), ("{", "is damaged"), ('{"export": 3}', "no exported")):
            (copy / "embft.json").write_text(text)
            with pytest.raises(ModelError, match=message):
                load_exported(copy)


@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_load_embed_model_takes_exported_folders_too(exported, format):
    folder = exported[0] / format
    loaded, expected = load_embed_model(folder), load_exported(folder)
    assert type(loaded) is type(expected)
    assert loaded.get_query_embedding("where is cat") == expected.get_query_embedding("where is cat")


def test_ctrl_c_still_works_after_openvino(exported):
    before = signal_stack()
    load_exported(exported[0] / "openvino").get_query_embedding("where is cat")
    assert signal_stack() == before
    former = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run in the background
    try:
        with pytest.raises(KeyboardInterrupt):
            _press_ctrl_c()
    finally:
        signal.signal(signal.SIGINT, former)


def _press_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(5)  # the handler runs between two steps of the interpreter
