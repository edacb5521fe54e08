"""Joining a Ray cluster, and Ray's failures as sentences."""

from __future__ import annotations

import os
import socket
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from llama_index_embft._core.optional import require
from llama_index_embft.errors import ConfigError, EmbftError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

_FEATURE: Final = "Working on a Ray cluster"
# Ray itself waits for half a minute and longer before it says that nobody answers.
_CONNECT_SECONDS: Final = 5.0
_RESUME: Final = "What is finished is kept: make the same call again to go on."


class ScaleError(EmbftError, RuntimeError):
    """Work on a cluster could not start, or could not be finished; what is finished is kept.

    Attributes:
        failed: What could not be done -> why; empty where that is not known piece by piece.
    """

    def __init__(self, message: str, failed: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.failed = failed or {}


class Node(NamedTuple):
    """One machine of the cluster."""

    id: str
    address: str


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Work on a cluster inside the block.

    A connection that is there already is used and left open; one that is made here is closed at the end, and so is a
    cluster of one machine that is started here.

    Args:
        address: ``"host:port"`` of the head node, ``"ray://host:port"`` for Ray's client, ``"auto"`` for the cluster
            that this machine is part of, ``"local"`` for a new one on this machine alone. None: the connection that
            is there, else ``$RAY_ADDRESS``, else ``"local"``.

    Raises:
        ScaleError: No cluster answers there.
        ConfigError: This process is connected to another cluster.
        MissingExtraError: Ray is not installed.
    """
    # Before Ray is imported: this package calls no home, and Ray reports usage from clusters that it starts.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray = require("ray", feature=_FEATURE)
    if ray.is_initialized():
        _check_same(ray, address)
        with sentences():
            yield
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    _probe(address)
    try:
        ray.init(address=address, log_to_driver=False, include_dashboard=False if address == "local" else None)
    except Exception as err:  # ConnectionError, RuntimeError, ValueError and others
        raise ScaleError(_nobody(address, str(err).split("\n", 1)[0])) from err
    try:
        with sentences():
            yield
    finally:
        ray.shutdown()


def _check_same(ray: Any, address: str | None) -> None:
    if address in (None, "auto") or str(address).startswith("ray://"):
        return
    joined = ray.get_runtime_context().gcs_address
    if address != joined:
        raise ConfigError(
            f"This process is connected to the Ray cluster at {joined}, and `address` is {address!r}; leave it out, or "
            "call ray.shutdown() first."
        )


def _probe(address: str) -> None:
    """Find out within seconds that nobody listens."""
    if address in ("auto", "local"):
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise ConfigError(
            f"The Ray address {address!r} is not understood; write HOST:PORT of the head node, ray://HOST:PORT, auto "
            "or local."
        )
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
    except OSError as err:
        raise ScaleError(_nobody(address, err.strerror or str(err))) from err


def _nobody(address: str, reason: str) -> str:
    return (
        f"No Ray cluster can be joined at {address} ({reason}); start one with `ray start --head`, or give the address "
        "that it printed."
    )


@contextmanager
def sentences() -> Iterator[None]:
    """Turn Ray's failures inside the block into one sentence each."""
    from ray import exceptions

    try:
        yield
    except EmbftError:
        raise
    except exceptions.RayTaskError as err:
        cause = err.cause
        if isinstance(cause, EmbftError):
            raise cause from err
        raise
    except (exceptions.ObjectStoreFullError, exceptions.OutOfDiskError) as err:
        raise ScaleError(
            "Ray's object store is full, and so is the disk it spills to; free some space there, give the nodes a "
            f"larger --object-store-memory, or ask for more and smaller shards. {_RESUME}"
        ) from err
    except exceptions.OutOfMemoryError as err:
        raise ScaleError(
            f"A node ran out of memory; ask for fewer workers a node or smaller shards. {_RESUME}"
        ) from err
    except (exceptions.RayActorError, exceptions.WorkerCrashedError, exceptions.NodeDiedError) as err:
        raise ScaleError(f"Workers of the cluster died again and again ({_first_line(err)}). {_RESUME}") from err
    except exceptions.RayError as err:
        raise ScaleError(f"The Ray cluster failed ({_first_line(err)}). {_RESUME}") from err


def _first_line(err: BaseException) -> str:
    lines = [line.strip() for line in str(err).splitlines() if line.strip()]
    return (lines[0] if lines else type(err).__name__).rstrip(".")[:300]


def nodes_with(resource: str) -> list[Node]:
    """The machines that are up and have some of a resource.

    Args:
        resource: ``"CPU"`` or ``"GPU"``.

    Raises:
        ScaleError: None has.
    """
    import ray

    found = [
        Node(node["NodeID"], node["NodeManagerAddress"])
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"] and node["Resources"].get(resource, 0) > 0
    ]
    if not found:
        raise ScaleError(f"No node of the Ray cluster has a {resource}; add one, or ask for other workers.")
    return found


def count_of(resource: str) -> int:
    """How many CPUs or GPUs the whole cluster has, at least 1."""
    return max(1, int(resources().get(resource, 0)))


def resources() -> dict[str, float]:
    """What all machines that are up have together."""
    import ray

    found: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return found


def remote(thing: Any, **options: Any) -> Any:
    """`ray.remote` with options; its own types know only some of them."""
    import ray

    decorate: Any = ray.remote
    return decorate(**options)(thing)


def on_node(node: str, *, soft: bool = False) -> NodeAffinitySchedulingStrategy:
    """Schedule on one machine; ``soft`` goes elsewhere where that is not possible."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node, soft=soft)


def ask_nodes(question: Callable[..., Any], *arguments: Any, resource: str) -> dict[Node, Any]:
    """Call a function on every machine that has a resource, at once; one that is lost meanwhile is left out."""
    import ray
    from ray import exceptions

    nodes = nodes_with(resource)
    asked = [
        remote(question, num_cpus=0, max_retries=0, scheduling_strategy=on_node(node.id)).remote(*arguments)
        for node in nodes
    ]
    answers = {}
    for node, answer in zip(nodes, asked, strict=True):
        with suppress(exceptions.NodeDiedError, exceptions.TaskUnschedulableError, exceptions.WorkerCrashedError):
            answers[node] = ray.get(answer)
    return answers
