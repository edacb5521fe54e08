"""The embedding model as a reranker, token by token."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hash_embedding import HashEmbedding
from llama_index.core.schema import NodeWithScore, TextNode
from sentence_transformers import MultiVectorEncoder, SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from sentence_transformers.sentence_transformer.modules import Normalize

from llama_index_embft import load_embed_model
from llama_index_embft.errors import ConfigError, ModelError
from llama_index_embft.export import export_model
from llama_index_embft.retrievers import LateInteractionReranker, load_reranker

TEXTS = ["a fox by the river", "owls", "the bear, the crow and the deer live far away from here", "a fox by the river"]
QUERY = "where is the fox?"


@pytest.fixture(scope="module")
def model(tiny_model_path):
    return SentenceTransformer(tiny_model_path, device="cpu")


def by_hand(model: SentenceTransformer, query: str, texts: list[str]) -> list[float]:
    """MaxSim of what sentence-transformers gives for each token."""

    def tokens(text: str) -> np.ndarray:
        found = model.encode(text, output_value="token_embeddings").numpy()
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    return [float((tokens(query) @ tokens(text).T).max(axis=1).sum()) for text in texts]


def test_each_token_of_the_query_counts_by_its_best_match(model):
    found = LateInteractionReranker(model).scores(QUERY, TEXTS)
    np.testing.assert_allclose(found, by_hand(model, QUERY, TEXTS), rtol=1e-3)
    assert found[0] == found[3]


def test_prompts_of_the_model_are_put_before(model, tiny_model_path):
    prompted = load_embed_model(tiny_model_path, query_prompt="query: ", document_prompt="text: ", device="cpu")
    found = LateInteractionReranker(prompted).scores(QUERY, TEXTS)
    by = by_hand(model, f"query: {QUERY}", [f"text: {text}" for text in TEXTS])
    np.testing.assert_allclose(found, by, rtol=1e-3)


def test_half_of_the_order_is_its_own(model):
    hits = [NodeWithScore(node=TextNode(text=text), score=1 - n / 10) for n, text in enumerate(TEXTS)]
    alone = LateInteractionReranker(model, weight=1).postprocess_nodes(hits, query_str=QUERY)
    scores = by_hand(model, QUERY, TEXTS)
    assert [hit.node.text for hit in alone] == [TEXTS[n] for n in np.argsort([-s for s in scores], kind="stable")]
    assert LateInteractionReranker(model).weight == 0.5
    assert LateInteractionReranker(model, top_n=2).postprocess_nodes(hits, query_str=QUERY)[0].node.text == TEXTS[0]


def reads(model: SentenceTransformer, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many texts each call of the model reads from now on."""
    rows: list[int] = []
    forward = type(model).forward

    def counted(self, features, **options):
        rows.append(len(features["input_ids"]))
        return forward(self, features, **options)

    monkeypatch.setattr(type(model), "forward", counted)
    return rows


def test_a_passage_is_read_once(model, monkeypatch):
    reranker, rows = LateInteractionReranker(model), reads(model, monkeypatch)
    first = reranker.scores(QUERY, TEXTS)
    assert sum(rows) == 4  # the query, and three different texts
    again = reranker.scores(QUERY, TEXTS[::-1])
    assert sum(rows) == 5
    assert again.tolist() == first[::-1].tolist()
    assert copy.deepcopy(reranker).scores(QUERY, TEXTS).tolist() == first.tolist()
    rows.clear()
    reranker.forgetful().scores(QUERY, TEXTS)
    assert sum(rows) == 4


def test_passages_can_be_read_before_anybody_asks(model, monkeypatch):
    reranker, rows = LateInteractionReranker(model), reads(model, monkeypatch)
    assert reranker.read(text for text in TEXTS) == 3
    assert sum(rows) == 3
    reranker.scores(QUERY, TEXTS)
    assert sum(rows) == 4
    assert LateInteractionReranker(model, cache_mb=0.01).read([f"number {n}" for n in range(900)]) < 30  # and it ends
    assert LateInteractionReranker(model, cache_mb=0).read(TEXTS) == 0


def test_how_many_passages_are_read_hangs_on_the_memory(model):
    texts = [f"number {n}" for n in range(200)]
    assert LateInteractionReranker(model).texts_to_read(900, texts) == 200
    assert LateInteractionReranker(model).texts_to_read(30, texts) == 30
    assert LateInteractionReranker(model, cache_mb=0.01).texts_to_read(900, texts) == 900


def test_memory_has_a_limit(model, monkeypatch):
    size = LateInteractionReranker(model).cross_encoder.bytes_of([TEXTS[0]])
    small = LateInteractionReranker(model, cache_mb=2 * size / 2**20)
    rows = reads(model, monkeypatch)
    for text in (TEXTS[0], TEXTS[0], TEXTS[1], TEXTS[2], TEXTS[0]):  # TEXTS[2] is longer than the limit
        small.scores(QUERY, [text])
    assert sum(rows) == 5 + 3
    assert small.cross_encoder._bytes <= 2 * size
    assert LateInteractionReranker(model, cache_mb=0).scores(QUERY, TEXTS[:1]).shape == (1,)


def test_vectors_of_a_model_that_was_trained_since_are_not_taken(tiny_model_path):
    model = SentenceTransformer(tiny_model_path, device="cpu")
    reranker = LateInteractionReranker(model)
    before = reranker.scores(QUERY, TEXTS)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05, fused=True)  # which torch's counters do not see
    model(model.preprocess(TEXTS))["token_embeddings"][:, :, 0].sum().backward()
    optimizer.step()
    after = reranker.scores(QUERY, TEXTS)
    assert after.tolist() == LateInteractionReranker(model).scores(QUERY, TEXTS).tolist() != before.tolist()


def test_a_model_that_was_made_for_it_reads_in_its_own_way(tiny_model_path, tmp_path):
    transformer = Transformer(tiny_model_path, query_expansion={"strategy": "fixed", "attend": False, "length": 12})
    own = MultiVectorEncoder(
        modules=[transformer, MultiVectorMask(["the", "."]), Normalize(module_input_name="token_embeddings")],
        prompts={"query": "which ", "document": "text "},
        device="cpu",
    )
    expected = own.similarity(own.encode_query([QUERY]), own.encode_document(TEXTS))[0].tolist()
    own.save_pretrained(str(tmp_path / "m"))
    given = LateInteractionReranker(own, weight=0.3)
    given.save_model(made := tmp_path / "saved")
    named = tmp_path / "m"
    for reranker in (given, LateInteractionReranker(named), load_reranker(named), load_reranker(made)):
        assert reranker.scores(QUERY, TEXTS).tolist() == pytest.approx(expected, abs=1e-2)
    assert load_reranker(named).weight == LateInteractionReranker.prior
    assert load_reranker(made).weight == 0.3
    with pytest.raises(ModelError, match="is no embedding model: it gives a vector for each token; use it as Late"):
        load_embed_model(named)


def test_half_a_character_is_read_as_a_question_mark(model):
    found = LateInteractionReranker(model).scores("where\ud83d", ["a fox \ud83d", "a fox ?"])
    assert found[0] == found[1]


def test_a_name_is_loaded_as_told_and_what_is_not_read_is_no_argument(tiny_model_path):
    reranker = LateInteractionReranker(tiny_model_path, device="cpu")
    assert reranker.cross_encoder.model.device.type == "cpu"
    assert LateInteractionReranker(reranker.cross_encoder, cache_mb=3).cross_encoder.cache_mb == 3
    with pytest.raises(TypeError, match="batch_size"):
        LateInteractionReranker(tiny_model_path, batch_size=3)


def test_it_is_saved_with_all_that_decides_its_scores(tiny_model_path, tmp_path):
    prompted = load_embed_model(tiny_model_path, query_prompt="query: ", device="cpu")
    reranker = LateInteractionReranker(prompted, weight=0.3, top_n=3, cache_mb=7)
    reranker.save_model(tmp_path)
    loaded = load_reranker(tmp_path, device="cpu")
    assert isinstance(loaded, LateInteractionReranker)
    assert (loaded.weight, loaded.top_n, loaded.cache_mb) == (0.3, 3, 7)
    assert loaded.scores(QUERY, TEXTS).tolist() == reranker.scores(QUERY, TEXTS).tolist()
    with pytest.raises(ConfigError, match="ranks by the token vectors of an embedding model"):
        export_model(tmp_path, tmp_path / "served", "fp16")
    file = tmp_path / "embft.json"
    file.write_text(file.read_text("utf-8").replace('"query: "', "7"), "utf-8")
    with pytest.raises(ModelError, match="is damaged"):
        load_reranker(tmp_path)


def test_a_model_without_token_vectors_is_refused():
    with pytest.raises(ModelError, match="keeps those of its tokens to itself"):
        LateInteractionReranker(HashEmbedding(model_name="hash-1"))
    with pytest.raises(ConfigError, match="`cache_mb` is -1"):
        LateInteractionReranker(HashEmbedding(model_name="hash-1"), cache_mb=-1)
