"""Each filter drops what it is for, keeps what it is not for, and counts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from loopback_llm import Behaviour, LoopbackLLM, Request

from llama_index_embft.calls.failures import UnusableAnswerError
from llama_index_embft.errors import ConfigError, GenerationError
from llama_index_embft.generation import (
    Difficulty,
    GenerationReport,
    Judge,
    NearDuplicates,
    QuestionFilter,
    RefersToText,
    RoundTrip,
    WrongLanguage,
    generate_qa_embedding_pairs,
)
from llama_index_embft.generation.assemble import CandidateQuery
from llama_index_embft.generation.filters.base import FilterContext
from llama_index_embft.generation.filters.judge import read_score
from llama_index_embft.generation.passages import Passage


def candidates(queries: Sequence[str], texts: Sequence[str] | str = "") -> list[CandidateQuery]:
    texts = [texts] * len(queries) if isinstance(texts, str) else texts
    return [
        CandidateQuery(f"q{n}", query, "", [Passage(f"d{n}", text, text, f"d{n}")])
        for n, (query, text) in enumerate(zip(queries, texts, strict=True))
    ]


def one_chunk(queries: Sequence[str]) -> list[CandidateQuery]:
    return [CandidateQuery(f"q{n}", query, "", [Passage("d", "", "", "d")]) for n, query in enumerate(queries)]


def dropped(
    filter_: QuestionFilter, items: list[CandidateQuery], passages: Sequence[Passage] | None = None
) -> set[int]:
    own = [passage for item in items for passage in item.passages]
    context = FilterContext(passages if passages is not None else own, None, GenerationReport())  # type: ignore[arg-type]
    return set(asyncio.run(filter_.drop(items, context)))


@pytest.mark.parametrize(
    "query",
    [
        "According to the passage, what was the revenue?",
        "What does the text say about drivers?",
        "What is mentioned in the context above?",
        "Based on the provided information, who founded Lyft?",
        "What risks are described in the document?",
        "What does the author argue about regulation?",
        "Which items are listed above?",
        "What is the main idea of this paragraph?",
        "文中提到的主要风险是什么？",
        "根据上述内容，公司的收入是多少？",
        "这段文字的主要观点是什么？",
        "本文讨论了哪些问题？",
        "作者认为司机应该如何做？",
    ],
)
def test_pointing_at_the_text_is_dropped(query: str) -> None:
    assert dropped(RefersToText(), candidates([query])) == {0}


@pytest.mark.parametrize(
    "query",
    [
        "What was Lyft's revenue in 2021?",
        "How long is the document retention period?",
        "What is the context of the Treaty of Versailles?",
        "What does delegation mean in the context of financial transactions?",
        "Why are suppliers important in this context?",
        "渗透一词在英文中的意思是什么？",
        "该词是在哪个期刊发表的文章中首次提及的？",
        "How do I paste plain text into a cell?",
        "Who is the author of Hamlet?",
        "What are the above-ground storage rules?",
        "Which passage connects the Atlantic and the Pacific?",
        "information security policy",
        "滴滴的收入是多少？",
        "中文系的录取分数线是多少？",
        "作文应该怎么写？",
    ],
)
def test_ordinary_uses_of_the_same_words_stay(query: str) -> None:
    assert dropped(RefersToText(), candidates([query])) == set()


def test_wrong_language() -> None:
    english = "The revenue of the company was higher in 2021 than it was in the year before that."
    chinese = "2021年，公司的收入比上一年有所增长，主要得益于 Uber Eats 业务。"
    german = "Der Umsatz der Firma ist im Jahr 2021 gestiegen und wird nach dem Plan weiter steigen."
    items = candidates(
        [
            "What was the revenue in 2021?",
            "公司2021年的收入是多少？",
            "What was the revenue of the company?",
            "Uber Eats",
            "2021年收入是多少？",
            "How high was the revenue of the company?",
            "Wie hoch ist der Umsatz?",
            "umsatz 2021",
        ],
        [english, english, chinese, chinese, chinese, german, german, german],
    )
    assert dropped(WrongLanguage(), items) == {1, 2, 5}


def test_near_duplicates_by_words() -> None:
    items = one_chunk(
        [
            "What was the total revenue of Lyft in 2021?",
            "What was the total revenue of Lyft in 2020?",  # another number: another question
            "What was the total revenue for Lyft in 2021?",
            "Who founded Lyft?",
            "WHAT WAS THE TOTAL REVENUE OF LYFT IN 2021",
            "公司在2021年的总收入是多少？",
            "公司在2021年的总收入是多少呢？",
        ]
    )
    assert dropped(NearDuplicates(), items) == {2, 4, 6}


def test_near_duplicates_about_different_chunks_stay() -> None:
    queries = ["What was the total revenue in 2021?", "What was the total revenue for 2021?"]
    assert dropped(NearDuplicates(), one_chunk(queries)) == {1}
    assert dropped(NearDuplicates(), candidates(queries)) == set()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is the maximum dose of ibuprofen in a day?", "What is the minimum dose of ibuprofen in a day?"),
        ("How do I install the client on Windows?", "How do I install the client on macOS?"),
        ("Which flights go from Rome to Oslo?", "Which flights go from Oslo to Rome?"),
        ("Can I cancel the order?", "Can I not cancel the order?"),
        ("What is C++?", "What is C#?"),
        ("Does it freeze at -5 °C?", "Does it freeze at 5 °C?"),
        ("What is hepatitis A?", "What is hepatitis?"),
        ("Who signed the contract?", "When was the contract signed?"),
        ("药品的最大剂量是多少？", "药品的最小剂量是多少？"),
    ],
)
def test_a_word_that_carries_meaning_makes_another_question(one: str, other: str) -> None:
    assert dropped(NearDuplicates(), one_chunk([one, other])) == set()


class Table(BaseEmbedding):
    """Looks vectors up in a dict."""

    table: dict[str, list[float]]

    def _get_query_embedding(self, query: str) -> list[float]:
        return self.table[query]

    def _get_text_embedding(self, text: str) -> list[float]:
        return self.table[text]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self.table[query]


def angle(degrees: float) -> list[float]:
    return [float(np.cos(np.radians(degrees))), float(np.sin(np.radians(degrees)))]


def test_near_duplicates_by_meaning() -> None:
    table = Table(table={"a": angle(0), "b": angle(10), "c": angle(60), "a 1": angle(0), "a 2": angle(0)})
    items = one_chunk(["a", "b", "c", "a 1", "a 2"])
    assert dropped(NearDuplicates(0.95, embed_model=table), items) == {1}


@pytest.fixture
def table() -> Table:
    return Table(
        table={
            "d0": angle(0),
            "d1": angle(30),
            "d2": angle(60),
            "d3": angle(90),
            "easy": angle(-20),
            "close": angle(14),
            "second": angle(20),
            "lost": angle(85),
        }
    )


def retrieval_items() -> tuple[list[CandidateQuery], list[Passage]]:
    passages = [Passage(f"d{n}", f"d{n}", f"d{n}", f"d{n}") for n in range(4)]
    queries = ["easy", "close", "second", "lost"]  # each written for d0; ranks 1, 1, 2, 4
    return [CandidateQuery(query, query, "", [passages[0]]) for query in queries], passages


@pytest.mark.parametrize(("top_k", "gone"), [(1, {2, 3}), (2, {3}), (3, {3}), (4, set()), (10, set())])
def test_round_trip_with_an_embedding_model(table: Table, top_k: int, gone: set[int]) -> None:
    items, passages = retrieval_items()
    assert dropped(RoundTrip(table, top_k=top_k), items, passages) == gone


def test_round_trip_finds_by_words_what_the_model_misses(table: Table) -> None:
    texts = ["all that was lost at sea", "trees", "wine", "stones"]
    both = Table(table={**table.table, **{text: table.table[f"d{n}"] for n, text in enumerate(texts)}})
    worded = [Passage(f"d{n}", text, text, f"d{n}") for n, text in enumerate(texts)]
    items = [CandidateQuery("lost", "lost", "", [worded[0]])]  # last by the model, first by its word
    assert dropped(RoundTrip(both, top_k=1, dense_weight=1), items, worded) == {0}
    assert dropped(RoundTrip(both, top_k=1, dense_weight=0.2), items, worded) == set()
    assert dropped(RoundTrip(both, top_k=2), items, worded) == set()
    assert dropped(Difficulty(both, too_easy_margin=None, too_hard_rank=3), items, worded) == {0}  # the model's own


class Fixed(BaseRetriever):
    """Returns d0 and d1 for everything but "lost"."""

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        ids = ["d1", "d0"] if query_bundle.query_str != "lost" else ["d3", "d2"]
        return [NodeWithScore(node=TextNode(id_=id_), score=1.0) for id_ in ids]


@pytest.mark.parametrize(("top_k", "gone"), [(1, {0, 1, 2, 3}), (2, {3})])
def test_round_trip_with_a_retriever(top_k: int, gone: set[int]) -> None:
    items, passages = retrieval_items()
    assert dropped(RoundTrip(retriever=Fixed(), top_k=top_k), items, passages) == gone


def test_any_passage_of_a_shared_query_counts(table: Table) -> None:
    items, passages = retrieval_items()
    items[3].passages.append(passages[3])
    assert dropped(RoundTrip(table, top_k=1), items, passages) == {2}
    assert dropped(RoundTrip(retriever=Fixed(), top_k=1), [items[3]], passages) == set()


def test_a_comparison_needs_both_of_its_passages(table: Table) -> None:
    _, passages = retrieval_items()
    both = (passages[0], passages[1])
    items = [CandidateQuery(query, query, "", list(both), both) for query in ("easy", "lost")]
    assert dropped(RoundTrip(table, top_k=1, dense_weight=1), items, passages) == {1}  # before "lost" stand two others
    assert dropped(RoundTrip(table, top_k=3, dense_weight=1), items, passages) == set()
    assert dropped(Difficulty(table, too_easy_margin=None, too_hard_rank=2), items, passages) == {1}
    one = (passages[0], passages[2])  # d2 is never among what the retriever finds
    halves = [CandidateQuery("easy", "easy", "", list(pair), pair) for pair in (both, one)]
    assert dropped(RoundTrip(retriever=Fixed(), top_k=1), halves, passages) == {1}


def test_too_easy_and_too_hard(table: Table) -> None:
    items, passages = retrieval_items()
    # Margins of the two on rank 1: cos 20 - cos 50 = 0.30, and cos 14 - cos 16 = 0.01.
    assert dropped(Difficulty(table, too_easy_margin=0.2, too_hard_rank=None), items, passages) == {0}
    assert dropped(Difficulty(table, too_easy_margin=0.005, too_hard_rank=None), items, passages) == {0, 1}
    assert dropped(Difficulty(table, too_easy_margin=None, too_hard_rank=3), items, passages) == {3}
    assert dropped(Difficulty(table, too_easy_margin=0.2, too_hard_rank=1), items, passages) == {0, 2, 3}


def test_a_corpus_of_one_is_no_reason_to_drop(table: Table) -> None:
    items, passages = retrieval_items()
    assert dropped(RoundTrip(table), items, passages[:1]) == set()
    assert dropped(Difficulty(table), items, passages[:1]) == set()


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("4", 4),
        ("Score: 5", 5),
        ("4/5", 4),
        ("I rate this 3 out of 5.", 3),
        ("**2**", 2),
        ("评分：4分", 4),
        ("4.5", 4.5),
        ("<think>maybe 2</think>5", 5),
        ("On a scale of 1-5: 3", 3),
        ({"score": 3}, 3),
        ({"score": "4"}, 4),
    ],
)
def test_grades_are_read(answer: Any, score: float) -> None:
    assert read_score(answer) == score


@pytest.mark.parametrize("answer", ["", "good", "7", "10", {"score": 9}, {}, "I'm sorry."])
def test_no_grade_is_said_so(answer: Any) -> None:
    with pytest.raises(UnusableAnswerError, match="no grade from 1 to 5"):
        read_score(answer)


def judged(request: Request) -> Behaviour | None:
    if "<query>" not in request.prompt:
        return None
    return Behaviour(text="2" if "valve" in request.prompt else "5")


def test_the_judge_drops_low_grades_and_uses_the_journal(
    serve: Callable[..., LoopbackLLM], openai_like: Callable[..., Any], nodes: list[TextNode], tmp_path: Any
) -> None:
    server = serve(script=judged)
    options: Any = {"output_path": tmp_path / "t.json", "verbose": False}
    plain = generate_qa_embedding_pairs(nodes, openai_like(server), filters=[], **options)
    asked = server.count
    kept = generate_qa_embedding_pairs(nodes, openai_like(server), filters=[Judge(3)], **options)
    report = kept.report
    assert server.count == asked + len(plain.queries)
    valve = {
        id_
        for id_, query in plain.queries.items()
        if "valve" in query or "valve" in plain.corpus[plain.relevant_docs[id_][0]]
    }
    assert valve
    assert set(plain.queries) - set(kept.queries) == valve
    assert report.dropped == {"judge": len(valve)}
    assert report.examples["judge"][0][1] == "grade 2"
    assert report.answered == 0  # questions come from the journal; grades are not counted as chunks
    generate_qa_embedding_pairs(nodes, openai_like(server), filters=[Judge(3)], **options)
    assert server.count == asked + len(plain.queries)


@pytest.mark.parametrize(("on_unjudged", "kept"), [("keep", 24), ("drop", 0)])
def test_an_outage_of_the_judge_is_no_verdict(
    on_unjudged: str,
    kept: int,
    serve: Callable[..., LoopbackLLM],
    openai_like: Callable[..., Any],
    nodes: list[TextNode],
) -> None:
    writer, judge = serve(), serve(script=lambda request: Behaviour(400, error="no"))

    def call():
        return generate_qa_embedding_pairs(
            nodes[:4],
            openai_like(writer),
            output_path=None,
            verbose=False,
            filters=[Judge(llm=openai_like(judge), on_unjudged=on_unjudged)],
        )

    if kept:
        assert len(call().queries) == 8
    else:
        with pytest.raises(GenerationError, match=r"The filters dropped all 8 queries.*loosen"):
            call()
    assert judge.count == 8


def test_filters_are_applied_in_order_and_counted(
    serve: Callable[..., LoopbackLLM], openai_like: Callable[..., Any], nodes: list[TextNode]
) -> None:
    text = "According to the passage, what is {0}?\n港口的大阀门 {1} 是什么？\nWhat is {0}?\nWhat is the {0}?"

    def script(request: Request) -> Behaviour:
        number = request.prompt.split("number")[1].split()[0]
        return Behaviour(text=text.format(f"the great valve of harbour {number}", number))

    server = serve(script=script)
    dataset = generate_qa_embedding_pairs(
        nodes[:3],
        openai_like(server),
        num_questions_per_chunk=4,
        output_path=None,
        verbose=False,
    )
    report = dataset.report
    assert report.generated == 12
    assert report.dropped["refers to the text"] == 3
    assert report.dropped["wrong language"] == 3
    assert report.kept == len(dataset.queries) == 12 - sum(report.dropped.values())
    assert "dropped" in str(report)
    assert all(len(examples) <= 5 for examples in report.examples.values())


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: NearDuplicates(0, embed_model="m"), "`threshold` is 0; it must be above 0 and at most 1"),
        (lambda: NearDuplicates(0.8), "there is no `embed_model`"),
        (lambda: RoundTrip(), "either `embed_model` or `retriever`"),
        (lambda: RoundTrip("m", retriever=Fixed()), "either `embed_model` or `retriever`"),
        (lambda: RoundTrip("m", dense_weight=1.5), "`dense_weight` is 1.5; it must be at least 0 and at most 1"),
        (lambda: RoundTrip(retriever=Fixed(), dense_weight=1), "a `retriever` ranks by itself; leave it out"),
        (lambda: RoundTrip("m", top_k=0), "`top_k` is 0; it must be at least 1"),
        (lambda: Difficulty("m", too_easy_margin=None, too_hard_rank=None), "Difficulty needs"),
        (lambda: Judge(6), "`min_score` is 6; it must be at least 1 and at most 5"),
        (lambda: Judge(on_unjudged="maybe"), "must be one of 'keep', 'drop'"),
    ],
)
def test_senseless_filters_are_refused(make: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        make()


def test_a_class_instead_of_a_filter_is_refused(openai_like: Callable[..., Any], nodes: list[TextNode]) -> None:
    with pytest.raises(ConfigError, match="did you forget the brackets"):
        generate_qa_embedding_pairs(nodes, openai_like("http://127.0.0.1:9/v1"), filters=[RefersToText])
    with pytest.raises(ConfigError, match="`filters` is one RefersToText; put it into brackets"):
        generate_qa_embedding_pairs(nodes, openai_like("http://127.0.0.1:9/v1"), filters=RefersToText())


def test_the_name_of_a_model_is_no_llm(nodes: list[TextNode]) -> None:
    for llm in ("gpt-4o-mini", None):
        with pytest.raises(ConfigError, match="it must be a LlamaIndex LLM"):
            generate_qa_embedding_pairs(iter(nodes), llm, output_path=None)  # type: ignore[arg-type]
