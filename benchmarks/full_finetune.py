"""Full fine-tuning, from a data set to a saved model: ours and the peer's engine, in one run.

    python benchmarks/full_finetune.py                    # needs the extra `stock`; some minutes on two cores
    python benchmarks/full_finetune.py --contenders ours  # without the peer
    python benchmarks/full_finetune.py --device cuda --model random-bge-small --batch-sizes 64 256
    python benchmarks/full_finetune.py --tiny --no-save   # a toy model and toy data: only shows that it runs

Lyft (668 pairs), as many epochs and as large a batch for both, all else each side's own defaults. The peer runs at
its own batch size of 10 only. Both read the tokens that the model reads by itself; one more row of ours is with all
defaults, which read more of long passages. Afterwards both are scored once on Uber by the same evaluator. Each
contender has a process of its own, so peak memory is its own too; it is taken before the evaluation. Seconds are
those of `finetune()`; loading the model comes before it and is not counted. On a GPU the table adds model FLOPs
utilization: the multiplications that the real tokens need (three times a forward pass), by seconds and by the card's
peak.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from _common import minilm, parser, print_table, write_results

STOCK_BATCH = 10
# Dense bf16 peak of an H100 SXM and of an H200, in FLOP a second (NVIDIA's data sheets).
PEAK = 989e12


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--contenders", nargs="+", default=["ours", "stock"], choices=["ours", "stock"])
    options.add_argument("--batch-sizes", nargs="+", type=int, default=[STOCK_BATCH, 64], help="of ours")
    options.add_argument("--epochs", type=int, default=2)
    options.add_argument("--model", help="folder or hub name; random-bge-small: random weights of that shape")
    options.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="arguments of our engine")
    options.add_argument(
        "--repeats", type=int, default=1, help="runs of each contender, alternating; the median counts"
    )
    options.add_argument("--tiny", action="store_true", help="toy model and data")
    options.add_argument("--no-save", dest="save", action="store_false", help="print only")
    options.add_argument("--worker", help="(internal) one contender, as JSON")
    args = options.parse_args()
    if args.worker:
        print(json.dumps(_work(**json.loads(args.worker))))
        return
    with tempfile.TemporaryDirectory() as folder:
        train, test, model = _inputs(args, Path(folder))
        jobs = [{"side": "ours", "batch_size": size} for size in args.batch_sizes if "ours" in args.contenders]
        if jobs:
            jobs.append({**jobs[-1], "all_defaults": True})
        if "stock" in args.contenders:
            jobs.append(
                {"side": "stock", "batch_size": min(STOCK_BATCH, min(args.batch_sizes) if args.tiny else STOCK_BATCH)}
            )
        common = {"train": train, "test": test, "model": model, "epochs": args.epochs, "device": args.device}
        common["arguments"] = dict(_pair(item) for item in args.set)
        runs: list[list[dict]] = [[] for _ in jobs]
        for _ in range(args.repeats):
            for job, done in zip(jobs, runs, strict=True):
                done.append(_in_own_process({**common, **job}))
    rows = [sorted(done, key=lambda row: row["seconds"])[len(done) // 2] for done in runs]
    stock = next((row for row in rows if row["contender"] == "llama-index-finetuning"), None)
    for row in rows:
        if stock is not None:
            row["times the peer's pairs/s"] = row["pairs/s"] / stock["pairs/s"]
            row["times the peer's memory"] = row["peak GiB"] / stock["peak GiB"]
    print_table(rows)
    if args.save:
        write_results("full_finetune", rows, device=args.device, epochs=args.epochs, repeats=args.repeats)


def _pair(item):
    name, _, text = item.partition("=")
    try:
        return name, json.loads(text)
    except ValueError:
        return name, text


def _inputs(args, folder):
    """Paths of training set, test set and model."""
    if args.tiny:
        return _tiny(folder)
    model = args.model or minilm()
    if model == "random-bge-small":
        model = _random_bge_small(folder)
    if Path(model).is_dir():
        model = str(Path(model).resolve())  # the workers have a working folder of their own
    data = args.data_dir.resolve()
    return str(data / "lyft_10k_2021.json"), str(data / "uber_10k_2021.json"), model


def _in_own_process(job):
    command = [sys.executable, __file__, "--worker", json.dumps(job)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{job['side']} at batch {job['batch_size']} ended with code {done.returncode}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def _work(side, train, test, model, epochs, device, batch_size, arguments, all_defaults=False):
    import resource

    from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
    from llama_index_embft.embeddings import load_embed_model
    from llama_index_embft.evaluation import evaluate_embed_model

    data = EmbeddingQAFinetuneDataset.from_json(train)
    work = _tokens_and_flops(data, model) if device.startswith("cuda") else None
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        make = _stock if side == "stock" else _ours
        if not all_defaults:
            arguments = {"max_seq_length": None, **arguments}
        engine = make(data, model, epochs, device, batch_size, arguments)
        started = time.perf_counter()
        engine.finetune()
        seconds = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)
        pairs = len(data.queries) * epochs
        row = {
            "contender": "llama-index-finetuning" if side == "stock" else "ours",
            "tokens read": load_embed_model("out", device="cpu").max_length,
            "batch": batch_size,
            "seconds": seconds,
            "pairs/s": pairs / seconds,
            "peak GiB": peak,
        }
        if work is not None:
            import torch

            tokens, flops = work
            row["GPU GiB"] = torch.cuda.max_memory_allocated() / 2**30
            row["tokens/s"] = round(tokens * epochs / seconds)
            row["MFU"] = flops * epochs / seconds / PEAK
        questions = EmbeddingQAFinetuneDataset.from_json(test)
        started = time.perf_counter()
        report = evaluate_embed_model(questions, load_embed_model("out", device=device), cache=None)
        row |= {"test ndcg@10": report.mean("ndcg@10"), "evaluation seconds": time.perf_counter() - started}
        return row


def _ours(data, model, epochs, device, batch_size, arguments):
    from llama_index_embft.finetune import SentenceTransformersFinetuneEngine
    from llama_index_embft.finetune.full import engine_arguments

    return SentenceTransformersFinetuneEngine(
        data,
        model,
        "out",
        batch_size=batch_size,
        epochs=epochs,
        device=device,
        show_progress_bar=False,
        **engine_arguments(**arguments),
    )


def _stock(data, model, epochs, device, batch_size, arguments):
    del arguments  # of our engine
    from llama_index.finetuning import (
        EmbeddingQAFinetuneDataset as StockDataset,
        SentenceTransformersFinetuneEngine as StockEngine,
    )

    stock = StockDataset(queries=data.queries, corpus=data.corpus, relevant_docs=data.relevant_docs)
    # A validation set is needed to start at all; one query keeps its cost out of the timing.
    first = next(iter(data.queries))
    doc = data.relevant_docs[first][0]
    one = StockDataset(
        queries={first: data.queries[first]}, corpus={doc: data.corpus[doc]}, relevant_docs={first: [doc]}
    )
    return StockEngine(
        stock, model, "out", batch_size=batch_size, val_dataset=one, epochs=epochs, device=device,
        show_progress_bar=False, evaluation_steps=10**6,
    )  # fmt: skip


def _tokens_and_flops(data, model):
    """Real tokens of an epoch, and the multiplications and additions that training on them needs.

    A forward pass takes two operations a weight and token, without the embedding tables, and 4 · width · length² a
    layer for attention; backward takes twice as much.
    """
    from sentence_transformers import SentenceTransformer

    loaded = SentenceTransformer(model, device="cpu")
    config = loaded[0].auto_model.config
    weights = sum(p.numel() for name, p in loaded.named_parameters() if "embeddings" not in name)
    pairs = [(text, data.corpus[doc]) for query, text in data.queries.items() for doc in data.relevant_docs[query]]
    texts = [text for pair in pairs for text in pair]
    lengths = [
        len(ids) for ids in loaded.tokenizer(texts, truncation=True, max_length=loaded.max_seq_length)["input_ids"]
    ]
    attention = 4 * config.num_hidden_layers * config.hidden_size
    return sum(lengths), 3 * sum(2 * weights * n + attention * n * n for n in lengths)


def _random_bge_small(folder):
    """Random weights in the shape of BAAI/bge-small-en-v1.5, with MiniLM's tokenizer (both have BERT's vocabulary)."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import AutoTokenizer, BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30522, hidden_size=384, num_hidden_layers=12, num_attention_heads=12, intermediate_size=1536
    )
    raw = folder / "raw"
    BertModel(config).save_pretrained(raw)
    AutoTokenizer.from_pretrained(minilm()).save_pretrained(raw)
    modules = [Transformer(str(raw), max_seq_length=512), Pooling(384, pooling_mode="cls"), Normalize()]
    path = str(folder / "random-bge-small")
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(path, create_model_card=False)
    return path


def _tiny(folder):
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    from llama_index_embft.dataset import EmbeddingQAFinetuneDataset

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    ids = {token: n for n, token in enumerate([*special, *letters, *(f"##{c}" for c in letters)])}
    words = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    words.normalizer = normalizers.BertNormalizer(lowercase=True)
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words.post_processor = processors.BertProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
    names = dict(zip(["pad_token", "unk_token", "cls_token", "sep_token", "mask_token"], special, strict=True))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(ids), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
    )
    raw = folder / "raw"
    BertModel(config).save_pretrained(raw)
    PreTrainedTokenizerFast(tokenizer_object=words, model_max_length=64, **names).save_pretrained(raw)
    modules = [Transformer(str(raw), max_seq_length=64), Pooling(32), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(folder / "model"), create_model_card=False)
    data = EmbeddingQAFinetuneDataset(
        queries={f"q{n}": f"where is thing {n}" for n in range(20)},
        corpus={f"d{n}": f"item {n * 7 % 20} of class {n}" for n in range(20)},
        relevant_docs={f"q{n}": [f"d{n}"] for n in range(20)},
    )
    data.save_json(folder / "data.json")
    return str(folder / "data.json"), str(folder / "data.json"), str(folder / "model")


if __name__ == "__main__":
    main()
