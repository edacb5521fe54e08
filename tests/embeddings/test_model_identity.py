"""Who made a vector: equal for equal models, another for another, and no guess where nothing tells."""

from __future__ import annotations

import json
import logging
from enum import Enum
from pathlib import Path

import pytest
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.embeddings import MockEmbedding
from llama_index.embeddings.huggingface import HuggingFaceEmbedding
from llama_index.embeddings.openai import OpenAIEmbedding
from pydantic import BaseModel, Field, create_model
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Router

from llama_index_embft.embeddings import ModelIdentity, identify, identity as module, load_embed_model
from llama_index_embft.embeddings.fingerprint import fingerprint_sentence_transformer, hash_parts
from llama_index_embft.embeddings.identity import (
    check_base,
    fingerprints,
    is_earlier,
    known_identity,
    sentence_transformer_identity,
    whole_fingerprint,
)
from llama_index_embft.errors import ConfigError, ModelError


def hosted(**options) -> OpenAIEmbedding:
    return OpenAIEmbedding(**{"model_name": "m", "api_key": "x", **options})


def test_an_identity_is_its_fingerprint_and_not_its_name() -> None:
    one = ModelIdentity.of("folder", "a", "b")
    assert one.fingerprint == "2:" + hash_parts("a", "b")
    assert one == ModelIdentity.of("moved", "a", "b")
    assert one != ModelIdentity.of("folder", "ab")
    assert str(one) == f"folder (fingerprint {one.fingerprint[:12]})"
    assert not one.of_earlier_version
    assert ModelIdentity("5f0e", "folder").of_earlier_version
    assert [is_earlier(value) for value in ("5f0e", "2:5f0e", "", None)] == [True, False, False, False]


def test_both_sides_make_the_whole() -> None:
    query, document = ModelIdentity.of("m", "q"), ModelIdentity.of("m", "d")
    assert whole_fingerprint(query, document) == "2:" + hash_parts(query.fingerprint, document.fingerprint)
    assert whole_fingerprint(query, document) != whole_fingerprint(document, query)
    assert whole_fingerprint(None, document) is whole_fingerprint(query, None) is None


# --- models that run here -------------------------------------------------------------------------------------------


def test_a_local_model_is_its_parts_its_prompt_and_its_route(tiny_model_path: str) -> None:
    model = HuggingFaceEmbedding(tiny_model_path, device="cpu", text_instruction="passage: ", normalize=False)
    inner = model._model
    parts = fingerprint_sentence_transformer(inner, normalize=False)
    who = identify(model)
    assert who.fingerprint == "2:" + hash_parts(parts, "passage: ", "")
    assert who.name == model.model_name
    assert identify(model, "document") == who
    assert identify(model, "query").fingerprint == "2:" + hash_parts(parts, "", "")
    assert fingerprints(model) == {"query": identify(model, "query").fingerprint, "document": who.fingerprint}
    with pytest.raises(ConfigError, match=r"`identity` is 'mine', and llama_index\..*has an identity of its own"):
        identify(model, identity="mine")
    # A model that does not route is told no route.
    assert sentence_transformer_identity(inner, "passage: ", "query", False, "name") == who
    assert sentence_transformer_identity(inner, "passage: ", "", True, "name") != who


def test_a_model_with_a_router_is_told_what_it_reads_by_our_class_alone(tiny_model_path: str) -> None:
    query, document = (SentenceTransformer(tiny_model_path, device="cpu") for _ in range(2))
    routed = SentenceTransformer(
        modules=[Router.for_query_document(list(query.children()), list(document.children()))], device="cpu"
    )
    parts = fingerprint_sentence_transformer(routed, normalize=True)
    model = HuggingFaceEmbedding(tiny_model_path, device="cpu")
    model._model = routed
    assert identify(model, "query").fingerprint == "2:" + hash_parts(parts, "", "")
    own = load_embed_model(tiny_model_path, device="cpu")
    own._model = routed
    for side in ("query", "document"):
        found = sentence_transformer_identity(routed, "", side, True, "name")
        assert found.fingerprint == "2:" + hash_parts(parts, "", side)
        assert known_identity(own, side) == found


def test_parts_that_cannot_be_hashed_give_no_identity(tiny_model_path: str, monkeypatch) -> None:
    model = SentenceTransformer(tiny_model_path, device="cpu")
    monkeypatch.setattr(module, "fingerprint_sentence_transformer", lambda model, normalize: None)
    assert sentence_transformer_identity(model, "", "", True, "name") is None


# --- hosted models --------------------------------------------------------------------------------------------------


def service(model: OpenAIEmbedding, side="document") -> dict:
    """Whether a hosted model's identity is that of these settings is told by hashing them here."""
    return {
        "provider": type(model).__name__,
        "model_name": model.model_name,
        "engine": model._query_engine if side == "query" else model._text_engine,
    }


def of(settings: dict) -> str:
    return "2:" + hash_parts(json.dumps(settings, sort_keys=True))


def test_a_hosted_model_is_its_class_its_name_its_engine_and_what_was_changed() -> None:
    plain = hosted()
    assert identify(plain).fingerprint == of(service(plain))
    assert identify(plain).name == "m"
    assert identify(hosted(dimensions=64)).fingerprint == of({**service(plain), "dimensions": 64})
    assert identify(hosted(model_name="other")) != identify(plain)
    ada = OpenAIEmbedding(model_name="text-embedding-ada-002", api_key="x", mode="similarity")
    assert identify(ada, "query").fingerprint == of(service(ada, "query"))
    assert identify(ada, "document").fingerprint == of(service(ada))
    babbage = OpenAIEmbedding(model="babbage", mode="text_search", api_key="x")
    assert identify(babbage, "query") != identify(babbage, "document")  # two engines
    assert babbage._query_engine != babbage._text_engine
    assert identify(babbage, "query").fingerprint == of(service(babbage, "query"))


def test_arguments_count_as_fields_do_but_for_those_that_decide_nothing() -> None:
    extra = {"dimensions": 64, "user": "u", "timeout": 3, "extra_headers": {"a": "b"}, "encoding_format": "float"}
    assert identify(hosted(additional_kwargs=extra)) == identify(hosted(dimensions=64))
    assert identify(hosted(additional_kwargs={"task": "x"})).fingerprint == of({**service(hosted()), "task": "x"})


@pytest.mark.parametrize(
    ("address", "written"),
    [
        ("https://api.openai.com/v1", None),  # where it goes when none is given
        ("https://me:secret@api.openai.com:443/other/", None),
        ("http://localhost:8080/v1/", "localhost:8080/v1"),
        ("https://me:secret@host/v1?key=s", "host:/v1"),
        ("http://localhost:8080/X", "localhost:8080/X"),
        ("no address", "no address:no address"),
    ],
)
def test_an_address_counts_without_its_secrets(address: str, written: str | None) -> None:
    settings = service(hosted()) | ({"api_base": written} if written else {})
    assert identify(hosted(api_base=address)).fingerprint == of(settings)


class Task(Enum):
    """A setting of a hosted model."""

    SEARCH = "search"


class Pooling(BaseModel):
    """Another."""

    kind: str = "mean"
    task: Task | None = None


def other_service(name: str = "CohereEmbedding", module: str = "llama_index.embeddings.cohere.base", **fields):
    """A client that the package knows by name only, with fields of our own."""
    made = create_model(name, __base__=MockEmbedding, __module__=module, **fields)
    made.__qualname__ = name
    return made


def test_settings_of_any_service_count_where_somebody_changed_them() -> None:
    made = other_service(
        task=(Task | None, None), pooling=(Pooling | None, None), api_key=(str, ""), a_token=(str, ""), level=(int, 1)
    )
    plain = {"provider": "CohereEmbedding", "model_name": "m", "embed_dim": 3, "side": "document"}
    assert identify(made(embed_dim=3, model_name="m")).fingerprint == of(plain)
    assert identify(made(embed_dim=3, model_name="m", api_key="s", a_token="t", level=1)).fingerprint == of(plain)
    assert identify(made(embed_dim=3, model_name="m", embed_batch_size=7, num_workers=2)).fingerprint == of(plain)
    lists = other_service(
        parts=(list[str], Field(default_factory=lambda: ["a"])), place=(Path | None, None), options=(dict, {})
    )
    assert identify(lists(embed_dim=3, model_name="m", options={"a": 1})).fingerprint == of(
        {**plain, "options": {"a": 1}}
    )
    assert identify(lists(embed_dim=3, model_name="m")).fingerprint == of(plain)
    odd = lists(embed_dim=3, model_name="m", parts=["b"], place=Path("weights"))
    assert identify(odd).fingerprint == of({**plain, "parts": ["b"], "place": "weights"})
    changed = made(
        embed_dim=3, model_name="m", level=2, task=Task.SEARCH, pooling=Pooling(kind="last", task=Task.SEARCH)
    )
    expected = {**plain, "level": 2, "task": "search", "pooling": {"kind": "last", "task": "search"}}
    assert identify(changed).fingerprint == of(expected)
    assert identify(changed, "query").fingerprint == of({**expected, "side": "query"})


def test_an_azure_model_has_engines_too_and_no_mode() -> None:
    made = other_service("AzureOpenAIEmbedding", "llama_index.embeddings.azure_openai.base", mode=(str, "a"))
    model = made(embed_dim=3, model_name="m", mode="b")
    expected = {"provider": "AzureOpenAIEmbedding", "model_name": "m", "embed_dim": 3, "engine": None}
    assert identify(model).fingerprint == of(expected)


# --- what nothing is known of ---------------------------------------------------------------------------------------


class Unknown(MockEmbedding):
    """A class of somebody's own."""


class Speaking(MockEmbedding):
    """A class that speaks for itself."""

    says: object = None

    def identity(self, side: str, given: str | None = None) -> object:
        return self.says or ModelIdentity.of("speaking", side, given or "")


def test_a_class_that_is_not_known_has_the_identity_it_is_given(caplog, monkeypatch) -> None:
    monkeypatch.setattr(module, "_said", set())
    model = Unknown(embed_dim=3, model_name="m")
    with caplog.at_level(logging.WARNING):
        assert known_identity(model, "query") is known_identity(model, "document") is None
    assert caplog.text.count(f"Nothing says what decides the vectors of {__name__}.Unknown") == 1  # said once
    assert fingerprints(model) == {"query": None, "document": None}
    with pytest.raises(ModelError, match=rf"vectors of {__name__}\.Unknown, a class that is not known here; pass"):
        identify(model)
    given = identify(model, identity="v1")
    assert (given.fingerprint, given.name) == ("2:" + hash_parts("given", "v1"), "m")
    assert identify(model, "query", identity="v1") == given != identify(model, identity="v2")
    # A name that a service has, in a module of somebody else; and a class that is none, in the service's.
    assert known_identity(other_service(module="my.own")(embed_dim=3), "query") is None
    assert known_identity(other_service("NewEmbedding")(embed_dim=3), "query") is None


def test_a_class_that_speaks_for_itself_is_believed_and_what_is_derived_elsewhere_is_not() -> None:
    model = Speaking(embed_dim=3)
    assert identify(model, "query") == ModelIdentity.of("", "query", "")
    assert identify(model, identity="base") == ModelIdentity.of("", "document", "base")
    assert known_identity(Speaking(embed_dim=3, says="a text"), "query") is None
    derived = type("Derived", (Speaking,), {"__module__": "their.package"})
    assert known_identity(derived(embed_dim=3), "query") is None
    near = type("Near", (Speaking,), {"__module__": f"{__name__}.deeper"})
    assert identify(near(embed_dim=3)) == identify(model)
    field = type(
        "Field", (MockEmbedding,), {"__module__": __name__, "__annotations__": {"identity": str}, "identity": ""}
    )
    assert known_identity(field(embed_dim=3), "query") is None  # a field of that name says nothing


# --- what a saved result sits on ------------------------------------------------------------------------------------


def refusal(base: BaseEmbedding, expected: str | None) -> str:
    with pytest.raises(ModelError) as refused:
        check_base(base, expected, "The adapter in runs/a", force=False)
    return str(refused.value)


def test_a_saved_result_sits_on_its_own_base_or_is_refused() -> None:
    base, unknown = hosted(), Unknown(embed_dim=3, model_name="u")
    whole = whole_fingerprint(identify(base, "query"), identify(base, "document"))
    check_base(base, whole, "The adapter in runs/a", force=False)
    babbage = OpenAIEmbedding(model="babbage", mode="text_search", api_key="x")  # of another engine for each side
    sides = identify(babbage, "query"), identify(babbage, "document")
    check_base(babbage, whole_fingerprint(*sides), "The adapter in runs/a", force=False)
    other = other_service()(embed_dim=3, model_name="m")  # that is told which side it embeds
    sides = identify(other, "query"), identify(other, "document")
    check_base(other, whole_fingerprint(*sides), "The adapter in runs/a", force=False)
    for expected in ("2:" + "0" * 32, "5f0e", None):
        check_base(base, expected, "The adapter in runs/a", force=True)
    check_base(unknown, None, "The adapter in runs/a", force=True)
    assert refusal(base, "5f0e").startswith("The adapter in runs/a was saved by an earlier version")
    assert refusal(unknown, "5f0e").startswith("The adapter in runs/a was saved by an earlier version")
    assert "cannot be checked against u: nothing says what decides" in refusal(unknown, whole)
    assert "cannot be checked against u: nothing says what decides" in refusal(unknown, None)
    assert "does not say which model it was made on" in refusal(base, None)
    assert refusal(base, "2:" + "0" * 32) == (
        f"The adapter in runs/a was trained on another base model (fingerprint 2:0000000000) than m ({whole[:12]}); "
        "load the model it was trained on, or pass force=True."
    )
