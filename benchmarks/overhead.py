"""What a training step and an encoded token cost beside the model: with a model that is nearly free, all the rest.

A BERT of one layer and width 8 reads texts through MiniLM's tokenizer, 64 rows of up to 450 tokens a step. The time
of one thread (its processor time, so that other work on the machine does not count) is divided into tokenising, the
model forward, backward, the optimizer, and what is left: the trainer's and our own cost.

    python benchmarks/overhead.py
    python benchmarks/overhead.py --profile     # and the functions that the rest is spent in
"""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from _common import command, merged, minilm, parser, print_table, write_results

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROWS, TOKENS, STEPS = 64, 450, 48


class Meter:
    """Processor time of this thread inside chosen functions; of nested ones the outermost counts."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.calls: dict[str, int] = {}
        self._inside = False

    def reset(self) -> None:
        """Begin anew."""
        self.seconds.clear()
        self.calls.clear()

    @contextmanager
    def watching(self, functions: dict[str, tuple[Any, str]]) -> Iterator[None]:
        """Measure functions, given as (owner, attribute) by the name of their part."""
        before = {name: getattr(*place) for name, place in functions.items()}
        for name, (owner, attribute) in functions.items():
            setattr(owner, attribute, self._timed(name, before[name]))
        try:
            yield
        finally:
            for name, (owner, attribute) in functions.items():
                setattr(owner, attribute, before[name])

    def _timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            if self._inside:
                return function(*args, **kwargs)
            self._inside = True
            started = time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                self._inside = False
                self.seconds[name] = self.seconds.get(name, 0.0) + time.thread_time() - started
                self.calls[name] = self.calls.get(name, 0) + 1

        return timed


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--profile", action="store_true", help="print the functions that cost most")
    options.add_argument("--no-save", dest="save", action="store_false", help="print only")
    args = options.parse_args()
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        model = nearly_free_model(folder)
        rows = [training(model, folder, profile=args.profile), encoding(model, profile=args.profile)]
    for row in rows:
        print_table([row])
    if args.save:
        write_results("overhead", merged("overhead", [{**row, "command": command()} for row in rows], ("path",)))


def nearly_free_model(folder: str) -> str:
    """Folder of a SentenceTransformer with MiniLM's tokenizer and hardly any weights."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import AutoTokenizer, BertConfig, BertModel

    tokenizer = AutoTokenizer.from_pretrained(minilm())
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        max_position_embeddings=512,
    )
    BertModel(config).save_pretrained(f"{folder}/raw")
    tokenizer.save_pretrained(f"{folder}/raw")
    word = Transformer(f"{folder}/raw", max_seq_length=TOKENS)
    SentenceTransformer(modules=[word, Pooling(8), Normalize()], device="cpu").save_pretrained(f"{folder}/model")
    return f"{folder}/model"


def texts(n: int, words: int) -> list[str]:
    """Made-up texts of different words."""
    import random

    rng = random.Random(0)
    syllables = ["ba", "ko", "mi", "ru", "ten", "sol", "var", "lin", "dor", "pe"]
    return [" ".join(rng.choice(syllables) + rng.choice(syllables) for _ in range(words)) for _ in range(n)]


def training(model: str, folder: str, *, profile: bool) -> dict[str, Any]:
    """A training step's parts, in milliseconds."""
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers import Trainer

    from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
    from llama_index_embft.finetune import SentenceTransformersFinetuneEngine

    passages = texts(ROWS * STEPS, TOKENS)
    data = EmbeddingQAFinetuneDataset(
        queries={f"q{n}": " ".join(text.split()[:8]) for n, text in enumerate(passages)},
        corpus={f"d{n}": text for n, text in enumerate(passages)},
        relevant_docs={f"q{n}": [f"d{n}"] for n in range(len(passages))},
    )
    meter, found = Meter(), dict[str, dict[str, float]]()
    parts = {
        "tokenising": (SentenceTransformer, "preprocess"),
        "forward": (SentenceTransformer, "forward"),
        "backward": (torch.Tensor, "backward"),
        "optimizer": (torch.optim.AdamW, "step"),
    }
    run = Trainer.train

    def timed(self: Any, *args: Any, **kwargs: Any) -> Any:
        meter.reset()  # what comes before the first step is no part of a step
        started = time.thread_time()
        with profiled(profile):
            result = run(self, *args, **kwargs)
        meter.seconds["all"] = time.thread_time() - started
        found.update(seconds=dict(meter.seconds), calls=dict(meter.calls))
        return result

    engine = SentenceTransformersFinetuneEngine(
        data, model, f"{folder}/out", batch_size=ROWS, epochs=1, device="cpu", show_progress_bar=False
    )
    Trainer.train = timed
    try:
        with meter.watching(parts):
            engine.finetune()
    finally:
        Trainer.train = run
    spent = {name: 1000 * seconds / STEPS for name, seconds in found["seconds"].items()}
    own = spent["all"] - sum(ms for name, ms in spent.items() if name != "all")
    return {
        "path": "training",
        "rows": ROWS,
        "steps": STEPS,
        **{f"{name}, ms a step": round(ms, 2) for name, ms in spent.items()},
        "own, ms a step": round(own, 2),
        "tokenised, calls a step": found["calls"]["tokenising"] / STEPS,
    }


def encoding(model: str, *, profile: bool) -> dict[str, Any]:
    """What encoding a token costs, in microseconds."""
    from sentence_transformers import SentenceTransformer
    from tokenizers import Tokenizer

    from llama_index_embft.embeddings import as_encoder

    loaded = SentenceTransformer(model, device="cpu")
    passages = texts(2048, TOKENS // 3)
    encoder = as_encoder(loaded, cache=None)
    encoder.encode_documents(passages[:64])
    plain = Tokenizer.from_file(f"{model}/tokenizer.json")
    plain.enable_truncation(TOKENS)
    started = time.process_time()
    tokens = sum(len(found.ids) for found in plain.encode_batch(passages))
    tokenising = time.process_time() - started
    meter = Meter()
    with meter.watching({"forward": (SentenceTransformer, "forward")}), profiled(profile):
        started = time.process_time()  # of all threads: texts are tokenised in one of their own
        encoder.encode_documents(passages)
        whole = time.process_time() - started
    own = whole - meter.seconds["forward"] - tokenising
    return {
        "path": "encoding",
        "tokens": tokens,
        "all, us a token": round(1e6 * whole / tokens, 3),
        "forward, us a token": round(1e6 * meter.seconds["forward"] / tokens, 3),
        "tokenizer alone, us a token": round(1e6 * tokenising / tokens, 3),
        "own, us a token": round(1e6 * own / tokens, 3),
        "batches": meter.calls["forward"],
    }


@contextmanager
def profiled(wanted: bool) -> Iterator[None]:
    """Print the twenty functions that cost most of their own."""
    if not wanted:
        yield
        return
    import cProfile
    import pstats

    profile = cProfile.Profile(time.thread_time)
    with profile:
        yield
    pstats.Stats(profile).sort_stats("tottime").print_stats(20)


if __name__ == "__main__":
    main()
