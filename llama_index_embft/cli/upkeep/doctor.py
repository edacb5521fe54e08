"""``embft doctor``: does this installation work, and what would be missing for what?"""

from __future__ import annotations

from typing import Annotated, Any

import typer


def doctor(
    self_test: Annotated[bool, typer.Option(help="Train, save, load and search with a tiny model.")] = True,
    device: Annotated[str | None, typer.Option(help="Torch device of that; default: a GPU if there is one.")] = None,
) -> dict[str, Any]:
    """Check this installation: versions, device, disk, network, extras, and a run of ten seconds.

    The exit code is 1 where something that is needed is broken; warnings leave it at 0. Nothing is downloaded.

    Examples:
    embft doctor
    embft doctor --no-self-test --json
    """
    from llama_index_embft.cli.shared.console import console, quiet_libraries, steps
    from llama_index_embft.cli.shared.options import check_not_with
    from llama_index_embft.finetune import check_installation

    check_not_with("--no-self-test", not self_test, {"device": device})

    with steps().status("Looking at the installation"):
        quiet_libraries()
        found = check_installation(self_test=self_test, device=device)
    for check in found.checks:
        console.print(f"{check.status:<8} {check.name:<10} {check.text}", markup=False, soft_wrap=True)
        if check.advice:
            console.print(f"{'':<19} {check.advice}", markup=False, soft_wrap=True)
    if found.seconds is not None:
        console.print(f"{'':<19} self-test: {found.seconds:.1f} s")
    console.print("Everything that is needed works." if found.works else "Something that is needed is broken.")
    return {**found.to_dict(), "exit_code": int(not found.works)}
