"""Batches of a fixed number of tokens, tokenized while the one before is computed: a SentenceTransformer at full speed.

`SentenceTransformer.encode` takes a fixed number of texts a batch, sorts them by characters, and tokenizes and computes
in turns. Here a block of texts goes through the tokenizer in one call, in a thread of its own, is sorted by its real
lengths, and is cut into batches of about as many tokens each. The model, its prompts, pooling and truncation are used
as they are; a model whose inputs are no plain padded matrix of tokens goes through its own `encode`.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias, get_args

import numpy as np

from llama_index_embft._core.checks import check_choice, check_number
from llama_index_embft.embeddings.encoding.masks import masks_without_looking
from llama_index_embft.embeddings.encoding.tokenizing import on_all_cores, preprocess
from llama_index_embft.embeddings.sentence_transformer import own_errors
from llama_index_embft.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    import torch
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer

EncodePrecision: TypeAlias = Literal["float32", "bfloat16", "float16", "auto"]
"""Of the computation; ``"float32"`` leaves the model's own data type alone."""

# Texts that go through the tokenizer in one call: enough to sort among, few enough that the padded block stays small
# (1,024 texts of 512 tokens: 12 MiB).
TEXTS_PER_BLOCK: Final = 1024
# On CPU activations should stay in the caches of the cores: 10-K passages went a fifth faster through MiniLM in batches
# of 8 (2,048 tokens) than in sentence-transformers' 32. With half the bytes a number it may be twice as many. A GPU
# wants to be filled.
TOKENS_PER_BATCH_CPU: Final = {"float32": 2048, "bfloat16": 4096, "float16": 4096}
TOKENS_PER_BATCH_GPU: Final = 65_536
# On CPU padding costs what tokens cost: 40 sentences in one batch were padded to 2.8 times their length. A GPU would
# stand idle instead.
PADDING_CPU: Final = 0.1
# Very short texts: more rows than this gain nothing, and kernels have limits of their own.
TEXTS_PER_BATCH: Final = 4096
_KNOWN_FEATURES: Final = frozenset({"input_ids", "attention_mask", "token_type_ids", "modality", "prompt_length"})
_DEVICES: Final = frozenset({"cpu", "cuda"})


class Batch(NamedTuple):
    """Rows of a block with their features, padded to the longest of them only."""

    rows: NDArray[np.int64]  # (n,): positions in the block
    features: dict[str, Any]


def token_budget_batches(
    lengths: NDArray[np.int64],
    tokens_per_batch: int,
    *,
    texts_per_batch: int = TEXTS_PER_BATCH,
    most_padding: float = 1.0,
) -> list[NDArray[np.int64]]:
    """Group texts, longest first, so that no batch holds more than a number of tokens, padding included.

    Args:
        lengths: Shape ``(n,)``: tokens of each text.
        tokens_per_batch: Most tokens a batch, rows times the longest of them. A text that is longer by itself has a
            batch of its own.
        texts_per_batch: Most rows a batch.
        most_padding: Most padding a batch, as a share of its tokens.

    Returns:
        Row numbers of each batch; together each row exactly once. Equal lengths keep their order.

    Raises:
        ConfigError: A limit is below 1.
    """
    check_number("tokens_per_batch", tokens_per_batch, at_least=1)
    check_number("texts_per_batch", texts_per_batch, at_least=1)
    order = np.argsort(-lengths, kind="stable").astype(np.int64)
    batches, start = [], 0
    while start < len(order):
        longest = max(1, int(lengths[order[start]]))
        end = start + max(1, min(texts_per_batch, tokens_per_batch // longest))
        held = np.maximum(1, lengths[order[start:end]])
        padding = 1.0 - np.cumsum(held) / (longest * np.arange(1, len(held) + 1))
        end = start + int(np.searchsorted(padding, most_padding, side="right"))  # lengths fall, so padding grows
        batches.append(order[start:end])
        start = end
    return batches


def padding_share(lengths: NDArray[np.int64], batches: Sequence[NDArray[np.int64]]) -> float:
    """Share of the computed tokens that are padding, in [0, 1); 0 where there is nothing to compute."""
    computed = sum(len(rows) * int(lengths[rows].max()) for rows in batches)
    return 1.0 - float(lengths.sum()) / computed if computed else 0.0


def cut_into_batches(
    features: Mapping[str, Any],
    n: int,
    tokens_per_batch: int,
    *,
    texts_per_batch: int = TEXTS_PER_BATCH,
    most_padding: float = 1.0,
) -> list[Batch] | None:
    """Cut the padded features of a block into batches that are padded to their own longest text.

    Args:
        features: What `SentenceTransformer.preprocess` returned for a block of `n` texts.
        n: Texts in the block.
        tokens_per_batch: See `token_budget_batches`.
        texts_per_batch: Likewise.
        most_padding: Likewise.

    Returns:
        The batches, or None where the features are not a plain matrix of tokens (flattened inputs, query expansion,
        bags of words, …), which only the model itself knows how to batch.
    """
    import torch

    ids, mask = features.get("input_ids"), features.get("attention_mask")
    if not isinstance(ids, torch.Tensor) or not isinstance(mask, torch.Tensor) or not set(features) <= _KNOWN_FEATURES:
        return None
    if ids.ndim != 2 or ids.shape != mask.shape or len(ids) != n or not n:
        return None
    left, right = bool(mask[:, -1].all()), bool(mask[:, 0].all())
    if not left and not right:
        return None
    lengths = mask.sum(dim=1).numpy().astype(np.int64)
    batches = []
    for rows in token_budget_batches(
        lengths, tokens_per_batch, texts_per_batch=texts_per_batch, most_padding=most_padding
    ):
        longest = max(1, int(lengths[rows].max()))
        # Rows without padding count as padded on the left, which is as right as the right.
        window = slice(ids.shape[1] - longest, None) if left else slice(0, longest)
        chosen = torch.from_numpy(rows)
        cut = {
            name: value[chosen, window] if isinstance(value, torch.Tensor) and value.shape == ids.shape else value
            for name, value in features.items()
        }
        batches.append(Batch(rows, cut))
    return batches


def resolve_precision(precision: EncodePrecision, device: torch.device) -> EncodePrecision:
    """What ``"auto"`` stands for: bfloat16 where the device multiplies it faster, else float32.

    Raises:
        ConfigError: The precision is unknown.
    """
    import torch

    check_choice("precision", precision, get_args(EncodePrecision))
    if precision != "auto":
        return precision
    if device.type == "cuda":
        with torch.cuda.device(device):  # the question is about the current one
            return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    has_amx: Callable[[], bool] = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    return "bfloat16" if device.type == "cpu" and has_amx() else "float32"


def encode_texts(
    model: SentenceTransformer,
    texts: Sequence[str],
    *,
    prompt: str = "",
    normalize: bool = False,
    precision: EncodePrecision = "float32",
    tokens_per_batch: int | None = None,
    texts_per_batch: int | None = None,
    **options: Any,
) -> NDArray[np.float32]:
    """Embed texts as `SentenceTransformer.encode` does, faster.

    In float32 the vectors equal those of `encode` up to rounding. In bfloat16 the weights stay as they are and matrix
    products are rounded (autocast); all-MiniLM-L6-v2's vectors of 10-K passages kept a cosine above 0.9999.

    Args:
        model: The model; its device, prompts, pooling and `truncate_dim` are respected.
        texts: Texts, in any order.
        prompt: Put before each text.
        normalize: Scale vectors to length 1.
        precision: Of the matrix products, see `EncodePrecision`.
        tokens_per_batch: Most tokens a batch, padding included; None: 2,048 on CPU (4,096 in
            reduced precision) and 65,536 on a GPU. A batch that
            does not fit the memory of a GPU is halved until it does.
        texts_per_batch: Most texts a batch; None: no limit that matters.
        **options: For the model's `preprocess` and `forward`, such as ``task``.

    Returns:
        Shape ``(len(texts), dim)``.

    Raises:
        ConfigError: There is no text, or an argument has a value that is not allowed.
    """
    import torch

    if not texts:
        raise ConfigError("There is no text to embed; give at least one.")
    device = model.device
    kind = resolve_precision(precision, device)
    default = TOKENS_PER_BATCH_CPU[kind] if device.type == "cpu" else TOKENS_PER_BATCH_GPU
    budget = default if tokens_per_batch is None else tokens_per_batch
    # By characters over all texts, so that a block holds similar lengths, and then by tokens within the block.
    order = sorted(range(len(texts)), key=lambda row: -len(texts[row]))
    blocks = [order[start : start + TEXTS_PER_BLOCK] for start in range(0, len(order), TEXTS_PER_BLOCK)]

    def prepare(block: list[int]) -> list[Batch] | None:
        with on_all_cores(device.type == "cuda"):
            features = preprocess(model, [texts[row] for row in block], prompt or None, **options)
        batches = cut_into_batches(
            features,
            len(block),
            budget,
            texts_per_batch=texts_per_batch or TEXTS_PER_BATCH,
            most_padding=PADDING_CPU if device.type == "cpu" else 1.0,
        )
        if batches is None or device.type != "cuda":
            return batches
        return [
            Batch(batch.rows, {name: _pinned(value) for name, value in batch.features.items()}) for batch in batches
        ]

    # A model that keeps its inputs on several devices, or on one of another kind, knows more than is known here.
    batches = prepare(blocks[0]) if device.type in _DEVICES else None
    with torch.inference_mode(), _autocast(device, kind), masks_without_looking(model, device.type == "cuda"):
        if batches is None:
            vectors = model.encode(
                list(texts), prompt=prompt, normalize_embeddings=normalize, convert_to_tensor=True,
                show_progress_bar=False, **options,
            )  # fmt: skip
            plain: NDArray[np.float32] = vectors.float().cpu().numpy()
            return plain
        model.eval()
        return _run(model, blocks, batches, prepare, len(texts), normalize=normalize, options=options)


def _run(
    model: SentenceTransformer,
    blocks: list[list[int]],
    first: list[Batch],
    prepare: Callable[[list[int]], list[Batch] | None],
    n: int,
    *,
    normalize: bool,
    options: dict[str, Any],
) -> NDArray[np.float32]:
    """Compute one block while a thread tokenizes the next; tokenizers let go of Python's lock."""
    result: NDArray[np.float32] | None = None
    fetch: Callable[[], NDArray[np.float32]] | None = None
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="tokenize") as pool:
        batches: list[Batch] | None = first
        for number in range(len(blocks)):
            coming = pool.submit(prepare, blocks[number + 1]) if number + 1 < len(blocks) else None
            assert batches is not None  # all blocks are texts of the same kind
            fetch_next = _compute(model, batches, normalize=normalize, options=options)
            if fetch is not None and result is not None:
                result[blocks[number - 1]] = fetch()
            elif result is None:
                result = np.empty((n, fetch_next.dim), dtype=np.float32)
            fetch = fetch_next
            batches = coming.result() if coming is not None else None
    assert result is not None
    assert fetch is not None
    result[blocks[-1]] = fetch()
    return result


class _Fetch:
    """Vectors of a block on their way from the device; called, it waits for them."""

    def __init__(self, vectors: torch.Tensor) -> None:
        import torch

        self.dim = int(vectors.shape[1])
        self._event = None
        self._vectors = vectors
        if vectors.device.type == "cuda":
            self._vectors = torch.empty(vectors.shape, dtype=vectors.dtype, pin_memory=True)
            self._vectors.copy_(vectors, non_blocking=True)
            # Of this copy alone: a plain `.cpu()` would wait for the next block's work as well. And on the stream that
            # carries it, which is that of the vectors' own device, whichever is the current one.
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record(torch.cuda.current_stream(vectors.device))

    def __call__(self) -> NDArray[np.float32]:
        if self._event is not None:
            self._event.synchronize()
        vectors: NDArray[np.float32] = self._vectors.numpy()
        return vectors


def _compute(model: SentenceTransformer, batches: list[Batch], *, normalize: bool, options: dict[str, Any]) -> _Fetch:
    """Vectors of a block, in its order; on a GPU this returns before they are there."""
    import torch

    rows = np.concatenate([batch.rows for batch in batches])
    parts = [
        _forward(model, batch.features, len(batch.rows), normalize=normalize, options=options) for batch in batches
    ]
    stacked = torch.cat(parts)
    back = np.empty(len(rows), dtype=np.int64)
    back[rows] = np.arange(len(rows))
    places = torch.from_numpy(back)
    if stacked.device.type == "cuda":  # a copy from memory that is not pinned would wait for all work sent there
        places = places.pin_memory().to(stacked.device, non_blocking=True)
    return _Fetch(stacked[places])


def _forward(
    model: SentenceTransformer, features: dict[str, Any], n: int, *, normalize: bool, options: dict[str, Any]
) -> torch.Tensor:
    import torch

    vectors: torch.Tensor | None = None
    try:
        placed = {
            name: value.to(model.device, non_blocking=True) if isinstance(value, torch.Tensor) else value
            for name, value in features.items()
        }
        # Through the model's own call, so that a compiled model runs compiled.
        with own_errors():
            vectors = model(placed, **options)["sentence_embedding"].float()
    except torch.OutOfMemoryError:
        if n == 1:
            raise
    if vectors is None:  # outside the handler, whose traceback would keep the failed batch in memory
        torch.cuda.empty_cache()
        halves = ((slice(0, n // 2), n // 2), (slice(n // 2, n), n - n // 2))
        return torch.cat(
            [
                _forward(model, _rows_of(features, n, part), size, normalize=normalize, options=options)
                for part, size in halves
            ]
        )
    if model.truncate_dim is not None:
        vectors = vectors[:, : model.truncate_dim]
    # A model that ends in Normalize has done so in reduced precision; lengths are made exact again.
    ends_normal = type(model[-1]).__name__ == "Normalize" and model.truncate_dim is None
    return torch.nn.functional.normalize(vectors, dim=1) if normalize or ends_normal else vectors


def _rows_of(features: dict[str, Any], n: int, part: slice) -> dict[str, Any]:
    import torch

    return {
        name: value[part] if isinstance(value, torch.Tensor) and value.ndim > 1 and len(value) == n else value
        for name, value in features.items()
    }


def _pinned(value: Any) -> Any:
    import torch

    return value.pin_memory() if isinstance(value, torch.Tensor) else value


def _autocast(device: torch.device, precision: EncodePrecision) -> AbstractContextManager[Any]:
    import torch

    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=getattr(torch, precision))
