"""Tiny models of other shapes than the shared BERT: random weights, seconds to make."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def transformer(tiny_model_path: str, folder: Path, *, seed: int = 0, **changes: Any) -> Path:
    """The shared tiny model with other weights; ``changes`` go into its transformer's configuration."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    torch.manual_seed(seed)
    raw = folder / "raw"
    config = AutoConfig.from_pretrained(tiny_model_path)
    for name, value in changes.items():
        setattr(config, name, value)
    AutoModel.from_config(config).save_pretrained(raw)
    AutoTokenizer.from_pretrained(tiny_model_path).save_pretrained(raw)
    model = SentenceTransformer(
        modules=[Transformer(str(raw), max_seq_length=64), Pooling(32), Normalize()], device="cpu"
    )
    model.save_pretrained(str(folder / "model"), create_model_card=False)
    return folder / "model"


def with_prompts(source: str | Path, folder: Path, prompts: dict[str, str], default: str | None = None) -> Path:
    """A copy whose ``config_sentence_transformers.json`` has these prompts."""
    import shutil

    shutil.copytree(source, folder)
    file = folder / "config_sentence_transformers.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config |= {"prompts": prompts, "default_prompt_name": default}
    file.write_text(json.dumps(config), encoding="utf-8")
    return folder


def on_the_hub(source: str | Path, hub: Path, name: str) -> None:
    """Put a model where the hub's client keeps what it has downloaded."""
    import shutil

    revision = "a" * 40
    place = hub / f"models--{name.replace('/', '--')}"
    shutil.copytree(source, place / "snapshots" / revision)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(revision, encoding="utf-8")


def static(tiny_model_path: str, folder: Path) -> Path:
    """A static model, as model2vec makes them."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(Path(tiny_model_path) / "tokenizer.json"))
    SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=16)], device="cpu").save_pretrained(
        str(folder)
    )
    return folder


def router(tiny_model_path: str, folder: Path) -> Path:
    """A model that sends queries through other weights than documents."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Router

    query = SentenceTransformer(tiny_model_path, device="cpu")
    document = SentenceTransformer(str(transformer(tiny_model_path, folder / "second", seed=1)), device="cpu")
    both = Router.for_query_document(query_modules=[query[0], query[1]], document_modules=[document[0], document[1]])
    SentenceTransformer(modules=[both, Normalize()], device="cpu").save_pretrained(str(folder / "model"))
    return folder / "model"
