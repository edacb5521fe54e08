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
    for number in range(24):
        topic = TOPICS[number % 10]
        paragraphs = []
        for part in range(6):
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


def test_run_from_files_to_an_index(tmp_path, tiny_model_path, monkeypatch):
    (tmp_path / "docs").mkdir()
    write_documents(tmp_path / "docs")
    options = ["--method", "full", "--out", "out", "--chunk-size", 128, "--keep-headers"]
    said = embft("run", "docs", "--embed-model", tiny_model_path, *options, cwd=tmp_path)
    out = tmp_path / "out"
    report = json.loads((out / "report.json").read_text())
    row = report["metrics"]["ndcg@10"]
    assert {"base", "tuned", "difference", "ci95", "p", "n"} <= set(row)
    assert row["ci95"][0] <= row["difference"] <= row["ci95"][1]
    assert report["decision"] == "not proven"
    assert (out / "report.html").read_text().count("<svg") >= 1
    assert "http://" not in (out / "report.html").read_text().replace("http://www.w3.org", "")
    assert "No questions by people were given" in " ".join(said.split())
    assert sorted(f.name for f in (out / "dataset").iterdir()) == ["choose.json", "prove.json", "train.json"]

    from llama_index.core import VectorStoreIndex

    from llama_index_embft import EmbeddingQAFinetuneDataset, load_embed_model, load_retriever
    from llama_index_embft.dataset import documents_to_nodes, load_documents
    from llama_index_embft.embeddings import model_tokens

    parts = {
        n: EmbeddingQAFinetuneDataset.from_json(out / "dataset" / f"{n}.json") for n in ("train", "choose", "prove")
    }
    documents = {
        name: {part.document_of(d) for ids in part.relevant_docs.values() for d in ids} for name, part in parts.items()
    }
    assert not documents["train"] & documents["choose"]
    assert not documents["train"] & documents["prove"]
    assert not documents["choose"] & documents["prove"]

    tokens = model_tokens(load_embed_model(tiny_model_path))
    nodes = documents_to_nodes(load_documents(tmp_path / "docs"), chunk_size=128, tokens=tokens)
    index = VectorStoreIndex(nodes, embed_model=load_embed_model(out / "model"))
    hits = load_retriever(out / "retriever", index).retrieve("When was the violin finished?")
    assert len(hits) == 10
    assert {node.node_id for node in nodes} == set(parts["train"].corpus)

    # The lines that are printed at the end run as they stand.
    lines = said.partition("\nUse it\n")[2].partition("\n\n")[0].splitlines()
    monkeypatch.chdir(tmp_path)
    names = {}
    exec("\n".join(line.strip() for line in lines), names)
    assert [hit.node.node_id for hit in names["retriever"].retrieve("When was the violin finished?")] == [
        hit.node.node_id for hit in hits
    ]

    again = embft("compare", "out/reports/base.json", "out/reports/chosen.json", cwd=tmp_path)
    assert "ndcg@10" in again


def test_run_with_questions_of_people_prints_one_result_as_json(tmp_path, tiny_long_model_path):
    (tmp_path / "docs").mkdir()
    write_documents(tmp_path / "docs")
    texts = {file: file.read_text(encoding="utf-8") for file in sorted((tmp_path / "docs").glob("*.txt"))}
    asked = [
        {"question": "Which year? " + " ".join(part.split()[:7]), "context": part}
        for text in texts.values()
        for part in text.split("\n\n")
    ]
    (tmp_path / "asked.jsonl").write_text("\n".join(map(json.dumps, asked)), encoding="utf-8")
    options = ["--method", "none", "--out", "out", "--questions", "asked.jsonl", "--json"]
    result = json.loads(embft("run", "docs", "--embed-model", tiny_long_model_path, *options, cwd=tmp_path))
    assert result["questions"]["proven_on_by"] == "people"
    assert result["questions"]["proven_on"] == len(asked)
    assert result["decision"] == "adopt"  # random weights find little, and the questions share words with the texts
    assert {row["name"] for row in result["candidates"]} >= {"base", "BM25"}
    assert 0 < result["stack"]["dense_weight"] <= 1
    assert {**json.loads((tmp_path / "out" / "tune.json").read_text()), "output_path": "out"} == result
