"""Which chunks are asked about, where asking about all of them would cost too much."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

import numpy as np

from llama_index_embft._core.checks import check_choice, check_number
from llama_index_embft._core.vectors import unit_rows
from llama_index_embft.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from llama_index_embft.generation.passages import Passage

Sampling: TypeAlias = Literal["random", "clustered"]

# Of a cluster about so many chunks are drawn, which leaves chance some room; and no more clusters than DUQGen has.
_CHUNKS_A_CLUSTER: Final = 4
_MOST_CLUSTERS: Final = 1000
# A cosine to the centroid that is 0.1 higher makes a chunk 2.7 times as likely to be drawn.
_TEMPERATURE: Final = 0.1
_BATCH: Final = 4096


@dataclass(frozen=True)
class ChunkSampling:
    """A part of the chunks to ask about; all stay in the corpus.

    Attributes:
        max_chunks: Chunks to ask about, where there are more.
        sampling: ``"random"``, or ``"clustered"``: the chunks are clustered by k-means over their vectors, each cluster
            gives chunks in proportion to its size and at least one, and those near its centroid are drawn more often
            (DUQGen, arXiv 2404.02489). So a few questions cover the corpus, small topics too.
        embed_model: A LlamaIndex embedding model (or SentenceTransformer) for ``"clustered"``; it embeds every chunk.
        seed: Of the draw. The same chunks, model and seed give the same sample.

    Raises:
        ConfigError: A value is not allowed, or there is no model to cluster by.
    """

    max_chunks: int
    sampling: Sampling = "random"
    embed_model: Any = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_number("max_chunks", self.max_chunks, at_least=1)
        check_number("seed", self.seed, at_least=0)
        check_choice("sampling", self.sampling, get_args(Sampling))
        if (self.sampling == "clustered") != (self.embed_model is not None):
            raise ConfigError(
                "`sampling` is 'clustered', and there is no `embed_model` to cluster by; give one, or sample 'random'."
                if self.embed_model is None
                else "`embed_model` is for `sampling='clustered'`; say so, or leave the model out."
            )

    def draw(self, passages: Sequence[Passage], *, show_progress: bool = False) -> list[Passage]:
        """Draw from the passages; all of them where there are no more than `max_chunks`.

        Returns:
            In the order of the passages.
        """
        if len(passages) <= self.max_chunks:
            return list(passages)
        dice = np.random.default_rng(self.seed)
        if self.sampling == "random":
            drawn = dice.choice(len(passages), self.max_chunks, replace=False)
        else:
            from llama_index_embft.embeddings.encoding.encoder import as_encoder

            encoder = as_encoder(self.embed_model, show_progress=show_progress)
            vectors = unit_rows(encoder.encode_documents([passage.embedded for passage in passages]))
            drawn = self._by_cluster(vectors, dice)
        return [passages[row] for row in sorted(drawn.tolist())]

    def _by_cluster(self, vectors: NDArray[np.float32], dice: np.random.Generator) -> NDArray[np.int64]:
        from sklearn.cluster import MiniBatchKMeans

        wanted = max(1, min(self.max_chunks // _CHUNKS_A_CLUSTER, _MOST_CLUSTERS))
        kmeans = MiniBatchKMeans(wanted, random_state=self.seed, batch_size=_BATCH, n_init=3).fit(vectors)
        centroids = unit_rows(np.asarray(kmeans.cluster_centers_, np.float32))
        clusters, labels, sizes = np.unique(kmeans.labels_, return_inverse=True, return_counts=True)
        nearness = np.einsum("ij,ij->i", vectors, centroids[clusters[labels]])
        # Gumbel noise on log-weights: the highest are a draw by these weights without putting back.
        order = np.lexsort((-(nearness / _TEMPERATURE + dice.gumbel(size=len(vectors))), labels))
        starts = np.cumsum(sizes) - sizes
        shares = _shares(sizes, self.max_chunks)
        return np.concatenate([order[a : a + n] for a, n in zip(starts, shares, strict=True)])


def _shares(sizes: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """Divide ``total``, at least one a cluster, among clusters in proportion to their sizes, by largest remainders."""
    rest = total - len(sizes)
    exact = (sizes - 1) * (rest / max(1, int(sizes.sum()) - len(sizes)))
    shares = np.floor(exact).astype(np.int64)
    most = np.argsort(-(exact - shares), kind="stable")[: rest - int(shares.sum())]
    shares[most] += 1
    return np.asarray(shares + 1, np.int64)
