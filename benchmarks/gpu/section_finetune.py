"""Full fine-tuning: pairs a second and model FLOPs utilization, against the peer."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
from kit import tokens_and_flops

if TYPE_CHECKING:
    from kit import Kit

METHOD = "full"
RUNS = (("bge-small", 4096, 256), ("bge-base", 2048, 256), ("bge-small", 4096, 64), ("bge-base", 2048, 64))


def run(kit: Kit, method: str = METHOD) -> None:
    """Train BGE-small's and BGE-base's shapes; then compare a small run with the CPU's."""
    _check(kit, method)
    # The peer before any second size: without it the first row is beside nothing.
    for place, (name, n, batch) in enumerate(RUNS[: 1 if kit.tiny else None]):
        if kit.has_time_for(f"{method} {name}, batch {batch}", 0.25):
            _ours(kit, name, kit.size(n, 24), kit.size(batch, 8), method)
        if place == 0 and kit.peer and method == "full" and kit.has_time_for(f"full {name}: the peer", 0.2):
            _peer(kit, name, kit.size(320, 20))


def _check(kit: Kit, method: str) -> None:
    """One epoch on each device in float32 without dropout ends in nearly the same model."""
    from sentence_transformers import SentenceTransformer

    model = kit.model_folder("bge-small")
    data = kit.dataset(16)  # the CPU trains on them too, and is the slower one
    texts = list(data.queries.values())
    before = SentenceTransformer(model, device="cpu").encode(texts)
    vectors = []
    for place, device in (("here", kit.device), ("there", kit.reference_device())):
        out = str(kit.folder / f"{method}-{place}")
        engine(data, model, out, device, 8, method, bf16=False, hidden_dropout=False, attention_dropout=False,
                mini_batch_size=8, lora_dropout=0.0, learning_rate=1e-4).finetune()  # fmt: skip
        vectors.append(SentenceTransformer(out, device="cpu").encode(texts))
    cosine = [(vectors[0] * other).sum(axis=1) for other in (vectors[1], before)]
    kit.check(f"{method}: least cosine to the model trained on the CPU", cosine[0].min(), 0.999, at_least=True)
    kit.check(f"{method}: has learned (largest change of a vector)", np.abs(vectors[0] - before).max(), 1e-5,
              at_least=True)  # fmt: skip


def engine(
    data: Any, model: str, out: str, device: str, batch: int, method: str, *, epochs: int = 1, **changes: Any
) -> Any:
    """The engine on a device, with changes to its defaults."""
    from llama_index_embft.finetune import SentenceTransformersFinetuneEngine
    from llama_index_embft.finetune.full import engine_arguments

    return SentenceTransformersFinetuneEngine(
        data,
        model,
        out,
        batch_size=batch,
        epochs=epochs,
        device=device,
        show_progress_bar=False,
        method=method,
        **engine_arguments(**changes),
    )


def _ours(kit: Kit, name: str, n: int, batch: int, method: str) -> None:
    import torch

    data = kit.dataset(n)
    if kit.device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    trained = engine(
        data, kit.model_folder(name), str(kit.folder / f"{method}-{name}-{batch}"), kit.device, batch, method
    )
    start = time.perf_counter()
    result = trained.finetune()
    kit.sync()
    seconds = time.perf_counter() - start
    train = result.seconds["train"]
    kit.add(**_row(kit, f"ours, {method}", name, data, n, batch, seconds, train))
    kit.rows[-1]["mini-batch"] = result.mini_batch_size
    if kit.device.startswith("cuda"):
        kit.rows[-1]["GPU GiB"] = torch.cuda.max_memory_allocated() / 2**30


def _row(kit: Kit, what: str, name: str, data: Any, n: int, batch: int, seconds: float, train: float) -> dict[str, Any]:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(kit.model_folder(name), device="cpu")
    tokens, flops = tokens_and_flops(model, [*data.queries.values(), *data.corpus.values()])
    return {
        "model": name,
        "what": what,
        "pairs": n,
        "batch": batch,
        "seconds": seconds,
        "pairs/s": n / seconds,
        "pairs/s in steps": n / train,
        "tokens/s in steps": tokens / train,
        # Forward once and backward twice as much, whatever is computed again: utilization counts what was needed.
        "MFU in steps": 3 * flops / train / kit.peak["bfloat16"],
    }


def _peer(kit: Kit, name: str, n: int) -> None:
    """llama-index-finetuning's engine, or its settings in sentence-transformers' trainer where it is not installed."""
    data = kit.dataset(n)
    out = str(kit.folder / "peer")
    try:
        from llama_index.finetuning import (
            EmbeddingQAFinetuneDataset as StockDataset,
            SentenceTransformersFinetuneEngine as StockEngine,
        )
    except ImportError:
        what = "SentenceTransformerTrainer with llama-index-finetuning's settings (itself not installed)"
        work = _stock_settings(data, kit.model_folder(name), out, kit.device)
    else:
        what = "llama-index-finetuning"
        stock = StockDataset(queries=data.queries, corpus=data.corpus, relevant_docs=data.relevant_docs)
        one = StockDataset(queries={"q0": data.queries["q0"]}, corpus={"d0": data.corpus["d0"]},
                           relevant_docs={"q0": ["d0"]})  # fmt: skip
        work = StockEngine(
            stock, kit.model_folder(name), out, batch_size=10, val_dataset=one, epochs=1, device=kit.device,
            show_progress_bar=False, evaluation_steps=10**6,
        ).finetune  # fmt: skip
    start = time.perf_counter()
    work()
    kit.sync()
    seconds = time.perf_counter() - start
    kit.add(**_row(kit, what, name, data, n, 10, seconds, seconds))


def _stock_settings(data: Any, model: str, out: str, device: str) -> Any:
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.losses import MultipleNegativesRankingLoss

    loaded = SentenceTransformer(model, device=device)
    rows = [(text, data.corpus[data.relevant_docs[query][0]]) for query, text in data.queries.items()]
    arguments = SentenceTransformerTrainingArguments(
        out, per_device_train_batch_size=10, num_train_epochs=1, report_to="none", save_strategy="no",
        use_cpu=device == "cpu", disable_tqdm=True, logging_strategy="no",
    )  # fmt: skip
    columns = {"anchor": [row[0] for row in rows], "positive": [row[1] for row in rows]}
    trainer = SentenceTransformerTrainer(
        loaded, arguments, train_dataset=Dataset.from_dict(columns), loss=MultipleNegativesRankingLoss(loaded)
    )
    return trainer.train
