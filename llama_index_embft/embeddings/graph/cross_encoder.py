"""An exported reranker: pairs of query and passage in, logits out, without torch and transformers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from llama_index_embft.embeddings.graph.runtime import ONNX_FILE, OPENVINO_FILE, open_graph
from llama_index_embft.embeddings.graph.tokenizing import TOKENIZER_FILE, GraphTokenizer, Tokenization
from llama_index_embft.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from numpy.typing import NDArray


class GraphCrossEncoder:
    """A reranker that `export_model` wrote as a graph; `load_reranker` loads it with its share in the ranking.

    Args:
        folder: The folder.
        record: Its ``embft.json``.
        num_threads: Threads of the runtime; None: its own choice, all cores.

    Raises:
        ModelError: A file is missing or damaged.
        MissingExtraError: The runtime is not installed.
    """

    def __init__(self, folder: str | Path, record: dict[str, Any], *, num_threads: int | None = None) -> None:
        path = Path(folder)
        try:
            kind, settings = record["export"]["format"], Tokenization.from_record(record["export"]["tokenization"])
        except (KeyError, TypeError) as err:
            raise ModelError(f"{path / 'embft.json'} is damaged ({err}); export the reranker again.") from err
        file = path / (ONNX_FILE if str(kind).startswith("onnx") else OPENVINO_FILE)
        if not file.is_file():
            raise ModelError(f"{path} was exported as {kind} and holds no {file.name}; export the reranker again.")
        self._tokenizer = GraphTokenizer(path / TOKENIZER_FILE, settings)
        self._graph = open_graph(file, num_threads)

    def predict(
        self, pairs: Sequence[tuple[str, str]], batch_size: int = 32, show_progress_bar: bool = False
    ) -> NDArray[np.float32]:
        """Logits of pairs, before any sigmoid; shape ``(len(pairs),)``.

        Args:
            pairs: Query and passage.
            batch_size: Pairs at a time; they are sorted by length.
            show_progress_bar: Show a bar.
        """
        from tqdm.auto import trange

        scores = np.empty(len(pairs), dtype=np.float32)
        order = np.argsort([-len(query) - len(text) for query, text in pairs], kind="stable")
        for start in trange(0, len(pairs), batch_size, desc="Pairs", disable=not show_progress_bar):
            rows = order[start : start + batch_size]
            scores[rows] = self._graph.run(self._tokenizer([pairs[row] for row in rows])).reshape(len(rows))
        return scores
