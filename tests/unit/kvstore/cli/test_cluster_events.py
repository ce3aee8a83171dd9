"""The changes that `kvstore cluster` and `kvstore top` report, from observations at given times."""

from msgspec.structs import replace

from kvstore.api.membership import MemberRole
from kvstore.api.status import MemberStatus, Status
from kvstore.cli.cluster_events import ChangeDetector, Observation

NAMES = ["n1", "n2", "n3"]
GRACE_S = 1.5


def status(name: str, ballot: str = "1.n1") -> Status:
    role = "leader" if ballot.endswith(name) else "follower"
    return Status(name, "c", role, True, ballot, ballot, ballot[2:], None, 1, 1, 1, 1, [], "0", 1)


class ObservedCluster:
    """Observations of three replicas that were up at time 0; `exits` stays until it is changed."""

    def __init__(self) -> None:
        self.changes = ChangeDetector(NAMES, grace_s=GRACE_S, start_command=lambda name: f"start {name}")
        self.exits: dict[str, int | None] = dict.fromkeys(NAMES)
        assert self.observe(0.0, n1="1.n1", n2="1.n1", n3="1.n1") == []

    def observe(self, now: float, **ballots: str) -> list[str]:
        """Lines that are reported when these replicas answer `now` with these ballots, and the others do not."""
        seen = {
            name: Observation(name, status(name, ballots[name]) if name in ballots else None, now) for name in NAMES
        }
        return list(self.changes.observe(now, seen, self.exits))


def test_a_cluster_without_changes_causes_no_lines() -> None:
    cluster = ObservedCluster()
    assert cluster.observe(1.0, n1="1.n1", n2="1.n1", n3="1.n1") == []


def test_the_death_of_a_leader_is_reported_with_the_start_command_and_the_time_until_the_next_leader() -> None:
    cluster = ObservedCluster()
    cluster.exits["n1"] = -9
    assert cluster.observe(1.0, n2="1.n1", n3="1.n1") == ["n1 died (killed by SIGKILL); start it again with: start n1"]
    assert cluster.observe(1.2, n2="1.n1", n3="1.n1") == []
    assert cluster.observe(1.6, n2="2.n2", n3="2.n2") == ["n2 leads, 1.6 s without a leader"]


def test_a_replica_that_was_started_by_hand_comes_back_and_may_end_again() -> None:
    cluster = ObservedCluster()
    cluster.exits["n3"] = 1
    assert cluster.observe(1.0, n1="1.n1", n2="1.n1") == ["n3 died (exit status 1); start it again with: start n3"]
    assert cluster.observe(2.0, n1="1.n1", n2="1.n1", n3="1.n1") == ["n3 is back"]
    assert cluster.observe(3.0, n1="1.n1", n2="1.n1") == ["n3 ended; start it again with: start n3"]
    assert cluster.observe(4.0, n1="1.n1", n2="1.n1") == []


def test_a_paused_replica_is_reported_after_the_grace_period() -> None:
    cluster = ObservedCluster()
    assert cluster.observe(GRACE_S - 0.1, n1="1.n1", n2="1.n1") == []
    (line,) = cluster.observe(GRACE_S + 0.1, n1="1.n1", n2="1.n1")
    assert line.startswith("n3 does not answer, though its process runs")
    assert cluster.observe(9.0, n1="1.n1", n2="1.n1", n3="1.n1") == ["n3 is back"]


def test_the_loss_of_the_majority_is_reported_once() -> None:
    cluster = ObservedCluster()
    cluster.exits.update(n2=-9, n3=-9)
    *deaths, line = cluster.observe(1.0, n1="1.n1")
    assert len(deaths) == 2
    assert line.startswith("no majority: 1 of 3 replicas up, 2 needed")
    assert cluster.observe(2.0, n1="1.n1") == []


def test_a_leader_that_is_missing_for_longer_than_the_grace_period_is_reported_once() -> None:
    cluster = ObservedCluster()
    cluster.exits["n1"] = -9
    assert cluster.observe(1.0, n2="1.n1", n3="1.n1") == ["n1 died (killed by SIGKILL); start it again with: start n1"]
    assert cluster.observe(GRACE_S, n2="1.n1", n3="1.n1") == ["no leader; the last one was n1"]
    assert cluster.observe(9.0, n2="1.n1", n3="1.n1") == []
    assert cluster.observe(9.5, n2="2.n2", n3="2.n2") == ["n2 leads, 9.5 s without a leader"]


def test_a_deposed_leader_that_does_not_know_it_yet_is_not_reported_as_the_leader() -> None:
    cluster = ObservedCluster()
    assert cluster.observe(2.0, n1="1.n1", n2="2.n2", n3="2.n2") == ["n2 leads, 2.0 s without a leader"]
    assert cluster.observe(2.1, n1="1.n1", n2="2.n2", n3="2.n2") == []


def test_a_majority_is_one_of_voters_and_known_only_if_all_of_them_are_observed() -> None:
    members = [
        MemberStatus("n1", "h:1", connected=True, heard_ms_ago=0.0),
        MemberStatus("n2", "h:2", connected=True, heard_ms_ago=0.0, role=MemberRole.WITNESS),
        MemberStatus("n3", "h:3", connected=True, heard_ms_ago=0.0, role=MemberRole.LEARNER),
    ]
    leader = replace(status("n1"), members=members)

    def lost(*observed: str, unreachable: str) -> list[str]:
        changes = ChangeDetector(observed)
        seen = {
            name: Observation(name, replace(leader, id=name) if name != unreachable else None, 1.0) for name in observed
        }
        return [line for line in changes.observe(1.0, seen) if line.startswith("no majority")]

    assert lost("n1", "n2", "n3", unreachable="n3") == []
    (line,) = lost("n1", "n2", "n3", unreachable="n2")
    assert line.startswith("no majority: 1 of 2 replicas up, 2 needed")
    assert lost("n1", "n3", unreachable="n3") == []
