"""Mutated inputs over every reader, config, journal, model and adapter folder, with fixed seeds.

Each input is a good file or folder with something wrong in it. A call may succeed or raise an `EmbftError`; anything
else is a finding: another exception, more than 20 seconds of the processor or two minutes in all (a busy machine makes
work wait), more than 1 GB on top of what the libraries take, a crash.

    python benchmarks/fuzz.py                        10,000 inputs
    python benchmarks/fuzz.py --inputs 200 --only readers models    (rows of other targets stay in the results)
    python benchmarks/fuzz.py --only readers --repeat csv:17    one input again, with its traceback
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import os
import random
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from _common import RESULTS, command, write_results
from fuzz_targets import TARGETS, Target

SECONDS, LONGEST_WAIT, MEGABYTES = 20, 120, 1000
_CHUNK = 100  # inputs a child process takes on, so that a crash or a leak costs few


class TooLongError(BaseException):
    """The clock ran out; no `except Exception` on the way may hold it up."""


def stop_the_clock(*_: object) -> None:
    raise TooLongError


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def try_one(target: Target, label: str, seed: int, folder: Path) -> dict[str, Any]:
    """Build one input, make the call, and say what came of it."""
    from llama_index_embft.errors import EmbftError

    folder.mkdir()
    result: dict[str, Any] = {"label": label, "seed": seed, "kind": "ok"}
    call = target.prepare(label, random.Random(f"{target.name}:{label}:{seed}"), folder)
    before, started = peak_megabytes(), time.process_time()
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        call()
    except TooLongError:
        result["kind"] = "hang"
    except EmbftError as err:
        result["kind"] = "refused"
        str(err).encode("utf-8")  # what cannot be printed is a fault as well
    except BaseException as err:  # noqa: BLE001 - whatever comes out is the finding
        where = [f for f in traceback.extract_tb(err.__traceback__) if "llama_index_embft" in f.filename]
        place = f"{Path(where[-1].filename).name}:{where[-1].lineno}" if where else "outside"
        message = str(err)[:200].encode("ascii", "backslashreplace").decode()
        result |= {"kind": "foreign", "error": f"{type(err).__name__} at {place}", "message": message}
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    result["seconds"] = time.process_time() - started
    if result["kind"] in ("ok", "refused") and peak_megabytes() - before > MEGABYTES:
        result["kind"] = "memory"
    shutil.rmtree(folder, ignore_errors=True)
    return result


def in_a_child(target: Target, cases: list[tuple[str, int]], work: Path) -> Iterator[dict[str, Any]]:
    """Run cases in a forked process; the one during which it dies is a crash, and the others go on in a new one."""
    while cases:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            _child(target, cases, work, writer)
        os.close(writer)
        done, kind = 0, "crash"
        with os.fdopen(reader, "rb", buffering=0) as pipe:
            text = b""
            while True:
                # A wait takes no time of the processor, so that the child's own clock does not hear of it.
                if not select.select([pipe], [], [], LONGEST_WAIT)[0]:
                    kind = "hang"
                    os.kill(child, signal.SIGKILL)
                    break
                part = pipe.read(2**16)
                if not part:
                    break
                *lines, text = (text + part).split(b"\n")
                for line in lines:
                    done += 1
                    yield json.loads(line)
        os.waitpid(child, 0)
        if done < len(cases):
            label, seed = cases[done]
            yield {
                "label": label,
                "seed": seed,
                "kind": kind,
                "seconds": 0.0 if kind == "crash" else float(LONGEST_WAIT),
            }
            done += 1
        cases = cases[done:]


def _silence() -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)


def _child(target: Target, cases: list[tuple[str, int]], work: Path, writer: int) -> None:
    _silence()
    signal.signal(signal.SIGPROF, stop_the_clock)
    with os.fdopen(writer, "w", encoding="utf-8", buffering=1) as out:
        for number, (label, seed) in enumerate(cases):
            out.write(json.dumps(try_one(target, label, seed, work / f"{os.getpid()}-{number}")) + "\n")
    os._exit(0)


def load_libraries() -> None:
    """What every child needs, imported once; nothing is run, as threads do not live on in a forked process."""
    for name in ("torch", "sentence_transformers", "datasets", "llama_index.core", "llama_index_embft", "pypdf"):
        importlib.import_module(name)
    for name in ("dataset", "embeddings", "evaluation", "finetune", "generation", "index"):
        module = importlib.import_module(f"llama_index_embft.{name}")
        for public in module.__all__:
            getattr(module, public)


def build(target: Target, folder: Path) -> None:
    """Make a target's good files, in a process of its own."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            target.build(folder)
            code = 0
        except BaseException:  # noqa: BLE001 - a forked process must not go on in the parent's place
            traceback.print_exc()
        os._exit(code)
    if os.waitpid(child, 0)[1]:
        sys.exit(f"The good files of {target.name} could not be made.")
    target.find(folder)


def run_target(target: Target, inputs: int, work: Path) -> Iterator[dict[str, Any]]:
    """All inputs of a target; yields its row of the table after every hundred, as it stands then."""
    build(target, work / f"seeds-{target.name}")
    labels = target.labels()
    cases = [(labels[number % len(labels)], number // len(labels)) for number in range(inputs)]
    kinds: Counter[str] = Counter()
    findings: dict[str, str] = {}
    slowest, started = 0.0, time.perf_counter()
    for start in range(0, len(cases), _CHUNK):
        for result in in_a_child(target, cases[start : start + _CHUNK], work):
            kinds[result["kind"]] += 1
            slowest = max(slowest, result["seconds"])
            if result["kind"] not in ("ok", "refused"):
                name = result.get("error", result["kind"])
                findings.setdefault(name, f"{result['label']}:{result['seed']} {result.get('message', '')}")
        row = {"target": target.name, "inputs": kinds.total(), "asked_for": inputs}
        row |= {kind: kinds[kind] for kind in ("ok", "refused", "foreign", "hang", "memory", "crash")}
        seconds = {"seconds": round(time.perf_counter() - started), "slowest_seconds": round(slowest, 1)}
        yield {**row, **seconds, "findings": dict(findings)}


def rows_of_others(rows: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows that the file has of targets which this run has not reached; each names its own command."""
    path = RESULTS / "fuzz.json"
    known = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.is_file() else []
    return [row for row in known if row["target"] not in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=10_000, help="of all targets together")
    parser.add_argument("--only", nargs="*", choices=[target.name for target in TARGETS], help="these targets only")
    parser.add_argument("--repeat", metavar="LABEL:SEED", help="make one input again and show its traceback")
    parser.add_argument("--no-write", action="store_true", help="leave benchmarks/results as it is")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    os.environ["OMP_NUM_THREADS"] = "1"
    warnings.simplefilter("ignore")
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    chosen = [target for target in TARGETS if not options.only or target.name in options.only]
    with tempfile.TemporaryDirectory(prefix="embft-fuzz-") as folder:
        os.environ.update(EMBFT_CACHE_DIR=f"{folder}/cache", HF_HOME=f"{folder}/hub")  # no model may be found by name
        load_libraries()
        work = Path(folder)
        if options.repeat:
            label, _, seed = options.repeat.rpartition(":")
            build(chosen[0], work / "seeds")
            (work / "input").mkdir()
            generator = random.Random(f"{chosen[0].name}:{label}:{seed}")
            print(chosen[0].prepare(label, generator, work / "input")())
            return
        rows: dict[str, dict[str, Any]] = {}
        total = sum(target.share for target in chosen)
        for target in chosen:
            row: dict[str, Any] = {}
            for row in run_target(target, max(1, round(options.inputs * target.share / total)), work):
                rows[target.name] = row | {"command": command()}
                if not options.no_write:  # what is stopped halfway has been tried all the same
                    write_results("fuzz", [*rows_of_others(rows), *rows.values()])
            counts = ", ".join(
                f"{name} {row[name]}" for name in ("ok", "refused", "foreign", "hang", "memory", "crash")
            )
            print(
                f"{target.name}: {row['inputs']} inputs, {counts}; {row['seconds']} s, "
                f"slowest {row['slowest_seconds']} s",
                flush=True,
            )
            for name, example in row["findings"].items():
                print(f"   {name}: {example}", flush=True)
    sys.exit(1 if any(row["findings"] for row in rows.values()) else 0)


if __name__ == "__main__":
    main()
