"""How many crashes are survived: f of 2f+1 acceptors, f of f+1 proposers."""

from collections.abc import Sequence

from paxos.lecture.actors import AcceptorActor, LearnerActor, ProposerActor
from paxos.lecture.scenes.scene import Scene, table
from paxos.lecture.stage import Stage
from paxos.messages import Accept, Accepted, Prepare, Promise

MOST = 3
"""The largest f that is tried."""


def crashes() -> Scene:
    """Drawn for f = 1, counted for all."""
    rows: list[tuple[str, ...]] = [("f", "acceptors", "down", "proposers", "down", "chosen")]
    for f in range(1, MOST + 1):
        for acceptors_down, proposers_down in ((f, 0), (f + 1, 0), (0, f), (f, f)):
            chosen = _play(f, acceptors_down, proposers_down).chosen
            numbers = (f, 2 * f + 1, acceptors_down, f + 1, proposers_down)
            rows.append((*map(str, numbers), chosen or "nothing, and nothing wrong"))
    return Scene([_play(1, 1, 0).stage, _play(1, 2, 0).stage, _play(1, 0, 1).stage], table(*rows))


class _Played:
    """A stage, and what its learner has learned."""

    def __init__(self, stage: Stage, learner: LearnerActor) -> None:
        self.stage = stage
        self.chosen = " ".join(learner.learned)


def _play(f: int, acceptors_down: int, proposers_down: int) -> _Played:
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
        _die_amid(stage, proposer, number)
    last = proposers[proposers_down]
    stage.act(last, last.prepare(proposers_down + 1, f"v{proposers_down + 1}"))
    stage.run()
    _judge(stage, last, acceptors)
    return _Played(stage, learner)


def _die_amid(stage: Stage, proposer: ProposerActor, number: int) -> None:
    """After one acceptor has accepted its value."""
    stage.act(proposer, proposer.prepare(number, f"v{number}"))
    stage.deliver(Prepare)
    stage.deliver(Promise)
    stage.deliver(Accept, to="a1")
    stage.lose(Accept)
    stage.lose(Accepted)
    stage.crash(proposer)


def _judge(stage: Stage, last: ProposerActor, acceptors: Sequence[AcceptorActor]) -> None:
    if last.chosen:
        stage.remark("A majority is there: it goes on.")
        return
    promised = sum(acceptor.acceptor.promised.node == last.name for acceptor in acceptors)
    stage.remark(
        f"{promised} of {len(acceptors)} have promised, no majority: {last.name} waits, and nothing is chosen."
    )
