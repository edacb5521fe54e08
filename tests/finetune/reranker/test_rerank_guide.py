"""The Python of the guide runs as it stands there, and a trained reranker teaches an embedding model."""

from __future__ import annotations

import re
from pathlib import Path

from llama_index.core import VectorStoreIndex
from llama_index.core.llms import MockLLM
from llama_index.core.schema import TextNode

from llama_index_embft import SentenceTransformersFinetuneEngine, load_embed_model, mine_hard_negatives
from llama_index_embft.dataset import EmbeddingQAFinetuneDataset

GUIDE = Path(__file__).resolve().parents[3] / "docs" / "how-to" / "rerank.md"
THINGS = "door gate hatch lid shutter window valve tap".split()  # noqa: SIM905


def make_data(places: str) -> EmbeddingQAFinetuneDataset:
    corpus = {
        f"{thing} {place} {state}": f"the {thing} of the {place} is {state} at night"
        for thing in THINGS
        for place in places.split()
        for state in ("open", "shut")
    }
    return EmbeddingQAFinetuneDataset(
        queries={doc: f"is the {' of the '.join(doc.split()[:2])} closed" for doc in corpus if doc.endswith("shut")},
        corpus=corpus,
        relevant_docs={doc: [doc] for doc in corpus if doc.endswith("shut")},
    )


def test_the_guide_runs_and_its_result_teaches(tiny_model_path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    untrained, trained = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    data = make_data("barn mill")
    embed_model = load_embed_model(tiny_model_path, device="cpu")
    nodes = [TextNode(text=text, id_=doc) for doc, text in data.corpus.items()]
    names = {
        "train": data,
        "val": make_data("ship"),
        "embed_model": embed_model,
        "index": VectorStoreIndex(nodes, embed_model=embed_model),
        "llm": MockLLM(),
    }
    for block in (untrained, trained.replace("cross-encoder/ms-marco-MiniLM-L6-v2", tiny_model_path)):
        exec(compile(block, GUIDE.name, "exec"), names)
        assert len(names["query_engine"].query("is the door of the barn closed").source_nodes) == 5

    mined = mine_hard_negatives(data, embed_model, ["rank:1-5", "cross-encoder:runs/reranker"], 1)
    asked = next(query for query in mined.queries if mined.negative_docs.get(query))
    assert {*mined.relevant_docs[asked], *mined.negative_docs[asked]} <= set(mined.teacher_scores[asked])
    result = SentenceTransformersFinetuneEngine(
        mined, tiny_model_path, "runs/model", epochs=1, device="cpu", show_progress_bar=False
    ).finetune()
    assert result.steps > 0
