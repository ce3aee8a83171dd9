"""A sequence of values: one phase 1 for all of them, and the same order on every replica."""

from collections.abc import Sequence

from paxos.lecture.actors import AcceptorActor, LearnerActor, ProposerActor, ReplicaActor
from paxos.lecture.scenes.scene import Scene, table
from paxos.lecture.stage import Stage
from paxos.messages import Accept, Accepted, Prepare, Reject
from paxos.options import Options

ACCEPTORS = ("a1", "a2", "a3")
MANY = (1, 5, 100)
"""Numbers of values for which the messages are counted."""


def multi() -> Scene:
    """Play Multi-Paxos (Lamport, "Paxos Made Simple", section 3)."""
    stage = Stage("multi: phase 1 once, then only phase 2")
    first, second = stage.cast(
        ProposerActor("p1", ACCEPTORS, ["l1"], ["p2"]), ProposerActor("p2", ACCEPTORS, ["l1"], ["p1"])
    )
    stage.cast(*map(AcceptorActor, ACCEPTORS))
    (learner,) = stage.cast(LearnerActor("l1", ACCEPTORS))
    stage.remark("Phase 1 covers all slots. Once its no-op is chosen, p1 knows all earlier values.")
    stage.act(first, first.lead(1, ["a", "b"]))
    stage.run()
    stage.remark("p1 proposes the next value, and is preempted by a higher ballot.")
    stage.act(first, first.more(["c"], stage.now))
    stage.deliver(Accept, to="a1")
    stage.act(second, second.lead(2, ["d"]))
    stage.deliver(Prepare)
    stage.deliver(Accept)
    stage.deliver(Accepted)
    stage.deliver(Reject)
    stage.remark('p2 begins at the first slot that it does not know to be chosen. a1 reports "c", so "c" is kept.')
    stage.run()
    return Scene([stage], f"The learner has learned {', '.join(learner.learned)}.\n\n{_message_table()}")


def _message_table() -> str:
    """Play the same numbers of values by basic Paxos and by Multi-Paxos, and tabulate the messages."""
    rows = [("values", "messages of basic Paxos", "of Multi-Paxos", "per value")]
    for many in MANY:
        values = [f"v{number}" for number in range(1, many + 1)]
        basic = sum(_count([value], single=True) for value in values)
        multi = _count(values, single=False)
        rows.append((f"{many:,}", f"{basic:,}", f"{multi:,}", f"{basic / many:.1f} and {multi / many:.1f}"))
    return table(*rows)


def _count(values: Sequence[str], *, single: bool) -> int:
    """Return the number of messages between a proposer and three acceptors."""
    stage = Stage("")
    (proposer,) = stage.cast(ProposerActor("p1", ACCEPTORS))
    stage.cast(*map(AcceptorActor, ACCEPTORS))
    stage.act(proposer, proposer.prepare(1, values[0]) if single else proposer.lead(1, values))
    stage.run()
    return sum(stage.counts.values())


def broadcast() -> Scene:
    """Play totally ordered broadcast by whole replicas: every replica delivers the messages in the order of the
    leader's slots."""
    stage = Stage("broadcast: three senders, one order")
    names = ("n1", "n2", "n3")
    n1, n2, n3 = stage.cast(*(ReplicaActor(name, names, Options(window=1), stage.now) for name in names))
    stage.offstage(lambda: elect(stage, n1))
    stage.note(n1, "was elected before this scene")
    stage.act(n2, n2.propose(["m2"], stage.now))
    stage.act(n3, n3.propose(["m3"], stage.now))
    stage.act(n1, n1.propose(["m1"], stage.now))
    stage.remark("n2 and n3 forward their messages to the leader. The message of n3 arrives first.")
    stage.deliver(sender="n3")
    stage.deliver(Accept)
    stage.run()
    rows = [(actor.name, " ".join(actor.applied)) for actor in (n1, n2, n3)]
    return Scene([stage], table(("replica", "delivers"), *rows))


def elect(stage: Stage, actor: ReplicaActor) -> None:
    """Make `actor` the leader."""
    stage.now = actor.replica.next_deadline()
    stage.act(actor, actor.tick(stage.now))
    stage.run()
