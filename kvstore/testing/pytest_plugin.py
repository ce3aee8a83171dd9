"""Fixtures for pytest, there wherever kvstore is installed.

`kvstore_cluster`: three replicas, a `kvstore.testing.LocalCluster`. They are started once for all tests, which takes a
second or two; for each test all of them run and are connected, and the store is empty (its revision goes on).
`kvstore_clusters`: makes clusters for one test, `kvstore_clusters(5, {"lease_ms": 900})`, some 0.3 s each.

A test that fails shows what the replicas printed.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Protocol

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

    from kvstore.testing import LocalCluster

_SHOWN = pytest.StashKey[list["LocalCluster"]]()
"""The clusters of a test."""


class Clusters(Protocol):
    """What `kvstore_clusters` is."""

    def __call__(self, nodes: int = 3, settings: Mapping[str, int | str] | None = None) -> LocalCluster:
        """A cluster that runs, until the test ends."""


@pytest.fixture(scope="session")
def _kvstore_shared() -> Iterator[LocalCluster]:
    from kvstore.testing import LocalCluster  # noqa: PLC0415 - tests that use no cluster do not load it

    with LocalCluster() as cluster:
        yield cluster


@pytest.fixture
def kvstore_cluster(request: pytest.FixtureRequest, _kvstore_shared: LocalCluster) -> LocalCluster:
    """Three replicas that serve, with nothing in them."""
    _kvstore_shared.reset()
    request.node.stash.setdefault(_SHOWN, []).append(_kvstore_shared)
    return _kvstore_shared


@pytest.fixture
def kvstore_clusters(request: pytest.FixtureRequest) -> Iterator[Clusters]:
    """Makes clusters of any size, for this test alone."""
    from kvstore.testing import LocalCluster  # noqa: PLC0415 - as above

    with ExitStack() as running:

        def make(nodes: int = 3, settings: Mapping[str, int | str] | None = None) -> LocalCluster:
            cluster = running.enter_context(LocalCluster(nodes, settings))
            request.node.stash.setdefault(_SHOWN, []).append(cluster)
            return cluster

        yield make


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the logs to the report of a failure."""
    report = yield
    if report.failed:
        for cluster in item.stash.get(_SHOWN, []):
            report.sections.append(("kvstore replicas", cluster.logs()))
    return report
