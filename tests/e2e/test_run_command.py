"""The whole street by the command line, on files of several kinds, to a model that an index uses."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys

import pytest

pytestmark = pytest.mark.e2e

TOPICS = [
    "bridge",
    "violin",
    "glacier",
    "printer",
    "orchard",
    "volcano",
    "lighthouse",
    "tractor",
    "satellite",
    "bakery",
]
PLACES = ["Norway", "Chile", "Kenya", "Japan", "Malta", "Peru", "Estonia", "Canada", "Nepal", "Portugal"]


def write_documents(folder, seed=0):
    """Files about things with names, years and reasons, which the extractive questions can ask about."""
    chance = random.Random(seed)
    for number in range(12):
        topic = TOPICS[number % 10]
        paragraphs = []
        for part in range(12):
            place, year = chance.choice(PLACES), chance.randint(1850, 2020)
            paragraphs.append(
                f"The {topic} of {place} {part} is a famous {chance.choice(TOPICS)} near the {chance.choice(TOPICS)}. "
                f"It was finished in {year} because the people of {place} needed a {topic} with "
                f"{chance.randint(3, 99)} rooms. Its annual cost is {chance.randint(10, 900)} million dollars."
            )
        if number % 3 == 0:
            body = "".join(f"<p>{p}</p>" for p in paragraphs)
            (folder / f"doc{number}.html").write_text(f"<html><h1>{topic}</h1>{body}</html>", encoding="utf-8")
        elif number % 3 == 1:
            (folder / f"doc{number}.md").write_text(f"# {topic}\n\n" + "\n\n".join(paragraphs), encoding="utf-8")
        else:
            (folder / f"doc{number}.txt").write_text("\n\n".join(paragraphs), encoding="utf-8")


def embft(*arguments, cwd):
    result = subprocess.run(
        [sys.executable, "-m", "llama_index_embft.cli.app", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "160"},
        timeout=600,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.mark.parametrize(("method", "folds"), [("adapter", 5), ("full", 1)])
def test_run_from_files_to_an_index(tmp_path, tiny_model_path, method, folds):
    (tmp_path / "docs").mkdir()
    write_documents(tmp_path / "docs")
    options = ["--method", method, "--out", "out", "--chunk-size", 128, *(["--no-cross-fit"] if folds == 1 else [])]
    said = embft("run", "docs", "--model", tiny_model_path, *options, cwd=tmp_path)
    out = tmp_path / "out"
    report = json.loads((out / "report.json").read_text())
    row = report["metrics"]["ndcg@10"]
    assert {"base", "tuned", "difference", "interval", "p", "n"} <= set(row)
    assert row["interval"][0] <= row["difference"] <= row["interval"][1]
    assert (out / "report.html").read_text().count("<svg") >= 1
    assert "http://" not in (out / "report.html").read_text().replace("http://www.w3.org", "")
    assert "taken from your text, not asked by people" in said
    assert report["tuned"]["folds"] == folds
    tested = ["all.json", "folds.json"] if folds > 1 else ["test.json"]
    assert sorted(f.name for f in (out / "dataset").iterdir()) == sorted([*tested, "train.json", "val.json"])
    assert ("cross-fitting over 5 folds tests" in said) == (folds > 1)
    assert ("5 models for the verdict and then one on all documents" in said) == (folds > 1)
    assert ("was itself not tested" in said) == (folds > 1)

    from llama_index.core import VectorStoreIndex

    from llama_index_embft import EmbeddingQAFinetuneDataset, load_embed_model
    from llama_index_embft.dataset import documents_to_nodes, load_documents

    names = ("train", "val", "all" if folds > 1 else "test")
    parts = {n: EmbeddingQAFinetuneDataset.from_json(out / "dataset" / f"{n}.json") for n in names}
    documents = {
        name: {part.document_of(d) for ids in part.relevant_docs.values() for d in ids} for name, part in parts.items()
    }
    assert not documents["train"] & documents["val"]
    if folds > 1:
        assert documents["train"] | documents["val"] == documents["all"]
    else:
        assert not documents["train"] & documents["test"]
        assert len(parts["test"].corpus) == len(parts["train"].corpus)

    nodes = documents_to_nodes(load_documents(tmp_path / "docs"), chunk_size=128, chunk_overlap=32)
    index = VectorStoreIndex(nodes, embed_model=load_embed_model(out / "model"))
    hits = index.as_retriever(similarity_top_k=3).retrieve("When was the violin finished?")
    assert len(hits) == 3
    assert {node.node_id for node in nodes} == set(parts["train"].corpus)

    again = embft("compare", "out/reports/base.json", "out/reports/tuned.json", cwd=tmp_path)
    assert "ndcg@10" in again
