"""The questions of a search: people's, whose passages are looked for in the texts; an LLM's; or taken from the text."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from llama_index_embft.crossfit import documents_asked, plan_split
from llama_index_embft.dataset.near_duplicates import normalise
from llama_index_embft.dataset.provenance import BY_LLM, BY_TEXT, Provenance
from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
from llama_index_embft.errors import DatasetError, EmbftError, GenerationError
from llama_index_embft.pipeline.evidence import FRACTIONS, Origin, can_choose, trains_on_labels

if TYPE_CHECKING:
    from llama_index.core.llms import LLM

    from llama_index_embft.pipeline.settings import TuneSettings
    from llama_index_embft.pipeline.sources import TuningSource

_SHINGLE: Final = 5
# Of the shorter text's shingles: a passage that was cut elsewhere shares at least half with its best chunk.
_SAME_PASSAGE: Final = 0.5
_FEWEST_MADE: Final = 3
_ONLY_BEGINNINGS: Final = (
    "The texts hold no sentence that a question could be made from, so their beginnings stand in for questions, whose "
    "figures say nothing; BM25 and the model count as the rule without questions has it."
)
_BEGINNING: Final = 200  # characters


def people_questions(found: TuningSource, questions: Any) -> tuple[EmbeddingQAFinetuneDataset | None, list[str]]:
    """The questions that people asked, over the corpus, and notes on those left out because they do not belong to it.

    Args:
        found: What is searched.
        questions: See `tune`; None: those that came with it.

    Raises:
        DatasetError: There is none, or none is about these texts.
    """
    from llama_index_embft.dataset.formats import read_dataset

    if questions is None:
        return found.labels, []
    if not isinstance(questions, EmbeddingQAFinetuneDataset):
        questions = read_dataset(questions)
    if not questions.queries:
        raise DatasetError(
            "`questions` holds no question; give some with the passages that answer them, or leave it out."
        )
    placed, lost = place_questions(questions, found.corpus)
    if not placed.queries:
        raise DatasetError(
            f"None of the {len(lost)} questions is about these documents: their passages are not in them. Check that "
            "the questions' passages come from the same documents."
        )
    notes = []
    if lost:
        notes.append(
            f"{len(lost)} of {len(questions.queries)} questions were left out: their passages are not in the documents "
            f"(for example {questions.queries[lost[0]]!r})."
        )
    return placed, notes


def origin_of(questions: EmbeddingQAFinetuneDataset | None) -> Origin:
    """Who asked: people, unless the data set says that a function of this package made its questions."""
    made_by = None if questions is None else questions.provenance.made_by
    return "llm" if made_by == BY_LLM else "text" if made_by == BY_TEXT else "people"


def what_can_be_shown(
    source: TuningSource, labels: EmbeddingQAFinetuneDataset | None, llm: LLM | None, settings: TuneSettings
) -> str:
    """How large a gain the questions can show, before anything is trained or paid; empty: nothing will be.

    Raises:
        DatasetError: An LLM would be paid for questions that can show nothing.
    """
    if labels is not None and can_choose(labels):
        trains = trains_on_labels(labels)
        tested = FRACTIONS[2] if trains else None
        plan = plan_split(len(documents_asked(labels)), len(labels.queries), cross_fit=not trains, test_share=tested)
        return str(plan)
    if llm is None:
        return ""
    corpus = source.corpus
    n_documents = len({corpus.source_documents.get(doc, doc) for doc in corpus.corpus})
    plan = plan_split(n_documents, len(corpus.corpus) * settings.questions_per_chunk, cross_fit=False)
    if n_documents < 2:
        raise DatasetError(
            "The LLM's questions would be about one document only, so no other document is left to test on; add "
            f"documents (about {plan.documents_wanted:,} like it would show a gain of 5 points), or leave the LLM out: "
            "questions are then taken from the text, for nothing."
        )
    return str(plan)


def made_questions(
    source: TuningSource, llm: LLM | None, settings: TuneSettings, *, seed: int, needed: bool
) -> tuple[EmbeddingQAFinetuneDataset | None, Origin, tuple[str, ...]]:
    """Questions that nobody asked.

    Text without a sentence, such as lists of figures, is asked for by its own beginning. Such questions say nothing,
    but without any a search would end in an error, where the mixture at equal weight is the best guess.

    Args:
        source: What they are about.
        llm: Writes them; None: they are taken from the text.
        settings: How many, and what they may cost.
        seed: Of those taken from the text.
        needed: Whether the search cannot do without them.

    Returns:
        The questions over the corpus, None if there are none; who made them; and what the reader must know of them.

    Raises:
        GenerationError: None could be made, and they are needed.
    """
    from llama_index_embft.generation import (
        estimate_qa_embedding_pairs,
        generate_extractive_pairs,
        generate_qa_embedding_pairs,
    )

    made: EmbeddingQAFinetuneDataset
    by: Origin = "text" if llm is None else "llm"
    notes: tuple[str, ...] = ()
    if llm is not None:
        options: dict[str, Any] = {
            "num_questions_per_chunk": settings.questions_per_chunk,
            "output_path": None,
            "calls": settings.calls_or_default(),
        }
        if settings.confirm is not None:
            settings.confirm(estimate_qa_embedding_pairs(source.nodes, llm, **options))
        made = generate_qa_embedding_pairs(source.nodes, llm, **options)
    else:
        try:
            made = generate_extractive_pairs(
                source.nodes, num_questions_per_chunk=settings.questions_per_chunk, seed=seed
            )
        except EmbftError as err:
            if not needed:
                return None, by, ()
            if len(source.corpus.corpus) < _FEWEST_MADE:
                raise GenerationError(f"{err}{_about_tables(source)}") from err
            made, notes = _beginnings(source.corpus), (f"{_ONLY_BEGINNINGS}{_about_tables(source)}",)
    known = {
        query: docs for query, docs in made.relevant_docs.items() if all(doc in source.corpus.corpus for doc in docs)
    }
    if needed and len(known) < _FEWEST_MADE:
        raise GenerationError(
            f"Only {len(known)} questions could be made from {len(source.nodes)} chunks, and {_FEWEST_MADE} are the "
            f"fewest that can train, choose and prove; add documents, or questions.{_about_tables(source)}"
        )
    over = source.corpus.replace(
        queries={query: made.queries[query] for query in known}, relevant_docs=known, provenance=made.provenance
    )
    return over, by, notes


def _beginnings(corpus: EmbeddingQAFinetuneDataset) -> EmbeddingQAFinetuneDataset:
    texts = {doc: corpus.bare_text(doc).strip() for doc in corpus.corpus}
    return corpus.replace(
        queries={
            f"beginning {doc}": text[: min(_BEGINNING, -(-len(text) // 2))] for doc, text in texts.items() if text
        },
        relevant_docs={f"beginning {doc}": [doc] for doc, text in texts.items() if text},
        provenance=Provenance(made_by=BY_TEXT),
    )


def _about_tables(source: TuningSource) -> str:
    """What to do with tables, where there is nothing else: a row may be a question with its answer."""
    names = sorted({str(node.metadata.get("file_name", "")) for node in source.nodes})
    if not all(name.lower().endswith((".csv", ".tsv", ".xlsx", ".xls")) for name in names):
        return ""
    return (
        f" {names[0]} is a table: if its rows hold questions with answers or passages, they are a data set already; "
        f"read them with `embft convert {names[0]} questions.json` and pass them as questions, or train on them with "
        "`embft train questions.json`."
    )


class PlacedQuestions(NamedTuple):
    """Questions whose passages were looked for in a corpus.

    Attributes:
        questions: Those found, over the corpus.
        lost: Ids of those whose passages are not in it.
    """

    questions: EmbeddingQAFinetuneDataset
    lost: tuple[str, ...]


def place_questions(questions: EmbeddingQAFinetuneDataset, corpus: EmbeddingQAFinetuneDataset) -> PlacedQuestions:
    """Find the passages of questions in a corpus that may have been cut differently.

    A passage is a chunk if both are the same text but for case, spaces and punctuation, or if at least half of the
    shorter one's runs of five words stand in the other. An id alone proves nothing: texts change under their ids.

    Args:
        questions: With passages of their own.
        corpus: The texts that are searched.
    """
    if questions.corpus == corpus.corpus:  # what they are cut from is known by who searches them
        sources = {**questions.source_documents, **corpus.source_documents}
        bare = {**questions.bare_texts, **corpus.bare_texts}
        return PlacedQuestions(questions.replace(source_documents=sources, bare_texts=bare), ())
    places = _Places(corpus)
    found: dict[str, dict[str, int]] = {}
    cache: dict[str, list[str]] = {}
    for query, grades in questions.qrels().items():
        at: dict[str, int] = {}
        for doc, grade in grades.items():
            if doc not in cache:
                cache[doc] = places.of(doc, questions.corpus[doc], questions.bare_text(doc))
            for chunk in cache[doc]:
                at[chunk] = max(grade, at.get(chunk, 0))
        if at:
            found[query] = at
    answers = {query: answer for query, answer in questions.reference_answers.items() if query in found}
    placed = corpus.replace(
        queries={query: questions.queries[query] for query in found},
        relevant_docs={query: list(at) for query, at in found.items()},
        relevance_grades={query: at for query, at in found.items() if any(grade != 1 for grade in at.values())},
        reference_answers=answers,
        provenance=questions.provenance,
    )
    return PlacedQuestions(placed, tuple(query for query in questions.queries if query not in found))


class _Places:
    def __init__(self, corpus: EmbeddingQAFinetuneDataset) -> None:
        self._texts = dict(corpus.corpus)
        self._by_text: defaultdict[str, list[str]] = defaultdict(list)
        self._by_shingle: defaultdict[int, list[str]] = defaultdict(list)
        self._sizes: dict[str, int] = {}
        self._rows = {doc: row for row, doc in enumerate(corpus.corpus)}
        for doc in corpus.corpus:
            words = normalise(corpus.bare_text(doc))
            for text in {words, normalise(corpus.corpus[doc])}:
                self._by_text[text].append(doc)
            shingles = _shingles(words)
            self._sizes[doc] = len(shingles)
            for shingle in shingles:
                self._by_shingle[shingle].append(doc)

    def of(self, doc: str, text: str, bare: str) -> list[str]:
        if self._texts.get(doc) == text:
            return [doc]
        words = normalise(bare)
        same = self._by_text.get(words) or self._by_text.get(normalise(text))
        if same:
            return same
        shingles = _shingles(words)
        shared = Counter(chunk for shingle in shingles for chunk in self._by_shingle.get(shingle, ()))
        return [
            chunk
            for chunk, count in sorted(shared.items(), key=lambda found: (-found[1], self._rows[found[0]]))
            if count >= _SAME_PASSAGE * min(len(shingles), self._sizes[chunk])
        ]


def _shingles(words: str) -> set[int]:
    tokens = words.split()
    return {hash(tuple(tokens[at : at + _SHINGLE])) for at in range(max(0, len(tokens) - _SHINGLE + 1))}
