"""What does the best retriever for one's documents score on questions that people asked? Parts, mixtures, the choice.

For each data set, split by document (60/10/30), the test questions are put to the base model, to BM25, to their fusions,
to models trained on what is at hand, and to the stack that is handed over, in three situations:

- ``labels``: the questions of the training and validation sides are known. Models train on the training side; model
  and weight are chosen on the validation side.
- ``few``: 50 of these questions are known. They choose model and weight, and nothing trains on them.
- ``none``: no question is known. The weight is the measured prior, see `prior_weight`; a model may be trained on
  questions taken from the text.

Nothing is chosen on test questions. Intervals are paired and resampled by document, as in `compare`. The ceiling takes
for each question the best of the single parts, which no system can know.

    python benchmarks/human.py                              # base, BM25 and their mixtures, five sets; all CPU
    python benchmarks/human.py --train --data covidqa_en    # trained models too; minutes on two cores
    python benchmarks/human.py --train --device cuda

The data lie in ``$EMBFT_SHARED_DATA/human`` or ``../shared/data/human``.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
from _common import RESULTS, command, minilm, parser, print_table, write_results
from _human import DEPTH, HUMAN, METRIC, HumanSet, Questions, draws

SITUATIONS = ("labels", "few", "none")
FUSIONS = {"RRF": "rrf", "DBSF": "dbsf", "equal weight": "zscore"}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--data", nargs="+", default=list(HUMAN), metavar="SET", help=", ".join(HUMAN))
    options.add_argument("--questions", nargs="+", default=list(SITUATIONS), choices=SITUATIONS)
    options.add_argument("--train", action="store_true", help="train models as well (full, 1 epoch)")
    options.add_argument("--few", type=int, default=50, help="questions known in the situation 'few'")
    options.add_argument("--limit", type=int, default=800, help="most test questions")
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
                write_results("human", _merged(rows), device=args.device, depth=DEPTH, model="all-MiniLM-L6-v2")


@dataclass
class Part:
    """A dense model as a part of a stack: what it finds, and what it took to get it."""

    label: str
    hits: Any  # TopK of the test questions
    encoder: Any
    index: Any
    seconds: float = 0.0


@dataclass
class Stack:
    """What is handed over: a part and its weight beside BM25."""

    part: Part
    weight: float
    score: float  # on the questions that chose it; NaN where there are none

    @property
    def label(self) -> str:
        """In words, for the table."""
        if self.weight in (0, 1):
            return "BM25" if self.weight == 0 else self.part.label
        return f"{self.part.label} × {self.weight:.2f} + BM25"


@dataclass
class Bench:
    """One data set in all situations; what they share is done once."""

    data: HumanSet
    args: Any
    parts: dict[str, Part] = field(default_factory=dict)

    def rows(self, situation: str) -> list[dict[str, Any]]:
        """The lines of the table."""
        from llama_index_embft.retrievers import fuse

        data, begin = self.data, time.perf_counter()
        if "base" not in self.parts:
            self.parts["base"] = self.part("base", minilm())
            lexical_begin = time.perf_counter()
            self.lexical = data.lexical.search(data.test.texts, DEPTH)
            self.lexical_seconds = time.perf_counter() - lexical_begin
        candidates = [self.parts["base"]]
        if self.args.train and situation != "few":
            candidates.append(self.trained(situation))
        elif self.args.train and "none" in self.parts:
            candidates.append(self.parts["none"])  # 50 questions can say whether that one may be used
        stack = self.tuned_stack(situation, candidates)
        handed = fuse(stack.part.hits, self.lexical, stack.weight)
        seconds = time.perf_counter() - begin

        systems = {part.label: (part.hits, part.seconds) for part in candidates}
        systems["BM25"] = (self.lexical, self.lexical_seconds)
        for label, method in FUSIONS.items():
            systems[f"{label}: base, BM25"] = (fuse(self.parts["base"].hits, self.lexical, 0.5, method), None)
        systems["handed over"] = (handed, seconds)
        reports = {label: data.report(hits, data.test, label) for label, (hits, _) in systems.items()}
        single = [reports[part.label] for part in candidates] + [reports["BM25"]]
        best = max(single, key=lambda report: report.mean(METRIC))
        shown = [
            self.row(situation, reports[label], reports["base"], best, took) for label, (_, took) in systems.items()
        ]
        shown[-1] |= {"stack": stack.label, "weight": round(stack.weight, 2), "copied share": self.share()}
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
                row[f"{name}, 95 %"] = [round(bound, 4) for bound in test.ci95]
        return row | {"best part": best.label, "seconds": None if seconds is None else round(seconds, 1)}

    def tuned_stack(self, situation: str, candidates: list[Part]) -> Stack:
        """The stack that the questions at hand choose: candidate and weight; without any, the last one and the prior."""
        from llama_index_embft.retrievers import learn_weight, prior_weight

        data, prior = self.data, prior_weight(self.share())
        if situation == "none":
            return Stack(candidates[-1], prior, float("nan"))
        ids = list(data.split.val.queries)
        if situation == "few":
            (ids,) = draws(data.known, self.args.few, 1)
        known: Questions = data.questions(ids)
        lexical = data.lexical.search(known.texts, DEPTH)
        stacks = []
        for part in candidates:
            hits = part.index.search(part.encoder.encode_queries(known.texts), DEPTH)
            choice = learn_weight(hits, lexical, known.judgements, prior=prior)
            stacks.append(Stack(part, choice.weight, choice.scores[choice.weight]))
        return max(stacks, key=lambda stack: stack.score)

    def share(self) -> float:
        """How many passages the base finds by a sentence copied from them."""
        from llama_index_embft.retrievers import copied_share

        if not hasattr(self, "_share"):
            nodes = _nodes(self.data)
            self._share = copied_share(nodes, self.parts["base"].encoder, seed=self.args.seed)
        return self._share

    def part(self, label: str, model: str, seconds: float = 0.0) -> Part:
        """A model's hits on the test questions."""
        from llama_index_embft.embeddings import as_encoder, load_embed_model

        begin = time.perf_counter()
        encoder = as_encoder(
            load_embed_model(model, device=self.args.device), cache="default" if label == "base" else None
        )
        index = self.data.documents(encoder)
        hits = index.search(encoder.encode_queries(self.data.test.texts), DEPTH)
        return Part(label, hits, encoder, index, seconds + time.perf_counter() - begin)

    def trained(self, situation: str) -> Part:
        """The whole model, trained on labels or on questions taken from the text."""
        from llama_index_embft.finetune import SentenceTransformersFinetuneEngine
        from llama_index_embft.finetune.full import TextSettings
        from llama_index_embft.generation import generate_extractive_pairs

        if situation not in self.parts:
            begin = time.perf_counter()
            if situation == "labels":
                questions, validation = self.data.split.train, self.data.split.val
            else:
                questions = generate_extractive_pairs(
                    _nodes(self.data), num_questions_per_chunk=1, seed=self.args.seed
                )
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


def _nodes(data: HumanSet) -> list[Any]:
    from llama_index.core.schema import TextNode

    return [TextNode(id_=doc, text=text) for doc, text in data.dataset.corpus.items()]


def _difference(base: Any, other: Any) -> tuple[Any, str]:
    from llama_index_embft.evaluation import compare

    metric = compare(base, other, primary=METRIC).systems[0].metrics[METRIC]
    return metric.test, metric.outcome


def _merged(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Keep the rows of earlier runs on other sets and situations: slow ones need not be run again."""
    path = RESULTS / "human.json"
    kept = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    new = {(row["data"], row["questions"]) for row in rows}
    return [row for row in kept if (row["data"], row["questions"]) not in new] + rows


if __name__ == "__main__":
    main()
