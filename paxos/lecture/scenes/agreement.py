"""Agreement on one value: both phases, the duty of a later proposer, and the messages that an acceptor refuses."""

from paxos.lecture.actors import AcceptorActor, LearnerActor, ProposerActor
from paxos.lecture.scenes.scene import Scene
from paxos.lecture.stage import Stage
from paxos.messages import Accept, Accepted, Prepare, Promise

ACCEPTORS = ("a1", "a2", "a3")


def basic() -> Scene:
    """Play both phases without disturbance (Lamport, "Paxos Made Simple", section 2.2)."""
    stage = Stage("basic: one proposer, three acceptors, one learner")
    (proposer,) = stage.cast(ProposerActor("p1", ACCEPTORS, ["l1"]))
    stage.cast(*map(AcceptorActor, ACCEPTORS))
    stage.cast(LearnerActor("l1", ACCEPTORS))
    stage.remark("Phase 1: p1 asks for promises, and for values that were accepted before.")
    stage.act(proposer, proposer.prepare(1, "v"))
    stage.deliver(Prepare)
    stage.deliver(Promise)
    stage.remark("Phase 2: p1 asks the acceptors to accept its value.")
    stage.deliver(Accept)
    stage.deliver(Accepted, most=1)
    stage.remark("One of three acceptors is not a majority. Two are.")
    stage.run()
    return Scene(
        [stage], "Acceptors answer only the proposer. It counts their votes and tells the learners what is chosen."
    )


def previous_value() -> Scene:
    """Show that a proposer must propose the value of the highest ballot that its majority reports."""
    return Scene(
        [_one_before(), _two_before()], "So a value that may have been chosen is never replaced by another value."
    )


def _one_before() -> Stage:
    stage = Stage("previous-value: a value left by an earlier proposer")
    first, second = stage.cast(ProposerActor("p1", ACCEPTORS), ProposerActor("p2", ACCEPTORS))
    stage.cast(*map(AcceptorActor, ACCEPTORS))
    _accept_at_one(stage, first, 1, "x", at="a1")
    stage.crash(first)
    stage.act(second, second.prepare(2, "y"))
    stage.deliver(Prepare)
    stage.deliver(Promise, sender="a1")
    stage.deliver(Promise, sender="a2")
    stage.remark('p2 wanted to propose "y". Its majority reports "x", so it proposes "x".')
    stage.run()
    return stage


def _two_before() -> Stage:
    stage = Stage("previous-value: of several values, the one of the highest ballot")
    first, second, third = stage.cast(*(ProposerActor(name, ACCEPTORS) for name in ("p1", "p2", "p3")))
    stage.cast(*map(AcceptorActor, ACCEPTORS))
    _accept_at_one(stage, first, 1, "x", at="a1")
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
    stage.remark('The majority of p3 reports "x" under ballot 1 and "y" under ballot 2, so p3 proposes "y".')
    stage.run()
    return stage


def _accept_at_one(stage: Stage, proposer: ProposerActor, number: int, value: str, at: str) -> None:
    """Let only the acceptor `at` accept `value`, and lose its answer."""
    stage.act(proposer, proposer.prepare(number, value))
    stage.deliver(Prepare)
    stage.deliver(Promise)
    stage.deliver(Accept, to=at)
    stage.lose(Accept)
    stage.lose(Accepted)


def ignored() -> Scene:
    """Show that an acceptor that promised n refuses any lower ballot."""
    stage = Stage("ignored: messages below a promise")
    low, high = stage.cast(ProposerActor("p1", ["a1"]), ProposerActor("p2", ["a1"]))
    stage.cast(AcceptorActor("a1"))
    stage.act(low, low.prepare(3, "x"))
    stage.deliver(Prepare)
    stage.deliver(Promise)
    stage.act(high, high.prepare(4, "y"))
    stage.deliver(Prepare)
    stage.remark("a1 promised ballot 3 to p1, but has promised 4 to p2 since. The Accept of p1 comes too late.")
    stage.deliver(Accept)
    stage.run()
    stage.act(low, low.prepare(2, "x"))
    stage.run()
    return Scene(
        [stage],
        "In the lecture the acceptor stays silent. Here it answers with its promise, so that the proposer\n"
        "does not wait in vain and knows which number to exceed. Both are safe.",
    )
