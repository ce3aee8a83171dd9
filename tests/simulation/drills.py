"""Short runs that are about one rare thing each, so that every seed meets one: a state that diverges, a disk that loses
votes, a founding, members that change in peace, a witness, a replacement amid elections."""

from collections.abc import Callable
from functools import partial
from random import Random

from msgspec.structs import replace

from kvstore.api.commands import Put, Reconfigure
from kvstore.api.errors import Refused
from kvstore.api.membership import Member, MemberRole, Membership, newcomer
from kvstore.api.queries import Consistency
from kvstore.api.results import ReadAnswer
from kvstore.replica.node import Node
from paxos.errors import ForgottenVotesError
from paxos.types import NodeId
from storage.base import DamagedError, revision_of
from tests.simulation.checkers import Safety, same_state
from tests.simulation.cluster import SimulatedCluster
from tests.simulation.foundings import found_again, found_anyhow, found_with_other_states
from tests.simulation.machine import SimulatedMachine
from tests.simulation.network import links
from tests.simulation.quorums import Quorums
from tests.simulation.scenario import LEADER, Faults, Scenario, Strike, StrikeKind, moment
from tests.simulation.trace import EventTrace

PATIENCE_MS = 15_000
"""Longest time for anything that a drill waits for."""
STEP_MS = 20


class Drill:
    """A cluster that is told what to do, and writes all the while."""

    def __init__(self, scenario: Scenario, trace: EventTrace | None, *, checked: bool = True) -> None:
        """`checked` is False where a replica is made to break the rules."""
        self.rng = scenario.rng("drill")
        self.cluster = SimulatedCluster(scenario, trace)
        self.machines = self.cluster.machines
        self._puts = 0
        self.writes = True
        if checked:
            self.safety = Safety(self.cluster)
            self.quorums = Quorums(self.cluster, self.safety)
        self._write()
        self.wait(lambda: self.cluster.leader() is not None, "nobody leads")

    def run_ms(self, duration_ms: float) -> None:
        """Let time pass."""
        self.cluster.world.run(self.cluster.world.now + moment(duration_ms))

    def wait(self, condition: Callable[[], bool], otherwise: str) -> None:
        """Let time pass until `condition` is true."""
        due = self.cluster.world.now + moment(PATIENCE_MS)
        while not condition():
            assert self.cluster.world.now < due, otherwise
            self.run_ms(STEP_MS)

    def put(self, machine: SimulatedMachine) -> None:
        """Write something at `machine`."""
        self._puts += 1
        put = Put(b"k%d" % (self._puts % 5), b"%d" % self._puts)
        machine.happens(lambda node: node.write(put, lambda _: None))

    def read_often(self) -> None:
        """Ask the leader for a quorum read several times in each heartbeat interval, from now on."""
        leader = self.cluster.leader()
        if leader is not None:
            leader.happens(lambda node: node.read(b"k0", Consistency.QUORUM, lambda _: None))
        self.cluster.world.after_ms(self.cluster.options.heartbeat_ms / 3, self.read_often)

    def has_returned(self, machine: SimulatedMachine) -> bool:
        """Return True once `machine` votes with the data on its disk."""
        member = self.safety.reference.membership.get(machine.name)
        return member is not None and member.role is MemberRole.VOTER and member.incarnation == machine.incarnation

    def leader(self) -> SimulatedMachine:
        """Return the one that leads; wait until there is one."""
        self.wait(lambda: self.cluster.leader() is not None, "nobody leads")
        leader = self.cluster.leader()
        assert leader is not None
        return leader

    def follower(self) -> SimulatedMachine:
        """Return a random voter with records that does not lead."""
        leader = self.leader()
        assert leader.node is not None
        voters = [member.name for member in leader.node.membership.members if member.role is MemberRole.VOTER]
        return self.machines[self.rng.choice([name for name in voters if name != leader.name])]

    def change(self, change: Callable[[Membership], Membership]) -> None:
        """Change the members, and wait until nothing more is under way."""
        version = self.safety.reference.membership.version
        self.wait(lambda: self._changed(version, change), "the members are not changed")
        self.wait(self.settled, "a change of the members does not end")

    def add(self, name: NodeId, role: MemberRole, *, by_followers: bool) -> None:
        """Add a member. `by_followers`: it reaches followers only until it knows the members."""
        joining, leader = self.machines[name], self.leader()
        cut = links(StrikeKind.CUT, [leader.name], [leader.name, name]) if by_followers else []
        self.cluster.network.cut(cut)
        version = self.safety.reference.membership.version
        change = partial(_with, newcomer(name, "", role))
        self.wait(lambda: self._changed(version, change), "the members are not changed")
        self.writes = False  # or the state moves on faster than a reader of small pages that asks the leader in vain
        self.wait(
            lambda: joining.node is not None and bool(joining.node.membership.members),
            f"{name} does not learn from followers who the members are",
        )
        self.cluster.network.mend(cut)
        self.writes = True
        self._write()
        self.wait(self.settled, "a change of the members does not end")

    def remove(self, name: NodeId) -> None:
        """Remove a member. A leader that stays leads on, unless its phase 1 does not cover the remaining members."""
        before = self.leader()
        assert before.node is not None
        ballot = before.node.replica.leader_ballot
        self.change(lambda now: now.without(name))
        self.run_ms(2 * self.cluster.options.stall_ms)
        after = self.leader()
        assert after.node is not None
        assert ballot is not None
        covered = self.quorums.covers(ballot, self.safety.reference.membership)
        if before.name != name and covered and not self.cluster.faults.loss:
            assert after.node.replica.leader_ballot == ballot, f"{before.name} stops to lead, because {name} left"

    def settled(self) -> bool:
        """Return True once the last change is in force, and nobody joins or has other data than is enrolled."""
        reference = self.safety.reference
        return reference.in_force and all(
            not member.joining and member.incarnation == self.machines[member.name].incarnation
            for member in reference.membership.members
        )

    def keep_away(self, machine: SimulatedMachine) -> None:
        """Let the leader hear of the new disk of `machine` and go on; it reaches that disk with a heartbeat first."""
        cut = links(StrikeKind.CUT, [machine.name], list(self.machines))
        self.cluster.network.cut(cut)
        self.wait(lambda: self._is_enrolled(machine), f"the new disk of {machine.name} is not enrolled")
        self.writes = False
        self.run_ms(200)
        self.cluster.network.mend(cut)
        self.run_ms(200)
        self.writes = True
        self._write()

    def _is_enrolled(self, machine: SimulatedMachine) -> bool:
        member = self.safety.reference.membership.get(machine.name)
        return self.safety.reference.in_force and member is not None and member.incarnation == machine.incarnation

    def cut_new_voters(self, known: tuple[NodeId, ...]) -> None:
        """Whenever a member gets a vote, cut it off for some time, before its vote counts, with a follower where a
        majority stays."""
        voters = self.safety.reference.membership.voters
        for name in set(voters) - set(known):
            leader = self.cluster.leader()
            followers = [other for other in known if leader is None or other != leader.name] if len(known) == 3 else []
            victims = [name, *self.rng.sample(followers, len(followers) // 2)]
            cut = links(StrikeKind.CUT, victims, list(self.machines))
            self.cluster.network.cut(cut)
            self.cluster.world.after_ms(self.rng.uniform(50, 400), partial(self.cluster.network.mend, cut))
        self.cluster.world.after_ms(1, partial(self.cut_new_voters, voters))

    def check_peace(self) -> None:
        """Without faults, the leader has a lease, and everybody has the same state."""
        self.wait(self.leads_by_lease, "no leader has a lease, although nothing is wrong")
        self.writes = False
        self.wait(self._level, "a member lags, although nothing is wrong")
        same_state(self.cluster, self.safety.reference)
        self.writes = True
        self._write()

    def leads_by_lease(self) -> bool:
        """Return True while the leader holds a lease."""
        leader = self.cluster.leader()
        return leader is not None and leader.node is not None and leader.node.replica.lease_holds(leader.clock())

    def _level(self) -> bool:
        slot = self.safety.reference.applied
        return all(node is not None and node.applied == slot for node in self.cluster.members())

    def _changed(self, version: int, change: Callable[[Membership], Membership]) -> bool:
        leader = self.cluster.leader()
        if self.safety.reference.membership.version > version:
            return True
        if leader is not None and leader.node is not None and leader.node.membership.version == version:
            command = Reconfigure(change(leader.node.membership))
            self.put(leader)  # in the same entry
            leader.happens(lambda node: self.cluster.write(leader, node, command, lambda _: None))
            self.put(leader)
            self.run_ms(10 * STEP_MS)
        return False

    def _write(self) -> None:
        if self.writes:
            self.put(self.rng.choice(list(self.machines.values())))
            self.cluster.world.between_ms(self.rng, (1, 20), self._write)


def calm(seed: int, rng: Random, **fields: object) -> Scenario:
    """Return a scenario with a network that loses something at most, and with a log that is short at times."""
    limits = rng.choice(({}, {"log_slots": 3, "history_revisions": 3, "history_age_ms": 0}))
    options = {
        "lease_ms": 300,
        "heartbeat_ms": 60,
        "election_jitter_ms": 50,
        "stall_ms": 600,
        "window": rng.choice((4, 64)),
    }
    faults = Faults(loss=rng.choice((0.0, 0.05)), delay_ms=rng.choice(((0.2, 1.0), (0.2, 20.0))))
    if rng.random() < 0.5:
        options |= {"page_bytes": 60}
    steps = rng.choice((0, 1))
    scenario = Scenario(seed=seed, limits=limits, options=options, faults=faults, applied_records=steps)
    return replace(scenario, **fields)


def diverge(seed: int, trace: EventTrace | None = None) -> None:
    """Rule 24: the state of one replica, or of two alike, is changed silently. Each of them ends, and nobody else."""
    rng = Random(f"diverge/{seed}")
    nodes, victims = rng.choice(((3, 1), (5, 1), (5, 2)))
    drill = Drill(calm(seed, rng, nodes=nodes, limits={}), trace, checked=False)
    drill.run_ms(rng.uniform(100, 500))
    ended: set[NodeId] = set()
    for machine in drill.machines.values():
        machine.happens = partial(_ending, machine, machine.happens, ended, DamagedError)  # type: ignore[method-assign]
    leader = drill.leader()
    others = [machine for machine in drill.machines.values() if machine is not leader]
    chosen = [leader, *others][:victims] if rng.random() < 0.4 else rng.sample(others, victims)
    digest, flip = rng.random() < 0.5, 1 << rng.randrange(60)
    for victim in chosen:
        assert victim.node is not None
        if digest:
            victim.node.machine.digest ^= flip
        else:
            applier = victim.node._checkpointer.applier
            applier.chain = (int.from_bytes(applier.chain, "big") ^ flip).to_bytes(len(applier.chain), "big")
    names = {victim.name for victim in chosen}
    drill.wait(lambda: ended >= names, f"the states of {names} diverged, and only {ended} ended")
    assert ended == names, f"the states of {names} diverged, and {ended} ended"


def _ending(
    machine: SimulatedMachine,
    happens: Callable[[Callable[[Node], object]], None],
    ended: set[NodeId],
    error: type[Exception],
    event: Callable[[Node], object],
) -> None:
    """End the process of `machine` when it raises `error`, and note that."""
    try:
        happens(event)
    except error:
        ended.add(machine.name)
        machine.crash()


def forget(seed: int, trace: EventTrace | None = None) -> None:
    """Rule 5: a disk loses the last votes of its acceptor, none of which any value rests on. The leader, which has
    counted them, tells it."""
    rng = Random(f"forget/{seed}")
    drill = Drill(replace(calm(seed, rng, nodes=5, limits={}), faults=Faults()), trace, checked=False)
    drill.run_ms(rng.uniform(100, 500))
    drill.writes = False
    drill.run_ms(200)
    leader, victim = drill.leader(), drill.follower()
    others = [name for name in drill.machines if name not in {leader.name, victim.name}]
    drill.cluster.network.cut(links(StrikeKind.CUT, others, list(drill.machines)))
    before = victim.durable.reopen()
    drill.put(leader)
    drill.run_ms(rng.uniform(100, 200))
    assert before.hard_state.last < victim.durable.hard_state.last, "the victim has not voted"
    victim.crash()
    victim._storage = before
    ended: set[NodeId] = set()
    victim.happens = partial(_ending, victim, victim.happens, ended, ForgottenVotesError)  # type: ignore[method-assign]
    victim.start()
    drill.run_ms(200)
    assert ended, f"{victim.name} has lost votes that the leader counted, and nobody told it"


def change_in_peace(seed: int, trace: EventTrace | None = None) -> None:
    """Rule 27: members come and go, one after the other, and each time the cluster is whole again."""
    rng = Random(f"peace/{seed}")
    scenario = calm(seed, rng, nodes=rng.choice((2, 2, 3)), spares=rng.choice((1, 2)))
    drill = Drill(scenario, trace)
    for _ in range(3):
        drill.run_ms(rng.uniform(10, 200))
        membership = drill.safety.reference.membership
        absent = [name for name in drill.machines if membership.get(name) is None]
        if len(membership.voters) > 1 and (not absent or rng.random() < 0.5):
            drill.remove(rng.choice(membership.voters))
        elif absent:
            role = rng.choice((MemberRole.VOTER, MemberRole.LEARNER))
            drill.add(rng.choice(absent), role, by_followers=len(membership.voters) > 1)
        drill.check_peace()


def cut_new_voters(seed: int, trace: EventTrace | None = None) -> None:
    """Rules 18 and 27: a new voter is cut off as soon as it has its vote, and a lease ends before the vote counts."""
    rng = Random(f"new voters/{seed}")
    options = {"lease_ms": 60, "heartbeat_ms": 12, "election_jitter_ms": 10, "stall_ms": 1000, "window": 4}
    scenario = calm(seed, rng, nodes=rng.choice((1, 3)), spares=2, options=options)
    drill = Drill(replace(scenario, faults=replace(scenario.faults, fsync_ms=(10.0, 20.0))), trace)
    drill.cut_new_voters(scenario.names)
    for name in [name for name in drill.machines if name not in scenario.names]:
        drill.add(name, MemberRole.VOTER, by_followers=False)
        drill.check_peace()


def with_witness(seed: int, trace: EventTrace | None = None) -> None:
    """Rule 29: a witness takes the place of a voter. It votes and never leads, whoever is lost. A member that comes
    back finds the state, though it reaches the witness alone at first."""
    rng = Random(f"witness/{seed}")
    drill = Drill(calm(seed, rng, nodes=3, spares=1), trace)
    drill.change(lambda now: now.changed(newcomer("n4", "", MemberRole.WITNESS)))
    leaving = drill.follower().name
    drill.change(lambda now: now.without(leaving))
    drill.check_peace()
    for _ in range(2):
        leader = drill.leader()
        leader.happens(Node.hand_over)
        drill.run_ms(rng.uniform(0, 50))
        leader.crash()
        drill.run_ms(rng.uniform(500, 1500))
        leader.start()
        drill.check_peace()
    drill.machines[leaving].wipe(damaged=True)
    others = [name for name in drill.machines if name not in {"n4", leaving}]
    cut = [link for other in others for link in links(StrikeKind.CUT, [leaving], [leaving, other])]
    drill.cluster.network.cut(cut)
    drill.cluster.world.after_ms(rng.uniform(0, 1500), partial(drill.cluster.network.mend, cut))
    drill.change(lambda now: now.changed(newcomer(leaving, "", MemberRole.VOTER)))
    drill.check_peace()


def replace_amid_elections(seed: int, trace: EventTrace | None = None) -> None:
    """Rule 28: the disk of a voter is replaced, while leaders change, or one leads on."""
    rng = Random(f"replacement/{seed}")
    drill = Drill(calm(seed, rng, nodes=rng.choice((3, 5))), trace)
    for _ in range(2):
        drill.run_ms(rng.uniform(10, 300))
        victim = drill.follower()
        victim.wipe(damaged=True)
        if rng.random() < 0.5:
            drill.keep_away(victim)
        for _ in range(rng.choice((0, 0, 1, 3))):
            drill.run_ms(rng.uniform(1, 200))
            leader = drill.leader()
            if leader is victim:
                continue
            leader.crash()
            drill.run_ms(rng.uniform(1, 700))
            leader.start()
        member = partial(_wanted, victim)
        if rng.random() < 0.5:
            drill.change(member)
        drill.wait(drill.settled, f"{victim.name} is not back with its new disk")
        drill.check_peace()


def replace_amid_reads(seed: int, trace: EventTrace | None = None) -> None:
    """Rule 19: quorum reads come so often that each heartbeat of the leader confirms one. A voter whose disk is lost
    comes back all the same."""
    rng = Random(f"reads/{seed}")
    drill = Drill(calm(seed, rng, nodes=rng.choice((3, 5))), trace)
    drill.read_often()
    drill.run_ms(rng.uniform(100, 500))
    drill.writes = False
    victim = drill.follower()
    victim.wipe(damaged=True)
    drill.wait(partial(drill.has_returned, victim), f"{victim.name} is not back with its new disk")


def freeze_leader(seed: int, trace: EventTrace | None = None) -> None:
    """Rule 18: the process and the clock of a leader stand still while another one leads. A read that asks for a quorum
    is the first thing that the old leader does afterwards: it is not answered from the past, although the clock says
    that the lease holds."""
    rng = Random(f"frozen/{seed}")
    beyond = Strike(10**9, StrikeKind.FREEZE, (LEADER,), 1)  # the checks shall not expect right clocks
    drill = Drill(calm(seed, rng, nodes=rng.choice((3, 5)), strikes=(beyond,)), trace)
    drill.run_ms(rng.uniform(100, 500))
    drill.wait(drill.leads_by_lease, "no leader has a lease")
    old, reference = drill.leader(), drill.safety.reference
    assert old.node is not None
    old.freeze()
    old.pause()
    known = old.node.applied
    drill.wait(lambda: drill.leader() is not old and reference.applied > known + 3, "nobody takes the leader's place")
    floor, answers = revision_of(reference.state(reference.applied).position), list[ReadAnswer | Refused]()
    read = partial(old.happens, lambda node: node.read(b"k0", Consistency.QUORUM, answers.append))
    old._backlog.extendleft(reversed([read, partial(old._turn, old.life)]))
    old.thaw(all_over=True)
    old.resume()
    drill.wait(lambda: bool(answers), "a read is never answered")
    for answer in answers:
        assert isinstance(answer, Refused) or answer.revision >= floor, f"{old.name} reads the past with a quorum"


def _with(member: Member, membership: Membership) -> Membership:
    return membership.changed(member)


def _wanted(machine: SimulatedMachine, membership: Membership) -> Membership:
    """Return `membership` with another disk for `machine`."""
    member = membership.get(machine.name) or Member(machine.name, "")
    return membership.changed(newcomer(member.name, "", MemberRole.VOTER))


DRILLS: dict[str, Callable[[int, EventTrace | None], object]] = {
    "divergence": diverge,
    "forgotten votes": forget,
    "founding": found_anyhow,
    "other states": found_with_other_states,
    "founding again": found_again,
    "peace": change_in_peace,
    "new voters": cut_new_voters,
    "witness": with_witness,
    "replacement": replace_amid_elections,
    "frozen leader": freeze_leader,
    "reads": replace_amid_reads,
}
