"""What a search for the best retriever leaves: the stack, its proof, and a retriever for any index."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from llama_index_embft._core.files import atomic_write_text, write_folder_atomically
from llama_index_embft.embeddings.describe import describe_base
from llama_index_embft.embeddings.drift import DriftEmbedding
from llama_index_embft.embeddings.encoding.encoder import as_encoder
from llama_index_embft.embeddings.identity import identify, known_identity
from llama_index_embft.embeddings.loading import load_embed_model
from llama_index_embft.errors import ConfigError, ModelError
from llama_index_embft.index.changes import embedded_text
from llama_index_embft.index.identity import verify_vectors
from llama_index_embft.index.stamp import StoreError
from llama_index_embft.index.stores.opening import open_table
from llama_index_embft.pipeline.budget import in_words
from llama_index_embft.pipeline.choice import RERANK_DEPTH
from llama_index_embft.pipeline.parts import DEPTH
from llama_index_embft.pipeline.status import candidate_table
from llama_index_embft.pipeline.trained.engines import save_base, trusts_code, write_decision
from llama_index_embft.retrievers import StackRetriever, StackSettings, load_retriever, save_retriever
from llama_index_embft.retrievers.loading import as_postprocessor

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from llama_index.core import VectorStoreIndex
    from llama_index.core.base.base_query_engine import BaseQueryEngine
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.llms import LLM
    from llama_index.core.schema import BaseNode

    from llama_index_embft._core.tables import TextTable
    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.evaluation import Comparison, RetrievalReport
    from llama_index_embft.generation import Realism
    from llama_index_embft.pipeline.choice import Stack
    from llama_index_embft.pipeline.evidence import Evidence
    from llama_index_embft.pipeline.sources import TuningSource
    from llama_index_embft.pipeline.status import CandidateRow

RECORD: Final = "tune.json"
_VERIFIED: Final = 3  # nodes that are embedded again


def check_can_be_saved(base: BaseEmbedding, identity: str | None) -> None:
    """Find out before the work that a result over a model could not be saved.

    Args:
        base: The model in use.
        identity: What it is called, where its class is not known.

    Raises:
        ModelError: Its class is not known, and it has no name.
        ConfigError: It has a name, and its class is known.
    """
    if identity is None and known_identity(base, "query") is None:
        raise ModelError(
            f"Nothing says what decides the vectors of {base.model_name}, whose class ({type(base).__name__}) is not "
            "known here, so a result over it could not be checked when it is loaded. Give it a name: "
            "settings=TuneSettings(identity='...'), or result.save(folder, identity='...'); and change that whenever "
            "its vectors change."
        )
    identify(base, "query", identity=identity)


@dataclass(frozen=True)
class TuneResult:
    """The best retriever that was found, and how far that is proven.

    Attributes:
        chosen: What the retriever is made of.
        comparison: The stack against the model in use, on questions that had no part in the choice: the one record of
            the decision, its reasons and warnings.
        rows: All candidates, on the questions that chose.
        proof: The reports behind `comparison`: ``"base"``, ``"bm25"`` and ``"chosen"``.
        evidence: Which questions trained, chose and proved.
        source: What was searched.
        base: The model in use before.
        reranker: On top of the stack, if it won.
        copied_share: Share of chunks that the base model finds by a sentence copied from them; None: not looked at.
        realism: How the made-up questions look beside real ones; None where none were made.
        seconds: Seconds by phase, and in all (``"total"``).
        asked: What the search was asked for: ``"methods"``, ``"budget"`` in seconds, ``"seed"``.
        folder: Where it was saved; None: nowhere yet.
        identity: What the model in use was called on saving, where its class is not known.
    """

    chosen: Stack
    comparison: Comparison
    rows: tuple[CandidateRow, ...]
    proof: Mapping[str, RetrievalReport]
    evidence: Evidence = field(repr=False)
    source: TuningSource = field(repr=False)
    base: BaseEmbedding = field(repr=False)
    reranker: Any = field(default=None, repr=False)
    copied_share: float | None = None
    realism: Realism | None = field(default=None, repr=False)
    seconds: Mapping[str, float] = field(default_factory=dict, repr=False)
    asked: Mapping[str, Any] = field(default_factory=dict, repr=False)
    folder: Path | None = None
    identity: str | None = field(default=None, repr=False)

    @property
    def embed_model(self) -> BaseEmbedding:
        """The embedding model of the stack: for the documents of an index, and for the queries."""
        return self.chosen.model.embed_model

    @property
    def decision(self) -> str:
        """``"adopt"``, ``"not proven"`` or ``"do not adopt"``."""
        return self.comparison.decision

    @property
    def reembeds(self) -> bool:
        """Whether an index of the model in use has to be embedded again."""
        return self.chosen.weight > 0 and self.chosen.model.moves_documents

    @property
    def settings(self) -> StackSettings:
        """The stack's settings, for a `StackRetriever`."""
        return StackSettings(
            dense_weight=self.chosen.weight, fusion=self.chosen.fusion, depth=DEPTH, rerank_depth=RERANK_DEPTH
        )

    def retriever(
        self, index: VectorStoreIndex | Sequence[BaseNode] | None = None, *, similarity_top_k: int = 10, **kwargs: Any
    ) -> StackRetriever:
        """The stack over an index.

        Args:
            index: An index whose documents `embed_model` embedded; or nodes, which are embedded here; None: the texts
                that were searched.
            similarity_top_k: Nodes to return.
            **kwargs: For `StackRetriever`.

        Raises:
            ConfigError: The index needs its documents embedded again.
            ModelError: Another model embedded the index: three of its nodes are embedded again.
        """
        from llama_index.core import VectorStoreIndex

        if not isinstance(index, VectorStoreIndex):
            nodes = self.source.nodes if index is None else index
            index = VectorStoreIndex(self._embedded(nodes, self.embed_model), embed_model=self.embed_model)
        elif self.reembeds and index is self.source.index:
            raise ConfigError(
                "The chosen model embeds documents differently, so this index cannot be searched with it; embed it "
                "again: reembed_index(index, result.embed_model), or build one from its nodes."
            )
        elif index is not self.source.index and self.chosen.weight > 0:
            self._check_vectors(index)
        return self._over(index, self.embed_model, similarity_top_k=similarity_top_k, **kwargs)

    def _check_vectors(self, index: VectorStoreIndex) -> None:
        """Another model's vectors would be searched in silence; a store that cannot be read is believed."""
        if isinstance(self.embed_model, DriftEmbedding):  # which searches another model's vectors
            return
        with suppress(StoreError):
            verify_vectors(open_table(index), self.embed_model, _VERIFIED)

    def _over(self, index: VectorStoreIndex, embed_model: BaseEmbedding, **kwargs: Any) -> StackRetriever:
        reranker = None if self.reranker is None else as_postprocessor(self.reranker)
        return StackRetriever(index, self.settings, embed_model=embed_model, reranker=reranker, **kwargs)

    def query_engine(
        self, llm: LLM, index: VectorStoreIndex | Sequence[BaseNode] | None = None, **kwargs: Any
    ) -> BaseQueryEngine:
        """A query engine that answers from what the stack finds.

        Args:
            llm: Writes the answers.
            index: See `retriever`.
            **kwargs: For `retriever`.
        """
        from llama_index.core.query_engine import RetrieverQueryEngine

        return RetrieverQueryEngine.from_args(self.retriever(index, **kwargs), llm=llm)

    def _index_by(self, embed_model: BaseEmbedding) -> VectorStoreIndex:
        """The texts that were searched, as an index."""
        from llama_index.core import VectorStoreIndex

        return VectorStoreIndex(self._embedded(self.source.nodes, embed_model), embed_model=embed_model)

    @staticmethod
    def _embedded(nodes: Sequence[BaseNode], embed_model: BaseEmbedding) -> list[BaseNode]:
        """Nodes with vectors that the cache has already."""
        vectors = as_encoder(embed_model).encode_documents([embedded_text(node) for node in nodes])
        return [node.model_copy(update={"embedding": vec.tolist()}) for node, vec in zip(nodes, vectors, strict=True)]

    def save(self, folder: str | os.PathLike[str], *, identity: str | None = None) -> TuneResult:
        """Write everything to a folder; an earlier result there is replaced.

        ``report.html`` and ``report.json``: the comparison. ``retriever/``: for `load_retriever`. ``model/``: the
        embedding model. ``tune.json``: candidates, times and what was seen. ``dataset/`` and ``reports/``: the
        questions in their roles, and the scores of each.

        Args:
            folder: Where to.
            identity: For an embedding model of a class that is not known, see `TuneSettings`; `load_retriever` wants
                the same, and `load_embed_model` the model below and ``force=True``.

        Returns:
            The same result, with `folder`.

        Raises:
            ModelError: The embedding model is of a class that is not known, and has no name; or a trained model that
                was kept in the cache is gone.
            OutputError: The folder cannot be written, or holds files of your own.
        """
        identity = self.identity if identity is None else identity
        check_can_be_saved(self.base, identity)
        waiting = self.chosen.model.folder
        if waiting is not None and not waiting.is_dir():
            raise ModelError(
                f"The trained model of this result is gone ({waiting}): it was cleared away when another search over "
                "these texts was saved, or its folder was moved. Search again, with output_path."
            )
        with write_folder_atomically(folder) as target:
            self._save_model(target / "model")
            # Over the model as it will be loaded, so that the retriever knows it again.
            model = self._saved_model(target / "model")
            save_retriever(self._over(self._index_by(model), model), target / "retriever", identity=identity)
            self.comparison.to_json(target / "report.json")
            self.comparison.to_html(target / "report.html", self.proving())
            for name, report in self.proof.items():
                report.to_json(target / "reports" / f"{name}.json")
            self._save_questions(target / "dataset")
            atomic_write_text(target / RECORD, json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n")
        dense = self.chosen.model
        if dense.folder is not None:  # where it waited is cleared away when a search is over
            dense = replace(dense, folder=Path(folder) / "model")
        return replace(self, folder=Path(folder), identity=identity, chosen=replace(self.chosen, model=dense))

    def reloaded(self) -> StackRetriever:
        """The saved retriever, loaded as its user will, over the texts that were searched.

        Raises:
            ConfigError: It has not been saved.
        """
        if self.folder is None:
            raise ConfigError("This result has no folder yet; save(folder) first.")
        index = self._index_by(self._saved_model(self.folder / "model"))
        trust = trusts_code(self.base)
        return load_retriever(self.folder / "retriever", index, identity=self.identity, trust_remote_code=trust)

    def _saved_model(self, folder: Path) -> BaseEmbedding:
        trust = trusts_code(self.base)
        known = describe_base(self.base)["class_name"] == "HuggingFaceEmbedding"
        # By force where nothing tells the model from others: it is the very one that was searched with.
        force = known_identity(self.base, "query") is None
        below = None if known else self.base
        return load_embed_model(folder, base_embed_model=below, force=force, trust_remote_code=trust)

    def _save_model(self, folder: Path) -> None:
        if self.chosen.model.folder is not None:
            shutil.copytree(self.chosen.model.folder, folder)
        else:
            save_base(folder, self.base, self.source.corpus, self.evidence.choose)
        write_decision(folder, self.comparison)

    def proving(self) -> EmbeddingQAFinetuneDataset:
        """The questions that the comparison is over."""
        first, *others = (fold.prove for fold in self.evidence.folds)
        for other in others:
            first = first.merge(other)
        return first

    def _save_questions(self, folder: Path) -> None:
        parts = {"train": self.evidence.train, "choose": self.evidence.choose, "prove": self.proving()}
        for name, part in parts.items():
            if part is not None:
                part.save_json(folder / f"{name}.json")

    def to_dict(self) -> dict[str, Any]:
        """The search as plain data."""
        return {
            "format": 1,
            "kind": "tune",
            "decision": self.decision,
            "stack": {
                "model": self.chosen.model.name,
                "dense_weight": self.chosen.weight,
                "fusion": self.chosen.fusion,
                "reranked": self.chosen.reranked,
                "rerank_weight": self.chosen.rerank_weight,
                "reembeds": self.reembeds,
            },
            "asked": dict(self.asked),
            "command": self.comparison.command,
            "date": self.comparison.date,
            "versions": dict(self.comparison.versions),
            "base": describe_base(self.base),
            "candidates": [asdict(row) for row in self.rows],
            "questions": {
                "trained_on": 0 if self.evidence.train is None else len(self.evidence.train.queries),
                "trained_on_by": self.evidence.train_by,
                "chosen_on": len(self.evidence.choose.queries),
                "proven_on": self.evidence.tested,
                "proven_on_by": self.evidence.proof_by,
                "folds": len(self.evidence.folds),
            },
            "copied_share": self.copied_share,
            "realism": None if self.realism is None else self.realism.to_dict(),
            "seconds": {name: round(value, 2) for name, value in self.seconds.items()},
            "notes": list(self.comparison.notes),
        }

    def table(self) -> TextTable:
        """The candidates."""
        return candidate_table(self.rows)

    def __str__(self) -> str:
        return (
            f"{self.chosen.label}: {self.decision}, {in_words(self.seconds.get('total', 0.0))}\n"
            f"{self.comparison.verdict}"
        )
