"""A real Ray cluster of several nodes on this machine, and a model that costs nothing."""

from __future__ import annotations

import os

# Before Ray is imported anywhere: no reports to anybody, no warnings about what is off, quick notice of a lost node.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_DEDUP_LOGS"] = "1"
os.environ["RAY_TRAIN_ENABLE_STATE_TRACKING"] = "0"

import contextlib
import inspect
import json
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

STORE_BYTES = 80 << 20
# A lost node, which refuses connections, is noticed after four seconds, and one that is only slow has two minutes to
# answer. Workers are as urgent as any process: Ray's own choice would let them starve beside other work.
SYSTEM = {
    "health_check_initial_delay_ms": 2000,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 30000,
    "health_check_failure_threshold": 4,
    "worker_niceness": 0,
}


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """A head node without CPUs, where the driver sits, and two nodes with one each."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    made = Cluster()
    try:
        add_node(made, num_cpus=0, include_dashboard=False, _system_config=SYSTEM)
        for _ in range(2):
            add_node(made, num_cpus=1)
        ray.init(address=made.address, log_to_driver=False)
        yield made
    finally:
        ray.shutdown()
        made.shutdown()


def add_node(cluster: Any, **options: Any) -> Any:
    """One more node.

    Ray ends a node whose helper processes have not written down their ports within 15 seconds, and on a loaded machine
    their imports take longer. So the ports are chosen, and written down, here.
    """
    from unittest import mock

    from ray import _raylet
    from ray._private import services

    names = {
        _raylet.METRICS_AGENT_PORT_NAME: "metrics_agent_port",
        _raylet.METRICS_EXPORT_PORT_NAME: "metrics_export_port",
        _raylet.DASHBOARD_AGENT_LISTEN_PORT_NAME: "dashboard_agent_listen_port",
        _raylet.RUNTIME_ENV_AGENT_PORT_NAME: "runtime_env_agent_port",
    }
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    original, signature = services.start_raylet, inspect.signature(services.start_raylet)

    def start_raylet(*args: Any, **more: Any) -> Any:
        bound = signature.bind(*args, **more).arguments
        for name, port in ports.items():
            _raylet.persist_port(bound["session_dir"], bound["node_id"], name, port)
        return original(*args, **more)

    with mock.patch.object(services, "start_raylet", start_raylet):
        arguments = {names[name]: port for name, port in ports.items()}
        return cluster.add_node(object_store_memory=STORE_BYTES, wait=False, **arguments, **options)


def free_ports(n: int) -> list[int]:
    """Ports that nobody listens on."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(n)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


@pytest.fixture
def write_texts(tmp_path: Path) -> Callable[..., Path]:
    """Writes texts as JSONL, with ids d0, d1, …"""

    def write(n: int, name: str = "texts.jsonl", word: str = "passage") -> Path:
        path = tmp_path / name
        lines = (json.dumps({"id": f"d{i}", "text": f"{word} {i} " + "about trade " * (i % 7)}) for i in range(n))
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write


@pytest.fixture
def new_node() -> Callable[..., Any]:
    """Adds a node to the cluster."""
    return add_node


@pytest.fixture(autouse=True)
def _modules_for_workers() -> Iterator[None]:
    """Ray sends classes of modules that workers cannot import by value."""
    cloudpickle = pytest.importorskip("ray.cloudpickle")
    import scale_models

    cloudpickle.register_pickle_by_value(scale_models)
    yield
    cloudpickle.unregister_pickle_by_value(scale_models)
