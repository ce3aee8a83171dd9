"""Fixtures for pytest, available in every environment in which kvstore is installed.

`kvstore_cluster` is a LocalCluster of three replicas. It is started once for all tests, in a second or two; before each
test all replicas are made ready again and the store is emptied, but its revision is not reset.
`kvstore_clusters` starts clusters for one test, in about 0.3 s each: `kvstore_clusters(5, {"lease_ms": 900})`.

The report of a test that fails contains the output of the replicas.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Protocol

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

    from kvstore.testing import LocalCluster

_USED = pytest.StashKey[list["LocalCluster"]]()
"""Clusters that a test used."""


class ClusterFactory(Protocol):
    """The type of the fixture `kvstore_clusters`."""

    def __call__(self, nodes: int = 3, settings: Mapping[str, int | str] | None = None) -> LocalCluster:
        """Return a ready cluster, which runs until the test ends."""


@pytest.fixture(scope="session")
def _kvstore_shared() -> Iterator[LocalCluster]:
    from kvstore.testing import LocalCluster  # noqa: PLC0415 - a test without a cluster does not load it

    with LocalCluster() as cluster:
        yield cluster


@pytest.fixture
def kvstore_cluster(request: pytest.FixtureRequest, _kvstore_shared: LocalCluster) -> LocalCluster:
    """Three replicas that are ready and hold no keys."""
    _kvstore_shared.reset()
    request.node.stash.setdefault(_USED, []).append(_kvstore_shared)
    return _kvstore_shared


@pytest.fixture
def kvstore_clusters(request: pytest.FixtureRequest) -> Iterator[ClusterFactory]:
    """A function that starts clusters of any size for one test."""
    from kvstore.testing import LocalCluster  # noqa: PLC0415 - as above

    with ExitStack() as running:

        def make(nodes: int = 3, settings: Mapping[str, int | str] | None = None) -> LocalCluster:
            cluster = running.enter_context(LocalCluster(nodes, settings))
            request.node.stash.setdefault(_USED, []).append(cluster)
            return cluster

        yield make


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the output of the replicas to the report of a failure."""
    report = yield
    if report.failed:
        for cluster in item.stash.get(_USED, []):
            report.sections.append(("kvstore replicas", cluster.logs()))
    return report
