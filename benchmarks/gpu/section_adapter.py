"""The linear adapter on 10⁶ ready vectors of 768 dimensions."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
from kit import unit_vectors

if TYPE_CHECKING:
    from kit import Kit


def run(kit: Kit) -> None:
    """Measure an epoch; then train small ones on both devices and compare the weights."""
    from llama_index_embft.embeddings import linear_adapter
    from llama_index_embft.finetune.adapter import AdapterOptions, AdapterSettings, train_adapter

    def how(**changes: int) -> tuple[AdapterOptions, AdapterSettings]:
        return AdapterOptions(**{"epochs": 1, "learning_rate": 1e-3, **changes}), AdapterSettings(temperature=0.05)

    queries, corpus = unit_vectors(200, 32, seed=5), unit_vectors(300, 32, seed=6)
    positives = [[row] for row in range(200)]
    weights = []
    for device in (kit.device, kit.reference_device()):
        adapter = linear_adapter(32)
        train_adapter(adapter, queries, corpus, positives, *how(epochs=3), device=device)
        weights.append(adapter.weight.detach().cpu().numpy())
    kit.check("adapter: largest difference of a weight to the CPU's", np.abs(weights[0] - weights[1]).max(), 1e-4)
    kit.check("adapter: has learned (largest change of a weight)", np.abs(weights[0] - np.eye(32)).max(), 1e-3,
              at_least=True)  # fmt: skip

    n_docs, dim = kit.size(1_000_000, 400), kit.size(768, 32)
    corpus = unit_vectors(n_docs, dim, seed=7)
    for batch, n_queries in ((1024, kit.size(65_536, 100)), (64, kit.size(6_400, 100))):
        if not kit.has_time_for(f"adapter, batch {batch}", 0.2):
            return
        queries = unit_vectors(n_queries, dim, seed=8)
        positives = [[row] for row in range(n_queries)]
        steps: list[float] = []
        start = time.perf_counter()
        adapter = linear_adapter(dim)
        train_adapter(
            adapter, queries, corpus, positives, *how(batch_size=batch), device=kit.device,
            on_step=lambda *_, steps=steps: steps.append(time.perf_counter()),
        )  # fmt: skip
        kit.sync()
        seconds = time.perf_counter() - start
        train = steps[-1] - steps[0] if len(steps) > 1 else None
        candidates = min(n_docs, 65_536)
        # Scores forward, and back to the queries; the documents stay as they are. And the adapter itself.
        flops = n_queries * (4 * candidates * dim + 6 * dim * dim)
        kit.add(**{"what": f"adapter {n_docs} x {dim}, batch {batch}", "queries": n_queries, "seconds": seconds,
             "seconds before the first step": steps[0] - start, "pairs/s": n_queries / seconds,
             "pairs/s in steps": (n_queries - batch) / train if train and n_queries > batch else None,
             "share of fp32 limit": flops / seconds / kit.peak["float32"]}
        )  # fmt: skip
