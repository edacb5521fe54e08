"""Does this installation work? Versions, device, memory, disk, network, extras, and a tiny run of everything."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from llama_index_embft._core.checks import first_line
from llama_index_embft._core.environment import default_cache_dir, hub_failure, package_versions
from llama_index_embft._core.temporary import scratch_folder
from llama_index_embft.finetune.running.processes import device_of_process

if TYPE_CHECKING:
    from collections.abc import Callable

Status = Literal["ok", "warning", "broken"]

_PACKAGE: Final = "llama-index-embft"
_NETWORK_SECONDS: Final = 3.0
_FEW_BYTES: Final = 2e9  # below it a model of usual size does not fit, in memory or on the disk
_QUESTIONS: Final = 24


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: ``versions``, ``device``, ``precision``, ``memory``, ``disk``, ``cache``, ``hub``, ``extras`` or
            ``self-test``.
        status: ``"broken"``: something that is needed does not work. ``"warning"``: something that may be wanted.
        text: What was found.
        advice: What to do; empty where nothing is to be done.
    """

    name: str
    status: Status
    text: str
    advice: str = ""


@dataclass(frozen=True)
class Checkup:
    """What `check_installation` found.

    Attributes:
        checks: In the order in which they were made.
        versions: Package -> version.
        extras: Extra -> whether its packages are there.
        seconds: What the self-test took; None where it was left out.
    """

    checks: tuple[Check, ...]
    versions: dict[str, str]
    extras: dict[str, bool]
    seconds: float | None

    @property
    def works(self) -> bool:
        """Whether nothing that is needed is broken."""
        return all(check.status != "broken" for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """The same as plain data, with ``works``."""
        return {"works": self.works, **asdict(self)}


def check_installation(*, self_test: bool = True, device: str | None = None) -> Checkup:
    """Look at this installation; nothing is changed, and nothing is downloaded.

    Args:
        self_test: Train, save, load and search with a tiny model made on the spot; about ten seconds.
        device: Torch device of that; default: a GPU if there is one.

    Raises:
        ConfigError: torch knows no such device.
    """
    if device is not None:  # a typing error is no broken installation; a torch that cannot be imported is
        with suppress(ImportError):
            device_of_process(device)
    found = [
        _guarded(name, check)
        for name, check in (
            ("versions", _versions),
            ("device", _device),
            ("precision", _precision),
            ("memory", _memory),
            ("disk", _disk),
            ("cache", _cache),
            ("hub", _hub),
        )
    ]
    extras = _extras()
    missing = [f'pip install "{_PACKAGE}[{name}]"' for name, there in extras.items() if not there]
    there = ", ".join(name for name, there in extras.items() if there) or "none"
    found.append(Check("extras", "ok", there, f"for the others: {'; '.join(missing)}" if missing else ""))
    seconds = None
    if self_test:
        started = time.monotonic()
        found.append(_guarded("self-test", partial(_self_test, device)))
        seconds = time.monotonic() - started
    return Checkup(tuple(found), package_versions(), extras, seconds)


def _guarded(name: str, check: Callable[[], tuple[Status, str, str]]) -> Check:
    try:
        return Check(name, *check())
    except Exception as err:  # noqa: BLE001 - whatever is broken is what is to be shown
        return Check(name, "broken", f"{type(err).__name__}: {first_line(err)}", "reinstall what the message names")


def _versions() -> tuple[Status, str, str]:
    from packaging.requirements import Requirement

    wrong = []
    for line in metadata.requires(_PACKAGE) or ():
        needed = Requirement(line)
        if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(needed.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{needed.name} is missing")
            continue
        if not needed.specifier.contains(version, prereleases=True):
            wrong.append(f"{needed.name} {version} is not {needed.specifier}")
    shown = ", ".join(f"{name} {version}" for name, version in package_versions().items())
    if wrong:
        return "broken", f"{shown}; {', '.join(wrong)}", f"pip install --upgrade {_PACKAGE}"
    return "ok", shown, ""


def _device() -> tuple[Status, str, str]:
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
        return "ok", ", ".join(f"{one.name} ({one.total_memory / 1e9:.0f} GB)" for one in names), ""
    if torch.backends.mps.is_available():
        return "ok", "Apple GPU (mps)", ""
    text = f"no GPU; CPU with {os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads"
    if torch.version.cuda is not None:
        return "warning", text, f"this torch is built for CUDA {torch.version.cuda}: look at nvidia-smi and the driver"
    return "ok", text, ""


def _chosen_device() -> str:
    from sentence_transformers.util import get_device_name

    return get_device_name()


def _precision() -> tuple[Status, str, str]:
    from llama_index_embft.finetune.running.arguments import use_bf16

    device = _chosen_device()
    trains = "bfloat16" if use_bf16(None, device) else "float32"
    return "ok", f"training on {device} is in {trains}", ""


def _memory() -> tuple[Status, str, str]:
    import psutil

    memory = psutil.virtual_memory()
    text = f"{memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB free"
    return _enough(memory.available, text, "close other programs, or take a smaller model")


def _disk() -> tuple[Status, str, str]:
    import psutil

    free = psutil.disk_usage(str(Path.cwd())).free
    text = f"{free / 1e9:.1f} GB free in {Path.cwd()}"
    return _enough(free, text, "results need room: free some, or give --out elsewhere")


def _enough(n_bytes: float, text: str, advice: str) -> tuple[Status, str, str]:
    return ("warning", text, advice) if n_bytes < _FEW_BYTES else ("ok", text, "")


def _cache() -> tuple[Status, str, str]:
    advice = "embft run needs it, and so does whoever wants no vector computed twice; set EMBFT_CACHE_DIR to another"
    try:
        folder = default_cache_dir()
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except (OSError, RuntimeError) as err:  # RuntimeError: there is no home folder
        return "warning", f"the cache folder cannot be written: {first_line(err)}", advice
    return "ok", str(folder), ""


def _hub() -> tuple[Status, str, str]:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "ok", "not asked: HF_HUB_OFFLINE is set, so only models on this disk are used", ""
    address = constants.ENDPOINT
    if not address.startswith(("http://", "https://")):
        return "warning", f"HF_ENDPOINT is {address!r}, which is no address of the web", "correct or unset HF_ENDPOINT"
    failure = hub_failure(_NETWORK_SECONDS)
    if failure is not None:
        advice = "models must be folders on this disk, or copied into the hub's cache; HF_HUB_OFFLINE=1 spares the wait"
        return "warning", f"{address} does not answer: {failure}", advice
    return "ok", f"{address} answers", ""


def _extras() -> dict[str, bool]:
    """Extra -> whether all its packages are there."""
    from packaging.requirements import Requirement

    needed = [Requirement(line) for line in metadata.requires(_PACKAGE) or ()]
    return {
        extra: all(
            _is_there(one.name)
            for one in needed
            if one.name != _PACKAGE and one.marker is not None and one.marker.evaluate({"extra": extra})
        )
        for extra in metadata.metadata(_PACKAGE).get_all("Provides-Extra") or ()
    }


def _is_there(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def _self_test(device: str | None) -> tuple[Status, str, str]:
    """Train, save, load and search, with random weights: what is shown is that it works, not that it is good."""
    from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
    from llama_index_embft.embeddings import as_encoder, load_embed_model
    from llama_index_embft.finetune.full import SentenceTransformersFinetuneEngine
    from llama_index_embft.search import top_k

    texts = {f"d{n}": f"room number {n} is on floor {n % 5} of the house" for n in range(_QUESTIONS)}
    dataset = EmbeddingQAFinetuneDataset(
        queries={f"q{n}": f"where is room {n}" for n in range(_QUESTIONS)},
        corpus=texts,
        relevant_docs={f"q{n}": [f"d{n}"] for n in range(_QUESTIONS)},
    )
    chosen = device or _chosen_device()
    with scratch_folder() as folder:
        base = _tiny_model(folder / "base")
        SentenceTransformersFinetuneEngine(
            dataset,
            str(base),
            model_output_path=str(folder / "tuned"),
            epochs=1,
            batch_size=8,
            device=chosen,
            show_progress_bar=False,
        ).finetune()
        encoder = as_encoder(load_embed_model(str(folder / "tuned"), device=chosen), cache=None)
        queries = encoder.encode_queries(list(dataset.queries.values()))
        found, _ = top_k(queries, encoder.encode_documents(list(texts.values())), 3)
    return "ok", f"trained, saved, loaded and searched {found.shape[0]} questions on {chosen}", ""


def _tiny_model(folder: Path) -> Path:
    """A SentenceTransformer of random weights and letters for words: 32 dimensions, one layer."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    vocabulary = {token: n for n, token in enumerate([*special, *letters, *(f"##{letter}" for letter in letters)])}
    words = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))  # noqa: S106
    words.normalizer = normalizers.BertNormalizer(lowercase=True)
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words.post_processor = processors.BertProcessing(("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"]))
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special, strict=True))
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder / "raw")
    tokenizer: Any = PreTrainedTokenizerFast(tokenizer_object=words, model_max_length=64, **names)  # type: ignore[no-untyped-call]
    tokenizer.save_pretrained(folder / "raw")
    parts = [Transformer(str(folder / "raw"), max_seq_length=64), Pooling(32), Normalize()]
    SentenceTransformer(modules=parts, device="cpu").save_pretrained(str(folder / "model"), create_model_card=False)
    return folder / "model"
