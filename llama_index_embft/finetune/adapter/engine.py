"""Fine-tune an adapter over any embedding model: no weights needed, seconds to train, the index stays as it is."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llama_index_embft._core.environment import peak_memory_bytes
from llama_index_embft._core.files import check_output_folder
from llama_index_embft.embeddings.adapter.files import save_adapter
from llama_index_embft.embeddings.encoding.encoder import as_encoder
from llama_index_embft.embeddings.loading import load_embed_model
from llama_index_embft.errors import ConfigError, DatasetError
from llama_index_embft.finetune.adapter.data import are_unit, embed_documents, embed_queries, training_data
from llama_index_embft.finetune.adapter.plan import AdapterPlan, Kind, Sides, Start, check_plan
from llama_index_embft.finetune.adapter.run import Outcome, search, train_one, validation_of
from llama_index_embft.finetune.adapter.search import FEW_QUERIES, Trainer
from llama_index_embft.finetune.adapter.training import MAX_NEGATIVES, MAX_NEGATIVES_BOTH_SIDES, AdapterSettings
from llama_index_embft.finetune.engine import (
    SELECTION_METRIC,
    BaseFinetuneEngine,
    FinetuneResult,
    frozen_base_record,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from torch import nn

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.embeddings.encoding.cache import EmbeddingCache


class EmbeddingAdapterFinetuneEngine(BaseFinetuneEngine):
    """Train an adapter on the embeddings of a frozen model.

    The texts are embedded once, through the cache; training then works on vectors alone, each query against all
    documents that have a training query. With a validation set the state with the best nDCG@10 is kept, the base model
    included, so the result is never worse on it than the base model (with fewer dimensions it may be: see
    `output_dim`).

    The arguments up to `bias` are those of llama-index-finetuning's class of this name and mean the same; the
    defaults of `batch_size` and `epochs` are ours.

    Args:
        dataset: Training set.
        embed_model: Any LlamaIndex embedding; it is not changed.
        batch_size: Query-document pairs a step. Negatives do not depend on it: every step sees all candidates.
        epochs: Passes over the training set at most; `patience` may end it sooner. 0 keeps a closed-form start.
        adapter_model: Module of your own to train, ``(n, dim)`` to ``(n, dim)``; None makes one of `kind`.
        dim: Dimension of the embeddings; None: as the model returns them. Another value is an error.
        device: Torch device of the training; None takes a GPU if there is one.
        model_output_path: Folder to save to.
        model_checkpoint_path: Folder for adapters saved on the way, each loadable by itself; None saves none.
        checkpoint_save_steps: Steps between two of them.
        verbose: Show progress bars.
        bias: Give linear and low-rank adapters a bias.
        val_dataset: Chooses the best epoch; None keeps the last one.
        kind: ``"linear"`` (a matrix that starts as the identity); ``"low-rank"`` (the identity plus a map of `rank`,
            for few queries); ``"mlp"`` (two layers added to the vector, for many); ``"auto"`` tries a small set of
            these and of starts on the validation set. Without a validation set, or below 200 training queries, the
            parts of a cross-validation by document choose.
        sides: ``"query"`` leaves the documents, and so the index, as they are; ``"both"`` sends documents through the
            same adapter, so the index has to be updated with the adapted vectors.
        output_dim: Fewer dimensions, learned: queries and documents through one ``dim x output_dim`` map (``"both"``
            only). The result is the best map found, even where the base with all its dimensions is better.
        start: ``"identity"``; ``"ridge"`` or ``"procrustes"`` (rotation), solved in closed form on the pairs; ``"pca"``
            with `output_dim`. None: ``"identity"``, or ``"pca"`` with `output_dim`.
        rank: Of a low-rank adapter.
        hidden_dim: Width of the MLP; None: the dimension of the embeddings.
        ridge: How strongly closed-form starts are pulled to the identity, in units of the mean eigenvalue of the
            queries' second moments; None: the best of seven on validation, 1 without.
        negatives: What a query is compared with: ``"asked"``, the documents that some training query is about, or
            ``"corpus"``, all documents. Documents without a training query can only ever be pushed away, and are just
            those that later queries will ask about: with them, held-out queries gained nothing (see
            ``docs/explanation/adapter.md``).
        hard_negatives: Compare each query with its own `negative_docs` of the data set, too.
        max_negatives: Documents a query is compared with at once; of more, a sample is drawn every 32 steps. None:
            65,536, or 4,096 with both sides, where all of them go through the adapter in every step.
        learning_rate: Peak of a linear schedule with 10 % warm-up.
        temperature: Divides the cosine before the softmax.
        learn_temperature: Learn it, from `temperature` on, between 0.005 and 1.
        pull_to_start: Strength of the pull back to the start (the identity), in units of the learning rate.
        patience: Epochs without a better validation score before it stops.
        max_grad_norm: Gradients are clipped to this norm.
        optimizer_class: Torch optimizer class; None: AdamW.
        optimizer_params: Its arguments; ``lr`` there wins over `learning_rate`.
        time_budget: Seconds for the tries of ``"auto"``, embedding not counted. One adapter is tried in any case, for
            an epoch at least; those that there was no time for stand in the table.
        folds: Parts of the cross-validation.
        seed: Order of the pairs, random weights, and parts.
        cache: Where embeddings are kept, see `as_encoder`.

    Raises:
        ConfigError: An argument is out of range, or means nothing with another.
        DatasetError: The training or validation set has no query.
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
        kind: Kind = "linear",
        sides: Sides = "query",
        output_dim: int | None = None,
        start: Start | None = None,
        rank: int = 32,
        hidden_dim: int | None = None,
        ridge: float | None = None,
        negatives: Literal["asked", "corpus"] = "asked",
        hard_negatives: bool = True,
        max_negatives: int | None = None,
        learning_rate: float = 1e-4,
        temperature: float = 0.03,
        learn_temperature: bool = False,
        pull_to_start: float = 0.0,
        patience: int = 8,
        max_grad_norm: float = 1.0,
        optimizer_class: type[torch.optim.Optimizer] | None = None,
        optimizer_params: dict[str, Any] | None = None,
        time_budget: float = 120.0,
        folds: int = 5,
        seed: int = 0,
        cache: EmbeddingCache | Literal["default"] | None = "default",
    ) -> None:
        params = dict(optimizer_params or {})
        learning_rate = params.get("lr", learning_rate)
        check_plan(kind, start, sides, output_dim, own_module=adapter_model is not None)
        start = start or ("pca" if output_dim is not None else "identity")
        positive = {
            "batch_size": batch_size,
            "epochs": epochs if start == "identity" or kind == "auto" or epochs < 0 else epochs + 1,
            "temperature": temperature,
            "patience": patience,
            "checkpoint_save_steps": checkpoint_save_steps,
            "learning_rate": learning_rate,
            "max_grad_norm": max_grad_norm,
            "rank": rank,
            "hidden_dim": hidden_dim,
            "output_dim": output_dim,
            "max_negatives": max_negatives,
            "time_budget": time_budget,
        }
        for name, value in positive.items():
            if value is not None and not value > 0:
                raise ConfigError(f"{name} is {value}; it must be above 0.")
        for name, value, least in (("pull_to_start", pull_to_start, 0), ("ridge", ridge, 0), ("folds", folds, 2)):
            if value is not None and not value >= least:
                raise ConfigError(f"{name} is {value}; it must be at least {least}.")
        if negatives not in ("asked", "corpus"):
            raise ConfigError(f"negatives is {negatives!r}; choose 'asked' or 'corpus'.")
        if kind == "auto" and model_checkpoint_path is not None:
            raise ConfigError("kind='auto' trains several adapters, and checkpoints are of one; leave them out.")
        if not dataset.queries:
            raise DatasetError("The training set has no query; generate or load one that has.")
        if val_dataset is not None and not val_dataset.queries:
            raise DatasetError("The validation set has no query; give one with queries, or none at all.")
        self.dataset = dataset
        self.embed_model = embed_model
        self.val_dataset = val_dataset
        self.model_output_path = str(model_output_path)
        self.model_checkpoint_path = model_checkpoint_path
        self.checkpoint_save_steps = checkpoint_save_steps
        self.verbose = verbose
        self.negatives, self.sides, self.kind = negatives, sides, kind
        self.hard_negatives, self.time_budget, self.folds = hard_negatives, time_budget, folds
        self._adapter = _unwrapped(adapter_model)
        self._dim = dim
        self._device = device
        self._optimizer_class = optimizer_class
        self._optimizer_params = params
        self._plan = AdapterPlan(
            kind="linear" if kind == "auto" else kind,
            start=start,
            learning_rate=learning_rate,
            epochs=epochs,
            bias=bias and kind != "mlp",
            rank=rank,
            hidden_dim=hidden_dim,
            output_dim=output_dim,
            ridge=ridge,
        )
        self._settings = AdapterSettings(
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            temperature=temperature,
            pull_to_start=pull_to_start,
            patience=patience,
            max_grad_norm=max_grad_norm,
            seed=seed,
            max_negatives=max_negatives or (MAX_NEGATIVES_BOTH_SIDES if sides == "both" else MAX_NEGATIVES),
            learn_temperature=learn_temperature,
            both_sides=sides == "both",
        )
        self._encoder = as_encoder(embed_model, cache=cache, show_progress=verbose)

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
            model_cls: Class of a module of your own that has ``load``, as that package's classes do.
            **kwargs: Further arguments of this class.
        """
        if model_cls is not None:
            module = model_cls.load(model_path)
        else:
            from llama_index_embft.embeddings.adapter.files import load_adapter_module, read_adapter_config

            folder = Path(model_path)
            config = read_adapter_config(folder)
            module = load_adapter_module(folder, config, kwargs.pop("adapter_model", None))
            kwargs.setdefault("sides", "both" if config["transform_documents"] else "query")
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
        by_folds = self.kind == "auto" and (self.val_dataset is None or len(self.dataset.queries) < FEW_QUERIES)
        ids = self._documents(everything=by_folds or self.negatives == "corpus")
        vectors = embed_documents(self._encoder, self.dataset, ids)
        queries = embed_queries(self._encoder, self.dataset, vectors)
        if self._dim not in (None, queries.shape[1]):
            raise ConfigError(
                f"dim is {self._dim}, but {self._encoder.name} returns {queries.shape[1]} dimensions; leave dim out."
            )
        row = {doc_id: number for number, doc_id in enumerate(ids)}
        data = training_data(
            queries,
            vectors,
            [[row[doc_id] for doc_id in self.dataset.relevant_docs[query]] for query in self.dataset.queries],
            [[row[doc_id] for doc_id in self._negatives_of(query)] for query in self.dataset.queries],
            everything=self.negatives == "corpus",
        )
        both, device = self._settings.both_sides, self._device or infer_torch_device()
        validation = None
        if self.val_dataset is not None:
            validation = validation_of(self._encoder, self.val_dataset, data, both_sides=both)
        normalize = are_unit(queries)
        prepared = time.perf_counter()
        with self._bar() as advance:

            def on_step(module: nn.Module, step: int, loss: float) -> None:
                advance(loss)
                if self.model_checkpoint_path is not None and step % self.checkpoint_save_steps == 0:
                    self._save(module, Path(self.model_checkpoint_path) / f"step_{step}", None, normalize)

            trainer = Trainer(self._settings, device, self._make_optimizer, on_step)
            if self.kind == "auto":
                parts = (self.dataset, vectors, ids, self.folds) if by_folds else None
                outcome = search(self._plan, trainer, data, validation, parts, prepared + self.time_budget)
            else:
                outcome = train_one(self._plan, trainer, data, validation, self._adapter)
        trained = time.perf_counter()
        self._adapter = outcome.module
        self._save(outcome.module, Path(self.model_output_path), outcome, normalize)
        return FinetuneResult(
            output_path=Path(self.model_output_path),
            method="adapter",
            metric=SELECTION_METRIC,
            base_score=outcome.base_score,
            best_score=outcome.score,
            best_step=outcome.best_step,
            steps=outcome.steps,
            history=outcome.history,
            seconds={
                "prepare": prepared - started,
                "train": trained - prepared,
                "save": time.perf_counter() - trained,
            },
            peak_memory_bytes=peak_memory_bytes(),
            tries=outcome.tries,
            selection=outcome.selection,
        )

    def _load(self) -> BaseEmbedding:
        return load_embed_model(
            self.model_output_path,
            base_embed_model=self.embed_model,
            adapter_model=self._custom_module(),
            force=self._encoder.fingerprint is None,  # the very model that it was trained on
        )

    def _documents(self, *, everything: bool) -> list[str]:
        """Ids of the documents that training looks at."""
        if everything:
            return list(self.dataset.corpus)
        needed = {doc_id for ids in self.dataset.relevant_docs.values() for doc_id in ids}
        needed |= {doc_id for query in self.dataset.queries for doc_id in self._negatives_of(query)}
        return [doc_id for doc_id in self.dataset.corpus if doc_id in needed]

    def _negatives_of(self, query: str) -> list[str]:
        return self.dataset.negative_docs.get(query, []) if self.hard_negatives else []

    def _custom_module(self) -> nn.Module | None:
        from copy import deepcopy

        from llama_index_embft.embeddings.adapter.modules import describe_module

        own = self._adapter is not None and describe_module(self._adapter)["kind"] == "custom"
        return deepcopy(self._adapter) if own else None

    def _make_optimizer(
        self, learning_rate: float
    ) -> Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer] | None:
        if self._optimizer_class is None and not self._optimizer_params:
            return None
        import torch

        optimizer_class: Any = self._optimizer_class or torch.optim.AdamW
        return lambda parameters: optimizer_class(parameters, **{**self._optimizer_params, "lr": learning_rate})

    @contextmanager
    def _bar(self) -> Iterator[Callable[[float], None]]:
        from tqdm.auto import tqdm

        pairs = sum(map(len, self.dataset.relevant_docs.values()))
        steps = -(-pairs // self._settings.batch_size) * self._settings.epochs
        total = None if self.kind == "auto" else steps
        with tqdm(total=total, desc="Training adapter", unit="step", delay=1.0, disable=not self.verbose) as shown:

            def advance(loss: float) -> None:
                shown.update()
                shown.set_postfix(loss=f"{loss:.3f}", refresh=False)

            yield advance

    def _save(self, adapter: nn.Module, folder: Path, outcome: Outcome | None, normalize: bool) -> None:
        tried = {"tries": outcome.tries, "selection": outcome.selection} if outcome else {}
        plan = outcome.plan if outcome else self._plan
        record = frozen_base_record(
            "adapter",
            embed_model=self.embed_model,
            base_fingerprint=self._encoder.fingerprint,
            train=self.dataset,
            val=self.val_dataset,
            scores=(outcome.base_score, outcome.score) if outcome else None,
            settings={
                **asdict(self._settings),
                **plan.shown(),
                "epochs": plan.epochs,
                "sides": self.sides,
                "negatives": self.negatives,
                "hard_negatives": self.hard_negatives,
            },
            **tried,
        )
        save_adapter(
            folder,
            adapter,
            base=record["base"],
            base_fingerprint=record["base_fingerprint"],
            record=record,
            transform_documents=self._settings.both_sides,
            normalize=normalize,
        )


def _unwrapped(adapter: nn.Module | None) -> nn.Module | None:
    """The layer inside llama-index-embeddings-adapter's `LinearLayer`, which then needs no class to be loaded again."""
    if (
        type(adapter).__module__.startswith("llama_index.embeddings.adapter")
        and type(adapter).__name__ == "LinearLayer"
    ):
        inner: nn.Module = adapter.linear  # type: ignore[union-attr,assignment]
        return inner
    return adapter
