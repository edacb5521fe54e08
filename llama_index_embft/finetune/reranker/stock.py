"""The cross-encoder engine under its name and with its arguments of llama-index-finetuning."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from llama_index_embft._core.checks import check_choice
from llama_index_embft.errors import ConfigError, DatasetError
from llama_index_embft.export.hub import push_to_hub
from llama_index_embft.finetune.reranker.candidates import FirstStageHits
from llama_index_embft.finetune.reranker.engine import RerankerFinetuneEngine
from llama_index_embft.finetune.reranker.rows import RerankerRow
from llama_index_embft.finetune.reranker.settings import LOSSES, RerankerSettings
from llama_index_embft.finetune.reranker.validation import RerankValidation
from llama_index_embft.generation.reranking.samples import samples_to_dataset, usable_samples
from llama_index_embft.search.topk import TopK

if TYPE_CHECKING:
    from llama_index.core.postprocessor import SentenceTransformerRerank

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.generation.reranking.samples import CrossEncoderFinetuningDatasetSample

logger = logging.getLogger(__name__)

_BY_DEFAULT: Final = "bce"


class CrossEncoderFinetuneEngine(RerankerFinetuneEngine):
    """Train a cross-encoder on labelled pairs, as llama-index-finetuning's class of this name does.

    The arguments are those of that class and mean the same. With a validation set the weights are kept that rank each
    question's passages best (nDCG@10), those before training included. `RerankerFinetuneEngine`
    trains on the hits of a retriever, and learns how much the reranker should count beside it.

    Args:
        dataset: Labelled pairs: a question, a passage, and 1 or 0; see `generate_ce_fine_tuning_dataset`.
        model_id: Folder or hub name of a cross-encoder, or of an encoder, which gets a new scoring layer.
        model_output_path: Folder to save to.
        batch_size: Pairs a step; with a loss over lists, questions a step.
        val_dataset: Labelled pairs that choose the weights; None keeps the last ones.
        loss: ``"bce"``, ``"list_net"``, ``"lambda"`` or ``"rank_net"``, or a function that makes a loss of
            sentence-transformers of the model; None: binary cross-entropy. (The old class took the argument, and did
            not use it.)
        epochs: Passes over the pairs.
        show_progress_bar: Show bars.
        evaluation_steps: Steps between two evaluations.
        settings: Everything else; None takes the defaults.

    Raises:
        ConfigError: A value is out of range.
        DatasetError: There is no pair that can be used, or all have one kind of score.
        ModelError: The model cannot be loaded, or gives several scores.
    """

    def __init__(
        self,
        dataset: list[CrossEncoderFinetuningDatasetSample],
        model_id: str = "cross-encoder/ms-marco-MiniLM-L-12-v2",
        model_output_path: str = "exp_finetune",
        batch_size: int = 10,
        val_dataset: list[CrossEncoderFinetuningDatasetSample] | None = None,
        loss: Any = None,
        epochs: int = 2,
        show_progress_bar: bool = True,
        evaluation_steps: int = 50,
        *,
        settings: RerankerSettings | None = None,
    ) -> None:
        named = _BY_DEFAULT if loss is None else loss
        if isinstance(named, str):
            check_choice("loss", named, LOSSES)
        elif not callable(named) or (hasattr(named, "forward") and not isinstance(named, type)):
            raise ConfigError(
                f"`loss` is a {type(loss).__name__}; name one of {', '.join(LOSSES)}, or give a function that makes a "
                "loss of sentence-transformers of the model, such as the class LambdaLoss."
            )
        changes: dict[str, Any] = {"batch_size": batch_size, "epochs": epochs, "evaluation_steps": evaluation_steps}
        changes["loss"] = named if isinstance(named, str) else _BY_DEFAULT
        self._samples = usable_samples(dataset)
        if not self._samples:
            raise DatasetError(
                "The training set has no pair that can be used; make some with generate_ce_fine_tuning_dataset."
            )
        if len({sample.score > 0 for sample in self._samples}) == 1:
            raise DatasetError(
                f"All {len(self._samples)} pairs of the training set have one kind of label (score "
                f"{self._samples[0].score}), which teaches nothing; add pairs of the other kind."
            )
        super().__init__(
            samples_to_dataset(self._samples),
            model_id,
            model_output_path,
            None if val_dataset is None else samples_to_dataset(val_dataset, on_error="drop"),
            settings=replace(settings or RerankerSettings(), kind="cross-encoder", **changes),
            loss=None if isinstance(named, str) else named,
            show_progress=show_progress_bar,
        )

    def push_to_hub(self, repo_id: str | None = None, *, private: bool = True, token: str | None = None) -> str:
        """Upload what `finetune` saved to the Hugging Face hub.

        Args:
            repo_id: ``owner/name``.
            private: Make a new repository private.
            token: Access token; None: ``HF_TOKEN``, else what ``hf auth login`` has stored.

        Returns:
            Address of the repository.

        Raises:
            ConfigError: There is no name, no token, or no saved result.
            OutputError: The hub refuses, or cannot be reached.
        """
        if not repo_id:
            raise ConfigError("`repo_id` is not given; name the repository to upload to: owner/name.")
        return push_to_hub(self.model_output_path, repo_id, private=private, token=token)

    def get_finetuned_model(  # type: ignore[override]  # the old class's signature
        self, model_name: str | None = None, top_n: int = 3
    ) -> SentenceTransformerRerank:
        """LlamaIndex's reranker over the trained model.

        Args:
            model_name: Folder or hub name; None: the folder that `finetune` wrote.
            top_n: Nodes to return.
        """
        from llama_index.core.postprocessor import SentenceTransformerRerank

        return SentenceTransformerRerank(
            model=model_name or self.model_output_path,
            top_n=top_n,
            device=self.settings.device,
            trust_remote_code=self.settings.trust_remote_code,
        )

    def _rows(self) -> tuple[list[RerankerRow], int]:
        """The pairs as they are: each by itself, or with a loss over lists those of a question together."""
        if self._loss is None and self.settings.loss == "bce":
            return [RerankerRow(one.query, [one.context], [float(one.score)]) for one in self._samples], 0
        asked: dict[str, list[CrossEncoderFinetuningDatasetSample]] = {}
        for one in self._samples:
            asked.setdefault(one.query, []).append(one)
        lists = [some for some in asked.values() if len({one.score for one in some}) > 1]
        dropped = len(asked) - len(lists)
        if not lists:
            raise DatasetError(
                "No question of the training set has passages of both kinds, which a loss over lists compares; use "
                'loss="bce", or label more passages.'
            )
        if dropped:
            logger.warning("%d of %d questions have passages of one kind only, and are left out.", dropped, len(asked))
        return [
            RerankerRow(some[0].query, [one.context for one in some], [float(one.score) for one in some])
            for some in lists
        ], dropped

    def _validation(self, dataset: EmbeddingQAFinetuneDataset | None) -> RerankValidation | None:
        if dataset is None:
            return None
        return RerankValidation(dataset, _labelled(dataset), alone=True)


def _labelled(dataset: EmbeddingQAFinetuneDataset) -> FirstStageHits:
    """The labelled passages of each question as what there is to rank, those that do not answer it first.

    Of equal scores the earlier one stays in front, and a model that says the same of all is worth nothing.
    """
    ids = sorted(dataset.corpus, reverse=True)
    row_of = {doc: row for row, doc in enumerate(ids)}
    lists = [
        [row_of[doc] for doc in (*dataset.negative_docs.get(query, ()), *docs)]
        for query, docs in dataset.relevant_docs.items()
    ]
    rows = np.full((len(lists), max(map(len, lists))), -1, dtype=np.int64)
    for place, some in enumerate(lists):
        rows[place, : len(some)] = some
    return FirstStageHits(ids, list(dataset.relevant_docs), TopK(rows, np.zeros(rows.shape, dtype=np.float32)))
