"""Exact top-k at the scale of a real mining job: share of the pure matrix product; same ids as float64 on the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from kit import unit_vectors

if TYPE_CHECKING:
    from kit import Kit


def run(kit: Kit) -> None:
    """Measure 183k queries against 369k documents of 512 dimensions, 210 hits each."""
    _check(kit)
    import torch

    from llama_index_embft.search import top_k

    n_queries, n_docs, dim, k = (kit.size(*pair) for pair in ((183_000, 300), (369_000, 500), (512, 32), (210, 10)))
    queries, corpus = (
        torch.nn.functional.normalize(torch.randn(n, dim, device=kit.device), dim=1) for n in (n_queries, n_docs)
    )
    low = torch.float16 if kit.device.startswith("cuda") else torch.float32
    left, right = queries.to(low), corpus.to(low)

    def product() -> None:
        # 16,384 rows at a time: the scores of all would take 135 GB.
        out = torch.empty(min(16_384, n_queries), n_docs, device=kit.device, dtype=low)
        for start in range(0, n_queries, len(out)):
            block = left[start : start + len(out)]
            torch.mm(block, right.T, out=out[: len(block)])

    pure = kit.timed(product)
    seconds = kit.timed(lambda: top_k(queries, corpus, k), repeats=2, warm=kit.left() > 60)
    flops = 2 * n_queries * n_docs * dim
    shape = f"{n_queries} x {n_docs} x {dim}, k {k}"
    kit.add(**{"what": "matrix product alone", "shape": shape, "seconds": pure, "FLOP/s": flops / pure})
    kit.add(**{"what": "top_k", "shape": shape, "seconds": seconds, "share of the product": pure / seconds,
         "share of fp16 limit": flops / seconds / kit.peak["float16"]}
    )  # fmt: skip
    if kit.peer and kit.has_time_for("torch.topk on blocks"):

        def plain() -> None:
            for start in range(0, n_queries, 4096):
                torch.topk(left[start : start + 4096] @ right.T, k, dim=1)

        seconds = kit.timed(plain, repeats=1)
        kit.add(what="product and torch.topk, low precision", shape=shape, seconds=seconds)


def _check(kit: Kit) -> None:
    from llama_index_embft.search import top_k

    queries, corpus = unit_vectors(kit.size(500, 60), 64, seed=3), unit_vectors(kit.size(20_000, 700), 64, seed=4)
    corpus[7] = corpus[3]  # equal scores: the lower row first
    found = top_k(queries, corpus, 20, device=kit.device)
    there = top_k(queries, corpus, 20, device=kit.reference_device())
    kit.check("top-k: ids that differ from the CPU's", float((found.rows != there.rows).sum()), 0)
    kit.check("top-k: scores that differ from the CPU's", float((found.scores != there.scores).sum()), 0)
    # The plain way in double precision; pairs nearer than float32 tells apart may swap.
    plain = queries.astype(np.float64) @ corpus.astype(np.float64).T
    best = np.take_along_axis(plain, np.argsort(-plain, axis=1, kind="stable")[:, :20], axis=1)
    off = np.abs(np.take_along_axis(plain, found.rows, axis=1) - best).max()
    kit.check("top-k: score lost against sorting in float64", off, 1e-6)
