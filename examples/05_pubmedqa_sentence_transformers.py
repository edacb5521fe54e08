# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The PubMedQA article: Hugging Face data in, `SentenceTransformerTrainer`, reload and query
#
# The article takes 10,000 instructions and contexts of PubMedQA, gives each context the least similar other context
# as a negative, splits 80/10/10, and trains all-distilroberta-v1 with `MultipleNegativesRankingLoss`: 1 epoch,
# batches of
# 16, learning rate 2e-5, 10 % warm-up, no duplicates in a batch. It states no figure at all, before or after.
#
# Real data: set `EMBFT_EXAMPLE_DATA` to a folder with `pubmedqa_labeled.json`, a data set in our format; without it,
# the functions of Python's standard library.

# %% tags=["set-up"]
# ruff: noqa: B018, E402 (a cell imports what it uses)
import shutil

from stand_in import set_up, side_by_side

run = set_up("05", models=("sentence-transformers/all-distilroberta-v1", "sentence-transformers/all-mpnet-base-v2"))
shutil.rmtree("models", ignore_errors=True)
print(run.say("sentences and sources of Python's standard library"))

# %% [markdown]
# ## A Hugging Face data set in
#
# The article: `load_dataset("vblagoje/PubMedQA_instruction")["train"]`, its columns instruction and context.
# `read_dataset` reads them: they are an (anchor, positive) pair.

# %%
from datasets import Dataset

from llama_index_embft.dataset import build_stdlib_dataset

if run.data_dir:
    from llama_index_embft import EmbeddingQAFinetuneDataset

    source = EmbeddingQAFinetuneDataset.from_json(run.data_dir / "pubmedqa_labeled.json")
    source = source.subset(list(source.queries)[:10_000], keep_corpus=False)
else:
    source = build_stdlib_dataset(max_chars=400, show_progress=False)
    source = source.subset(list(source.queries)[::40][:100], keep_corpus=False)
ds = Dataset.from_dict(
    {
        "instruction": list(source.queries.values()),
        "context": [source.corpus[source.relevant_docs[query][0]] for query in source.queries],
    }
)
ds

# %% [markdown]
# ## Least-similar, unique negatives
#
# The article fills a matrix of all pairs and looks through a list for each row. The same choice by
# `mine_hard_negatives`, in blocks; each context is used once. (It is an easy negative: the least similar context
# teaches little. See docs/how-to/mine.md for hard ones.)

# %%
from llama_index_embft import load_embed_model, mine_hard_negatives
from llama_index_embft.dataset import read_dataset

pairs = read_dataset(ds, "pairs", columns={"anchor": "instruction", "positive": "context"})
miner = load_embed_model("sentence-transformers/all-mpnet-base-v2")
mined = mine_hard_negatives(pairs, miner, ["least-similar"], num_negatives=1)
used = [docs[0] for docs in mined.negative_docs.values()]
assert len(set(used)) == len(used)
print(f"{len(used)} negatives, all different")

# %% [markdown]
# ## 80/10/10, a `DatasetDict` out
#
# The article shuffles rows. `split_dataset` splits by document, so that near-duplicates do not fall on both sides.

# %%
from datasets import DatasetDict

from llama_index_embft import split_dataset

train, validation, test = split_dataset(mined, fractions=(0.8, 0.1, 0.1), seed=42, show_progress=False)


def columns(part):
    return Dataset.from_list(
        [
            {
                "instruction": part.queries[query],
                "context": part.corpus[part.relevant_docs[query][0]],
                "context_neg": mined.corpus[mined.negative_docs[query][0]],
            }
            for query in part.queries
        ]
    )


dataset = DatasetDict({"train": columns(train), "validation": columns(validation), "test": columns(test)})
dataset.save_to_disk(
    "pubmed-finetuning"
)  # or dataset.push_to_hub("you/name"), or push_dataset_to_hub(mined, "you/name")
dataset

# %% [markdown]
# ## TripletEvaluator and the base model

# %%
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.evaluation import TripletEvaluator

model = SentenceTransformer("sentence-transformers/all-distilroberta-v1", device="cpu")


def triplets(part, name):
    return TripletEvaluator(
        anchors=part["instruction"], positives=part["context"], negatives=part["context_neg"], name=name
    )


evaluator_valid = triplets(dataset["validation"], "validation")
before = evaluator_valid(model)["validation_cosine_accuracy"]
before_test = triplets(dataset["test"], "test")(model)["test_cosine_accuracy"]
before

# %% [markdown]
# ## Train
#
# The article's settings, by sentence-transformers' own trainer. `SentenceTransformersFinetuneEngine` with
# batch_size=16, epochs=1, learning_rate=2e-5, batch_sampler="no_duplicates" and val_dataset=validation does the same
# and keeps the best weights.

# %%
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

train_args = SentenceTransformerTrainingArguments(
    output_dir="models/pubmed-embeddings",
    num_train_epochs=1,
    per_device_train_batch_size=16,
    per_device_eval_batch_size=16,
    learning_rate=2e-5,
    warmup_steps=0.1,  # the article's warmup_ratio; today's transformers reads a share below 1 here
    batch_sampler="no_duplicates",
    eval_strategy="steps",
    eval_steps=100,
    logging_steps=100,
    report_to="none",
    use_cpu=True,
    disable_tqdm=True,
)
trainer = SentenceTransformerTrainer(
    model=model,
    args=train_args,
    train_dataset=dataset["train"],
    eval_dataset=dataset["validation"],
    loss=MultipleNegativesRankingLoss(model),
    evaluator=evaluator_valid,
)
trainer.train()
model.save_pretrained("models/pubmed-embeddings/final")

# %% [markdown]
# ## Reload and query

# %%
model = SentenceTransformer("models/pubmed-embeddings/final", device="cpu")
query = dataset["test"]["instruction"][0]
similarities = model.similarity(model.encode(query), model.encode(dataset["test"]["context"]))
print(query, "->", dataset["test"]["context"][int(similarities.argmax())][:120])

# %% [markdown]
# ## The figures
#
# The article has none to stand beside. Triplet accuracy against the least similar context is near 1 for any model;
# what retrieval gains is measured over the whole corpus, with an interval.

# %% tags=["ours"]
after = triplets(dataset["validation"], "validation")(model)["validation_cosine_accuracy"]
after_test = triplets(dataset["test"], "test")(model)["test_cosine_accuracy"]
print(
    side_by_side(
        [
            ("triplet accuracy, validation, base", "not stated", before),
            ("triplet accuracy, validation, tuned", "not stated", after),
            ("triplet accuracy, test, base", "not stated", before_test),
            ("triplet accuracy, test, tuned", "not stated", after_test),
        ]
    )
)

# %% tags=["ours"]
from llama_index_embft import compare, evaluate_embed_model

held_out = mined.subset(list(test.queries), keep_corpus=True)
comparison = compare(
    evaluate_embed_model(held_out, load_embed_model("sentence-transformers/all-distilroberta-v1"), label="base"),
    evaluate_embed_model(held_out, load_embed_model("models/pubmed-embeddings/final"), label="tuned"),
)
print(comparison.to_markdown(metrics=("hit_rate@1", "mrr@10", "ndcg@10")))
