"""Hard negatives: documents that a model takes for an answer and that are none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_index_embft.mining.parsing import DEFAULT_STRATEGIES
from llama_index_embft.mining.session import MiningSession
from llama_index_embft.mining.vectors import given_vectors
from llama_index_embft.search.approximate import ApproximateIndex
from llama_index_embft.search.topk import ExactIndex, descending

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llama_index.core.llms import LLM

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.mining.mined import MinedDataset
    from llama_index_embft.mining.settings import MiningSettings


def mine_hard_negatives(
    dataset: EmbeddingQAFinetuneDataset,
    embed_model: Any,
    strategies: Sequence[Any] | str = DEFAULT_STRATEGIES,
    num_negatives: int = 15,
    *,
    llm: LLM | None = None,
    relabel: bool = False,
    seed: int = 0,
    device: Any = None,
    cache: Any = "default",
    batch_size: int | None = None,
    show_progress: bool = False,
    settings: MiningSettings | None = None,
) -> MinedDataset:
    """Find hard negatives for every query.

    A document is never a negative of a query that it answers, nor one that is exactly or nearly the same as such a
    document, nor a chunk that shares text with one (the splitter's overlap, parents and children), nor the query's own
    text.

    Deterministic: the same inputs and seed give the same negatives, on any device and with any ``memory``.

    Args:
        dataset: Queries, documents and positives; not changed. Negatives that it has are replaced.
        embed_model: A LlamaIndex embedding, a SentenceTransformer, an `Encoder`, or ready embeddings: a pair (of the
            queries, of the corpus), each an array with a row for each id in the data set's order, or a mapping from id
            to vector, such as ``index.vector_store.data.embedding_dict``.
        strategies: Where candidates come from and which are dropped; texts as in `parse_strategy`, or objects. Sources
            take turns; filters apply to all. Filters alone apply to the 100 best documents. The default takes the
            hardest among 100 that score at most 95 % of the lowest positive.
        num_negatives: Negatives wanted for each query.
        llm: The LLM of the strategy ``"judge"``.
        relabel: A candidate that a cross-encoder or judge finds relevant becomes a further positive (RLHN); otherwise
            it is only dropped.
        seed: Of every random choice, at least 0.
        device: Where to search; None takes a GPU if there is one.
        cache: Where embeddings are kept, see `as_encoder`.
        batch_size: Texts a batch, see `as_encoder`.
        show_progress: Show progress bars for long work.
        settings: What is kept out, how to search, whether to pad; None for the defaults of `MiningSettings`.

    Returns:
        A copy with ``negative_docs``, hardest first within each source, with ``teacher_scores`` of a cross-encoder, and
        with ``relabel`` also with more ``relevant_docs``. Its ``report`` says what was done.

    Raises:
        ConfigError: An argument or a strategy is not allowed; embeddings do not fit the data set or hold NaN; the
            corpus has no more documents than negatives are wanted; or no negative is found at all.
        ModelError: The embedding model or the cross-encoder failed.
    """
    session = MiningSession(
        dataset,
        strategies,
        num_negatives,
        llm=llm,
        relabel=relabel,
        seed=seed,
        show_progress=show_progress,
        settings=settings,
    )
    if isinstance(embed_model, (tuple, list)):
        queries, corpus = given_vectors(dataset, embed_model)
    else:
        from llama_index_embft.embeddings.encoding.encoder import as_encoder

        encoder = as_encoder(embed_model, cache=cache, batch_size=batch_size, show_progress=show_progress)
        corpus = encoder.encode_documents(list(dataset.corpus.values()))
        queries = encoder.encode_queries(list(dataset.queries.values()))
    how, order = session.settings, descending(list(dataset.corpus))
    if how.search == "exact":
        exact = ExactIndex(corpus, similarity=how.similarity, device=device, memory=how.memory, tie_order=order)
        return session.mine(queries, corpus, exact)
    index = ApproximateIndex(corpus, how.search, similarity=how.similarity, memory=how.memory, tie_order=order)
    return session.mine(queries, corpus, index, index_name=how.search)
