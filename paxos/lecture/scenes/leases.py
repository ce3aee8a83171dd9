"""A leader's lease: reads without messages, whom it keeps off, what a pause does to it, and a clean hand-over."""

from paxos.lecture.actors import ReplicaActor
from paxos.lecture.scenes.log import elect
from paxos.lecture.scenes.scene import Scene
from paxos.lecture.stage import Stage
from paxos.options import Options
from paxos.types import MS

NAMES = ("n1", "n2", "n3")
OPTIONS = Options()


def lease() -> Scene:
    """Three replicas of the product, with its times."""
    stage = Stage("lease: reads without messages", timed=True)
    n1, n2, n3 = stage.cast(*(ReplicaActor(name, NAMES, OPTIONS, stage.now) for name in NAMES))
    stage.offstage(lambda: elect(stage, n1))
    stage.note(n1, "leads, since before this scene")
    _beat(stage, n1)
    _tell(stage, n1)
    stage.remark("A read at the leader costs no message: nobody else can have been elected.")
    stage.act(n1, n1.read(1, stage.now))
    _cut_off(stage, n1, n3)
    _pause(stage, n1, n2)
    stage.remark("n1 goes on, and is asked to read. Its lease is over by its own clock, so it asks first.")
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


def _beat(stage: Stage, leader: ReplicaActor, deaf: ReplicaActor | None = None) -> None:
    """The next round of heartbeats, with its answers."""
    stage.wait(OPTIONS.heartbeat_ms)
    stage.act(leader, leader.tick(stage.now))
    if deaf is not None:
        stage.lose(to=deaf.name)
    stage.run()


def _tell(stage: Stage, actor: ReplicaActor) -> None:
    left_ms = ((actor.replica.lease_until or 0) - stage.now) / MS
    stage.note(actor, f"has a lease for {left_ms:.0f} ms more" if left_ms > 0 else "has no lease")


def _cut_off(stage: Stage, leader: ReplicaActor, deaf: ReplicaActor) -> None:
    def while_deaf() -> None:
        while stage.now < deaf.replica.next_deadline():
            _beat(stage, leader, deaf)

    stage.offstage(while_deaf)
    stage.remark(f"{deaf.name} was cut off meanwhile, and {leader.name} renewed its lease with the others.")
    stage.act(deaf, deaf.tick(stage.now))
    stage.run()
    stage.remark(f"No majority would promise: {deaf.name} prepares nothing, and {leader.name} leads on undisturbed.")
    _beat(stage, leader)


def _pause(stage: Stage, leader: ReplicaActor, successor: ReplicaActor) -> None:
    stage.crash(leader, "is stopped, for longer than its lease")
    stage.act(successor, successor.tick(stage.now))
    stage.remark(f"{successor.name} has granted a lease: before that is over it neither runs nor promises to others.")
    stage.now = successor.replica.next_deadline()
    stage.act(successor, successor.tick(stage.now))
    stage.run()
    stage.note(successor, f"leads under {successor.replica.leader_ballot}")


def _hand_over(stage: Stage, leader: ReplicaActor, successor: ReplicaActor) -> None:
    def for_a_while() -> None:
        for _ in range(OPTIONS.lease_ms // OPTIONS.heartbeat_ms):
            _beat(stage, leader)

    _beat(stage, leader)
    stage.offstage(for_a_while)
    stage.remark(f"{leader.name} is shut down cleanly: it gives its grants back, and names who is to run at once.")
    stage.act(leader, leader.hand_over(stage.now))
    stage.run()
    stage.act(successor, successor.tick(stage.now))
    stage.run()
    stage.note(successor, f"leads under {successor.replica.leader_ballot}, without a pause")
