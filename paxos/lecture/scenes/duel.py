"""Duelling proposers: two proposers may preempt each other for ever; random, growing delays end the duel."""

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
"""Range of the message delay in the duels with random delays. The delays are long because duels are rare on a fast
network."""


def duel(rounds: int = ROUNDS, seeds: int = SEEDS) -> Scene:
    """Play `rounds` of an endless duel, one duel that ends, and tabulate how long `seeds` duels took."""
    return Scene([_endless(rounds), _ending(Random(2))[0]], _distribution(seeds))


def _endless(rounds: int) -> Stage:
    stage = Stage("duel: two proposers without delays")
    pair = stage.cast(ProposerActor("p1", ACCEPTORS), ProposerActor("p2", ACCEPTORS))
    stage.cast(*map(AcceptorActor, ACCEPTORS))
    number = 5
    stage.act(pair[0], pair[0].prepare(number, "x"))
    stage.deliver(Prepare)
    stage.deliver(Promise)
    for each in range(rounds):
        loser, winner = pair[each % 2], pair[1 - each % 2]
        number += 1
        stage.remark(f"{winner.name} prepares {number} before the Accept of {loser.name} arrives.")
        stage.act(winner, winner.prepare(number, "y" if winner is pair[1] else "x"))
        stage.deliver(Prepare)
        stage.deliver(Accept)
        stage.deliver(Promise)
        stage.deliver(Reject)
    stage.remark("This may go on for ever: no wrong value is chosen, but no value is chosen at all.")
    return stage


class _Duel:
    """Two proposers that start together and, after each failure, wait for a delay of the product's ElectionTimer."""

    def __init__(self, rng: Random, *, drawing: bool) -> None:
        self.stage = Stage("duel: two proposers with the random delays of the product", timed=True)
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
        """Play until a value is chosen; return the number of ballots."""
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
        self._schedule_arrivals()

    def _schedule_arrivals(self) -> None:
        """Schedule the arrival of each message that has just left, each after its own delay."""
        for flying in self.stage.departed():
            delay_ms = self._rng.randint(*DELAY_MS)
            self._at(self.stage.now + delay_ms * MS, partial(self._arrive, flying))

    def _arrive(self, flying: Flying) -> None:
        preempted_before = [proposer.preempted_by for proposer in self.pair]
        self.stage.arrive(flying)
        for index, (proposer, before) in enumerate(zip(self.pair, preempted_before, strict=True)):
            if proposer.preempted_by is not None and before is None:
                election = self._elections[index]
                election.back_off(self.stage.now)
                self._at(election.due, partial(self._run, index))
        self._schedule_arrivals()


def _ending(rng: Random, *, drawing: bool = True) -> tuple[Stage, int, float]:
    """Play one duel; return the stage, the number of ballots and the duration in milliseconds."""
    run = _Duel(rng, drawing=drawing)
    ballots = run.play()
    return run.stage, ballots, (run.stage.now - run.begun) / MS


def _distribution(seeds: int) -> str:
    results = [_ending(Random(seed), drawing=False)[1:] for seed in range(seeds)]
    ballots = Counter(min(count, 7) for count, _ in results)
    times = sorted(ms for _, ms in results)
    most = max(ballots.values())
    rows = [
        (f"{count}{' or more' if count == 7 else ''}", f"{ballots[count]:,}", "#" * round(50 * ballots[count] / most))
        for count in range(1, 8)
    ]
    half, nearly_all, last = times[seeds // 2], times[seeds * 99 // 100], times[-1]
    shortest, longest = DELAY_MS
    return (
        f"{seeds:,} duels with message delays of {shortest} to {longest} ms; ballots until a value was chosen:\n\n"
        f"{table(('ballots', 'duels', ''), *rows)}\n\n"
        f"Half of the duels ended within {half:.0f} ms, 99 % within {nearly_all:.0f} ms, all within {last:.0f} ms.\n"
        "In the product duels are rarer: a candidate first asks whether a majority would promise (PreVote),\n"
        "and acceptors refuse candidates while they have granted a leader a lease."
    )
