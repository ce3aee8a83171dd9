"""A sequence of values: phase 1 once for all of them, and the same order for everybody."""

from collections.abc import Sequence

from paxos.lecture.actors import AcceptorActor, LearnerActor, ProposerActor, ReplicaActor
from paxos.lecture.scenes.scene import Scene, table
from paxos.lecture.stage import Stage
from paxos.messages import Accept, Accepted, Prepare, Reject
from paxos.options import Options

ACCEPTORS = ("a1", "a2", "a3")
MANY = (1, 5, 100)
"""So many values are counted."""


def multi() -> Scene:
    """Multi-Paxos: "Paxos Made Simple", section 3."""
    stage = Stage("multi: phase 1 once, then Accept after Accept")
    first, second = stage.cast(
        ProposerActor("p1", ACCEPTORS, ["l1"], ["p2"]), ProposerActor("p2", ACCEPTORS, ["l1"], ["p1"])
    )
    stage.cast(*map(AcceptorActor, ACCEPTORS))
    (learner,) = stage.cast(LearnerActor("l1", ACCEPTORS))
    stage.remark("Phase 1 speaks for all slots. The first is a no-op: behind it p1 knows all that came before.")
    stage.act(first, first.lead(1, ["a", "b"]))
    stage.run()
    stage.remark("p1 goes on with the next value, and is interrupted by a higher number.")
    stage.act(first, first.more(["c"], stage.now))
    stage.deliver(Accept, to="a1")
    stage.act(second, second.lead(2, ["d"]))
    stage.deliver(Prepare)
    stage.deliver(Accept)
    stage.deliver(Accepted)
    stage.deliver(Reject)
    stage.remark('p2 begins at the first slot not known to be chosen. a1 tells it of "c", so nothing is lost.')
    stage.run()
    return Scene([stage], f"The learner has {' '.join(learner.learned)}.\n\n{_counted()}")


def _counted() -> str:
    """Not only said: played, with as many values, and counted."""
    rows = [("values", "messages by basic Paxos", "by Multi-Paxos", "for each value")]
    for many in MANY:
        values = [f"v{number}" for number in range(1, many + 1)]
        basic = sum(_count([value], single=True) for value in values)
        multi = _count(values, single=False)
        rows.append((f"{many:,}", f"{basic:,}", f"{multi:,}", f"{basic / many:.1f} and {multi / many:.1f}"))
    return table(*rows)


def _count(values: Sequence[str], *, single: bool) -> int:
    """Messages between a proposer and three acceptors, from the first to the last."""
    stage = Stage("")
    (proposer,) = stage.cast(ProposerActor("p1", ACCEPTORS))
    stage.cast(*map(AcceptorActor, ACCEPTORS))
    stage.act(proposer, proposer.prepare(1, values[0]) if single else proposer.lead(1, values))
    stage.run()
    return sum(stage.counts.values())


def broadcast() -> Scene:
    """Totally ordered broadcast, by whole replicas: whoever sends, the leader's slots are the order."""
    stage = Stage("broadcast: three senders, one order")
    names = ("n1", "n2", "n3")
    n1, n2, n3 = stage.cast(*(ReplicaActor(name, names, Options(window=1), stage.now) for name in names))
    stage.offstage(lambda: elect(stage, n1))
    stage.note(n1, "leads, since before this scene")
    stage.act(n2, n2.propose(["m2"], stage.now))
    stage.act(n3, n3.propose(["m3"], stage.now))
    stage.act(n1, n1.propose(["m1"], stage.now))
    stage.remark("n2 and n3 hand their messages to the leader. That of n3 is faster.")
    stage.deliver(sender="n3")
    stage.deliver(Accept)
    stage.run()
    rows = [(actor.name, " ".join(actor.applied)) for actor in (n1, n2, n3)]
    return Scene([stage], table(("replica", "delivers"), *rows))


def elect(stage: Stage, actor: ReplicaActor) -> None:
    """`actor` runs for leader and wins."""
    stage.now = actor.replica.next_deadline()
    stage.act(actor, actor.tick(stage.now))
    stage.run()
