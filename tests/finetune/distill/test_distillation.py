"""A student learns to give its teacher's vectors, from texts alone, and answers queries on the teacher's index."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from llama_index.core import VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.schema import TextNode
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer

from llama_index_embft._core.vectors import unit_rows
from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
from llama_index_embft.embeddings import DistilledEmbedding, EmbeddingCache, ModelIdentity, identify, load_embed_model
from llama_index_embft.embeddings.identity import known_identity
from llama_index_embft.errors import ConfigError, DatasetError, ModelError, TrainingError
from llama_index_embft.finetune import DistillationEngine, DistillationSettings, HardwareSettings, TextSettings
from llama_index_embft.finetune.distill.student import first_layers
from llama_index_embft.finetune.distill.targets import ask_teacher
from llama_index_embft.index import check_index, stamp_index

PLACES = ("oslo", "lima", "cairo", "osaka", "quito", "perth", "turin", "delhi")
THINGS = ("bread", "a ticket", "rain", "paintings", "a tax", "football")
TEXTS = [f"the report of {place} is about {thing} and more" for place in PLACES for thing in THINGS]
QUERIES = [f"what of {thing} in {place}" for place in PLACES for thing in THINGS[:3]]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def teacher_path(tiny_model_path: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Three layers of width 48, with other prompts for queries than for documents."""
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import AutoTokenizer, BertConfig, BertModel

    folder = tmp_path_factory.mktemp("teacher")
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_path)
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=48, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=128, initializer_range=0.3,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder / "raw")
    tokenizer.save_pretrained(folder / "raw")
    word = Transformer(str(folder / "raw"), max_seq_length=64)
    model = SentenceTransformer(
        modules=[word, Pooling(48)], device="cpu", prompts={"query": "ask: ", "document": "text: "}
    )
    model.save_pretrained(str(folder / "model"), create_model_card=False)
    return str(folder / "model")


@pytest.fixture
def teacher(teacher_path: str) -> BaseEmbedding:
    return load_embed_model(teacher_path, device="cpu")


def engine(teacher: Any, student: Any, out: str = "out", **options: Any) -> DistillationEngine:
    more = {name: options.pop(name) for name in ("query_vectors", "teacher_identity", "cache") if name in options}
    texts, queries = options.pop("texts", TEXTS), options.pop("queries", QUERIES)
    given = {"batch_size": 8, "epochs": 4, "learning_rate": 3e-3, "device": "cpu"}
    settings = DistillationSettings(**{**given, **options})
    return DistillationEngine(
        texts, teacher, student, out, queries=queries, settings=settings, show_progress=False, **more
    )


def test_a_narrower_student_learns_the_vectors_and_loads_with_sentence_transformers_alone(teacher, tiny_model_path):
    result = engine(teacher, tiny_model_path).finetune()
    assert (result.method, result.metric) == ("distill", "cosine")
    assert result.best_score > result.base_score
    assert (result.texts, result.queries, result.held_out, result.dropped) == (48, 24, 2, 0)
    assert set(result.seconds) == {"prepare", "teacher", "train", "evaluate", "save"}
    assert "agreement@10 with the teacher" in str(result)
    plain = SentenceTransformer("out", device="cpu")
    assert [type(module).__name__ for module in plain] == ["Transformer", "Pooling", "Dense", "Normalize"]
    found = plain.encode_query(QUERIES)
    assert found.shape == (24, 48)
    served = load_embed_model("out", device="cpu")
    np.testing.assert_allclose(served.get_query_embedding(QUERIES[0]), found[0], atol=1e-5)


def test_cosine_and_agreement_are_those_of_the_held_out_queries(teacher, tiny_model_path):
    """Both figures, computed again by other means from what was saved."""
    made = engine(teacher, tiny_model_path, val_share=0.5)
    result = made.finetune()
    rows = np.sort(np.random.default_rng(0).permutation(24)[:12])
    asked = [QUERIES[row] for row in rows]
    student = unit_rows(SentenceTransformer("out", device="cpu").encode_query(asked))
    wanted = unit_rows(np.array([teacher.get_query_embedding(text) for text in asked], dtype=np.float32))
    documents = unit_rows(np.array(teacher.get_text_embedding_batch(TEXTS), dtype=np.float32))
    assert result.best_score == pytest.approx(float((student * wanted).sum(axis=1).mean()), abs=1e-4)
    best = [
        set(np.argsort(-vectors @ documents.T, axis=1)[row, :10]) for vectors in (wanted, student) for row in range(12)
    ]
    kept = np.mean([len(a & b) / 10 for a, b in zip(best[:12], best[12:], strict=True)])
    assert result.agreement == pytest.approx(kept)
    assert made.get_finetuned_model().get_query_embedding(asked[0]) == pytest.approx(student[0].tolist(), abs=1e-5)


def test_the_first_layers_of_the_teacher_are_a_student(teacher):
    result = engine(teacher, None, student_layers=2).finetune()
    assert result.best_score >= result.base_score
    saved = SentenceTransformer("out", device="cpu")
    assert len(saved[0].auto_model.encoder.layer) == 2
    assert [type(module).__name__ for module in saved] == ["Transformer", "Pooling", "Dense", "Normalize"]
    assert saved.prompts == {"query": "ask: ", "document": "text: "}
    assert len(teacher._model[0].auto_model.encoder.layer) == 3  # the teacher is left as it was
    assert teacher._model[0].auto_model.config.num_hidden_layers == 3
    assert json.loads(Path("out/embft.json").read_text())["settings"]["student_layers"] == 2


def test_a_student_that_is_in_its_teachers_space_gets_no_layer(teacher, teacher_path):
    result = engine(teacher, teacher_path, epochs=1).finetune()
    assert (result.base_score, result.base_agreement) == (pytest.approx(1.0), 1.0)
    saved = SentenceTransformer("out", device="cpu")
    assert [type(module).__name__ for module in saved] == ["Transformer", "Pooling", "Normalize"]
    # A saved student learns on from where it is.
    again = engine(teacher, "out", "again", epochs=1)
    assert again.finetune().base_score == pytest.approx(result.best_score, abs=1e-4)
    assert again.get_finetuned_model().get_query_embedding("a") == pytest.approx(
        teacher.get_query_embedding("a"), abs=0.3
    )


def test_first_layers_compute_what_the_teacher_computes_so_far(teacher):
    cut = first_layers(teacher._model, 2)
    inputs = cut.preprocess(["one text"])
    names = ("input_ids", "attention_mask", "token_type_ids")
    given = {name: inputs[name] for name in names if name in inputs}
    whole = teacher._model[0].auto_model(**given, output_hidden_states=True).hidden_states[2]
    torch.testing.assert_close(cut[0].auto_model(**given).last_hidden_state, whole)


def test_the_index_of_the_teacher_takes_the_student(teacher, tiny_model_path):
    index = VectorStoreIndex([TextNode(text=text, id_=str(row)) for row, text in enumerate(TEXTS)], embed_model=teacher)
    stamp_index(index, teacher)
    engine(teacher, tiny_model_path, epochs=1).finetune()
    served = load_embed_model("out", device="cpu")
    check_index(index, served)
    check_index(index, served, verify=2)  # its documents are the teacher's, vector by vector
    assert identify(served) == identify(teacher)
    assert identify(served, "query") != identify(teacher, "query")
    hits = index.as_retriever(similarity_top_k=3, embed_model=served).retrieve(QUERIES[0])
    assert len(hits) == 3
    with pytest.raises(ModelError, match="cannot be searched with"):
        check_index(index, load_embed_model(tiny_model_path, device="cpu"))
    query = np.array(served.get_query_embedding(QUERIES[0]))
    own = np.array(SentenceTransformer("out", device="cpu").encode_query(QUERIES[0]))
    np.testing.assert_allclose(query, own, atol=1e-5)


def test_queries_alone_never_load_the_teacher(teacher, tiny_model_path, monkeypatch):
    engine(teacher, tiny_model_path, epochs=1).finetune()
    from llama_index_embft.embeddings import distilled

    def refuse(*_args, **_options):
        raise AssertionError("the teacher was loaded")

    monkeypatch.setattr(distilled, "load_described_base", refuse)
    served = load_embed_model("out", device="cpu")
    assert len(served.get_query_embedding("a")) == 48
    assert served.to_dict()["teacher"] is None
    with pytest.raises(AssertionError, match="the teacher was loaded"):
        served.get_text_embedding("a")


def test_both_models_come_back_from_a_dict(teacher, tiny_model_path):
    engine(teacher, tiny_model_path, epochs=1).finetune()
    served = load_embed_model("out", base_embed_model=teacher, device="cpu")
    again = DistilledEmbedding.from_dict(served.to_dict(), device="cpu")
    assert again.get_query_embedding("a b") == pytest.approx(served.get_query_embedding("a b"), abs=1e-6)
    assert again.get_text_embedding("a b") == pytest.approx(teacher.get_text_embedding("a b"), abs=1e-6)
    assert identify(again, "query") == identify(served, "query")
    other = load_embed_model("out", base_embed_model=teacher, query_prompt="ask: ", device="cpu")
    again = DistilledEmbedding.from_dict(other.to_dict(), device="cpu")
    assert identify(again, "query") == identify(other, "query") != identify(served, "query")


def test_prompts_of_both_sides_are_kept(teacher, tiny_model_path, monkeypatch):
    """Of the teacher its own; of the student what it is told, in training as in use."""
    from llama_index_embft.finetune.distill import training

    seen: Counter[str] = Counter()
    original = training.DistillationTrainer.compute_loss

    def looked_at(self, model, inputs, *args, **options):
        words = self.model.tokenizer.batch_decode(inputs["text_input_ids"], skip_special_tokens=True)
        seen.update(text.split()[0] for text in words)
        return original(self, model, inputs, *args, **options)

    monkeypatch.setattr(training.DistillationTrainer, "compute_loss", looked_at)
    text = TextSettings(query_prompt="qqq ", document_prompt="ddd ")
    engine(teacher, tiny_model_path, epochs=1, text=text).finetune()
    assert seen == {"qqq": 22, "ddd": 48}
    record = json.loads(Path("out/embft.json").read_text())
    assert record["prompts"] == {"query": "qqq ", "document": "ddd "}
    with_prompt = SentenceTransformer("out", device="cpu").encode("qqq a b")
    served = load_embed_model("out", device="cpu")
    assert served.get_query_embedding("a b") == pytest.approx(with_prompt.tolist(), abs=1e-5)


class CountingTeacher(BaseEmbedding):
    """A hosted model, as far as one can tell: it counts, and may fail."""

    fail_after: int | None = None
    named: bool = True
    _asked: Counter = PrivateAttr(default_factory=Counter)

    def identity(self, side: str, given: str | None = None) -> ModelIdentity | None:
        if self.named:
            return ModelIdentity.of(self.model_name, "counting")
        return None if given is None else ModelIdentity.of(self.model_name, "given", given)

    def _get_text_embedding(self, text: str) -> list[float]:
        if self.fail_after is not None and self._asked.total() >= self.fail_after:
            raise ModelError("The server has gone.")
        self._asked[text] += 1
        rng = np.random.default_rng(sum(map(ord, text)) + len(text))
        return rng.normal(size=16).tolist()

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


def test_each_text_is_asked_once_and_a_teacher_that_fails_goes_on(tiny_model_path, tmp_path, monkeypatch):
    from llama_index_embft.embeddings.encoding import encoder

    monkeypatch.setattr(encoder, "_TEXTS_PER_COMMIT", 8)
    teacher = CountingTeacher(model_name="far", fail_after=20)
    cache = EmbeddingCache(tmp_path / "cache.sqlite")
    texts = [*TEXTS, TEXTS[0], "", "  "]
    with pytest.raises(ModelError, match="The server has gone"):
        engine(teacher, tiny_model_path, texts=texts, cache=cache).finetune()
    assert not Path("out").exists()
    teacher.fail_after = None
    result = engine(teacher, tiny_model_path, texts=texts, cache=cache, epochs=1).finetune()
    again = [text for text, times in teacher._asked.items() if times > 1]
    assert len(again) <= 4  # those of the batch that failed
    assert set(teacher._asked) == {*TEXTS, *QUERIES}
    assert (result.dropped, result.texts) == (2, 48)
    assert result.teacher_texts == 48 + 24 - 16
    assert engine(teacher, tiny_model_path, texts=texts, cache=cache, epochs=1).finetune().teacher_texts == 0


def test_a_teacher_that_nothing_describes_has_to_be_given_for_documents(tiny_model_path):
    teacher = CountingTeacher(model_name="far", named=False)
    made = engine(teacher, tiny_model_path, epochs=1)
    made.finetune()
    assert len(made.get_finetuned_model().get_text_embedding("a")) == 16
    served = load_embed_model("out", device="cpu")
    assert len(served.get_query_embedding("a")) == 16
    with pytest.raises(ModelError, match=r"sits on .*far.*pass it: load_embed_model\(folder, base_embed_model"):
        served.get_text_embedding("a")
    with pytest.raises(ModelError, match="Nothing tells whether far is the teacher"):
        load_embed_model("out", base_embed_model=teacher)
    assert identify(served, identity="v1") == identify(CountingTeacher(model_name="far", named=False), identity="v1")


def test_vectors_alone_are_enough(teacher, tiny_model_path):
    vectors = np.array(teacher.get_text_embedding_batch(TEXTS), dtype=np.float32)
    queries = np.array([teacher.get_query_embedding(text) for text in QUERIES], dtype=np.float32)
    who = identify(teacher)
    by_model = engine(teacher, tiny_model_path, "by_model", epochs=1).finetune()
    result = engine(
        vectors, tiny_model_path, "by_vectors", epochs=1, query_vectors=queries, teacher_identity=who
    ).finetune()
    assert result.best_score == pytest.approx(by_model.best_score, abs=1e-4)
    assert result.teacher_texts == 0
    served = load_embed_model("by_vectors", device="cpu")
    assert identify(served) == who
    with pytest.raises(ModelError, match="sits on an unnamed model"):
        served.get_text_embedding("a")
    assert load_embed_model("by_vectors", base_embed_model=teacher).get_text_embedding("a b") == pytest.approx(
        teacher.get_text_embedding("a b"), abs=1e-5
    )


def test_documents_alone_train_the_side_that_serves(tiny_model_path, teacher_path):
    alike = load_embed_model(teacher_path, query_prompt="", document_prompt="", device="cpu")
    text = TextSettings(query_prompt="qqq ", document_prompt="ddd ")
    result = engine(alike, tiny_model_path, queries=[], text=text, epochs=2).finetune()
    assert (result.queries, result.held_out) == (0, 5)
    assert json.loads(Path("out/embft.json").read_text())["prompts"] == {"query": "qqq ", "document": "qqq "}


def test_a_data_set_gives_its_corpus_and_its_questions(teacher, tiny_model_path):
    data = EmbeddingQAFinetuneDataset(
        queries={str(row): text for row, text in enumerate(QUERIES)},
        corpus={str(row): text for row, text in enumerate(TEXTS)},
        relevant_docs={str(row): ["0"] for row in range(len(QUERIES))},
    )
    result = engine(teacher, tiny_model_path, texts=data, queries=None, epochs=1).finetune()
    assert (result.texts, result.queries) == (48, 24)
    record = json.loads(Path("out/embft.json").read_text())
    assert len(record["trained_on"]["queries"]) == 24
    card = Path("out/README.md").read_text()
    assert "library_name: sentence-transformers" in card
    assert "| cosine |" in card
    assert "load_embed_model" in card


def test_a_loaded_student_is_copied(teacher, tiny_model_path):
    student = SentenceTransformer(tiny_model_path, device="cpu")
    before = {name: value.clone() for name, value in student.state_dict().items()}
    engine(teacher, student, epochs=1).finetune()
    assert len(student) == 3
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())


def test_a_run_that_was_stopped_goes_on_to_the_same_weights(teacher, tiny_model_path, monkeypatch):
    from llama_index_embft.finetune.running import callbacks

    options = {"save_checkpoints": True, "checkpoint_save_steps": 3, "epochs": 2}
    whole = engine(teacher, tiny_model_path, "whole", **options).finetune()
    original = callbacks.BestStateCallback.on_step_end

    def stop(self, args, state, control, **kwargs):
        if state.global_step == 11:
            self.interrupted = True
        return original(self, args, state, control, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(callbacks.BestStateCallback, "on_step_end", stop)
        with pytest.raises(TrainingError, match="Stopped by Ctrl-C after step 11 of 18"):
            engine(teacher, tiny_model_path, "m", **options).finetune()
    resumed = engine(teacher, tiny_model_path, "m", epochs=2, resume_from_checkpoint=True).finetune()
    assert resumed.steps == whole.steps == 18
    names = ("step", "cosine", "agreement@10")
    first, second = ([[entry[name] for name in names] for entry in run.history] for run in (resumed, whole))
    assert first == second
    for part in ("model.safetensors", "2_Dense/model.safetensors"):
        found, expected = (load_file(f"{name}/{part}") for name in ("m", "whole"))
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    with pytest.raises(ConfigError, match="cannot be resumed: texts was"):
        engine(
            teacher, tiny_model_path, "m", epochs=2, resume_from_checkpoint=True, texts=[*TEXTS, "another"]
        ).finetune()


def test_a_checkpoint_belongs_to_both_sides_of_the_teacher(teacher_path, tiny_model_path):
    def signature(query_prompt, **options):
        made = engine(load_embed_model(teacher_path, query_prompt=query_prompt), tiny_model_path, **options)
        targets = ask_teacher(made.teacher, made._data, made.settings, cache=None, show_progress=False)
        return made._checkpoints(targets).signature

    one, other = signature("ask: "), signature("look for: ")
    assert [name for name in one if one[name] != other[name]] == ["teacher_of_queries"]
    same = [signature(prompt, queries=QUERIES[:10])["teacher"] for prompt in ("ask: ", "look for: ")]
    assert same[0] == same[1] == one["teacher"]


def test_small_parts_of_a_batch_train_as_well(teacher, tiny_model_path):
    result = engine(teacher, tiny_model_path, hardware=HardwareSettings(mini_batch_size=3), epochs=1).finetune()
    # Parts of 2, of one kind each: 24 of documents and 11 of queries, four a step.
    assert (result.steps, result.mini_batch_size) == (9, 3)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"texts": ["one text"]}, DatasetError, "There are 1 distinct documents with any text; it must be at least 10"),
        ({"texts": ["", " "] * 9}, DatasetError, "There are 0 distinct documents"),
        ({"texts": [*TEXTS, "bad \ud800 text"]}, DatasetError, r"`texts`\[48\] contains an unpaired surrogate"),
        ({"queries": [*QUERIES, "\udfff"]}, DatasetError, r"`queries`\[24\] contains an unpaired surrogate"),
        ({"queries": ["a"]}, DatasetError, "There are 1 distinct queries"),
        ({"queries": []}, ConfigError, "`queries` is empty, and .* embeds queries in another way than documents"),
        ({"student_layers": 2}, ConfigError, "both are given"),
        (
            {"query_vectors": np.ones((24, 4))},
            ConfigError,
            "`query_vectors` is for a `teacher` that is given as vectors",
        ),
        ({"val_share": 1.0}, ConfigError, "`val_share` is 1.0; it must be above 0 and below 1"),
        ({"student_layers": 0}, ConfigError, "`student_layers` is 0; it must be at least 1"),
    ],
)
def test_bad_input(change, error, message, teacher, tiny_model_path):
    with pytest.raises(error, match=message):
        engine(teacher, tiny_model_path, **change)


def test_bad_vectors(tiny_model_path):
    good = np.ones((48, 4), dtype=np.float32)
    for vectors, error, message in (
        (good[:47], ConfigError, r"`teacher` has shape \(47, 4\) for 48 texts; give a vector for each"),
        (np.ones(48), ConfigError, r"`teacher` has shape \(48,\) for 48 texts"),
        (["a"], ConfigError, "`teacher` holds something else than numbers"),
        (np.vstack([good[:-1], np.full((1, 4), np.nan)]), ModelError, "1 of 48 vectors of the teacher are NaN"),
        (
            np.vstack([good[:-1], np.zeros((1, 4))]),
            ModelError,
            "1 of 48 vectors of the teacher are NaN, infinite or zero",
        ),
    ):
        with pytest.raises(error, match=message):
            engine(vectors, tiny_model_path, queries=[])
    with pytest.raises(ConfigError, match="`queries` is given without `query_vectors`"):
        engine(good, tiny_model_path)
    with pytest.raises(ConfigError, match="documents' vectors and the queries' have 4 and 5 dimensions"):
        engine(good, tiny_model_path, query_vectors=np.ones((24, 5)))
    with pytest.raises(ConfigError, match="`student_layers` is 2, and the teacher is vectors alone"):
        engine(good, None, queries=[], student_layers=2)


def test_a_student_that_reads_less_than_its_texts_says_so(teacher, tiny_model_path, caplog):
    long = [f"{text} {'and so on ' * 30}{row}" for row, text in enumerate(TEXTS)]
    engine(teacher, tiny_model_path, texts=long, epochs=1, text=TextSettings(max_seq_length=16)).finetune()
    assert "100% of the passages are longer than the 16 tokens that the model reads" in caplog.text
    with pytest.raises(ConfigError, match="supports at most 128 tokens"):
        engine(teacher, tiny_model_path, text=TextSettings(max_seq_length=999))


def test_a_student_reads_as_much_as_its_teacher(teacher_path, tiny_model_path):
    short = load_embed_model(teacher_path, device="cpu")
    short._model.max_seq_length = 20
    long = [f"{text} {'and so on ' * 30}{row}" for row, text in enumerate(TEXTS)]
    assert engine(short, tiny_model_path, texts=long).student.max_seq_length == 20
    short._model.max_seq_length = 1000  # more than the student has positions for
    assert engine(short, tiny_model_path, texts=long).student.max_seq_length == 128
    assert engine(short, tiny_model_path, text=TextSettings(max_seq_length=30)).student.max_seq_length == 30
    # Of a teacher elsewhere nothing is known: the rule is that of training.
    assert engine(CountingTeacher(model_name="far"), tiny_model_path, texts=long).student.max_seq_length == 128


def test_several_processes_are_refused(teacher, tiny_model_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="runs in one process; call it without torchrun"):
        engine(teacher, tiny_model_path)


def test_what_cannot_be_cut(teacher, tiny_model_path):
    with pytest.raises(ConfigError, match="`student_layers` is 3, and the teacher has 3 layers"):
        engine(teacher, None, student_layers=3)
    with pytest.raises(ConfigError, match="the teacher is far, whose layers are not here"):
        engine(CountingTeacher(model_name="far"), None, student_layers=2)
    with pytest.raises(ConfigError, match="neither is given"):
        engine(teacher, None)
    with pytest.raises(ConfigError, match="`model_id` is a int"):
        engine(teacher, 3)


def test_a_damaged_folder_and_another_teacher_are_refused(teacher, tiny_model_path):
    engine(teacher, tiny_model_path, epochs=1).finetune()
    other = load_embed_model(tiny_model_path, device="cpu")
    with pytest.raises(ModelError, match=r"was trained by .*model .*not by"):
        load_embed_model("out", base_embed_model=other)
    forced = load_embed_model("out", base_embed_model=other, force=True)
    assert len(forced.get_text_embedding("a")) == 32
    assert known_identity(forced, "document") == known_identity(other, "document")  # and no vector of another's
    record = Path("out/embft.json")
    whole = json.loads(record.read_text())
    teacher_then = whole["teacher"] | {"document": "2:of another time"}
    record.write_text(json.dumps(whole | {"teacher": teacher_then}))
    assert known_identity(load_embed_model("out", force=True), "document") == known_identity(teacher, "document")
    with pytest.raises(ModelError, match="`document_prompt` is 'x: ', and the documents of out are the teacher's"):
        load_embed_model("out", document_prompt="x: ")
    for change in (
        {"teacher": 3},
        {"prompts": {}},
        {"max_length": "long"},
        {"teacher": {**whole["teacher"], "document": 3}},
    ):
        record.write_text(json.dumps({**whole, **change}))
        with pytest.raises(ModelError, match="damaged"):
            load_embed_model("out")
    with pytest.raises(TrainingError, match="call finetune"):
        engine(teacher, tiny_model_path, "nothing").get_finetuned_model()


def test_the_guide_runs_as_it_stands(teacher, tiny_model_path):
    page = (Path(__file__).resolve().parents[3] / "docs" / "how-to" / "distill.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    nodes = [TextNode(text=text, id_=str(row)) for row, text in enumerate(TEXTS)]
    names = {
        "texts": TEXTS,
        "questions": QUERIES,
        "teacher": teacher,
        "index": VectorStoreIndex(nodes, embed_model=teacher),
    }
    changed = block.replace("sentence-transformers/all-MiniLM-L6-v2", tiny_model_path).replace("epochs=5", "epochs=1")
    exec(compile(changed, "distill.md", "exec"), names)
    assert len(names["retriever"].retrieve(QUERIES[0])) == 5
