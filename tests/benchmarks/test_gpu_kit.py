"""The GPU kit runs everywhere: toy sizes on the CPU, every section, every comparison."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

KIT = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu"
COMPARED = ["topk", "encode", "finetune", "lora", "adapter", "nudge", "evaluation"]
SECTIONS = [*COMPARED, "profile", "quality"]


@pytest.fixture(scope="module")
def run_module():
    spec = importlib.util.spec_from_file_location("gpu_kit_run", KIT / "run.py")
    module = importlib.util.module_from_spec(spec)
    before = list(sys.path)
    spec.loader.exec_module(module)
    yield module
    sys.path[:] = before


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kit")
    out = folder / "result.json"
    for name in ("lyft", "uber"):
        made = {
            "queries": {f"q{row}": f"how much is {name} {row} worth" for row in range(12)},
            "corpus": {f"d{row}": f"{name} {row} is worth {7 * row} crowns" for row in range(12)},
            "relevant_docs": {f"q{row}": [f"d{row}"] for row in range(12)},
        }
        (folder / f"{name}_10k_2021.json").write_text(json.dumps(made), encoding="utf-8")
    command = [sys.executable, str(KIT / "run.py"), "--device", "cpu", "--tiny", "--peer", "--out", str(out)]
    command += ["--data", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert out.exists(), done.stderr[-2000:]
    return done, json.loads(out.read_text("utf-8"))


def test_every_section_ran_and_measured(result):
    done, record = result
    assert record["errors"] == {}
    assert done.returncode == 0, done.stderr[-2000:]
    assert [*record["sections"]] == SECTIONS
    measured = {row["section"] for row in record["rows"] if row.get("seconds", 0) > 0}
    assert measured == set(SECTIONS)
    assert {"device", "versions", "date", "command", "tiny"} <= set(record)
    assert str(Path.home()) not in json.dumps(record["command"])


def test_every_path_equals_the_reference(result):
    _, record = result
    assert {row["section"] for row in record["equal"]} == set(COMPARED)
    assert [row for row in record["equal"] if not row["ok"]] == []
    cosines = [row for row in record["equal"] if "cosine" in row["what"]]
    assert len(cosines) >= 5
    assert all(0.999 <= row["value"] <= 1.00001 for row in cosines)


def test_encode_covers_the_shapes_and_the_peer(result):
    rows = [row for row in result[1]["rows"] if row["section"] == "encode"]
    assert {row["model"] for row in rows} == {"bge-small", "bge-base", "bge-m3"}
    assert {row["what"] for row in rows} >= {"SentenceTransformer.encode", "ours, float32", "ours, bfloat16"}
    assert all(row["tokens/s"] == pytest.approx(row["tokens"] / row["seconds"]) for row in rows)


def test_the_profile_names_operations_and_quality_has_two_seeds(result):
    rows = [row for row in result[1]["rows"] if row["section"] == "profile"]
    assert {row["what"] for row in rows} == {"encode", "train"}
    for what in ("encode", "train"):
        shares = [row["share"] for row in rows if row["what"] == what]
        assert 5 < len(shares) <= 15
        assert sorted(shares, reverse=True) == shares
        assert 0.5 < sum(shares) <= 1
    assert any("mm" in row["operation"] for row in rows)
    quality = [row for row in result[1]["rows"] if row["section"] == "quality"]
    assert [(row["what"], row.get("seed")) for row in quality] == [
        ("before", None),
        *(("full, 2 epochs", n) for n in (0, 1)),
    ]
    assert all(0 <= row["ndcg@10"] <= 1 for row in quality)


def arguments(**changes):
    plain = {"device": "cpu", "tiny": True, "peer": False, "minilm": None, "data": None, "isolate": False}
    return argparse.Namespace(**{**plain, **changes})


def test_a_section_that_fails_keeps_what_it_measured(run_module, tmp_path):
    def work(kit):
        kit.add(what="first", seconds=1.0)
        kit.check("cold", 2.0, 1.0)
        raise ValueError("no such kernel")

    found = run_module.run_section(work, "topk", arguments(), tmp_path, out=tmp_path / "part.json")
    assert found["error"] == "ValueError: no such kernel"
    assert found["rows"] == [{"what": "first", "seconds": 1.0}]
    assert [row["ok"] for row in found["equal"]] == [False]
    assert json.loads((tmp_path / "part.json").read_text("utf-8"))["complete"]


def test_a_section_out_of_time_says_what_it_left_out(run_module, tmp_path, monkeypatch):
    monkeypatch.setitem(run_module.SECTIONS, "topk", 0)
    found = run_module.run_section(lambda kit: kit.has_time_for("the rest"), "topk", arguments(), tmp_path)
    assert found["rows"] == [{"what": "the rest", "left out": "no time left in the section's budget"}]


def test_a_section_in_its_own_process_that_dies_is_an_error(run_module, tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "HERE", tmp_path)
    (tmp_path / "run.py").write_text("raise SystemExit('the card fell out')")
    found = run_module.section("topk", arguments(isolate=True), tmp_path)
    assert "the card fell out" in found["error"]
    monkeypatch.setitem(run_module.SECTIONS, "topk", 0)
    monkeypatch.setattr(run_module, "GRACE", 0.3)
    (tmp_path / "run.py").write_text("import time; time.sleep(60)")
    assert "took longer than" in run_module.section("topk", arguments(isolate=True), tmp_path)["error"]


def test_sections_stay_under_eight_minutes(run_module):
    assert sum(run_module.SECTIONS.values()) + run_module.GRACE * len(run_module.SECTIONS) <= 480


def test_wheels_of_missing_packages_are_installed_and_others_skipped(run_module, tmp_path, monkeypatch):
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "embft_probe-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("embft_probe.py", "ANSWER = 42\n")
        info = "embft_probe-1.0.dist-info"
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: embft-probe\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    (wheels / "numpy-0.1-py3-none-any.whl").write_bytes(b"not a wheel: must not be touched")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("PYTHONPATH", "")
    assert run_module.install_wheels(wheels, tmp_path / "target") == ["embft_probe-1.0-py3-none-any.whl"]
    assert sys.path[-1] == str(tmp_path / "target")
    assert (tmp_path / "target" / "embft_probe.py").exists()


def test_a_wheels_folder_that_is_not_there_is_one_sentence(run_module, tmp_path):
    with pytest.raises(SystemExit, match="there is no folder"):
        run_module.install_wheels(tmp_path / "none", tmp_path / "target")
