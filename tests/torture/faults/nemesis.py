"""The nemesis, which injects the planned faults into a running cluster and records their effects."""

import asyncio
import os
from collections.abc import Callable, Sequence
from itertools import pairwise

import msgspec

from kvstore.testing.fault_proxies import FaultProxies, Pair
from kvstore.testing.process_cluster import POLL_S, ProcessCluster
from kvstore.testing.replica_status import describe_exit
from tests.torture.faults.disk import SYNCS, WRITES, SyscallInjection
from tests.torture.faults.plan import Fault, FaultPlan, Reach

END_S = 10.0
"""Time for a replica to end after its disk failed; it notices at its next write."""


class MadeFault(msgspec.Struct, frozen=True, kw_only=True):
    """A fault that was injected. Times are seconds of the run."""

    fault: Fault
    victims: list[str]
    detail: str
    began_s: float
    ended_s: float
    effect: int
    """Number of events, which `what` names; 0 means that the fault had no effect."""
    what: str

    @property
    def words(self) -> str:
        """Fault and victims as text."""
        return f"{self.fault} {' '.join(self.victims)}"


class FaultEffect(msgspec.Struct, frozen=True):
    """The number of events that a fault caused, and their name."""

    count: int
    what: str
    detail: str = ""


class Nemesis:
    """An injector of faults, one at a time. `now` returns seconds of the run."""

    def __init__(self, cluster: ProcessCluster, proxies: FaultProxies, now: Callable[[], float]) -> None:
        self._cluster = cluster
        self._proxies = proxies
        self._now = now
        self._injections = 0
        self.paused: set[str] = set()
        self.faults: list[MadeFault] = []
        self.under_way = ""
        self.kills = 0
        self.troubles: list[str] = []
        """Replicas that ended by themselves, or continued although their disk had failed."""

    async def make(self, plan: FaultPlan, leader: str | None) -> None:
        """Inject a fault for its planned duration."""
        self.restart_ended()
        victims = plan.victims(leader)
        self.under_way = f"{plan.fault} {' '.join(victims)}"
        began_s = self._now()
        effect = await self._make(plan, victims)
        self.under_way = ""
        self.faults.append(
            MadeFault(
                fault=plan.fault,
                victims=list(victims),
                detail=effect.detail,
                began_s=began_s,
                ended_s=self._now(),
                effect=effect.count,
                what=effect.what,
            )
        )
        self.restart_ended()

    def restart_ended(self) -> None:
        """Start replicas that ended by themselves, and record them: no fault explains their end."""
        for name in self._cluster.replicas:
            if not self._cluster.runs(name):
                ending = describe_exit(self._cluster.exit_of(name))
                self.troubles.append(f"{name} ended by itself at {self._now():.1f} s: {ending}")
        self._cluster.start()

    async def _make(self, plan: FaultPlan, victims: Sequence[str]) -> FaultEffect:
        match plan.fault:
            case Fault.KILL:
                self._kill(victims)
                await asyncio.sleep(plan.lasting_s)
                self._cluster.start(victims)
                return FaultEffect(len(victims), "processes killed")
            case Fault.STORM:
                return await self._storm(plan, victims)
            case Fault.PAUSE:
                return await self._pause(plan, victims)
            case Fault.PARTITION:
                pairs = self._proxies.leaving(victims)
                return await self._cut(
                    plan, [*pairs, *((target, source) for source, target in pairs)], "in both directions"
                )
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

    async def _storm(self, plan: FaultPlan, victims: Sequence[str]) -> FaultEffect:
        before, until_s = self.kills, self._now() + plan.lasting_s
        while self._now() < until_s:
            self._kill(victims)
            self._cluster.start(victims)
            await asyncio.sleep(plan.beat_s)
        return FaultEffect(self.kills - before, "processes killed", f"every {1000 * plan.beat_s:.0f} ms")

    async def _pause(self, plan: FaultPlan, victims: Sequence[str]) -> FaultEffect:
        for name in victims:
            self._cluster.pause(name)
        self.paused.update(victims)
        await asyncio.sleep(plan.lasting_s)
        stopped = sum(_is_stopped(self._cluster.process_id(name)) for name in filter(self._cluster.runs, victims))
        for name in victims:
            self._cluster.resume(name)
        self.paused.clear()
        return FaultEffect(stopped, "processes stopped")

    def _one_way(self, plan: FaultPlan, victims: Sequence[str]) -> tuple[list[Pair], str]:
        if plan.reach is Reach.ALL:
            ring = set(pairwise([*plan.order, plan.order[0]]))
            return [pair for pair in self._proxies.links if pair not in ring], f"a ring: {' > '.join(plan.order)}"
        pairs = self._proxies.leaving(victims)
        if plan.outward:
            return pairs, "messages from the victims"
        return [(target, source) for source, target in pairs], "messages to the victims"

    async def _cut(self, plan: FaultPlan, pairs: Sequence[Pair], detail: str) -> FaultEffect:
        links = [self._proxies.links[pair] for pair in pairs]
        before = sum(link.held for link in links)
        for link in links:
            link.cut()
        await asyncio.sleep(plan.lasting_s)
        self._proxies.heal()
        return FaultEffect(sum(link.held for link in links) - before, "transfers held back", detail)

    async def _slow_network(self, plan: FaultPlan, victims: Sequence[str]) -> FaultEffect:
        pairs = self._proxies.leaving(victims)
        links = [self._proxies.links[each] for pair in pairs for each in (pair, pair[::-1])]
        before = sum(link.delayed for link in links)
        for link in links:
            link.delay(plan.delay_ms / 1000)
        await asyncio.sleep(plan.lasting_s)
        self._proxies.heal()
        delayed = sum(link.delayed for link in links) - before
        return FaultEffect(delayed, "transfers delayed", f"by {plan.delay_ms} ms")

    async def _inject(self, victims: Sequence[str], calls: str, how: str) -> list[SyscallInjection]:
        injections = []
        for name in victims:
            self._injections += 1
            log = self._cluster.directory / f"{name}.{self._injections}.strace"
            injections.append(SyscallInjection(self._cluster.process_id(name), calls, how, log))
        for injection in injections:
            await injection.attach()
        return injections

    async def _slow_fsync(self, plan: FaultPlan, victims: Sequence[str]) -> FaultEffect:
        injections = await self._inject(victims, SYNCS, f"delay_enter={1000 * plan.delay_ms}")
        await asyncio.sleep(plan.lasting_s)
        for injection in injections:
            injection.detach()
        return FaultEffect(sum(one.count for one in injections), "syncs delayed", f"by {plan.delay_ms} ms each")

    async def _fail_disk(self, plan: FaultPlan, victims: Sequence[str], calls: str, error: str) -> FaultEffect:
        """Fail system calls until the victims end by themselves (rule 4); start them after the planned time."""
        injections = await self._inject(victims, calls, f"error={error}")
        until_s = self._now() + END_S
        while any(map(self._cluster.runs, victims)) and self._now() < until_s:  # noqa: ASYNC110 - an exit sets no event
            await asyncio.sleep(POLL_S)
        for injection in injections:
            injection.detach()
        for name, injection in zip(victims, injections, strict=True):
            if injection.count and self._cluster.runs(name):
                self.troubles.append(f"{name} still runs although {calls} failed with {error}")
        await asyncio.sleep(plan.lasting_s)
        self._cluster.start(victims)
        return FaultEffect(sum(one.count for one in injections), "calls failed", f"{error} of {calls}")


def _is_stopped(process_id: int) -> bool:
    """Return whether a signal has stopped a child since the last call."""
    return os.waitid(os.P_PID, process_id, os.WSTOPPED | os.WNOHANG) is not None
