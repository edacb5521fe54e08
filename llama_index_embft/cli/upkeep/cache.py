"""``embft cache``: what the cache holds, of which models, and what to take out of it."""

from __future__ import annotations

from typing import Annotated, Any

import typer


def cache(
    prune: Annotated[
        bool, typer.Option("--prune", help="Take vectors out; say of which with --embed-model or --unused-days.")
    ] = False,
    embed_model: Annotated[str | None, typer.Option(help="Only models with this in their name.")] = None,
    unused_days: Annotated[
        int | None, typer.Option(min=0, help="Only what was not used for so many days, interrupted searches too.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and change nothing.")] = False,
) -> dict[str, Any]:
    """Show what the cache holds and of which models, or make it smaller.

    Vectors that are taken out are computed again when they are needed. Answers of LLMs (journals) were paid for, and
    stay; delete their files by hand. The folder is $EMBFT_CACHE_DIR, else your platform's cache folder.

    Examples:
    embft cache
    embft cache --prune --unused-days 30 --dry-run
    embft cache --prune --embed-model bge-small
    """
    from dataclasses import asdict

    from llama_index_embft._core.tables import TextTable
    from llama_index_embft.cli.shared.console import console, shown_bytes
    from llama_index_embft.embeddings.encoding import cache_contents, prune_cache
    from llama_index_embft.errors import ConfigError

    if not prune and (dry_run or embed_model is not None or unused_days is not None):
        raise ConfigError("--embed-model, --unused-days and --dry-run say what to take out; give --prune too.")
    if prune and embed_model is None and unused_days is None:
        raise ConfigError("--prune needs --embed-model NAME or --unused-days N.")
    pruned = prune_cache(embed_model, unused_days, dry_run=dry_run) if prune else None
    found = cache_contents()
    console.print(f"{found.folder}: {shown_bytes(found.bytes)}", markup=False, soft_wrap=True)
    if found.models:
        rows = [
            (one.name or "(unknown)", f"{one.vectors:,}", shown_bytes(one.bytes), one.last_used or "")
            for one in found.models
        ]
        console.print(TextTable(("model", "vectors", "size", "last used"), rows).to_rich())
    for part, meaning in zip(found.others, ("answers of LLMs", "interrupted searches"), strict=True):
        if part.files:
            console.print(f"{part.files:,} {part.name} ({meaning}): {shown_bytes(part.bytes)}")
    if pruned is not None:
        models = ", ".join(one.name or "(unknown)" for one in pruned.models) or "none"
        done = "Would take out" if dry_run else "Taken out"
        text = (
            f"{done}: vectors of {models}; {pruned.searches} interrupted searches; {shown_bytes(pruned.freed_bytes)}."
        )
        console.print(text, markup=False, soft_wrap=True)
    return {**asdict(found), "pruned": None if pruned is None else asdict(pruned), "dry_run": dry_run}
