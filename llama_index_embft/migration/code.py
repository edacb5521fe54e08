"""Rewrite the imports of one piece of Python, and nothing else: where each old name is today, and what is different."""

from __future__ import annotations

import ast
import re
import warnings
from typing import Final, NamedTuple

OUR_PACKAGE: Final = "llama_index_embft"
_IMPORT: Final = re.compile(
    rb"(?m)^[ \t]*(from[ \t]+llama_index[\w.]*[ \t]+import[ \t]*(?:\([^)]*\)|(?:[^\n\r(\\;#]|\\\r?\n)+)"
    rb"|import[ \t]+llama_index[\w. \t]*)"
)
_MAGIC: Final = re.compile(r"\s*(?:[%!?]|[\w, ]+=\s*[%!]\w|.*\?\s*$)")
_PYTHON_CELLS: Final = ("%%time", "%%timeit", "%%capture", "%%prun")  # magics whose cell is still Python
_PIP: Final = re.compile(r"\s*[%!].*\bpip3?\s+install\b")
# The official notebook of the rerankers installs "llama-index-finetuning-cross-encoders".
_OLD: Final = re.compile(
    r"(?<![\w-])llama[-_]index[-_]finetuning(?:[-_](?:cross[-_]encoders|rerankers|embeddings))?(?:\[[\w,-]*\])?"
    r"(?:[=<>~!]=?[\w.*,<>=!]+)?(?![\w-])"
)
_FINETUNING: Final = ("llama_index.finetuning", "llama_index.legacy.finetuning")
_ENGINES: Final = (
    "EmbeddingAdapterFinetuneEngine", "SentenceTransformersFinetuneEngine", "CrossEncoderFinetuneEngine",
)  # fmt: skip
_DATA: Final = (
    "EmbeddingQAFinetuneDataset", "generate_qa_embedding_pairs", "CrossEncoderFinetuningDatasetSample",
    "CohereRerankerFinetuneDataset", "generate_ce_fine_tuning_dataset", "generate_cohere_reranker_finetuning_dataset",
    "generate_synthetic_queries_over_documents",
)  # fmt: skip
_PROMPTS: Final = (
    "DEFAULT_QUERY_DOC_RELEVANCE_PROMPT", "DEFAULT_QUERY_GEN_SYSTEM_PROMPT", "DEFAULT_QUERY_GEN_USER_PROMPT",
)  # fmt: skip
# What trained models elsewhere, and where that went.
_ELSEWHERE: Final = {
    "CohereRerankerFinetuneEngine": "Cohere deprecated fine-tuning on 15 September 2025; train a reranker of your own "
    f"with CrossEncoderFinetuneEngine of {OUR_PACKAGE}",
    "OpenAIFinetuneEngine": "it tunes OpenAI's LLMs, as the openai package does itself (client.fine_tuning.jobs), for "
    "new jobs until 6 January 2027",
    "AzureOpenAIFinetuneEngine": "it tunes LLMs on Azure, as the openai package does itself "
    "(AzureOpenAI(...).fine_tuning.jobs)",
    "MistralAIFinetuneEngine": "it tunes Mistral's LLMs through an API that Mistral has deprecated without a "
    "replacement (client.fine_tuning.jobs of the mistralai package)",
    "GradientFinetuneEngine": "Gradient closed its service in 2024",
    "GradientAIFinetuneEngine": "Gradient closed its service in 2024",
    "generate_hard_negatives": f"mine_hard_negatives of {OUR_PACKAGE} finds the negatives of a data set",
}
# Layers for adapters live on in a package of LlamaIndex; what loads a trained one is ours.
_LOADERS: Final = ("AdapterEmbeddingModel", "LinearAdapterEmbeddingModel")
_LAYERS: Final = ("BaseAdapter", "LinearLayer", "TwoLayerNN")
# Up to 0.9 everything was one package: `llama_index.X`; from 0.10 on that is `llama_index.core.X`, and what talks to
# others is a package of its own.
_CORE: Final = {
    "agent", "callbacks", "chat_engine", "data_structs", "evaluation", "extractors", "indices", "ingestion",
    "llama_dataset", "memory", "node_parser", "objects", "output_parsers", "postprocessor", "prompts", "query_engine",
    "question_gen", "response", "response_synthesizers", "retrievers", "schema", "selectors", "settings", "storage",
    "text_splitter", "tools", "types", "utils", "llms.LLM", "llms.MockLLM", "llms.ChatMessage", "llms.ChatResponse",
    "llms.CompletionResponse", "llms.CustomLLM", "embeddings.BaseEmbedding", "embeddings.resolve_embed_model",
}  # fmt: skip
_VENDORS: Final = {
    "llms.OpenAI": "openai", "llms.AzureOpenAI": "azure_openai", "llms.Anthropic": "anthropic",
    "llms.Ollama": "ollama", "llms.HuggingFaceLLM": "huggingface", "llms.OpenAILike": "openai_like",
    "embeddings.OpenAIEmbedding": "openai", "embeddings.AzureOpenAIEmbedding": "azure_openai",
    "embeddings.HuggingFaceEmbedding": "huggingface", "embeddings.OllamaEmbedding": "ollama",
}  # fmt: skip
# Pattern of a line of code -> what to say, once a file. A test holds the figures against the signatures.
_LINES: Final = {
    r"(?<!class )\bSentenceTransformersFinetuneEngine\(": "Other defaults: batch_size=64 (was 10), use_all_docs=True "
    "(False), evaluation once an epoch (every 50 steps); with val_dataset the best weights are kept, or the base's.",
    r"(?<!class )\bEmbeddingAdapterFinetuneEngine\(": "Other defaults: batch_size=64 (was 10), epochs=40 (1), on "
    "vectors that are computed once; saved as safetensors, and loaded with load_embed_model(folder).",
    r"(?<!class )\bCrossEncoderFinetuneEngine\(": "Same arguments and defaults, but a learning rate of 5e-5 (was "
    "2e-5). loss is used (it was ignored); val_dataset chooses weights by nDCG@10 (average precision), the base's "
    "among them. push_to_hub makes a private repository: give private=False for a public one.",
    r"\bgenerate_(qa_embedding|question_context)_pairs\(": "Questions are asked for concurrently and resumed by "
    "content; a second call with other nodes no longer mixes with the first: it writes to a name of its own.",
    r"\bgenerate_(ce_fine_tuning_dataset|synthetic_queries_over_documents)\(": "Asked concurrently, within limits, and "
    "kept in a journal; what is neither yes nor no is asked again, then counted in .report. llm=None is Settings.llm "
    "where you set it (it was OpenAI's gpt-3.5-turbo-16k, which is gone); embed_model=None is Settings.embed_model.",
    r"\bgenerate_cohere_reranker_finetuning_dataset\(": "All relevant passages of a query are kept (was: the first), "
    "no negative is one of them or a copy, and seed=0 decides what is drawn. Cohere deprecated fine-tuning in 2025: "
    "CrossEncoderFinetuneEngine trains a reranker of your own.",
    r"\.aevaluate_dataset\(": "aevaluate_dataset is gone from llama_index.core. From llama_index_embft: report = await "
    "aevaluate_retriever(dataset, retriever), then report.summary() or report.to_pandas().",
    r"\b(ServiceContext\b|service_context\s*=|set_global_service_context)": "ServiceContext is gone since LlamaIndex "
    "0.11: take it out of the import, write embed_model=embed_model (and llm=llm where there is one) in place of "
    "service_context=…, as in VectorStoreIndex(nodes, embed_model=embed_model), and drop ServiceContext.from_defaults.",
    r"\bllama_index\.experimental\b.*\bNudge\b|\bNudge\(": "Nudge of llama_index.experimental is "
    "NudgeFinetuneEngine of llama_index_embft.finetune; the embedding of get_finetuned_model() goes into the index.",
    r"\.finetune\([^)\s]": "finetune() takes no arguments here; the old one ignored them. Set them on the engine.",
    r"\btrulens_eval\b": "trulens_eval is now trulens: pip install 'llama-index-embft[trulens]'; see evaluate_app.",
}


class Note(NamedTuple):
    """Something for the user to know or to do, and where: ``"cell 3, line 12"``; empty for the whole file."""

    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.where}: {self.text}" if self.where else self.text


class Rewritten(NamedTuple):
    """A piece of code with its imports rewritten, what could not be rewritten, and what is to be installed."""

    code: str
    notes: list[Note]
    packages: set[str]


def rewrite(code: str, place: str = "", *, cell: bool = False) -> Rewritten:
    """Make old imports ours; `place` stands before ``line n`` in notes, and a `cell` may have magics of IPython."""
    notes, packages = list[Note](), set[str]()
    start = code.lstrip()
    if cell and start.startswith("%%") and not start.startswith(_PYTHON_CELLS):
        return Rewritten(code, notes, packages)  # another language, or a file to be written
    data = code.encode("utf-8", "surrogatepass")
    spans = _imports(code, data, cell)
    if spans is None:
        spans = [match.span(1) for match in _IMPORT.finditer(data)]
        text = "This code does not parse; its import lines were changed one by one."
        notes += [Note(place.rstrip(", "), text)] if spans else []
    pieces, end = [], 0
    for first, last in sorted(spans):
        before = re.split(rb"\r\n|\r|\n", data[:first])
        indent = re.match(r"[ \t]*", before[-1].decode("utf-8", "replace"))
        new, said = _changed(data[first:last].decode(), indent[0] if indent else "", packages)
        notes += [Note(f"{place}line {len(before)}", text) for text in said]
        pieces += [data[end:first], new.encode()]
        end = last
    made = b"".join([*pieces, data[end:]]).decode("utf-8", "surrogatepass")
    if cell:
        lines = made.splitlines(keepends=True)
        made = "".join(_OLD.sub("llama-index-embft", line) if _PIP.match(line) else line for line in lines)
    return Rewritten(made, notes, packages)


def _imports(code: str, data: bytes, cell: bool) -> list[tuple[int, int]] | None:
    """First and last byte of each import statement; None if the code does not parse."""
    starts = [0, *(match.end() for match in re.finditer(rb"\r\n|\r|\n", data))]
    for attempt in [code, _masked(code)] if cell else [code]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # an invalid escape in the user's string is not our business
                tree = ast.parse(attempt)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        return [
            (starts[n.lineno - 1] + n.col_offset, starts[(n.end_lineno or 1) - 1] + (n.end_col_offset or 0))
            for n in ast.walk(tree)
            if isinstance(n, (ast.Import, ast.ImportFrom))
        ]
    return None


def _masked(code: str) -> str:
    """The code with IPython's magics replaced by `pass`; line numbers stay."""
    lines, continued = code.split("\n"), False
    for number, line in enumerate(lines):
        if continued or _MAGIC.match(line):
            continued = line.rstrip().endswith("\\")
            lines[number] = line[: len(line) - len(line.lstrip())] + "pass"
    return "\n".join(lines)


def _changed(text: str, indent: str, packages: set[str]) -> tuple[str, list[str]]:
    """One import statement as it should be, and what cannot be said by an import."""
    try:
        node = ast.parse(text).body[0]
    except (SyntaxError, ValueError, IndexError):
        return text, []
    if isinstance(node, ast.Import):
        old = [alias for alias in node.names if alias.name.startswith(_FINETUNING)]
        if len(node.names) == 1 and old and old[0].asname:
            packages.add("llama-index-embft")
            return text.replace(old[0].name, OUR_PACKAGE, 1), []
        return text, [f"Write `import {OUR_PACKAGE}` and use its names instead of {alias.name}'s." for alias in old]
    if not isinstance(node, ast.ImportFrom) or node.level or node.module is None:
        return text, []
    module = node.module
    if node.names[0].name == "*":
        said = [f"Star import of {module}: name what you use, from {OUR_PACKAGE}."]
        return text, said if module.startswith(_FINETUNING) else []
    homes = [(alias, home_of(module, alias.name)) for alias in node.names]
    packages.update(*(package_of(home[0]) for _, home in homes if home))
    fails = module.startswith(_FINETUNING) or module in ("llama_index.llms", "llama_index.embeddings")
    gone = [alias.name for alias, home in homes if home is None and fails]
    why = {name: f": {_ELSEWHERE[name]}" if name in _ELSEWHERE else "" for name in gone}
    said = [f"{module}.{name} has no counterpart here{why[name]}; its import was left as it is." for name in gone]
    groups: dict[str, list[str]] = {}
    for alias, home in homes:
        (to, name), bound = home or (module, alias.name), alias.asname or alias.name
        groups.setdefault(to, []).append(name if name == bound else f"{name} as {bound}")
    if len(groups) == 1 and all(home is None or home[1] == alias.name for alias, home in homes):
        return text.replace(module, next(iter(groups)), 1), said  # formatting and comments stay
    return f"\n{indent}".join(f"from {to} import {', '.join(names)}" for to, names in groups.items()), said


def home_of(module: str, name: str) -> tuple[str, str] | None:
    """Module and name of what was `name` in `module`; None: as they were, or nowhere we know."""
    if module.partition(".")[0] != "llama_index":
        return None
    if name == "generate_question_context_pairs":  # an older name of the same function, with the same arguments
        name = "generate_qa_embedding_pairs"
    if name in _ENGINES or name in _DATA:
        return OUR_PACKAGE, name
    if name in _PROMPTS:
        return f"{OUR_PACKAGE}.generation", name
    if name in _LOADERS:
        return f"{OUR_PACKAGE}.embeddings", name
    if name in _LAYERS and ".embeddings" in module:
        return "llama_index.embeddings.adapter.utils", name
    old = module.replace("llama_index.legacy", "llama_index", 1)
    family, *rest = old.split(".")[1:] or [""]
    whole = f"{family}.{name}"
    if not family or family in _CORE or (whole in _CORE and not rest):
        return old.replace("llama_index", "llama_index.core", 1), name
    if whole in _VENDORS and not rest:
        return f"{old}.{_VENDORS[whole]}", name
    return None if old == module else (old, name)


def package_of(module: str) -> set[str]:
    """What pip has to install for a module; empty: llama-index-core."""
    first, *rest = module.split(".")
    if first == OUR_PACKAGE:
        return {"llama-index-embft"}
    return {"-".join([first, *rest[:2]]).replace("_", "-")} if len(rest) > 1 and rest[0] != "core" else set()


def notes_on(code: str, place: str, said: set[str]) -> list[Note]:
    """Look at every line of code for what needs a word; what is in `said` already is not said again."""
    found = []
    for number, line in enumerate(code.splitlines(), 1):
        bare = line.partition("#")[0] if not line.lstrip().startswith(("!", "%")) else line
        for pattern, text in _LINES.items():
            if text not in said and re.search(pattern, bare):
                said.add(text)
                found.append(Note(f"{place}line {number}", text))
    return found
