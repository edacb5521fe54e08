"""The text tools and templates behind the extractive kinds: sentences, key phrases, questions in eight languages."""

from __future__ import annotations

import random
import re

import pytest

from llama_index_embft.generation import KINDS
from llama_index_embft.generation.extractive import chinese, english, european, japanese
from llama_index_embft.generation.extractive.chunk import Chunk, organisation_of
from llama_index_embft.generation.extractive.kinds import thin
from llama_index_embft.generation.extractive.terms import CorpusTerms, candidate_phrases, terms
from llama_index_embft.generation.extractive.text import clean, is_prose, split_sentences, words
from llama_index_embft.generation.extractive.well_formed import broken_rules


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Dr. No met J. Bond. He won 1.5 games.", ["Dr. No met J. Bond.", "He won 1.5 games."]),
        ("It is prohibited.Recent events show it.", ["It is prohibited.", "Recent events show it."]),
        ("See Fig. 3 for the U.S. share. Next one.", ["See Fig. 3 for the U.S. share.", "Next one."]),
        ("One line\ngoes on. End.\n\nNew block", ["One line goes on.", "End.", "New block"]),
        ("他来了。“走吧！”她说；好的", ["他来了。", "“走吧！”", "她说；", "好的"]),
        ("Am 3. Mai kam er z. B. um acht. Er ging.", ["Am 3. Mai kam er z. B. um acht.", "Er ging."]),
        ("Han bor f.eks. i Oslo. Den 17. mai kom han.", ["Han bor f.eks. i Oslo.", "Den 17. mai kom han."]),
        ("هل ستنجح الخطة؟ وقعت الشركة اتفاقيات.", ["هل ستنجح الخطة؟", "وقعت الشركة اتفاقيات."]),
        ("कंपनी ने निर्णय लिया। केंद्र में काम करेंगे।", ["कंपनी ने निर्णय लिया।", "केंद्र में काम करेंगे।"]),
        ("a thin wing was tested . the flow was laminar .", ["a thin wing was tested .", "the flow was laminar ."]),
        ("", []),
    ],
)
def test_sentences(text: str, sentences: list[str]) -> None:
    assert split_sentences(text) == sentences


def test_words_keep_numbers_and_abbreviations_whole_and_cut_glued_sentences() -> None:
    assert words("The U.S. share of 1,234.5 re-enters code.We don't") == [
        "The", "U.S", "share", "of", "1,234.5", "re-enters", "code", "We", "don't",
    ]  # fmt: skip
    assert words("鱼长18厘米") == ["鱼", "长", "18", "厘", "米"]


@pytest.mark.parametrize(
    "word", ["निर्णय", "केंद्र", "மொழி", "שָׁלוֹם", "مُحَمَّد", "می\u200cخواهم", "größer", "e\u0301tude", "Việt"]
)
def test_no_word_is_cut_at_its_vowel_signs_and_accents(word: str) -> None:
    assert words(word) == [word]


def test_a_thai_letter_keeps_its_marks() -> None:
    assert words("ที่นี่") == ["ที่", "นี่"]


def test_clean_joins_hyphenated_line_ends_and_spaces() -> None:
    assert clean("an exam-\nple  of\n text") == "an example of text"


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("The cat sat on the mat and it was happy.", "en"),
        (
            "Many patients have had more bleeding than others, while some have not had any. However, they should also "
            "have received anticoagulants because their physicians may recommend them; if they refuse, their relatives "
            "might agree or not.",
            "en",
        ),
        ("Der Hund läuft schnell durch den großen Wald und bellt.", "de"),
        ("鱼长18厘米，分布于美国。", "zh"),
        ("これはペンです。とても便利ですよ。", "ja"),
        ("Han bor i Oslo og var lege fra 1905, men ble etter det ikke kjent for noen.", "no"),
        ("Han bor i Aarhus og var læge fra 1905, men blev efter det ikke kendt af nogle.", "da"),
        ("12 34 56", "other"),
        ("", "other"),
    ],
)
def test_language(text: str, language: str) -> None:
    assert Chunk(text).language == language


@pytest.mark.parametrize(
    ("sentence", "prose"),
    [
        ("Total revenue grew by a third over the previous year.", True),
        ("Revenue 2021 2020 2019 3,208 2,364 3,616 12 44", False),
        ("PART II ITEM ONE BUSINESS OVERVIEW OF RISKS", False),
        ("Risk Factors ........................ 12 and so on more", False),
        ("Too short.", False),
        ("美洲似银汉鱼分布于美国奥勒冈州沿岸。", True),
    ],
)
def test_prose(sentence: str, prose: bool) -> None:
    assert is_prose(sentence) is prose


def test_terms_are_content_words_or_pairs_of_characters() -> None:
    assert terms("The price of Krill") == ["price", "krill"]
    assert terms("银汉鱼，鱼") == ["银汉", "汉鱼"]  # no pair across punctuation


def test_phrases_stop_at_stop_words_punctuation_and_page_numbers() -> None:
    assert candidate_phrases("Revenue recognition of the gross bookings, marketplace fee") == [
        "Revenue recognition", "gross bookings", "marketplace fee",
    ]  # fmt: skip
    assert candidate_phrases("Flows83Notes Item") == []
    assert "银汉鱼目" in candidate_phrases("它是银汉鱼目的一种")
    assert "广州恒大" in candidate_phrases("加入《广州恒大》")


def test_key_phrases_prefer_what_is_frequent_here_and_rare_elsewhere() -> None:
    here = "Whales live on krill swarms. There are krill swarms here. The annual report says nothing."
    corpus = CorpusTerms([here, "The annual report of the bank.", "An annual report again."])
    assert corpus.key_phrases(here, 1) == ["krill swarms"]
    assert "annual report" not in corpus.key_phrases(here, 3)
    assert corpus.rarity("unheard") > corpus.rarity("krill") > corpus.rarity("annual") == 0


@pytest.mark.parametrize(
    ("sentence", "question"),
    [
        ("A blue whale is a marine mammal of great size.", "What is a blue whale?"),
        ("Edvard Grieg was a Norwegian musician and teacher.", "Who was Edvard Grieg?"),
        ("“Gross Bookings” means the total dollar value of rides.", 'What does "Gross Bookings" mean?'),
        ("In addition, independent drivers may leave our platform at once.", ""),
        ("In addition, the drivers may stop using the platform.", "How may the drivers stop using the platform?"),
        ("The notes were issued in May 2020 to investors.", "When were the notes issued to investors?"),
        ("Revenue was lower in Europe because riders stayed at home.", "Why was Revenue lower in Europe?"),
        ("Demand decreased in Europe because riders stayed at home.", "Why did Demand decrease in Europe?"),
        ("The cost increased by $1.2 billion in Europe alone.", "By how much did the cost increase in Europe alone?"),
        ("The net revenue was $2.1 billion in 2021.", "How much was the net revenue in 2021?"),
        ("The margin was 43.8% for fiscal 2018, compared to 44.6% in 2017.", "What was the margin for fiscal 2018?"),
        ("Dutch men drained 12 polders with windmills.", "How many polders did Dutch men drain with windmills?"),
        ("The company has 45 stores in Canada.", "How many stores does the company have in Canada?"),
        ("If a rider cancels too late, the driver may claim a fee.", ""),
        ("If a rider is late, the driver may claim a fee.", "What happens if a rider is late?"),
        ("The corporate income consists of interest and fees.", "What does the corporate income consist of?"),
        ("The revenue per rider is calculated by dividing it.", "How is the revenue per rider calculated?"),
        ("The new committees were appointed for three years.", "Which new committees were appointed for three years?"),
        ("Goodwill represents the excess price.", "Does Goodwill represent the excess price?"),
    ],
)  # fmt: skip
def test_english_questions(sentence: str, question: str) -> None:
    made = english.sentence_questions(sentence)
    assert question in made if question else made == []


@pytest.mark.parametrize(
    ("sentence", "question"),
    [
        ("We recognize revenue from fees paid by drivers.", "Does Lyft recognize revenue from fees paid by drivers?"),
        ("Our drivers are independent under local law.", "Are Lyft’s drivers independent under local law?"),
        ("We have entered into leases for our offices.", "Has Lyft entered into leases for its offices?"),
        ("The steps we take may be expensive for the people of a city.", ""),
        ("I have signed this report.", ""),
    ],
)  # fmt: skip
def test_we_is_the_organisation_or_nothing_is_asked(sentence: str, question: str) -> None:
    made = english.sentence_questions(sentence, "Lyft")
    assert question in made if question else made == []
    assert english.sentence_questions(sentence) == []


def test_an_organisation_is_the_name_a_document_gives_itself() -> None:
    filing = [
        "Best Buy Co., Inc. is a retailer. We sell phones. Best Buy opened stores. Our stores are open.",
        "Best Buy and Apple Inc. agreed. We sell the phones of Apple at Best Buy, and our customers like it.",
    ]
    assert organisation_of(filing) == "Best Buy"
    assert organisation_of([re.sub("we|our", "they", text, flags=re.IGNORECASE) for text in filing]) == ""
    assert (
        organisation_of(["We used kits of Qiagen Inc. for all cells. Our results agree. We measured. Our cells."]) == ""
    )


@pytest.mark.parametrize(
    "sentence",
    [
        "It is a mammal.",
        "There was no other way to go on from here.",
        "Yes.",
        "These factors are likely to affect the results of operations.",
        "The products sold in Canada include phones and cameras of all makers.",
        "As shown in Figure 3, the flow is laminar in most of the cases.",
    ],
)
def test_a_sentence_without_a_subject_of_its_own_gives_nothing(sentence: str) -> None:
    assert english.sentence_questions(sentence) == []


def test_long_questions_are_cut_before_a_preposition() -> None:
    asked = english.sentence_questions(
        "The convertible notes can be exchanged for shares of common stock at the office of the trustee during "
        "the last quarter of the year under the terms of the indenture."
    )
    assert asked
    assert all(len(q.split()) <= 22 and q.split()[-1] not in ("of", "the", "in?") for q in asked)


@pytest.mark.parametrize(
    ("language", "sentence", "question"),
    [
        ("de", "Die Brockenbahn wurde am 27. März 1899 eröffnet.", "Wann wurde die Brockenbahn eröffnet?"),
        ("de", "Im Jahr 1961 wurde der Gipfel zur Sperrzone erklärt.", "Wann wurde der Gipfel zur Sperrzone erklärt?"),
        ("de", "Die Preise wurden erhöht, weil die Kosten gestiegen waren.", "Warum wurden die Preise erhöht?"),
        ("de", "Der Brocken liegt im Nationalpark Harz.", "Wo liegt der Brocken?"),
        ("de", "Karl Drais war ein deutscher Erfinder aus Karlsruhe.", "Wer war Karl Drais?"),
        ("de", "35 Busse wurden im Mai ersetzt.", "Wie viele Busse wurden im Mai ersetzt?"),
        ("no", "I 1905 ble unionen oppløst av Stortinget.", "Når ble unionen oppløst av Stortinget?"),
        ("no", "Karl Marx Karl Marx var en tysk filosof og økonom.", "Hvem var Karl Marx?"),
        ("fr", "Le pont de Blois a été détruit en 1940.", "Quand est-ce que le pont de Blois a été détruit ?"),
        ("fr", "Quinze bénévoles ont participé à l'inventaire.", "Combien de bénévoles ont participé à l'inventaire ?"),
        ("fr", "Une inscription est un contrat gratuit.", "Qu'est-ce qu'une inscription ?"),
        ("es", "La presa fue inaugurada en 1967.", "¿Cuándo fue inaugurada la presa?"),
        ("es", "Doce pueblos fueron evacuados en febrero.", "¿Cuántos pueblos fueron evacuados en febrero?"),
        ("pt", "A ponte foi inaugurada em 1966.", "Quando foi inaugurada a ponte?"),
        ("pt", "Amália Rodrigues foi uma cantora portuguesa.", "Quem foi Amália Rodrigues?"),
        ("de", "Er wurde 1899 in Goslar geboren.", ""),
        ("de", "Goslar gehört seit 1992 zum Welterbe.", "Gehört Goslar seit 1992 zum Welterbe?"),
        ("es", "En la ciudad fue inaugurada una presa.", ""),
        ("xx", "Die Brockenbahn wurde am 27. März 1899 eröffnet.", ""),
    ],
)  # fmt: skip
def test_questions_in_european_languages(language: str, sentence: str, question: str) -> None:
    made = european.sentence_questions(sentence, language)
    assert question in made if question else made == []
    assert all(broken_rules(q, language) in ([], ["too short"]) for q in made)


@pytest.mark.parametrize(
    ("sentence", "question"),
    [
        ("大河津分水は1922年に完成した。", "大河津分水は何年に完成したか？"),
        ("光合成は植物が光を使って糖を作る反応のことである。", "光合成とは何ですか？"),
        ("与謝野晶子は明治から昭和にかけて活躍した歌人である。", "与謝野晶子とは誰ですか？"),
        ("実験は1961年にカルビンによって発表された。", "実験は何年にカルビンによって発表されたか？"),
        ("市立図書館は駅の北側に位置している。", "市立図書館はどこに位置しているか？"),
        ("これは1922年に完成した。", ""),
    ],
)
def test_japanese_questions(sentence: str, question: str) -> None:
    made = japanese.sentence_questions(sentence)
    assert question in made if question else made == []


@pytest.mark.parametrize(
    ("sentence", "question"),
    [
        ("雪山鱼体长可达45厘米。", "雪山鱼体长可达多少厘米？"),
        ("雪山鱼约有45%的幼鱼存活。", "雪山鱼约有百分之多少的幼鱼存活？"),
        ("1860年被首次描述。", "雪山鱼在哪一年被首次描述？"),
        ("又称银汉鱼。", "雪山鱼又称什么？"),
        ("由于过度捕捞，它的数量逐年下降。", "为什么雪山鱼的数量逐年下降？"),
        ("主要分布区位于太平洋沿岸。", "雪山鱼主要分布区位于哪里？"),
        ("生活在寒冷的深水中。", "雪山鱼生活在哪里？"),
        ("以小虾和水草为食。", "雪山鱼以什么为食？"),
        ("雪山鱼是银汉鱼科的一种鱼类。", "雪山鱼是什么？"),
        (
            "第三十二条　盗用他人身份，顶替他人入学的，由教育部门撤销入学资格。",
            "盗用他人身份，顶替他人入学的，由谁处理？",
        ),
        ("商标局应当自收到申请之日起九个月内审查完毕。", "商标局应当自收到申请之日起多少个月内审查完毕？"),
        ("有下列情形之一的，人民法院可以延期审理：", "在哪些情形下，人民法院可以延期审理？"),
        ("人民法院应当及时通知当事人到庭。", "人民法院是否应当及时通知当事人到庭？"),
        ("本法所称独立保函，是指银行出具的书面承诺。", "什么是独立保函？"),
    ],
)
def test_chinese_questions_ask_in_place_and_carry_the_topic(sentence: str, question: str) -> None:
    chunk = Chunk(f"雪山鱼（学名），是一种鱼。{sentence}")
    assert chinese.topic_of(chunk) == "雪山鱼"
    made = chinese.sentence_questions(chunk, sentence)
    assert question in made
    assert all(broken_rules(q, "zh") in ([], ["too short"]) for q in made)


@pytest.mark.parametrize(
    ("question", "rule"),
    [
        ("建桥杯由谁主办的中国围棋赛？", "no sentence"),
        ("在哪一年墨尔本举办的青少年机器人世界杯？", "no sentence"),
        ("叶乔波在哪一年在第十六届冬季奥林匹克运动会上？", "no sentence"),
        ("火山是拉包尔火山的一个排气口位于哪里？", "no sentence"),
        ("塞鳕以什么为食、体外寄生虫为食？", "no sentence"),
        ("象鼩共有多少个属及十多个物种？", "no sentence"),
        ("印尼失业率是约百分之多少？", "no sentence"),
        ("人民法院可以认定属于什么？", "no sentence"),
        ("操纵证券市场，情节严重的，处五？", "no sentence"),
        ("新西兰国会在哪一年通过该协定？", "points outside"),
        ("为什么此河又称为雅芳河？", "points outside"),
        ("为电视剧《万历首辅张居正》担任什么职务？", "begins in the middle"),
        ("往往以什么为主食？", "begins in the middle"),
        ("「陆军总司令部」在哪一年迁移至柏林南方佐森地区的地下化建筑司令部？", ""),
        ("华堡于哪一年由汉堡王创办人推出？", ""),
        ("为境外的机构窃取商业秘密的，如何处罚？", ""),
        ("申请人应该如何补正材料？", ""),
        ("中国古动物馆在哪一年在北京正式对外开放？", ""),
    ],
)
def test_chinese_rules_of_shape(question: str, rule: str) -> None:
    assert broken_rules(question, "zh") == ([rule] if rule else [])


@pytest.mark.parametrize(
    ("sentence", "questions"),
    [
        ("总部位于上海市浦东新区。", []),
        ("会议由委员长主持召开。", []),
        ("可乐由约翰彭伯顿发明。", []),
        ("全国人大会议由委员长主持召开。", ["全国人大会议由谁主持召开？"]),
        ("该公司于1999年成立，由约翰森创办。", []),
        ("其总部由约翰森设计，位于上海市浦东新区。", ["北京站总部由谁设计？"]),
        ("工程于1999年在上海正式完工，由委员长主持。", ["工程于哪一年在上海正式完工？"]),
        ("其中两部分位于上海市。", []),
        ("他们生活在上海市浦东新区。", []),
        ("该站于1999年正式启用，由约翰森设计。", ["北京站由谁设计？"]),
        ("本站由约翰森设计。", ["北京站由谁设计？"]),
        ("供奉三国时期的大将关羽，由约翰森设计。", ["北京站由谁设计？"]),
        ("再于1999年迁至上海市。", ["北京站再于哪一年迁至上海市？"]),
    ],
)
def test_chinese_topic_is_no_subject_of_a_clause_about_something_else(sentence: str, questions: list[str]) -> None:
    assert chinese.sentence_questions(Chunk(f"北京站是一座很大的车站。{sentence}"), sentence) == questions


@pytest.mark.parametrize(
    ("language", "question", "fault"),
    [
        ("en", "What does this change in plan offer?", "points outside"),
        ("en", "Is revenue recognized when the?", "ends in the middle"),
        ("en", "Revenue is recognized over time?", "no question word"),
        ("en", "Does cost of RevenueCost of revenue include fees?", "two words or sentences run together"),
        ("en", "Could events result in, losses of revenue?", "a preposition without its noun"),
        ("en", "What is (the value of goodwill?", "a bracket or quotation mark alone"),
        ("en", "What is the the value?", "a word twice"),
        ("en", "What is 12 34 56 78 revenue?", "figures"),
        ("en", "What is | the | value?", "signs of tables, links or lists"),
        ("en", "Why?", "too short"),
        ("en", "What is " + "very " * 12 + "much more of it " * 4 + "?", "too long"),
        ("zh", "利润下降了百分之多少%？", "ends in the middle"),
        ("zh", "违反前款规定的，如何处罚？", "points outside"),
        ("zh", "的北非象鼩则生活在哪里？", "begins in the middle"),
        ("ja", "これは何年に完成したか？", "points outside"),
        ("de", "Wurde er in Goslar geboren?", "points outside"),
        ("tr", "Ankara nerede bulunuyor", "no question mark"),
    ],
)
def test_the_rules_of_shape_name_what_is_wrong(language: str, question: str, fault: str) -> None:
    assert fault in broken_rules(question, language)


def test_damage_of_a_pdf_is_seen_by_the_words_of_the_corpus() -> None:
    corpus = CorpusTerms(
        ["The impairment of goodwill is tested each year.", "Our results and our plans: impairment tests and results."]
        * 6
    )
    assert corpus.is_damaged("Is goodwill tested for impa irment?", language="en")
    assert corpus.is_damaged("Are ourresults tested?", language="en")
    assert not corpus.is_damaged("Are the results of our impairment tests good?", language="en")
    assert not corpus.is_damaged("Er det ourresults i år?", language="no")


@pytest.mark.parametrize("text", ["后来他去了北京，再没有回来。", "1997年，他加入了球队。", ""])
def test_chinese_topic_is_empty_where_the_text_does_not_open_with_one(text: str) -> None:
    assert chinese.topic_of(Chunk(text)) == ""


def test_thinning_keeps_order_and_drops_function_words_more_often() -> None:
    sentence = "the cat of the house with a red hat sat on the very old mat near a warm green stove"
    rng = random.Random(0)
    kept = [thin(sentence, rng).split() for _ in range(300)]
    order = words(sentence)
    for text in kept:
        left = iter(order)
        assert all(word in left for word in text)
    flat = [word for text in kept for word in text]
    assert flat.count("stove") > 1.5 * flat.count("with")
    assert max(map(len, kept)) <= 16


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("text", ["", "x", "1 2 3", "。。。", "word " * 300, "字" * 500, "Zeile ohne Punkt"])
def test_kinds_survive_odd_text(kind: str, text: str) -> None:
    made = KINDS[kind](Chunk(text), CorpusTerms([text, "another text"]), random.Random(0))
    assert all(isinstance(question, str) for question in made)
