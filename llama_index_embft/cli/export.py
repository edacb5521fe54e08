"""``embft export``: a model in the formats it is served in, with what each costs and keeps."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  # typer reads the annotations
from typing import Annotated, Any

import typer


def export(
    model: Annotated[
        str, typer.Argument(help="Saved result (a reranker too), model folder or name on the Hugging Face hub.")
    ],
    out: Annotated[Path, typer.Option(help="Folder; several formats go into folders of their names inside it.")],
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", help="fp16, bf16, onnx, onnx-int8, openvino, openvino-int8; repeat for several."),
    ] = None,
    val: Annotated[
        Path | None,
        typer.Option(
            help="Your validation set: what is left of nDCG@10 is measured on it; of a reranker, its pairs' logits."
        ),
    ] = None,
    query_prompt: Annotated[str | None, typer.Option(help="Put before each query; default: the model's own.")] = None,
    document_prompt: Annotated[str | None, typer.Option(help="Put before each document; likewise.")] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that comes with the model; read it first.")
    ] = False,
    report: Annotated[Path | None, typer.Option(help="Write the figures as JSON.")] = None,
    push_to_hub: Annotated[
        str | None, typer.Option(help="OWNER/NAME: upload it, one format only; the repository is made private.")
    ] = None,
) -> dict[str, Any]:
    """Export a model: half precision, ONNX or OpenVINO, measured against the original.

    Examples:
    embft export runs/model --out served --val val.json
    embft export runs/model --format fp16 --format onnx-int8 --out served --report table.json
    """
    from rich.markup import escape

    from llama_index_embft.cli.shared.console import console, quiet_libraries, written
    from llama_index_embft.cli.shared.data import read_data
    from llama_index_embft.errors import ConfigError
    from llama_index_embft.export.hub import check_can_push, push_to_hub as push
    from llama_index_embft.export.model import export_model

    wanted = formats or ["onnx-int8"]
    if push_to_hub is not None:
        if len(wanted) > 1:
            raise ConfigError("--push-to-hub takes one --format: a repository holds one model.")
        check_can_push(push_to_hub)
    dataset = read_data(val) if val is not None else None
    quiet_libraries()
    exported = export_model(
        model,
        out,
        wanted[0] if len(wanted) == 1 else wanted,  # type: ignore[arg-type]  # checked there
        val_dataset=dataset,
        query_prompt=query_prompt,
        document_prompt=document_prompt,
        trust_remote_code=trust_remote_code,
    )
    console.print(exported.to_rich())
    basis = exported.basis()
    console.print(escape(basis[0].upper() + basis[1:]))
    if report is not None:
        exported.to_json(report)
    record = {**exported.to_dict(), **written(*(row.folder for row in exported.rows[1:]), report), "uploaded": None}
    if push_to_hub is not None:
        record["uploaded"] = push(out, push_to_hub)
        console.print(f"Uploaded: {escape(record['uploaded'])}")
    return record
