"""What does the best retriever for one's documents score on questions that people asked? Parts, mixtures, `tune`.

For each data set, split by document (60/10/30), the test questions are put to the base model, to BM25, to their
fusions, to models trained on what is at hand, and to the retriever that `tune` hands over, in three situations:

- ``labels``: `tune` is given the questions of the training and validation sides;
- ``few``: 50 of these questions;
- ``none``: the passages alone. Then the weight is the measured prior, see `prior_weight` and ``fusion.py``.

Nothing is chosen on test questions. Intervals are paired and resampled by document, as in `compare`. The ceiling takes
for each question the best of the single parts, which no system can know.

    python benchmarks/human.py                              # nothing is trained: base, BM25 and their mixtures
    python benchmarks/human.py --train --data covidqa_en    # trained models too; 20 minutes a situation on two cores
    python benchmarks/human.py --train --device cuda

The data lie in ``$EMBFT_SHARED_DATA/human`` or ``../shared/data/human``.
"""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass, field
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
from _common import command, merged, minilm, parser, print_table, write_results
from _human import DEPTH, HUMAN, METRIC, HumanSet, draws

SITUATIONS = ("labels", "few", "none")
FUSIONS = {"RRF": "rrf", "DBSF": "dbsf", "equal weight": "zscore"}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--data", nargs="+", default=list(HUMAN), metavar="SET", help=", ".join(HUMAN))
    options.add_argument("--questions", nargs="+", default=list(SITUATIONS), choices=SITUATIONS)
    options.add_argument("--train", action="store_true", help="train models as well (full, 1 epoch)")
    options.add_argument("--few", type=int, default=50, help="questions known in the situation 'few'")
    options.add_argument("--limit", type=int, default=800, help="most test questions")
    options.add_argument("--budget", default="20 min", help="of each call of tune")
    options.add_argument("--max-seq-length", type=int, default=256)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--no-save", dest="save", action="store_false", help="print only")
    args = options.parse_args()
    rows: list[dict[str, Any]] = []
    for name in args.data:
        bench = Bench(HumanSet.load(args.data_dir, name, args.limit), args)
        for situation in args.questions:
            fresh = bench.rows(situation)
            print_table(fresh)
            rows += [{**row, "command": command()} for row in fresh]
            if args.save:  # now, and not at the end: a set can take an hour
                write_results(
                    "human",
                    merged("human", rows, ("data", "questions")),
                    device=args.device,
                    depth=DEPTH,
                    model="all-MiniLM-L6-v2",
                )


@dataclass
class Part:
    """A dense model as a part of a stack: what it finds, and what it took to get it."""

    label: str
    hits: Any  # TopK of the test questions
    seconds: float


@dataclass
class Handed:
    """What `tune` handed over."""

    label: str
    hits: Any
    seconds: float
    share: float | None  # of chunks that the base finds by a copied sentence


@dataclass
class Bench:
    """One data set in all situations; what they share is done once."""

    data: HumanSet
    args: Any
    parts: dict[str, Part] = field(default_factory=dict)

    def rows(self, situation: str) -> list[dict[str, Any]]:
        """The lines of the table."""
        from llama_index_embft.search import fuse

        data = self.data
        if "base" not in self.parts:
            self.parts["base"] = self.part("base", minilm())
            lexical_begin = time.perf_counter()
            self.lexical = data.lexical.search(data.test.texts, DEPTH)
            self.lexical_seconds = time.perf_counter() - lexical_begin
        single_parts = [self.parts["base"]]
        if self.args.train:
            single_parts.append(self.trained("labels" if situation == "labels" else "none"))
        handed = self.handed_over(situation)

        systems = {part.label: (part.hits, part.seconds) for part in single_parts}
        systems["BM25"] = (self.lexical, self.lexical_seconds)
        for label, method in FUSIONS.items():
            systems[f"{label}: base, BM25"] = (fuse(self.parts["base"].hits, self.lexical, 0.5, method), None)
        systems["handed over"] = (handed.hits, handed.seconds)
        reports = {label: data.report(hits, data.test, label) for label, (hits, _) in systems.items()}
        single = [reports[part.label] for part in single_parts] + [reports["BM25"]]
        best = max(single, key=lambda report: report.mean(METRIC))
        shown = [
            self.row(situation, reports[label], reports["base"], best, took) for label, (_, took) in systems.items()
        ]
        shown[-1] |= {"stack": handed.label, "copied share": handed.share}
        ceiling = np.max([report.values[METRIC] for report in single], axis=0).mean()
        shown.append(self.head(situation, "ceiling: the best part for each question") | {METRIC: float(ceiling)})
        return shown

    def head(self, situation: str, label: str) -> dict[str, Any]:
        """What each line begins with."""
        return {"data": self.data.name, "questions": situation, "system": label, "n": len(self.data.test)}

    def row(self, situation: str, report: Any, base: Any, best: Any, seconds: float | None) -> dict[str, Any]:
        """One system: its means, and its difference to the base and to the best single part, each with its interval."""
        row = self.head(situation, report.label)
        row |= {name: report.mean(name) for name in (METRIC, "hit_rate@10")}
        for name, other in (("gain on base", base), ("gain on best part", best)):
            row[name], row[f"{name}, 95 %"] = None, None
            if other.label != report.label:
                test, row[f"{name}: outcome"] = _difference(other, report)
                row[name] = round(test.difference, 4)
                bounds = [round(bound, 4) for bound in test.interval]
                row[f"{name}, 95 %"] = bounds if np.isfinite(bounds).all() else None
        return row | {"best part": best.label, "seconds": None if seconds is None else round(seconds, 1)}

    def handed_over(self, situation: str) -> Handed:
        """What `tune` finds with the questions of a situation, on the test questions."""
        from llama_index_embft.embeddings import as_encoder
        from llama_index_embft.pipeline import tune
        from llama_index_embft.search import fuse

        data, args = self.data, self.args
        if situation == "none":
            source: Any = data.nodes()
        else:
            ids = data.known if situation == "labels" else draws(data.known, args.few, 1)[0]
            source = data.dataset.subset(ids, keep_corpus=True)
        begin = time.perf_counter()
        result = tune(
            source,
            model=load(minilm(), args.device),
            methods="auto" if args.train else "none",
            budget=args.budget,
            seed=args.seed,
            show_progress=False,
        )
        seconds = time.perf_counter() - begin
        weight, hits = result.settings.dense_weight, self.lexical
        if weight > 0:
            encoder = as_encoder(result.embed_model)
            dense = data.documents(encoder).search(encoder.encode_queries(data.test.texts), DEPTH)
            hits = fuse(dense, self.lexical, weight, result.settings.fusion)
        return Handed(result.chosen.label, hits, seconds, result.copied_share)

    def part(self, label: str, model: str, seconds: float = 0.0) -> Part:
        """A model's hits on the test questions."""
        from llama_index_embft.embeddings import as_encoder

        begin = time.perf_counter()
        encoder = as_encoder(load(model, self.args.device), cache="default" if label == "base" else None)
        index = self.data.documents(encoder)
        hits = index.search(encoder.encode_queries(self.data.test.texts), DEPTH)
        return Part(label, hits, seconds + time.perf_counter() - begin)

    def trained(self, situation: str) -> Part:
        """The whole model, trained on labels or on questions taken from the text."""
        from llama_index_embft.finetune import SentenceTransformersFinetuneEngine, TextSettings
        from llama_index_embft.generation import generate_extractive_pairs

        if situation not in self.parts:
            begin = time.perf_counter()
            if situation == "labels":
                questions, validation = self.data.split.train, self.data.split.val
            else:
                questions = generate_extractive_pairs(self.data.nodes(), num_questions_per_chunk=1, seed=self.args.seed)
                validation = None
            with tempfile.TemporaryDirectory() as folder:
                SentenceTransformersFinetuneEngine(
                    questions,
                    minilm(),
                    folder,
                    val_dataset=validation,
                    epochs=2 if situation == "labels" else 1,
                    batch_size=32,
                    device=self.args.device,
                    seed=self.args.seed,
                    show_progress_bar=False,
                    text=TextSettings(max_seq_length=self.args.max_seq_length),
                ).finetune()
                label = "full, labels" if situation == "labels" else "full, questions from the text"
                self.parts[situation] = self.part(label, folder, time.perf_counter() - begin)
        return self.parts[situation]


def load(model: str, device: str) -> Any:
    """A LlamaIndex embedding."""
    from llama_index_embft.embeddings import load_embed_model

    return load_embed_model(model, device=device)


def _difference(base: Any, other: Any) -> tuple[Any, str]:
    from llama_index_embft.evaluation import compare

    metric = compare(base, other, primary=METRIC).systems[0].metrics[METRIC]
    return metric.test, metric.outcome


if __name__ == "__main__":
    main()
