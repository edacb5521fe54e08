"""What `tune` saves over models of any kind: a class that nobody knows, a saved result, a folder that is in the way."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import TextNode

from llama_index_embft import EmbeddingQAFinetuneDataset, load_embed_model, tune
from llama_index_embft.errors import ConfigError, ModelError, OutputError
from llama_index_embft.pipeline import TuneSettings

WORDS = ["harbour", "violin", "glacier", "printer", "orchard", "volcano", "tractor", "saddle", "anchor", "ladder"]


class OwnEmbedding(BaseEmbedding):
    """A class of the user's own: nothing says what decides its vectors."""

    def _get_text_embedding(self, text):
        rows = [hashlib.sha256(word.encode()).digest()[:16] for word in text.lower().split()]
        return np.mean([np.frombuffer(row, np.uint8) / 128 - 1 for row in rows], axis=0).tolist()

    def _get_query_embedding(self, query):
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query):
        return self._get_text_embedding(query)


@pytest.fixture
def labelled():
    """Twelve chunks of six documents, each asked about by two of its words."""
    corpus = {f"c{n}": f"{WORDS[n % 10]} {WORDS[(3 * n + 1) % 10]} number {n} is old and blue" for n in range(12)}
    return EmbeddingQAFinetuneDataset(
        queries={f"q{c}": f"which {' '.join(text.split()[:4])}" for c, text in corpus.items()},
        corpus=corpus,
        relevant_docs={f"q{c}": [c] for c in corpus},
        source_documents={c: f"d{n // 2}" for n, c in enumerate(corpus)},
    )


def test_a_model_of_a_class_that_is_not_known_is_saved_under_a_name(labelled, tmp_path):
    model = OwnEmbedding(model_name="own")
    options = {"model": model, "methods": "none", "show_progress": False}
    with pytest.raises(ModelError, match="result over it could not be checked"):  # before the work, and not after it
        tune(labelled, **options, output_path=tmp_path / "out", watch=lambda status: pytest.fail("it works already"))
    named = TuneSettings(identity="own, May")
    result = tune(labelled, **options, output_path=tmp_path / "out", settings=named)
    question = labelled.queries["qc7"]
    hits = [[hit.node.node_id for hit in found.retrieve(question)] for found in (result.retriever(), result.reloaded())]
    assert hits[0] == hits[1]
    later = tune(labelled, **options)
    with pytest.raises(ModelError, match="Give it a name"):
        later.save(tmp_path / "later")
    assert later.save(tmp_path / "later", identity="own, May").identity == "own, May"


def test_a_result_over_a_result_loads_by_itself(labelled, tiny_model_path, tmp_path):
    options = {"methods": "none", "show_progress": False}
    tune(labelled, model=Path(tiny_model_path), output_path=tmp_path / "one", **options)
    (tmp_path / "latest").symlink_to(tmp_path / "one")
    first = load_embed_model(tmp_path / "latest" / "model")
    tune(labelled, model=tmp_path / "latest" / "model", output_path=tmp_path / "two", **options)
    (tmp_path / "latest").unlink()
    second = load_embed_model(tmp_path / "two" / "model")
    assert second.get_text_embedding("a violin") == pytest.approx(first.get_text_embedding("a violin"))
    shutil.rmtree(tmp_path / "one")
    with pytest.raises(ModelError, match="cannot be rebuilt from it; pass it"):
        load_embed_model(tmp_path / "two" / "model")


def test_an_index_of_another_model_is_refused(labelled, tiny_model_path):
    result = tune(labelled, model=tiny_model_path, methods="none", show_progress=False)
    nodes = [TextNode(id_=doc, text=text) for doc, text in labelled.corpus.items()]
    own = VectorStoreIndex(nodes, embed_model=load_embed_model(tiny_model_path))
    assert result.retriever(own, similarity_top_k=2).retrieve(labelled.queries["qc7"])
    with pytest.raises(ModelError, match="holds another vector for the node"):  # of the same size
        result.retriever(
            VectorStoreIndex(nodes, embed_model=load_embed_model(tiny_model_path, document_prompt="other: "))
        )


def test_the_model_in_use_is_not_replaced_by_what_is_made_from_it(labelled, tiny_model_path, tmp_path):
    tune(labelled, model=tiny_model_path, methods="none", output_path=tmp_path / "one", show_progress=False)
    with pytest.raises(OutputError, match="the model that the result is made from lies there"):
        tune(labelled, model=tmp_path / "one" / "model", output_path=tmp_path / "one", show_progress=False)
    assert (tmp_path / "one" / "model" / "embft.json").is_file()


def test_methods_of_the_wrong_kind_are_one_sentence(labelled, tiny_model_path):
    with pytest.raises(ConfigError, match="`methods` names None; it takes 'auto' or 'none'"):
        tune(labelled, model=tiny_model_path, methods=None, show_progress=False)
    with pytest.raises(ConfigError, match=r"`seed` is 1\.5; it must be a whole number"):
        tune(labelled, model=tiny_model_path, methods="none", seed=1.5, show_progress=False)
