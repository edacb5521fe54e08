"""Questions from several workers: the data set of one machine, one limit, one journal."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("ray")

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "llm_server"))

from llama_index.core.schema import TextNode
from loopback_llm import Behaviour, LoopbackLLM

from llama_index_embft.errors import ConfigError, GenerationError
from llama_index_embft.generation import generate_qa_embedding_pairs as generate_alone
from llama_index_embft.scale.ray import generate_qa_embedding_pairs
from llama_index_embft.scale.ray.cluster import remote
from llama_index_embft.scale.ray.generate import LimiterActor

pytestmark = pytest.mark.e2e

COLOURS = ("red", "green", "blue", "black", "white", "brown", "grey", "pink")


def make_nodes(n: int) -> list[TextNode]:
    return [
        TextNode(
            id_=f"n{i}", text=f"The {COLOURS[i % 8]} harbour number {i} lies in the {COLOURS[i // 8]} bay since {i}."
        )
        for i in range(n)
    ]


@pytest.fixture
def llm_at():
    from llama_index.llms.openai_like import OpenAILike

    def make(server: LoopbackLLM) -> OpenAILike:
        return OpenAILike(
            model="test-model", api_base=server.api_base, api_key="k", is_chat_model=True, context_window=8000
        )

    return make


def test_the_data_set_of_one_machine_and_a_journal_to_go_on_with(cluster, llm_at, tmp_path):
    nodes = make_nodes(24)
    stopped, renewed = [], []

    def stop_after_ten(request):
        stopped.append(request.number)
        return Behaviour(status=401, error="the key was taken back") if len(stopped) > 10 and not renewed else None

    with LoopbackLLM() as server:
        alone = generate_alone(nodes, llm_at(server), output_path=None, verbose=False)
        asked_alone = len(server.requests)
    out = tmp_path / "pairs.json"
    with LoopbackLLM(script=stop_after_ten) as server:  # one server: a journal belongs to the model at its address
        with pytest.raises(GenerationError, match=r"taken back|API key"):
            generate_qa_embedding_pairs(nodes, llm_at(server), workers=2, output_path=out, verbose=False)
        renewed.append(True)
        server.requests.clear()
        found = generate_qa_embedding_pairs(nodes, llm_at(server), workers=2, output_path=out, verbose=False)
        report = found.report
        assert len(server.requests) == report.requests == asked_alone - report.from_journal
    assert found == alone
    assert 1 <= report.from_journal <= 10
    assert report.answered + report.from_journal == 24
    assert report.prompt_tokens > 0


def test_one_limit_for_all_callers(cluster):
    import ray

    limiter = remote(LimiterActor, num_cpus=0).remote(5, None)
    tickets = [limiter.acquire.remote(0.0) for _ in range(6)]
    done, waiting = ray.wait(tickets, num_returns=5, timeout=60)
    assert len(done) == 5
    done, waiting = ray.wait(waiting, timeout=1.0)
    assert (len(done), len(waiting)) == (0, 1)  # the sixth waits for the next minute, whoever asks
    ray.kill(limiter)


def test_bad_arguments(cluster, llm_at):
    from llama_index.core.llms import MockLLM

    with pytest.raises(ConfigError, match="`workers` must be at least 1"):
        generate_qa_embedding_pairs(make_nodes(1), MockLLM(), workers=0)
    with pytest.raises(ConfigError, match=r"An argument is not known: .*'colour'"):
        generate_qa_embedding_pairs(make_nodes(1), MockLLM(), colour="red")
