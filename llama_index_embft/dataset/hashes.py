"""What a model's record keeps of questions and documents, so that an evaluation sees what the model has seen.

Texts are not given away: they are kept as hashes, which find equal ones, and documents as sketches too, which find
near-duplicates. A sketch is 64 bytes, one of each of 64 MinHash values (b-bit minwise hashing, Li and König 2010): the
share of equal bytes estimates the overlap that `near_duplicate_groups` measures, to 0.05 at its threshold. Questions
have none: those that differ in one name are near-duplicates and ask for different things.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Final

from llama_index_embft.dataset.near_duplicates import minhash_signatures, normalise

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset

_BYTES: Final = 64
_BAND: Final = 4  # bytes that must be equal in a row; of overlaps of 0.8, 2 in 10,000 have no such row
_NEAR: Final = 0.8


def text_hash(text: str) -> str:
    """The first 16 hex digits of the SHA-256 of a text without differences of case, space and punctuation."""
    return hashlib.sha256((normalise(text) or text).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def text_hashes(*datasets: EmbeddingQAFinetuneDataset | None) -> dict[str, list[str]]:
    """Hashes of the questions of data sets, and hashes and sketches of the documents that answer them.

    Args:
        datasets: None is skipped.

    Returns:
        ``queries``, ``documents`` and ``document_sketches``, sorted and without repeats.
    """
    given = [dataset for dataset in datasets if dataset is not None]
    documents = {dataset.corpus[doc] for dataset in given for docs in dataset.relevant_docs.values() for doc in docs}
    return {
        "queries": _sorted(query for dataset in given for query in dataset.queries.values()),
        "documents": _sorted(documents),
        "document_sketches": sorted({base64.b64encode(sketch).decode("ascii") for sketch in _sketches(documents)}),
    }


def near_duplicates_of_sketches(texts: Mapping[str, str], sketches: Iterable[str]) -> set[str]:
    """Ids of the texts that are near-duplicates of sketched ones, by estimate.

    Args:
        texts: Id -> text.
        sketches: ``document_sketches`` of `text_hashes`; what is none is left out.
    """
    known: dict[tuple[int, bytes], list[bytes]] = {}
    for text in sketches:
        try:
            sketch = base64.b64decode(text, validate=True)
        except ValueError:
            continue
        for band in _bands(sketch) if len(sketch) == _BYTES else ():
            known.setdefault(band, []).append(sketch)
    if not known:
        return set()
    return {
        name
        for name, sketch in zip(texts, _sketches(texts.values()), strict=True)
        if any(_overlap(sketch, other) >= _NEAR for band in _bands(sketch) for other in known.get(band, ()))
    }


def _sketches(texts: Iterable[str]) -> Iterable[bytes]:
    for _, signature in minhash_signatures(normalise(text) or text for text in texts):
        yield bytes((signature[:_BYTES] & 0xFF).tolist())


def _bands(sketch: bytes) -> list[tuple[int, bytes]]:
    return [(start, sketch[start : start + _BAND]) for start in range(0, _BYTES, _BAND)]


def _overlap(one: bytes, other: bytes) -> float:
    equal = sum(a == b for a, b in zip(one, other, strict=True)) / _BYTES
    return (equal - 1 / 256) / (1 - 1 / 256)  # of unequal values one byte in 256 is equal


def _sorted(texts: Iterable[str]) -> list[str]:
    return sorted({text_hash(text) for text in texts})
