"""A small SentenceTransformer with random weights, for tests and for the smoke run of an installed wheel."""

from __future__ import annotations

from pathlib import Path


def save_tiny_bert(folder: Path, *, positions: int = 128, max_seq_length: int = 64) -> str:
    """Write a one-layer BERT of width 32 with a vocabulary of letters below `folder`; return the model's folder."""
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
