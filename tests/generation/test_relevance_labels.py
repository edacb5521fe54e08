"""Labels for a reranker: a search by a real embedding client, verdicts by a real LLM client, a loopback server."""

from __future__ import annotations

import inspect
import logging
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from llama_index.core import Document, Settings, VectorStoreIndex
from loopback_llm import Behaviour, LoopbackLLM, Request

from llama_index_embft import generate_ce_fine_tuning_dataset as generate
from llama_index_embft.calls import CallSettings
from llama_index_embft.errors import ConfigError, GenerationError
from llama_index_embft.generation import DEFAULT_QUERY_DOC_RELEVANCE_PROMPT as PROMPT, samples_to_dataset

TEXTS = [
    "The harbour of the town was built in 1901 by the mayor.",
    "A turbine turns in the river and lights the town.",
    "The orchard of the town bears apples and pears.",
    "Saffron is sold in the market of the town.",
]
DOCUMENTS = [Document(text=text) for text in TEXTS]
QUESTIONS = ["Who built the harbour of the town?", "What does the orchard bear?", "Where does a turbine turn?"]


class Clients:
    """The two clients of one server, as arguments of the function."""

    def __init__(self, server: LoopbackLLM, llm: Any, embed_model: Any) -> None:
        self.server = server
        self.options = {"llm": llm, "embed_model": embed_model, "show_progress": False}

    @property
    def asked(self) -> list[Request]:
        return [request for request in self.server.requests if "embeddings" not in request.path]


@pytest.fixture
def clients(
    serve: Callable[..., LoopbackLLM], openai_like: Callable[..., Any], openai_embedding: Callable[..., Any]
) -> Callable[..., Clients]:
    def make(script: Any = None, llm: dict[str, Any] | None = None, **server_options: Any) -> Clients:
        def only_llm(request: Request) -> Behaviour | None:
            return None if script is None or "embeddings" in request.path else script(request)

        server = serve(script=only_llm, **server_options)
        return Clients(server, openai_like(server, **(llm or {})), openai_embedding(server))

    return make


def rows(samples: list[Any]) -> list[tuple[str, str, int]]:
    return [(sample.query, sample.context, sample.score) for sample in samples]


def test_each_question_gets_its_nearest_passages_with_a_label(clients: Callable[..., Clients]) -> None:
    made = clients()
    samples = generate(DOCUMENTS, QUESTIONS, top_k=2, **made.options)
    assert isinstance(samples, list)
    assert [sample.query for sample in samples] == [question for question in QUESTIONS for _ in range(2)]
    assert {(sample.query, sample.context) for sample in samples if sample.score == 1} == {
        (QUESTIONS[0], TEXTS[0]),
        (QUESTIONS[1], TEXTS[2]),
        (QUESTIONS[2], TEXTS[1]),
    }
    report = samples.report
    assert (report.questions, report.passages, report.pairs, report.relevant, report.unlabelled) == (3, 4, 6, 3, 0)
    assert "6 labelled pairs of 3 questions and 4 passages" in str(report)
    assert len(made.asked) == 6
    assert len(samples_to_dataset(samples).queries) == 3
    assert pd.DataFrame(samples).columns.tolist() == ["query", "context", "score"]
    assert pickle.loads(pickle.dumps(samples)) == samples


def test_the_search_is_that_of_an_index(clients: Callable[..., Clients]) -> None:
    made = clients()
    samples = generate(DOCUMENTS, QUESTIONS, top_k=3, **made.options)
    retriever = VectorStoreIndex.from_documents(DOCUMENTS, embed_model=made.options["embed_model"]).as_retriever(
        similarity_top_k=3
    )
    expected = [(question, hit.node.get_content()) for question in QUESTIONS for hit in retriever.retrieve(question)]
    assert [(sample.query, sample.context) for sample in samples] == expected


def test_answers_are_asked_for_once(clients: Callable[..., Clients], tmp_path: Path) -> None:
    made = clients(lambda request: Behaviour(500) if "orchard bear" in request.prompt else None)
    calls = CallSettings(journal_path=tmp_path / "labels.sqlite")
    first = generate(DOCUMENTS, QUESTIONS, top_k=2, calls=calls, **made.options)
    assert (len(first), first.report.unlabelled, len(first.report.failed)) == (4, 2, 2)
    again = clients()
    whole = generate(DOCUMENTS, QUESTIONS, top_k=2, calls=calls, **again.options)
    assert len(again.asked) == 2
    assert whole.report.from_journal == 4
    assert rows(whole) == rows(generate(DOCUMENTS, QUESTIONS, top_k=2, **clients().options))
    other = "<query>\n{query}\n</query><document>\n{document}\n</document>"
    generate(DOCUMENTS, QUESTIONS[:1], qa_doc_relevance_prompt=other, calls=calls, **again.options)
    assert len(again.asked) == 6  # another prompt: all four passages


@pytest.mark.parametrize(
    ("yes", "no"),
    [("Yes.", "No."), ("**Yes**", "**No**"), ("Relevant: Yes", "Relevant: No"), ("<think>No?</think>yes", "no, never")],
)
def test_verdicts_in_many_shapes(clients: Callable[..., Clients], yes: str, no: str) -> None:
    made = clients(lambda request: Behaviour(text=yes if "apples" in request.prompt else no))
    samples = generate(DOCUMENTS, QUESTIONS[1:2], **made.options)
    assert sorted(sample.score for sample in samples) == [0, 0, 0, 1]
    assert samples.report.unlabelled == 0


def test_neither_yes_nor_no_is_asked_again_then_left_out_and_said(
    clients: Callable[..., Clients], caplog: pytest.LogCaptureFixture
) -> None:
    made = clients(lambda request: Behaviour(text="It depends.") if "Saffron" in request.prompt else None)
    with caplog.at_level(logging.WARNING):
        samples = generate(DOCUMENTS, QUESTIONS, top_k=4, retry_limit=2, **made.options)
    assert len(samples) == 9
    assert samples.report.unlabelled == 3
    assert len(made.asked) == 9 + 3 * 2
    assert "3 of 12 pairs got no label and were left out" in caplog.text
    assert "3 pairs left out without a label, most of them with: neither yes nor no" in str(samples.report)
    with pytest.raises(GenerationError, match=r"neither yes nor no in 'It depends\.'"):
        generate(DOCUMENTS, QUESTIONS, top_k=4, on_failure="fail", **made.options)


def test_an_llm_with_tools_answers_by_a_tool(clients: Callable[..., Clients]) -> None:
    made = clients(llm={"is_function_calling_model": True})
    samples = generate(DOCUMENTS, QUESTIONS, top_k=2, **made.options)
    assert "tools" in made.asked[0].body
    assert sum(sample.score for sample in samples) == 3
    plain = clients(llm={"is_function_calling_model": True}, refuse_tools=True)
    assert rows(generate(DOCUMENTS, QUESTIONS, top_k=2, **plain.options)) == rows(samples)


def test_blank_and_repeated_questions(clients: Callable[..., Clients], caplog: pytest.LogCaptureFixture) -> None:
    made = clients()
    given = ["", "  \n", QUESTIONS[0], f" {QUESTIONS[0]} ", QUESTIONS[1]]
    samples = generate(DOCUMENTS, given, top_k=1, **made.options)
    assert [sample.query for sample in samples] == QUESTIONS[:2]
    assert samples.report.blank == 3
    for questions, documents, says in (([" "], DOCUMENTS, "no question"), (QUESTIONS, [Document(text="")], "no text")):
        with caplog.at_level(logging.WARNING):
            assert generate(documents, questions, **made.options) == []
        assert "There is nothing to label" in caplog.text, says


def test_passages_with_one_text_count_once(clients: Callable[..., Clients]) -> None:
    samples = generate([*DOCUMENTS, Document(text=TEXTS[0])], QUESTIONS[:1], top_k=3, **clients().options)
    assert len({sample.context for sample in samples}) == 3
    assert samples.report.passages == 4


def test_labels_of_one_kind_are_said(clients: Callable[..., Clients], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        generate(DOCUMENTS, QUESTIONS, **clients(lambda request: Behaviour(text="No")).options)
    assert "The LLM called none of 12 pairs relevant" in caplog.text


def test_metadata_is_searched_and_read_as_the_index_reads_it(clients: Callable[..., Clients]) -> None:
    made = clients()
    documents = [Document(text=text, metadata={"street": f"Number {n}"}) for n, text in enumerate(TEXTS)]
    plain = generate(documents, QUESTIONS[:1], top_k=1, **made.options)
    assert rows(plain) == [(QUESTIONS[0], TEXTS[0], 1)]
    assert "Number 0" not in made.asked[0].prompt
    twins = [*documents, Document(text=TEXTS[0], metadata={"street": "Number 9"})]
    assert len({sample.context for sample in generate(twins, QUESTIONS[:1], **made.options)}) == 4
    embedded = generate(documents, QUESTIONS[:1], top_k=1, metadata_mode="embed", **made.options)
    assert rows(embedded) == [(QUESTIONS[0], f"street: Number 0\n\n{TEXTS[0]}", 1)]


def test_the_settings_of_llama_index_are_the_defaults(
    clients: Callable[..., Clients], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = clients()
    monkeypatch.setattr(Settings, "_llm", made.options["llm"])
    monkeypatch.setattr(Settings, "_embed_model", made.options["embed_model"])
    assert len(generate(DOCUMENTS, QUESTIONS, 256, top_k=2, show_progress=False)) == 6
    monkeypatch.setattr(Settings, "_embed_model", None)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ConfigError, match=r"`embed_model` is None, and LlamaIndex's own default cannot be had"):
        generate(DOCUMENTS, QUESTIONS, show_progress=False)
    monkeypatch.setattr(Settings, "_llm", None)
    with pytest.raises(ConfigError, match="`llm` is None"):
        generate(DOCUMENTS, QUESTIONS, show_progress=False)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"top_k": 0}, "`top_k` is 0; it must be at least 1"),
        ({"qa_doc_relevance_prompt": "{query}"}, r"must contain \{document\}"),
        ({"qa_doc_relevance_prompt": "{query}{document}{x}"}, r"unknown placeholder \{x\}"),
        ({"questions_list": "What?"}, "`questions_list` is one text"),
        ({"questions_list": ["What?", float("nan")]}, "`questions_list` holds nan, which is not text"),
        ({"metadata_mode": "some"}, "metadata"),
    ],
)
def test_bad_arguments_are_one_sentence(clients: Callable[..., Clients], options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        generate(DOCUMENTS, **{"questions_list": QUESTIONS, **clients().options, **options})
    assert "\n" not in str(caught.value)


def test_the_arguments_are_those_of_the_stock_package() -> None:
    stock = pytest.importorskip("llama_index.finetuning.cross_encoders.dataset_gen")
    theirs = inspect.signature(stock.generate_ce_fine_tuning_dataset).parameters.values()
    ours = list(inspect.signature(generate).parameters.values())
    assert [p.name for p in theirs] == [p.name for p in ours if p.kind is not p.KEYWORD_ONLY]
    for old, new in zip(theirs, ours, strict=False):
        if not isinstance(old.default, str):
            assert old.default == new.default


def test_a_stock_prompt_with_examples_of_its_own(clients: Callable[..., Clients]) -> None:
    stock = pytest.importorskip("llama_index.finetuning.cross_encoders.dataset_gen")
    made = clients(lambda request: Behaviour(text="Yes" if "apples" in request.prompt else "No"))
    prompt = stock.DEFAULT_QUERY_DOC_RELEVANCE_PROMPT
    samples = generate(DOCUMENTS, QUESTIONS[1:2], qa_doc_relevance_prompt=prompt, **made.options)
    assert sum(sample.score for sample in samples) == 1
    assert made.asked[0].prompt.strip().endswith("Relevant:")


def test_requests_run_side_by_side(clients: Callable[..., Clients]) -> None:
    made = clients(latency=0.1)
    generate(DOCUMENTS, QUESTIONS, top_k=4, calls=CallSettings(num_workers=4), **made.options)
    assert made.server.max_in_flight == 4


@pytest.mark.parametrize("metadata", [{}, {"street": "Quay Street", "number": 7}])
def test_the_stock_function_gives_the_same_samples(
    clients: Callable[..., Clients], monkeypatch: pytest.MonkeyPatch, metadata: dict[str, Any]
) -> None:
    stock = pytest.importorskip("llama_index.finetuning.cross_encoders.dataset_gen")
    made = clients()
    monkeypatch.setattr(Settings, "_embed_model", made.options["embed_model"])
    text = " ".join(f"{sentence} Nothing else was said about it on day {n}." for n, sentence in enumerate(TEXTS * 3))
    documents = [Document(text=text, metadata=metadata), *DOCUMENTS]
    options = {"max_chunk_length": 50, "llm": made.options["llm"], "qa_doc_relevance_prompt": PROMPT, "top_k": 3}
    old = stock.generate_ce_fine_tuning_dataset(documents, ["", *QUESTIONS], **options)
    new = generate(documents, ["", *QUESTIONS], **options, show_progress=False)
    assert rows(new) == rows(old)
    assert {row[2] for row in rows(new)} == {0, 1}


def test_a_passage_longer_than_the_model_reads_is_cut_for_the_prompt_and_said(
    clients: Callable[..., Clients], caplog: pytest.LogCaptureFixture
) -> None:
    made = clients(llm={"context_window": 600})
    text = "harbour " * 900
    with caplog.at_level(logging.WARNING):
        (sample,) = generate([Document(text=text)], QUESTIONS[:1], top_k=1, **made.options)
    assert sample.context == text.strip()
    assert "1 passages were cut to the LLM's context window" in caplog.text
    assert len(made.asked[0].prompt) < 5000
