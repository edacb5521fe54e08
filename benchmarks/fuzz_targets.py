"""What is fuzzed: each target makes good files once, damages a copy of one, and says what to call on it."""

from __future__ import annotations

import os
import random
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from fuzz_mutations import damage_file, damage_folder
from readers import MAKERS

WORDS = [
    "brake",
    "river",
    "tax",
    "report",
    "region",
    "market",
    "engine",
    "safety",
    "margin",
    "lease",
    "claim",
    "audit",
    "asset",
    "rider",
    "fleet",
]


def small_dataset(count: int = 12) -> Any:
    """Questions over short passages, two a document, with grades, negatives and scores."""
    from llama_index_embft.dataset import EmbeddingQAFinetuneDataset

    rnd = random.Random(0)
    corpus = {f"d{n}": f"Passage {n}: " + " ".join(rnd.choices(WORDS, k=20)) + "." for n in range(count)}
    return EmbeddingQAFinetuneDataset(
        queries={f"q{n}": "What about " + " ".join(corpus[f"d{n}"].split()[2:6]) + "?" for n in range(count)},
        corpus=corpus,
        relevant_docs={f"q{n}": [f"d{n}"] for n in range(count)},
        negative_docs={f"q{n}": [f"d{(n + 1) % count}"] for n in range(count)},
        source_documents={f"d{n}": f"file{n // 2}.txt" for n in range(count)},
    )


def tiny_model(folder: Path) -> str:
    """A one-layer BERT with random weights; no network."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    torch.set_num_threads(1)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocab = {token: n for n, token in enumerate([*special, *WORDS, *"abcdefghijklmnopqrstuvwxyz0123456789.?"])}
    words = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))  # type: ignore[arg-type]
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()  # type: ignore[assignment]
    words.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))  # type: ignore[assignment]
    names = dict(zip(["pad_token", "unk_token", "cls_token", "sep_token", "mask_token"], special, strict=True))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocab), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=64,
    )  # fmt: skip
    raw = folder / "raw"
    BertModel(config).save_pretrained(raw)
    PreTrainedTokenizerFast(tokenizer_object=words, model_max_length=64, **names).save_pretrained(raw)
    transformer = Transformer(str(raw))
    modules = [transformer, Pooling(16), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder / "model"))
    return str(folder / "model")


class Target:
    """One kind of input.

    Attributes:
        name: As the table shows it.
        share: Of all inputs, in parts.
    """

    name = ""
    share = 1

    def build(self, folder: Path) -> None:
        """Make the good files that inputs are damaged copies of."""
        raise NotImplementedError

    def find(self, folder: Path) -> None:
        """Note which good files `build` made, in a process that did not build them."""
        raise NotImplementedError

    def labels(self) -> list[str]:
        """Names of the good files."""
        raise NotImplementedError

    def prepare(self, label: str, rnd: random.Random, folder: Path) -> Callable[[], object]:
        """Write one damaged copy into ``folder``; returns the call to try."""
        raise NotImplementedError


class Copies(Target):
    """Good files and folders by name, in the folder ``good``; each input is a damaged copy of one."""

    def __init__(self) -> None:
        self.good: dict[str, Path] = {}

    def find(self, folder: Path) -> None:
        self.good = {path.name: path for path in sorted((folder / "good").iterdir())}

    @cached_property
    def base(self) -> Any:
        """The tiny model that `build` made beside the good files."""
        from llama_index_embft import load_embed_model

        return load_embed_model(next(iter(self.good.values())).parents[1] / "model")

    def labels(self) -> list[str]:
        return sorted(self.good)

    def damaged(self, label: str, rnd: random.Random, folder: Path, *, leave: frozenset[str] = frozenset()) -> Path:
        source = self.good[label]
        copy = folder / source.name
        if source.is_dir():
            shutil.copytree(source, copy)
            damage_folder(copy, rnd, leave=leave)
        else:
            shutil.copy(source, copy)
            damage_file(copy, rnd)
        return copy


class Readers(Copies):
    name, share = "readers", 55

    def build(self, folder: Path) -> None:
        import datasets

        from llama_index_embft.dataset import write_dataset
        from llama_index_embft.dataset.formats import FORMATS
        from llama_index_embft.errors import EmbftError

        good = folder / "good"
        good.mkdir(parents=True)
        datasets.disable_progress_bars()
        for name in FORMATS:
            for ending in (".json", ".jsonl", ".csv", ".parquet", ""):
                with suppress(EmbftError):  # not every format is written to every kind of file
                    write_dataset(small_dataset(), good / f"{name}-data{ending}", name)
        small_dataset().save_json(good / "own.json")

    def prepare(self, label: str, rnd: random.Random, folder: Path) -> Callable[[], object]:
        from llama_index_embft.dataset import read_dataset

        path = self.damaged(label, rnd, folder)
        name = None if label == "own.json" else rnd.choice([label.rpartition("-data")[0], None])
        drop = rnd.choice(["raise", "raise", "drop"])

        def call() -> object:
            dataset = read_dataset(path, name, on_error=drop)
            dataset.stats()
            return dataset.save_json(folder / "again.json")

        return call


class Documents(Copies):
    name, share = "documents", 12

    def build(self, folder: Path) -> None:
        good = folder / "good"
        good.mkdir(parents=True)
        text = "\n\n".join(small_dataset().corpus.values())
        bodies = {
            "page.html": f"<html><body><h1>Report</h1><p>{text}</p><table><tr><td>1</td></tr></table></body></html>",
            "notes.md": f"# Report\n\n{text}\n\n| a | b |\n|---|---|\n| 1 | 2 |\n",
            "plain.txt": text,
        }
        for name, body in bodies.items():
            (good / name).write_text(body, encoding="utf-8")
        from pypdf import PdfWriter

        writer = PdfWriter()
        writer.add_blank_page(200, 200)
        writer.write(str(good / "blank.pdf"))
        for number, (ending, make) in enumerate(dict(MAKERS).items()):
            make(good / f"office{number}{ending}", random.Random(number), 0.05)

    def prepare(self, label: str, rnd: random.Random, folder: Path) -> Callable[[], object]:
        from llama_index_embft.dataset import documents_to_nodes, load_documents

        path = self.damaged(label, rnd, folder)
        return lambda: documents_to_nodes(load_documents([path]))


class Configs(Copies):
    name, share = "configs", 8

    def build(self, folder: Path) -> None:
        (folder / "good").mkdir(parents=True)
        (folder / "good" / "train.yaml").write_text(
            "data: data.json\nembed_model: ./no-such-folder\nmethod: lora\nbatch_size: 16\nlearning_rate: 2e-5\n"
            "epochs: 2\nout: runs/x\nmatryoshka_dims: [64, 32]\nseed: 1\nlora:\n  rank: 8\nprogress: false\n",
            encoding="utf-8",
        )

    def prepare(self, label: str, rnd: random.Random, folder: Path) -> Callable[[], object]:
        from importlib.metadata import entry_points

        from llama_index_embft.errors import ConfigError

        command = next(iter(entry_points(group="console_scripts", name="embft"))).load()
        path = self.damaged(label, rnd, folder)
        small_dataset(4).save_json(folder / "data.json")

        def call() -> None:
            os.chdir(folder)
            sys.argv = ["embft", "train", "--config", str(path)]
            try:
                command()
            except SystemExit as err:
                if err.code == 2:  # it has said its sentence
                    raise ConfigError("refused") from err
                if err.code:
                    raise

        return call


class Reports(Copies):
    name, share = "reports", 8

    def build(self, folder: Path) -> None:
        from llama_index.core import MockEmbedding

        from llama_index_embft.dataset import write_qrels, write_run
        from llama_index_embft.evaluation import evaluate_embed_model

        good = folder / "good"
        good.mkdir(parents=True)
        dataset = small_dataset()
        report = evaluate_embed_model(dataset, MockEmbedding(embed_dim=8), cache=None, show_progress=False)
        report.to_json(good / "report.json")
        write_qrels({q: dict.fromkeys(ids, 1) for q, ids in dataset.relevant_docs.items()}, good / "qrels.txt")
        write_run({q: {"d0": 0.5, "d1": 0.25} for q in dataset.queries}, good / "run.txt")

    def prepare(self, label: str, rnd: random.Random, folder: Path) -> Callable[[], object]:
        from llama_index_embft.dataset import read_qrels, read_run
        from llama_index_embft.evaluation import RetrievalReport, compare

        path = self.damaged(label, rnd, folder)
        if label == "report.json":
            good = RetrievalReport.from_json(self.good[label])

            def read() -> object:
                return str(compare(good, RetrievalReport.from_json(path)))

            return read
        return lambda: (read_qrels if label == "qrels.txt" else read_run)(path)


class Models(Copies):
    name, share = "models", 8

    def build(self, folder: Path) -> None:
        from llama_index_embft import EmbeddingAdapterFinetuneEngine, NudgeFinetuneEngine, load_embed_model
        from llama_index_embft.finetune import DriftAdapter

        good = folder / "good"
        good.mkdir(parents=True)
        path = tiny_model(folder)
        shutil.copytree(path, good / "model")
        base, dataset = load_embed_model(path), small_dataset()
        EmbeddingAdapterFinetuneEngine(
            dataset, base, val_dataset=dataset, model_output_path=str(good / "adapter"), epochs=1
        ).finetune()
        NudgeFinetuneEngine(dataset, base, dataset, model_output_path=str(good / "nudge")).finetune()
        DriftAdapter.fit(base, base, list(small_dataset(60).corpus.values()), kind="procrustes").save(good / "drift")

    def prepare(self, label: str, rnd: random.Random, folder: Path) -> Callable[[], object]:
        from llama_index_embft import load_embed_model

        path = self.damaged(label, rnd, folder, leave=frozenset({"README.md"}))
        own = {} if label == "model" else {"base_embed_model": self.base}
        return lambda: load_embed_model(path, **own).get_query_embedding("brake report")


class Journals(Copies):
    name, share = "journals", 4

    def build(self, folder: Path) -> None:
        good = folder / "good"
        good.mkdir(parents=True)
        self._generate(folder / "g.json")
        journal = next(path for path in folder.iterdir() if "journal" in path.name)
        journal.rename(good / journal.name)

    @staticmethod
    def _generate(out: Path) -> object:
        import hashlib

        from llama_index.core.llms import CompletionResponse, CustomLLM, LLMMetadata
        from llama_index.core.schema import TextNode

        from llama_index_embft import generate_qa_embedding_pairs

        class Known(CustomLLM):
            @property
            def metadata(self) -> LLMMetadata:
                return LLMMetadata(model_name="known", context_window=4096, num_output=256)

            def complete(self, prompt: str, **_: Any) -> CompletionResponse:
                mark = hashlib.sha256(prompt.encode()).hexdigest()
                return CompletionResponse(text=f"1. What about {mark[:6]} in the report?\n2. Who taxed {mark[6:12]}?")

            def stream_complete(self, *_: Any, **__: Any) -> Any:
                raise NotImplementedError

        nodes = [TextNode(text=text, id_=doc) for doc, text in small_dataset(4).corpus.items()]
        return generate_qa_embedding_pairs(
            nodes, Known(), output_path=str(out), num_questions_per_chunk=2, verbose=False
        )

    def prepare(self, label: str, rnd: random.Random, folder: Path) -> Callable[[], object]:
        self.damaged(label, rnd, folder)
        return lambda: self._generate(folder / "g.json")


class Caches(Copies):
    name, share = "caches", 2

    def build(self, folder: Path) -> None:
        from llama_index_embft import load_embed_model
        from llama_index_embft.embeddings import EmbeddingCache, as_encoder

        base = load_embed_model(tiny_model(folder))
        cache = EmbeddingCache(folder / "good" / "cache")
        as_encoder(base, cache=cache).encode_documents(list(small_dataset().corpus.values()))
        cache.close()  # else what is in it still stands in the file beside it

    def prepare(self, label: str, rnd: random.Random, folder: Path) -> Callable[[], object]:
        from llama_index_embft.embeddings import EmbeddingCache, as_encoder

        path = self.damaged(label, rnd, folder)
        return lambda: as_encoder(self.base, cache=EmbeddingCache(path)).encode_documents(
            list(small_dataset().corpus.values())
        )


class Indexes(Copies):
    name, share = "indexes", 3

    def build(self, folder: Path) -> None:
        from llama_index.core import VectorStoreIndex
        from llama_index.core.schema import TextNode

        from llama_index_embft import load_embed_model, stamp_index

        base = load_embed_model(tiny_model(folder))
        nodes = [TextNode(text=text, id_=doc) for doc, text in small_dataset().corpus.items()]
        index = VectorStoreIndex(nodes, embed_model=base)
        index.storage_context.persist(str(folder / "good" / "storage"))
        stamp_index(index, base, persist_dir=folder / "good" / "storage")

    def prepare(self, label: str, rnd: random.Random, folder: Path) -> Callable[[], object]:
        from llama_index_embft import check_index
        from llama_index_embft.index.stores import open_index

        path = self.damaged(label, rnd, folder)
        return lambda: check_index(open_index(str(path), embed_model=self.base).index, self.base)


class Checkpoints(Copies):
    name, share = "checkpoints", 1

    def build(self, folder: Path) -> None:
        work = folder / "good" / "work"
        work.mkdir(parents=True)
        self._train(work, tiny_model(folder), resume=False)

    @staticmethod
    def _train(work: Path, model: str, *, resume: bool) -> object:
        from llama_index_embft import SentenceTransformersFinetuneEngine

        os.chdir(work)
        return SentenceTransformersFinetuneEngine(
            small_dataset(), model, "out", epochs=1, batch_size=4, save_checkpoints=True,
            resume_from_checkpoint=resume, checkpoint_save_steps=1, show_progress_bar=False,
        ).finetune()  # fmt: skip

    def prepare(self, label: str, rnd: random.Random, folder: Path) -> Callable[[], object]:
        # Never a pickle: the trainer's own files of that kind are not read from foreign hands.
        path = self.damaged(label, rnd, folder, leave=frozenset({"training_args.bin", "README.md"}))
        return lambda: self._train(path, str(self.good[label].parents[1] / "model"), resume=True)


TARGETS: tuple[Target, ...] = (
    Readers(), Documents(), Configs(), Reports(), Models(), Journals(), Caches(), Indexes(), Checkpoints(),
)  # fmt: skip
