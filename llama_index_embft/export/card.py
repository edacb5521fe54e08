"""The model card of an exported folder."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llama_index_embft.export.report import ExportReport

_HUB_NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def export_card(record: Mapping[str, Any], report: ExportReport) -> str:
    """Write ``README.md``: what it was made from, how to load it, and what was measured, with nothing added.

    Args:
        record: Content of ``embft.json``.
        report: The model and this export side by side.

    Returns:
        Markdown with the YAML front matter that the Hugging Face hub reads.
    """
    import yaml

    kind, base = record["export"]["format"], str(record["base"]["model_name"])
    graph = kind.startswith(("onnx", "openvino"))
    task, name, kept = "sentence-similarity", "embed_model", "prompts, maximum length and pooling come"
    load = "load_exported" if graph else "load_embed_model"
    home = "llama_index_embft.embeddings" if graph else "llama_index_embft"
    if report.of_reranker:
        task, name, kept = "text-ranking", "reranker", "maximum length and share in the ranking come"
        load, home = "load_reranker", "llama_index_embft"
    library = kind.partition("-")[0] if graph else "sentence-transformers"
    matter: dict[str, Any] = {
        "tags": ["llama-index", "llama-index-embft", "retrieval", task, kind],
        "library_name": library,
        "pipeline_tag": task,
    }
    if _HUB_NAME.fullmatch(base):
        matter["base_model"] = [base]
        matter["base_model_relation"] = "quantized"
    shown = base.replace("`", "'").replace("\n", " ")
    parts = [
        f"---\n{yaml.safe_dump(matter, sort_keys=False, allow_unicode=True, width=1000)}---",
        f"# {shown}, {kind}",
        f"`{shown}` exported as {kind} by [llama-index-embft](https://pypi.org/project/llama-index-embft/). Replace "
        f"`PATH` by this folder; {kept} with it.",
        f'```python\nfrom {home} import {load}\n\n{name} = {load}("PATH")\n```',
        "## Measured",
        report.to_markdown(),
    ]
    return "\n\n".join(parts) + "\n"
