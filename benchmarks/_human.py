"""Data sets with questions that people asked, split, and searched by the parts of a stack."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llama_index_embft.dataset import EmbeddingQAFinetuneDataset, split_dataset
from llama_index_embft.errors import DatasetError
from llama_index_embft.evaluation import (
    Judgements,
    evaluate_embed_model,
    evaluate_run,
    find_hits,
    score_hits,
)
from llama_index_embft.generation import generate_extractive_pairs
from llama_index_embft.search import ExactIndex, LexicalIndex

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from llama_index_embft.embeddings import Encoder
    from llama_index_embft.evaluation import RetrievalReport
    from llama_index_embft.search import TopK

HUMAN = ("covidqa_en", "norquad_no", "cranfield_en", "cosqa_en", "stard_zh_law")
OLDER = ("pubmedqa_labeled", "cmrc2018_dev_zh")  # questions by people too, though of other makes
DEPTH = 100
METRIC = "ndcg@10"
SENTENCES = 1000  # copied ones that are asked for, at most


@dataclass
class Questions:
    """Some questions of a data set, with what is relevant to them."""

    ids: list[str]
    texts: list[str]
    judgements: Judgements
    dataset: EmbeddingQAFinetuneDataset

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def row_of(self) -> dict[str, int]:
        """Place of each question."""
        return {query: row for row, query in enumerate(self.ids)}

    def values(self, hits: TopK, n_documents: int) -> NDArray[np.float64]:
        """nDCG@10 of each question."""
        return score_hits(find_hits(hits.rows, self.judgements, n_documents), self.judgements, [METRIC])[METRIC]


@dataclass
class HumanSet:
    """A data set, split by document 60/10/30; the sides keep the whole corpus."""

    name: str
    dataset: EmbeddingQAFinetuneDataset
    limit: int = 800
    seconds: dict[str, float] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path, name: str, limit: int = 800) -> HumanSet:
        """Read ``human/<name>.json`` of the folder of real data, or an older set beside it."""
        path = next((p for p in (folder / "human" / f"{name}.json", folder / f"{name}.json") if p.exists()), None)
        if path is None:
            raise SystemExit(f"{name}.json is neither in {folder} nor in its folder 'human'; set $EMBFT_SHARED_DATA.")
        return cls(name, EmbeddingQAFinetuneDataset.from_json(path), limit)

    @cached_property
    def split(self) -> Any:
        """Train, validation and test; laws repeat each other, so that of ``stard_zh_law`` lets near-duplicates be."""

        def divided(near_duplicates: float | None) -> Any:
            return split_dataset(
                self.dataset,
                by="document",
                fractions=(0.6, 0.1, 0.3),
                seed=0,
                near_duplicates=near_duplicates,
                show_progress=False,
            )

        try:
            return divided(0.8)
        except DatasetError:  # all of it hangs together by near-duplicates
            return divided(None)

    @cached_property
    def ids(self) -> list[str]:
        """Ids of the passages, descending: the lower row wins a tie, as in trec_eval."""
        return sorted(self.dataset.corpus, reverse=True)

    @cached_property
    def row_of(self) -> dict[str, int]:
        """Row of each passage."""
        return {doc: row for row, doc in enumerate(self.ids)}

    @cached_property
    def lexical(self) -> LexicalIndex:
        """BM25 over the corpus."""
        begin = time.perf_counter()
        index = LexicalIndex.build({doc: self.dataset.corpus[doc] for doc in self.ids})
        self.seconds["BM25 index"] = time.perf_counter() - begin
        return index

    @cached_property
    def test(self) -> Questions:
        """At most `limit` questions of the test side, in the order of the file."""
        return self.questions(list(self.split.test.queries)[: self.limit])

    @cached_property
    def known(self) -> list[str]:
        """Ids of the questions of the training and validation sides."""
        return [*self.split.train.queries, *self.split.val.queries]

    def questions(self, ids: Iterable[str]) -> Questions:
        """Questions by their ids."""
        ids = list(ids)
        part = self.dataset.subset(ids, keep_corpus=True)
        judgements = Judgements.from_qrels(part.qrels(), ids, self.row_of)
        return Questions(ids, [self.dataset.queries[query] for query in ids], judgements, part)

    def documents(self, encoder: Encoder) -> ExactIndex:
        """The corpus, embedded."""
        begin = time.perf_counter()
        vectors = encoder.encode_documents([self.dataset.corpus[doc] for doc in self.ids])
        self.seconds[f"embed corpus: {encoder.name}"] = time.perf_counter() - begin
        return ExactIndex(vectors)

    def nodes(self) -> list[Any]:
        """The passages as LlamaIndex nodes, with their documents."""
        from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode

        return [
            TextNode(
                id_=doc,
                text=text,
                relationships={
                    NodeRelationship.SOURCE: RelatedNodeInfo(node_id=self.dataset.source_documents.get(doc, doc))
                },
            )
            for doc, text in self.dataset.corpus.items()
        ]

    def report(self, hits: TopK, questions: Questions, label: str) -> RetrievalReport:
        """Score hits as every report of the package is scored."""
        run = {
            query: {self.ids[row]: float(score) for row, score in zip(rows, scores, strict=True) if row >= 0}
            for query, rows, scores in zip(questions.ids, hits.rows.tolist(), hits.scores.tolist(), strict=True)
        }
        return evaluate_run(questions.dataset, run, metrics=(METRIC, "hit_rate@10"), ks=(10,), label=label)


def copied_share(data: HumanSet, encoder: Encoder) -> float:
    """The share of passages that a model finds among its first ten by a sentence copied from them."""
    copied = generate_extractive_pairs(data.nodes(), kinds=("cloze",), num_questions_per_chunk=1, seed=0)
    # A passage of one sentence has no second one to find it by, and finding a text by itself says nothing.
    kept = [q for q, (doc, *_) in copied.relevant_docs.items() if copied.queries[q] != copied.bare_text(doc).strip()]
    if len(kept) > SENTENCES:
        kept = [kept[place] for place in sorted(random.Random(0).sample(range(len(kept)), SENTENCES))]
    return evaluate_embed_model(copied.subset(kept), encoder, ks=(10,), metrics=("hit_rate",)).mean("hit_rate@10")


def draws(ids: Sequence[str], size: int, times: int) -> list[list[str]]:
    """Random draws of some questions, one a seed."""
    return [
        [ids[i] for i in np.sort(np.random.default_rng(seed).permutation(len(ids))[:size])] for seed in range(times)
    ]
