"""SQuAD's JSON and its kin: articles of paragraphs, each with questions.

Read are SQuAD 1.1 and 2.0, CMRC 2018 (both of its layouts), DRCD, and rows with ``context``, ``question`` and
``answers`` as the Hugging Face hub keeps them. A paragraph is a document; its article's title is its source document,
so that splits keep articles together. Paragraphs have their ``id`` (CMRC, DRCD) or one made of the text. Questions
without an answer in the text (SQuAD 2.0) are left out and counted; of several answers the first is kept.

Lost on writing (in the layout of SQuAD 1.1 with ids of paragraphs): negatives, grades, bare texts, and the further
relevant documents of a question, which has one paragraph. An answer that does not stand in the paragraph has the start
-1.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index_embft.dataset.formats.build import as_id, as_text
from llama_index_embft.dataset.formats.rows import container_of, read_rows, write_pieces
from llama_index_embft.dataset.sources import At, FaultError, read_json, shown

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator

    from llama_index_embft.dataset.formats.build import Builder
    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset


def read(source: Any, build: Builder, *, split: str | None = None) -> EmbeddingQAFinetuneDataset:
    """Read a file of either kind, or rows."""
    if isinstance(source, (str, os.PathLike)) and container_of(source) == "json" and not Path(source).is_dir():
        data = read_json(Path(source))
        articles = data.get("data") if isinstance(data, dict) else data
        for number, article in enumerate(_list(articles, "`data`", At(build.source)), 1):
            _read_article(article, build, At(build.source, number, "article"))
    else:
        for at, row in read_rows(source, build, split=split):
            with build.row():
                doc = _add_paragraph(build, row.get("context"), None, row.get("title"), at)
                _add_question(build, doc, row, at)
    return build.finish(leave_out_unjudged="question without an answer in the text")


def _read_article(article: Any, build: Builder, at: At) -> None:
    with build.row():
        if not isinstance(article, dict):
            raise FaultError(at, "wrong type", f"an article should be an object, got {shown(article)}")
        if "context_text" in article:  # the first layout of CMRC 2018: the article is its one paragraph
            _read_paragraph(article, article.get("title"), build, at)
            return
        for paragraph in _list(article.get("paragraphs"), "`paragraphs`", at):
            with build.row():
                _read_paragraph(paragraph, article.get("title"), build, at)


def _read_paragraph(paragraph: Any, title: Any, build: Builder, at: At) -> None:
    if not isinstance(paragraph, dict):
        raise FaultError(at, "wrong type", f"a paragraph should be an object, got {shown(paragraph)}")
    text = paragraph.get("context", paragraph.get("context_text"))
    doc = _add_paragraph(build, text, paragraph.get("id", paragraph.get("context_id")), title, at)
    for question in _list(paragraph.get("qas"), "`qas`", at):
        with build.row():
            if not isinstance(question, dict):
                raise FaultError(at, "wrong type", f"a question should be an object, got {shown(question)}")
            _add_question(build, doc, question, at)


def _add_paragraph(build: Builder, text: Any, id_: Any, title: Any, at: At) -> str:
    doc = build.add_document(
        as_text(text, "the paragraph", at), at, None if id_ is None else as_id(id_, "the id of a paragraph", at)
    )
    if title is not None and title != "":
        source = as_text(title, "the title", at)
        if build.sources.setdefault(doc, source) != source:
            build.lost["further titles of the same paragraph"] += 1
    return doc


def _add_question(build: Builder, doc: str, question: dict[str, Any], at: At) -> None:
    id_ = question.get("id", question.get("query_id"))
    text = question.get("question", question.get("query_text"))
    query = build.add_query(
        as_text(text, f"the question {id_!r}" if id_ is not None else "the question", at),
        at,
        None if id_ is None else as_id(id_, "the id of a question", at),
    )
    answers = _answers(question, at)
    impossible = question.get("is_impossible")
    if impossible is None:
        impossible = "answers" in question and not answers
    if str(impossible).lower() in ("true", "1"):
        return  # counted when the data set is made
    build.link(query, doc, 1, at)
    if answers and (build.answers.setdefault(query, answers[0]) != answers[0] or len(set(answers)) > 1):
        build.lost["further answers of a question"] += max(1, len(set(answers)) - 1)


def _answers(question: dict[str, Any], at: At) -> list[str]:
    answers = question.get("answers")
    if isinstance(answers, dict):  # rows of the hub: {"text": […], "answer_start": […]}
        answers = answers.get("text")
    found = []
    for answer in _list(answers, "`answers`", at) if answers is not None else []:
        text = answer.get("text") if isinstance(answer, dict) else answer
        if text != "":
            found.append(as_text(text, "the answer", at))
    return found


def _list(value: Any, name: str, at: At) -> list[Any]:
    if not isinstance(value, list):
        raise FaultError(at, "wrong type", f"{name} should be a list, got {shown(value)}")
    return value


def write(dataset: EmbeddingQAFinetuneDataset, path: str | os.PathLike[str], lost: Counter[str]) -> int:
    """Write an article for each source document, one after the other."""
    articles: dict[str, list[str]] = {}
    for doc in dataset.corpus:
        articles.setdefault(dataset.source_documents.get(doc, ""), []).append(doc)
    questions: dict[str, list[str]] = {}
    for query, docs in dataset.relevant_docs.items():
        questions.setdefault(docs[0], []).append(query)
        lost["relevant documents beyond 1 a question"] += len(docs) - 1

    def paragraph(doc: str) -> dict[str, Any]:
        text = dataset.corpus[doc]
        return {
            "id": doc,
            "context": text,
            "qas": [_question(dataset, query, text) for query in questions.get(doc, ())],
        }

    def pieces() -> Iterator[str]:
        yield '{"version": "1.1", "data": ['
        for number, (title, docs) in enumerate(articles.items()):
            yield ("," if number else "") + "\n" + json.dumps({"title": title}, ensure_ascii=False)[:-1]
            yield ', "paragraphs": ['
            for place, doc in enumerate(docs):
                yield ("," if place else "") + "\n  " + json.dumps(paragraph(doc), ensure_ascii=False)
            yield "]}"
        yield "\n]}\n"

    write_pieces(path, pieces())
    return len(dataset.queries)


def _question(dataset: EmbeddingQAFinetuneDataset, query: str, text: str) -> dict[str, Any]:
    answer = dataset.reference_answers.get(query)
    return {
        "id": query,
        "question": dataset.queries[query],
        "answers": [] if answer is None else [{"text": answer, "answer_start": text.find(answer)}],
        "is_impossible": False,  # no answers without this word would say that the text has none
    }
