"""What the tests of the formats share: data sets of every shape, and what is left of one in a format."""

from __future__ import annotations

import sys
from typing import Any

from hypothesis import strategies as st

from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
from llama_index_embft.dataset.formats import losses
from llama_index_embft.dataset.formats.build import content_id
from llama_index_embft.dataset.formats.registry import FORMATS

# Python 3.10's CSV holds no U+0000.
NO_NULL = "\x00" if sys.version_info < (3, 11) else ""

# Everything that a careless writer trips over; none of these is empty to `str.strip`.
NASTY = [
    *(
        "a",
        "é",
        "中文,。",
        '"quoted"',
        "it's",
        "two\nlines",
        "dos\r\nline",
        "mac\rline",
        "tab\there",
        "a,b;c",
        "\u200b",
    ),
    *("\ufeffmark", "😀", "a\u2028b", "\x85x", "\x0bx", "\\n", '{"a": 1}', "[1]", "null", "NaN", "1", "001"),
    *(() if NO_NULL else ("\x00x",)),
    *("-", " lead", "trail ", "a b c", "#", "=1+1", "𝒳", "\x1cz"),
]

texts = st.one_of(
    st.sampled_from(NASTY),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters=NO_NULL), min_size=1, max_size=12).filter(
        lambda text: text.strip()
    ),
)
ids = st.one_of(st.sampled_from(["1", "q", "d/1", 'i"d', "日", "a,b", "007"]), texts)
plain_ids = st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=6).filter(lambda id_: id_[0] != "#")


@st.composite
def datasets(draw: st.DrawFn, ids: st.SearchStrategy[str] = ids) -> EmbeddingQAFinetuneDataset:
    """Up to four queries over up to five documents, with everything that a data set can hold."""
    corpus = draw(st.dictionaries(ids, texts, min_size=1, max_size=5))
    queries = draw(st.dictionaries(ids, texts, min_size=1, max_size=4))
    fields: dict[str, Any] = {"queries": queries, "corpus": corpus, "relevant_docs": {}, "negative_docs": {}}
    fields |= {"relevance_grades": {}, "reference_answers": {}, "bare_texts": {}, "source_documents": {}}
    for query in queries:
        order = draw(st.permutations(list(corpus)))
        n = draw(st.integers(1, len(order)))
        m = draw(st.integers(n, len(order)))
        fields["relevant_docs"][query] = order[:n]
        if m > n:
            fields["negative_docs"][query] = order[n:m]
        grades = {doc: draw(st.integers(2, 5)) for doc in order[:n] if draw(st.booleans())}
        if grades:
            fields["relevance_grades"][query] = grades
        if draw(st.booleans()):
            fields["reference_answers"][query] = draw(texts)
    for doc in corpus:
        if draw(st.booleans()):
            bare = draw(texts)
            fields["bare_texts"][doc] = bare
            if draw(st.booleans()):
                fields["corpus"][doc] = f"{draw(texts)} {bare}"
        if draw(st.booleans()):
            fields["source_documents"][doc] = draw(texts)
    return EmbeddingQAFinetuneDataset(**fields)


def left_in(dataset: EmbeddingQAFinetuneDataset, name: str, **options: Any) -> EmbeddingQAFinetuneDataset:
    """What should be read back, worked out from what the format says that it holds."""
    holds = FORMATS[name].holds
    fields = {
        section: dict(getattr(dataset, section))
        for section in type(dataset).model_fields
        if section not in ("mode", "provenance")
    }
    if losses.IDS not in holds:
        fields = _joined(fields)
    for what, section in ((losses.NEGATIVES, "negative_docs"), (losses.GRADES, "relevance_grades"),
                          (losses.ANSWERS, "reference_answers"), (losses.BARE_TEXTS, "bare_texts"),
                          (losses.SOURCES, "source_documents")):  # fmt: skip
        if what not in holds:
            fields[section] = {}
    if name == "squad":
        fields["relevant_docs"] = {query: docs[:1] for query, docs in fields["relevant_docs"].items()}
    if name == "mteb":
        fields["bare_texts"] = {
            doc: bare for doc, bare in fields["bare_texts"].items()
            if fields["corpus"][doc].endswith(f" {bare}") and fields["corpus"][doc][: -len(bare) - 1].strip()
        }  # fmt: skip
    if name in ("triplets", "ntuples", "infgrad"):
        counts = [len(docs) for docs in fields["negative_docs"].values() if docs]
        n = {"ntuples": min(counts, default=0), "infgrad": 1}.get(name)
        fields["negative_docs"] = {query: docs[:n] for query, docs in fields["negative_docs"].items() if docs}
        for section in ("queries", "relevant_docs"):
            fields[section] = {query: fields[section][query] for query in fields["negative_docs"]}
    if name == "infgrad":
        fields["relevant_docs"] = {query: docs[:1] for query, docs in fields["relevant_docs"].items()}
    if losses.UNLINKED not in holds:
        named = {d for section in ("relevant_docs", "negative_docs") for docs in fields[section].values() for d in docs}
        for section in ("corpus", "bare_texts", "source_documents"):
            fields[section] = {doc: text for doc, text in fields[section].items() if doc in named}
    return EmbeddingQAFinetuneDataset(**fields)


def _joined(fields: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The same text as the same id: written on purpose without the package's own `by_text`."""
    query_of = {query: content_id(text, "q-") for query, text in fields["queries"].items()}
    doc_of = {doc: content_id(text, "d-") for doc, text in fields["corpus"].items()}
    made: dict[str, dict[str, Any]] = {name: {} for name in fields}
    made["queries"] = {query_of[query]: text for query, text in fields["queries"].items()}
    made["corpus"] = {doc_of[doc]: text for doc, text in fields["corpus"].items()}
    for query, docs in fields["relevant_docs"].items():
        into = made["relevant_docs"].setdefault(query_of[query], [])
        made["relevant_docs"][query_of[query]] = list(dict.fromkeys([*into, *(doc_of[doc] for doc in docs)]))
    for query, docs in fields["negative_docs"].items():
        into = made["negative_docs"].setdefault(query_of[query], [])
        for doc in docs:
            if doc_of[doc] not in made["relevant_docs"][query_of[query]] and doc_of[doc] not in into:
                into.append(doc_of[doc])
    made["negative_docs"] = {query: docs for query, docs in made["negative_docs"].items() if docs}
    for query, answer in fields["reference_answers"].items():
        made["reference_answers"].setdefault(query_of[query], answer)
    return made
