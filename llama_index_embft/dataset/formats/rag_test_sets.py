"""Test sets of questions, answers and contexts: LlamaIndex's `LabelledRagDataset` and those of ragas.

The contexts of a question are its relevant documents. Ids are made of the texts (ragas' ``reference_context_ids`` are
used where they are there).

Lost on writing: ids, negatives, grades, bare texts, sources, and documents that no question names.
Lost on reading: who wrote a question (``query_by``), synthesizers, personas and other fields, which are counted.
"""

from __future__ import annotations

import ast
import io
import itertools
import json
import os
import re
import tokenize
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from llama_index_embft.dataset.formats.build import as_id, as_text, as_texts
from llama_index_embft.dataset.formats.rows import Row, container_of, is_table, read_rows, write_pieces, write_rows
from llama_index_embft.dataset.sources import At, FaultError, read_json, shown
from llama_index_embft.errors import DatasetError

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator

    from llama_index_embft.dataset.formats.build import Builder
    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset

# --- LlamaIndex -------------------------------------------------------------------------------------------------------

_LABELLED: Final = frozenset(["query", "reference_contexts", "reference_answer"])


def read_labelled(source: Any, build: Builder) -> EmbeddingQAFinetuneDataset:
    """Read what ``LabelledRagDataset.save_json`` wrote, or such an object itself.

    llama-index-core has dropped the class (0.14 no longer has it); its files are read without it.
    """
    if isinstance(source, (str, os.PathLike)):
        data = read_json(Path(source))
        examples = data.get("examples") if isinstance(data, dict) else None
        if not isinstance(examples, list):
            raise DatasetError(f"{source} should hold one JSON object with a list of `examples`, got {shown(data)}.")
    else:
        examples = [example.model_dump(mode="json") for example in source.examples]
    for number, row in enumerate(examples, 1):
        at = At(build.source, number, "example")
        with build.row():
            if not isinstance(row, dict):
                raise FaultError(at, "wrong type", f"an example should be an object, got {shown(row)}")
            _add(build, at, row.get("query"), row.get("reference_contexts"), row.get("reference_answer"))
            build.ignore(row, _LABELLED)
    return build.finish()


def write_labelled(dataset: EmbeddingQAFinetuneDataset, path: str | os.PathLike[str], lost: Counter[str]) -> int:
    """Write what ``LabelledRagDataset.from_json`` reads; questions without an answer have an empty one."""
    del lost

    def pieces() -> Iterator[str]:
        yield '{\n    "examples": ['
        for number, row in enumerate(_rows(dataset)):
            example = {
                "query": row["user_input"],
                "query_by": None,
                "reference_contexts": row["reference_contexts"],
                "reference_answer": row["reference"] or "",
                "reference_answer_by": None,
            }
            text = json.dumps(example, indent=4).replace("\n", "\n        ")
            yield ("," if number else "") + f"\n        {text}"
        yield "\n    ]\n}"

    return write_pieces(path, pieces()) - 2


# --- ragas ------------------------------------------------------------------------------------------------------------

_HOP: Final = re.compile(r"^\s*<\d+-hop>\s*")
_QUESTION: Final = ("user_input", "question")
_CONTEXTS: Final = ("reference_contexts", "contexts")
_ANSWER: Final = ("reference", "ground_truth")
_GIVEN: Final = ("answer", "response")
_RAGAS: Final = frozenset([*_QUESTION, *_CONTEXTS, *_ANSWER, "reference_context_ids"])


def read_ragas(source: Any, build: Builder, *, split: str | None = None) -> EmbeddingQAFinetuneDataset:
    """Read a test set of ragas: ``user_input, reference_contexts, reference``, or ``question, contexts, ground_truth``.

    In CSV, where ragas writes a list as Python shows it, that text is parsed as literals (never run).
    """
    for at, row in read_rows(source, build, split=split):
        with build.row():
            question, contexts, answer = (_first(row, names) for names in (_QUESTION, _CONTEXTS, _ANSWER))
            if row.get(_CONTEXTS[0]) is None and (said := next((name for name in _GIVEN if row.get(name)), None)):
                raise FaultError(
                    at,
                    "contexts that a system has found",
                    f"beside `{said}`, what a system said, `contexts` are what it found, relevant or not; name those "
                    "that are relevant `reference_contexts`",
                )
            if isinstance(contexts, str) and _is_separated(source):
                contexts = _literal(contexts, at)
            ids = row.get("reference_context_ids")
            ids = _literal(ids, at) if isinstance(ids, str) and ids and _is_separated(source) else ids
            _add(build, at, question, contexts, answer, ids or None)
            build.ignore(row, _RAGAS)
    return build.finish()


def write_ragas(dataset: EmbeddingQAFinetuneDataset, path: str | os.PathLike[str], lost: Counter[str]) -> int:
    """Write ``user_input, reference_contexts, reference``, as ragas' ``EvaluationDataset`` reads JSON Lines and CSV."""
    del lost
    rows: Iterator[Row] = _rows(dataset)
    if _is_separated(path):
        rows = ({**row, "reference_contexts": repr(row["reference_contexts"])} for row in rows)
    return write_rows(rows, path, ("user_input", "reference_contexts", "reference"))


def _is_separated(source: Any) -> bool:
    return not is_table(source) and isinstance(source, (str, os.PathLike)) and container_of(source) in ("csv", "tsv")


def _literal(text: str, at: At) -> Any:
    """A list in JSON or Python's notation, or as NumPy prints it: without commas, which Python takes for one text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(text.strip()).readline))
        texts = [token for token in tokens if token.type not in (tokenize.NL, tokenize.NEWLINE)]
        if any(one.type == two.type == tokenize.STRING for one, two in itertools.pairwise(texts)):
            return [ast.literal_eval(token.string) for token in texts if token.type == tokenize.STRING]
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError, tokenize.TokenError) as err:
        raise FaultError(at, "wrong type", f"the contexts are not a list in Python's notation: {shown(text)}") from err


def _first(row: Row, names: tuple[str, ...]) -> Any:
    return next((row[name] for name in names if row.get(name) is not None), None)


def _unmarked(text: str) -> str:
    """A context without the mark that ragas puts before those of questions over several of them: ``<1-hop>``."""
    return _HOP.sub("", text) if _HOP.sub("", text).strip() else text


def _add(build: Builder, at: At, question: Any, contexts: Any, answer: Any, ids: Any = None) -> None:
    if isinstance(question, list):
        raise FaultError(at, "conversation", "the question is a conversation of several turns, which is not read here")
    query = as_text(question, "the question", at)
    texts = [_unmarked(text) for text in as_texts(contexts, "contexts", at)]
    if not texts:
        raise FaultError(at, "question without a context", "the question has no reference context; give it one")
    answer = None if answer is None or (isinstance(answer, str) and not answer.strip()) else answer
    said = None if answer is None else as_text(answer, "the reference answer", at)
    known: list[str | None] = [None] * len(texts)
    if ids is not None:
        if not isinstance(ids, (list, tuple)) or len(ids) != len(texts):
            raise FaultError(at, "wrong type", f"reference_context_ids should be a list of {len(texts)} ids")
        known = [as_id(item, "reference_context_ids", at) for item in ids]
    query_id = build.add_query(query, at)
    for text, id_ in zip(texts, known, strict=True):
        build.link(query_id, build.add_document(text, at, id_), 1, at)
    if said is not None:
        build.add_answer(query_id, said, at)


def _rows(dataset: EmbeddingQAFinetuneDataset) -> Iterator[Row]:
    for query, text in dataset.queries.items():
        yield {
            "user_input": text,
            "reference_contexts": [dataset.corpus[doc] for doc in dataset.relevant_docs[query]],
            "reference": dataset.reference_answers.get(query),
        }
