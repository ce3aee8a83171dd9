"""The names that the package `paxos` exports."""

import pytest

import paxos
from paxos.messages import AnyMessage
from paxos.options import Options
from paxos.ready import Ready
from paxos.replica import Replica
from paxos.role import Role


def test_the_package_exports_what_a_host_needs() -> None:
    exported = {name: getattr(paxos, name) for name in paxos.__all__}
    assert exported == {"AnyMessage": AnyMessage, "Options": Options, "Ready": Ready, "Replica": Replica, "Role": Role}


def test_any_other_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'paxos' has no attribute 'Campaign'"):
        _ = paxos.Campaign
