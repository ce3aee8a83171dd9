"""Leader leases: reads without messages, a disconnected follower, a paused leader, and a clean hand-over."""

from paxos.lecture.actors import ReplicaActor
from paxos.lecture.scenes.log import elect
from paxos.lecture.scenes.scene import Scene
from paxos.lecture.stage import Stage
from paxos.options import Options
from paxos.types import MS

NAMES = ("n1", "n2", "n3")
OPTIONS = Options()


def lease() -> Scene:
    """Play three whole replicas with the default options."""
    stage = Stage("lease: reads without messages", timed=True)
    n1, n2, n3 = stage.cast(*(ReplicaActor(name, NAMES, OPTIONS, stage.now) for name in NAMES))
    stage.offstage(lambda: elect(stage, n1))
    stage.note(n1, "was elected before this scene")
    _heartbeat_round(stage, n1)
    _show_lease(stage, n1)
    stage.remark("A read at the leader needs no message: under its lease no other leader can be elected.")
    stage.act(n1, n1.read(1, stage.now))
    _disconnect(stage, n1, n3)
    _pause(stage, n1, n2)
    stage.remark("n1 resumes and gets a read. By its own clock its lease has ended, so it asks a majority first.")
    stage.back(n1, "resumes")
    _show_lease(stage, n1)
    stage.act(n1, n1.read(2, stage.now))
    stage.run()
    _hand_over(stage, n2, n3)
    return Scene(
        [stage],
        f"A lease lasts {OPTIONS.lease_ms} ms. The leader counts 1 % less, from the time it sent the heartbeat. "
        "An acceptor\n"
        "counts 1 % more, from the time it received the heartbeat. So the leader's lease ends before\n"
        "another leader can be elected.",
    )


def _heartbeat_round(stage: Stage, leader: ReplicaActor, disconnected: ReplicaActor | None = None) -> None:
    """Play the next round of heartbeats with its answers. No message reaches `disconnected`."""
    stage.wait(OPTIONS.heartbeat_ms)
    stage.act(leader, leader.tick(stage.now))
    if disconnected is not None:
        stage.lose(to=disconnected.name)
    stage.run()


def _show_lease(stage: Stage, actor: ReplicaActor) -> None:
    left_ms = ((actor.replica.lease_until or 0) - stage.now) / MS
    stage.note(actor, f"has a lease for another {left_ms:.0f} ms" if left_ms > 0 else "has no lease")


def _disconnect(stage: Stage, leader: ReplicaActor, disconnected: ReplicaActor) -> None:
    def while_disconnected() -> None:
        while stage.now < disconnected.replica.next_deadline():
            _heartbeat_round(stage, leader, disconnected)

    stage.offstage(while_disconnected)
    stage.remark(
        f"Meanwhile {disconnected.name} was disconnected. {leader.name} has renewed its lease with the others."
    )
    stage.act(disconnected, disconnected.tick(stage.now))
    stage.run()
    stage.remark(f"No majority would promise, so {disconnected.name} sends no Prepare, and {leader.name} still leads.")
    _heartbeat_round(stage, leader)


def _pause(stage: Stage, leader: ReplicaActor, successor: ReplicaActor) -> None:
    stage.crash(leader, "is paused for longer than its lease")
    stage.act(successor, successor.tick(stage.now))
    stage.remark(
        f"{successor.name} has granted a lease. Until that ends, it starts no election and promises no other node."
    )
    stage.now = successor.replica.next_deadline()
    stage.act(successor, successor.tick(stage.now))
    stage.run()
    stage.note(successor, f"leads under ballot {successor.replica.leader_ballot}")


def _hand_over(stage: Stage, leader: ReplicaActor, successor: ReplicaActor) -> None:
    def for_a_while() -> None:
        for _ in range(OPTIONS.lease_ms // OPTIONS.heartbeat_ms):
            _heartbeat_round(stage, leader)

    _heartbeat_round(stage, leader)
    stage.offstage(for_a_while)
    stage.remark(f"{leader.name} shuts down cleanly: it releases its lease and names a successor.")
    stage.act(leader, leader.hand_over(stage.now))
    stage.run()
    stage.act(successor, successor.tick(stage.now))
    stage.run()
    stage.note(successor, f"leads under ballot {successor.replica.leader_ballot}, without waiting for a lease to end")
