"""What the generation tests share besides fixtures."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from llama_index.core.schema import TextNode

from llama_index_embft.calls import CallSettings
from llama_index_embft.generation import (
    GeneratedDataset,
    GenerationReport,
    QuestionSettings,
    generate_qa_embedding_pairs as generate_pairs,
)

KEY = "test-secret-key-1234567890"
TOPICS = (
    "harbour",
    "valve",
    "orchard",
    "ledger",
    "glacier",
    "turbine",
    "saffron",
    "quarry",
    "beacon",
    "violin",
    "lantern",
    "compass",
    "meadow",
    "anvil",
)


def make_nodes(n: int, prefix: str = "node") -> list[TextNode]:
    """Nodes with texts that differ in every word that the server picks from."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    return [
        TextNode(
            id_=f"{prefix}-{i}",
            text=f"The {TOPICS[i % 14]} number{letters[i % 26]}{letters[i // 26 % 26]}{letters[i // 676]} of {prefix} "
            f"stands beside the {TOPICS[(i // 14 + 3) % 14]} since {1900 + i} and holds {i} litres.",
        )
        for i in range(n)
    ]


def settings_of(options: dict[str, Any]) -> dict[str, Any]:
    """Arguments of the function, from options that are named like the fields of its settings."""
    rest = dict(options)
    for name, settings in (("questions", QuestionSettings), ("calls", CallSettings)):
        given = {field.name: rest.pop(field.name) for field in fields(settings) if field.name in rest}
        if given:
            rest[name] = settings(**given)
    return rest


def generate_flat(nodes: Any, llm: Any, report: GenerationReport | None = None, **options: Any) -> GeneratedDataset:
    """`generate_qa_embedding_pairs` with the settings' fields as options; the report is copied into ``report``."""
    dataset = generate_pairs(nodes, llm, **settings_of(options))
    if report is not None:
        vars(report).update(vars(dataset.report))
    return dataset
