"""Kill the long commands at random moments, start them again, and compare with a run that nobody disturbed.

Each command runs once undisturbed; then, again and again, it is killed with SIGKILL at a random moment of its working
time and started anew with the same words until it ends. After a kill nothing half-written may stand where the result
goes; at the end the result must be the same: weights, vectors and data sets byte for byte, of a search the candidates
with their scores and what is handed over. A tiny random model is used, so that the moments fall between many steps.

    python benchmarks/kills.py --kills 17     # some 100 in all, an hour on one core
    python benchmarks/kills.py --kills 3      # ten minutes
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from _common import merged, parser, print_table, write_results
from generation import server
from tiny_bert import save_tiny_bert

DOCUMENTS, CHUNKS = 40, 4
_BEFORE = 0.35  # share of the time that goes by with imports: a kill then proves little


@dataclass(frozen=True)
class Job:
    """A command, and what it must leave behind.

    Attributes:
        words: The command, run in a folder of its own that holds what `prepare` puts there.
        result: What must not be there half: a path in that folder.
        digest: Of the result, equal for equal results.
    """

    words: list[str]
    result: str
    digest: Callable[[Path], str]


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--kills", type=int, default=17, help="of each command")
    options.add_argument("--only", nargs="+", help="names of commands")
    options.add_argument("--seed", type=int, default=0)
    arguments = options.parse_args()
    with tempfile.TemporaryDirectory() as folder, server(0.05) as api_base:
        start = Path(folder) / "start"
        start.mkdir()
        model = prepare(start)
        for name, job in jobs(model, api_base).items():
            if arguments.only and name not in arguments.only:
                continue
            row = kill_often(name, job, start, Path(folder), arguments.kills, arguments.seed)
            print_table([row])
            write_results("kills", merged("kills", [row], ("killed",)))  # each alone: all take an hour


def prepare(start: Path) -> str:
    """Write what the commands find; return the tiny model's folder, as they name it."""
    from llama_index.core import VectorStoreIndex
    from llama_index.core.schema import TextNode

    from llama_index_embft import EmbeddingQAFinetuneDataset, load_embed_model
    from llama_index_embft.index import stamp_index

    model = save_tiny_bert(start / "tiny")
    other = start / "other"
    shutil.copytree(model, other)
    scale_weights(other)
    dice = random.Random(0)
    names = ["valve", "harbour", "orchard", "engine", "ledger", "bridge", "lantern", "kettle", "saddle", "compass"]
    corpus = {
        f"c{d}-{c}": f"The {dice.choice(names)} {d} of the {dice.choice(names)} {c} was built in {1700 + d * 4 + c}."
        f" It serves the {dice.choice(names)} and costs {dice.randrange(100)} crowns."
        for d in range(DOCUMENTS)
        for c in range(CHUNKS)
    }
    data = EmbeddingQAFinetuneDataset(
        queries={f"q{i}": "When was the " + " ".join(text.split()[1:7]) + " built?" for i, text in corpus.items()},
        corpus=corpus,
        relevant_docs={f"q{i}": [i] for i in corpus},
        source_documents={i: i.split("-")[0] for i in corpus},
    )
    sides: list[list[str]] = [[], []]
    for query in data.queries:
        sides[int(int(query[2:].split("-")[0]) % 4 == 0)].append(query)
    for name, queries in zip(("train", "val"), sides, strict=True):
        data.subset(queries).save_json(start / f"{name}.json")
    data.save_json(start / "all.json")
    (start / "docs").mkdir()
    for d in range(DOCUMENTS):
        text = "\n\n".join(text for i, text in corpus.items() if i.startswith(f"c{d}-"))
        (start / "docs" / f"doc{d}.txt").write_text(text, encoding="utf-8")
    embed_model = load_embed_model(model)
    index = VectorStoreIndex([TextNode(id_=i, text=text) for i, text in corpus.items()], embed_model=embed_model)
    index.storage_context.persist(str(start / "storage"))
    stamp_index(index, embed_model, persist_dir=start / "storage")
    return Path(model).relative_to(start).as_posix()


def scale_weights(folder: Path) -> None:
    """Make another model of the same shape."""
    from safetensors.torch import load_file, save_file

    for file in folder.rglob("*.safetensors"):
        save_file({name: tensor * 1.1 + 0.01 for name, tensor in load_file(file).items()}, file, {"format": "pt"})


def jobs(model: str, api_base: str) -> dict[str, Job]:
    """The commands."""
    training = ["train", "train.json", "--embed-model", model, "--val", "val.json", "--out", "out"]
    resuming = ["--save-checkpoints", "--checkpoint-save-steps", "2", "--resume-from-checkpoint"]
    return {
        "generate": Job(
            ["generate", "docs", "--out", "out.json", "--llm-model", "loopback", "--api-base", api_base, "--yes"],
            "out.json",
            file_digest,
        ),
        "mine": Job(
            ["mine", "all.json", "--embed-model", model, "--strategy", "rank:1-30", "--out", "out.json"],
            "out.json",
            file_digest,
        ),
        "train, all weights": Job([*training, "--epochs", "8", "--batch-size", "16", *resuming], "out", weights_digest),
        "train, adapter": Job([*training, "--method", "adapter", "--epochs", "30"], "out", weights_digest),
        "apply": Job(["apply", "other", "--index", "storage", "--batch-size", "8"], "storage", vectors_digest),
        "run": Job(
            ["run", "all.json", "--embed-model", model, "--method", "adapter", "--out", "out"], "out", search_digest
        ),
    }


def kill_often(name: str, job: Job, start: Path, folder: Path, kills: int, seed: int) -> dict[str, Any]:
    """Run one command undisturbed, and then under fire."""
    whole, seconds = undisturbed(job, start, folder)
    dice = random.Random(f"{seed} {name}")
    killed = half = different = failed = 0
    while killed < kills:
        home = fresh(start, folder)
        for _ in range(min(2, kills - killed)):  # twice in a row: the second run is one that goes on
            process = begin(job, home)
            try:
                process.wait(dice.uniform(_BEFORE, 1.0) * seconds)
                break  # it was faster than the moment
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                killed += 1
                half += stands_half(job, home, whole)
        if begin(job, home).wait() != 0:
            failed += 1
        else:
            different += job.digest(home / job.result) != whole
        shutil.rmtree(home)
    return {
        "killed": name,
        "kills": killed,
        "half-written": half,
        "does not go on": failed,
        "ends in another result": different,
        "seconds undisturbed": round(seconds, 1),
    }


def undisturbed(job: Job, start: Path, folder: Path) -> tuple[str, float]:
    """Digest of the result, and the seconds it took."""
    home = fresh(start, folder)
    started = time.perf_counter()
    code = begin(job, home).wait()
    seconds = time.perf_counter() - started
    if code != 0:
        raise SystemExit((home / "log.txt").read_text(encoding="utf-8"))
    digest = job.digest(home / job.result)
    shutil.rmtree(home)
    return digest, seconds


def stands_half(job: Job, home: Path, whole: str) -> bool:
    """Whether something stands where the result goes that is not the whole result.

    An index may hold the old vectors or the new ones, and its stamp says which; it must be readable.
    """
    at = home / job.result
    if not at.exists():
        return False
    try:
        digest = job.digest(at)
    except (OSError, ValueError, KeyError):
        return True
    return job.result != "storage" and digest != whole


def fresh(start: Path, folder: Path) -> Path:
    home = Path(tempfile.mkdtemp(dir=folder))
    shutil.copytree(start, home, dirs_exist_ok=True)
    return home


def begin(job: Job, home: Path) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-c", "from llama_index_embft.cli.app import main; main()", *job.words]
    environment = {**os.environ, "EMBFT_CACHE_DIR": str(home / "cache"), "OPENAI_API_KEY": "none"}
    with (home / "log.txt").open("ab") as log:
        return subprocess.Popen(
            words, cwd=home, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )


def file_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def weights_digest(folder: Path) -> str:
    """Of all tensors of a saved result."""
    files = sorted(folder.rglob("*.safetensors"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest() if files else "none"


def vectors_digest(folder: Path) -> str:
    """Of the vectors of an index and of what it says of them."""
    store = json.loads((folder / "default__vector_store.json").read_text(encoding="utf-8"))
    stamps = json.loads((folder / "index_store.json").read_text(encoding="utf-8"))
    return hashlib.sha256(json.dumps([store, stamps], sort_keys=True).encode()).hexdigest()


def search_digest(folder: Path) -> str:
    """Of the candidates and what was chosen; times differ."""
    record = json.loads((folder / "tune.json").read_text(encoding="utf-8"))
    rows = [(row["name"], row["score"], row["found"]) for row in record["candidates"]]
    return hashlib.sha256(json.dumps([rows, record["stack"], record["decision"]]).encode()).hexdigest()


if __name__ == "__main__":
    main()
