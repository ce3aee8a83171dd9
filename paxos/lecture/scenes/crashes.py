"""The crashes that Paxos tolerates: f of 2f+1 acceptors, and f of f+1 proposers."""

from collections.abc import Sequence
from typing import NamedTuple

from paxos.lecture.actors import AcceptorActor, LearnerActor, ProposerActor
from paxos.lecture.scenes.scene import Scene, table
from paxos.lecture.stage import Stage
from paxos.messages import Accept, Accepted, Prepare, Promise
from paxos.options import Options
from paxos.types import MS

MOST = 3
"""Largest f that the scene plays."""


def crashes() -> Scene:
    """Draw the runs for f = 1, and tabulate the results for each f."""
    rows: list[tuple[str, ...]] = [("f", "acceptors", "down", "proposers", "down", "chosen", "after a restart")]
    for f in range(1, MOST + 1):
        for acceptors_down, proposers_down in ((f, 0), (f + 1, 0), (0, f), (f, f)):
            result = _play(f, acceptors_down, proposers_down)
            numbers = (f, 2 * f + 1, acceptors_down, f + 1, proposers_down)
            rows.append((*map(str, numbers), result.chosen or "nothing", result.later))
    return Scene([_play(1, 1, 0).stage, _play(1, 2, 0).stage, _play(1, 0, 1).stage], table(*rows))


class _RunResult(NamedTuple):
    """The result of one run."""

    stage: Stage
    chosen: str
    """Values that the learner learned while the processes were down."""
    later: str
    """Values that the learner learned after one acceptor had restarted."""


def _play(f: int, acceptors_down: int, proposers_down: int) -> _RunResult:
    stage = Stage(
        f"crashes: f = {f}, {acceptors_down} of {2 * f + 1} acceptors and {proposers_down} of {f + 1} proposers down"
    )
    names = [f"a{number}" for number in range(1, 2 * f + 2)]
    proposers = stage.cast(*(ProposerActor(f"p{number}", names, ["l1"]) for number in range(1, f + 2)))
    acceptors = stage.cast(*map(AcceptorActor, names))
    (learner,) = stage.cast(LearnerActor("l1", names))
    for acceptor in acceptors[len(acceptors) - acceptors_down :]:
        stage.crash(acceptor)
    for number, proposer in enumerate(proposers[:proposers_down], 1):
        _crash_after_one_accept(stage, proposer, number)
    last = proposers[proposers_down]
    stage.act(last, last.prepare(proposers_down + 1, f"v{proposers_down + 1}"))
    stage.run()
    chosen = " ".join(learner.learned)
    if chosen:
        stage.remark("A majority of the acceptors is up, so the value is chosen.")
    else:
        _restart(stage, last, acceptors, acceptors[-acceptors_down])
    return _RunResult(stage, chosen, " ".join(learner.learned[bool(chosen) :]))


def _crash_after_one_accept(stage: Stage, proposer: ProposerActor, number: int) -> None:
    """Crash `proposer` after one acceptor has accepted its value."""
    stage.act(proposer, proposer.prepare(number, f"v{number}"))
    stage.deliver(Prepare)
    stage.deliver(Promise)
    stage.deliver(Accept, to="a1")
    stage.lose(Accept)
    stage.lose(Accepted)
    stage.crash(proposer)


def _restart(stage: Stage, proposer: ProposerActor, acceptors: Sequence[AcceptorActor], first: AcceptorActor) -> None:
    """Restart the acceptor `first`, which completes a majority."""
    promised = sum(acceptor.acceptor.promised.node == proposer.name for acceptor in acceptors)
    stage.remark(f"{promised} of {len(acceptors)} acceptors have promised, which is not a majority. Nothing is chosen.")
    first.restart(stage.now)
    stage.back(first, "restarts with its stored promise and values")
    stage.act(proposer, proposer.prepare(2, "v1"))
    stage.run()
    stage.remark("One lease after the restart it promises again.")
    stage.wait(Options().lease_for_acceptor / MS)
    stage.act(proposer, proposer.prepare(3, "v1"))
    stage.run()
