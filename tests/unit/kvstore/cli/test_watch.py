"""The lines that `kvstore cluster` prints, from what was seen and when; nothing here waits."""

from kvstore.api.status import Status
from kvstore.cli.watch import SILENT_S, Sighting, Watch

NAMES = ["n1", "n2", "n3"]


def status(name: str, ballot: str = "1.n1") -> Status:
    role = "leader" if ballot.endswith(name) else "follower"
    return Status(name, "c", role, True, ballot, ballot, ballot[2:], None, 1, 1, 1, 1, [], "0", 1)


class Story:
    """Observations, one after the other; `exits` stays until it is changed."""

    def __init__(self) -> None:
        self.watch = Watch(NAMES, lambda name: f"start {name}")
        self.exits: dict[str, int | None] = dict.fromkeys(NAMES)
        assert self.look(0.0, n1="1.n1", n2="1.n1", n3="1.n1") == []

    def look(self, now: float, **ballots: str) -> list[str]:
        """What is said when these replicas answer `now` and know these ballots, and the others do not answer."""
        seen = {name: Sighting(status(name, ballots[name]) if name in ballots else None, now) for name in NAMES}
        return list(self.watch.observe(now, seen, self.exits))


def test_a_quiet_cluster_is_not_talked_about() -> None:
    story = Story()
    assert story.look(1.0, n1="1.n1", n2="1.n1", n3="1.n1") == []


def test_a_leader_that_dies_is_told_of_with_the_command_to_start_it_and_the_gap_until_the_next_one() -> None:
    story = Story()
    story.exits["n1"] = -9
    assert story.look(1.0, n2="1.n1", n3="1.n1") == ["n1 died (killed by SIGKILL); start it again with: start n1"]
    assert story.look(1.2, n2="1.n1", n3="1.n1") == []
    assert story.look(1.6, n2="2.n2", n3="2.n2") == ["n2 leads, 1.6 s without a leader"]


def test_a_replica_that_was_started_by_hand_is_back_and_may_go_again() -> None:
    story = Story()
    story.exits["n3"] = 1
    assert story.look(1.0, n1="1.n1", n2="1.n1") == ["n3 died (exit status 1); start it again with: start n3"]
    assert story.look(2.0, n1="1.n1", n2="1.n1", n3="1.n1") == ["n3 is back"]
    assert story.look(3.0, n1="1.n1", n2="1.n1") == ["n3 is gone; start it again with: start n3"]
    assert story.look(4.0, n1="1.n1", n2="1.n1") == []


def test_a_replica_that_is_stopped_is_told_of_after_a_while() -> None:
    story = Story()
    assert story.look(SILENT_S - 0.1, n1="1.n1", n2="1.n1") == []
    (line,) = story.look(SILENT_S + 0.1, n1="1.n1", n2="1.n1")
    assert line.startswith("n3 does not answer")
    assert story.look(9.0, n1="1.n1", n2="1.n1", n3="1.n1") == ["n3 is back"]


def test_the_loss_of_the_majority_is_told_once() -> None:
    story = Story()
    story.exits.update(n2=-9, n3=-9)
    *deaths, line = story.look(1.0, n1="1.n1")
    assert len(deaths) == 2
    assert line.startswith("no majority: 1 of 3 replicas up, 2 needed")
    assert story.look(2.0, n1="1.n1") == []


def test_a_deposed_leader_that_has_not_heard_of_it_is_not_taken_for_the_leader() -> None:
    story = Story()
    assert story.look(2.0, n1="1.n1", n2="2.n2", n3="2.n2") == ["n2 leads, 2.0 s without a leader"]
    assert story.look(2.1, n1="1.n1", n2="2.n2", n3="2.n2") == []
