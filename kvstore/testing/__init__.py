"""A cluster of real processes for anybody's tests: `LocalCluster`, and `AsyncLocalCluster` for asyncio.

    with LocalCluster(3) as cluster:
        client = cluster.client()
        client.put("a", b"1")
        cluster.kill(cluster.leader())
        client.put("a", b"2")

The replicas are what `kvstore serve` runs, on free ports of this machine, with their data in a temporary directory. The
links between them go through this process, in a thread of its own, so that they can be cut. Whatever becomes of the
test, no replica outlives it; when it fails, the error carries what the replicas printed. For pytest there are the
fixtures of `kvstore.testing.pytest_plugin`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvstore.testing.local_cluster import AsyncLocalCluster, LocalCluster
    from kvstore.testing.process_cluster import ClusterError

__all__ = ["AsyncLocalCluster", "ClusterError", "LocalCluster"]
_MODULES = {"AsyncLocalCluster": "local_cluster", "ClusterError": "process_cluster", "LocalCluster": "local_cluster"}


def __getattr__(name: str) -> object:
    """Import a name when it is first used: pytest loads this package for its plugin even without clusters."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
