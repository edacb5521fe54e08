"""Rows of texts as sentence-transformers trains on them: pairs, triplets, n-tuples and scored pairs.

The rows may be kept in JSON Lines, JSON, CSV, TSV, Parquet or a `datasets.Dataset` (see `rows`). Their columns are
known by name, as many write them: ``anchor``/``query``/``question``, ``positive``/``context``/``passage``,
``negative``, ``negative_1`` …, ``score``/``label``; ``Query``, ``Positive Document``, ``Hard Negative Document`` are
those of ``infgrad/retrieval_data_llm``. An ``answer`` beside a context is the reference answer; alone it is the
positive. Any other name is given in ``columns``. A column that is not taken, and looks as though it said which rows are
right or what the document is, stops the reading: see `ColumnRoles.check_unused`.

Rows of one query, which has the same text in each, are put together. Ids are made of the texts.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from llama_index_embft._core.checks import check_number
from llama_index_embft.dataset.formats.build import as_number, as_text, as_texts
from llama_index_embft.dataset.formats.rows import Row, read_rows
from llama_index_embft.dataset.sources import At, FaultError
from llama_index_embft.errors import ConfigError, DatasetError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from llama_index_embft.dataset.formats.build import Builder
    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset

    Given = Mapping[str, str | Sequence[str]]

_NAMES: Final = {
    "anchor": ("anchor", "query", "question", "sentence1", "sentence_a", "text1"),
    "positive": ("positive", "pos", "positive_document", "positives", "sentence2", "sentence_b", "text2", "context",
                 "contexts", "passage", "document", "paragraph", "chunk"),
    "negative": ("negative", "neg", "hard_negative_document", "hard_negative", "negatives", "hard_negatives"),
    "score": ("score", "label", "labels", "similarity", "similarity_score"),
    "answer": ("answer", "reference_answer", "reference", "ground_truth", "ideal_answer", "response"),
}  # fmt: skip
_NUMBERED: Final = re.compile(r"(?:hard_)?neg(?:ative)?_?(\d+)")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Words in the name of a column that says which rows are right, in several languages.
_LABEL_WORDS: Final = _words("""
    label labels labelled labeled relevance relevant irrelevant rel rels relevancy relevanz relevante pertinence
    pertinent grade grades graded rating ratings rated rate judgement judgment judgements judgments judged judge
    target targets score scores scored similarity sim gold golden correct incorrect correctness stars vote votes
    verdict qrel qrels class truth match matches matched duplicate entailment useful helpful usefulness helpfulness
    annotation annotations feedback thumbs hit hits click clicked clicks accept accepted polarity valid validity
    quality answerable eval evaluation assessment assessed passed upvotes downvotes like likes liked bewertung
    relevancia puntuación puntuacion pertinenza étiquette 标签 标注 相关 相关性 分数 得分 评分 関連 関連度 評価 スコア
""")
# A column whose name ends in one of these holds a text to search, unless it is a question's or answer's.
_CONTEXT_WORDS: Final = frozenset(_NAMES["positive"]) | _words("""
    passages documents doc docs evidence snippet snippets text content contents body article excerpt ctx ctxs chunks
    paragraphs
""")
_OF_A_QUESTION: Final = _words("anchor query question answer response title")
_NEGATIVE_WORDS: Final = _words("neg negs negative negatives nonrelevant distractor distractors rejected")
_YES_NO: Final = _words("""
    0 1 -1 0.0 1.0 true false t f yes no y n ja nein oui non si pos neg positive negative good bad relevant irrelevant
    correct incorrect right wrong up down high medium low hoch mittel niedrig sí pass fail useful useless helpful
    unhelpful related teilweise ✓ ✗ ✔ ✘ ✅ ❌ 👍 👎 是 否 相关 不相关 高 中 低
""") | {
    "entailment", "entails", "entailed", "neutral", "contradiction", "contradicts", "not_entailment", "not entailment",
    "match", "no match", "exact match", "not relevant", "non-relevant", "partially relevant", "somewhat relevant",
    "highly relevant", "perfectly relevant", "related", "unrelated", "duplicate", "not duplicate", "not_duplicate",
    "partial", "partly", "maybe", "unsure", "exact", "substitute", "complement", "excellent", "fair", "poor", "perfect",
    "nicht relevant", "部分相关", "完全相关", "不匹配", "匹配",
}  # fmt: skip
# Small whole numbers in a column of such a name count something.
_COUNTING_WORDS: Final = _words("""
    id ids index idx no nr num number page pages chunk row line position pos rank offset start end length len tokens
    words chars count unnamed: year month day date time turn step split fold version chapter section level depth size
""")
_FEW: Final = 12
# 3, 2.5, 4/5: what people rate with.
_SMALL: Final = re.compile(r"-?\d([.,]\d)?|10([.,]0)?|\d{1,2}/(5|10)")


def plain_name(name: object) -> str:
    """A column's name in lower case, its words parted by ``_``: ``Is Relevant``, ``isRelevant`` -> ``is_relevant``."""
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", str(name).strip())
    return re.sub(r"[\s\-_.]+", "_", parted).lower()


class ColumnRoles:
    """Which column of a table is what.

    Args:
        name: What is read, for messages.
        given: Part -> the column that it is, and ``"ignore"`` -> columns to leave alone.
        scored: A score is needed.
        known: Columns of a table whose names are fixed; None finds the parts by name.

    Raises:
        ConfigError: `given` names a part that there is not.
    """

    def __init__(
        self, name: str, given: Given | None, *, scored: bool = False, known: Sequence[str] | None = None
    ) -> None:
        given = dict(given or {})
        ignored = given.pop("ignore", ())
        unknown = [part for part in given if part not in _NAMES]
        if unknown:
            parts = ", ".join([*_NAMES, "ignore"])
            raise ConfigError(f"`columns` has the part {unknown[0]!r}; the known parts are {parts}.")
        self._name, self._given, self._scored, self._known = name, given, scored, known
        self._ignored = frozenset([ignored] if isinstance(ignored, str) else ignored)
        self._of_keys: dict[tuple[Any, ...], dict[str, Any]] = {}
        self._values: dict[str, set[str]] = {}
        self._named: set[str] = set()
        self._row: Row = {}
        self.taken: dict[str, Any] = {}

    def take(self, row: Row, at: At) -> dict[str, Any]:
        """Part -> column of a row; ``negatives`` is a list of columns, ``known`` the columns that are read.

        Raises:
            FaultError: A column is missing.
            DatasetError: A column that nobody reads looks like a label or another document.
        """
        keys = tuple(row)
        found = self._of_keys.get(keys)
        if found is None:
            found = self._of_keys[keys] = self._find(row, at)
            self._row, self.taken = row, found
            if self._scored and found["negatives"]:
                raise self._stopped(found["negatives"][0], "a negative beside a score")
        for name in found["unused"]:
            cell = row[name]
            if name not in self._named and cell is not None and cell not in ("", []):
                self._named.add(name)
                self._check_name(name)
            seen = self._values.setdefault(name, set())
            if len(seen) < _FEW:
                seen.add("" if cell is None else str(cell)[:40].strip().lower())
        return found

    def _find(self, row: Row, at: At) -> dict[str, Any]:
        if self._known is not None:
            left = [name for name in row if name not in self._known and name not in self._ignored]
            return {"unused": left, "negatives": [], **{name: name for name in self._known if name in row}}
        plain = {name: plain_name(name) for name in row}
        by_name = {text: name for name, text in reversed(plain.items())}
        found: dict[str, Any] = {}
        for part, names in _NAMES.items():
            given = self._given.get(part)
            if given is not None and given not in row:
                raise FaultError(at, "missing column", f"there is no column {given!r}; there are {_list(row)}")
            free = [name for name in names if name in by_name and by_name[name] not in self._ignored]
            found[part] = given or next((by_name[name] for name in free), None)
        if found["positive"] is None and found["answer"] is not None and plain[found["answer"]] == "answer":
            found["positive"], found["answer"] = found["answer"], None
        if found["positive"] == found["answer"]:
            found["answer"] = None
        for part in ("anchor", "positive", *(["score"] if self._scored else [])):
            if found[part] is None:
                statement = f"no column is known as the {part} among {_list(row)}; say which one it is: "
                raise FaultError(at, "missing column", f"{statement}columns={{{part!r}: …}} (--column {part}=…)")
        numbered = [(int(match[1]), name) for name, text in plain.items() if (match := _NUMBERED.fullmatch(text))]
        found["negatives"] = [name for name in [found["negative"], *(name for _, name in sorted(numbered))] if name]
        parts = (found["anchor"], found["positive"], found["score"], found["answer"], *found["negatives"])
        found["known"] = frozenset(name for name in parts if name)
        found["unused"] = [name for name in row if name not in found["known"] and name not in self._ignored]
        return found

    def _check_name(self, name: str) -> None:
        """Raise if the name of a column that is not read, and is not empty, says that it should be."""
        text = plain_name(name)
        words = text.split("_")
        if _LABEL_WORDS.intersection(words):
            raise self._stopped(name, "a label, grade or score")
        if _NEGATIVE_WORDS.intersection(words) and not _COUNTING_WORDS.intersection(words):
            raise self._stopped(name, "a negative")
        if (text in _CONTEXT_WORDS or words[-1] in _CONTEXT_WORDS) and not _OF_A_QUESTION.intersection(words):
            raise self._stopped(name, "another document")

    def check_unused(self) -> None:
        """Raise if the values of a column that is not read say that it should be.

        Yes and no and their kind, a few small numbers, or numbers between -1 and 1 do.

        Raises:
            DatasetError: They do; the message names the columns, the mapping and what changes it.
        """
        for name, seen in self._values.items():
            values = seen - {""}
            counts = not plain_name(name) or _COUNTING_WORDS.intersection(plain_name(name).split("_"))
            small = all(map(_SMALL.fullmatch, values))
            likely = not counts if small else values <= _YES_NO or values == {"x"}
            # A cross in some rows and nothing in the others is an answer too.
            if values and len(values if small else seen) > 1 and len(values) < _FEW and likely:
                raise self._stopped(name, f"a label or grade (its values are {', '.join(sorted(values))})")
            if len(values) > 1 and not counts and not small and all(map(_is_share, values)):
                raise self._stopped(name, f"a score (its values are like {', '.join(sorted(values)[:3])})")

    def _stopped(self, name: str, what: str) -> DatasetError:
        taken = ", ".join(f"{column!r} as {part}" for part, column in self.taken.items() if isinstance(column, str))
        use = f'format="scored" with columns={{"score": {name!r}}} (embft convert --from scored --column score={name})'
        if self._known is not None:
            use = f"renaming the column {name!r} to one of {', '.join(self._known)}"
        elif "distance" in plain_name(name):
            use = "making a column of it in which more means more relevant"
        elif "document" in what:
            use = f'columns={{"positive": {name!r}}} (--column positive={name})'
        elif what == "a negative":
            use = f'columns={{"negative": {name!r}}} (--column negative={name})'
        elif "negative" in what:
            use = 'format="triplets" (--from triplets)'
        return DatasetError(
            f"{self._name}: the columns are {_list(self._row)}; taken are {taken}; {name!r} looks like {what}, and "
            f"would not be read. Read it by {use}, or leave it out by "
            f'columns={{"ignore": {name!r}}} (--column ignore={name}).'
        )


def _is_share(value: str) -> bool:
    if re.fullmatch(r"\d{1,3}([.,]\d+)? ?%", value):
        return True
    return bool(re.fullmatch(r"-?\d?[.,]?\d{1,30}(e-?\d{1,2})?", value)) and abs(float(value.replace(",", "."))) <= 1


def _list(names: Iterable[Any]) -> str:
    shown = [repr(name) for name in names]
    return ", ".join(shown[:8]) + (", …" if len(shown) > 8 else "") if shown else "none"


def read(
    source: Any, build: Builder, *, split: str | None = None, columns: Given | None = None
) -> EmbeddingQAFinetuneDataset:
    """Read pairs, triplets and n-tuples: every row has a query, a positive, and none or more negatives.

    A ``label`` that holds a list, as for distillation, is the scores of the positive and of each negative.

    An empty cell is no negative: tables need them where queries have fewer.

    Args:
        source: See `read_rows`.
        build: What collects.
        split: The split of a `DatasetDict`.
        columns: ``anchor``, ``positive``, ``negative``, ``score``, ``answer`` -> the name of the column, where it is
            not known; ``ignore`` -> columns that may be left unread.

    Raises:
        DatasetError: A column that nobody reads looks like a label, a grade, a score or another document.
    """
    roles = ColumnRoles(build.source, columns)
    for at, row in read_rows(source, build, split=split):
        with build.row():
            names = roles.take(row, at)
            query = as_text(row[names["anchor"]], names["anchor"], at)
            positives = as_texts(row[names["positive"]], names["positive"], at)
            if not positives:
                raise FaultError(at, "row without a positive", f"the row has no {names['positive']}")
            cells = [(name, row.get(name)) for name in names["negatives"]]
            negatives = [text for name, cell in cells if cell not in (None, "") for text in as_texts(cell, name, at)]
            scores = _list_of_scores(row, names["score"], len(positives) + len(negatives), at)
            query_id = build.add_query(query, at)
            for number, text in enumerate([*positives, *negatives]):
                doc = build.add_document(text, at)
                build.link(query_id, doc, int(number < len(positives)), at)
                if scores:
                    build.score(query_id, doc, scores[number])
            _add_answer(build, query_id, row, names["answer"], at)
            build.ignore(row, names["known"])
    roles.check_unused()
    return build.finish()


def _add_answer(build: Builder, query_id: str, row: Row, name: str | None, at: At) -> None:
    if name is not None and isinstance(row[name], str) and row[name].strip():
        build.add_answer(query_id, as_text(row[name], name, at), at)
    elif name is not None and row[name] not in (None, ""):
        build.lost[f"field {name!r}"] += 1


def _list_of_scores(row: Row, name: str | None, count: int, at: At) -> list[float]:
    value = row[name] if name else None
    if value is None or value == "":
        return []
    if not isinstance(value, (list, tuple)):
        raise DatasetError(
            f"{at}: a row with one {name} is a scored pair: read it as 'scored' (--from scored), or leave it out by "
            f'columns={{"ignore": {name!r}}} (--column ignore={name}).'
        )
    if len(value) != count:
        raise FaultError(at, "scores of a wrong number", f"{len(value)} scores for {count} texts")
    return [as_number(item, f"{name}[{n}]", at) for n, item in enumerate(value)]


def read_scored(
    source: Any,
    build: Builder,
    *,
    split: str | None = None,
    columns: Given | None = None,
    threshold: float | None = None,
) -> EmbeddingQAFinetuneDataset:
    """Read scored pairs: a document is relevant from ``threshold`` on, and a negative below.

    Queries without a relevant document are left out and counted. Scores are kept as ``teacher_scores`` unless they are
    labels of 0 and 1. Yes and no, true and false are read as 1 and 0.

    Args:
        source: See `read_rows`.
        build: What collects.
        split: The split of a `DatasetDict`.
        columns: See `read`; ``anchor`` and ``positive`` are the two texts.
        threshold: The lowest score of a relevant document. None: 0.5, for scores from 0 to 1.

    Raises:
        DatasetError: The scores have another scale than 0 to 1, and no threshold is given.
        ConfigError: ``threshold`` is no finite number.
    """
    if threshold is not None:
        check_number("threshold", threshold, above=float("-inf"), below=float("inf"))
    roles = ColumnRoles(build.source, columns, scored=True)
    judged: list[tuple[At, str, str, float]] = []
    for at, row in read_rows(source, build, split=split):
        with build.row():
            names = roles.take(row, at)
            query = as_text(row[names["anchor"]], names["anchor"], at)
            text = as_text(row[names["positive"]], names["positive"], at)
            value = _as_score(row[names["score"]], names["score"], at)
            query_id, doc = build.add_query(query, at), build.add_document(text, at)
            judged.append((at, query_id, doc, value))
            _add_answer(build, query_id, row, names["answer"], at)
            build.ignore(row, names["known"])
    roles.check_unused()
    values = {value for *_, value in judged}
    if threshold is None and values and not 0.0 <= min(values) <= max(values) <= 1.0:
        name = roles.taken["score"]
        raise DatasetError(
            f"{build.source}: {name!r} runs from {min(values):g} to {max(values):g}, and nothing says from which "
            "score a document counts as relevant; give that score: threshold=… (--read-option threshold=…)."
        )
    least = 0.5 if threshold is None else threshold
    for at, query_id, doc, value in judged:
        with build.row():
            build.link(query_id, doc, int(value >= least), at)
            if not values <= {0.0, 1.0}:  # those are labels, not a teacher's scores
                build.score(query_id, doc, value)
    return build.finish(leave_out_unjudged=f"query without a pair of a score from {least:g}")


def _as_score(value: Any, name: str, at: At) -> float:
    word = str(value).strip().lower()
    if isinstance(value, (bool, str)) and word in ("true", "yes", "false", "no"):
        return float(word in ("true", "yes"))
    return as_number(value, name, at)
