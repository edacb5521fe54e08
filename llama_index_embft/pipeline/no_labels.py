"""What to do where nobody's questions are known: a rule from one signal that the texts themselves give."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from llama_index_embft.errors import GenerationError
from llama_index_embft.retrievers.prior import prior_weight

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llama_index.core.schema import BaseNode
    from typing_extensions import Self

    from llama_index_embft.pipeline.evidence import Evidence
    from llama_index_embft.pipeline.parts import DenseModel, StackParts

# From this share on the base model finds nearly every passage by a sentence copied from it, and training on questions
# from the text only lost (docs/explanation/human-questions.md).
_NOTHING_TO_GAIN: Final = 0.9
_UNKNOWN_WEIGHT: Final = 0.5
_SAMPLE: Final = 600


def copied_share(nodes: Sequence[BaseNode], parts: StackParts, base: DenseModel, *, seed: int) -> float | None:
    """The share of chunks that the base model finds among the first ten by a sentence copied from them.

    It says, without any label, how well the model knows the language and the field: the best guess of how much there
    is to gain, and of how much weight BM25 deserves.

    Args:
        nodes: The chunks.
        parts: Searches them.
        base: The model in use.
        seed: Of the sample; at most 600 chunks are asked about.

    Returns:
        The share, or None where no chunk has a second sentence to find it by.
    """
    from llama_index_embft.generation import generate_extractive_pairs

    asked = list(nodes)
    if len(asked) > _SAMPLE:
        asked = random.Random(seed).sample(asked, _SAMPLE)
    try:
        copied = generate_extractive_pairs(asked, kinds=("cloze",), num_questions_per_chunk=1, seed=seed)
    except GenerationError:
        return None
    # A chunk of one sentence has no second one to find it by, and finding a text by itself says nothing.
    queries = [
        query
        for query, (chunk, *_) in copied.relevant_docs.items()
        if chunk in parts.corpus.corpus and copied.queries[query] != parts.corpus.bare_text(chunk).strip()
    ]
    if not queries:
        return None
    questions = parts.corpus.replace(
        queries={query: copied.queries[query] for query in queries},
        relevant_docs={query: copied.relevant_docs[query] for query in queries},
    )
    return parts.report(parts.dense(base, questions), questions, "copied").mean("hit_rate@10")


@dataclass(frozen=True)
class NoLabelRule:
    """What follows from the share of chunks found by a copied sentence.

    Attributes:
        share: See `copied_share`.
        weight: Share of the dense part in the mixture with BM25.
        trains: Whether training on questions from the text is worth trying.
    """

    share: float | None
    weight: float
    trains: bool

    @classmethod
    def of(cls, share: float | None) -> Self:
        """The rule for a share."""
        if share is None:
            return cls(None, _UNKNOWN_WEIGHT, trains=True)
        return cls(share, prior_weight(share), trains=share < _NOTHING_TO_GAIN)

    @property
    def sentence(self) -> str:
        """What was seen, for reports."""
        if self.share is None:
            return ""
        return f"The base model finds {self.share:.0%} of the chunks by a sentence copied from them."

    def why_not(self, evidence: Evidence, *, asked_for: bool) -> str:
        """Why nothing is trained; empty: something is.

        Args:
            evidence: Who asked the questions that train and prove.
            asked_for: Whether training was asked for, and is not merely what is usual.
        """
        if evidence.train_by != "text":
            return ""
        if not self.trains:
            return f"at {_NOTHING_TO_GAIN:.0%} or more found by a copied sentence, such training only lost"
        if evidence.proof_by == "text" and not asked_for:
            return "beside BM25, training on questions from the text gained nothing; name a method to try it"
        return ""
