"""``--ray ADDRESS``: what the commands that can work on a cluster share."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from llama_index_embft.errors import ConfigError

RayOption = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="ADDRESS",
        help="Work on a Ray cluster: HOST:PORT of its head node, ray://HOST:PORT, auto (the one this machine is part "
        "of) or local (a new one on this machine).",
    ),
]


def refuse_with_ray(**options: Any) -> None:
    """Refuse options that mean nothing on a cluster, rather than ignore them.

    Args:
        **options: Name of the option (with ``_`` for ``-``) -> its value; None and False are "not given".

    Raises:
        ConfigError: One is given.
    """
    for name, value in options.items():
        if value is not None and value is not False:
            raise ConfigError(f"--{name.replace('_', '-')} has no meaning together with --ray; leave it out.")
