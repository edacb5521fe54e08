"""Fine-tune an adapter over any embedding model: no weights needed, seconds to train, the index stays as it is."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llama_index_embft._core.environment import peak_memory_bytes
from llama_index_embft._core.files import check_output_folder
from llama_index_embft.embeddings.adapter.embedding import AdapterEmbedding
from llama_index_embft.embeddings.adapter.files import save_adapter
from llama_index_embft.embeddings.describe import folders_below
from llama_index_embft.embeddings.encoding.encoder import as_encoder
from llama_index_embft.embeddings.loading import load_embed_model
from llama_index_embft.embeddings.stock import is_of
from llama_index_embft.errors import ConfigError, DatasetError
from llama_index_embft.finetune.adapter.data import are_unit, embed_training_set
from llama_index_embft.finetune.adapter.plan import check_module, plan_of
from llama_index_embft.finetune.adapter.run import TrainedAdapter, search, train_one, validation_of
from llama_index_embft.finetune.adapter.search import FEW_QUERIES, AdapterTrainer
from llama_index_embft.finetune.adapter.settings import (
    AdapterKind,
    AdapterLayerSettings,
    AdapterOptions,
    AdapterSearchSettings,
    AdapterSettings,
)
from llama_index_embft.finetune.engine import (
    SELECTION_METRIC,
    BaseFinetuneEngine,
    FinetuneResult,
)
from llama_index_embft.finetune.record import frozen_base_record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from torch import nn

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.embeddings.encoding.cache import EmbeddingCache
    from llama_index_embft.finetune.adapter.plan import AdapterPlan


class EmbeddingAdapterFinetuneEngine(BaseFinetuneEngine):
    """Train an adapter on the embeddings of a frozen model.

    The texts are embedded once, through the cache; training then works on vectors alone, each query against all
    documents that have a training query. With a validation set the state with the best nDCG@10 is kept, the base model
    included, so the result is never worse on it than the base model (with fewer dimensions it may be: see
    `AdapterLayerSettings.output_dim`).

    The arguments up to `bias` are those of llama-index-finetuning's class of this name and mean the same; the
    defaults of `batch_size` and `epochs` are ours.

    Args:
        dataset: Training set.
        embed_model: Any LlamaIndex embedding; it is not changed.
        batch_size: See `AdapterOptions`, which says the same of `epochs`, `dim`, `device`, `model_checkpoint_path`,
            `checkpoint_save_steps`, `bias`, `kind`, `learning_rate` and `seed`.
        epochs: Passes over the training set at most.
        adapter_model: Module of your own to train, ``(n, dim)`` to ``(n, dim)``; None makes one of `kind`.
        dim: Dimension of the embeddings; None: as the model returns them. Another value is an error.
        device: Torch device of the training; None takes a GPU if there is one.
        model_output_path: Folder to save to.
        model_checkpoint_path: Folder for adapters saved on the way; None saves none.
        checkpoint_save_steps: Steps between two of them.
        verbose: Show progress bars.
        bias: Give linear and low-rank adapters a bias.
        val_dataset: Chooses the best epoch; None keeps the last one.
        kind: ``"linear"``, ``"low-rank"``, ``"mlp"``, or ``"auto"``, which tries a small set of these on the validation
            set. Without one, or below 200 training queries, the parts of a cross-validation by document choose.
        learning_rate: Peak of the schedule.
        seed: Of the order of the pairs, random weights, and parts.
        layer: What the adapter is, beside its kind: sides, rank, start, fewer dimensions.
        training: How it is trained: temperature, negatives, patience, optimizer.
        search: How ``kind="auto"`` chooses.
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
        kind: AdapterKind = "linear",
        learning_rate: float = 1e-4,
        seed: int = 0,
        layer: AdapterLayerSettings | None = None,
        training: AdapterSettings | None = None,
        search: AdapterSearchSettings | None = None,
        cache: EmbeddingCache | Literal["default"] | None = "default",
    ) -> None:
        self._layer = layer or AdapterLayerSettings()
        self._settings = training or AdapterSettings()
        self._search = search or AdapterSearchSettings()
        self._options = AdapterOptions(
            batch_size=batch_size,
            epochs=epochs,
            dim=dim,
            device=device,
            model_checkpoint_path=model_checkpoint_path,
            checkpoint_save_steps=checkpoint_save_steps,
            bias=bias,
            kind=kind,
            learning_rate=(self._settings.optimizer_params or {}).get("lr", learning_rate),
            seed=seed,
        )
        if search is not None and kind != "auto":
            raise ConfigError(
                f"`search` (time_budget, folds) is how kind='auto' chooses, and `kind` is {kind!r}; leave it out."
            )
        self._plan = plan_of(self._options, self._layer, own_module=adapter_model is not None)
        if not dataset.queries:
            raise DatasetError("The training set has no queries; generate some, or load a data set that has.")
        if val_dataset is not None and not val_dataset.queries:
            raise DatasetError("The validation set has no query; give one with queries, or none at all.")
        self.dataset = dataset
        self.embed_model = embed_model
        self.val_dataset = val_dataset
        self.model_output_path = str(model_output_path)
        self.verbose = verbose
        # In half precision most steps of training would move nothing, and the vectors are float32.
        self._adapter = None if adapter_model is None else _unwrapped(adapter_model.float())
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
            if config["transform_documents"]:
                kwargs["layer"] = replace(kwargs.get("layer") or AdapterLayerSettings(), sides="both")
        return cls(dataset, embed_model, adapter_model=module, **kwargs)

    def finetune(self) -> FinetuneResult:
        """Embed what is not in the cache, train, and save to `model_output_path`.

        Raises:
            TrainingError: The loss is not a number.
            ModelError: The embedding model returns unusable vectors.
            OutputError: The folder cannot be written.
        """
        started = time.perf_counter()
        check_output_folder(self.model_output_path, keep=folders_below(self.embed_model))
        options, settings, both = self._options, self._settings, self._layer.sides == "both"
        by_folds = options.kind == "auto" and (self.val_dataset is None or len(self.dataset.queries) < FEW_QUERIES)
        embedded = embed_training_set(
            self._encoder,
            self.dataset,
            everything=settings.negatives == "corpus",
            hard_negatives=settings.hard_negatives,
            whole_corpus=by_folds,
        )
        data = embedded.data
        if options.dim not in (None, data.dim):
            raise ConfigError(
                f"`dim` is {options.dim}; it must be {data.dim}, as {self._encoder.name} returns them: leave dim out."
            )
        if self._adapter is not None:
            check_module(self._adapter, data.dim, both_sides=both)
        validation = None
        if self.val_dataset is not None:
            validation = validation_of(self._encoder, self.val_dataset, data, both_sides=both)
        normalize = are_unit(data.queries)
        prepared = time.perf_counter()
        with self._bar() as advance:

            def on_step(module: nn.Module, step: int, loss: float) -> None:
                advance(loss)
                if options.model_checkpoint_path is not None and step % options.checkpoint_save_steps == 0:
                    self._save(module, Path(options.model_checkpoint_path) / f"step_{step}", None, normalize)

            trainer = AdapterTrainer(options, settings, both, self._device(), self._make_optimizer, on_step)
            if options.kind == "auto":
                parts = (self.dataset, embedded, self._search.folds) if by_folds else None
                outcome = search(self._plan, trainer, data, validation, parts, prepared + self._search.time_budget)
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

    def get_finetuned_model(
        self, adapter_cls: type[nn.Module] | None = None, transform_query: bool = True, **model_kwargs: Any
    ) -> BaseEmbedding:
        """Load what `finetune` saved, ready for a `VectorStoreIndex`.

        Args:
            adapter_cls: Class of the adapter, as llama-index-finetuning wants it; the adapter knows it already, so
                another one is an error.
            transform_query: Send queries through the adapter; False leaves them to the base model.
            **model_kwargs: Fields of the embedding, such as ``embed_batch_size``.

        Raises:
            TrainingError: `finetune` has not been called, and the output folder holds no earlier result.
            ConfigError: The adapter is of another class, or an argument is unknown.
        """
        self._check_trained()
        loaded = self._load()
        if adapter_cls is not None and not is_of(loaded.adapter, adapter_cls):
            raise ConfigError(
                f"`adapter_cls` is {adapter_cls.__name__}, and a {type(loaded.adapter).__name__} was trained; leave it "
                "out."
            )
        if not transform_query and not loaded.transform_documents:
            return self.embed_model
        if not transform_query:
            raise ConfigError(
                "`transform_query` is False, and documents go through the adapter; queries must too: leave it out."
            )
        unknown = set(model_kwargs) - {"embed_batch_size", "callback_manager", "num_workers"}
        if unknown:
            raise ConfigError(
                f"`{min(unknown)}` is not an argument of the tuned model; it must be adapter_cls, transform_query, "
                "embed_batch_size, callback_manager or num_workers."
            )
        for name, value in model_kwargs.items():
            setattr(loaded, name, value)
        return loaded

    def _load(self) -> AdapterEmbedding:
        loaded = load_embed_model(
            self.model_output_path,
            base_embed_model=self.embed_model,
            adapter_model=self._custom_module(),
            force=self._encoder.fingerprint is None,  # the very model that it was trained on
        )
        assert isinstance(loaded, AdapterEmbedding)
        return loaded

    def _device(self) -> str:
        from llama_index.core.utils import infer_torch_device

        return self._options.device or infer_torch_device()

    def _custom_module(self) -> nn.Module | None:
        from copy import deepcopy

        from llama_index_embft.embeddings.adapter.modules import describe_module

        own = self._adapter is not None and describe_module(self._adapter)["kind"] == "custom"
        return deepcopy(self._adapter) if own else None

    def _make_optimizer(
        self, learning_rate: float
    ) -> Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer] | None:
        given, params = self._settings.optimizer_class, self._settings.optimizer_params
        if given is None and not params:
            return None
        import torch

        optimizer_class: Any = given or torch.optim.AdamW
        return lambda parameters: optimizer_class(parameters, **{**(params or {}), "lr": learning_rate})

    @contextmanager
    def _bar(self) -> Iterator[Callable[[float], None]]:
        from tqdm.auto import tqdm

        pairs = sum(map(len, self.dataset.relevant_docs.values()))
        steps = -(-pairs // self._options.batch_size) * self._options.epochs
        total = None if self._options.kind == "auto" else steps
        with tqdm(total=total, desc="Training adapter", unit="step", delay=1.0, disable=not self.verbose) as shown:

            def advance(loss: float) -> None:
                shown.update()
                shown.set_postfix(loss=f"{loss:.3f}", refresh=False)

            yield advance

    def _save(self, adapter: nn.Module, folder: Path, outcome: TrainedAdapter | None, normalize: bool) -> None:
        tried = {"tries": outcome.tries, "selection": outcome.selection} if outcome else {}
        record = frozen_base_record(
            "adapter",
            embed_model=self.embed_model,
            base_fingerprint=self._encoder.fingerprint,
            train=self.dataset,
            val=self.val_dataset,
            scores=(outcome.base_score, outcome.score) if outcome else None,
            settings=self._recorded(outcome.plan if outcome else self._plan),
            base_precision=_precision(self.embed_model),
            **tried,
        )
        save_adapter(
            folder,
            adapter,
            base=record["base"],
            base_fingerprint=record["base_fingerprint"],
            record=record,
            transform_documents=self._layer.sides == "both",
            normalize=normalize,
        )

    def _recorded(self, plan: AdapterPlan) -> dict[str, Any]:
        """The settings as JSON types: those of the engine, over which lies what the chosen plan is."""
        settings = {**asdict(self._settings), "optimizer_class": None}
        if self._settings.optimizer_class is not None:
            settings["optimizer_class"] = self._settings.optimizer_class.__qualname__
        options = {name: getattr(self._options, name) for name in ("batch_size", "learning_rate", "seed")}
        return {**settings, **options, "sides": self._layer.sides, **plan.shown(), "epochs": plan.epochs}


def _precision(embed_model: BaseEmbedding) -> str | None:
    """In what the base model computes, such as ``"float16"``; None for a hosted one. The adapter itself is float32."""
    from llama_index_embft.embeddings.sentence_transformer import inner_model

    inner = inner_model(embed_model)
    parameter = None if inner is None else next(inner.model.parameters(), None)
    return None if parameter is None else str(parameter.dtype).removeprefix("torch.")


def _unwrapped(adapter: nn.Module) -> nn.Module:
    """The layer inside llama-index-embeddings-adapter's `LinearLayer`, which then needs no class to be loaded again."""
    if (
        type(adapter).__module__.startswith("llama_index.embeddings.adapter")
        and type(adapter).__name__ == "LinearLayer"
    ):
        inner: nn.Module = adapter.linear  # type: ignore[assignment]
        return inner
    return adapter
