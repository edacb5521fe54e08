"""Property: what a format can hold, it gives back; what it cannot, it counts."""

from __future__ import annotations

import csv
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from format_helpers import datasets, left_in, plain_ids
from hypothesis import HealthCheck, assume, given, settings

from llama_index_embft.dataset import EmbeddingQAFinetuneDataset, guess_format, read_dataset, write_dataset
from llama_index_embft.dataset.formats.registry import FORMATS
from llama_index_embft.errors import DatasetError

FILES = {
    **dict.fromkeys(("rag", "llama-index", "squad", "labelled-rag"), "d.json"),
    **dict.fromkeys(("beir", "mteb", "air-bench", "trec"), "d"),
}
# Each way of keeping rows with two formats, and each format with two ways.
ENDINGS = {
    **dict.fromkeys(("table", "pairs"), ("jsonl", "json", "csv", "tsv", "parquet")),
    **dict.fromkeys(("flag-embedding", "ntuples"), ("jsonl", "parquet")),
    **dict.fromkeys(("triplets", "ragas"), ("json", "csv")),
    **dict.fromkeys(("scored", "infgrad"), ("csv", "parquet")),
}
CASES: list[tuple[str, str, dict[str, Any]]] = [
    *((name, file, {}) for name, file in FILES.items()),
    *((name, f"d.{ending}", {}) for name, endings in ENDINGS.items() for ending in endings),
    ("mteb", "parquet", {"container": "parquet"}),
]
NEEDS_NEGATIVES = ("triplets", "ntuples", "infgrad")


def round_trip(dataset: Any, name: str, file: str, options: dict[str, Any]) -> None:
    folder = Path(tempfile.mkdtemp(prefix="embft-"))
    try:
        written = write_dataset(dataset, folder / file, name, **options)
        back = read_dataset(folder / file, name)
        expected = left_in(dataset, name)
        assert back == expected
        assert back.qrels() == expected.qrels()
        if not written.lost:
            assert back == dataset
        again = read_dataset(folder / file)  # the guess may be another name for the same thing
        assert again.queries == back.queries
        assert again.relevant_docs == back.relevant_docs
        assert not back.dropped
        assert guess_format(folder / file) in FORMATS
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize(("name", "file", "options"), CASES, ids=lambda value: str(value))
def test_what_is_written_is_read_back(name: str, file: str, options: dict[str, Any]) -> None:
    source = datasets(plain_ids) if name == "trec" else datasets()

    @settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(source)
    def holds(dataset: Any) -> None:
        assume(name not in NEEDS_NEGATIVES or _has_negatives(dataset, name))
        round_trip(dataset, name, file, options)

    holds()


def _has_negatives(dataset: Any, name: str) -> bool:
    """Whether anything of it can be written in a format of negatives."""
    try:
        return bool(left_in(dataset, name).queries)
    except ValueError:  # no query is left
        return False


def test_a_text_that_this_pythons_csv_cannot_hold_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refuses:
        """As Python 3.10 does with U+0000."""

        def writerow(self, cells: list[Any]) -> None:
            raise csv.Error("need to escape, but no escapechar set")

    monkeypatch.setattr(csv, "writer", lambda *_, **__: Refuses())
    data = EmbeddingQAFinetuneDataset(queries={"q": "who?"}, corpus={"d": "a\x00b"}, relevant_docs={"q": ["d"]})
    with pytest.raises(DatasetError, match=r"^A text cannot be written as CSV \(need to escape.*write \.jsonl\.$"):
        write_dataset(data, tmp_path / "pairs.csv", "pairs")
    assert not (tmp_path / "pairs.csv").exists()
