"""The trained candidates: what each would take, and training within the time that is left."""

from __future__ import annotations

import contextlib
import random
import shutil
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from llama_index_embft._core.environment import default_cache_dir
from llama_index_embft._core.files import atomic_write_text
from llama_index_embft.embeddings.describe import describe_base
from llama_index_embft.embeddings.encoding.encoder import as_encoder
from llama_index_embft.embeddings.loading import load_embed_model
from llama_index_embft.errors import ConfigError, OutputError
from llama_index_embft.evaluation.tasks import hash_of
from llama_index_embft.pipeline.parts import DenseModel, is_trainable

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Sequence

    from llama_index.core.base.embeddings.base import BaseEmbedding

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.embeddings.encoding.cache import EmbeddingCache

TrainMethod = Literal["adapter", "lora", "full", "distill"]
TRAIN_METHODS: Final[tuple[TrainMethod, ...]] = get_args(TrainMethod)
_SETS: Final[dict[str, tuple[str, ...]]] = {"auto": ("adapter", "full"), "none": (), "distill": ("full", "distill")}
# A pair costs a step forward and back over its passage: that many times what it takes to embed it.
_STEP_COST: Final = 3.0
_FEWEST_PAIRS, _MOST_PAIRS = 100, 20_000
# Made-up questions repeat their passages, and a second look at them teaches little else
# (docs/explanation/human-questions.md); questions by people are worth two.
EPOCHS: Final = {False: 1, True: 2}
"""Passes over the training set: whether people asked the questions -> passes."""
_SPEED_SAMPLE: Final = 24
_ADAPTER_SECONDS: Final = 15.0
_A_QUERY: Final = 0.1  # of what a text takes: all that an adapter has to embed anew


def methods_for(
    methods: str | Sequence[str], base: BaseEmbedding, *, reranker: object = None
) -> tuple[TrainMethod, ...]:
    """What to try, from cheap to dear.

    Args:
        methods: See `tune`.
        base: The model in use.
        reranker: What ``"distill"`` learns from; None: there is none.

    Raises:
        ConfigError: A method is unknown, or the model cannot be trained so, or there is no reranker to learn from.
    """
    if isinstance(methods, str):
        methods = _SETS.get(methods, (methods,))
        if not is_trainable(base):
            methods = tuple(method for method in methods if method == "adapter") or methods
    named = methods if isinstance(methods, Iterable) else [methods]
    unknown = [method for method in named if method not in TRAIN_METHODS]
    if unknown:
        raise ConfigError(
            f"`methods` names {unknown[0]!r}; it takes 'auto' or 'none', or any of {', '.join(TRAIN_METHODS)}."
        )
    if not is_trainable(base) and set(methods) - {"adapter"}:
        description = describe_base(base)
        raise ConfigError(
            f"`methods` asks to train the weights of {description['model_name']}, a {description['class_name']}; only "
            "Hugging Face models can be trained here: use 'adapter'."
        )
    if "distill" in methods and reranker is None:
        raise ConfigError(
            "`methods` asks for 'distill', which learns from a reranker; name one (`reranker`), or let one be trained "
            'with reranker="train".'
        )
    return tuple(method for method in TRAIN_METHODS if method in methods)


def seconds_a_text(base: BaseEmbedding, texts: Sequence[str]) -> float:
    """What embedding one text takes, measured on a few; 0 for a model that is not run here."""
    if not is_trainable(base):
        return 0.0
    sample = random.Random(0).sample(list(texts), min(len(texts), _SPEED_SAMPLE))
    encoder = as_encoder(base, cache=None)
    encoder.encode_documents(sample[:2])
    started = time.perf_counter()
    encoder.encode_documents(sample)
    return (time.perf_counter() - started) / len(sample)


@dataclass(frozen=True)
class Workload:
    """What training a candidate takes.

    Attributes:
        a_text: Seconds to embed one text.
        n_texts: Texts to embed with the trained model afterwards.
        n_val: Texts that each look at the validation set embeds.
        epochs: Passes over the pairs.
        passages: Passages of each question that training reads.
        judged: Passages of each question that a reranker reads before training.
    """

    a_text: float
    n_texts: int
    n_val: int
    epochs: int
    passages: int = 1
    judged: int = 0

    def pairs_within(self, method: TrainMethod, available: float) -> int:
        """How many pairs so many seconds allow for; 0 where they allow for too few."""
        spare = available - self.seconds(method, 0)
        if method == "adapter":
            pairs = int(min(_MOST_PAIRS, spare / max(1e-9, _A_QUERY * self.a_text)))
            return max(0, pairs)
        pairs = int(spare / max(1e-9, self._a_pair * self.a_text))
        return min(pairs, _MOST_PAIRS) if pairs >= _FEWEST_PAIRS else 0

    def seconds(self, method: TrainMethod, pairs: int) -> float:
        """What training on so many pairs, and embedding the texts anew, will take."""
        if method == "adapter":
            return _ADAPTER_SECONDS + _A_QUERY * self.a_text * (pairs + self.n_val)
        return self.a_text * (self.n_texts + (self.epochs + 1) * self.n_val + self._a_pair * pairs)

    @property
    def _a_pair(self) -> float:
        """What a pair costs, in texts that are embedded."""
        return _STEP_COST * self.epochs * self.passages + self.judged


def work_folder(*parts: Any) -> Path:
    """Where candidates wait until the search is over, or goes on after it was interrupted."""
    return default_cache_dir() / "tune" / hash_of([str(part) for part in parts])


@contextlib.contextmanager
def candidates_folder(corpus: str) -> Iterator[Path]:
    """Where the candidates of a search wait, so that one that was interrupted goes on with them.

    Of two searches over the same texts at the same time the second one gets a folder of its own. Each holds a lock
    beside its folder, by which `prune_cache` sees that it is running.

    Args:
        corpus: Hash of the texts.
    """
    from filelock import FileLock, Timeout

    def lock_of(folder: Path) -> FileLock:
        return FileLock(folder.with_name(f"{folder.name}.lock"))

    folder = work_folder(corpus)
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = lock_of(folder)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        folder = work_folder(corpus, uuid.uuid4())
        lock = lock_of(folder)
        lock.acquire(timeout=0)
    try:
        yield folder
    finally:
        lock.release()


def drawn(train: EmbeddingQAFinetuneDataset, pairs: int, seed: int) -> EmbeddingQAFinetuneDataset:
    """So many questions at most, drawn at random, in their order."""
    queries = list(train.queries)
    if len(queries) <= pairs:
        return train
    chosen = set(random.Random(seed).sample(range(len(queries)), pairs))
    return train.subset([query for number, query in enumerate(queries) if number in chosen])


def train_candidate(
    method: TrainMethod,
    base: BaseEmbedding,
    train: EmbeddingQAFinetuneDataset,
    val: EmbeddingQAFinetuneDataset | None,
    folder: Path,
    *,
    pairs: int,
    epochs: int,
    seed: int,
    cache: EmbeddingCache | None,
    show_progress: bool,
) -> DenseModel:
    """Train one candidate; one that an interrupted search finished is taken as it is.

    ``"distill"`` trains all weights on what `judged_by` returns.

    Raises:
        TrainingError: Training failed.
    """
    from llama_index_embft.pipeline.trained.engines import make_engine, trusts_code

    train = drawn(train, pairs, seed)
    identity = as_encoder(base, cache=None).fingerprint
    at = folder / f"{method}-{hash_of([identity, train.content_hash(), val and val.content_hash(), epochs, seed])}"
    took = at.with_name(f"{at.name}.seconds")  # for the search that goes on after an interruption
    started = time.perf_counter()
    trust, name = trusts_code(base), "distilled" if method == "distill" else method
    rebuilt = None if is_trainable(base) else base
    if identity is not None and (at / "embft.json").is_file():
        model = load_embed_model(at, base_embed_model=rebuilt, trust_remote_code=trust)
        return DenseModel(name, model, at, float(took.read_text()) if took.is_file() else 0.0)
    shutil.rmtree(at, ignore_errors=True)
    options: dict[str, Any] = {"seed": seed}
    if method != "adapter":
        options |= {"method": "full" if method == "distill" else method, "epochs": epochs}
    engine = make_engine(method, train, val, base, at, show_progress, cache, options)
    engine.finetune()
    seconds = time.perf_counter() - started
    atomic_write_text(took, f"{seconds:.2f}")
    return DenseModel(name, engine.get_finetuned_model(), at, seconds)


@contextlib.contextmanager
def only_here(output_path: str | os.PathLike[str] | None) -> Iterator[None]:
    """Two searches never write to one folder at the same time.

    Raises:
        ConfigError: Another one does.
        OutputError: The cache folder, where searches keep what they have trained, cannot be written.
    """
    if output_path is None:
        yield
        return
    from filelock import FileLock, Timeout

    place = work_folder("lock", Path(output_path).absolute()).with_suffix(".lock")
    lock = FileLock(place)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigError(f"Another search is writing to {output_path}; wait for it, or name another folder.") from None
    except OSError as err:
        raise OutputError(
            f"Cannot write the cache folder {place.parent}: {err.strerror or err}; set EMBFT_CACHE_DIR to a folder "
            "that you may write to."
        ) from err
    try:
        yield
    finally:
        lock.release()
