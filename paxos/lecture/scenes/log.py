"""A sequence of values: phase 1 once for all of them, and the same order for everybody."""

from paxos.lecture.actors import AcceptorActor, LearnerActor, ProposerActor, ReplicaActor
from paxos.lecture.scenes.scene import Scene, table
from paxos.lecture.stage import Stage
from paxos.messages import Accept, Accepted, Heartbeat, HeartbeatAck, Message
from paxos.options import Options

ACCEPTORS = ("a1", "a2", "a3")
VALUES = ("a", "b", "c", "d", "e")


def multi() -> Scene:
    """Multi-Paxos: "Paxos Made Simple", section 3."""
    stage = Stage("multi: phase 1 once, then Accept after Accept")
    first, second = stage.cast(ProposerActor("p1", ACCEPTORS, ["l1", "p2"]), ProposerActor("p2", ACCEPTORS, ["l1"]))
    stage.cast(*map(AcceptorActor, ACCEPTORS))
    (learner,) = stage.cast(LearnerActor("l1", ACCEPTORS))
    stage.act(first, first.lead(1, ["a", "b"]))
    stage.remark("Phase 1 speaks for all slots. The first is a no-op: behind it p1 knows all that came before.")
    stage.run()
    stage.remark("p1 goes on with the next value, but nobody counts its votes: it dies.")
    stage.act(first, first.more(["c"], stage.now))
    stage.deliver(Accept, to="a1")
    stage.lose(Accept)
    stage.lose(Accepted)
    stage.crash(first)
    stage.act(second, second.lead(2, ["d"]))
    stage.remark('Phase 1 again, from the first slot that p2 does not know to be chosen; "c" is not lost.')
    stage.run()
    summary = table(
        ("messages for each value", "phase 1", "phase 2", "sum"),
        ("basic Paxos, 3 acceptors", "6", "6", "12"),
        ("Multi-Paxos, many values", "6 / many", "6", "6"),
    )
    return Scene([stage], f"The learner has {' '.join(learner.learned)}.\n\n{summary}\n\n{_counted()}")


def _counted() -> str:
    """Not only said: played, with as many values, and counted."""
    basic = sum(_count_basic(number, value) for number, value in enumerate(VALUES, 1))
    stage = Stage("")
    (proposer,) = stage.cast(ProposerActor("p1", ACCEPTORS))
    stage.cast(*map(AcceptorActor, ACCEPTORS))
    stage.act(proposer, proposer.lead(1, VALUES))
    stage.run()
    count = sum(stage.counts.values())
    return f"Counted for {len(VALUES)} values: {basic} messages by basic Paxos, {count} by Multi-Paxos with its no-op."


def _count_basic(number: int, value: str) -> int:
    stage = Stage("")
    (proposer,) = stage.cast(ProposerActor("p1", ACCEPTORS))
    stage.cast(*map(AcceptorActor, ACCEPTORS))
    stage.act(proposer, proposer.prepare(number, value))
    stage.run()
    return sum(stage.counts.values())


def broadcast() -> Scene:
    """Totally ordered broadcast, by whole replicas: whoever sends, the leader's slots are the order."""
    hidden: frozenset[type[Message]] = frozenset({Heartbeat, HeartbeatAck})
    stage = Stage("broadcast: three senders, one order (heartbeats are not drawn)", hidden=hidden)
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
