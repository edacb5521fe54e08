"""A language is named on positive evidence only."""

from __future__ import annotations

import pytest

from llama_index_embft._core.language import detect_language, is_chinese


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("What was the revenue of the company in 2021?", "en"),
        ("公司在2021年的收入是多少？", "zh"),
        ("使用 PyTorch 的 DataLoader 时，num_workers 参数应该如何设置？", "zh"),
        ("会社の2021年の収益はいくらですか", "ja"),
        ("2021년 회사의 매출은 얼마였습니까?", "ko"),
        ("Каков был доход компании в 2021 году?", "cyrillic"),
        ("Wie hoch war der Umsatz der Firma und wann wird er bekannt?", "de"),
        ("Quel était le chiffre d'affaires de la société en 2021 et pour qui ?", "fr"),
        ("¿Cuál fue el ingreso de la empresa en 2021 y cómo se calcula?", "es"),
        ("كم كانت إيرادات الشركة", "arabic"),
        ("lyft revenue 2021", None),
        ("2021 10-K", None),
        ("α = 0.05", None),
        ("", None),
    ],
)
def test_languages(text: str, language: str | None) -> None:
    assert detect_language(text) == language


def test_english_with_a_few_chinese_names_is_english() -> None:
    assert detect_language("The company 滴滴 is one of the rivals of Uber in China, and it is the largest.") == "en"


def test_a_list_of_names_is_no_language() -> None:
    names = " ".join(f"Maria A. de la Cruz o Santos, Vice President, {bank} Bank N.A." for bank in "ABCDEFGH")
    assert detect_language(names) is None


def test_the_prompt_is_chinese_for_chinese_only() -> None:
    assert is_chinese("滴滴出行是一家移动出行平台。")
    assert not is_chinese("配車サービスの会社です。")
    assert not is_chinese("A ride-hailing company.")
