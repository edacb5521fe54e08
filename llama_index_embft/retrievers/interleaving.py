"""Two retrievers answer one question together, so that users say by their clicks which one they prefer.

Team-draft interleaving (Radlinski, Kurup and Joachims, "How does clickthrough data reflect retrieval quality?", CIKM
2008): as captains choose their teams, the two take turns, a coin decides who begins each round, and each puts the best
node that is not in the list yet. Every user compares both at once, so a few hundred answers show what an A/B test of
separate users needs many thousands for.
"""

from __future__ import annotations

import asyncio
import random
import threading
import uuid
from typing import TYPE_CHECKING

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.schema import NodeWithScore

from llama_index_embft._core.checks import check_number
from llama_index_embft.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llama_index.core.schema import QueryBundle

    from llama_index_embft.dataset.traffic.retrieval_log import RetrievalLog


class InterleavedRetriever(BaseRetriever):
    """Answers with the nodes of two retrievers, and writes down which of them each node came from.

    `compare_interleaved` reads the log. Scores of two retrievers cannot be compared, so a node's score is 1 divided by
    its place. Where one retriever has no more nodes, those of the other fill the list and count for neither.

    Args:
        first: A retriever, for instance the one in use.
        second: Another one.
        log: Where answers and clicks are written; it must not be attached, or each answer would be written twice.
        similarity_top_k: Nodes to return.
        names: What the two are called in the log.
        seed: Of the coins.

    Raises:
        ConfigError: ``similarity_top_k`` is below 1, the names are the same, or the log is attached.

    Example:
        >>> log = RetrievalLog("interleaved.jsonl")  # doctest: +SKIP
        >>> retriever = InterleavedRetriever(old, new, log=log)  # doctest: +SKIP
        >>> nodes = retriever.retrieve("Who pays?")  # doctest: +SKIP
        >>> log.feedback(log.last_id, clicked=[nodes[0].node_id])  # doctest: +SKIP
    """

    def __init__(
        self,
        first: BaseRetriever,
        second: BaseRetriever,
        *,
        log: RetrievalLog,
        similarity_top_k: int = 10,
        names: tuple[str, str] = ("first", "second"),
        seed: int = 0,
    ) -> None:
        check_number("similarity_top_k", similarity_top_k, at_least=1)
        if names[0] == names[1]:
            raise ConfigError(f"`names` holds {names[0]!r} twice; give the two retrievers different names.")
        if log.attached:
            raise ConfigError(
                f"The log {log.path} listens to every retrieval and would hold each answer twice; give the interleaved "
                "retriever a log of its own that is not attached."
            )
        self._retrievers, self._names, self._k, self._log = (first, second), names, similarity_top_k, log
        self._dice, self._lock = random.Random(seed), threading.Lock()
        super().__init__()

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        first, second = (one.retrieve(query_bundle.query_str) for one in self._retrievers)
        return self._written(query_bundle.query_str, first, second)

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        first, second = await asyncio.gather(*(one.aretrieve(query_bundle.query_str) for one in self._retrievers))
        return self._written(query_bundle.query_str, first, second)

    def _written(
        self, query: str, first: Sequence[NodeWithScore], second: Sequence[NodeWithScore]
    ) -> list[NodeWithScore]:
        with self._lock:
            coins = [self._dice.random() < 0.5 for _ in range(self._k)]
        drafted = team_draft(
            [hit.node.node_id for hit in first], [hit.node.node_id for hit in second], self._k, coins, self._names
        )
        nodes = {hit.node.node_id: hit.node for hit in (*second, *first)}
        shown = [NodeWithScore(node=nodes[i], score=1 / place) for place, i in enumerate(drafted, 1)]
        by = {node_id: team for node_id, team in drafted.items() if team is not None}
        self._log.observe(query, shown, id_=str(uuid.uuid4()), by=by)
        return shown


def team_draft(
    first: Sequence[str], second: Sequence[str], k: int, coins: Sequence[bool], names: tuple[str, str]
) -> dict[str, str | None]:
    """Ids of the interleaved list, in order, each with the team that chose it; None once a team has no more.

    Args:
        first: Ids by one ranking, best first.
        second: Ids by the other.
        k: Length of the list.
        coins: Shape ``(k,)``: whether the first begins a round.
        names: Of the two.
    """
    waiting = (list(dict.fromkeys(first)), list(dict.fromkeys(second)))
    drafted: dict[str, str | None] = {}
    coin = iter(coins)
    while len(drafted) < k:
        turns = (0, 1) if next(coin, True) else (1, 0)
        for turn in turns:
            for side in waiting:
                side[:] = [node_id for node_id in side if node_id not in drafted]
            if len(drafted) == k:
                break
            if all(waiting):
                drafted[waiting[turn][0]] = names[turn]
            else:
                rest = (waiting[0] or waiting[1])[: k - len(drafted)]
                return {**drafted, **dict.fromkeys(rest)}
    return drafted
