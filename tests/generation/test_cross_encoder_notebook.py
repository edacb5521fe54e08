"""A notebook with the steps of llama-index-finetuning's own one for cross-encoders runs after ``embft migrate``.

Made anew from the functions that it calls, with papers of our own: questions, labels by an LLM, CSV files, training,
the hub (left out here), and an evaluation of `SentenceTransformerRerank` with and without training.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nbformat
from conftest_generation import KEY
from loopback_llm import LoopbackLLM

from llama_index_embft.migration import migrate_file

CELLS = [
    "%pip install llama-index-finetuning-cross-encoders\n%pip install llama-index-llms-openai",
    "!pip install llama-index datasets sentence-transformers openai --quiet",
    """\
import random

random.seed(42)
towns = ["Arl", "Bex", "Cor", "Dun"]
sights = ["harbour", "orchard", "turbine", "theatre", "library", "glacier"]


def paper_on(town):
    return "\\n".join(
        f"The {sight} of {town} is the work of a mayor, and it has {n + 3} gates." for n, sight in enumerate(sights)
    )


doc_qa_dict_list = [
    {"paper": paper_on(town), "questions": [f"Who made the {sight} of {town}?" for sight in sights[:4]] + [""]}
    for town in towns
]
len(doc_qa_dict_list)""",
    """\
import os
from llama_index.core import SimpleDirectoryReader
from llama_index.core.node_parser import TokenTextSplitter
import openai
from llama_index.finetuning.cross_encoders.dataset_gen import (
    generate_ce_fine_tuning_dataset,
    generate_synthetic_queries_over_documents,
)

from llama_index.finetuning.cross_encoders import CrossEncoderFinetuneEngine""",
    """\
from llama_index.core import Document

chunks = TokenTextSplitter(chunk_size=20, chunk_overlap=0).split_text(doc_qa_dict_list[0]["paper"])
assert len(chunks) > 2
made_up = generate_synthetic_queries_over_documents(
    documents=[Document(text=paper["paper"]) for paper in doc_qa_dict_list], num_questions_per_chunk=2
)
assert len(made_up) == 2 * len(doc_qa_dict_list)""",
    """\
final_finetuning_data_list = []
for paper in doc_qa_dict_list[:3]:
    local_finetuning_dataset = generate_ce_fine_tuning_dataset(
        documents=[Document(text=paper["paper"])],
        questions_list=paper["questions"],
        max_chunk_length=20,
        top_k=5,
    )
    final_finetuning_data_list.extend(local_finetuning_dataset)
len(final_finetuning_data_list)""",
    """\
import pandas as pd

df_finetuning_dataset = pd.DataFrame(final_finetuning_data_list)
df_finetuning_dataset.to_csv("fine_tuning.csv")
assert df_finetuning_dataset.columns.tolist() == ["query", "context", "score"]
finetuning_dataset = final_finetuning_data_list
finetuning_dataset[0]""",
    """\
final_eval_data_list = []
for row in doc_qa_dict_list[3:]:
    local_eval_dataset = generate_ce_fine_tuning_dataset(
        documents=[Document(text=row["paper"])], questions_list=row["questions"], max_chunk_length=20, top_k=5
    )
    relevant = [item for item in local_eval_dataset if item.score == 1]
    final_eval_data_list.append(
        {
            "paper": row["paper"],
            "questions": [item.query for item in relevant],
            "context": [item.context for item in relevant],
        }
    )
pd.DataFrame(final_eval_data_list).to_csv("reranking_test.csv")""",
    "from huggingface_hub import notebook_login\n\nnotebook_login()",
    """\
# Initialise the cross-encoder fine-tuning engine
finetuning_engine = CrossEncoderFinetuneEngine(
    dataset=finetuning_dataset, model_id=BASE, epochs=2, batch_size=8
)

# Finetune the cross-encoder model
finetuning_engine.finetune()""",
    'finetuning_engine.push_to_hub(repo_id="someone/a-reranker")',
    "import nest_asyncio\n\nnest_asyncio.apply()",
    """\
import ast

df_reranking = pd.read_csv("reranking_test.csv", index_col=0)
df_reranking["questions"] = df_reranking["questions"].apply(ast.literal_eval)
df_reranking["context"] = df_reranking["context"].apply(ast.literal_eval)""",
    """\
from llama_index.core.postprocessor import SentenceTransformerRerank
from llama_index.core import Settings, VectorStoreIndex

Settings.chunk_size = 20
Settings.chunk_overlap = 0
rerank_base = SentenceTransformerRerank(model=BASE, top_n=3)
rerank_finetuned = finetuning_engine.get_finetuned_model("exp_finetune", top_n=3)

hits = {"without": 0, "base": 0, "finetuned": 0}
total_number_of_context = 0
for _, row in df_reranking.iterrows():
    vector_index = VectorStoreIndex.from_documents([Document(text=row["paper"])])
    engines = {
        "without": vector_index.as_query_engine(similarity_top_k=3, response_mode="no_text"),
        "base": vector_index.as_query_engine(
            similarity_top_k=8, response_mode="no_text", node_postprocessors=[rerank_base]
        ),
        "finetuned": vector_index.as_query_engine(
            similarity_top_k=8, response_mode="no_text", node_postprocessors=[rerank_finetuned]
        ),
    }
    for query, context in zip(row["questions"], row["context"]):
        total_number_of_context += 1
        for name, engine in engines.items():
            nodes = engine.query(query).source_nodes
            assert len(nodes) == 3
            hits[name] += sum(context in node.node.text or node.node.text in context for node in nodes)
print(pd.DataFrame({"Metric": ["Hits"], **hits, "Total Relevant Context": total_number_of_context}).to_string())""",
]
# What a notebook does that needs the network, or somebody at the keyboard.
LEFT_OUT = ("%pip", "!pip", "notebook_login", "push_to_hub")
SET_UP = """\
from llama_index.core import Settings
from llama_index.embeddings.openai import OpenAIEmbedding
from llama_index.llms.openai_like import OpenAILike

Settings.llm = OpenAILike(api_base={api_base!r}, api_key={key!r}, model="a-model", is_chat_model=True)
Settings.embed_model = OpenAIEmbedding(api_base={api_base!r}, api_key={key!r})
BASE = {base!r}
"""
# As in Jupyter, cells run while an event loop does.
RUNNER = """\
import asyncio, json, sys

async def main():
    names = {"__name__": "__main__"}
    for number, cell in enumerate(json.load(open(sys.argv[1]))):
        exec(compile(cell, f"cell {number}", "exec"), names)

asyncio.run(main())
"""


def tiny_cross_encoder(encoder: str, folder: Path) -> str:
    """The tiny encoder with a head on it; LlamaIndex lets a reranker read 512 tokens, whatever it was saved with."""
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    config = AutoConfig.from_pretrained(encoder, max_position_embeddings=512, num_labels=1)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(str(folder))
    AutoTokenizer.from_pretrained(encoder).save_pretrained(str(folder))
    return str(folder)


def test_the_notebook_runs_after_migration(
    serve: Callable[..., LoopbackLLM], tiny_model_path: str, tmp_path: Path
) -> None:
    file = tmp_path / "cross_encoder_finetuning.ipynb"
    cells = [nbformat.v4.new_code_cell(code) for code in CELLS]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), str(file))
    migration = migrate_file(file)
    migration.write()
    said = " | ".join(map(str, migration.notes))
    assert "llm=None is Settings.llm" in said
    codes = [cell.source for cell in nbformat.read(str(file), as_version=4).cells]
    changed = [number for number, (old, new) in enumerate(zip(CELLS, codes, strict=True)) if old != new]
    assert changed == [0, 3]  # the pip line and the imports
    assert "finetuning" not in "".join(code for code in codes if code.startswith("%pip"))

    server = serve()
    base = tiny_cross_encoder(tiny_model_path, tmp_path / "base")
    kept = [code for code in codes if not any(mark in code for mark in LEFT_OUT)]
    assert len(kept) == len(codes) - 4
    program = [SET_UP.format(api_base=server.api_base, key=KEY, base=base), *kept]
    (tmp_path / "cells.json").write_text(json.dumps(program), encoding="utf-8")
    (tmp_path / "runner.py").write_text(RUNNER, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "runner.py", "cells.json"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Total Relevant Context" in done.stdout
    assert (tmp_path / "exp_finetune" / "config.json").is_file()
    asked = [request for request in server.requests if "embeddings" not in request.path]
    assert sum("Reply with Yes or No alone" in request.prompt for request in asked) == 4 * 4 * 5
