"""What a model does not read of a passage is counted and said."""

from __future__ import annotations

import json

import numpy as np
import pytest
from llama_index.core import Document, MockEmbedding
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, StaticEmbedding, WordEmbeddings
from sentence_transformers.sentence_transformer.modules.tokenizer import WhitespaceTokenizer
from typer.testing import CliRunner

from llama_index_embft.cli.app import app
from llama_index_embft.dataset import EmbeddingQAFinetuneDataset, documents_to_nodes
from llama_index_embft.embeddings import load_embed_model, model_tokens
from llama_index_embft.embeddings.truncation import position_limit, truncation, truncation_of
from llama_index_embft.finetune import EmbeddingAdapterFinetuneEngine


@pytest.fixture
def model(tiny_model_path):
    return SentenceTransformer(tiny_model_path, device="cpu")


def test_texts_at_the_limit_are_read_whole(model):
    # Each letter is a token; two more are [CLS] and [SEP].
    assert truncation(model, ["a " * 62]) == (0.0, 64, 128)
    assert truncation(model, ["a " * 63]) == (1.0, 64, 128)


def test_share_and_advice(model):
    found = truncation(model, ["a " * 100, "a", "b", "c"])
    assert found.share == 0.25
    assert "25% of the passages" in found.sentence()
    assert "raise max_seq_length" in found.sentence()
    model.max_seq_length = 128
    assert "raise" not in truncation(model, ["a " * 200]).sentence()


def test_of_many_texts_a_sample_is_measured(model):
    texts = ["a " * 100 if n % 2 else "a" for n in range(5001)]
    assert truncation(model, texts).share == pytest.approx(0.5, abs=0.01)
    assert truncation(model, []) is None


def test_a_book_in_one_string_takes_no_time_to_count(model):
    assert truncation(model, ["a b c " * 5_000_000]).share == 1.0


def test_a_model_without_limits(model):
    model[0].auto_model.embeddings.position_embeddings = None
    model[0].auto_model.config.max_position_embeddings = -1  # DeBERTa's and T5's relative positions
    assert position_limit(model) is None
    model[0].auto_model.config.max_position_embeddings = 514
    model[0].auto_model.config.model_type = "xlm-roberta"
    model[0].auto_model.config.pad_token_id = 1
    assert position_limit(model) == 512


def test_word_embeddings_that_split_by_themselves_are_not_counted():
    words = WhitespaceTokenizer(vocab=["a", "b"])
    layer = WordEmbeddings(tokenizer=words, embedding_weights=np.eye(3, 4, dtype=np.float32), max_seq_length=5)
    model = SentenceTransformer(modules=[layer, Pooling(4)], device="cpu")
    assert truncation(model, ["a b " * 100]) is None


def test_static_embeddings_cut_nothing(model):
    static = StaticEmbedding(model.tokenizer.backend_tokenizer, embedding_dim=8)
    assert truncation(SentenceTransformer(modules=[static], device="cpu"), ["a " * 9999]) is None


def test_the_model_below_an_adapter_is_asked(tiny_model_path, tmp_path):
    data = EmbeddingQAFinetuneDataset(
        queries={"q": "a", "r": "b"}, corpus={"d": "c " * 90, "e": "f"}, relevant_docs={"q": ["d"], "r": ["e"]}
    )
    engine = EmbeddingAdapterFinetuneEngine(
        data, load_embed_model(tiny_model_path), epochs=1, model_output_path=str(tmp_path / "adapter")
    )
    engine.finetune()
    assert truncation_of(engine.get_finetuned_model(), list(data.corpus.values())).share == 0.5
    assert truncation_of(MockEmbedding(embed_dim=3), ["a"]) is None


def test_the_command_evaluate_says_it(tiny_model_path, tmp_path):
    path = tmp_path / "data.json"
    content = {"queries": {"q": "a"}, "corpus": {"d": "c " * 90, "e": "f"}, "relevant_docs": {"q": ["d"]}}
    path.write_text(json.dumps(content))
    result = CliRunner().invoke(app, ["evaluate", str(path), "--embed-model", tiny_model_path])
    assert result.exit_code == 0, result.output
    assert "50% of the passages are longer than the 64 tokens" in result.output


def test_chunks_by_the_model_s_own_tokens_are_read_to_the_end(tiny_model_path):
    embed_model = load_embed_model(tiny_model_path, document_prompt="doc: ")
    tokens = model_tokens(embed_model)
    assert tokens.limit == 64 - 2 - 4  # [CLS], [SEP], and three letters with a colon
    assert len(tokens.encode("ab " * 500)) == 1000  # it is not cut itself
    document = Document(id_="a", text="The plant made a good many boilers. " * 40, metadata={"file_name": "a"})
    nodes = documents_to_nodes([document], tokens=tokens)
    texts = [node.get_content("embed") for node in nodes]
    assert truncation_of(embed_model, texts).share == 0
    assert max(len(tokens.encode(text)) for text in texts) > 30
    # Without it, LlamaIndex counts words where this model counts letters.
    assert truncation_of(embed_model, [node.text for node in documents_to_nodes([document])]).share == 1
    shorter = documents_to_nodes([document], chunk_size=50, tokens=tokens)
    assert not {node.node_id for node in nodes} & {node.node_id for node in shorter}


def test_tokens_of_models_elsewhere_are_not_known(tiny_model_path):
    assert model_tokens(MockEmbedding(embed_dim=4)) is None
    words = SentenceTransformer(modules=[StaticEmbedding(SentenceTransformer(tiny_model_path).tokenizer, None, 4)])
    assert words.max_seq_length == float("inf")
