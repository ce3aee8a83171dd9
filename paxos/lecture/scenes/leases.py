"""A leader's lease: reads without messages, what a pause does to it, and a clean hand-over."""

from paxos.lecture.actors import ReplicaActor
from paxos.lecture.scenes.log import elect
from paxos.lecture.scenes.scene import Scene
from paxos.lecture.stage import Stage
from paxos.messages import Accept, Accepted, Canvass, CanvassReply, Chosen, Fetch, Learn, Message, Prepare, Promise
from paxos.options import Options

NAMES = ("n1", "n2", "n3")
OPTIONS = Options()


def lease() -> Scene:
    """Three replicas of the product, with its times."""
    hidden: frozenset[type[Message]] = frozenset(
        {Accept, Accepted, Chosen, Fetch, Learn, Canvass, CanvassReply, Prepare, Promise}
    )
    stage = Stage("lease: reads without messages (elections and votes are not drawn)", hidden=hidden)
    n1, n2, n3 = stage.cast(*(ReplicaActor(name, NAMES, OPTIONS, stage.now) for name in NAMES))
    stage.offstage(lambda: elect(stage, n1))
    stage.note(n1, "leads, since before this scene")
    _beat(stage, n1)
    _tell(stage, n1)
    stage.remark("A read at the leader costs no message: nobody else can have been elected.")
    stage.act(n1, n1.read(1, stage.now))
    _pause(stage, n1, n2)
    stage.remark("n1 goes on. Its clock went on too, so it knows that its lease is over: it asks before it answers.")
    stage.back(n1)
    _tell(stage, n1)
    stage.act(n1, n1.read(2, stage.now))
    stage.run()
    _hand_over(stage, n2, n3)
    return Scene(
        [stage],
        f"A grant is {OPTIONS.lease_ms} ms: the leader counts 1 % less, from when it asked, an acceptor 1 % more,\n"
        "from when it heard. So the leader's lease is over before anybody else can be elected.",
    )


def _beat(stage: Stage, leader: ReplicaActor) -> None:
    """The next round of heartbeats, with its answers."""
    stage.wait(OPTIONS.heartbeat_ms)
    stage.act(leader, leader.tick(stage.now))
    stage.run()


def _tell(stage: Stage, actor: ReplicaActor) -> None:
    until = actor.replica.lease_until or 0
    left_ms = (until - stage.now) / 1_000_000
    stage.note(actor, f"has a lease for {left_ms:.0f} ms more" if left_ms > 0 else "has no lease")


def _pause(stage: Stage, leader: ReplicaActor, successor: ReplicaActor) -> None:
    stage.crash(leader, "is stopped, for longer than its lease")
    stage.act(successor, successor.tick(stage.now))
    stage.remark(f"{successor.name} has granted a lease: before that is over it neither runs nor promises to others.")
    stage.now = successor.replica.next_deadline()
    stage.act(successor, successor.tick(stage.now))
    stage.run()
    stage.note(successor, f"leads under {successor.replica.leading}")


def _hand_over(stage: Stage, leader: ReplicaActor, successor: ReplicaActor) -> None:
    stage.remark(f"{leader.name} is shut down cleanly: it gives its grants back, and names who is to run at once.")
    stage.wait(OPTIONS.lease_ms)
    _beat(stage, leader)
    stage.act(leader, leader.hand_over(stage.now))
    stage.run()
    stage.act(successor, successor.tick(stage.now))
    stage.run()
    stage.note(successor, f"leads under {successor.replica.leading}, without a pause")
