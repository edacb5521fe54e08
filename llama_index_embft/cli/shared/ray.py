"""``--ray ADDRESS``: what the commands that can work on a cluster share."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from llama_index_embft.cli.shared.options import check_only_for
from llama_index_embft.errors import ConfigError

RAY_HELP: Final = (
    "Work on a Ray cluster: HOST:PORT of its head node, ray://HOST:PORT, auto (the one this machine is part of) or "
    "local (a new one on this machine)."
)
RayOption = Annotated[str | None, typer.Option("--ray", metavar="ADDRESS", help=RAY_HELP)]


def check_ray(address: str | None, *, ray_workers: int | None = None, **only_there: Any) -> None:
    """Refuse an address that is none, and options of a cluster where there is no cluster.

    Args:
        address: Of ``--ray``; None where it is not given.
        ray_workers: Of ``--ray-workers``, which several commands have.
        **only_there: Name of an option that is for a cluster only (with ``_`` for ``-``) -> its value; None is "not
            given".

    Raises:
        ConfigError: They do not fit together.
    """
    if address is None:
        check_only_for("--ray ADDRESS", False, {"ray_workers": ray_workers, **only_there})
        return
    # As from --ray "$HEAD" where HEAD is not set: below, no address would mean a new cluster on this machine.
    if not address.strip():
        raise ConfigError(
            "--ray has an empty address; give HOST:PORT of its head node, ray://HOST:PORT, auto or local."
        )
    if ray_workers is not None and ray_workers < 1:
        raise ConfigError(f"--ray-workers is {ray_workers}; it must be 1 or more.")
