"""The judge: any LlamaIndex LLM behind TruLens' provider, its answers readable or not, its calls failing or not."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from trulens_helpers import Behaviour, LoopbackLLM, model, verdict

pytest.importorskip("trulens.feedback", reason="extra trulens")

from llama_index.core.llms import CompletionResponse, CustomLLM, LLMMetadata
from llama_index.core.llms.callbacks import llm_completion_callback

from llama_index_embft.errors import ConfigError, EvaluationError, ModelError
from llama_index_embft.integrations.trulens import LlamaIndexProvider
from llama_index_embft.integrations.trulens.calls import JudgeCallError, JudgeCalls, JudgeUnavailableError
from llama_index_embft.integrations.trulens.feedback import (
    Exchange,
    JudgeSettings,
    embedding_feedbacks,
    judge_feedbacks,
)
from llama_index_embft.integrations.trulens.provider import sentences

EXCHANGE = Exchange("what?", "One thing. Another thing.", ("first context", "second context"))

_hosts: list[str] | None = None


def _listen(event: str, arguments: tuple[Any, ...]) -> None:
    if _hosts is not None and event in ("socket.connect", "socket.getaddrinfo"):
        _hosts.append(str(arguments[1][0] if event == "socket.connect" else arguments[0]))


sys.addaudithook(_listen)


def test_the_triad_by_a_judge_costs_a_call_a_context_a_sentence_and_an_answer() -> None:
    def script(request) -> Behaviour:
        if "first context" in request.prompt and "second context" not in request.prompt:
            return Behaviour(text=verdict(3))
        return Behaviour(text=f"Here you are:\n```json\n{verdict(1 if 'Another' in request.prompt else 2)}\n```")

    with LoopbackLLM(script=script) as server:
        feedbacks, calls = judge_feedbacks(model(server))
        found = {feedback.name: feedback.score([EXCHANGE])[0] for feedback in feedbacks}
    assert list(found) == ["context_relevance", "groundedness", "answer_relevance"]
    assert found["context_relevance"].score == pytest.approx((1 + 2 / 3) / 2)
    assert found["groundedness"].score == pytest.approx((1 / 3 + 2 / 3) / 2)
    assert found["answer_relevance"].score == pytest.approx(1 / 3)
    assert "as asked" in found["groundedness"].reason
    assert calls.requests == server.count == 2 + 2 + 1
    assert all(verdict.outcome == "scored" for verdict in found.values())


@pytest.mark.parametrize(
    "answer",
    [
        "prose without a number",
        "",
        "7",
        '{"score": null}',
        verdict("high"),
        verdict(9),
        verdict(-1),
        verdict(float("nan")),
    ],
)
def test_what_cannot_be_read_is_counted_and_is_no_number(answer: str) -> None:
    with LoopbackLLM(script=lambda _: Behaviour(text=answer)) as server:
        feedbacks, _ = judge_feedbacks(model(server))
        for feedback in feedbacks:
            (found,) = feedback.score([EXCHANGE])
            assert (found.outcome, found.score) == ("unreadable", None), feedback.name


def test_one_unreadable_context_of_two_does_not_lower_the_mean() -> None:
    def script(request) -> Behaviour:
        return Behaviour(text=verdict(3) if "first context" in request.prompt else "no idea")

    with LoopbackLLM(script=script) as server:
        feedbacks, _ = judge_feedbacks(model(server))
        (found,) = feedbacks[0].score([EXCHANGE])
    assert found.score == 1.0


def test_nothing_to_judge_costs_no_call() -> None:
    with LoopbackLLM(script=lambda _: Behaviour(text=verdict(3))) as server:
        feedbacks, calls = judge_feedbacks(model(server))
        empty = [feedback.score([Exchange("what?", " ", ())])[0].outcome for feedback in feedbacks]
    assert empty == ["undefined"] * 3
    assert calls.requests == 0


def test_groundedness_stays_off_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    import nltk

    monkeypatch.setattr(nltk, "download", lambda *_, **__: pytest.fail("nltk wants to download"))
    global _hosts
    with LoopbackLLM(script=lambda _: Behaviour(text=verdict(3))) as server:
        provider = LlamaIndexProvider(model(server))
        _hosts = hosts = []
        try:
            assert provider.groundedness(["context"], "One. Two.")[0] == 1.0
            score, reason = provider.groundedness_measure_with_cot_reasons("context", "One. Two.")
        finally:
            _hosts = None
    assert score == 1.0
    assert reason["reason"].count("1.00:") == 2
    assert set(hosts) == {"127.0.0.1"}


def test_sentences_of_several_languages() -> None:
    text = "It rose by 3.5 percent. Why?\n1. A list item\n\n收入增长了。利润下降了！\n- \n2."
    assert sentences(text) == [
        "It rose by 3.5 percent.",
        "Why?",
        "A list item",
        "收入增长了。",
        "利润下降了！",
    ]


def test_a_number_is_an_answer_and_no_list_mark() -> None:
    assert sentences("42.") == ["42."]
    assert sentences(" \n") == []


def test_the_key_is_not_written_with_the_provider() -> None:
    with LoopbackLLM() as server:
        assert "sk-secret" not in LlamaIndexProvider(model(server)).model_dump_json()


def test_a_bad_moment_is_tried_again() -> None:
    answers = iter([Behaviour(status=500), Behaviour(drop="at once"), Behaviour(text=verdict(3))])
    with LoopbackLLM(script=lambda _: next(answers)) as server:
        provider = LlamaIndexProvider(model(server), first_wait=0.0)
        assert provider.relevance("what?", "this") == 1.0
    assert (provider.calls.requests, provider.calls.retries) == (3, 2)


def test_a_rate_limit_is_waited_for_and_costs_no_attempt() -> None:
    answers = iter([Behaviour(status=429, headers={"retry-after-ms": "1"})] * 5 + [Behaviour(text=verdict(3))])
    with LoopbackLLM(script=lambda _: next(answers)) as server:
        provider = LlamaIndexProvider(model(server), retry_limit=1)
        assert provider.relevance("what?", "this") == 1.0


def test_who_is_asked_to_wait_too_long_gives_up_and_who_waits_can_be_stopped() -> None:
    asked = threading.Event()

    def script(request) -> Behaviour:
        asked.set()
        return Behaviour(status=429, headers={"retry-after": "100000" if "never" in request.prompt else "300"})

    with LoopbackLLM(script=script) as server:
        provider = LlamaIndexProvider(model(server))
        with pytest.raises(JudgeCallError, match="HTTP 429"):
            provider.relevance("never?", "this")
        asked.clear()
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(provider.relevance, "later?", "this")
            assert asked.wait(60)
            provider.calls.stop()
            with pytest.raises(JudgeCallError, match="stopped"):
                waiting.result(60)
    assert (provider.calls.requests, provider.calls.retries) == (2, 0)


def test_a_question_that_stays_unanswered_fails_alone() -> None:
    def script(request) -> Behaviour:
        return Behaviour(status=500) if "bad" in request.prompt else Behaviour(text=verdict(3))

    with LoopbackLLM(script=script) as server:
        feedbacks, calls = judge_feedbacks(model(server), JudgeSettings(retry_limit=1))
        found = feedbacks[2].score([Exchange("bad?", "a.", ()), Exchange("good?", "a.", ())])
    assert [one.outcome for one in found] == ["failed", "scored"]
    assert "HTTP 500" in found[0].reason
    assert calls.requests == 2


def test_a_wrong_key_stops_everything_at_once_and_is_not_shown() -> None:
    with LoopbackLLM(key="another") as server:
        feedbacks, calls = judge_feedbacks(model(server), JudgeSettings(num_workers=1))
        with pytest.raises(JudgeUnavailableError, match="refused the API key") as error:
            feedbacks[0].score([EXCHANGE] * 5)
        with pytest.raises(JudgeUnavailableError):
            feedbacks[2].score([EXCHANGE])
    assert isinstance(error.value, EvaluationError)
    assert "sk-secret" not in str(error.value)
    assert calls.requests == server.count == 1


def test_nobody_listens() -> None:
    with LoopbackLLM() as server:
        llm = model(server)
    with pytest.raises(JudgeUnavailableError, match="Check the network"):
        LlamaIndexProvider(llm).relevance("what?", "this")


def test_the_limit_holds_until_somebody_stops_the_waiting() -> None:
    with LoopbackLLM(script=lambda _: Behaviour(text=verdict(3))) as server:
        provider = LlamaIndexProvider(model(server), requests_per_minute=2)
        with ThreadPoolExecutor(3) as pool:
            waiting = [pool.submit(provider.relevance, "what?", str(n)) for n in range(3)]
            done = threading.Event()
            for future in waiting:
                future.add_done_callback(lambda _: sum(f.done() for f in waiting) == 2 and done.set())
            assert done.wait(60)
            provider.calls.stop()
            errors = [future.exception() for future in waiting]
    assert server.count == 2
    assert sorted(type(error) for error in errors if error) == [JudgeCallError]


class Local(CustomLLM):
    """A model in this process, which must not be called by two threads."""

    inside: int = 0
    most: int = 0

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name="local")

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        self.inside += 1
        self.most = max(self.most, self.inside)
        threading.Event().wait(0.01)
        self.inside -= 1
        return CompletionResponse(text=verdict(3))

    def stream_complete(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError


def test_a_local_model_is_asked_one_question_at_a_time() -> None:
    llm = Local()
    feedbacks, calls = judge_feedbacks(llm, JudgeSettings(num_workers=4))
    assert not calls.concurrent
    assert [one.score for one in feedbacks[2].score([EXCHANGE] * 6)] == [1.0] * 6
    assert llm.most == 1


@pytest.mark.parametrize("options", [{"requests_per_minute": 0}, {"retry_limit": 0}])
def test_limits_below_one(options: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        JudgeCalls(Local(), **options)
    with pytest.raises(ConfigError, match="num_workers"):
        JudgeSettings(num_workers=0)


def test_an_embedding_that_is_no_number_is_no_score() -> None:
    from trulens_helpers import FruitEmbedding

    class Broken(FruitEmbedding):
        def _get_query_embedding(self, query: str) -> list[float]:
            return [float("nan")] * 4

    contexts, _ = embedding_feedbacks(Broken())
    with pytest.raises(ModelError, match="NaN"):
        contexts.score([EXCHANGE])


def test_relevance_by_embeddings() -> None:
    from trulens_helpers import FruitEmbedding

    contexts, answers = embedding_feedbacks(FruitEmbedding())
    exchanges = [
        Exchange("apples", "apples", ("apples", "pears")),
        Exchange("pears", "", ()),
    ]
    first, second = contexts.score(exchanges)
    other = 0.01 / 1.01
    assert first.score == pytest.approx((1 + other) / 2, abs=1e-6)
    assert second.outcome == "undefined"
    assert [one.outcome for one in answers.score(exchanges)] == ["scored", "undefined"]
    assert [one.outcome for one in answers.score([exchanges[1]])] == ["undefined"]


def test_groundedness_refuses_options_that_it_would_ignore() -> None:
    with LoopbackLLM(script=lambda _: Behaviour(text=verdict(3))) as server:
        provider = LlamaIndexProvider(model(server))
        with pytest.raises(ConfigError, match="leave out criteria"):
            provider.groundedness_measure_with_cot_reasons("context", "One.", criteria="be strict")
        with pytest.raises(ConfigError, match="further arguments"):
            provider.groundedness_measure_with_cot_reasons("context", "One.", "be strict")
        assert server.requests == []
