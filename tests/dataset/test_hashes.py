"""Hashes that records keep of texts: equal for equal texts, near for near ones, and the same in every version."""

from __future__ import annotations

import base64
import hashlib
import random

import pytest

from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
from llama_index_embft.dataset.hashes import near_duplicates_of_sketches, text_hash, text_hashes


def passage(seed: int, words: int = 60) -> str:
    return " ".join(random.Random(seed).choices([f"word{n}" for n in range(500)], k=words))


def dataset(queries: dict[str, str], corpus: dict[str, str], relevant: dict[str, list[str]]):
    return EmbeddingQAFinetuneDataset(queries=queries, corpus=corpus, relevant_docs=relevant)


def sketch_of(text: str) -> bytes:
    (sketch,) = text_hashes(dataset({"q": "?"}, {"d": text}, {"q": ["d"]}))["document_sketches"]
    return base64.b64decode(sketch, validate=True)


@pytest.mark.parametrize(
    ("text", "hashed"),
    [
        ("  What, is IT?!", b"what is it"),
        ("?!", b"?!"),  # nothing is left without punctuation: the text itself
        ("\ud800", b"\xed\xa0\x80"),  # half a character, as a broken file may hold it
    ],
)
def test_a_text_is_known_by_its_words(text: str, hashed: bytes) -> None:
    assert text_hash(text) == hashlib.sha256(hashed).hexdigest()[:16]


def test_a_record_keeps_questions_and_the_documents_that_answer_them() -> None:
    one = dataset({"a": "Who?", "b": "When?"}, {"x": "Anna did.", "y": "nobody asks"}, {"a": ["x"], "b": ["x"]})
    two = dataset({"a": "who", "c": "Why?"}, {"x": "On Monday.", "z": "anna DID"}, {"a": ["x"], "c": ["z"]})
    found = text_hashes(one, None, two)
    assert found["queries"] == sorted(map(text_hash, ("who", "when", "why")))
    assert found["documents"] == sorted(map(text_hash, ("anna did", "on monday")))
    assert found["document_sketches"] == sorted(set(found["document_sketches"]))
    assert len(found["document_sketches"]) == 2  # equal but for case and punctuation: one sketch
    assert text_hashes() == {"queries": [], "documents": [], "document_sketches": []}


def test_near_duplicates_are_found_by_their_sketches_and_others_are_not() -> None:
    trained = [passage(1), passage(2), "?!"]
    sketches = [base64.b64encode(sketch_of(text)).decode() for text in trained]
    texts = {"same": passage(1).upper(), "near": passage(2) + " and more", "other": passage(3), "sign": "?!"}
    assert near_duplicates_of_sketches(texts, sketches) == {"same", "near", "sign"}
    assert near_duplicates_of_sketches(texts, []) == set()


def test_what_is_no_sketch_is_left_out() -> None:
    text = passage(1)
    whole = sketch_of(text)
    text_of = base64.b64encode(whole).decode()
    broken = [
        "no base64!",
        f"{text_of[:8]}!{text_of[8:]}",
        base64.b64encode(whole[:-1]).decode(),
        base64.b64encode(whole + b"x").decode(),
    ]
    assert near_duplicates_of_sketches({"d": text}, broken) == set()
    assert near_duplicates_of_sketches({"d": text}, [*broken, base64.b64encode(whole).decode()]) == {"d"}


@pytest.mark.parametrize(("unequal", "near"), [(12, True), (13, False)])
@pytest.mark.parametrize("at", ["start", "end"])
def test_the_overlap_is_that_of_equal_bytes_less_those_equal_by_chance(unequal: int, near: bool, at: str) -> None:
    # 52 of 64: (52 / 64 - 1 / 256) / (1 - 1 / 256) = 0.812; of 51 it is 0.796, under the 0.8 that count as near.
    sketch = bytearray(sketch_of(passage(1)))
    for place in range(unequal) if at == "start" else range(64 - unequal, 64):
        sketch[place] ^= 0xFF
    assert (near_duplicates_of_sketches({"d": passage(1)}, [base64.b64encode(sketch).decode()]) == {"d"}) is near
