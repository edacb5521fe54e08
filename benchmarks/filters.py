"""How many good questions the filters of generated questions drop.

Good are the questions that people asked (``human``), and those of the LLM-written sets that do not point at a text that
nobody sees. Which of the latter point at one is decided by the words of `POINTS`, a pattern that was widened after
reading examples of what was dropped; so the figure of the LLM-written sets is not independent of the filter.

    python benchmarks/filters.py
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

from _common import parser, write_results

from llama_index_embft import EmbeddingQAFinetuneDataset
from llama_index_embft.generation import (
    CandidateQuery,
    GenerationReport,
    NearDuplicates,
    Passage,
    QuestionFilter,
    RefersToText,
    WrongLanguage,
    normalized,
    parse_items,
)
from llama_index_embft.generation.filters import FilterContext, read_score

WRITTEN = ("lyft_10k_2021", "uber_10k_2021")
HUMAN = ("covidqa_en", "cosqa_en", "cranfield_en", "norquad_no", "stard_zh_law")
# "the context information", "the given text": nobody asks like this without a text in hand.
POINTS = re.compile(
    r"context information|information provided(?! in)|"
    r"(?:the|this|provided|given|above) (?:context|text|passage|"
    r"excerpt|document|paragraph)\b|(?:the|this) (?:given|provided|above) \w+|"
    r"(?:mentioned|provided|stated|described|listed) (?:above|here)",
    re.IGNORECASE,
)


def candidates_of(dataset: EmbeddingQAFinetuneDataset) -> list[CandidateQuery]:
    """The questions with their chunks, as a run hands them to the filters."""
    passages = {
        id_: Passage(id_, text, dataset.bare_text(id_), dataset.document_of(id_))
        for id_, text in dataset.corpus.items()
    }
    return [
        CandidateQuery(id_, query, "", [passages[doc] for doc in dataset.relevant_docs[id_]])
        for id_, query in dataset.queries.items()
    ]


def measure(name: str, dataset: EmbeddingQAFinetuneDataset, *, written: bool) -> list[dict[str, Any]]:
    """A row a filter: what it drops of the good questions, and of all."""
    # Merged as in a run: a question that two rows share word for word is one.
    items = list(
        {(normalized(item.query), *(p.id for p in item.passages)): item for item in candidates_of(dataset)}.values()
    )
    good = {n for n, item in enumerate(items) if not (written and POINTS.search(item.query))}
    filters: list[QuestionFilter] = [RefersToText(), WrongLanguage(), NearDuplicates()]
    context = FilterContext([], None, GenerationReport())  # type: ignore[arg-type]  # these ask no LLM
    dropped = {filter_.name: set(asyncio.run(filter_.drop(items, context))) for filter_ in filters}
    # As an LLM would hand them in, both in fields and as numbered lines: what is taken for a refusal or a heading goes.
    dropped["refusal"] = {n for n, item in enumerate(items) if not _is_read(item.query)}
    return [
        {
            "dataset": name,
            "filter": filter_name,
            "questions": len(items),
            "good": len(good),
            "dropped": len(gone),
            "dropped_good": len(gone & good),
            "share_of_good": len(gone & good) / len(good),
            "examples": [items[n].query for n in sorted(gone & good)[:10]],
        }
        for filter_name, gone in dropped.items()
    ]


def _is_read(query: str) -> bool:
    structured = parse_items({"queries": [query]}, limit=2, questions_only=False)
    numbered = parse_items(f"1. {query}\n2. What else is there to ask?", limit=3, questions_only=False)
    return bool(structured) and len(numbered) == 2


# What judges say, and the grade in it; None: there is none, and the query is dropped and counted.
VERDICTS: list[tuple[str, int | None]] = [
    ("5", 5),
    ("Score: 4/5", 4),
    ("I see 2 flaws, yet it is perfect. Score: 5", 5),
    ("The query has 1 small flaw.\n\n4", 4),
    ("**Score:** 4", 4),
    ("On a scale from 1 to 5 I give 4", 4),
    ("The 2021 revenue of 3 segments is named. 5", 5),
    ("<think>2 at most, or 3?</think>4", 4),
    ("4 - the passage answers the query", 4),
    ("评分：4分", 4),
    ("Rating: 8/10, 2 flaws", None),
    ("I see 2 flaws", None),
    ("This is a good pair, well done.", None),
]


def measure_judge() -> dict[str, Any]:
    """How many verdicts are read as they are meant."""
    wrong = []
    for text, meant in VERDICTS:
        try:
            found: int | None = read_score(text)
        except Exception:  # noqa: BLE001 - no grade in it
            found = None
        if found != meant:
            wrong.append(f"{text!r}: {found}, not {meant}")
    return {"filter": "judge", "verdicts": len(VERDICTS), "misread": len(wrong), "examples": wrong}


def main() -> None:
    """Measure and write ``benchmarks/results/filters.json``."""
    arguments = parser(__doc__).parse_args()
    rows: list[dict[str, Any]] = []
    for name in WRITTEN:
        rows += measure(name, EmbeddingQAFinetuneDataset.from_json(arguments.data_dir / f"{name}.json"), written=True)
    for name in HUMAN:
        path = arguments.data_dir / "human" / f"{name}.json"
        rows += measure(name, EmbeddingQAFinetuneDataset.from_json(path), written=False)
    rows.append(measure_judge())
    for row in rows:
        if "good" in row:
            print(f"{row['dataset']:16} {row['filter']:20} {row['dropped']:5} dropped, {row['dropped_good']:3} of "
                  f"{row['good']:5} good ({row['share_of_good']:.2%})")  # fmt: skip
        else:
            print(row)
    write_results("filters", rows)


if __name__ == "__main__":
    main()
