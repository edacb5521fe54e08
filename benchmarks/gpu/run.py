"""Everything that a GPU does for this package, measured and compared with the CPU, in under 8 minutes and one JSON.

    python benchmarks/gpu/run.py --device cuda --out result.json --peer
    python benchmarks/gpu/run.py --device cuda --out result.json --wheels wheels --minilm folder --data folder --peer
    python benchmarks/gpu/run.py --device cpu --tiny --out result.json     # shows that it runs

Made for a bare machine: CUDA, torch, transformers, sentence-transformers and no network. The package is imported from
this checkout; what else is missing is installed from wheels in a folder into a temporary one, which goes away at the
end. ``benchmarks/gpu/README.md`` says how to fill that folder. Models are random weights in the shapes of BGE-small,
BGE-base and BGE-M3 with a WordPiece tokenizer made on the spot, so speeds are real and scores mean nothing; MiniLM's
real weights are used where a folder is given.

On CUDA each section is a process of its own with a time limit, so that one that fails or hangs costs only itself; its
error is in the JSON. The limit that shares are shares of is a large matrix product measured on the spot.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
import time
import traceback
from importlib import metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
# Seconds of each section; with the grace they add up to 8 minutes.
SECTIONS = {
    "topk": 45, "encode": 90, "finetune": 75, "lora": 35, "adapter": 35, "nudge": 30, "evaluation": 35, "profile": 30,
    "quality": 60,
}  # fmt: skip
GRACE = 5.0  # a section looks at its clock between measurements only

for path in (HERE, HERE.parent, HERE.parent.parent):
    if str(path) not in sys.path:
        sys.path.insert(0, str(path))


def main() -> None:
    """Run the sections and write the JSON; the exit code is 1 if one failed or a comparison does not hold."""
    args = _arguments()
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    logging.getLogger("sentence_transformers").setLevel(logging.WARNING)
    if args.worker:
        _worker(args)
        return
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="embft-gpu-") as folder:
        installed = install_wheels(args.wheels, Path(folder) / "wheels") if args.wheels else []
        os.environ["EMBFT_CACHE_DIR"] = str(Path(folder) / "cache")
        sections = {}
        for name in args.sections:
            sections[name] = section(name, args, Path(folder))
            args.out.write_text(json.dumps(record(args, sections, installed, started), indent=2) + "\n", "utf-8")
            show(name, sections[name])
    print(f"\nwritten: {args.out}; {time.monotonic() - started:.0f} s")
    bad = [name for name, found in sections.items() if "error" in found or not all(e["ok"] for e in found["equal"])]
    if bad:
        raise SystemExit(f"not as it should be: {', '.join(bad)}")


def _arguments() -> argparse.Namespace:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--device", default="cuda", help="cuda or cpu")
    options.add_argument("--out", type=Path, required=True, help="JSON file to write")
    options.add_argument("--wheels", type=Path, help="folder of wheels to install what is missing from")
    options.add_argument("--minilm", help="folder of all-MiniLM-L6-v2")
    options.add_argument("--data", type=Path, help="folder with lyft_10k_2021.json and uber_10k_2021.json")
    options.add_argument("--peer", action="store_true", help="measure the peers too")
    options.add_argument("--tiny", action="store_true", help="toy sizes")
    options.add_argument("--sections", nargs="+", default=list(SECTIONS), choices=list(SECTIONS), metavar="NAME",
                         help=f"some of: {' '.join(SECTIONS)}")  # fmt: skip
    options.add_argument("--isolate", action="store_true", help="a process a section; always so on CUDA")
    options.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)  # section and folder
    return options.parse_args()


def install_wheels(wheels: Path, target: Path) -> list[str]:
    """Install wheels whose package is missing here, without their dependencies; returns what was installed.

    Raises:
        SystemExit: The folder is missing or pip failed.
    """
    if not wheels.is_dir():
        raise SystemExit(f"--wheels: there is no folder {wheels}.")
    missing = [wheel for wheel in sorted(wheels.glob("*.whl")) if not _is_installed(wheel.name.split("-")[0])]
    if missing:
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-index",
            "--no-deps",
            "--target",
            str(target),
        ]
        done = subprocess.run([*command, *map(str, missing)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"--wheels: pip failed: {done.stderr.strip()[-500:]}")
        # Nothing that the machine brings itself, torch above all, is in there to be replaced.
        sys.path.append(str(target))
        os.environ["PYTHONPATH"] = os.pathsep.join([*filter(None, [os.environ.get("PYTHONPATH")]), str(target)])
        importlib.invalidate_caches()
    return [wheel.name for wheel in missing]


def _is_installed(name: str) -> bool:
    try:
        metadata.version(re.sub(r"[-_.]+", "-", name))
    except metadata.PackageNotFoundError:
        return False
    return True


def section(name: str, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One section, in this process or one of its own."""
    if not (args.isolate or args.device.startswith("cuda")):
        return run_section(importlib.import_module(f"section_{name}").run, name, args, folder)
    out = folder / f"{name}.json"
    command = [sys.executable, str(HERE / "run.py"), "--device", args.device, "--out", str(out)]
    command += ["--worker", name, str(folder)]
    command += ["--peer"] * args.peer + ["--tiny"] * args.tiny + (["--minilm", args.minilm] if args.minilm else [])
    command += ["--data", str(args.data)] if args.data else []
    try:
        done = subprocess.run(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False,
            timeout=SECTIONS[name] + GRACE,
        )  # fmt: skip
        why = f"ended with code {done.returncode}: {done.stderr.strip()[-1500:]}"
    except subprocess.TimeoutExpired:
        why = f"took longer than {SECTIONS[name] + GRACE:.0f} s"
    if out.exists():
        found: dict[str, Any] = json.loads(out.read_text("utf-8"))
        return found if found.pop("complete", False) else {**found, "error": why}
    return {"rows": [], "equal": [], "error": why}


def _worker(args: argparse.Namespace) -> None:
    name, folder = args.worker
    run_section(importlib.import_module(f"section_{name}").run, name, args, Path(folder), out=args.out)


def run_section(
    work: Any, name: str, args: argparse.Namespace, folder: Path, *, out: Path | None = None
) -> dict[str, Any]:
    """Call a section with a kit; an error is part of the result, beside what was measured before it."""
    from kit import Kit

    kit = Kit(args.device, args.tiny, args.peer, args.minilm, args.data, folder, SECTIONS[name])
    if out is not None:
        kit.on_change = lambda: out.write_text(json.dumps({"rows": kit.rows, "equal": kit.equal}), "utf-8")
    found: dict[str, Any] = {"rows": kit.rows, "equal": kit.equal}
    try:
        work(kit)
    except Exception as err:  # noqa: BLE001 (the other sections go on, and the JSON says what happened)
        found["error"] = f"{type(err).__name__}: {err}"
        found["traceback"] = traceback.format_exc()[-3000:]
    found["seconds"] = time.monotonic() - kit.started
    if "peak" in kit.__dict__:
        found["FLOP/s of a large matrix product"] = kit.peak
    if out is not None:
        out.write_text(json.dumps({**found, "complete": True}), "utf-8")
    return found


def record(args: argparse.Namespace, sections: dict[str, Any], installed: list[str], started: float) -> dict[str, Any]:
    """What goes into the JSON."""
    from _common import device_name, versions

    return {
        "rows": [{"section": name, **row} for name, found in sections.items() for row in found["rows"]],
        "equal": [{"section": name, **row} for name, found in sections.items() for row in found["equal"]],
        "errors": {name: found["error"] for name, found in sections.items() if "error" in found},
        "sections": {
            name: {k: v for k, v in found.items() if k not in ("rows", "equal")} for name, found in sections.items()
        },
        "tiny": args.tiny,
        "device": device_name(args.device),
        "versions": versions(),
        "installed from wheels": installed,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "command": "python benchmarks/gpu/run.py " + " ".join(_portable(argument) for argument in sys.argv[1:]),
        "seconds": time.monotonic() - started,
    }


def _portable(argument: str) -> str:
    return Path(argument).name if Path(argument).is_absolute() else argument


def show(name: str, found: dict[str, Any]) -> None:
    """Print a section."""
    from _common import print_table

    bad = [check["what"] for check in found["equal"] if not check["ok"]]
    print(f"\n{name}: {len(found['equal']) - len(bad)} of {len(found['equal'])} comparisons hold")
    for what in bad:
        print(f"  does not hold: {what}")
    if "error" in found:
        print(f"  failed: {found['error']}")
    print_table(found["rows"])


if __name__ == "__main__":
    main()
