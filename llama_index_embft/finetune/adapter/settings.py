"""What an adapter and its training may be told: the engine's plain options, and settings objects for the rest.

No torch here: the command line reads these classes for its options.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

from llama_index_embft._core.checks import check_choice, check_number
from llama_index_embft._core.options import option
from llama_index_embft.embeddings.adapter.modules import ADAPTER_FORMS
from llama_index_embft.errors import ConfigError

if TYPE_CHECKING:
    import torch

AdapterKind: TypeAlias = Literal["linear", "low-rank", "mlp", "auto"]
AdapterStart: TypeAlias = Literal["identity", "ridge", "procrustes", "pca"]
Sides: TypeAlias = Literal["query", "both"]
Negatives: TypeAlias = Literal["asked", "corpus"]

# Documents a query is compared with at once. Above it a sample is drawn: a batch of 64 queries then holds 64 x 65,536
# scores, 16 MiB. With both sides every one of them goes through the adapter in every step.
MAX_NEGATIVES: Final = 65_536
MAX_NEGATIVES_BOTH_SIDES: Final = 4_096


@dataclass(frozen=True)
class AdapterOptions:
    """The plain options of `EmbeddingAdapterFinetuneEngine`, with its defaults.

    Raises:
        ConfigError: A value is out of range.
    """

    batch_size: int = option(
        64, "Query-document pairs per step. It does not change the negatives: every step sees all candidates."
    )
    epochs: int = option(
        40, "Maximum passes over the training set; patience may stop earlier. 0 keeps a closed-form start as it is."
    )
    dim: int | None = option(None, "Dimension of the embeddings, checked; default: as the model returns them.")
    device: str | None = option(None, "Torch device for training; default: a GPU if there is one.")
    model_checkpoint_path: str | None = option(
        None, "Folder for adapters saved on the way, each loadable by itself; default: none are saved."
    )
    checkpoint_save_steps: int = option(100, "Steps between two saved adapters.")
    bias: bool = option(False, "Give linear and low-rank adapters a bias.")
    kind: AdapterKind = option(
        "linear",
        "linear (a matrix that starts as the identity), low-rank (the identity plus a map of low rank, for few "
        "queries), mlp (two layers added to the vector, for many), or auto, which tries a small set of these and of "
        "starts.",
    )
    learning_rate: float = option(1e-4, "Peak of a linear schedule with 10 % warm-up.")
    seed: int = option(0, "Random seed for the order of pairs, initial weights and the folds of cross-validation.")

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, [*ADAPTER_FORMS, "auto"])
        check_number("epochs", self.epochs, at_least=0, whole=True)
        check_number("seed", self.seed, at_least=0, whole=True)
        check_number("learning_rate", self.learning_rate, above=0)
        for name in ("batch_size", "checkpoint_save_steps", "dim"):
            if getattr(self, name) is not None or name != "dim":
                check_number(name, getattr(self, name), at_least=1, whole=True)
        if self.kind == "auto" and self.model_checkpoint_path is not None:
            raise ConfigError(
                "`kind` is 'auto', which trains several adapters, and checkpoints are of one; leave "
                "model_checkpoint_path out."
            )


@dataclass(frozen=True)
class AdapterLayerSettings:
    """What the adapter is, beside its kind.

    Raises:
        ConfigError: A value is out of range, or means nothing with another.
    """

    sides: Sides = option(
        "query",
        "query leaves the documents, and so the index, as they are; both sends documents through the same adapter, so "
        "the index has to be updated with the adapted vectors.",
    )
    output_dim: int | None = option(
        None,
        "Fewer dimensions, learned: queries and documents through one map (sides=both only). The result is the best "
        "map found, even where the base with all its dimensions is better.",
    )
    start: AdapterStart | None = option(
        None,
        "identity; ridge or procrustes (a rotation), solved in closed form on the pairs; pca with output_dim. "
        "Default: identity, or pca with output_dim.",
    )
    rank: int = option(32, "Rank of a low-rank adapter.")
    hidden_dim: int | None = option(None, "Width of an MLP; default: the dimension of the embeddings.")
    ridge: float | None = option(
        None,
        "How strongly closed-form starts are pulled to the identity, in units of the mean eigenvalue of the queries' "
        "second moments; default: the best of seven on validation, 1 without.",
    )

    def __post_init__(self) -> None:
        check_choice("sides", self.sides, get_args(Sides))
        if self.start is not None:
            check_choice("start", self.start, get_args(AdapterStart))
        for name in ("output_dim", "rank", "hidden_dim"):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), at_least=1, whole=True)
        if self.ridge is not None:
            check_number("ridge", self.ridge, at_least=0)
        if self.output_dim is not None and self.sides != "both":
            raise ConfigError(
                f"`output_dim` is {self.output_dim} with sides='query'; documents must get as many dimensions: pass "
                "sides='both'."
            )
        if self.output_dim is not None and self.start in ("ridge", "procrustes"):
            raise ConfigError(
                f"`start` is {self.start!r}, which maps queries onto documents of the same dimension; use 'pca' with "
                "output_dim."
            )
        if self.start in ("ridge", "procrustes") and self.sides == "both":
            raise ConfigError(
                f"`start` is {self.start!r}, which maps queries onto documents that stay; with sides='both' use "
                "'identity'."
            )
        if self.start == "pca" and self.output_dim is None:
            raise ConfigError("`start` is 'pca', which finds the directions to keep; give output_dim as well.")


@dataclass(frozen=True)
class AdapterSettings:
    """How an adapter is trained, beside batch size, epochs and learning rate.

    Raises:
        ConfigError: A value is out of range.
    """

    temperature: float = option(0.03, "Divides the cosine before the softmax.")
    learn_temperature: bool = option(False, "Also learn the temperature, from that value on, between 0.005 and 1.")
    pull_to_start: float = option(
        0.0, "Strength of the pull back to the start (the identity), in units of the learning rate."
    )
    patience: int = option(8, "Epochs without a better validation score before training stops.")
    max_grad_norm: float = option(1.0, "Gradients are clipped to this norm.")
    negatives: Negatives = option(
        "asked",
        "What a query is compared with: asked, the documents that some training query is about, or corpus, all of "
        "them. Documents without a training query can only ever be pushed away, and are just those that later queries "
        "will ask about: with them, held-out queries gained nothing.",
    )
    hard_negatives: bool = option(True, "Also compare each query with its own negatives from the data set.")
    max_negatives: int | None = option(
        None,
        "Documents a query is compared with at once; of more, a sample is drawn every 32 steps. Default: 65,536, or "
        "4,096 with both sides, where all of them go through the adapter in every step.",
    )
    optimizer_class: type[torch.optim.Optimizer] | None = option(None, "Torch optimizer class; default: AdamW.")
    optimizer_params: dict[str, Any] | None = option(
        None, "Arguments of the optimizer; its lr wins over learning_rate."
    )

    def __post_init__(self) -> None:
        check_choice("negatives", self.negatives, get_args(Negatives))
        for name in ("temperature", "max_grad_norm"):
            check_number(name, getattr(self, name), above=0)
        check_number("pull_to_start", self.pull_to_start, at_least=0)
        check_number("patience", self.patience, at_least=1, whole=True)
        if self.max_negatives is not None:
            check_number("max_negatives", self.max_negatives, at_least=1, whole=True)
        if self.optimizer_params and "lr" in self.optimizer_params:
            check_number("optimizer_params['lr']", self.optimizer_params["lr"], above=0)


@dataclass(frozen=True)
class AdapterSearchSettings:
    """How ``kind="auto"`` chooses.

    Raises:
        ConfigError: A value is out of range.
    """

    time_budget: float = option(
        120.0,
        "Seconds for the tries, embedding not counted. At least one adapter is always tried, for at least one "
        "epoch; the table lists those that were skipped.",
    )
    folds: int = option(
        5,
        "Folds of the cross-validation by document, which chooses the adapter when there is no validation set or "
        "fewer than 200 training queries.",
    )

    def __post_init__(self) -> None:
        check_number("time_budget", self.time_budget, above=0)
        check_number("folds", self.folds, at_least=2, whole=True)


# The engine's keyword arguments of these types are `layer`, `training` and `search`.
SETTINGS: Final = (AdapterLayerSettings, AdapterSettings, AdapterSearchSettings)
