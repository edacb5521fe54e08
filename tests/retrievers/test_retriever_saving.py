"""A saved retriever comes back as it was, over the index it was made for and over no other."""

from __future__ import annotations

import json
import shutil

import pytest
from hash_embedding import HashEmbedding
from llama_index.core import StorageContext, VectorStoreIndex, load_index_from_storage
from llama_index.core.postprocessor import SimilarityPostprocessor
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters

from llama_index_embft import load_retriever, save_retriever
from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
from llama_index_embft.dataset.hashes import text_hashes
from llama_index_embft.embeddings.cross_encoder import load_cross_encoder
from llama_index_embft.errors import ConfigError, ModelError, OutputError
from llama_index_embft.evaluation import evaluate_retriever
from llama_index_embft.index import stamp_index
from llama_index_embft.retrievers import CrossEncoderReranker, StackRetriever, StackSettings, load_reranker
from llama_index_embft.search import LexicalIndex

QUERIES = ["the owl of the harbour", "wolf mountain number 57", "zebra"]


def found(retriever, query):
    return [(hit.node.node_id, hit.score) for hit in retriever.retrieve(query)]


@pytest.fixture
def reopened(index, tmp_path):
    """The index as another process would open it."""
    index.storage_context.persist(str(tmp_path / "index"))

    def reopen(model: HashEmbedding | None = None) -> VectorStoreIndex:
        context = StorageContext.from_defaults(persist_dir=str(tmp_path / "index"))
        return load_index_from_storage(context, embed_model=model or HashEmbedding(model_name="hash-1"))

    return reopen


@pytest.mark.parametrize("weight", [0.0, 0.4, 1.0])
def test_it_comes_back_as_it_was(index, reopened, tmp_path, weight):
    settings = StackSettings(dense_weight=weight, fusion="minmax", depth=30, metadata_mode="none")
    retriever = StackRetriever(index, settings, similarity_top_k=4)
    folder = save_retriever(retriever, tmp_path / "retriever")
    assert (folder / "lexical").is_dir() == (weight < 1)
    loaded = load_retriever(folder, reopened())
    assert loaded.settings == settings
    assert loaded.similarity_top_k == 4
    for query in QUERIES:
        assert found(loaded, query) == found(retriever, query)
    assert len(load_retriever(folder, reopened(), similarity_top_k=9).retrieve(QUERIES[0])) == 9
    with pytest.raises(ConfigError, match="`similarity_top_k` is 0"):
        load_retriever(folder, reopened(), similarity_top_k=0)


def test_the_words_are_not_cut_again(index, reopened, tmp_path, monkeypatch):
    folder = save_retriever(StackRetriever(index, StackSettings(dense_weight=0)), tmp_path / "retriever")
    monkeypatch.setattr(LexicalIndex, "build", classmethod(lambda *_, **__: pytest.fail("built again")))
    assert load_retriever(folder, reopened()).retrieve("owl")


def test_nodes_that_came_and_went_since_are_taken_into_account(index, reopened, tmp_path):
    folder = save_retriever(StackRetriever(index), tmp_path / "retriever")
    today = reopened()
    today.insert_nodes([TextNode(text="A zebra sleeps on the roof", id_="zebra")])
    today.delete_nodes(["n00", "n01"], delete_from_docstore=True)
    loaded = load_retriever(folder, today, similarity_top_k=100)
    assert found(loaded, "zebra")[0][0] == "zebra"
    assert {node_id for node_id, _ in found(loaded, "the fox near the river")}.isdisjoint({"n00", "n01"})


def test_filters_come_back(index, reopened, tmp_path):
    filters = MetadataFilters(filters=[MetadataFilter(key="row", value=50, operator=">")])
    folder = save_retriever(StackRetriever(index, filters=filters), tmp_path / "retriever")
    loaded = load_retriever(folder, reopened(), similarity_top_k=60)
    assert {node_id for node_id, _ in found(loaded, "wolf")} == {f"n{row}" for row in range(51, 60)}


def test_a_reranker_has_to_be_given_again(index, reopened, tmp_path):
    retriever = StackRetriever(index, reranker=SimilarityPostprocessor(similarity_cutoff=0.5))
    folder = save_retriever(retriever, tmp_path / "retriever")
    with pytest.raises(ConfigError, match=r"a reranker \(SimilarityPostprocessor\), which is not saved with it"):
        load_retriever(folder, reopened())
    loaded = load_retriever(folder, reopened(), reranker=SimilarityPostprocessor(similarity_cutoff=0.5))
    assert found(loaded, "owl") == found(retriever, "owl")


def test_what_the_store_is_asked_with_has_to_be_given_again(index, reopened, tmp_path):
    asked = {"mmr_threshold": 0.5}
    folder = save_retriever(StackRetriever(index, vector_store_kwargs=asked), tmp_path / "retriever")
    with pytest.raises(ConfigError, match="asks the store with mmr_threshold, which is not saved with it"):
        load_retriever(folder, reopened())
    assert load_retriever(folder, reopened(), vector_store_kwargs=asked).vector_store_kwargs == asked
    assert load_retriever(folder, reopened(), vector_store_kwargs={}).vector_store_kwargs == {}


def test_our_own_reranker_is_saved_with_it(index, reopened, tmp_path, tiny_model_path):
    model = load_cross_encoder(tiny_model_path, add_head=True, device="cpu", max_length=40)
    retriever = StackRetriever(index, reranker=CrossEncoderReranker(model, weight=0.7, top_n=5))
    folder = save_retriever(retriever, tmp_path / "retriever").rename(tmp_path / "elsewhere")
    loaded = load_retriever(folder, reopened(), device="cpu")
    assert (loaded.reranker.weight, loaded.reranker.top_n) == (0.7, 5)
    assert loaded.reranker._model.max_seq_length == 40
    for query in QUERIES:
        ours, theirs = found(loaded, query), found(retriever, query)
        assert [node for node, _ in ours] == [node for node, _ in theirs]
        assert [score for _, score in ours] == pytest.approx([score for _, score in theirs], abs=1e-4)
    assert load_reranker(folder / "reranker").weight == 0.7
    again = CrossEncoderReranker.from_dict(load_reranker(folder / "reranker").to_dict())
    assert (again.weight, again.top_n) == (0.7, 5)
    record = json.loads((folder / "reranker" / "embft.json").read_text())
    for damage in ({"weight": "a"}, {"weight": 2}, {"batch_size": 0}, {"top_n": "many"}, {"max_length": -1}):
        (folder / "reranker" / "embft.json").write_text(json.dumps({**record, **damage}))
        with pytest.raises(ModelError, match="is damaged"):
            load_retriever(folder, reopened())
    shutil.rmtree(folder / "reranker")
    with pytest.raises(ModelError, match="does not exist"):
        load_retriever(folder, reopened())


def test_another_model_is_refused(index, nodes, reopened, tmp_path):
    folder = save_retriever(StackRetriever(index), tmp_path / "retriever")
    other = HashEmbedding(model_name="hash-2")
    with pytest.raises(ModelError, match=r"queries embedded by hash-1 .*not by hash-2 .*pass that model"):
        load_retriever(folder, reopened(other))
    embedded_by_another = VectorStoreIndex(nodes, embed_model=other)
    with pytest.raises(ModelError, match=r"holds another vector for the node n00 than hash-1"):
        load_retriever(folder, embedded_by_another, embed_model=HashEmbedding(model_name="hash-1"))
    stamp_index(embedded_by_another, other)
    with pytest.raises(ModelError, match=r"was embedded by hash-2 .* cannot be searched with hash-1"):
        load_retriever(folder, embedded_by_another, embed_model=HashEmbedding(model_name="hash-1"))
    # The part by words alone asks no model.
    words_alone = save_retriever(StackRetriever(index, StackSettings(dense_weight=0)), tmp_path / "words")
    assert load_retriever(words_alone, embedded_by_another).retrieve("owl")


def test_a_stamped_index_embeds_nothing(index, reopened, tmp_path, monkeypatch):
    stamp_index(index, index._embed_model)
    index.storage_context.persist(str(tmp_path / "index"))
    folder = save_retriever(StackRetriever(index), tmp_path / "retriever")
    monkeypatch.setattr(HashEmbedding, "_get_text_embedding", lambda *_: pytest.fail("a document was embedded"))
    assert load_retriever(folder, reopened()).retrieve("owl")


def test_another_index_is_refused(index, tmp_path, embed_model):
    folder = save_retriever(StackRetriever(index), tmp_path / "retriever")
    strangers = VectorStoreIndex(
        [TextNode(text=f"stranger {i}", id_=f"s{i}") for i in range(3)], embed_model=embed_model
    )
    with pytest.raises(ModelError, match=r"lacks 60 of the 60 nodes of the retriever in .* \(first: 'n00'\)"):
        load_retriever(folder, strangers)


def test_it_is_replaced_whole_or_not_at_all(index, reopened, tmp_path, monkeypatch):
    folder = save_retriever(StackRetriever(index, similarity_top_k=3), tmp_path / "retriever")

    def full_disk(self, folder):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(LexicalIndex, "save", full_disk)
        with pytest.raises(OutputError, match="No space left"):
            save_retriever(StackRetriever(index, similarity_top_k=5), folder)
    assert len(load_retriever(folder, reopened()).retrieve("owl")) == 3
    save_retriever(StackRetriever(index, StackSettings(dense_weight=1), similarity_top_k=5), folder)
    assert not (folder / "lexical").exists()
    assert len(load_retriever(folder, reopened()).retrieve("owl")) == 5
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="is not a result of llama-index-embft"):
        save_retriever(StackRetriever(index), tmp_path / "mine")


def test_an_evaluation_on_the_questions_it_was_chosen_by_says_so(index, nodes, reopened, tmp_path):
    dataset = EmbeddingQAFinetuneDataset(
        queries={"q": "the owl near the river"},
        corpus={node.node_id: node.text for node in nodes},
        relevant_docs={"q": ["n06"]},
    )
    retriever = StackRetriever(index)
    assert not evaluate_retriever(dataset, retriever).overlap
    folder = save_retriever(retriever, tmp_path / "retriever", details={"chosen_on": text_hashes(dataset)})
    for one in (retriever, load_retriever(folder, reopened())):
        assert evaluate_retriever(dataset, one).overlap["chosen_on_queries"] == 1


def rewritten(**changes):
    def change(folder):
        record = json.loads((folder / "embft.json").read_text())
        (folder / "embft.json").write_text(json.dumps(record | changes))

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "embft.json").unlink(), "holds no saved retriever"),
        (lambda folder: (folder / "embft.json").write_text("{"), "is damaged"),
        (lambda folder: (folder / "embft.json").write_text("[]"), "is damaged"),
        (rewritten(kind="adapter"), "of the kind 'adapter' and no retriever"),
        (rewritten(format=2), "by a newer llama-index-embft"),
        (rewritten(settings={"dense_weight": 7}), r"is damaged \(`dense_weight` is 7"),
        (rewritten(settings={"speed": 1}), "is damaged"),
        (rewritten(models=None), "is damaged"),
        (rewritten(similarity_top_k="many"), "is damaged"),
        (lambda folder: (folder / "lexical" / "lexical.json").unlink(), "The lexical index in .* cannot be read"),
    ],
)
def test_a_damaged_folder_is_refused_in_one_sentence(index, tmp_path, damage, message):
    folder = save_retriever(StackRetriever(index), tmp_path / "retriever")
    damage(folder)
    with pytest.raises(ModelError, match=message) as caught:
        load_retriever(folder, index)
    assert "\n" not in str(caught.value)


def test_another_model_behind_the_same_name_is_noticed_when_it_is_loaded(nodes, tmp_path):
    from llama_index.core import MockEmbedding

    class Changed(MockEmbedding):
        def _get_text_embedding(self, text):
            return [1.0, *([0.0] * 23)]

    model, name = MockEmbedding(embed_dim=24), {"identity": "mock, by name"}
    index = VectorStoreIndex([node.model_copy(update={"embedding": None}) for node in nodes], embed_model=model)
    stamp_index(index, model, **name)
    folder = save_retriever(StackRetriever(index), tmp_path / "retriever", **name)
    assert load_retriever(folder, index, **name).retrieve("owl")
    with pytest.raises(ModelError, match="another model answers behind its name"):
        load_retriever(folder, index, embed_model=Changed(embed_dim=24, model_name=model.model_name), **name)


def test_what_cannot_be_saved_is_named(index, nodes, tmp_path):
    from llama_index.core import MockEmbedding

    unknown = StackRetriever(index, embed_model=MockEmbedding(embed_dim=24))
    with pytest.raises(ModelError, match="Nothing says what decides the vectors of"):
        save_retriever(unknown, tmp_path / "retriever")
    folder = save_retriever(unknown, tmp_path / "retriever", identity="mock 1")
    with pytest.raises(ModelError, match="queries embedded by"):
        load_retriever(folder, index, embed_model=MockEmbedding(embed_dim=24), identity="mock 2")

    class Inner(type(index.as_retriever()).__mro__[1]):
        def _retrieve(self, query_bundle):
            return []

    with pytest.raises(ConfigError, match="Only a retriever over an index can be saved"):
        save_retriever(StackRetriever(Inner(), nodes=nodes), tmp_path / "other")
