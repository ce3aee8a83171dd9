"""Two proposers that outbid each other for ever, and how random, growing delays end that."""

import heapq
from collections import Counter
from collections.abc import Callable
from functools import partial
from random import Random

from paxos.election import ElectionTimer
from paxos.lecture.actors import AcceptorActor, ProposerActor
from paxos.lecture.scenes.scene import Scene, table
from paxos.lecture.stage import Flying, Stage
from paxos.messages import Accept, Prepare, Promise, Reject
from paxos.options import Options
from paxos.types import MS

ACCEPTORS = ("a1", "a2", "a3")
ROUNDS = 3
SEEDS = 1000
DELAY_MS = (20, 400)
"""A message is on its way for so long in the duels with delays: a bad network, or nobody would get into another's way
for long."""


def duel(rounds: int = ROUNDS, seeds: int = SEEDS) -> Scene:
    """`rounds` of the endless form, one duel that ends, and how long `seeds` of them took."""
    return Scene([_endless(rounds), _ending(Random(2))[0]], _distribution(seeds))


def _endless(rounds: int) -> Stage:
    stage = Stage("duel: two proposers without delays")
    pair = stage.cast(ProposerActor("p1", ACCEPTORS), ProposerActor("p2", ACCEPTORS))
    stage.cast(*map(AcceptorActor, ACCEPTORS))
    number = 5
    stage.act(pair[0], pair[0].prepare(number, "x"))
    _offer(stage)
    for each in range(rounds):
        loser, winner = pair[each % 2], pair[1 - each % 2]
        number += 1
        stage.remark(f"{winner.name} prepares {number} before the Accept of {loser.name} arrives.")
        stage.act(winner, winner.prepare(number, "y" if winner is pair[1] else "x"))
        stage.deliver(Prepare)
        stage.deliver(Accept)
        stage.deliver(Promise)
        stage.deliver(Reject)
    stage.remark("And so on: nothing wrong is ever chosen, but nothing is chosen at all.")
    return stage


def _offer(stage: Stage) -> None:
    stage.deliver(Prepare)
    stage.deliver(Promise)


class _Duel:
    """Proposers that begin together, and wait after each failure for as long as the product's ElectionTimer says."""

    def __init__(self, rng: Random, *, drawing: bool) -> None:
        self.stage = Stage("duel: the same with the delays of the product", timed=True)
        self.stage.drawing = drawing
        self.pair = self.stage.cast(ProposerActor("p1", ACCEPTORS), ProposerActor("p2", ACCEPTORS))
        self.stage.cast(*map(AcceptorActor, ACCEPTORS))
        options = Options()
        self._rng = rng
        self._elections = [ElectionTimer(options, Random(rng.random()), self.stage.now) for _ in self.pair]
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0
        self.round = 0
        self.begun = self.stage.now

    def play(self) -> int:
        """Until a value is chosen; gives how many ballots that took."""
        for index, election in enumerate(self._elections):
            self._at(election.due, partial(self._run, index))
        while not any(proposer.chosen for proposer in self.pair):
            self.stage.now, _, event = heapq.heappop(self._events)
            event()
        return self.round

    def _at(self, when: int, event: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (when, self._count, event))

    def _run(self, index: int) -> None:
        proposer = self.pair[index]
        self.round += 1
        self.stage.act(proposer, proposer.prepare(self.round, "xy"[index]))
        self._carry()

    def _carry(self) -> None:
        """Each message that has just left arrives after the delay, one by one."""
        for flying in self.stage.departed():
            delay_ms = self._rng.randint(*DELAY_MS)
            self._at(self.stage.now + delay_ms * MS, partial(self._arrive, flying))

    def _arrive(self, flying: Flying) -> None:
        outbid = [proposer.outbid for proposer in self.pair]
        self.stage.arrive(flying)
        for index, (proposer, before) in enumerate(zip(self.pair, outbid, strict=True)):
            if proposer.outbid is not None and before is None:
                election = self._elections[index]
                election.back_off(self.stage.now)
                self._at(election.due, partial(self._run, index))
        self._carry()


def _ending(rng: Random, *, drawing: bool = True) -> tuple[Stage, int, float]:
    """The stage, the ballots and the milliseconds that it took."""
    fight = _Duel(rng, drawing=drawing)
    ballots = fight.play()
    return fight.stage, ballots, (fight.stage.now - fight.begun) / MS


def _distribution(seeds: int) -> str:
    found = [_ending(Random(seed), drawing=False)[1:] for seed in range(seeds)]
    ballots = Counter(min(count, 7) for count, _ in found)
    times = sorted(ms for _, ms in found)
    most = max(ballots.values())
    rows = [
        (f"{count}{' or more' if count == 7 else ''}", f"{ballots[count]:,}", "#" * round(50 * ballots[count] / most))
        for count in range(1, 8)
    ]
    half, nearly_all, last = times[seeds // 2], times[seeds * 99 // 100], times[-1]
    shortest, longest = DELAY_MS
    return (
        f"{seeds:,} duels, each message {shortest} to {longest} ms on its way; ballots until a value was chosen:\n\n"
        f"{table(('ballots', 'duels', ''), *rows)}\n\n"
        f"Half of them were over after {half:.0f} ms, 99 % after {nearly_all:.0f} ms, all after {last:.0f} ms.\n"
        "In the product they are rare, too: a candidate asks first whether it would be promised (PreVote),\n"
        "and nobody disturbs a living leader."
    )
