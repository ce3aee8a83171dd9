"""Leader leases while their settings change over restarts: a grant of an earlier process is waited out."""

import pytest

from paxos.messages import PreVote, PreVoteReply
from paxos.options import Options
from paxos.types import MS
from tests.unit.kvstore.replica.host import B1, NodeHost

LONG, SHORT = Options(lease_ms=10_000), Options(lease_ms=500)
LARGE_BOUND, SMALL_BOUND = (Options(lease_ms=1000, clock_drift_ppm=ppm) for ppm in (300_000, 100))


def restarted(host: NodeHost, options: Options) -> NodeHost:
    """Kill the process of `host`, with the writes that are not durable, and start it with `options`."""
    return NodeHost(host.storage.reopen(), options=options)


def waited_ms(host: NodeHost) -> int:
    """Return the time for which `host` refuses every candidate from its start on."""
    started = host.now
    while not willing(host):
        host.now += 5 * MS
    return (host.now - started) // MS


def willing(host: NodeHost) -> bool:
    host.receive("n3", PreVote(1, 1))
    (reply,) = [envelope.message for envelope in host.step() if isinstance(envelope.message, PreVoteReply)]
    return reply.willing


def granting(options: Options) -> NodeHost:
    """A host that has just granted a lease to n2."""
    host = NodeHost(options=options)
    host.follow(B1)
    assert not willing(host)
    return host


@pytest.mark.parametrize(
    ("before", "after", "ms"),
    [
        (LONG, SHORT, 10_100),
        (SHORT, LONG, 10_100),
        (LARGE_BOUND, SMALL_BOUND, 1300),
        (SMALL_BOUND, LARGE_BOUND, 1300),
        (LONG, LARGE_BOUND, 13_000),
        (SHORT, SHORT, 505),
    ],
)
def test_rule_17_a_restart_with_other_settings_waits_for_the_longest_lease(
    before: Options, after: Options, ms: int
) -> None:
    assert waited_ms(restarted(granting(before), after)) == ms


def test_rule_17_restarts_that_do_not_wait_it_out_forget_no_longer_lease() -> None:
    host = granting(LONG)
    for _ in range(3):
        host = restarted(host, SHORT)
        host.now += 10_095 * MS
        assert not willing(host)
        host.sync()
    assert waited_ms(restarted(host, SHORT)) == 10_100


def test_rule_17_a_restart_right_after_its_start_has_stored_the_longer_lease() -> None:
    host = restarted(restarted(NodeHost(options=SHORT), LONG), SHORT)
    assert waited_ms(host) == 10_100


def test_rule_17_a_first_grant_leaves_once_its_length_is_durable() -> None:
    host = NodeHost(options=LONG)
    host.follow(B1)
    assert not host.writes
    assert host.storage.hard_state.granted == LONG.grant_terms


def test_rule_17_shorter_leases_are_waited_for_once_the_longer_ones_have_ended() -> None:
    host = restarted(granting(LONG), SHORT)
    waited_ms(host)
    assert waited_ms(restarted(host, SHORT)) == 10_100  # the shorter terms were not durable
    waited_ms(host)
    host.sync()
    assert host.storage.hard_state.granted == SHORT.grant_terms
    assert waited_ms(restarted(host, SHORT)) == 505


def test_the_shorter_terms_are_stored_once() -> None:
    host = restarted(granting(LONG), SHORT)
    waited_ms(host)
    host.sync()
    host.step()
    assert not host.writes


def test_rule_17_no_lease_is_granted_during_the_longer_wait() -> None:
    host = restarted(granting(LONG), SHORT)
    host.now += 10_095 * MS
    host.follow(B1)
    host.sync()
    host.now += 5 * MS
    assert willing(host)
