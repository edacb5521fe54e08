"""FlagEmbedding's JSON Lines: ``{"query": …, "pos": […], "neg": […]}``, a line a query.

Also read: ``pos_scores`` and ``neg_scores`` (a teacher's, of the same lengths), and the names that Cohere's rerankers
were trained on, ``relevant_passages`` and ``hard_negatives``. Rows in Parquet or a `datasets.Dataset` are read as well.

Lost on writing: ids, grades, answers, bare texts, sources, documents that no query names. Lost on reading: ``prompt``,
``type`` and other fields, which are counted.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from llama_index_embft.dataset.formats import trainer_rows
from llama_index_embft.dataset.formats.build import as_number, as_text, as_texts
from llama_index_embft.dataset.formats.rows import Row, container_of, read_rows, write_rows
from llama_index_embft.dataset.sources import At, FaultError
from llama_index_embft.errors import ConfigError

if TYPE_CHECKING:
    import os

    from llama_index_embft.dataset.formats.build import Builder
    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset

_COHERE: Final = {"pos": "relevant_passages", "neg": "hard_negatives"}
_KNOWN: Final = frozenset(["query", "pos", "neg", "pos_scores", "neg_scores", *_COHERE.values()])


def read(source: Any, build: Builder, *, split: str | None = None) -> EmbeddingQAFinetuneDataset:
    """Read a line a query; the same query in two lines is one query with the documents of both."""
    for at, row in read_rows(source, build, split=split):
        with build.row():
            query = as_text(row.get("query"), "query", at)
            names = {side: side if side in row else theirs for side, theirs in _COHERE.items()}
            texts = {side: as_texts(row.get(name), name, at) for side, name in names.items()}
            scores = {side: _scores(row, side, len(texts[side]), at) for side in texts}
            if not texts["pos"]:
                raise FaultError(at, "row without a positive", f"`{names['pos']}` is empty; give the query a positive")
            query_id = build.add_query(query, at)
            for side, grade in (("pos", 1), ("neg", 0)):
                for number, text in enumerate(texts[side]):
                    doc = build.add_document(text, at)
                    build.link(query_id, doc, grade, at)
                    if scores[side]:
                        build.score(query_id, doc, scores[side][number])
            build.ignore(row, _KNOWN)
    return build.finish()


def _scores(row: Row, side: str, count: int, at: At) -> list[float]:
    name = f"{side}_scores"
    values = row.get(name)
    if values is None:
        return []
    if not isinstance(values, (list, tuple)) or len(values) not in (0, count):
        raise FaultError(at, "scores of a wrong number", f"{name} should be a list of {count} scores, one a text")
    return [as_number(value, f"{name}[{n}]", at) for n, value in enumerate(values)]


def write(
    dataset: EmbeddingQAFinetuneDataset,
    path: str | os.PathLike[str],
    lost: Counter[str],
    *,
    teacher_scores: bool = True,
    prompt: str | None = None,
) -> int:
    """Write a line a query.

    Args:
        dataset: A data set.
        path: See `write_rows`.
        lost: Counts queries and negatives that are left out for want of a score.
        teacher_scores: Write the teacher's scores, if the data set has some, as ``pos_scores`` and ``neg_scores``.
        prompt: An instruction for queries, written into every line.
    """
    if container_of(path) in ("csv", "tsv"):
        raise ConfigError(f"Cannot write lists of texts as {path}; take .jsonl or .parquet, or the format 'triplets'.")
    kept = Counter[str]()
    scores = dataset.teacher_scores if teacher_scores and dataset.teacher_scores else None

    def rows() -> Any:
        for row in trainer_rows.flag_embedding_rows(dataset, scores):
            kept["queries"] += 1
            kept["negatives"] += len(row["neg"])
            yield row if prompt is None else {**row, "prompt": prompt}

    needed = "each has a positive without a teacher's score; write with teacher_scores=false"
    count = write_rows(trainer_rows.some_rows(rows(), dataset, needed), path)
    lost["queries of which a positive has no score"] += len(dataset.queries) - kept["queries"]
    if scores is not None:
        lost["negatives without a score"] += sum(map(len, dataset.negative_docs.values())) - kept["negatives"]
    return count
