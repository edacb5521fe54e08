"""The whole-model engine on a tiny random BERT."""

from __future__ import annotations

import json

import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.schema import TextNode

from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
from llama_index_embft.embeddings import as_encoder, load_embed_model
from llama_index_embft.errors import ConfigError, DatasetError, ModelError, OutputError, TrainingError
from llama_index_embft.finetune import SentenceTransformersFinetuneEngine
from llama_index_embft.finetune.full import engine_arguments
from llama_index_embft.finetune.full.data.rows import training_rows

COLOURS = ["red", "green", "blue", "black", "white", "grey"]
THINGS = ["cat", "dog", "bird", "fish"]


def make_dataset(offset: int = 0) -> EmbeddingQAFinetuneDataset:
    """Passage: a code name for each pair of words; query: the words. Nothing but training can connect them."""
    corpus, queries, relevant = {}, {}, {}
    for number, (colour, thing) in enumerate((c, t) for c in COLOURS for t in THINGS):
        corpus[f"d{number}"] = f"item {number * 7 % 24} of class {colour[0]}{thing[0]}"
        for form in range(2):
            query = f"q{number}.{form}"
            queries[query] = f"where is the {colour} {thing}" if form == offset % 2 else f"find a {thing} in {colour}"
            relevant[query] = [f"d{number}"]
    keep = [q for q in queries if q.endswith(f".{offset % 2}")]
    dataset = EmbeddingQAFinetuneDataset(queries=queries, corpus=corpus, relevant_docs=relevant)
    return dataset.subset(keep)


def engine(tiny_model_path, out, **options):
    options = {
        "epochs": 6,
        "batch_size": 8,
        "learning_rate": 3e-3,
        "show_progress_bar": False,
        "device": "cpu",
    } | options
    return SentenceTransformersFinetuneEngine(make_dataset(0), tiny_model_path, str(out), **engine_arguments(**options))


def test_training_improves_validation_and_the_result_drops_into_an_index(tiny_model_path, tmp_path):
    out = tmp_path / "model"
    tuner = engine(tiny_model_path, out, val_dataset=make_dataset(1))
    result = tuner.finetune()
    assert result.improved
    assert result.best_score > result.base_score + 0.05
    assert result.history[0]["step"] == 0
    assert max(entry["ndcg@10"] for entry in result.history) == result.best_score

    model = tuner.get_finetuned_model()
    nodes = [TextNode(id_=i, text=t) for i, t in make_dataset().corpus.items()]
    index = VectorStoreIndex(nodes, embed_model=model)
    assert len(index.as_retriever(similarity_top_k=3).retrieve("where is the red cat")) == 3

    from llama_index_embft.evaluation import evaluate_embed_model

    assert evaluate_embed_model(make_dataset(1), model, cache=None).mean("ndcg@10") == pytest.approx(result.best_score)


def test_a_run_that_only_harms_gives_the_base_model_back(tiny_model_path, tmp_path, caplog):
    data = make_dataset(1)
    # Each passage asks for itself, which the base model answers without a fault.
    perfect = data.model_copy(update={"queries": {q: data.corpus[docs[0]] for q, docs in data.relevant_docs.items()}})
    tuner = engine(tiny_model_path, tmp_path / "m", val_dataset=perfect, learning_rate=5.0, epochs=1)
    result = tuner.finetune()
    assert result.base_score == 1.0
    assert result.best_step == 0
    assert result.improved is False
    assert "the saved model is the base model" in caplog.text
    base = as_encoder(load_embed_model(tiny_model_path, device="cpu"), cache=None).encode_queries(["a red cat"])
    saved = as_encoder(tuner.get_finetuned_model(), cache=None).encode_queries(["a red cat"])
    assert saved == pytest.approx(base, abs=1e-6)


def test_without_validation_the_last_weights_stay(tiny_model_path, tmp_path):
    result = engine(tiny_model_path, tmp_path / "m", epochs=2).finetune()
    assert result.base_score is None
    assert result.improved is None
    assert result.best_step == result.steps == 6


def test_prompts_are_trained_saved_and_loaded(tiny_model_path, tmp_path):
    out = tmp_path / "m"
    engine(tiny_model_path, out, epochs=1, query_prompt="query: ", document_prompt="passage: ").finetune()
    record = json.loads((out / "embft.json").read_text())
    assert record["prompts"] == {"query": "query: ", "document": "passage: "}
    backend = as_encoder(load_embed_model(out), cache=None).backend
    assert (backend.prompt("query"), backend.prompt("document")) == ("query: ", "passage: ")

    from sentence_transformers import SentenceTransformer

    plain = SentenceTransformer(str(out), device="cpu")
    same = as_encoder(plain, cache=None).encode_queries(["a red cat"])
    assert same == pytest.approx(as_encoder(load_embed_model(out), cache=None).encode_queries(["a red cat"]), abs=1e-6)


def test_same_seed_same_weights(tiny_model_path, tmp_path):
    vectors = []
    for name in ("one", "two"):
        tuner = engine(tiny_model_path, tmp_path / name, epochs=1)
        tuner.finetune()
        vectors.append(as_encoder(tuner.get_finetuned_model(), cache=None).encode_queries(["a red cat"]))
    assert (vectors[0] == vectors[1]).all()


def test_no_text_stands_twice_in_a_batch(tiny_model_path, tmp_path, monkeypatch):
    """Two questions about one passage must never be each other's negatives."""
    data = make_dataset(0)
    corpus = dict(data.corpus)
    queries = dict(data.queries) | {f"{q}b": f"{text} again" for q, text in data.queries.items()}
    relevant = {q: data.relevant_docs[q.removesuffix("b")] for q in queries}
    both = EmbeddingQAFinetuneDataset(queries=queries, corpus=corpus, relevant_docs=relevant)
    seen = []

    class Spy:
        def __init__(self, model):
            import torch

            self.inner = torch.nn.Module()

    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    class Watching(MultipleNegativesRankingLoss):
        def forward(self, features, labels):
            rows = features[1]["input_ids"].tolist()
            seen.append(len(rows) == len({tuple(row) for row in rows}))
            return super().forward(features, labels)

    tuner = SentenceTransformersFinetuneEngine(
        both,
        tiny_model_path,
        str(tmp_path / "m"),
        batch_size=12,
        epochs=2,
        loss=Watching,
        device="cpu",
        show_progress_bar=False,
    )
    tuner.finetune()
    assert len(seen) >= 8
    assert all(seen)


def test_resume_goes_on_from_the_newest_checkpoint_and_keeps_the_best(tiny_model_path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = {"save_checkpoints": True, "checkpoint_save_steps": 3, "val_dataset": make_dataset(1), "patience": 99}
    whole = engine(tiny_model_path, "whole", **options)
    expected = whole.finetune()

    class StopHereError(Exception):
        pass

    from llama_index_embft.finetune.running import callbacks
    from llama_index_embft.finetune.running.checkpoints import checkpoint_folder

    original = callbacks.BestStateCallback.on_step_end

    def stop(self, args, state, control, **kwargs):
        if state.global_step == 7:
            raise StopHereError
        return original(self, args, state, control, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(callbacks.BestStateCallback, "on_step_end", stop)
        with pytest.raises(StopHereError):
            engine(tiny_model_path, "cut", **options).finetune()
    assert (checkpoint_folder("cut") / "checkpoint-6" / "embft_best.json").is_file()
    again = engine(tiny_model_path, "cut", resume_from_checkpoint=True, **options)
    result = again.finetune()
    assert [e["step"] for e in result.history] == [e["step"] for e in expected.history]
    assert [e["ndcg@10"] for e in result.history] == pytest.approx([e["ndcg@10"] for e in expected.history])
    assert result.base_score == expected.base_score
    first = as_encoder(whole.get_finetuned_model(), cache=None).encode_queries(["a red cat"])
    second = as_encoder(again.get_finetuned_model(), cache=None).encode_queries(["a red cat"])
    assert (first == second).all()


def test_negatives_of_a_minority_are_not_used(caplog):
    data = make_dataset(0)
    ids = list(data.queries)
    some = data.model_copy(update={"negative_docs": {q: ["d5", "d6"] for q in ids[: len(ids) // 2 - 1]}})
    assert list(training_rows(some).columns) == ["anchor", "positive"]
    assert "have no negative_docs" in caplog.text


def test_a_query_without_negatives_does_not_cost_the_others_theirs(caplog):
    data = make_dataset(0)
    ids = list(data.queries)
    given = {q: ["d23", "d22"] if n < 20 else ["d21"] for n, q in enumerate(ids[:-1])}
    given = {q: [doc for doc in docs if doc not in data.relevant_docs[q]] for q, docs in given.items()}
    rows = training_rows(data.model_copy(update={"negative_docs": given}))
    assert rows.n_negatives == 2
    assert rows.filled == sum(2 - len(given.get(q, [])) for q in ids) > 2
    assert f"{rows.filled} of {2 * len(ids)} hard negatives are random documents" in caplog.text
    for number, query_id in enumerate(ids):
        texts = [rows.columns[f"negative_{n}"][number] for n in (1, 2)]
        assert len(set(texts)) == 2
        assert {data.corpus[doc] for doc in given.get(query_id, [])} <= set(texts)
        assert {data.corpus[doc] for doc in data.relevant_docs[query_id]}.isdisjoint(texts)
    again = training_rows(data.model_copy(update={"negative_docs": given}))
    assert again.columns == rows.columns


def test_a_corpus_too_small_to_fill_up_gives_fewer_negatives():
    data = EmbeddingQAFinetuneDataset(
        queries={"q": "one", "r": "two", "s": "three"},
        corpus={"a": "fox", "b": "king", "c": "tree"},
        relevant_docs={"q": ["a"], "r": ["b", "c"], "s": ["a"]},
        negative_docs={"q": ["b", "c"], "r": ["a"], "s": ["c", "b"]},
    )
    rows = training_rows(data)
    assert rows.n_negatives == 1
    assert rows.filled == 0


def test_use_all_docs(caplog):
    data = EmbeddingQAFinetuneDataset(
        queries={"q": "x"}, corpus={"a": "one", "b": "two"}, relevant_docs={"q": ["a", "b"]}
    )
    assert training_rows(data).columns["positive"] == ["one", "two"]
    assert training_rows(data, use_all_docs=False).columns["positive"] == ["one"]


def test_nan_loss_stops_with_the_step(tiny_model_path, tmp_path):
    import torch

    class Broken(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, features, labels):
            return self.model(features[0])["sentence_embedding"].sum() * float("nan")

    with pytest.raises(TrainingError, match=r"The loss is nan at step \d+"):
        engine(tiny_model_path, tmp_path / "m", loss=Broken).finetune()
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"batch_size": 0}, ConfigError, "`batch_size` is 0; it must be at least 1"),
        ({"learning_rate": float("nan")}, ConfigError, "`learning_rate` is nan"),
        ({"evaluation_steps": -1}, ConfigError, "`evaluation_steps` is -1"),
        ({"epochs": None}, ConfigError, "`epochs` is None, which is not a number"),
        ({"batch_size": 2.5}, ConfigError, "`batch_size` is 2.5; it must be a whole number"),
    ],
)
def test_bad_arguments_are_refused_at_once(tiny_model_path, tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        engine(tiny_model_path, tmp_path / "m", **options)


def test_bad_data_models_and_folders(tiny_model_path, tmp_path):
    empty = EmbeddingQAFinetuneDataset(queries={}, corpus={"a": "text"}, relevant_docs={})
    with pytest.raises(DatasetError, match="training set has no queries"):
        SentenceTransformersFinetuneEngine(empty, tiny_model_path, str(tmp_path / "m"))
    with pytest.raises(DatasetError, match="validation set has no query"):
        engine(tiny_model_path, tmp_path / "m", val_dataset=empty)
    with pytest.raises(ModelError, match="does not exist"):
        SentenceTransformersFinetuneEngine(make_dataset(), str(tmp_path / "no" / "model"), str(tmp_path / "m"))
    tuner = engine(tiny_model_path, tmp_path / "m", epochs=1)
    with pytest.raises(TrainingError, match="call finetune"):
        tuner.get_finetuned_model()
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "thesis.tex").write_text("mine")
    with pytest.raises(OutputError):
        tuner.finetune()
    assert (tmp_path / "m" / "thesis.tex").read_text() == "mine"
