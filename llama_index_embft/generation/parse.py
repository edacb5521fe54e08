"""From what an LLM said to a list of queries: the many shapes of an answer that is no structured output.

The order matters: reasoning and fences go first, then JSON is tried, then labelled pairs, then lines. Whatever is not a
query (preamble, heading, answer, option, refusal, good wishes) is left out; what stays is the LLM's own wording.
"""

from __future__ import annotations

import json
import re
import unicodedata
from typing import TYPE_CHECKING, Any, NamedTuple

from llama_index_embft.generation.parse_patterns import (
    ANSWER_FIELDS,
    ANSWER_LABEL,
    BROKEN_PAIR,
    BULLET,
    CLOSING,
    EMPHASIS,
    FENCE,
    HEADING,
    HEADING_LINE,
    IMPERATIVE,
    INLINE_ANSWER,
    JSON_LINE,
    JSON_STRING,
    NUMBERED,
    OPTION,
    PREAMBLE,
    QUERY_FIELDS,
    QUESTION_LABEL,
    QUOTES,
    REFUSAL,
    SENTENCES,
    THINKING,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Item(NamedTuple):
    """One query, and its answer where the LLM gave one (else empty)."""

    query: str
    answer: str = ""


class _AnswerLine(NamedTuple):
    text: str
    role: str  # "query", "answer", "skip", "loose" (no mark says what it is)


def is_refusal(text: str) -> bool:
    """Tell whether an LLM declines instead of doing what it was asked."""
    return bool(REFUSAL.match(_plain(text).lstrip("\"'“ ").replace("’", "'")))


def normalized(query: str) -> str:
    """A query without case, width, spacing and punctuation: two queries that differ in no more are the same."""
    folded = unicodedata.normalize("NFKC", query).casefold()
    return " ".join("".join(c if c.isalnum() else " " for c in folded).split()) or folded.strip()


def parse_items(response: Any, *, limit: int, questions_only: bool = True) -> list[Item]:
    """Take the queries out of an LLM's answer.

    Args:
        response: Text, or structured output: a dict, or a list of strings or dicts.
        limit: Most queries to return.
        questions_only: Every query should be a question; statements between questions are then taken for answers.

    Returns:
        Queries in the order of the answer, without duplicates; empty when there is nothing usable.
    """
    items = _from_text(response, questions_only) if isinstance(response, str) else _from_json(response)
    return _usable(items)[:limit]


def _usable(items: Iterable[Item]) -> list[Item]:
    found: dict[str, Item] = {}
    for item in items:
        query = _tidy(item.query)
        cut = INLINE_ANSWER.search(query)
        answer = item.answer
        if cut and cut.start() > 0:
            answer = answer or cut["answer"].rstrip(")）] ")
            query = _tidy(query[: cut.start()])
        if not any(c.isalnum() for c in query) or is_refusal(query) or is_heading(query):
            continue
        answer = _tidy(answer)
        found.setdefault(normalized(query), Item(query, "" if is_refusal(answer) else answer))
    return list(found.values())


def is_heading(line: str) -> bool:
    """Tell a heading, a preamble or a closing phrase from a query."""
    plain = _plain(line)
    if HEADING_LINE.match(plain):
        return True
    announces = plain.endswith((":", "：", "-", "—"))
    asks = plain.endswith(("?", "？"))
    if PREAMBLE.match(plain) and (announces or not asks):
        return announces or bool(re.search(r"questions?|quer(?:y|ies)|问题|查询|[!.。！]$", plain, re.IGNORECASE))
    return bool(CLOSING.match(plain))


def _from_text(response: str, questions_only: bool) -> list[Item]:
    text = THINKING.sub("", response).strip()
    text = FENCE.sub("", text).strip()
    structured = _find_json(text)
    if structured is not None:
        return structured
    lines = [_classify(line) for line in text.splitlines() if line.strip()]
    return _assemble(lines, questions_only)


def _find_json(text: str) -> list[Item] | None:
    """The queries of a JSON answer, whole, wrapped in words, or broken; None when it is no JSON at all."""
    starts = [place for place in (text.find("{"), text.find("[")) if place >= 0]
    if not starts:
        return None
    body = text[min(starts) :]
    end = max(body.rfind("}"), body.rfind("]")) + 1
    for candidate in (body[:end], re.sub(r",\s*([}\]])", r"\1", body[:end])):
        try:
            data = json.loads(candidate)
        except ValueError:
            continue
        return _from_json(data) if isinstance(data, dict | list) else None
    return _salvage(body)


def _salvage(body: str) -> list[Item] | None:
    """The complete strings of JSON that was cut off or has a comma too few."""
    pairs = [Item(_unescape(q), _unescape(a)) for q, a in BROKEN_PAIR.findall(body)]
    if pairs:
        return pairs
    array = re.match(rf'(?:\{{\s*"\w+"\s*:\s*)?\[\s*(?={JSON_STRING}\s*,?)', body)
    if array is None:
        return None
    strings = re.findall(JSON_STRING, body[array.end() :])
    return [Item(_unescape(string)) for string in strings] or None


def _unescape(string: str) -> str:
    try:
        return str(json.loads(f'"{string}"', strict=False))
    except ValueError:
        return string


def _from_json(data: Any) -> list[Item]:
    if isinstance(data, str):
        return [Item(data)]
    if isinstance(data, list):
        return [item for entry in data for item in _from_json(entry)]
    if not isinstance(data, dict):
        return []
    lowered = {str(name).lower(): value for name, value in data.items()}
    for name in QUERY_FIELDS:
        if isinstance(lowered.get(name), str):
            answer = next((lowered[field] for field in ANSWER_FIELDS if isinstance(lowered.get(field), str)), "")
            return [Item(lowered[name], answer)]
    lists = [value for value in lowered.values() if isinstance(value, (list, dict))]
    if lists:
        return [item for value in lists for item in _from_json(value)]
    # {"1": "What ...?", "question_2": "How ...?"}; other fields ("count": "2", "topic": "x") hold no query.
    return [
        Item(value)
        for name, value in lowered.items()
        if isinstance(value, str) and re.fullmatch(r"(?:q|question|query|问题)?[ _-]?\d{1,3}", name)
    ]


def _classify(raw: str) -> _AnswerLine:
    line = raw.strip()
    marked = False
    while True:  # marks nest: "- **Question 1:** What ...?"
        shorter, mark = _strip_mark(line)
        if shorter == line:
            break
        marked, line = marked or mark, shorter
    if not line or HEADING_LINE.match(_plain(line)) or JSON_LINE.match(line):
        return _AnswerLine(line, "skip")
    if ANSWER_LABEL.match(line):
        return _AnswerLine(ANSWER_LABEL.sub("", line), "answer")
    if OPTION.match(line) and not marked:
        return _AnswerLine(line, "skip")
    if is_refusal(line) or (is_heading(line) and (not marked or line.endswith((":", "：")))):
        return _AnswerLine(line, "skip")
    return _AnswerLine(line, "query" if marked else "loose")


def _strip_mark(line: str) -> tuple[str, bool]:
    """Take one mark off the front; True if it says that a query follows."""
    for pattern, says_query in ((HEADING, False), (BULLET, True), (NUMBERED, True), (QUESTION_LABEL, True)):
        found = pattern.match(line)
        if found:
            return line[found.end() :].strip(), says_query
    emphasis = EMPHASIS.match(line)
    if emphasis and (inner := emphasis[2]):
        rest = line[emphasis.end() :]
        # "**Question 1:** What" and "**1.** What" leave a mark; "**What is X?**" leaves a query.
        return (inner + rest if not rest or rest[0].isspace() else f"{inner} {rest}").strip(), False
    return line, False


def _assemble(lines: Sequence[_AnswerLine], questions_only: bool) -> list[Item]:
    has_marks = any(line.role == "query" for line in lines)
    loose = [line.text for line in lines if line.role == "loose"]
    if questions_only and sum(map(_asks, loose)) >= 1:
        keep_loose = {text for text in loose if _asks(text) or IMPERATIVE.match(text)}
    else:
        keep_loose = set(loose)
    items: list[Item] = []
    open_answer = False
    for line in lines:
        if line.role == "query" and not (items and questions_only and not _asks(line.text) and _answers(items, lines)):
            items.extend(Item(part) for part in _split_marked(line.text))
            open_answer = False
        elif line.role == "answer" and items:
            items[-1] = items[-1]._replace(answer=line.text)
            open_answer = True
        elif line.role == "loose" and has_marks:
            if items and not open_answer and _continues(items[-1].query, line.text):
                items[-1] = items[-1]._replace(query=f"{items[-1].query} {line.text}")
        elif line.role == "loose" and line.text in keep_loose:
            alone = questions_only and sum(map(_asks, loose)) == 1
            items.extend(Item(part) for part in (_split_questions(line.text) if alone else [line.text]))
    return items


def _answers(items: Sequence[Item], lines: Sequence[_AnswerLine]) -> bool:
    """A marked statement right after a marked question is its answer if questions and statements take turns."""
    marked = [line for line in lines if line.role == "query"]
    asking = [_asks(line.text) for line in marked]
    turns = asking == [n % 2 == 0 for n in range(len(asking))] and len(asking) >= 2
    return turns and _asks(items[-1].query)


def _asks(text: str) -> bool:
    # "What is Y? (page 3)" asks too.
    text = INLINE_ANSWER.sub("", text)
    return bool(re.search(r"[?？][\"'”’」』*_ ）)]*(?:[(（][^()（）]*[)）]\s*)?$", text))


def _continues(query: str, line: str) -> bool:
    """A wrapped line: the query before it has not ended, and this one starts like the middle of a sentence."""
    return query[-1] not in ".?!。？！" and not is_heading(line) and (line[0].islower() or not line[0].isascii())


def _split_questions(line: str) -> list[str]:
    """Several questions on the only line."""
    parts = [part for part in SENTENCES.split(line) if any(c.isalnum() for c in part)]
    if len(parts) > 1 and all(map(_asks, parts)) and all(len(part) >= 8 for part in parts):
        return parts
    return [line]


def _split_marked(line: str) -> list[str]:
    """Several questions on one line, each with its own number or label."""
    parts = SENTENCES.split(line)
    return parts if all(_strip_mark(part)[1] for part in parts[1:]) else [line]


def _plain(line: str) -> str:
    return re.sub(r"[*_`#]+", "", line).strip()


def _tidy(text: str) -> str:
    """One line, without marks, surrounding quotes or emphasis."""
    line = " ".join(text.split())
    while line:
        shorter, _ = _strip_mark(line)
        if len(shorter) > 1 and QUOTES.get(shorter[0]) == shorter[-1] and shorter[0] not in shorter[1:-1]:
            shorter = shorter[1:-1].strip()
        shorter = re.sub(r"^(.*[?？])(?:\*\*|__|\*|_)$", r"\1", shorter)
        if shorter == line:
            break
        line = shorter
    return line.strip(" ,;，；")
