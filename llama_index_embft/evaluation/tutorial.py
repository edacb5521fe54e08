"""The evaluations of LlamaIndex's fine-tuning tutorial, with the same results: batched, cached, and without its traps.

`evaluate` is the tutorial's hit-rate loop; `evaluate_st` its use of sentence-transformers'
InformationRetrievalEvaluator (which failed where the folder ``results`` was missing); `evaluate_triplets` the
TripletEvaluator; and `summary_frame` the table by model at its end.
"""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from llama_index_embft._core.checks import check_number
from llama_index_embft._core.files import atomic_write_text
from llama_index_embft.errors import EvaluationError
from llama_index_embft.evaluation.metrics import Judgements, find_hits, score_hits
from llama_index_embft.evaluation.records import RetrievalReport
from llama_index_embft.evaluation.systems.embed_model import evaluate_embed_model

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pandas as pd
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from sentence_transformers import SentenceTransformer

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.embeddings.encoding.cache import EmbeddingCache
    from llama_index_embft.embeddings.encoding.encoder import Encoder

    Model = BaseEmbedding | SentenceTransformer | Encoder

_KS: Final = (1, 3, 5, 10)
_MAP_DEPTH: Final = 100


def evaluate(
    dataset: EmbeddingQAFinetuneDataset, embed_model: Model, top_k: int = 5, verbose: bool = False
) -> list[dict[str, Any]]:
    """The tutorial's hit-rate loop: is the first relevant document among the `top_k`?

    Args:
        dataset: Queries, corpus and judgements.
        embed_model: The model.
        top_k: Hits to look at.
        verbose: Show progress bars.

    Returns:
        For each query ``is_hit``, ``retrieved`` ids, ``expected`` id and ``query`` id; ``pandas.DataFrame(result)``
        has the tutorial's columns.
    """
    report = evaluate_embed_model(dataset, embed_model, ks=(top_k,), metrics=("hit_rate",), show_progress=verbose)
    return [
        {
            "is_hit": dataset.relevant_docs[query][0] in hits,
            "retrieved": list(hits),
            "expected": dataset.relevant_docs[query][0],
            "query": query,
        }
        for query, hits in zip(report.query_ids, report.hit_ids, strict=True)
    ]


def evaluate_st(
    dataset: EmbeddingQAFinetuneDataset,
    model: Model | str | os.PathLike[str],
    name: str,
    output_path: str | os.PathLike[str] = "results",
    *,
    cache: EmbeddingCache | Literal["default"] | None = "default",
    trust_remote_code: bool = False,
) -> dict[str, float]:
    """The scores of sentence-transformers' InformationRetrievalEvaluator, and its CSV file.

    A line is added to ``<output_path>/Information-Retrieval_evaluation_<name>_results.csv``; the folder is made where
    it is missing. The values are those of that evaluator (binary relevance; MAP@100 over min(100, relevant documents)),
    except that equal scores are ordered as trec_eval does.

    Args:
        dataset: Queries, corpus and judgements.
        model: A model, or a folder or name to load.
        name: Part of the file's name.
        output_path: Folder of the file.
        cache: Where vectors are kept.
        trust_remote_code: Run code that comes with a model given by name. Only for repositories you have read.

    Returns:
        Scores under that evaluator's names, for example ``"cosine_accuracy@1"``.

    Raises:
        ModelError: There is no such model.
        EvaluationError: The file exists and has other columns.
        OutputError: The file cannot be written.
    """
    if isinstance(model, str | os.PathLike):
        from llama_index_embft.embeddings.loading import load_embed_model

        model = load_embed_model(os.fspath(model), trust_remote_code=trust_remote_code)
    report = evaluate_embed_model(dataset, model, ks=_KS, top_k=_MAP_DEPTH, cache=cache)
    scores = sentence_transformers_scores(report)
    columns = [_csv_column(key) for key in scores]
    path = Path(output_path) / f"Information-Retrieval_evaluation{'_' + name if name else ''}_results.csv"
    lines = _existing_lines(path, ["epoch", "steps", *columns])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([*lines, [-1, -1, *scores.values()]])
    atomic_write_text(path, text.getvalue())
    return scores


def sentence_transformers_scores(report: RetrievalReport, similarity: str = "cosine") -> dict[str, float]:
    """A report's means under the names and definitions of sentence-transformers' InformationRetrievalEvaluator.

    Args:
        report: MAP@100 is left out where the report has fewer than 100 hits a query and did not search everything.
        similarity: First part of each name.
    """
    row_of: dict[str, int] = {}
    rows = np.full((len(report.query_ids), max(1, max(map(len, report.hit_ids)))), -1, dtype=np.int64)
    for query, ids in enumerate(report.hit_ids):
        rows[query, : len(ids)] = [row_of.setdefault(doc, len(row_of)) for doc in ids]
    binary = {q: dict.fromkeys(docs, 1) for q, docs in zip(report.query_ids, report.relevant, strict=True)}
    judgements = Judgements.from_qrels(binary, report.query_ids, row_of)
    hits = find_hits(rows, judgements, len(row_of))
    deep_enough = report.depth >= min(_MAP_DEPTH, report.corpus_size or _MAP_DEPTH)
    families = {"accuracy": "hit_rate", "precision": "precision", "recall": "recall"}
    names = {f"accuracy@{k}": f"hit_rate@{k}" for k in _KS}
    names |= {f"{theirs}@{k}": f"{families[theirs]}@{k}" for k in _KS for theirs in ("precision", "recall")}
    names |= {"mrr@10": "mrr@10", "ndcg@10": "ndcg@10"}
    if deep_enough:
        names[f"map@{_MAP_DEPTH}"] = f"map@{_MAP_DEPTH}"
    values = score_hits(hits, judgements, names.values())
    if deep_enough:  # over the relevant documents that fit in, where trec_eval divides by all of them
        n_relevant = judgements.n_relevant
        values[f"map@{_MAP_DEPTH}"] *= n_relevant / np.minimum(n_relevant, _MAP_DEPTH)
    return {f"{similarity}_{theirs}": float(values[ours].mean()) for theirs, ours in names.items()}


def evaluate_triplets(
    dataset: EmbeddingQAFinetuneDataset,
    embed_model: Model,
    *,
    negatives_per_query: int | None = 1,
    cache: EmbeddingCache | Literal["default"] | None = "default",
) -> dict[str, float]:
    """How often a query is nearer to its relevant document than to a negative one; TripletEvaluator's accuracy.

    An easy measure: it says nothing about the rest of the corpus, and a model near 1.0 may retrieve badly.

    Args:
        dataset: With ``negative_docs``; each relevant document of a query is paired with each of its negatives.
        embed_model: The model.
        negatives_per_query: Use the first ones only; None: all.
        cache: Where vectors are kept.

    Returns:
        ``{"cosine_accuracy": share of triplets, "triplets": their number}``.

    Raises:
        EvaluationError: The data set has no negatives.
        ConfigError: `negatives_per_query` is below 1.
    """
    from llama_index_embft.embeddings.encoding.encoder import as_encoder

    if negatives_per_query is not None:
        check_number("negatives_per_query", negatives_per_query, at_least=1)
    triplets = [
        (query, positive, negative)
        for query in dataset.queries
        for positive in dataset.relevant_docs[query]
        for negative in dataset.negative_docs.get(query, [])[:negatives_per_query]
    ]
    if not triplets:
        raise EvaluationError("The data set has no `negative_docs`; `mine_hard_negatives` finds some.")
    encoder = as_encoder(embed_model, cache=cache)
    query_ids = list(dict.fromkeys(query for query, _, _ in triplets))
    doc_ids = list(dict.fromkeys(doc for _, *docs in triplets for doc in docs))
    queries = _unit(encoder.encode_queries([dataset.queries[query] for query in query_ids]))
    docs = _unit(encoder.encode_documents([dataset.corpus[doc] for doc in doc_ids]))
    row = {query: i for i, query in enumerate(query_ids)}, {doc: i for i, doc in enumerate(doc_ids)}
    at = np.array([[row[0][query], row[1][positive], row[1][negative]] for query, positive, negative in triplets])
    near = np.einsum("ij,ij->i", queries[at[:, 0]], docs[at[:, 1]])
    far = np.einsum("ij,ij->i", queries[at[:, 0]], docs[at[:, 2]])
    return {"cosine_accuracy": float((near > far).mean()), "triplets": float(len(triplets))}


def summary_frame(
    results: Mapping[str, RetrievalReport | list[dict[str, Any]] | str | os.PathLike[str]],
) -> pd.DataFrame:
    """The tutorial's closing table: a row a model.

    Args:
        results: Name of the model -> a report, what `evaluate` returned, or a CSV file that `evaluate_st` wrote (its
            last line counts).

    Raises:
        EvaluationError: A file cannot be read.
    """
    import pandas as pd

    rows: dict[str, Mapping[str, Any]] = {}
    for model, result in results.items():
        if isinstance(result, RetrievalReport):
            rows[model] = result.summary()
        elif isinstance(result, list):
            rows[model] = {"is_hit": float(np.mean([line["is_hit"] for line in result]))}
        else:
            header, *lines = _read_csv(Path(result))
            rows[model] = {name: float(value) for name, value in zip(header, lines[-1], strict=True)}
    frame = pd.DataFrame.from_dict(rows, orient="index")
    frame.index.name = "model"
    return frame


def _csv_column(key: str) -> str:
    similarity, _, metric = key.partition("_")
    name, _, k = metric.partition("@")
    return f"{similarity}-{name.upper() if name in ('mrr', 'ndcg', 'map') else name.capitalize()}@{k}"


def _existing_lines(path: Path, header: list[str]) -> Iterable[list[str]]:
    if not path.exists():
        return [header]
    lines = _read_csv(path)
    if lines[0] != header:
        raise EvaluationError(f"{path} has other columns than this evaluation; move it or choose another `name`.")
    return lines


def _read_csv(path: Path) -> list[list[str]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = [line for line in csv.reader(file) if line]
    except (OSError, UnicodeDecodeError, csv.Error) as err:
        raise EvaluationError(f"Cannot read {path}: {err}.") from err
    if len(lines) < 2:
        raise EvaluationError(f"{path} holds no results; run `evaluate_st` first.")
    return lines


def _unit(vectors: np.ndarray[Any, np.dtype[np.float32]]) -> np.ndarray[Any, np.dtype[np.float32]]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: np.ndarray[Any, np.dtype[np.float32]] = vectors / np.maximum(lengths, 1e-12)
    return unit
