"""Write the benchmarks page and the table of the README from ``benchmarks/results``.

``python benchmarks/tables.py`` writes ``docs/benchmarks.md`` and what stands between the two marks in ``README.md``.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from _common import RESULTS

ROOT = Path(__file__).resolve().parents[1]
PAGE, README = ROOT / "docs" / "benchmarks.md", ROOT / "README.md"
BEGIN, END = "<!-- python benchmarks/tables.py -->", "<!-- end -->"
LEFT_OUT = {"command", "curve", "examples", "findings", "note", "resident_mb_while_asking", "tries"}
Row = dict[str, Any]


@cache
def record(name: str) -> dict[str, Any]:
    """One result file: rows, device, versions, date, command."""
    content: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return content


def the_row(name: str, **where: Any) -> Row:
    """The one row of a result file with these values; another number of them is an error."""
    found = [row for row in record(name)["rows"] if where.items() <= row.items()]
    if len(found) != 1:
        raise ValueError(f"{name}.json: {len(found)} rows are {where}; it must be one.")
    return found[0]


def command_of(name: str, row: Row | None = None) -> str:
    """What was typed for a row, or for the whole file."""
    return str((row or {}).get("command") or record(name)["command"])


def shown(value: Any) -> str:
    """A value as a cell: four significant digits, whole numbers with commas, an interval as "a to b"."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) or (isinstance(value, float) and abs(value) >= 1000):
        return f"{value:,.0f}"
    if isinstance(value, float):
        return f"{value:.4g}" if value else "0"
    if isinstance(value, list):
        if all(isinstance(part, (int, float)) for part in value):
            return " to ".join(f"{part:+.3f}" for part in value)
        return ", ".join(map(str, value))
    return str(value)


def markdown(header: list[str], rows: list[list[str]], left: int) -> str:
    """A Markdown table; the first `left` columns hold words, the others numbers."""
    rule = ["---" if column < left else "---:" for column in range(len(header))]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in (header, rule, *rows)
    )


def by_documents(rows: list[Row]) -> list[Row]:
    """The calibration by number of documents: the worst of its experiments, never their mean."""
    return [
        {
            "documents": documents,
            "settings": len(part),
            "experiments each": min(row["experiments"] for row in part),
            "most false gains, %": max(row["false gain"] for row in part),
            "most false losses, %": max(row["false loss"] for row in part),
            "least coverage, %": min(row["coverage"] for row in part),
        }
        for documents in sorted({row["documents"] for row in rows})
        for part in [[row for row in rows if row["documents"] == documents]]
    ]


def without_repeats(rows: list[Row]) -> list[Row]:
    """The parts once for each data set, and what was handed over for each kind of questions."""
    return [row for row in rows if row["questions"] == "labels" or row["system"] == "handed over"]


@dataclass(frozen=True)
class Section:
    """One result file on the page.

    Attributes:
        name: Of the file in ``benchmarks/results``.
        title: Heading.
        text: What was measured, in a sentence or two.
        choose: Makes the rows of the table of those of the file.
        leave_out: Columns that say the same in every row, or that only the JSON needs.
    """

    name: str
    title: str
    text: str
    choose: Callable[[list[Row]], list[Row]] = field(default=list)
    leave_out: frozenset[str] = frozenset()

    def to_markdown(self) -> str:
        """Heading, text, a table for each part of the benchmark, and the commands with date and machine."""
        about = record(self.name)
        rows = self.choose(about["rows"])
        commands = list(dict.fromkeys(command_of(self.name, row) for row in rows))
        numbers = {command: str(n) for n, command in enumerate(commands, 1)} if len(commands) > 1 else {}
        parts = [f"## {self.title}", self.text]
        for name in dict.fromkeys(row.get("part") for row in rows):
            table = self._table([row for row in rows if row.get("part") == name], numbers)
            parts += [f"**{name}**", table] if name else [table]
        where = f"{about['date']}; {about['device']}; torch {about['versions']['torch']}"
        if not numbers:
            return "\n\n".join([*parts, f"`{commands[0]}` ({where})"])
        listed = "\n".join(f"{n}. `{command}`" for command, n in numbers.items())
        return "\n\n".join([*parts, f"By the number in the last column ({where}; some rows are older):", listed])

    def _table(self, rows: list[Row], numbers: dict[str, str]) -> str:
        hidden = LEFT_OUT | self.leave_out | {"part"}
        columns = [key for key in dict.fromkeys(key for row in rows for key in row) if key not in hidden]
        cells = [[shown(row.get(column)) for column in columns] for row in rows]
        left = next((n for n, key in enumerate(columns) if not isinstance(rows[0].get(key), str)), len(columns))
        if numbers:
            columns.append("command")
            cells = [[*line, numbers[command_of(self.name, row)]] for line, row in zip(cells, rows, strict=True)]
        return markdown(columns, cells, left)


SECTIONS = (
    Section(
        "human",
        "The best retriever, on questions that people asked",
        "What `tune` hands over when it is given all labels, fifty questions (`few`) or no question (`none`), beside "
        "the parts that it could have handed over; they are the same in all three. Nothing is trained.",
        without_repeats,
        frozenset({"seconds", "gain on base: outcome", "gain on best part: outcome", "best part", "copied share"}),
    ),
    Section(
        "fusion",
        "How dense and lexical scores are mixed",
        "nDCG@10 of four ways to mix, at equal weight, at the best weight, at the weight that follows from the texts "
        "(`prior`), and at one learnt from 50 questions.",
    ),
    Section(
        "quality",
        "What training gains",
        "Retrieval before and after training, on questions about documents that took no part in it; `guard` is nDCG@10 "
        "on PubMedQA. `ci95` is the interval of the gain in nDCG@10 on the base. BM25 split words differently when its "
        "row was measured.",
        leave_out=frozenset({"sd", "mrr@10", "hit_rate@5"}),
    ),
    Section(
        "full_finetune",
        "Full fine-tuning, beside llama-index-finetuning",
        "Lyft's filing trains, Uber's tests; all-MiniLM-L6-v2, two epochs.",
    ),
    Section(
        "adapter_stdlib",
        "An adapter, beside other packages",
        "3,201 questions about Python's standard library; from texts to a saved adapter, unless the row says that the "
        "vectors were in the cache.",
    ),
    Section(
        "adapter_negatives",
        "What an adapter is trained against",
        "Negatives from all passages (`corpus`) or from passages that are asked about (`asked`), three splits.",
    ),
    Section("adapter_scale", "An adapter for a million documents", "768 dimensions, 100,000 queries; then one query."),
    Section(
        "reranker",
        "A reranker",
        "Trained on 320 questions that people asked: late interaction, and a cross-encoder made of the same model. "
        "Then a search with all steps, and the speed of cross-encoders beside sentence-transformers.",
        leave_out=frozenset({"train s", "ms a query"}),
    ),
    Section(
        "late_interaction",
        "The model in use as a reranker, token by token",
        "Nothing is trained; `share` is the reranker's part in the order of 30 hits, 0.5 the default. Intervals by "
        "document; then the price of a question.",
    ),
    Section(
        "extractive",
        "Questions without an LLM",
        "Training on questions taken from the text, tested on other questions.",
        leave_out=frozenset({"hit_rate@1", "hit_rate@5"}),
    ),
    Section(
        "without_labels",
        "The whole model, trained without labels",
        "Questions from the text train it, people ask the test, alone and beside BM25; intervals by document.",
        leave_out=frozenset({"alone: of each seed", "mixed: of each seed"}),
    ),
    Section(
        "generation",
        "Questions by an LLM",
        "A local server answers after a fixed time; what is measured is the package, not a model.",
    ),
    Section("filters", "What the question filters drop", "Good questions that a filter drops are its errors."),
    Section("mining", "Hard negatives, up to 20,000 documents", "`extra_mib` is memory beyond the vectors."),
    Section("mining_100k", "Hard negatives, 100,000 documents", "The same, 100,000 queries against 100,000 documents."),
    Section("mining_full", "Hard negatives, 369,000 documents", "The same, 183,000 queries; 24 GiB of memory."),
    Section("encode", "Embedding", "395 passages of a 10-K filing with all-MiniLM-L6-v2."),
    Section("evaluate", "Evaluation", "Uber's 790 queries, then the metrics alone."),
    Section("stack", "A hybrid retriever at work", "What BM25 adds to a search, in milliseconds a query."),
    Section(
        "stack_words",
        "How BM25 splits text into words",
        "nDCG@10 of BM25 alone, 200 questions of each data set. PubMedQA and Lyft have made-up questions.",
    ),
    Section("drift", "Switch the model, keep the index", "How much of the new model's ranking each map keeps."),
    Section(
        "calibration",
        "How often the test is wrong",
        "Simulated comparisons without a true difference, and with one. Each line is the worst of its settings.",
        by_documents,
    ),
    Section("calibration_others", "Other tests on the same data", "False gains in percent; a test promises 2.5."),
    Section("scale_simulation", "The plan past one machine", "What the plan predicts, and what was measured."),
    Section(
        "mutants",
        "Whether tests notice a wrong operator",
        "Each operator, constant and argument of the code that decides figures is changed, one at a time; "
        "`equivalent` are those that nothing can notice, for reasons that stand in `benchmarks/mutants.toml`.",
    ),
    Section(
        "soak",
        "Half an hour of traffic",
        "Twenty questions a second to a retriever, an interleaved one and an engine that a `LiveScorer` watches: what "
        "memory, files and time do, and whether anything was lost or answered otherwise than at first.",
    ),
    Section("fuzz", "Damaged and hostile input", "How each input ended; `foreign` is an error of another library."),
)


def page() -> str:
    """``docs/benchmarks.md``."""
    head = (
        "# Benchmarks\n\nWhat was measured, from the JSON files in `benchmarks/results/`, good or bad. "
        "`python benchmarks/tables.py` writes this page from them.\nThe data sets are not in the repository; each "
        "script says what it needs. Rows of\n21 November 2026 were measured before the modules were rearranged, not "
        "again since. Which of the methods to take is [another page](which-method.md)."
    )
    return "\n\n".join([head, *(section.to_markdown() for section in (*SECTIONS, *untitled()))]) + "\n"


def untitled() -> list[Section]:
    """Result files that have no section yet: what they are is said by the first line of their script."""
    names = {path.stem for path in RESULTS.glob("*.json")} - {section.name for section in SECTIONS}
    found = []
    for name in sorted(names):
        script = ROOT / command_of(name).split()[1]
        what = (ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or "").partition("\n\n")[0]
        found.append(Section(name, name.replace("_", " ").capitalize(), " ".join(what.split())))
    return found


def readme_table() -> str:
    """At most eight rows: what is gained, what it costs, and with which command it was measured."""
    lines = []
    for data, what in (
        ("covidqa_en", "98 biomedical papers, 414 questions of experts, no label given"),
        ("cosqa_en", "Code search, 300 queries of programmers, no label given"),
    ):
        part = {n: the_row("human", data=data, questions="none", system=n) for n in ("handed over", "base", "BM25")}
        rrf = the_row("human", data=data, questions="none", system="RRF: base, BM25")
        score = {name: f"{row['ndcg@10']:.3f}" for name, row in part.items()}
        others = f"the model alone {score['base']}, BM25 {score['BM25']}, RRF {rrf['ndcg@10']:.3f}"
        lines.append([f"{what}: nDCG@10", score["handed over"], others, command_of("human", part["base"])])

    full = the_row("quality", data="lyft-uber", method="full max_seq_length=512")
    base, bm25 = (the_row("quality", data="lyft-uber", method=method) for method in ("base", "bm25"))
    stock = the_row("full_finetune", contender="llama-index-finetuning")
    low, high = full["ci95"]
    gained = f"{full['ndcg@10']:.3f} (gain {low:+.3f} to {high:+.3f})"
    others = (
        f"before {base['ndcg@10']:.3f}, llama-index-finetuning {stock['test ndcg@10']:.3f}, BM25 {bm25['ndcg@10']:.3f}"
    )
    lines.append(["All weights, trained on Lyft's 10-K, tested on Uber's: nDCG@10", gained, others, full["command"]])

    ours = the_row("full_finetune", contender="ours", **{"tokens read": 256, "batch": 10})
    speed = [f"{row['pairs/s']:.1f} pairs a second" for row in (ours, stock)]
    others = f"llama-index-finetuning {speed[1]}"
    lines.append(["… speed at equal settings", speed[0], others, command_of("full_finetune")])

    ours = the_row("adapter_stdlib", contender="ours, empty cache")
    stock = the_row("adapter_stdlib", contender="llama-index-finetuning")
    others = f"llama-index-finetuning {stock['seconds']:.0f} s for each epoch"
    what = f"Adapter, {record('adapter_stdlib')['pairs']:,} questions, {ours['epochs']} epochs, empty cache"
    lines.append([what, f"{ours['seconds']:.0f} s", others, command_of("adapter_stdlib")])

    asked = [row for row in record("generation")["rows"] if row["part"] == "speed" and "speedup" in row]
    fast, slow = min(asked, key=lambda row: row["seconds"]), asked[0]
    what = f"Questions for {fast['chunks']} chunks by an LLM that takes {fast['latency_s'] * 1000:.0f} ms"
    others = f"{slow['function']} {slow['seconds']:.1f} s"
    lines.append([what, f"{fast['seconds']:.1f} s", others, "python benchmarks/generation.py"])

    mined = [the_row("mining_100k", contender=name) for name in ("ours", "sentence-transformers")]
    cost = [f"{row['seconds']:.0f} s, {row['extra_mib'] / 1024:.1f} GiB" for row in mined]
    others = f"sentence-transformers {cost[1]}"
    command = "python benchmarks/mining.py --sizes 100k --repeats 1"
    lines.append(["Hard negatives, 100,000 queries × 100,000 documents", cost[0], others, command])

    loop, here = (the_row("evaluate", what=what) for what in ("tutorial loop", "evaluate_embed_model"))
    others = f"the tutorial's loop {loop['seconds']:.1f} s"
    lines.append(["Evaluation, 790 queries, the same hits", f"{here['seconds']:.1f} s", others, command_of("evaluate")])

    cells = [[what, f"**{ours}**", others, f"`{command}`"] for what, ours, others, command in lines]
    return markdown(["What", "Here", "Compared with", "Command"], cells, 4)


def readme(text: str) -> str:
    """The README with its table written anew."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    if not after:
        raise ValueError(f"README.md: the marks {BEGIN} and {END} are missing; put them around the table.")
    return f"{before}{BEGIN}\n\n{readme_table()}\n\n{END}{after}"


def main() -> None:
    """Write both."""
    PAGE.write_text(page(), encoding="utf-8")
    README.write_text(readme(README.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
