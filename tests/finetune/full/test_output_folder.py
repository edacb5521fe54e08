"""Every engine looks at its output folder before the work: a wrong path costs a second, not an hour of training."""

from __future__ import annotations

import pytest
from llama_index.core.embeddings import MockEmbedding

from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
from llama_index_embft.errors import OutputError
from llama_index_embft.finetune import (
    EmbeddingAdapterFinetuneEngine,
    NudgeFinetuneEngine,
    SentenceTransformersFinetuneEngine,
)


class Untouched(MockEmbedding):
    """Fails the test if anything is embedded."""

    def _get_query_embedding(self, query: str) -> list[float]:
        raise AssertionError("embedded before the output folder was looked at")

    def _get_text_embedding(self, text: str) -> list[float]:
        raise AssertionError("embedded before the output folder was looked at")


@pytest.mark.parametrize("engine", ["full", "adapter", "nudge"])
def test_a_folder_of_the_users_own_is_refused_before_the_work(engine, tiny_model_path, tmp_path, monkeypatch) -> None:
    data = EmbeddingQAFinetuneDataset(
        queries={f"q{i}": f"question {i}" for i in range(4)},
        corpus={f"d{i}": f"document {i}" for i in range(4)},
        relevant_docs={f"q{i}": [f"d{i}"] for i in range(4)},
    )
    out = tmp_path / "thesis"
    out.mkdir()
    (out / "chapter1.txt").write_text("mine")
    model = Untouched(embed_dim=8)
    if engine == "full":
        made = SentenceTransformersFinetuneEngine(data, tiny_model_path, str(out), device="cpu")
        monkeypatch.setattr(made, "_rows", lambda: pytest.fail("worked before the output folder was looked at"))
    elif engine == "adapter":
        made = EmbeddingAdapterFinetuneEngine(data, model, model_output_path=str(out), cache=None)
    else:
        made = NudgeFinetuneEngine(data, model, data, model_output_path=str(out), cache=None)
    with pytest.raises(OutputError, match="is not a result of llama-index-embft"):
        made.finetune()
    assert [file.name for file in tmp_path.rglob("*")] == ["thesis", "chapter1.txt"]
