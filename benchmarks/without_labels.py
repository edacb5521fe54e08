"""What does full training on questions from the text bring on questions that people asked, alone and beside BM25?

Questions are made from all passages of a data set, by the kinds given; no label is used. The whole model is trained on
them with the engine's defaults, and then asked the test questions (split by document 60/10/30), as the base is. A seed
changes the questions, the batches and their order; differences are means over the seeds, paired, and resampled by
document. Beside BM25, both models are mixed at the weight that `tune` guesses from the base where no questions are
known. Finished seeds are kept in a folder (``--folder``), so a killed run goes on.

    python benchmarks/without_labels.py --data covidqa_en norquad_no --seeds 3
    python benchmarks/without_labels.py --data covidqa_en norquad_no --kinds cloze pattern+phrases+cloze
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
from _common import command, merged, minilm, parser, print_table, write_results
from _human import DEPTH, HUMAN, OLDER, HumanSet, copied_share

from llama_index_embft.embeddings import as_encoder, load_embed_model
from llama_index_embft.evaluation import paired_tests
from llama_index_embft.finetune import SentenceTransformersFinetuneEngine, TextSettings
from llama_index_embft.generation import generate_extractive_pairs
from llama_index_embft.retrievers import prior_weight
from llama_index_embft.search import fuse

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llama_index_embft.search import TopK

DEFAULT = "default"
KEYS = ("data", "kinds", "questions per chunk", "epochs", "batch size", "tokens")


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--data", nargs="+", choices=HUMAN + OLDER, default=["covidqa_en", "norquad_no"])
    options.add_argument("--kinds", nargs="+", default=[DEFAULT], help="names, mixes joined by +")
    options.add_argument("--seeds", type=int, default=1)
    options.add_argument("--questions-per-chunk", type=int, default=1)
    options.add_argument("--epochs", type=int, default=2)
    options.add_argument("--batch-size", type=int, default=64)
    options.add_argument("--max-seq-length", type=int, default=256)
    options.add_argument("--limit", type=int, default=800, help="most test questions")
    options.add_argument("--folder", type=Path, default=Path("runs/without_labels"), help="where seeds are kept")
    args = options.parse_args()
    for name in args.data:
        trial = Trial(HumanSet.load(args.data_dir, name, args.limit), args)
        for kinds in args.kinds:
            row = trial.row(kinds)
            print_table([{key: value for key, value in row.items() if key != "command"}])
            write_results("without_labels", merged("without_labels", [row], KEYS), device=args.device)


@dataclass
class Values:
    """nDCG@10 of each test question, alone and mixed with BM25."""

    alone: NDArray[np.float64]
    mixed: NDArray[np.float64]
    n_pairs: int = 0


class Trial:
    """One data set: its base, and what is trained from it."""

    def __init__(self, data: HumanSet, args: Any) -> None:
        self.data, self.args = data, args
        base = as_encoder(load_embed_model(minilm(), device=args.device))
        self.share = copied_share(data, base)
        self.weight = prior_weight(self.share)
        self.lexical = data.lexical.search(data.test.texts, DEPTH)
        self.base = self.values(base)
        self.bm25 = data.test.values(self.lexical, len(data.ids))
        self.clusters = [
            data.dataset.source_documents.get(doc, doc)
            for doc in (data.dataset.relevant_docs[query][0] for query in data.test.ids)
        ]

    def values(self, encoder: Any) -> Values:
        """A model on the test questions."""
        hits: TopK = self.data.documents(encoder).search(encoder.encode_queries(self.data.test.texts), DEPTH)
        n = len(self.data.ids)
        return Values(
            self.data.test.values(hits, n), self.data.test.values(fuse(hits, self.lexical, self.weight, "zscore"), n)
        )

    def row(self, kinds: str) -> dict[str, Any]:
        """The mean over the seeds, against the base."""
        seeds = [self.trained(kinds, seed) for seed in range(self.args.seeds)]
        row: dict[str, Any] = {
            "data": self.data.name,
            "kinds": kinds,
            "n": len(self.data.test),
            "copied share": round(self.share, 4),
            "questions per chunk": self.args.questions_per_chunk,
            "epochs": self.args.epochs,
            "batch size": self.args.batch_size,
            "tokens": self.args.max_seq_length,
            "seeds": self.args.seeds,
            "pairs": seeds[0].n_pairs,
            "BM25": round(float(self.bm25.mean()), 4),
        }
        for name in ("alone", "mixed"):
            base, each = getattr(self.base, name), [getattr(seed, name) for seed in seeds]
            tuned = np.mean(each, axis=0)
            test = paired_tests((tuned - base)[:, None], self.clusters)[0]
            row |= {
                f"base {name}": round(float(base.mean()), 4),
                f"trained {name}": round(float(tuned.mean()), 4),
                f"{name}: difference": round(test.difference, 4),
                f"{name}: low": round(test.interval[0], 4),
                f"{name}: high": round(test.interval[1], 4),
                f"{name}: of each seed": [round(float(one.mean()), 4) for one in each],
            }
        return row | {"command": command()}

    def trained(self, kinds: str, seed: int) -> Values:
        """One seed, read from the folder where it was finished before."""
        a = self.args
        name = f"{self.data.name}-{kinds}-{a.questions_per_chunk}-{a.epochs}-{a.batch_size}-{a.max_seq_length}-{seed}"
        kept = a.folder / f"{name}.npz"
        if kept.exists():
            with np.load(kept) as found:
                return Values(found["alone"], found["mixed"], int(found["n_pairs"]))
        questions = generate_extractive_pairs(
            self.data.nodes(),
            kinds=None if kinds == DEFAULT else kinds.split("+"),
            num_questions_per_chunk=a.questions_per_chunk,
            seed=seed,
        )
        with tempfile.TemporaryDirectory() as folder:
            SentenceTransformersFinetuneEngine(
                questions,
                minilm(),
                folder,
                epochs=a.epochs,
                batch_size=a.batch_size,
                device=a.device,
                seed=seed,
                show_progress_bar=False,
                text=TextSettings(max_seq_length=a.max_seq_length),
            ).finetune()
            values = self.values(as_encoder(load_embed_model(folder, device=a.device), cache=None))
        values.n_pairs = len(questions.queries)
        a.folder.mkdir(parents=True, exist_ok=True)
        np.savez(kept, alone=values.alone, mixed=values.mixed, n_pairs=values.n_pairs)
        return values


if __name__ == "__main__":
    main()
