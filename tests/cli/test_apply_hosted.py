"""A hosted model below an adapter or moved documents, put onto its index by `update_index` and `embft apply`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import typer
from llama_index.core import VectorStoreIndex
from llama_index.core.schema import TextNode
from llama_index.embeddings.openai import OpenAIEmbedding
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "llm_server"))

from loopback_llm import LoopbackLLM

from llama_index_embft.cli.apply import apply
from llama_index_embft.cli.shared.command import add_command
from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
from llama_index_embft.embeddings import load_embed_model
from llama_index_embft.errors import ConfigError, ModelError
from llama_index_embft.finetune import EmbeddingAdapterFinetuneEngine, NudgeFinetuneEngine
from llama_index_embft.finetune.adapter import AdapterLayerSettings
from llama_index_embft.finetune.nudge import NudgeSettings
from llama_index_embft.index import check_index, checked_retriever, rollback_index, stamp_index, update_index
from llama_index_embft.index.stores import open_index, open_table

KEY = "sk-loopback-0123456789"
# The questions below share no word with these: only training can bring them together.
CORPUS = {f"d{n}": f"word{n} belongs to entry {n * 7 % 12}" for n in range(12)}

app = typer.Typer()
add_command(app, apply)


def run(*args: object) -> str:
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    if result.exception is not None:
        raise result.exception
    return " ".join(result.output.split())


def make_dataset(template: str) -> EmbeddingQAFinetuneDataset:
    return EmbeddingQAFinetuneDataset(
        queries={f"q{n}": template.format(n) for n in range(12)},
        corpus=CORPUS,
        relevant_docs={f"q{n}": [f"d{n}"] for n in range(12)},
    )


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackLLM]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EMBFT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with LoopbackLLM(key=KEY) as running:
        yield running


def client(server: LoopbackLLM, name: str = "text-embedding-3-small") -> OpenAIEmbedding:
    return OpenAIEmbedding(model_name=name, api_base=server.api_base, api_key=KEY)


def build(base: OpenAIEmbedding, folder: str) -> VectorStoreIndex:
    index = VectorStoreIndex([TextNode(text=text, id_=i) for i, text in CORPUS.items()], embed_model=base)
    index.storage_context.persist(folder)
    return index


def train(method: str, base: OpenAIEmbedding, out: str) -> None:
    data, val = make_dataset("number {0} of the alias a{0}"), make_dataset("alias a{0}")
    if method == "adapter":
        options = {
            "epochs": 60,
            "learning_rate": 1e-2,
            "layer": AdapterLayerSettings(sides="both"),
            "device": "cpu",
            "model_output_path": out,
        }
        engine = EmbeddingAdapterFinetuneEngine(data, base, val_dataset=val, **options)
    else:
        engine = NudgeFinetuneEngine(
            data, base, val, search=NudgeSettings(steps=8), device="cpu", model_output_path=out
        )
    assert engine.finetune().improved


def vectors(folder: str, base: OpenAIEmbedding) -> dict[str, np.ndarray]:
    return open_table(open_index(folder, embed_model=base).index).fetch(list(CORPUS))


@pytest.mark.parametrize("method", ["adapter", "nudge"])
def test_a_tuned_hosted_model_is_put_onto_its_index_and_taken_back(server: LoopbackLLM, method: str) -> None:
    base = client(server)
    build(base, "index")
    before = vectors("index", base)
    train(method, base, "tuned")
    hosted = ("openai:text-embedding-3-small", "--api-base", server.api_base)
    on = ("--index", "index", "--base", *hosted)

    assert "Stamped: the index holds vectors of text-embedding-3-small" in run(*hosted, "--index", "index", "--stamp")
    paid = server.count
    assert "12 nodes looked at, 12 vectors" in run("tuned", *on, "--dry-run")
    assert "12 vectors written" in run("tuned", *on, "--requests-per-minute", 500, "--tokens-per-minute", 100000)
    assert server.count == paid, "stored vectors are changed; nothing is embedded"
    tuned = load_embed_model("tuned", base_embed_model=base)
    after = vectors("index", base)
    for node_id, text in CORPUS.items():
        np.testing.assert_allclose(after[node_id], tuned.get_text_embedding(text), atol=1e-5)
        assert np.abs(after[node_id] - before[node_id]).max() > 1e-3

    assert "may search it" in run("tuned", *on, "--check", "--verify", 12)
    with pytest.raises(ModelError, match="cannot be searched with text-embedding-3-small"):
        run(*hosted, "--index", "index", "--check")
    retriever = checked_retriever(open_index("index", embed_model=tuned).index, tuned, similarity_top_k=1)
    right, right_before = 0, 0
    for doc_id, question in zip(CORPUS, make_dataset("alias a{0}").queries.values(), strict=True):
        query = np.array(tuned.get_query_embedding(question))
        found = retriever.retrieve(question)[0].node.node_id
        assert found == max(CORPUS, key=lambda i: query @ after[i] / np.linalg.norm(after[i]))
        right += found == doc_id
        query = np.array(base.get_query_embedding(question))
        right_before += max(CORPUS, key=lambda i: query @ before[i]) == doc_id
    assert right > right_before
    for file in ("index/index_store.json", "index.embft-journal"):
        assert KEY.encode() not in Path(file).read_bytes()

    assert "Taken back" in run("tuned", *on, "--rollback")
    for node_id, vector in vectors("index", base).items():
        np.testing.assert_allclose(vector, before[node_id], atol=1e-6)
    assert "may search it" in run(*hosted, "--index", "index", "--check", "--verify", 12)


def test_the_same_in_python(server: LoopbackLLM) -> None:
    base = client(server)
    index = build(base, "index")
    stamp_index(index, base, persist_dir="index")
    train("adapter", base, "tuned")
    tuned = load_embed_model("tuned", base_embed_model=client(server))  # made again, as after a restart
    paid = server.count
    assert update_index(index, tuned, journal="journal", persist_dir="index").written == 12
    assert server.count == paid
    check_index(index, tuned, verify=12)
    assert rollback_index(index, "journal", persist_dir="index").written == 12
    check_index(index, base, verify=12)


def test_another_hosted_model_embeds_each_text_once(server: LoopbackLLM) -> None:
    base = client(server)
    build(base, "index")
    stamp_index(open_index("index", embed_model=base).index, base, verify=0, persist_dir="index")
    server.embedded.clear()
    other = ("openai:text-embedding-other", "--api-base", server.api_base)
    done = run(*other, "--index", "index", "--batch-size", 5)
    assert "the index now holds vectors of text-embedding-other" in done
    embedded = dict(server.embedded)
    assert {text: embedded.pop(text) for text in CORPUS.values()} == dict.fromkeys(CORPUS.values(), 1)
    assert list(embedded.values()) == [1, 1]  # the test sentences of the stamp
    check_index(open_index("index", embed_model=base).index, client(server, "text-embedding-other"))
    assert server.embedded == {**dict.fromkeys(CORPUS.values(), 1), **dict.fromkeys(embedded, 2)}
    assert {request.body["model"] for request in server.requests[-5:]} == {"text-embedding-other"}


def test_what_cannot_be_is_one_sentence(server: LoopbackLLM, monkeypatch: pytest.MonkeyPatch, tiny_model_path) -> None:
    base = client(server)
    build(base, "index")
    train("nudge", base, "tuned")
    hosted = ("--base", "openai:text-embedding-3-small")
    with pytest.raises(ModelError, match=r"sits on OpenAIEmbedding .* or to embft apply by --base"):
        run("tuned", "--index", "index")
    with pytest.raises(ModelError, match="text-embedding-3-small"):  # OpenAI's own server is another model
        run("tuned", "--index", "index", *hosted)
    with pytest.raises(ConfigError, match="api_base is for a hosted model; name one as openai:MODEL"):
        run(tiny_model_path, "--index", "index", "--check", "--api-base", server.api_base)
    with pytest.raises(ConfigError, match="device is for a model that runs here"):
        run("tuned", "--index", "index", *hosted, "--api-base", server.api_base, "--device", "cpu")
    with pytest.raises(ConfigError, match="it must be at least 1"):
        run("tuned", "--index", "index", *hosted, "--api-base", server.api_base, "--requests-per-minute", 0)
    with pytest.raises(ConfigError, match="base is for an adapter, moved documents or a distilled model"):
        run(tiny_model_path, "--index", "index", *hosted, "--api-base", server.api_base)
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(ConfigError, match="needs a key: set OPENAI_API_KEY"):
        run("openai:text-embedding-3-small", "--index", "index", "--check")
