"""Does to a running cluster what a plan says, undoes it, and tells what came of it."""

import asyncio
import os
from collections.abc import Callable, Sequence
from itertools import pairwise

import msgspec

from kvstore.testing.fault_proxies import FaultProxies, Pair
from kvstore.testing.process_cluster import POLL_S, ProcessCluster
from kvstore.testing.replica_status import describe_exit
from tests.torture.faults.disk import SYNCS, WRITES, Tampering
from tests.torture.faults.plan import Fault, Plan, Reach

END_S = 10.0
"""A replica whose disk failed ends at its next write; there may be none while nobody leads."""


class Strike(msgspec.Struct, frozen=True, kw_only=True):
    """A fault that was under way. Times are seconds of the run. It landed when `effect` is not zero: `what` was
    counted."""

    fault: Fault
    victims: list[str]
    detail: str
    began_s: float
    ended_s: float
    effect: int
    what: str

    @property
    def words(self) -> str:
        """For people: `kill n1 n2`."""
        return f"{self.fault} {' '.join(self.victims)}"


class Effect(msgspec.Struct, frozen=True):
    """What a fault did, counted."""

    count: int
    what: str
    detail: str = ""


class Tormentor:
    """One fault at a time. `now` gives seconds of the run."""

    def __init__(self, cluster: ProcessCluster, links: FaultProxies, now: Callable[[], float]) -> None:
        self._cluster = cluster
        self._links = links
        self._now = now
        self._tampered = 0
        self.paused: set[str] = set()
        self.strikes: list[Strike] = []
        self.under_way = ""
        self.kills = 0
        self.deaths: list[str] = []
        """Replicas that ended though nobody ended them, or went on though their disk had failed."""

    async def strike(self, plan: Plan, leader: str | None) -> None:
        """Do it, for as long as is planned."""
        self.revive()
        victims = plan.victims(leader)
        self.under_way = f"{plan.fault} {' '.join(victims)}"
        began_s = self._now()
        effect = await self._do(plan, victims)
        self.under_way = ""
        self.strikes.append(
            Strike(
                fault=plan.fault,
                victims=list(victims),
                detail=effect.detail,
                began_s=began_s,
                ended_s=self._now(),
                effect=effect.count,
                what=effect.what,
            )
        )
        self.revive()

    def revive(self) -> None:
        """Start those that ended by themselves, and note it: nothing that is done here excuses it."""
        for name in self._cluster.replicas:
            if not self._cluster.runs(name):
                ending = describe_exit(self._cluster.exit_of(name))
                self.deaths.append(f"{name} ended by itself at {self._now():.1f} s: {ending}")
        self._cluster.start()

    async def _do(self, plan: Plan, victims: Sequence[str]) -> Effect:
        match plan.fault:
            case Fault.KILL:
                self._kill(victims)
                await asyncio.sleep(plan.lasting_s)
                self._cluster.start(victims)
                return Effect(len(victims), "processes killed")
            case Fault.STORM:
                return await self._storm(plan, victims)
            case Fault.PAUSE:
                return await self._pause(plan, victims)
            case Fault.PARTITION:
                pairs = self._links.leaving(victims)
                return await self._cut(plan, [*pairs, *((to, by) for by, to in pairs)], "both ways")
            case Fault.ONE_WAY:
                return await self._cut(plan, *self._one_way(plan, victims))
            case Fault.SLOW_NETWORK:
                return await self._slow_network(plan, victims)
            case Fault.SLOW_FSYNC:
                return await self._slow_fsync(plan, victims)
            case Fault.EIO:
                return await self._fail_disk(plan, victims, WRITES if plan.on_write else SYNCS, "EIO")
            case Fault.DISK_FULL:
                return await self._fail_disk(plan, victims, WRITES, "ENOSPC")

    def _kill(self, victims: Sequence[str]) -> None:
        self._cluster.kill(*victims)
        self.kills += len(victims)

    async def _storm(self, plan: Plan, victims: Sequence[str]) -> Effect:
        before, until_s = self.kills, self._now() + plan.lasting_s
        while self._now() < until_s:
            self._kill(victims)
            self._cluster.start(victims)
            await asyncio.sleep(plan.beat_s)
        return Effect(self.kills - before, "processes killed", f"every {1000 * plan.beat_s:.0f} ms")

    async def _pause(self, plan: Plan, victims: Sequence[str]) -> Effect:
        for name in victims:
            self._cluster.pause(name)
        self.paused.update(victims)
        await asyncio.sleep(plan.lasting_s)
        stopped = sum(_is_stopped(self._cluster.process_id(name)) for name in filter(self._cluster.runs, victims))
        for name in victims:
            self._cluster.resume(name)
        self.paused.clear()
        return Effect(stopped, "processes stopped")

    def _one_way(self, plan: Plan, victims: Sequence[str]) -> tuple[list[Pair], str]:
        if plan.reach is Reach.ALL:
            ring = set(pairwise([*plan.order, plan.order[0]]))
            return [pair for pair in self._links.links if pair not in ring], f"a ring: {' > '.join(plan.order)}"
        pairs = self._links.leaving(victims)
        if plan.outward:
            return pairs, "what they send is lost"
        return [(to, by) for by, to in pairs], "what they are sent is lost"

    async def _cut(self, plan: Plan, pairs: Sequence[Pair], detail: str) -> Effect:
        ways = [self._links.links[pair] for pair in pairs]
        before = sum(way.held for way in ways)
        for way in ways:
            way.cut()
        await asyncio.sleep(plan.lasting_s)
        self._links.heal()
        return Effect(sum(way.held for way in ways) - before, "transfers held back", detail)

    async def _slow_network(self, plan: Plan, victims: Sequence[str]) -> Effect:
        pairs = self._links.leaving(victims)
        ways = [self._links.links[way] for pair in pairs for way in (pair, pair[::-1])]
        before = sum(way.delayed for way in ways)
        for way in ways:
            way.delay(plan.delay_ms / 1000)
        await asyncio.sleep(plan.lasting_s)
        self._links.heal()
        return Effect(sum(way.delayed for way in ways) - before, "transfers delayed", f"by {plan.delay_ms} ms")

    async def _tamper(self, victims: Sequence[str], calls: str, how: str) -> list[Tampering]:
        tamperings = []
        for name in victims:
            self._tampered += 1
            log = self._cluster.directory / f"{name}.{self._tampered}.strace"
            tamperings.append(Tampering(self._cluster.process_id(name), calls, how, log))
        for tampering in tamperings:
            await tampering.attach()
        return tamperings

    async def _slow_fsync(self, plan: Plan, victims: Sequence[str]) -> Effect:
        tamperings = await self._tamper(victims, SYNCS, f"delay_enter={1000 * plan.delay_ms}")
        await asyncio.sleep(plan.lasting_s)
        for tampering in tamperings:
            tampering.detach()
        return Effect(sum(one.injected for one in tamperings), "syncs delayed", f"by {plan.delay_ms} ms each")

    async def _fail_disk(self, plan: Plan, victims: Sequence[str], calls: str, error: str) -> Effect:
        """The victims end by themselves (rule 4); they are started again after the planned time."""
        tamperings = await self._tamper(victims, calls, f"error={error}")
        until_s = self._now() + END_S
        while any(map(self._cluster.runs, victims)) and self._now() < until_s:  # noqa: ASYNC110 - nobody tells of an exit
            await asyncio.sleep(POLL_S)
        for tampering in tamperings:
            tampering.detach()
        for name, tampering in zip(victims, tamperings, strict=True):
            if tampering.injected and self._cluster.runs(name):
                self.deaths.append(f"{name} still runs after {error} of {calls}")
        await asyncio.sleep(plan.lasting_s)
        self._cluster.start(victims)
        return Effect(sum(one.injected for one in tamperings), "calls failed", f"{error} of {calls}")


def _is_stopped(process_id: int) -> bool:
    """Whether a child was stopped by a signal since this was asked last."""
    return os.waitid(os.P_PID, process_id, os.WSTOPPED | os.WNOHANG) is not None
