"""Contract of `generate_extractive_pairs`: deterministic, no empty or ambiguous question, corpus as embedded."""

from __future__ import annotations

import json
import logging
import random
import time

import pytest
from llama_index.core.schema import MetadataMode, NodeRelationship, RelatedNodeInfo, TextNode

from llama_index_embft.errors import ConfigError, DatasetError, GenerationError
from llama_index_embft.generation.extractive import KINDS, generate_extractive_pairs
from llama_index_embft.generation.extractive.pairs import headings_of

WHALE = (
    "The blue whale is a marine mammal. It was hunted for oil in 1931 by whalers from Norway. "
    "Adult blue whales could consume four tonnes of krill every day. "
    "Hunting stopped because the International Whaling Commission banned it."
)
MILL = (
    "A windmill is a machine that converts wind into rotational energy. "
    "Dutch millers drained 12 polders with windmills. "
    "Sails made of canvas must be furled before a storm reaches the village."
)
FISH = (
    "美洲似银汉鱼为辐鳍鱼纲的其中一种。美洲似银汉鱼分布于美国奥勒冈州沿岸。"
    "体长可达45厘米，1860年被首次描述，又称加州银汉鱼。"
)


def node(text: str, node_id: str, **metadata: str) -> TextNode:
    return TextNode(id_=node_id, text=text, metadata=metadata)


@pytest.fixture
def nodes() -> list[TextNode]:
    return [
        node(WHALE, "whale", file_path="/docs/sea.md"),
        node(MILL, "mill", file_path="/docs/land.md"),
        node(FISH, "fish"),
    ]


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"title"}))
def test_every_kind_makes_questions_in_english_and_chinese(nodes: list[TextNode], kind: str) -> None:
    dataset = generate_extractive_pairs(nodes, kinds=[kind], num_questions_per_chunk=1)
    assert list(dataset.relevant_docs.values()) == [["whale"], ["mill"], ["fish"]]


def test_same_seed_same_questions_whatever_the_order_and_other_seed_differs(nodes: list[TextNode]) -> None:
    first = generate_extractive_pairs(nodes, seed=3)
    assert first.provenance.made_by == "text"
    assert generate_extractive_pairs(nodes, seed=3) == first
    assert generate_extractive_pairs(nodes[::-1], seed=3).queries == first.queries
    assert generate_extractive_pairs(nodes, seed=4).queries != first.queries


def test_questions_do_not_depend_on_node_ids(nodes: list[TextNode]) -> None:
    renamed = [n.model_copy(update={"id_": f"other-{n.node_id}"}) for n in nodes]
    assert list(generate_extractive_pairs(nodes).queries.values()) == list(
        generate_extractive_pairs(renamed).queries.values()
    )


def test_corpus_is_the_embedded_text_and_questions_come_from_the_bare_one(nodes: list[TextNode]) -> None:
    dataset = generate_extractive_pairs(nodes, kinds=list(KINDS), num_questions_per_chunk=20)
    assert dataset.corpus == {n.node_id: n.get_content(MetadataMode.EMBED) for n in nodes}
    assert dataset.corpus["whale"].startswith("file_path: /docs/sea.md")
    assert dataset.bare_texts["whale"] == WHALE
    assert dataset.source_documents == {"whale": "/docs/sea.md", "mill": "/docs/land.md"}
    assert not [q for q in dataset.queries.values() if "file" in q]
    bare = generate_extractive_pairs(nodes, metadata_mode=MetadataMode.NONE)
    assert bare.corpus["whale"] == WHALE


def test_number_of_questions_is_a_ceiling_shared_by_the_kinds(nodes: list[TextNode]) -> None:
    dataset = generate_extractive_pairs(nodes, kinds=["cloze", "keywords"], num_questions_per_chunk=3)
    per_chunk = [ids[0] for ids in dataset.relevant_docs.values()]
    assert {chunk: per_chunk.count(chunk) for chunk in per_chunk} == {"whale": 3, "mill": 3, "fish": 3}


def test_no_question_is_empty_duplicate_or_the_whole_chunk(nodes: list[TextNode]) -> None:
    sentence = "Sails made of canvas must be furled before a storm reaches the village."
    nodes.append(node(sentence, "one-sentence"))
    dataset = generate_extractive_pairs(nodes, kinds=list(KINDS), num_questions_per_chunk=50)
    texts = [q.lower() for q in dataset.queries.values()]
    assert len(texts) == len(set(texts))
    assert all(len(text) >= 4 for text in texts)
    assert sentence.lower() not in texts  # it would be the whole of one chunk, and a part of another


def test_a_question_that_two_chunks_would_give_is_given_to_neither() -> None:
    shared = "All rights of the publishing house remain reserved worldwide."
    dataset = generate_extractive_pairs(
        [node(f"{WHALE} {shared}", "a"), node(f"{MILL} {shared}", "b")], kinds=["cloze"], num_questions_per_chunk=9
    )
    assert shared not in dataset.queries.values()
    assert len(dataset.queries) == 7


def test_chunks_of_one_text_share_their_questions() -> None:
    dataset = generate_extractive_pairs([node(WHALE, "a"), node(MILL, "b"), node(WHALE, "c")], kinds=["cloze"])
    assert sorted(map(tuple, dataset.relevant_docs.values())) == [("a", "c"), ("a", "c"), ("b",), ("b",)]
    again = generate_extractive_pairs(
        (node(text, id_) for text, id_ in ((WHALE, "a"), (MILL, "b"), (WHALE, "c"))), kinds=["cloze"]
    )
    assert again == dataset


def test_one_text_in_two_documents_is_asked_for_by_what_both_say() -> None:
    policy = "We review our goodwill once a year. We measured our leases in 2016 for the first time."
    whole = "Our shop is open. We sell and we buy what we like, as our {0} Inc. and {0} does: {0}, {0}."
    nodes = [
        node(policy, "a", title="Alpha Accounts", section="Accounting Policies", file_path="alpha.pdf"),
        node(whole.format("Alpha"), "b", file_path="alpha.pdf"),
        node(policy, "c", section="Accounting Policies", title="Beta Accounts", file_path="beta.pdf"),
        node(whole.format("Beta"), "d", file_path="beta.pdf"),
    ]
    made = generate_extractive_pairs(nodes, kinds=["title", "pattern"], num_questions_per_chunk=9)
    assert {made.queries[q] for q, ids in made.relevant_docs.items() if ids == ["a", "c"]} == {"Accounting Policies"}
    turned = generate_extractive_pairs(nodes[::-1], kinds=["title", "pattern"], num_questions_per_chunk=9)
    assert (turned.queries, turned.relevant_docs) == (made.queries, made.relevant_docs)
    alone = generate_extractive_pairs(nodes[:2], num_questions_per_chunk=9)
    assert "When did Alpha measure its leases for the first time?" in alone.queries.values()


def test_a_phrase_that_a_chunk_repeats_takes_no_square_of_time() -> None:
    begin = time.process_time()
    nodes = [node("alpha beta gamma delta epsilon zeta " * 20_000, "a"), node(WHALE, "b")]
    nodes += [
        node(f"Alpha beta gamma delta epsilon zeta was hunted for oil in the year {n}.", str(n)) for n in range(9)
    ]
    assert "b" in {
        doc for ids in generate_extractive_pairs(nodes, kinds=["cloze"]).relevant_docs.values() for doc in ids
    }
    assert time.process_time() - begin < 10


def test_chunks_without_prose_stay_in_the_corpus_and_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        dataset = generate_extractive_pairs(
            [node(WHALE, "a"), node("12 34 56\n78 90 11", "table"), node("  ", "empty")]
        )
    assert set(dataset.corpus) == {"a", "table"}
    assert "1 chunks gave none" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kinds": ["clozes"]}, "clozes.*give a list of one or more of: title"),
        ({"kinds": []}, "give a list"),
        ({"kinds": "cloze"}, "give a list"),
        ({"kinds": [["cloze"]]}, "give a list"),
        ({"num_questions_per_chunk": 0}, "must be at least 1"),
        ({"num_questions_per_chunk": "2"}, "which is not a number"),
    ],
)
def test_bad_arguments_say_what_is_allowed(nodes: list[TextNode], arguments: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        generate_extractive_pairs(nodes, **arguments)


def test_one_id_for_two_texts_is_refused() -> None:
    with pytest.raises(DatasetError, match="Two nodes have the id 'a'"):
        generate_extractive_pairs([node(WHALE, "a"), node(MILL, "a")])


def test_nothing_to_ask_is_an_error() -> None:
    with pytest.raises(GenerationError, match="None of the 2 nodes has text"):
        generate_extractive_pairs([node("", "a"), node(" \n", "b")])
    with pytest.raises(
        GenerationError,
        match=r"of the kind pattern or dropout or keywords or cloze could be made from 2 chunks: .* with an LLM\.$",
    ):
        generate_extractive_pairs([node("1 2 3", "a"), node("4 5 6", "b")])
    with pytest.raises(GenerationError, match=r"of the kind crop could be made .* no running text"):
        generate_extractive_pairs([node("1 2 3", "a")], kinds=["crop"])
    with pytest.raises(GenerationError, match=r"of the kind cloze .* 3 chunks: other chunks hold the same sentences"):
        generate_extractive_pairs([node(WHALE, "a"), node(f"{WHALE} Yes.", "b"), node("1 2 3", "c")], kinds=["cloze"])


def test_a_chunk_that_no_template_fits_gives_its_own_sentences_thinned(caplog: pytest.LogCaptureFixture) -> None:
    turkish = "Mavi balina bütün okyanuslarda yaşar ve kril yer. Bu hayvan yaşamış en büyük hayvan için bir örnektir."
    with caplog.at_level(logging.INFO):
        dataset = generate_extractive_pairs([node(turkish, "wal"), node(WHALE, "whale"), node(MILL, "mill")])
    assert "(dropout 2, pattern 4)" in caplog.text
    own = [dataset.queries[q] for q, ids in dataset.relevant_docs.items() if ids == ["wal"]]
    assert all(q not in turkish and all(word in turkish.lower() for word in q.split()) for q in own)


OF_EVERY_SCRIPT = {
    "arabic": "بلغت إيرادات الشركة ثلاثين مليون دينار في العام الماضي. قرر مجلس الإدارة إنشاء مركز أبحاث جديد في عمان.",
    "korean": "회사의 작년 총수입은 삼천만 원으로 전년보다 늘었다. 이사회는 부산에 새로운 연구소를 세우기로 결정했다.",
    "thai": "บริษัทมีรายได้รวมสามสิบล้านบาทในปีที่แล้ว คณะกรรมการตัดสินใจสร้างศูนย์วิจัยแห่งใหม่ที่เชียงใหม่",
    "hindi": "कंपनी की कुल आय पिछले वर्ष तीन करोड़ रुपये थी। निदेशक मंडल ने पुणे में नया केंद्र बनाने का निर्णय लिया।",
    "russian": "Общая выручка компании составила тридцать миллионов рублей. Совет директоров решил построить центр.",
    "hebrew": "ההכנסות של החברה היו שלושים מיליון שקל בשנה שעברה. הנהלת החברה החליטה לבנות מרכז מחקר חדש בחיפה.",
    "greek": "Τα έσοδα της εταιρείας ήταν τριάντα εκατομμύρια ευρώ. Το συμβούλιο αποφάσισε να χτίσει κέντρο.",
    "amharic": "ኩባንያው ባለፈው ዓመት ሠላሳ ሚሊዮን ብር ገቢ አግኝቷል። ቦርዱ በአዲስ አበባ አዲስ የምርምር ማዕከል ለመገንባት ወሰነ።",
}


@pytest.mark.parametrize("language", sorted(OF_EVERY_SCRIPT))
def test_no_script_gives_nothing_and_none_is_cut_within_a_word(language: str) -> None:
    text = OF_EVERY_SCRIPT[language]
    for kinds in (None, ["cloze"], ["dropout"], ["keywords"]):
        dataset = generate_extractive_pairs([node(text, "a"), node(WHALE, "b")], kinds=kinds)
        questions = [dataset.queries[q] for q, ids in dataset.relevant_docs.items() if ids == ["a"]]
        # No dictionary finds the words of Thai.
        assert questions or (language == "thai" and kinds == ["keywords"])
        if language not in ("thai", "amharic"):
            pieces = {word.strip(".।") for word in text.lower().split()}
            assert {word.strip(".।") for q in questions for word in q.lower().split()} <= pieces


def test_lower_case_abstracts_give_questions() -> None:
    abstract = (
        "investigation of a wing in a slipstream . the lift distribution was measured by a pressure survey "
        "along the span . the comparison of the spanwise loadings was used to evaluate the lift increment ."
    )
    made = list(generate_extractive_pairs([node(abstract, "a"), node(WHALE, "b")]).queries.values())
    assert "What was measured by a pressure survey along the span?" in made
    assert "What was used to evaluate the lift increment?" in made


def test_one_chunk_alone_still_gets_questions() -> None:
    assert len(generate_extractive_pairs([node(WHALE, "a")]).queries) == 2


def test_headings_come_from_metadata_then_markdown_then_title_case_lines() -> None:
    text = (
        "# Baleen Plates\nWhales filter their food from water through plates.\n"
        "2.1 Diet and Krill\nThey eat krill, which swarm.\n\nWhaling Since Then\nIt was banned by the commission.\n"
        "Not Alone Here\nThe line before it is no blank one.\n\nNo title case here\nThe line that follows is longer."
    )
    found = headings_of(
        {"header_path": "/Animals/Whales/", "Header_2": "Mysticetes", "file_name": "x.md", "page": 3}, text
    )
    assert found == ("Whales", "Animals", "Mysticetes", "Baleen Plates", "Diet and Krill", "Whaling Since Then")
    dataset = generate_extractive_pairs([node(text, "a", title="The Blue Whale Atlas")], kinds=["title"])
    assert "The Blue Whale Atlas" in dataset.queries.values()


def test_pages_of_one_file_are_one_source_document() -> None:
    page = node(WHALE, "a", file_path="report.pdf")
    page.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id="page-7")
    assert generate_extractive_pairs([page]).source_documents == {"a": "report.pdf"}
    page.metadata.clear()
    assert generate_extractive_pairs([page]).source_documents == {"a": "page-7"}


@pytest.mark.data
def test_real_chunks_nearly_all_get_their_questions(shared_data) -> None:
    for name, least in (("lyft_10k_2021", 0.7), ("cmrc2018_dev_zh", 0.9)):
        corpus = json.loads((shared_data / f"{name}.json").read_text("utf-8"))["corpus"]
        ids = random.Random(0).sample(sorted(corpus), 150)
        dataset = generate_extractive_pairs([node(corpus[i], i) for i in ids], num_questions_per_chunk=2)
        assert len({ids[0] for ids in dataset.relevant_docs.values()}) >= least * 150
