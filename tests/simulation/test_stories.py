"""Stories of simulated clusters: what happens, step by step, and what must be seen."""

import pytest

from kvstore.api.commands import Put, PutResult, Result
from kvstore.api.errors import Refused
from kvstore.api.queries import Consistency
from kvstore.api.results import ReadAnswer
from paxos.types import MS
from tests.simulation.checkers import same_state
from tests.simulation.story import Story

WRITES = 30


@pytest.mark.parametrize("kept", [0, None])
def test_losing_what_is_not_durable_at_any_point_loses_no_acknowledged_write(kept: int | None) -> None:
    """Rules 1 and 3: all replicas lose power after the same step, for every third step of a run."""
    steps = 1
    while power_fails_after(steps, kept):
        steps += 3


def power_fails_after(steps: int, kept: int | None) -> bool:
    """Write until `steps` steps were taken, crash all replicas, and read the acknowledged writes. Return False if the
    writes took fewer steps."""
    story = Story(seed=3)
    acknowledged: dict[bytes, bytes] = {}
    count = 0

    def write_next() -> None:
        nonlocal count
        count += 1
        if count > WRITES:
            return
        key, value = b"k%d" % (count % 4), b"v%d" % count

        def answered(answer: Result | Refused) -> None:
            if isinstance(answer, PutResult):
                acknowledged[key] = value
            write_next()

        name = f"n{count % 3 + 1}"
        story.cluster.world.after_ms(
            1, lambda: story.machines[name].happens(lambda node: node.write(Put(key, value), answered))
        )

    write_next()
    while story.cluster.steps < steps:
        if count > WRITES:
            return False
        assert story.cluster.world.now < 3000 * MS
        story.run_ms(0.05)
    for machine in story.machines.values():
        machine.crash(kept)
    expected = dict(acknowledged)
    count = WRITES
    story.cluster.heal()
    while story.cluster.leader() is None:
        assert story.cluster.world.now < 6000 * MS, f"after step {steps}: nobody leads"
        story.run_ms(50)
    story.run_ms(300)
    for key, value in expected.items():
        answers = story.get("n1", key)
        story.run_ms(50)
        answer = answers[0]
        assert isinstance(answer, ReadAnswer), f"after step {steps}: no read of {key!r}"
        assert answer.record is not None, f"step {steps} lost {key!r}"
        assert int(answer.record.value[1:]) >= int(value[1:]), f"step {steps} lost the last value of {key!r}"
    same_state(story.cluster, story.safety.reference)
    return True


def test_a_leader_paused_past_its_lease_serves_no_stale_read() -> None:
    """Rule 18, and rule 20: what it believed before the pause is checked again after it."""
    story = Story()
    story.run_ms(1000)
    old = story.leader()
    put = story.put(old.name, b"k", b"before")
    story.run_ms(50)
    assert isinstance(put[0], PutResult)
    old.pause()
    story.run_ms(2000)
    new = story.leader()
    assert new is not old
    put = story.put(new.name, b"k", b"after")
    story.run_ms(50)
    assert isinstance(put[0], PutResult)
    asked = story.get(old.name, b"k")  # arrives while it sleeps
    old.resume()
    story.run_ms(500)
    assert isinstance(asked[0], ReadAnswer)
    assert asked[0].record is not None
    assert asked[0].record.value == b"after"


def test_the_steady_state_needs_no_prepare_and_lease_reads_no_message() -> None:
    story = Story()
    story.run_ms(1000)
    leader = story.leader()
    assert leader.node is not None
    prepares = story.sent("Prepare")
    for number in range(1000):
        story.put("n1", b"k", b"%d" % number)
        story.run_ms(5)
    assert story.sent("Prepare") == prepares
    before = dict(leader.node.stats.sent)
    for _ in range(1000):
        (answer,) = story.get(leader.name, b"k")
        assert isinstance(answer, ReadAnswer)
    assert dict(leader.node.stats.sent) == before
    assert leader.node.stats.reads["lease"] == 1000


def test_a_cluster_without_a_majority_refuses_and_comes_back() -> None:
    story = Story()
    story.run_ms(1000)
    story.machines["n1"].crash()
    story.machines["n2"].crash()
    story.run_ms(1000)
    put = story.put("n3", b"k", b"v")
    get = story.get("n3", b"k")
    stale = story.get("n3", b"k", Consistency.STALE)
    assert isinstance(stale[0], ReadAnswer)
    story.run_ms(2600)
    assert isinstance(put[0], Refused)
    assert isinstance(get[0], Refused)
    story.machines["n1"].start()
    story.run_ms(2500)
    put = story.put("n3", b"k", b"w")
    story.run_ms(100)
    assert isinstance(put[0], PutResult)


def test_a_clean_shutdown_of_the_leader_fails_no_write() -> None:
    story = Story()
    story.run_ms(1000)
    leader = story.leader()
    answers = []
    for number in range(20):
        answers.append(story.put(leader.name, b"k", b"%d" % number))
        story.run_ms(1)
        if number == 10:
            leader.happens(lambda node: node.hand_over())
    story.run_ms(300)
    assert all(isinstance(answer[0], PutResult) for answer in answers)
    assert story.leader() is not leader


def test_a_replica_that_was_away_catches_up() -> None:
    story = Story()
    story.run_ms(1000)
    away = next(machine for machine in story.machines.values() if machine is not story.leader())
    away.crash()
    for number in range(1500):
        story.put(story.leader().name, b"k%d" % number, b"v" * 2000)
        story.run_ms(2)
    away.start()
    story.run_ms(3000)
    same_state(story.cluster, story.safety.reference)


def test_rule_30_an_empty_majority_answers_nobody_until_its_disks_are_back() -> None:
    """Wiped, it waits for the one that has data; with its own disks it goes on."""
    story = Story()
    story.run_ms(1000)
    put = story.put("n1", b"k", b"v")
    story.run_ms(50)
    assert isinstance(put[0], PutResult)
    for name in ("n1", "n2"):
        story.machines[name].wipe(damaged=False)
    story.run_ms(5000)
    for name in ("n1", "n2"):
        node = story.machines[name].node
        assert node is not None
        assert (node.view.known, node.founding.pending) == (False, True)
        assert isinstance(story.get(name, b"k", Consistency.STALE)[0], Refused)
    put, stale = story.put("n3", b"k", b"w"), story.get("n3", b"k", Consistency.STALE)
    story.run_ms(3000)
    assert isinstance(put[0], Refused)
    assert isinstance(stale[0], ReadAnswer)
    assert stale[0].record is not None
    assert stale[0].record.value == b"v"
    story.machines["n1"].put_back()
    story.run_ms(3000)
    read = story.get("n1", b"k")
    story.run_ms(100)
    assert isinstance(read[0], ReadAnswer)
    assert read[0].record is not None
    assert read[0].record.value == b"v"


@pytest.mark.parametrize("absent", ["n1", "n2", "n3"])
def test_rule_30_a_first_start_waits_for_every_founding_member(absent: str) -> None:
    story = Story()
    story.run_ms(0)
    story.machines[absent].crash()
    story.run_ms(5000)
    assert story.cluster.leader() is None
    story.machines[absent].start()
    story.run_ms(1000)
    put = story.put(absent, b"k", b"v")
    story.run_ms(100)
    assert isinstance(put[0], PutResult)
