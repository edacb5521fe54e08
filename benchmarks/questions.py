"""Lists of questions made without an LLM, to be read and judged: 100 from each text, with counts by form and rule.

    python benchmarks/questions.py

The texts: two 10-K filings as PDF, biomedical papers, Chinese statutes and Norwegian articles of the folder of real
data, and short texts of this project's own in German, French, Spanish, Portuguese, Japanese and Arabic
(folder `texts`). ``results/questions/<text>.txt`` holds the questions made from templates, drawn at random (seed 0),
and some of what chunks without such a question gave instead. A mark before a question is the judgement of whoever read
it (``+``: well-formed, ``-``: not), and is kept from run to run while the question stays. ``summary.json`` counts
chunks, questions by form, what the rules of shape dropped (`broken_rules`), and the share of well-formed ones.
"""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _common import RESULTS, parser, print_table, versions

from llama_index_embft.dataset import documents_to_nodes, load_documents
from llama_index_embft.generation.extractive import broken_rules, generate_extractive_pairs, template_questions

if TYPE_CHECKING:
    from llama_index.core.schema import BaseNode

    from llama_index_embft.dataset import EmbeddingQAFinetuneDataset

TEXTS = Path(__file__).parent / "texts"
LISTS = RESULTS / "questions"
OWN = ("de", "fr", "es", "pt", "ja", "ar")
REAL = {
    "bestbuy_10k_en": "pdf/BESTBUY_2017_10K.pdf",
    "nike_10k_en": "pdf/NIKE_2018_10K.pdf",
    "covidqa_en": "human/covidqa_en_docs",
    "cranfield_en": "human/cranfield_en.json",
    "stard_law_zh": "human/stard_zh_law_docs",
    "cmrc_zh": "cmrc2018_dev_zh.json",
    "norquad_no": "human/norquad_no.json",
}


def nodes_of(name: str, folder: Path, documents: int) -> list[BaseNode]:
    """The chunks of a text, as the package cuts them; of many documents, some drawn at random."""
    from llama_index.core.schema import TextNode

    if name in OWN:
        paragraphs = (TEXTS / f"{name}.txt").read_text(encoding="utf-8").strip().split("\n\n")
        return [TextNode(id_=f"{name}-{n}", text=text) for n, text in enumerate(paragraphs)]
    path = folder / REAL[name]
    if path.suffix == ".json":
        corpus = json.loads(path.read_text(encoding="utf-8"))["corpus"]
        ids = random.Random(0).sample(sorted(corpus), min(20 * documents, len(corpus)))
        return [TextNode(id_=doc, text=corpus[doc]) for doc in ids]
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    files = random.Random(0).sample(files, min(documents, len(files)))
    return list(documents_to_nodes(load_documents(files, show_progress=False), show_progress=False))


def forms(dataset: EmbeddingQAFinetuneDataset) -> dict[str, list[str]]:
    """The questions by form: of a template, a sentence as it stands, or words of one."""
    found: dict[str, list[str]] = {"questions": [], "sentences": [], "words": []}
    for query in sorted(dataset.queries):
        question = dataset.queries[query]
        text = " ".join(dataset.bare_text(dataset.relevant_docs[query][0]).split())
        form = "questions" if question.endswith(("?", "？", "؟")) else "sentences" if question in text else "words"
        found[form].append(question)
    return found


def write_list(name: str, drawn: list[str], others: list[str]) -> tuple[int, int]:
    """Write a list, judgements kept; returns how many questions were read before, and how many of them are good."""
    path = LISTS / f"{name}.txt"
    before = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    mark_of = {line[2:]: line[:2] for line in before if line.startswith(("+ ", "- "))}
    lines = [mark_of.get(question, "  ") + question for question in drawn]
    path.write_text("\n".join([*lines, "", *(f"# {text}" for text in others)]) + "\n", encoding="utf-8")
    marks = [mark_of[question] for question in drawn if question in mark_of]
    return len(marks), marks.count("+ ")


def row_of(name: str, args: Any) -> dict[str, Any]:
    """Make the questions of a text, write its list, and count."""
    nodes = nodes_of(name, args.data_dir, args.documents)
    begin = time.perf_counter()
    dataset = generate_extractive_pairs(nodes, num_questions_per_chunk=20 if name in OWN else 2)
    seconds = time.perf_counter() - begin
    language = name.rsplit("_", 1)[-1]
    dropped = Counter(
        rule
        for node in nodes
        for question in template_questions(node.get_content())
        for rule in broken_rules(question, language)
    )
    found = forms(dataset)
    others = found["sentences"] + found["words"]
    drawn = random.Random(0).sample(found["questions"], min(args.questions, len(found["questions"])))
    n_read, n_good = write_list(name, drawn, random.Random(0).sample(others, min(20, len(others))))
    return {
        "text": name,
        "chunks": len(nodes),
        "with a question": len({docs[0] for docs in dataset.relevant_docs.values()}),
        **{form: len(texts) for form, texts in found.items()},
        "listed": len(drawn),
        "read": n_read,
        "well-formed": round(n_good / n_read, 3) if n_read else None,
        "seconds": round(seconds, 1),
        "dropped by rule": dict(dropped.most_common()),
    }


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--texts", nargs="+", choices=[*REAL, *OWN], default=[*REAL, *OWN])
    options.add_argument("--questions", type=int, default=100, help="in a list")
    options.add_argument("--documents", type=int, default=25, help="files of a folder, or 20 times as many passages")
    args = options.parse_args()
    LISTS.mkdir(parents=True, exist_ok=True)
    path = LISTS / "summary.json"
    kept = {row["text"]: row for row in json.loads(path.read_text("utf-8"))["rows"]} if path.exists() else {}
    for name in args.texts:
        kept[name] = row_of(name, args)
        print_table([{key: value for key, value in kept[name].items() if key != "dropped by rule"}])
    rows = [kept[name] for name in [*REAL, *OWN] if name in kept]
    record = {"rows": rows, "versions": versions()}
    path.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
