"""Embedding the passages of a 10-K filing: ours against `SentenceTransformer.encode`, alternating.

    python benchmarks/encode.py                          # all-MiniLM-L6-v2; some minutes on two cores
    python benchmarks/encode.py --device cuda --copies 50
    python benchmarks/encode.py --texts 48 --repeats 1 --no-save    # only shows that it runs

Uber's passages of 2021, each distinct text once. All contenders take turns in one process, in an order that rotates;
the median counts. ``least cosine`` is to `SentenceTransformer.encode` in float32. Tokens are those the model reads,
without padding. ``tokenizing alone`` is one call of the tokenizer with all texts.
"""

from __future__ import annotations

import os
import statistics
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

import json

import numpy as np
from _common import minilm, parser, print_table, write_results


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--model", help="folder or hub name; default: all-MiniLM-L6-v2")
    options.add_argument("--texts", type=int, help="only so many of the texts, evenly spaced")
    options.add_argument("--copies", type=int, default=1, help="so many copies of each text, to fill a GPU")
    options.add_argument("--repeats", type=int, default=5, help="rounds")
    options.add_argument("--no-save", dest="save", action="store_false", help="print only")
    args = options.parse_args()

    import torch
    from sentence_transformers import SentenceTransformer

    from llama_index_embft.embeddings import cut_into_batches, encode_texts, padding_share
    from llama_index_embft.embeddings.encoding import PADDING_CPU

    corpus = json.loads((args.data_dir / "uber_10k_2021.json").read_text(encoding="utf-8"))["corpus"]
    texts = list(dict.fromkeys(corpus.values()))
    if args.texts:
        texts = texts[:: max(1, len(texts) // args.texts)][: args.texts]
    texts = texts * args.copies
    model = SentenceTransformer(args.model or minilm(), device=args.device)

    def tokenize() -> dict:
        return model.tokenizer(texts, truncation=True, max_length=model.max_seq_length)

    lengths = np.array([len(ids) for ids in tokenize()["input_ids"]])
    by_characters = np.argsort([-len(text) for text in texts], kind="stable")
    most = PADDING_CPU if args.device == "cpu" else 1.0
    batches = cut_into_batches(model.preprocess(texts[:1024]), min(1024, len(texts)), 4096, most_padding=most) or []
    ways = {
        "SentenceTransformer.encode": lambda: model.encode(texts),
        "SentenceTransformer.encode, bfloat16 autocast": lambda: _autocast(model, texts),
        "ours, float32": lambda: encode_texts(model, texts),
        "ours, bfloat16": lambda: encode_texts(model, texts, precision="bfloat16"),
        "tokenizing alone": tokenize,
    }
    for way in ways.values():
        way() if args.device != "cpu" else None
    model.encode(texts[:64])  # first calls allocate
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    vectors = {}
    order = list(ways)
    for turn in range(args.repeats):
        for name in order[turn % len(order) :] + order[: turn % len(order)]:
            start = time.perf_counter()
            vectors[name] = ways[name]()
            if args.device.startswith("cuda"):
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - start)
    base = statistics.median(seconds["SentenceTransformer.encode"])
    rows = []
    for name, times in seconds.items():
        median = statistics.median(times)
        row = {"contender": name, "seconds": median, "spread": max(times) - min(times),
               "tokens/s": float(lengths.sum()) / median}  # fmt: skip
        if name != "tokenizing alone":
            row["times SentenceTransformer.encode"] = base / median
            row["least cosine"] = float(_cosines(vectors[name], vectors["SentenceTransformer.encode"]).min())
        rows.append(row)
    print_table(rows)
    shape = {
        "texts": len(texts),
        "tokens": int(lengths.sum()),
        "padding, 32 a batch by characters": padding_share(
            lengths, [by_characters[start : start + 32] for start in range(0, len(texts), 32)]
        ),
        "padding, ours": padding_share(lengths[:1024], [batch.rows for batch in batches]),
    }
    print(shape)
    if args.save:
        write_results(
            "encode", rows, device=args.device, threads=torch.get_num_threads(), repeats=args.repeats, **shape
        )


def _autocast(model, texts):
    import torch

    with torch.autocast(model.device.type, dtype=torch.bfloat16):
        return model.encode(texts, convert_to_tensor=True).float().cpu().numpy()


def _cosines(left, right):
    return (left * right).sum(axis=1) / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1)


if __name__ == "__main__":
    main()
