"""Which documents should a query be compared with in training? All of the corpus, or those that have a question?

    python benchmarks/adapter_negatives.py

The functions of Python's standard library, split by module three times; a linear adapter over MiniLM, each with the
defaults of `EmbeddingAdapterFinetuneEngine` and two learning rates. The test questions ask about documents without a
training question, as a new user's would.
"""

from __future__ import annotations

import os
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
from _common import minilm, parser, print_table, write_results


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--splits", type=int, default=3)
    args = options.parse_args()

    from llama_index_embft.dataset import build_stdlib_dataset
    from llama_index_embft.embeddings import load_embed_model
    from llama_index_embft.evaluation import evaluate_embed_model
    from llama_index_embft.finetune import EmbeddingAdapterFinetuneEngine
    from llama_index_embft.finetune.adapter import AdapterSettings
    from llama_index_embft.pipeline import split_for_tuning

    base = load_embed_model(minilm(), device=args.device)
    dataset = build_stdlib_dataset()
    splits = [split_for_tuning(dataset, seed=seed) for seed in range(args.splits)]
    before = [evaluate_embed_model(split.test, base).mean("ndcg@10") for split in splits]
    rows = []
    for negatives in ("asked", "corpus"):
        for learning_rate in (1e-4, 3e-4):
            gains, val_gains = [], []
            for split, score in zip(splits, before, strict=True):
                with tempfile.TemporaryDirectory() as folder:
                    engine = EmbeddingAdapterFinetuneEngine(
                        split.train,
                        base,
                        val_dataset=split.val,
                        training=AdapterSettings(negatives=negatives),
                        learning_rate=learning_rate,
                        model_output_path=f"{folder}/adapter",
                    )
                    result = engine.finetune()
                    tuned = evaluate_embed_model(split.test, engine.get_finetuned_model()).mean("ndcg@10")
                gains.append(tuned - score)
                val_gains.append(result.best_score - result.base_score)
            rows.append(
                {
                    "negatives": negatives,
                    "learning_rate": str(learning_rate),
                    "test gain": float(np.mean(gains)),
                    "by split": " ".join(f"{gain:+.3f}" for gain in gains),
                    "validation gain": float(np.mean(val_gains)),
                }
            )
            print_table(rows[-1:])
    print_table(rows)
    write_results("adapter_negatives", rows, device=args.device, base_ndcg10=before)


if __name__ == "__main__":
    main()
