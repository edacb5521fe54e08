"""One mining run from its checks to its result, for one machine and for a cluster alike.

The two differ in where vectors come from and in what searches the corpus; everything else stands here once.
"""

from __future__ import annotations

import logging
import time
import warnings
from typing import TYPE_CHECKING, Any

from llama_index_embft._core.checks import check_number
from llama_index_embft._core.optional import require
from llama_index_embft.errors import ConfigError
from llama_index_embft.mining.context import BLOCK_UNIT, MiningContext, QueryBlock
from llama_index_embft.mining.forbidden import ForbiddenNegatives
from llama_index_embft.mining.parsing import as_strategies
from llama_index_embft.mining.selection import NegativeSelection
from llama_index_embft.mining.settings import MiningSettings
from llama_index_embft.mining.strategies import Source
from llama_index_embft.mining.teachers import Teacher

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from llama_index.core.llms import LLM
    from numpy.typing import NDArray

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.mining.mined import MinedDataset
    from llama_index_embft.search.topk import ExactIndex

logger = logging.getLogger(__name__)


class MiningSession:
    """One mining run. Making it checks all arguments, before any text is embedded, which may take hours.

    Args:
        dataset: Queries, documents and positives; not changed.
        strategies: Texts or objects, see `parse_strategy`.
        num_negatives: Negatives wanted for each query.
        llm: The LLM of the strategy ``"judge"``.
        relabel: What a teacher finds relevant becomes a positive.
        seed: Of every random choice.
        show_progress: Show bars over long work.
        settings: The rest; None for the defaults.

    Raises:
        ConfigError: An argument or a strategy is not allowed.
        MissingExtraError: FAISS is asked for and not installed.
    """

    def __init__(
        self,
        dataset: EmbeddingQAFinetuneDataset,
        strategies: Sequence[Any] | str,
        num_negatives: int,
        *,
        llm: LLM | None,
        relabel: bool,
        seed: int,
        show_progress: bool,
        settings: MiningSettings | None,
    ) -> None:
        self.started = time.monotonic()
        self.dataset, self.num_negatives, self.relabel = dataset, num_negatives, relabel
        self.seed, self.show_progress = seed, show_progress
        self.settings = settings if settings is not None else MiningSettings()
        self.strategies = as_strategies(strategies, llm=llm, trust_remote_code=self.settings.trust_remote_code)
        check_number("num_negatives", num_negatives, at_least=1, whole=True)
        check_number("seed", seed, at_least=0, below=2**64, whole=True)
        if not dataset.queries:
            raise ConfigError("The data set has no queries to mine negatives for; add queries.")
        if len(dataset.corpus) <= num_negatives:
            raise ConfigError(
                f"The corpus has {len(dataset.corpus)} documents, so no query can have {num_negatives} negatives; "
                "lower `num_negatives`, or add documents to the corpus (they need no queries)."
            )
        if relabel and not any(isinstance(strategy, Teacher) for strategy in self.strategies):
            raise ConfigError(
                "`relabel` needs a strategy that tells relevant documents from others: 'judge' or "
                "'cross-encoder:MODEL'."
            )
        if self.settings.search != "exact":
            require("faiss", feature=f"search={self.settings.search!r}")
        sources = [strategy for strategy in self.strategies if isinstance(strategy, Source)]
        self.depth = min(max((source.depth for source in sources), default=0), len(dataset.corpus))

    def mine(
        self, queries: NDArray[np.float32], corpus: NDArray[np.float32], index: ExactIndex, *, index_name: str = ""
    ) -> MinedDataset:
        """Choose the negatives of all queries.

        Args:
            queries: Shape ``(n_queries, dim)``, in the data set's order.
            corpus: Shape ``(n_docs, dim)``, likewise; empty where no strategy reads it.
            index: The search over the corpus.
            index_name: How the report calls an approximate index; empty for an exact one.

        Raises:
            ConfigError: Vectors hold NaN or do not fit, or nothing is found.
            ModelError: A cross-encoder failed.
        """
        embedded = time.monotonic()
        context = MiningContext(
            dataset=self.dataset,
            queries=queries,
            corpus=corpus,
            index=index,
            forbidden=ForbiddenNegatives(
                self.dataset,
                self.settings.near_duplicates,
                exclude_own_text=self.settings.exclude_own_text,
                show_progress=self.show_progress,
            ),
            num_negatives=self.num_negatives,
            depth=self.depth,
            seed=self.seed,
        )
        if index_name and self.depth:
            recall = index.recall(queries, self.depth)
            context.notes.append(
                f"Approximate search ({index_name}) finds {recall:.1%} of the exact {self.depth} best documents."
            )
        index.check(queries)
        selection = NegativeSelection(context, self.strategies, relabel=self.relabel, pad=self.settings.pad)
        # As many queries at a time as half of the memory holds candidates of; 64 bytes each, with what sorts them.
        rows = self.settings.memory // 2 // (64 * max(self.depth, 4 * self.num_negatives))
        size = max(1, rows // BLOCK_UNIT) * BLOCK_UNIT
        n = len(context.query_ids)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="`queries`: .* are all zeros")  # said once, for all of them
            for start in self._steps(n, size):
                selection.take(QueryBlock(context, start, min(start + size, n)))
        mined = selection.result()
        mined.report.seconds.update(
            embedding=embedded - self.started,
            all=time.monotonic() - self.started,
        )
        for warning in mined.report.warnings():
            logger.warning("%s", warning)
        return mined

    def _steps(self, n: int, size: int) -> Any:
        from tqdm.auto import tqdm

        hidden = not self.show_progress or n <= size
        return tqdm(range(0, n, size), desc="Mining", unit="block", delay=2, leave=False, disable=hidden)
