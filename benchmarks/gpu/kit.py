"""What the sections of the GPU kit share: the clock, the limits of the card, models and texts made on the spot."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

# Tokens of 395 passages (LlamaIndex's 1,024-token chunks of Uber's 10-K of 2021, all-MiniLM-L6-v2's tokenizer, not cut)
# at the percentiles 0, 5, 10, 20, ... 90, 95, 100, and of the 790 questions about them.
PASSAGE_TOKENS = [20, 141, 208, 362, 491, 709, 769, 816, 867, 901, 946, 963, 1073]
QUESTION_TOKENS = [15, 21, 25, 29, 31, 34, 36, 39, 43, 46, 52, 57, 79]
PERCENTILES = [0, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 100]

# name: (class, width, layers, heads, inner width, tokens read, tokens of the encode section in millions)
SHAPES: dict[str, tuple[str, int, int, int, int, int, float]] = {
    "bge-small": ("bert", 384, 12, 12, 1536, 512, 2.0),
    "bge-base": ("bert", 768, 12, 12, 3072, 512, 1.0),
    # BGE-M3's 250,002 entries only fill a table; 30,522 compute the same. It reads 8,192 tokens; passages end at 1,073.
    "bge-m3": ("xlm-roberta", 1024, 24, 16, 4096, 1024, 0.4),
}
TINY = {
    "bge-small": ("bert", 32, 2, 2, 64, 48, 0.002),
    "bge-base": ("bert", 48, 2, 2, 96, 48, 0.002),
    "bge-m3": ("xlm-roberta", 64, 2, 2, 128, 64, 0.002),
}
VOCABULARY = 30_522


@dataclass
class Kit:
    """Device, sizes and clock of a run; sections add to `rows` and `equal`, which survive an error later on.

    Attributes:
        device: ``"cuda"`` or ``"cpu"``.
        tiny: Toy sizes, which only show that everything runs.
        peer: Run the peers too.
        minilm: Folder of all-MiniLM-L6-v2, or None.
        data: Folder of real data sets, or None.
        folder: Where models and results of training go.
        seconds: Budget of the section.
        rows: Measurements.
        equal: Comparisons with the reference: name, value, limit and whether it holds.
    """

    device: str
    tiny: bool
    peer: bool
    minilm: str | None
    data: Path | None
    folder: Path
    seconds: float
    rows: list[dict[str, Any]] = field(default_factory=list)
    equal: list[dict[str, Any]] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    on_change: Callable[[], object] | None = None

    def add(self, **row: Any) -> None:
        """Record a measurement."""
        self.rows.append(row)
        if self.on_change is not None:
            self.on_change()

    def left(self) -> float:
        """Seconds left of the section's budget."""
        return self.seconds - (time.monotonic() - self.started)

    def has_time_for(self, what: str, share: float = 0.1) -> bool:
        """Whether a share of the budget is left; if not, a row says what was left out."""
        enough = self.left() > share * self.seconds
        if not enough:
            self.add(what=what, **{"left out": "no time left in the section's budget"})
        return enough

    def size(self, full: int, tiny: int) -> int:
        """A size by the kind of run."""
        return tiny if self.tiny else full

    def sync(self) -> None:
        """Wait for the device."""
        import torch

        if self.device.startswith("cuda"):
            torch.cuda.synchronize()

    def timed(self, work: Callable[[], Any], *, repeats: int = 3, warm: bool = True) -> float:
        """Median seconds of a piece of work, after one run that does not count; fewer repeats when time is short."""
        if warm:
            work()
        times: list[float] = []
        for _ in range(1 if self.tiny else repeats):
            self.sync()
            start = time.perf_counter()
            work()
            self.sync()
            times.append(time.perf_counter() - start)
            if self.left() < 4 * times[-1]:
                break
        return statistics.median(times)

    @cached_property
    def peak(self) -> dict[str, float]:
        """FLOP a second of a large matrix product, by data type, measured here and now."""
        import torch

        n = self.size(8192 if self.device.startswith("cuda") else 2048, 256)
        result = {}
        for name in ("bfloat16", "float16", "float32"):
            left, right = (torch.randn(n, n, device=self.device, dtype=torch.float32) for _ in range(2))
            left, right = (matrix.to(getattr(torch, name)) for matrix in (left, right))
            seconds = self.timed(lambda left=left, right=right: left @ right, repeats=10)
            result[name] = 2 * n**3 / seconds
        return result

    def check(self, name: str, value: float, limit: float, *, at_least: bool = False) -> None:
        """Record a comparison with the reference; by default the value must not exceed the limit."""
        holds = value >= limit if at_least else value <= limit
        self.equal.append(
            {"what": name, "value": float(value), "limit": limit, "at_least": at_least, "ok": bool(holds)}
        )
        if self.on_change is not None:
            self.on_change()

    def reference_device(self) -> str:
        """Where references are computed."""
        return "cpu"

    # Texts and models

    def words(self) -> list[str]:
        """The vocabulary's words; each is one token."""
        rng = np.random.default_rng(0)
        n = self.size(VOCABULARY, 600) - 5
        found: dict[str, None] = {}
        consonants, vowels = list("bcdfghjklmnpqrstvwz"), list("aeiou")
        while len(found) < n:
            syllables = rng.integers(2, 4)
            found["".join(str(rng.choice(consonants)) + str(rng.choice(vowels)) for _ in range(syllables))] = None
        return list(found)

    def texts(self, n: int, *, questions: bool = False, seed: int = 0) -> list[str]:
        """Random texts with the lengths of a real corpus; each different."""
        rng = np.random.default_rng(seed)
        at = QUESTION_TOKENS if questions else PASSAGE_TOKENS
        lengths = np.interp(rng.random(n) * 100, PERCENTILES, at).astype(int)
        if self.tiny:
            lengths = np.maximum(3, lengths // 16)
        words = np.array(self._words)
        return [" ".join(words[rng.integers(len(words), size=length)]) for length in lengths]

    @cached_property
    def _words(self) -> list[str]:
        return self.words()

    def model_folder(self, name: str) -> str:
        """Folder of a SentenceTransformer: ``"minilm"`` or a name of `SHAPES` with random weights."""
        if name == "minilm":
            assert self.minilm is not None
            return self.minilm
        path = self.folder / name
        if not path.exists():
            self._make_model(name, path)
        return str(path)

    def model_names(self) -> list[str]:
        """The shapes, and MiniLM where it is given."""
        return [*(["minilm"] if self.minilm else []), *SHAPES]

    def _make_model(self, name: str, path: Path) -> None:
        import torch
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
        from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
        from transformers import BertConfig, BertModel, PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaModel

        kind, width, layers, heads, inner, length, _ = (TINY if self.tiny else SHAPES)[name]
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        ids = {token: number for number, token in enumerate([*special, *self._words])}
        words = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
        words.normalizer = normalizers.BertNormalizer(lowercase=True)
        words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        words.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
        names = dict(zip(["pad_token", "unk_token", "cls_token", "sep_token", "mask_token"], special, strict=True))
        sizes = {
            "vocab_size": len(ids), "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads,
            "intermediate_size": inner, "max_position_embeddings": length + 2, "pad_token_id": 0,
        }  # fmt: skip
        torch.manual_seed(0)
        model = BertModel(BertConfig(**sizes)) if kind == "bert" else XLMRobertaModel(XLMRobertaConfig(**sizes))
        raw = path.with_name(path.name + "-raw")
        model.save_pretrained(raw)
        PreTrainedTokenizerFast(tokenizer_object=words, model_max_length=length, **names).save_pretrained(raw)
        modules = [Transformer(str(raw), max_seq_length=length), Pooling(width, pooling_mode="cls"), Normalize()]
        SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(path), create_model_card=False)

    def dataset(self, n: int) -> Any:
        """A data set of `n` questions, each about a passage of its own."""
        from llama_index_embft.dataset import EmbeddingQAFinetuneDataset

        passages, questions = self.texts(n, seed=1), self.texts(n, questions=True, seed=2)
        return EmbeddingQAFinetuneDataset(
            queries={f"q{row}": text for row, text in enumerate(questions)},
            corpus={f"d{row}": text for row, text in enumerate(passages)},
            relevant_docs={f"q{row}": [f"d{row}"] for row in range(n)},
        )


def unit_vectors(n: int, dim: int, *, seed: int) -> np.ndarray:
    """Random vectors of length 1, shape ``(n, dim)``, float32."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((n, dim), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def tokens_and_flops(model: Any, texts: list[str]) -> tuple[int, float]:
    """Real tokens of texts, and the multiplications and additions of a forward pass over them.

    Two a weight and token, without the embedding tables, and 4 · width · length² a layer for attention.
    """
    config = model[0].auto_model.config
    weights = sum(p.numel() for name, p in model.named_parameters() if "embeddings" not in name)
    ids = model.tokenizer(texts, truncation=True, max_length=model.max_seq_length)["input_ids"]
    lengths = np.array([len(row) for row in ids], dtype=np.float64)
    attention = 4 * config.num_hidden_layers * config.hidden_size
    return int(lengths.sum()), float((2 * weights * lengths + attention * lengths**2).sum())
