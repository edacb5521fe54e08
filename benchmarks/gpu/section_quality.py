"""Does the card learn what the CPU learns? Lyft to Uber, the tutorial's pair, with real weights and two seeds."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from section_finetune import engine

if TYPE_CHECKING:
    from kit import Kit

SEEDS = (0, 1)
METRICS = ("hit_rate@5", "ndcg@10")


def run(kit: Kit) -> None:
    """Train on the questions about one filing, ask those about another; the epochs are fixed, nothing is chosen."""
    if kit.data is None or (kit.minilm is None and not kit.tiny):
        kit.add(what="quality", **{"left out": "give --minilm and --data, a folder with the two filings' questions"})
        return
    from llama_index_embft.dataset import read_dataset
    from llama_index_embft.embeddings import load_embed_model
    from llama_index_embft.evaluation import evaluate_embed_model

    train, test = (read_dataset(kit.data / f"{name}_10k_2021.json") for name in ("lyft", "uber"))
    model = kit.model_folder("minilm" if kit.minilm else "bge-small")

    def scores(name: str) -> dict[str, float]:
        report = evaluate_embed_model(test, load_embed_model(name, device=kit.device), metrics=METRICS, cache=None)
        return {metric: report.mean(metric) for metric in METRICS}

    kit.add(what="before", **scores(model))
    for seed in SEEDS:
        if not kit.has_time_for(f"quality, seed {seed}", 0.3):
            return
        out = str(kit.folder / f"quality-{seed}")
        begin = time.perf_counter()
        engine(train, model, out, kit.device, 64, "full", epochs=2, seed=seed).finetune()
        seconds = time.perf_counter() - begin
        kit.add(what="full, 2 epochs", seed=seed, seconds=seconds, **scores(out))
