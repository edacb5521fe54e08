"""One proof of the choice on questions that had no part in it, and what follows for what is handed over."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from llama_index_embft.evaluation import compare
from llama_index_embft.pipeline.choice import Stack, switching_cost
from llama_index_embft.search.fusion import DEFAULT_FUSION

if TYPE_CHECKING:
    from llama_index_embft.evaluation import Comparison, RetrievalReport
    from llama_index_embft.pipeline.choice import Choosing
    from llama_index_embft.pipeline.evidence import Evidence
    from llama_index_embft.pipeline.parts import StackParts

_ABOUT_TEXT: Final = (
    "No questions by people were given, so nothing is proven: questions taken from the text flatter BM25 and a model "
    "trained on such. The stack follows a rule that was measured on questions that people asked of other documents "
    "(docs/explanation/human-questions.md). Give a few dozen questions of your users to choose and to prove."
)
_ABOUT_LLM: Final = (
    "The questions were written by an LLM: it tells systems apart, but its questions share more words with the "
    "passages than people's, so the figures are too high for all."
)


@dataclass(frozen=True)
class Verdict:
    """What the proof says, and what is handed over for it.

    Attributes:
        chosen: The stack that is handed over.
        comparison: It against the model in use.
        proof: The reports behind that: ``"base"``, ``"bm25"``, ``"chosen"``, and ``"dearer"`` where a dearer one was
            not proven.
        notes: What was seen on the way.
    """

    chosen: Stack
    comparison: Comparison
    proof: dict[str, RetrievalReport]
    notes: tuple[str, ...] = ()


def prove(choosing: Choosing, parts: StackParts, evidence: Evidence, reranker: Any, *, seed: int) -> Verdict:
    """Compare the chosen stack with the model in use, once.

    A model for which every document would have to be embedded again has to prove itself, against the model in use and
    against the best stack over it; where it does not, that stack is proven and handed over instead. A stack that did
    worse is never handed over.

    Args:
        choosing: The candidates.
        parts: Searches the corpus.
        evidence: The roles of the questions.
        reranker: The one among the candidates; None: there is none.
        seed: Of the intervals.
    """
    chosen, proof = choosing.final(), choosing.proof()
    comparison = compare(proof["base"], proof["chosen"], seed=seed)
    notes = []
    costs = {proof["chosen"].label: switching_cost(chosen, choosing.base, parts, evidence, reranker)}
    if evidence.proof_by == "text":
        # What the test says of such questions is no reason for anything, so its sentence does not stand here.
        first = replace(comparison.systems[0], decision="not proven", reasons=(_ABOUT_TEXT,))
        comparison = replace(comparison, systems=(first,))
    elif evidence.proof_by == "llm":
        notes.append(_ABOUT_LLM)
    anew = chosen.weight > 0 and chosen.model.moves_documents
    if anew and evidence.proof_by != "text" and comparison.decision != "do not adopt":
        cheaper = choosing.proof(without_new_documents=True)["chosen"]
        proven = comparison.decision == "adopt" and compare(cheaper, proof["chosen"], seed=seed).decision == "adopt"
    else:
        cheaper, proven = proof["chosen"], True
    if not proven:
        notes.append(
            f"{chosen.label} was best where the choice was made, and is not proven to be better than the best stack "
            "over the model in use. It would need every document embedded again, so that stack is handed over."
        )
        chosen = choosing.final(without_new_documents=True)
        dearer = replace(proof["chosen"], label=f"dearer: {proof['chosen'].label}")
        proof = {**proof, "chosen": cheaper, "dearer": dearer}
        # Both are tested, and p is corrected for two; the verdict is about what is handed over.
        comparison = compare(proof["base"], cheaper, dearer, seed=seed).amended(chosen=cheaper.label)
        costs = {cheaper.label: switching_cost(chosen, choosing.base, parts, evidence, reranker)}
    keep = comparison.decision == "do not adopt"
    if keep:
        chosen = Stack(choosing.base, 1.0, DEFAULT_FUSION)
        notes.append("The stack did worse than the model in use, which is therefore kept as it is.")
    # Every artefact says what is handed over, where that is not what the verdict alone would advise.
    comparison = comparison.amended(costs=costs, chosen="" if keep else comparison.systems[0].label)
    return Verdict(chosen, comparison, proof, tuple(notes))
