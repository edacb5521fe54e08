"""Fine-tune an adapter over any embedding model: no weights needed, seconds to train, the index stays as it is."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llama_index_embft._files import check_output_folder
from llama_index_embft.embeddings.adapter import apply_adapter, linear_adapter, save_adapter
from llama_index_embft.embeddings.encode import as_encoder
from llama_index_embft.embeddings.loading import load_embed_model
from llama_index_embft.errors import ConfigError, DatasetError
from llama_index_embft.finetune.adapter_training import AdapterSettings, train_adapter
from llama_index_embft.finetune.base import (
    SELECTION_METRIC,
    BaseFinetuneEngine,
    FinetuneResult,
    frozen_base_record,
    peak_memory_bytes,
)
from llama_index_embft.finetune.validation import Validation

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from torch import nn

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.embeddings.cache import EmbeddingCache
    from llama_index_embft.finetune.validation import BestState


class EmbeddingAdapterFinetuneEngine(BaseFinetuneEngine):
    """Train a query-side adapter on the embeddings of a frozen model.

    The texts are embedded once, through the cache; training then works on vectors alone, each query against all
    documents that have a training query. With a validation set the state with the best nDCG@10 is kept, the one before
    training included, so the result is never worse on it than the base model.

    The arguments up to `bias` are those of llama-index-finetuning's class of this name and mean the same; the
    defaults of `batch_size` and `epochs` are ours.

    Args:
        dataset: Training set.
        embed_model: Any LlamaIndex embedding; it is not changed.
        batch_size: Query-document pairs a step. Negatives do not depend on it: every step sees all candidates.
        epochs: Passes over the training set at most; `patience` may end it sooner.
        adapter_model: Module to train, ``(n, dim)`` to ``(n, dim)``; None is a linear layer that starts as the
            identity.
        dim: Dimension of the embeddings; None: as the model returns them. Another value is an error.
        device: Torch device of the training; None takes a GPU if there is one.
        model_output_path: Folder to save to.
        model_checkpoint_path: Folder for adapters saved on the way, each loadable by itself; None saves none.
        checkpoint_save_steps: Steps between two of them.
        verbose: Show progress bars.
        bias: Give the linear layer a bias.
        val_dataset: Chooses the best epoch; None keeps the last one.
        negatives: What a query is compared with: ``"asked"``, the documents that some training query is about, or
            ``"corpus"``, all documents. Documents without a training query can only ever be pushed away, and are just
            those that later queries will ask about: with them, held-out queries gained nothing (see
            ``docs/explanation/adapter.md``).
        learning_rate: Peak of a linear schedule with 10 % warm-up.
        temperature: Divides the cosine before the softmax.
        pull_to_start: Strength of the pull back to the start (the identity), in units of the learning rate.
        patience: Epochs without a better validation score before it stops.
        max_grad_norm: Gradients are clipped to this norm.
        optimizer_class: Torch optimizer class; None: AdamW.
        optimizer_params: Its arguments; ``lr`` there wins over `learning_rate`.
        seed: Order of the pairs.
        cache: Where embeddings are kept, see `as_encoder`.

    Raises:
        ConfigError: An argument is out of range.
        DatasetError: The training set has no query.
    """

    def __init__(
        self,
        dataset: EmbeddingQAFinetuneDataset,
        embed_model: BaseEmbedding,
        batch_size: int = 64,
        epochs: int = 40,
        adapter_model: nn.Module | None = None,
        dim: int | None = None,
        device: str | None = None,
        model_output_path: str = "model_output",
        model_checkpoint_path: str | None = None,
        checkpoint_save_steps: int = 100,
        verbose: bool = False,
        bias: bool = False,
        *,
        val_dataset: EmbeddingQAFinetuneDataset | None = None,
        negatives: Literal["asked", "corpus"] = "asked",
        learning_rate: float = 1e-4,
        temperature: float = 0.03,
        pull_to_start: float = 0.0,
        patience: int = 8,
        max_grad_norm: float = 1.0,
        optimizer_class: type[torch.optim.Optimizer] | None = None,
        optimizer_params: dict[str, Any] | None = None,
        seed: int = 0,
        cache: EmbeddingCache | Literal["default"] | None = "default",
    ) -> None:
        params = dict(optimizer_params or {})
        positive = {
            "batch_size": batch_size,
            "epochs": epochs,
            "temperature": temperature,
            "patience": patience,
            "checkpoint_save_steps": checkpoint_save_steps,
            "learning_rate": params.get("lr", learning_rate),
            "max_grad_norm": max_grad_norm,
        }
        for name, value in positive.items():
            if not value > 0:
                raise ConfigError(f"{name} is {value}; it must be above 0.")
        if negatives not in ("asked", "corpus"):
            raise ConfigError(f"negatives is {negatives!r}; choose 'asked' or 'corpus'.")
        if not dataset.queries:
            raise DatasetError("The training set has no query; generate or load one that has.")
        self.dataset = dataset
        self.embed_model = embed_model
        self.val_dataset = val_dataset
        self.model_output_path = str(model_output_path)
        self.model_checkpoint_path = model_checkpoint_path
        self.checkpoint_save_steps = checkpoint_save_steps
        self.verbose = verbose
        self.negatives = negatives
        self._adapter = _unwrapped(adapter_model)
        self._bias = bias
        self._dim = dim
        self._device = device
        self._optimizer_class = optimizer_class
        self._optimizer_params = params
        self._settings = AdapterSettings(
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=params.get("lr", learning_rate),
            temperature=temperature,
            pull_to_start=pull_to_start,
            patience=patience,
            max_grad_norm=max_grad_norm,
            seed=seed,
        )
        self._encoder = as_encoder(embed_model, cache=cache, show_progress=verbose)
        self._validation = Validation(val_dataset) if val_dataset is not None else None

    @classmethod
    def from_model_path(
        cls,
        dataset: EmbeddingQAFinetuneDataset,
        embed_model: BaseEmbedding,
        model_path: str,
        model_cls: Any = None,
        **kwargs: Any,
    ) -> EmbeddingAdapterFinetuneEngine:
        """Go on training a saved adapter.

        Args:
            dataset: Training set.
            embed_model: The model the adapter was trained on.
            model_path: Folder of the saved adapter, ours or of llama-index-embeddings-adapter.
            model_cls: For an adapter of llama-index-embeddings-adapter: its class, which has ``load``.
            **kwargs: Further arguments of this class.
        """
        if model_cls is not None:
            module = model_cls.load(model_path)
        else:
            from llama_index_embft.embeddings.adapter import load_adapter_module, read_adapter_config

            folder = Path(model_path)
            module = load_adapter_module(folder, read_adapter_config(folder), kwargs.pop("adapter_model", None))
        return cls(dataset, embed_model, adapter_model=module, **kwargs)

    def finetune(self) -> FinetuneResult:
        """Embed what is not in the cache, train, and save to `model_output_path`.

        Raises:
            TrainingError: The loss is not a number.
            ModelError: The embedding model returns unusable vectors.
            OutputError: The folder cannot be written.
        """
        from llama_index.core.utils import infer_torch_device

        started = time.perf_counter()
        check_output_folder(self.model_output_path)
        candidates = self._candidates()
        rows = {doc_id: row for row, doc_id in enumerate(candidates)}
        positives = [[rows[doc_id] for doc_id in self.dataset.relevant_docs[q]] for q in self.dataset.queries]
        corpus = self._encoder.encode_documents([self.dataset.corpus[doc_id] for doc_id in candidates])
        queries = self._encoder.encode_queries(list(self.dataset.queries.values()))
        validate = self._validate()
        adapter = self._module(queries.shape[1])
        prepared = time.perf_counter()
        with self._bar(sum(map(len, positives))) as on_step:
            best, steps = train_adapter(
                adapter,
                queries,
                corpus,
                positives,
                self._settings,
                validate=validate,
                make_optimizer=self._make_optimizer if self._optimizer_class or self._optimizer_params else None,
                device=self._device or infer_torch_device(),
                on_step=lambda step, loss: self._after_step(adapter, step, loss, on_step),
            )
        trained = time.perf_counter()
        self._save(adapter.cpu(), Path(self.model_output_path), best)
        return FinetuneResult(
            output_path=Path(self.model_output_path),
            method="adapter",
            metric=SELECTION_METRIC,
            base_score=best.base_score,
            best_score=best.score,
            best_step=best.step if validate is not None else steps,
            steps=steps,
            history=best.history,
            seconds={
                "prepare": prepared - started,
                "train": trained - prepared,
                "save": time.perf_counter() - trained,
            },
            peak_memory_bytes=peak_memory_bytes(),
        )

    def _load(self) -> BaseEmbedding:
        return load_embed_model(
            self.model_output_path, base_embed_model=self.embed_model, adapter_model=self._custom_module()
        )

    def _candidates(self) -> list[str]:
        """Ids of the documents that queries are compared with in training."""
        if self.negatives == "corpus":
            return list(self.dataset.corpus)
        asked = {doc_id for ids in self.dataset.relevant_docs.values() for doc_id in ids}
        return [doc_id for doc_id in self.dataset.corpus if doc_id in asked]

    def _module(self, dim: int) -> nn.Module:
        if self._dim is not None and self._dim != dim:
            raise ConfigError(f"dim is {self._dim}, but {self._encoder.name} returns {dim} dimensions; leave dim out.")
        if self._adapter is None:
            self._adapter = linear_adapter(dim, bias=self._bias)
        return self._adapter

    def _custom_module(self) -> nn.Module | None:
        from copy import deepcopy

        from torch import nn

        return None if self._adapter is None or isinstance(self._adapter, nn.Linear) else deepcopy(self._adapter)

    def _validate(self) -> Callable[[nn.Module], dict[str, float]] | None:
        validation = self._validation
        if validation is None:
            return None
        documents = self._encoder.encode_documents(validation.documents)
        queries = self._encoder.encode_queries(validation.queries)
        return lambda adapter: validation.score(apply_adapter(adapter, queries), documents)

    def _make_optimizer(self, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        import torch

        optimizer_class: Any = self._optimizer_class or torch.optim.AdamW
        params = {"lr": self._settings.learning_rate, **self._optimizer_params}
        optimizer: torch.optim.Optimizer = optimizer_class(parameters, **params)
        return optimizer

    def _after_step(self, adapter: nn.Module, step: int, loss: float, on_step: Callable[[int, float], None]) -> None:
        on_step(step, loss)
        if self.model_checkpoint_path is not None and step % self.checkpoint_save_steps == 0:
            self._save(adapter, Path(self.model_checkpoint_path) / f"step_{step}", None)

    def _bar(self, pairs: int) -> Any:
        from contextlib import contextmanager

        from tqdm.auto import tqdm

        steps = -(-pairs // self._settings.batch_size) * self._settings.epochs

        @contextmanager
        def bar() -> Any:
            with tqdm(total=steps, desc="Training adapter", unit="step", delay=1.0, disable=not self.verbose) as shown:

                def advance(step: int, loss: float) -> None:
                    shown.update(step - shown.n)
                    shown.set_postfix(loss=f"{loss:.3f}", refresh=False)

                yield advance

        return bar()

    def _save(self, adapter: nn.Module, folder: Path, best: BestState | None) -> None:
        record = frozen_base_record(
            "adapter",
            embed_model=self.embed_model,
            base_fingerprint=self._encoder.fingerprint,
            train=self.dataset,
            val=self.val_dataset,
            scores=(best.base_score, best.score) if best else None,
            settings={**asdict(self._settings), "negatives": self.negatives},
        )
        save_adapter(folder, adapter, base=record["base"], base_fingerprint=record["base_fingerprint"], record=record)


def _unwrapped(adapter: nn.Module | None) -> nn.Module | None:
    """The layer inside llama-index-embeddings-adapter's `LinearLayer`, which then needs no class to be loaded again."""
    if (
        type(adapter).__module__.startswith("llama_index.embeddings.adapter")
        and type(adapter).__name__ == "LinearLayer"
    ):
        inner: nn.Module = adapter.linear  # type: ignore[union-attr,assignment]
        return inner
    return adapter
