"""A reranker of one's own as a candidate of the search: whether it can be trained, what it takes, and training it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from llama_index_embft.embeddings.describe import describe_base
from llama_index_embft.embeddings.encoding.encoder import as_encoder
from llama_index_embft.evaluation.tasks import hash_of
from llama_index_embft.pipeline.budget import in_words
from llama_index_embft.pipeline.choice import RERANK_DEPTH, reading_seconds
from llama_index_embft.pipeline.parts import is_trainable
from llama_index_embft.pipeline.trained.engines import trusts_code
from llama_index_embft.retrievers.late_interaction import LateInteractionReranker
from llama_index_embft.retrievers.loading import load_reranker
from llama_index_embft.retrievers.reranking import CrossEncoderReranker

if TYPE_CHECKING:
    from pathlib import Path

    from llama_index.core.base.embeddings.base import BaseEmbedding

    from llama_index_embft.pipeline.evidence import Evidence
    from llama_index_embft.pipeline.parts import StackParts

TRAIN_RERANKER: Final = "train"
"""What `tune` is told to have one trained."""
LATE_INTERACTION: Final = "late-interaction"
"""What `tune` is told to have the model in use read the hits token by token."""
_EPOCHS: Final = 2
_NEGATIVES: Final = 4
_MOST_VAL: Final = 100
_STEP_COST: Final = 4.0  # of a step forward, once more where memory asks for it, and back, in texts that are embedded


def why_no_reranker(base: BaseEmbedding, evidence: Evidence) -> str:
    """Why none can be trained, in words; empty where it can."""
    if evidence.train is None or evidence.train_by != "people":
        return "a reranker learns from what people asked, and too few of their questions are there to train on"
    if not is_trainable(base):
        return "the model in use keeps its weights to itself; name a cross-encoder instead"
    return ""


def reranker_seconds(a_text: float, evidence: Evidence) -> float:
    """What training one takes, and reading the hits of all questions with it afterwards.

    Args:
        a_text: Seconds to embed a text: a question with a passage costs about as much.
        evidence: The roles of the questions.
    """
    trained = 0 if evidence.train is None else len(evidence.train.queries)
    val = 0 if evidence.val is None else min(_MOST_VAL, len(evidence.val.queries))
    read = len(evidence.choose.queries) + sum(len(fold.prove.queries) for fold in evidence.folds)
    steps = _STEP_COST * _EPOCHS * trained * (1 + _NEGATIVES)
    return a_text * (steps + RERANK_DEPTH * (_EPOCHS * val + read))


def no_time_to_read(reranker: object, parts: StackParts, evidence: Evidence, left: float) -> str:
    """Why the hits of all questions cannot be read within so many seconds, in words; empty where they can."""
    questions = len(evidence.choose.queries) + evidence.tested
    needed = questions * reading_seconds(reranker, parts, evidence.choose, RERANK_DEPTH)
    if isinstance(reranker, LateInteractionReranker):  # it reads a passage once
        texts = [parts.corpus.corpus[doc] for doc in parts.ids]
        share = reranker.texts_to_read(questions * RERANK_DEPTH, texts) / (questions * RERANK_DEPTH)
        again = questions * reading_seconds(reranker, parts, evidence.choose, RERANK_DEPTH, known=True)
        needed = share * needed + (1 - share) * again
    if needed <= left:
        return ""
    available = in_words(max(1.0, left))
    return f"reading the hits of {questions:,} questions takes about {in_words(needed)}, and {available} are left"


def price_of_reading(reranker: object, parts: StackParts, evidence: Evidence) -> list[str]:
    """What the reranker adds to a question, as a note; none for one that is not ours to time."""
    if not isinstance(reranker, CrossEncoderReranker):
        return []
    questions = evidence.folds[0].prove
    depths = [depth for depth in (10, RERANK_DEPTH, 100) if depth <= len(parts.ids)] or [len(parts.ids)]
    found = [(depth, 1000 * reading_seconds(reranker, parts, questions, depth)) for depth in depths]
    said = ", ".join(f"{took:,.0f} ms with {depth} hits" for depth, took in found)
    sentence = f"The reranker adds to each question, here: {said}. The stack reads {RERANK_DEPTH}."
    if isinstance(reranker, LateInteractionReranker):
        again = 1000 * reading_seconds(reranker, parts, questions, depths[-1], known=True)
        sentence += f" With {depths[-1]} hits that it has in memory it is {again:,.0f} ms."
    return [sentence]


def train_reranker_candidate(
    base: BaseEmbedding, evidence: Evidence, dense_weight: float, folder: Path, *, seed: int, show_progress: bool
) -> CrossEncoderReranker:
    """Train a reranker from the model in use; one that an interrupted search finished is taken as it is.

    Args:
        base: The model in use.
        evidence: With questions by people to train on.
        dense_weight: Share of the dense part in the stack whose hits it will read.
        folder: Where it waits until the search is over.
        seed: Of all draws.
        show_progress: Show bars.

    Raises:
        TrainingError: Training failed.
        DatasetError: No question has a negative.
    """
    from llama_index_embft.finetune import CandidateSettings, RerankerFinetuneEngine, RerankerSettings

    assert evidence.train is not None
    name, trust = describe_base(base)["model_name"], trusts_code(base)
    candidates = CandidateSettings(
        depth=RERANK_DEPTH, dense_weight=dense_weight, negatives=_NEGATIVES, max_val_queries=_MOST_VAL
    )
    settings = RerankerSettings(epochs=_EPOCHS, seed=seed, candidates=candidates, trust_remote_code=trust)
    val = evidence.val
    identity = as_encoder(base, cache=None).fingerprint  # weights change under a name
    key = [name, identity, evidence.train.content_hash(), val and val.content_hash(), settings.as_record()]
    at = folder / f"reranker-{hash_of(key)}"
    if identity is None or not (at / "embft.json").is_file():
        RerankerFinetuneEngine(
            evidence.train, name, str(at), val, embed_model=base, settings=settings, show_progress=show_progress
        ).finetune()
    return load_reranker(at, trust_remote_code=trust)
