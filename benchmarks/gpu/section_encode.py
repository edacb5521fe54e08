"""Encoding: tokens a second, share of the card's bf16 limit, against `SentenceTransformer.encode`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from kit import SHAPES, TINY, tokens_and_flops

if TYPE_CHECKING:
    from kit import Kit


def run(kit: Kit) -> None:
    """Measure each model, and compare its vectors with those of the CPU in float32."""
    for name in kit.model_names():
        if kit.has_time_for(f"encode {name}"):
            _measure(kit, name)


def _measure(kit: Kit, name: str) -> None:
    import torch
    from sentence_transformers import SentenceTransformer

    from llama_index_embft.embeddings import encode_texts

    model = SentenceTransformer(kit.model_folder(name), device=kit.device)
    folder = (TINY if kit.tiny else SHAPES).get(name, SHAPES["bge-small"])
    millions = 0.002 if kit.tiny else folder[6]
    texts = kit.texts(max(8, int(millions * 1e6 / min(model.max_seq_length, 660))))
    tokens, flops = tokens_and_flops(model, texts)
    few = texts[:8]  # the CPU takes half a second for each in BGE-M3's shape
    exact = SentenceTransformer(kit.model_folder(name), device="cpu").encode(few, batch_size=8)
    lean = SentenceTransformer(kit.model_folder(name), device=kit.device).to(torch.bfloat16)
    ways: dict[str, Any] = {
        "ours, float32": lambda texts: encode_texts(model, texts),
        "ours, bfloat16": lambda texts: encode_texts(model, texts, precision="bfloat16"),
        "ours, bfloat16 weights": lambda texts: encode_texts(lean, texts),
    }
    if kit.peer:
        ways = {
            "SentenceTransformer.encode": lambda texts: model.encode(texts),
            "SentenceTransformer.encode, bfloat16 weights, 256 a batch": lambda texts: (
                lean.encode(texts, batch_size=256, convert_to_tensor=True).float().cpu().numpy()
            ),
            **ways,
        }
    first = None
    for way, encode in ways.items():
        if not kit.has_time_for(f"encode {name}: {way}", 0.03):
            return
        cosine = _cosines(encode(few), exact).min()
        kit.check(f"encode {name}, {way}: least cosine to the CPU in float32", cosine, 0.999, at_least=True)
        seconds = kit.timed(lambda encode=encode: encode(texts), repeats=2, warm=False)
        first = first or seconds
        kit.add(
            **{
                "model": name,
                "what": way,
                "texts": len(texts),
                "tokens": tokens,
                "seconds": seconds,
                "tokens/s": tokens / seconds,
                "share of bf16 limit": flops / seconds / kit.peak["bfloat16"],
                "least cosine": float(cosine),
                "times SentenceTransformer.encode": first / seconds if kit.peer else None,
            }
        )


def _cosines(left: Any, right: Any) -> Any:
    return (left * right).sum(axis=1) / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1)
