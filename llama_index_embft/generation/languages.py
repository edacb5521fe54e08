"""Languages that users may ask in, other than that of the passages."""

from __future__ import annotations

from typing import Final

# Code -> its name in the English and in the Chinese prompt.
LANGUAGES: Final = {
    "ar": ("Arabic", "阿拉伯语"),
    "bg": ("Bulgarian", "保加利亚语"),
    "cs": ("Czech", "捷克语"),
    "da": ("Danish", "丹麦语"),
    "de": ("German", "德语"),
    "el": ("Greek", "希腊语"),
    "en": ("English", "英语"),
    "es": ("Spanish", "西班牙语"),
    "fa": ("Persian", "波斯语"),
    "fi": ("Finnish", "芬兰语"),
    "fr": ("French", "法语"),
    "he": ("Hebrew", "希伯来语"),
    "hi": ("Hindi", "印地语"),
    "hu": ("Hungarian", "匈牙利语"),
    "id": ("Indonesian", "印度尼西亚语"),
    "it": ("Italian", "意大利语"),
    "ja": ("Japanese", "日语"),
    "ko": ("Korean", "韩语"),
    "nl": ("Dutch", "荷兰语"),
    "no": ("Norwegian", "挪威语"),
    "pl": ("Polish", "波兰语"),
    "pt": ("Portuguese", "葡萄牙语"),
    "ro": ("Romanian", "罗马尼亚语"),
    "ru": ("Russian", "俄语"),
    "sv": ("Swedish", "瑞典语"),
    "th": ("Thai", "泰语"),
    "tr": ("Turkish", "土耳其语"),
    "uk": ("Ukrainian", "乌克兰语"),
    "vi": ("Vietnamese", "越南语"),
    "zh": ("Chinese", "中文"),
}
# What `detect_language` calls them where several share a script.
_SCRIPTS: Final = {
    "ar": "arabic",
    "fa": "arabic",
    "bg": "cyrillic",
    "ru": "cyrillic",
    "uk": "cyrillic",
    "hi": "devanagari",
}
_OF_THE_PASSAGE: Final = {
    "en": ("- Write in the language of the passage", "- Write in {name}, whatever the language of the passage"),
    "zh": ("- 使用与原文相同的语言。", "- 不论原文是什么语言，一律使用{name}书写。"),
}


def asking_in(prompt: str, prompt_language: str, query_language: str) -> str:
    """The prompt that asks for queries in another language than the passage's."""
    usual, other = _OF_THE_PASSAGE[prompt_language]
    name = LANGUAGES[query_language][prompt_language == "zh"]
    return prompt.replace(usual, other.format(name=name))


def detected_as(query_language: str) -> str:
    """What `detect_language` calls a text in this language."""
    return _SCRIPTS.get(query_language, query_language)
