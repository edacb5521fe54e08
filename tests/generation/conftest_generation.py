"""What the generation tests share besides fixtures."""

from __future__ import annotations

from llama_index.core.schema import TextNode

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
