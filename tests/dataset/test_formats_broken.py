"""200 broken files for each reader: a data set or a `DatasetError` that names the file, and nothing else, ever."""

from __future__ import annotations

import gzip
import io
import json
import random
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import llama_index_embft.dataset.sources as sources
from llama_index_embft.dataset import EmbeddingQAFinetuneDataset, guess_format, read_dataset, write_dataset
from llama_index_embft.errors import DatasetError

BASE = EmbeddingQAFinetuneDataset(
    queries={"1": "who pays?", "q2": "谁付钱?", "q3": 'naïve, "quoted" and\nbroken?'},
    corpus={"a": "Alice pays.", "b": "鲍勃付钱。", "7": "A title and text", "d": "Nobody pays, ever.", "e": "left"},
    relevant_docs={"1": ["a", "b"], "q2": ["b"], "q3": ["7"]},
    negative_docs={"1": ["d"], "q2": ["a", "d"], "q3": ["e"]},
    relevance_grades={"1": {"a": 2}},
    reference_answers={"1": "Alice", "q2": "鲍勃"},
    bare_texts={"7": "text"},
    source_documents={"a": "x.md", "b": "x.md"},
)
WRONG: list[Any] = [None, True, 0, -1, 1.5, float("nan"), float("inf"), 10**400, "", " ", "x", "\ud800", [], [None], {},
                    {"a": 1}, [[]], "x" * 1_000_000]  # fmt: skip
FORMATS = {
    **dict.fromkeys(("rag", "llama-index", "squad", "labelled-rag"), ("d.json",)),
    **dict.fromkeys(("beir", "mteb", "air-bench", "trec"), ("d",)),
    "flag-embedding": ("d.jsonl", "d.parquet"),
    "triplets": ("d.jsonl", "d.csv", "d.parquet"),
    "ntuples": ("d.json",),
    "pairs": ("d.tsv",),
    "scored": ("d.jsonl", "d.csv"),
    "infgrad": ("d.jsonl",),
    "table": ("d.csv", "d.parquet", "d.jsonl"),
    "ragas": ("d.csv", "d.jsonl"),
}
CASES = [(name, file) for name, files in FORMATS.items() for file in files] + [("datasets", "d"), ("triplets", "d")]


def cut(data: bytes, dice: random.Random) -> bytes:
    return data[: dice.randrange(len(data))]


def flip(data: bytes, dice: random.Random) -> bytes:
    made = bytearray(data)
    for _ in range(dice.randint(1, 4)):
        made[dice.randrange(len(made))] = dice.randrange(256)
    return bytes(made)


def splice(data: bytes, dice: random.Random) -> bytes:
    start, end = sorted(dice.randrange(len(data)) for _ in range(2))
    return data[:start] + data[end:]


def without_a_line(data: bytes, dice: random.Random) -> bytes:
    lines = data.split(b"\n")
    del lines[dice.randrange(len(lines))]
    return b"\n".join(lines)


def a_line_twice(data: bytes, dice: random.Random) -> bytes:
    lines = data.split(b"\n")
    place = dice.randrange(len(lines))
    return b"\n".join([*lines[: place + 1], lines[place], *lines[place + 1 :]])


def a_key_twice(data: bytes, dice: random.Random) -> bytes:
    places = [n for n in range(len(data)) if data[n : n + 1] == b"{"] or [0]
    place = dice.choice(places) + 1
    return data[:place] + dice.choice([b'"query": "x", ', b'"_id": 1, ', b'"1": "x", "1": "y", ']) + data[place:]


def another_encoding(data: bytes, dice: random.Random) -> bytes:
    text = data.decode("utf-8", "replace")
    name = dice.choice(["utf-16", "utf-16-le", "utf-32", "utf-8-sig", "gbk", "latin-1", "shift-jis", "cp1252"])
    return text.encode(name, "replace" if dice.random() < 0.5 else "ignore")


def line_ends(data: bytes, dice: random.Random) -> bytes:
    return data.replace(b"\n", dice.choice([b"\r\n", b"\r", b"\n\n", b"\n\r\n", b"\n \n"]))


def a_wrong_value(data: bytes, dice: random.Random) -> bytes:
    """JSON with one value, anywhere, replaced by another one."""
    text = data.decode("utf-8")
    try:
        whole, lines = [json.loads(text)], False
    except ValueError:
        try:
            whole, lines = [json.loads(line) for line in text.splitlines()], True
        except ValueError:  # a table: one cell of one line
            cells = text.split("\n")
            place = dice.randrange(len(cells))
            row = cells[place].split("," if "," in cells[place] else "\t")
            row[dice.randrange(len(row))] = str(dice.choice(WRONG[:11]))
            cells[place] = ",".join(row) if "," in cells[place] else "\t".join(row)
            return "\n".join(cells).encode()
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key in list(node) if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            if isinstance(node[key], (dict, list)):
                walk(node[key])

    walk(whole)
    node, key = dice.choice(places)
    if isinstance(node, dict) and dice.random() < 0.3:
        node[dice.choice(["", "x", "1", "text"])] = node.pop(key)
    else:
        node[key] = dice.choice(WRONG)
    return "\n".join(json.dumps(item) for item in whole).encode() if lines else json.dumps(whole[0]).encode()


def packed(data: bytes, dice: random.Random) -> bytes:
    made = gzip.compress(data, mtime=0)
    return made if dice.random() < 0.2 else dice.choice([cut, flip])(made, dice)


def a_bomb(data: bytes, dice: random.Random) -> bytes:
    return gzip.compress(dice.choice([b"0", b"\n", b'{"a": "', b" "]) * 500_000, mtime=0)


def a_zip(data: bytes, dice: random.Random) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("d.jsonl", b"0" * 1_000_000)
    return made.getvalue()


def something_else(data: bytes, dice: random.Random) -> bytes:
    others = [b"", b"\n", b"\x00" * 50, b"[" * 100_000, b'{"a":' * 50_000, b"null", b"[]", b"{}", b'"x"', b"1e999"]
    others += [b",,,\n", b"\xff\xfe", b"\xef\xbb\xbf", b"x" * 1_000_000, b'"' * 1_000_001, b"<html>", b"PAR1PAR1"]
    others += [bytes(range(256))]
    return dice.choice(others)


# What to do -> how often of 200.
TEXT: dict[Callable[[bytes, random.Random], bytes], int] = {cut: 45, flip: 25, splice: 15, without_a_line: 10,
    a_line_twice: 8, a_key_twice: 10, another_encoding: 16, line_ends: 8, a_wrong_value: 40, packed: 6, a_bomb: 2,
    a_zip: 1, something_else: 14}  # fmt: skip
BINARY = {cut: 80, flip: 80, splice: 30, something_else: 10}


def broken(files: dict[str, bytes], name: str, kinds: dict[Callable[..., bytes], int]) -> Iterator[dict[str, bytes]]:
    """200 sets of files, each with one file broken; the same ones on every machine."""
    for kind, times in kinds.items():
        for n in range(times):
            dice = random.Random(f"{name} {kind.__name__} {n}")
            victim = sorted(files)[n % len(files)]
            yield files | {victim: kind(files[victim], dice)}


@pytest.fixture
def small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bombs of this size count as bombs."""
    monkeypatch.setattr(sources, "FREE_BYTES", 100_000)


def refusal(call: Callable[[], Any]) -> str | None:
    """The words in which a file is refused; None if it is read. Any other exception is the test's failure."""
    try:
        made = call()
    except DatasetError as err:
        return str(err)
    assert isinstance(made, str) or (isinstance(made, EmbeddingQAFinetuneDataset) and made.queries)
    return None


@pytest.mark.system
@pytest.mark.parametrize(("name", "file"), CASES, ids=lambda value: str(value))
@pytest.mark.usefixtures("small_bounds")
def test_200_broken_files(name: str, file: str, tmp_path: Path) -> None:
    good = tmp_path / "good" / file
    write_dataset(BASE, good, name)
    whole = [path for path in (good.rglob("*") if good.is_dir() else [good]) if path.is_file()]
    files = {str(path.relative_to(good.parent)): path.read_bytes() for path in whole}
    is_binary = any(path.suffix in (".parquet", ".arrow") for path in whole)
    place = tmp_path / "bad"
    outcomes = {"read": 0, "refused": 0}
    for number, made in enumerate(broken(files, f"{name} {file}", BINARY if is_binary else TEXT)):
        shutil.rmtree(place, ignore_errors=True)
        for path, data in made.items():
            (place / path).parent.mkdir(parents=True, exist_ok=True)
            (place / path).write_bytes(data)
        for on_error in ("raise", "drop") if number % 3 == 0 else ("raise",):
            refused = refusal(lambda on_error=on_error: read_dataset(place / file, name, on_error=on_error))
            assert refused is None or (str(place) in refused and len(refused) < 1500), refused
            outcomes["read" if refused is None else "refused"] += 1
        if number % 10 == 0:
            refused = refusal(lambda: guess_format(place / file))
            assert refused is None or str(place) in refused
    assert outcomes["refused"] > 40
    assert outcomes["read"] > 0
