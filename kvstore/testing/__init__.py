"""Clusters of real processes for tests: LocalCluster, and AsyncLocalCluster for asyncio.

    with LocalCluster(3) as cluster:
        client = cluster.client()
        client.put("a", b"1")
        cluster.kill(cluster.leader())
        client.put("a", b"2")

The replicas run the code of `kvstore serve`, on free ports of this machine, with their data in a temporary directory.
Messages between replicas pass through proxies in this process, which can cut a link. The replicas end with the program,
on Linux even if the program is killed. An exception that leaves the `with` block has the output of the replicas as a
note. `kvstore.testing.pytest_plugin` has fixtures for pytest.

ProcessCluster runs replicas in a directory that the caller names, without proxies: `kvstore cluster` and the benchmarks
use it. The package is the top layer below `kvstore.cli`: it may import the server and the client.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvstore.testing.cluster_directory import ClusterError, LocalReplica
    from kvstore.testing.fault_proxies import FaultProxies
    from kvstore.testing.local_cluster import AsyncLocalCluster, LocalCluster
    from kvstore.testing.process_cluster import NotReadyError, ProcessCluster

_MODULES = {
    "AsyncLocalCluster": "local_cluster",
    "ClusterError": "cluster_directory",
    "FaultProxies": "fault_proxies",
    "LocalCluster": "local_cluster",
    "LocalReplica": "cluster_directory",
    "NotReadyError": "process_cluster",
    "ProcessCluster": "process_cluster",
}

__all__ = [
    "AsyncLocalCluster",
    "ClusterError",
    "FaultProxies",
    "LocalCluster",
    "LocalReplica",
    "NotReadyError",
    "ProcessCluster",
]


def __getattr__(name: str) -> object:
    """Load a class when it is first used, because pytest imports this package for its plugin in every environment in
    which kvstore is installed."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
