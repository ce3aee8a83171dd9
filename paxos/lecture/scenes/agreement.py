"""One value: how it is agreed on, what a second proposer has to respect, and what an acceptor refuses."""

from paxos.lecture.actors import AcceptorActor, LearnerActor, ProposerActor
from paxos.lecture.scenes.scene import Scene
from paxos.lecture.stage import Stage
from paxos.messages import Accept, Accepted, Prepare, Promise

ACCEPTORS = ("a1", "a2", "a3")


def basic() -> Scene:
    """Lamport, "Paxos Made Simple", section 2.2: both phases, undisturbed."""
    stage = Stage("basic: one proposer, three acceptors, one learner")
    (proposer,) = stage.cast(ProposerActor("p1", ACCEPTORS, ["l1"]))
    stage.cast(*map(AcceptorActor, ACCEPTORS))
    stage.cast(LearnerActor("l1", ACCEPTORS))
    stage.remark("Phase 1: may I propose, and has anything been accepted before?")
    stage.act(proposer, proposer.prepare(1, "v"))
    stage.deliver(Prepare)
    stage.deliver(Promise)
    stage.remark("Phase 2: please accept this.")
    stage.deliver(Accept)
    stage.deliver(Accepted, most=1)
    stage.remark("One acceptor is no majority of three. Two are.")
    stage.run()
    return Scene([stage], "Acceptors answer the proposer only; it counts, and tells learners what is chosen.")


def previous_value() -> Scene:
    """The value of the highest ballot that a majority knows of has to be proposed again."""
    return Scene([_one_before(), _two_before()], "So a value that may have been chosen is never replaced by another.")


def _one_before() -> Stage:
    stage = Stage("previous-value: what a proposer before has left")
    first, second = stage.cast(ProposerActor("p1", ACCEPTORS), ProposerActor("p2", ACCEPTORS))
    stage.cast(*map(AcceptorActor, ACCEPTORS))
    _leave(stage, first, 1, "x", at="a1")
    stage.crash(first)
    stage.act(second, second.prepare(2, "y"))
    stage.deliver(Prepare)
    stage.deliver(Promise, sender="a1")
    stage.deliver(Promise, sender="a2")
    stage.remark('p2 wanted "y". A majority told it of "x", so it goes on with "x".')
    stage.run()
    return stage


def _two_before() -> Stage:
    stage = Stage("previous-value: of several the one of the highest ballot")
    first, second, third = stage.cast(*(ProposerActor(name, ACCEPTORS) for name in ("p1", "p2", "p3")))
    stage.cast(*map(AcceptorActor, ACCEPTORS))
    _leave(stage, first, 1, "x", at="a1")
    stage.crash(first)
    stage.act(second, second.prepare(2, "y"))
    stage.deliver(Prepare, to="a2")
    stage.deliver(Prepare, to="a3")
    stage.lose(Prepare)
    stage.deliver(Promise)
    stage.deliver(Accept, to="a2")
    stage.lose(Accept)
    stage.lose(Accepted)
    stage.crash(second)
    stage.act(third, third.prepare(3, "z"))
    stage.deliver(Prepare, to="a1")
    stage.deliver(Prepare, to="a2")
    stage.lose(Prepare)
    stage.deliver(Promise)
    stage.remark('"x" by ballot 1 and "y" by ballot 2: p3 goes on with "y".')
    stage.run()
    return stage


def _leave(stage: Stage, proposer: ProposerActor, number: int, value: str, at: str) -> None:
    """`value` is accepted by one acceptor only, and nobody hears of it."""
    stage.act(proposer, proposer.prepare(number, value))
    stage.deliver(Prepare)
    stage.deliver(Promise)
    stage.deliver(Accept, to=at)
    stage.lose(Accept)
    stage.lose(Accepted)


def ignored() -> Scene:
    """An acceptor that promised n does nothing for a ballot below n."""
    stage = Stage("ignored: what is below a promise")
    low, high = stage.cast(ProposerActor("p1", ["a1"]), ProposerActor("p2", ["a1"]))
    stage.cast(AcceptorActor("a1"))
    stage.act(low, low.prepare(3, "x"))
    stage.deliver(Prepare)
    stage.deliver(Promise)
    stage.act(high, high.prepare(4, "y"))
    stage.deliver(Prepare)
    stage.remark("p1 was promised ballot 3, but a1 has promised 4 since: its Accept comes too late.")
    stage.deliver(Accept)
    stage.run()
    stage.act(low, low.prepare(2, "x"))
    stage.run()
    return Scene(
        [stage],
        "In the lecture it stays silent. Here it says what it has promised: the proposer need not wait\n"
        "for nothing, and knows above which number to try again. It is safe either way.",
    )
