"""From what an LLM said to a list of queries: the many shapes of an answer that is no structured output.

The order matters: reasoning and fences go first, then JSON is tried, then labelled pairs, then lines. Whatever is not a
query (preamble, heading, answer, option, refusal, good wishes) is left out; what stays is the LLM's own wording.
"""

from __future__ import annotations

import ast
import itertools
import json
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from llama_index_embft._core.language import composed
from llama_index_embft.generation.parse_patterns import (
    ANSWER_FIELDS,
    ANSWER_LABEL,
    ANSWER_TAG,
    ASKS,
    BETWEEN_TAGS,
    BULLET,
    CLOSING,
    EMPHASIS,
    END_TOKEN,
    FENCE,
    FINAL_CHANNEL,
    FINAL_HEADING,
    HEADING,
    HEADING_LINE,
    IMPERATIVE,
    INLINE_ANSWER,
    INVISIBLE,
    JSON_LINE,
    LINE_TAG,
    NUMBERED,
    NUMBERED_LABEL,
    OPTION,
    PREAMBLE,
    QUERY_FIELDS,
    QUERY_LIST,
    QUERY_NAME,
    QUESTION_LABEL,
    QUOTES,
    REASONING_TAG,
    REFUSAL,
    SENTENCES,
    SORT_LABEL,
    WORDS_AND_SIGNS,
    json_strings,
    without_counts,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


# What is looked at: no LLM writes more queries than fit, and patterns that go back and forth stay quick on this much.
_LONGEST_TEXT: Final = 32_000
_LONGEST_LINE: Final = 1_500
_MOST_LINES: Final = 400
_MOST_ITEMS: Final = 400
_DEEPEST: Final = 8
_MOST_MARKS: Final = 6


class Item(NamedTuple):
    """One query, and its answer where the LLM gave one (else empty).

    Attributes:
        query: The query.
        answer: Its answer; empty where the LLM gave none.
        certain: A field or a mark says that it is a query, so it is none of the LLM's phrases around the queries.
    """

    query: str
    answer: str = ""
    certain: bool = False


class _AnswerLine(NamedTuple):
    text: str
    role: str  # "query", "answer", "skip", "loose" (no mark says what it is)


def is_refusal(text: str) -> bool:
    """Tell whether an LLM declines instead of doing what it was asked; what asks is no refusal."""
    plain = " ".join(_plain(text[:600]).split()).lstrip("\"'“ ").replace("’", "'")
    return bool(REFUSAL.match(plain)) and not (asks(plain) and len(text) <= 600)


def normalized(query: str) -> str:
    """A query without case, width, spacing, punctuation (but C++, -5, <); two that differ in no more are the same."""
    folded = composed(query).casefold()
    return " ".join(WORDS_AND_SIGNS.findall(folded)) or folded.strip()


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


def without_reasoning(text: str) -> str:
    """Leave out what a model thought aloud: between tags, before a lone closing tag, after a lone opening one."""
    _, channel, final = text.rpartition(FINAL_CHANNEL)
    text = final if channel else text
    kept: list[str] = []
    thinking, start = False, 0
    for tag in REASONING_TAG.finditer(text):
        if tag["end"]:
            if not thinking:
                kept.clear()  # the opening tag was in the prompt: all before this one is reasoning
            thinking, start = False, tag.end()
        elif not thinking:
            kept.append(text[start : tag.start()])
            thinking = True
    if not thinking:
        kept.append(text[start:])
    turns = END_TOKEN.split(ANSWER_TAG.sub("", "".join(kept)))
    text = next((turn for turn in turns if turn.strip()), "")
    return next((part for part in reversed(FINAL_HEADING.split(text)) if part.strip()), "")


def _usable(items: Iterable[Item]) -> list[Item]:
    found: dict[str, Item] = {}
    for item in itertools.islice(items, _MOST_ITEMS):
        query = _tidy(item.query)
        cut = INLINE_ANSWER.search(query)
        answer = item.answer
        if cut and cut.start() > 0:
            answer = answer or cut["answer"].rstrip(")）] ")
            query = _tidy(query[: cut.start()])
        # A field of JSON may hold a heading that announces ("Questions:"), and hardly ever a closing phrase.
        phrase = is_heading(query) and (not item.certain or query.endswith((":", "：")))
        if not any(c.isalnum() for c in query) or is_refusal(query) or phrase or HEADING_LINE.match(query):
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
    ends_asking = plain.endswith(("?", "？", "؟"))
    if PREAMBLE.match(plain) and (announces or not ends_asking):
        return announces or bool(re.search(r"questions?|quer(?:y|ies)|问题|查询|[!.。！]$", plain, re.IGNORECASE))
    return bool(CLOSING.match(plain)) and not (ends_asking and not re.match("would you like", plain, re.IGNORECASE))


def _from_text(response: str, questions_only: bool) -> list[Item]:
    text = without_reasoning(response).strip()[:_LONGEST_TEXT]
    text = FENCE.sub("", text).strip()
    structured = _find_json(text)
    if structured is not None:
        return structured
    text = LINE_TAG.sub("", BETWEEN_TAGS.sub(r"\1\n", text))
    lines = [" ".join(line.split()).strip(INVISIBLE)[:_LONGEST_LINE] for line in text.splitlines()]
    # A line of JSON or of Python, without the brackets around it.
    lines = [re.sub(r"([?？؟\"'”’」])[,;，；]$", r"\1", line) for line in lines if line][:_MOST_LINES]
    lines = _without_labels(without_counts(_without_table(lines), asks))
    return _assemble(_without_options([_classify(line) for line in lines]), questions_only)


def _without_table(lines: list[str]) -> list[str]:
    """Rows of a Markdown table become the cell that asks, else the longest; the header and the rule go."""
    rules = {n for n, line in enumerate(lines) if re.fullmatch(r"\|?[ :|-]*-{2,}[ :|-]*\|?", line) and "|" in line}
    plain: list[str] = []
    for n, line in enumerate(lines):
        if n in rules or n + 1 in rules:
            continue
        if rules and line.count("|") >= 2:
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            line = next((cell for cell in cells if asks(cell)), max(cells, key=len))
            line = f"- {line}"
        plain.append(line)
    return plain


def _without_labels(lines: list[str]) -> list[str]:
    """Take "Kysymys 1:", "Kysymys 2:" off, in any language: one label whose numbers count up."""
    found = [NUMBERED_LABEL.match(_plain(line)) for line in lines]
    numbers: dict[str, set[int]] = {}
    for match in found:
        if match:
            numbers.setdefault(match["label"].strip().casefold(), set()).add(int(match["number"]))
    counting = {label for label, seen in numbers.items() if {1, 2} <= seen}
    return [
        f"- {_plain(line)[match.end() :]}" if match and match["label"].strip().casefold() in counting else line
        for line, match in zip(lines, found, strict=True)
    ]


def _without_options(lines: list[_AnswerLine]) -> list[_AnswerLine]:
    """Leave out multiple-choice options: a run of lines a, b, … below a question; "E. coli incubation" is none."""
    kept = list(lines)
    n = 1
    while n < len(lines):
        end = n
        while end < len(lines) and _option_letter(lines[end]) == chr(ord("a") + end - n):
            end += 1
        if end - n >= 2 and (asks(lines[n - 1].text) or lines[n - 1].role == "query"):
            kept[n:end] = [line._replace(role="skip") for line in lines[n:end]]
        n = max(end, n + 1)
    return kept


def _option_letter(line: _AnswerLine) -> str:
    match = OPTION.match(line.text)
    return match["letter"].lower() if match and line.role == "loose" and not asks(line.text) else ""


def _find_json(text: str) -> list[Item] | None:
    """The queries of a JSON answer, whole, wrapped in words, or broken; None when it is no JSON at all."""
    starts = [place for place in (text.find("{"), text.find("[")) if place >= 0]
    if not starts:
        return None
    body = text[min(starts) :]
    end = max(body.rfind("}"), body.rfind("]")) + 1
    for candidate in (body[:end], re.sub(r",\s{0,20}([}\]])", r"\1", body[:end])):
        try:
            data = json.loads(candidate)
        except (ValueError, RecursionError):
            continue
        return _from_json(data) if isinstance(data, dict | list) else None
    with suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return _from_json(ast.literal_eval(body[:end])) or _salvage(body)  # a list as Python writes it
    return _salvage(body)


def _salvage(body: str) -> list[Item] | None:
    """The complete strings of JSON that was cut off or has a comma too few."""
    strings = list(json_strings(body))
    items: list[Item] = []
    for (name, is_name), (value, value_is_name) in itertools.pairwise(strings):
        if is_name and not value_is_name:
            if name.lower() in QUERY_FIELDS:
                items.append(Item(value, certain=True))
            elif name.lower() in ANSWER_FIELDS and items:
                items[-1] = items[-1]._replace(answer=value)
    if items:
        return items
    if re.match(r'(?:\{\s{0,20}"\w{1,40}"\s{0,20}:\s{0,20})?\[\s{0,20}"', body) is None:
        return None
    return [Item(text, certain=True) for text, is_name in strings if not is_name] or None


def _from_json(data: Any, depth: int = 0) -> list[Item]:
    if isinstance(data, str):
        return [Item(data, certain=True)]
    if depth >= _DEEPEST or not isinstance(data, (list, dict)):
        return []
    if isinstance(data, list):
        return [item for entry in data[:_MOST_ITEMS] for item in _from_json(entry, depth + 1)]
    lowered = {str(name).lower(): value for name, value in data.items()}
    of_queries = [value for name, value in lowered.items() if QUERY_LIST.fullmatch(name) and value]
    if of_queries:  # and none of what else it lists: facts, topics
        texts = [value.splitlines() if isinstance(value, str) else value for value in of_queries]
        return [item for value in texts for item in _from_json(value, depth + 1)]
    for name in (*QUERY_FIELDS, *filter(QUERY_NAME.fullmatch, lowered)):
        if isinstance(lowered.get(name), str):
            answer = next((lowered[field] for field in ANSWER_FIELDS if isinstance(lowered.get(field), str)), "")
            return [Item(lowered[name], answer, certain=True)]
    lists = [value for value in lowered.values() if isinstance(value, (list, dict))]
    if lists:
        return [item for value in lists for item in _from_json(value, depth + 1)]
    if any(map(asks, map(str, data))):  # {"What ...?": "The answer."}
        return [Item(name, value if isinstance(value, str) else "", certain=True) for name, value in data.items()]
    # {"1": "What ...?", "question_2": "How ...?"}; other fields ("count": "2") hold no query.
    return [
        Item(value, certain=True)
        for name, value in lowered.items()
        if isinstance(value, str) and re.fullmatch(r"(?:q|question|query|问题)?[ _-]?\d{1,3}", name)
    ]


def _classify(raw: str) -> _AnswerLine:
    line = raw.strip()
    marked = False
    for _ in range(_MOST_MARKS):  # marks nest: "- **Question 1:** What ...?"
        shorter, mark = _strip_mark(line)
        if shorter == line:
            break
        marked, line = marked or mark, shorter
    if not line or HEADING_LINE.match(_plain(line)) or JSON_LINE.match(line):
        return _AnswerLine(line, "skip")
    if ANSWER_LABEL.match(line):
        return _AnswerLine(ANSWER_LABEL.sub("", line), "answer")
    if is_refusal(line) or (is_heading(line) and (not marked or line.endswith((":", "：")))):
        return _AnswerLine(line, "skip")
    return _AnswerLine(line, "query" if marked else "loose")


def _strip_mark(line: str) -> tuple[str, bool]:
    """Take one mark off the front; True if it says that a query follows."""
    for pattern in (HEADING, BULLET, NUMBERED, QUESTION_LABEL, SORT_LABEL):
        found = pattern.match(line)
        if found:
            return line[found.end() :].strip(), pattern not in (HEADING, SORT_LABEL)
    emphasis = EMPHASIS.match(line)
    if emphasis and (inner := emphasis[2]):
        rest = line[emphasis.end() :]
        # "**Question 1:** What" and "**1.** What" leave a mark; "**What is X?**" leaves a query.
        return (inner + rest if not rest or rest[0].isspace() else f"{inner} {rest}").strip(), False
    return line, False


def _assemble(lines: Sequence[_AnswerLine], questions_only: bool) -> list[Item]:
    has_marks = any(line.role == "query" for line in lines)
    loose = [line.text for line in lines if line.role == "loose"]
    asking = sum(map(asks, loose))
    if questions_only and asking >= 1:
        keep_loose = {text for text in loose if asks(text) or IMPERATIVE.match(text)}
    else:
        keep_loose = set(loose)
    items: list[Item] = []
    open_answer = False
    takes_turns = questions_only and _take_turns(lines)
    for line in lines:
        if line.role == "query" and not (takes_turns and items and not asks(line.text) and asks(items[-1].query)):
            items.extend(Item(part, certain=True) for part in _split_marked(line.text))
            open_answer = False
        elif line.role == "answer" and items:
            items[-1] = items[-1]._replace(answer=line.text)
            open_answer = True
        elif line.role == "loose" and has_marks:
            if items and not open_answer and _continues(items[-1].query, line.text):
                items[-1] = items[-1]._replace(query=f"{items[-1].query} {line.text}")
        elif line.role == "loose" and line.text in keep_loose:
            alone = questions_only and asking == 1
            items.extend(Item(part) for part in (_split_questions(line.text) if alone else [line.text]))
    return items


def _take_turns(lines: Sequence[_AnswerLine]) -> bool:
    """Whether marked questions and marked statements alternate: then a statement is the answer to its question."""
    asking = [asks(line.text) for line in lines if line.role == "query"]
    return asking == [n % 2 == 0 for n in range(len(asking))] and len(asking) >= 2


def asks(text: str) -> bool:
    """Tell whether a text ends in a question mark; "What is Y? (page 3)" does too."""
    return bool(ASKS.search(INLINE_ANSWER.sub("", text)))


def _continues(query: str, line: str) -> bool:
    """A wrapped line: the query before it has not ended, and this one starts like the middle of a sentence."""
    return (
        query[-1] not in ".?!。？！؟"
        and len(query) < _LONGEST_LINE
        and not is_heading(line)
        and (line[0].islower() or not line[0].isascii())
    )


def _split_questions(line: str) -> list[str]:
    """Several questions on the only line."""
    parts = [part for part in SENTENCES.split(line) if any(c.isalnum() for c in part)]
    if len(parts) > 1 and all(map(asks, parts)) and all(len(part) >= 8 for part in parts):
        return parts
    return [line]


def _split_marked(line: str) -> list[str]:
    """Several questions on one line, each with its own number or label."""
    parts = SENTENCES.split(line)
    marked = all(_strip_mark(part)[1] and (asks(part) or not BULLET.match(part)) for part in parts[1:])
    return parts if marked else [line]


def _plain(line: str) -> str:
    return re.sub(r"[*_`#]+", "", line).strip()


def _tidy(text: str) -> str:
    """One line, without marks, surrounding quotes or emphasis."""
    line = " ".join(text[:_LONGEST_LINE].split())
    for _ in range(_MOST_MARKS):
        shorter, _ = _strip_mark(line)
        if len(shorter) > 1 and QUOTES.get(shorter[0]) == shorter[-1] and shorter[0] not in shorter[1:-1]:
            shorter = shorter[1:-1].strip()
        shorter = re.sub(r"^(.*[?？؟])(?:\*\*|__|\*|_)$", r"\1", shorter)
        if shorter == line:
            break
        line = shorter
    return line.strip(" ,;，；")
