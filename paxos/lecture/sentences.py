"""Messages in the words of the lecture, and which rule was applied to each."""

from typing import TypeVar

from paxos.lecture.actors import Actor, Acts, LearnerActor, ProposerActor, spell
from paxos.messages import (
    Accept,
    Accepted,
    AnyMessage,
    Chosen,
    Fetch,
    Heartbeat,
    HeartbeatAck,
    Learn,
    Message,
    Prepare,
    PreVote,
    PreVoteReply,
    Promise,
    Propose,
    ReadIndex,
    ReadIndexReply,
    Reject,
    ReleaseLease,
)
from paxos.types import NodeId, PValue

M = TypeVar("M", bound=Message)


def label(message: AnyMessage) -> str:
    """What stands at its arrow."""
    match message:
        case Prepare(ballot=ballot, from_slot=from_slot):
            return f"Prepare({ballot})" if from_slot == 1 else f"Prepare({ballot}, from slot {from_slot})"
        case Promise(ballot=ballot, accepted=accepted):
            return f"Promise({ballot}{''.join(f', {_pvalue(pvalue)}' for pvalue in accepted)})"
        case Accept(ballot=ballot, slot=slot, value=value):
            return f"Accept({ballot}, slot {slot}: {spell(value)})"
        case Accepted(ballot=ballot, slot=slot):
            return f"Accepted({ballot}, slot {slot})"
        case Chosen(ballot=ballot, upto=upto):
            return f"Chosen({ballot}, up to slot {upto})"
        case Reject(ballot=ballot, promised=promised):
            return f"Reject({ballot}: promised {promised})" if promised > ballot else f"Reject({ballot}: not now)"
        case _:
            return _label_of_replicas(message)


def _label_of_replicas(message: AnyMessage) -> str:
    match message:
        case Heartbeat(ballot=ballot, nonce=nonce):
            return f"Heartbeat({ballot}, round {nonce})"
        case HeartbeatAck(nonce=nonce, granted=granted):
            return f"HeartbeatAck(round {nonce}, {'granted' if granted else 'no grant'})"
        case PreVote():
            return "PreVote: would you promise?"
        case PreVoteReply(willing=willing):
            return f"PreVoteReply({'yes' if willing else 'no'})"
        case Propose(payloads=payloads):
            return f"Propose({', '.join(payload.decode() for payload in payloads)})"
        case ReadIndex():
            return "ReadIndex: how far must I be?"
        case ReadIndexReply(slot=slot):
            return f"ReadIndexReply(slot {slot})"
        case Fetch(from_slot=from_slot):
            return f"Fetch(from slot {from_slot})"
        case Learn(entries=entries):
            return f"Learn({', '.join(map(_pvalue, entries))})"
        case ReleaseLease(ballot=ballot, successor=successor):
            return f"ReleaseLease({ballot}, next: {successor})"
        case _:
            return type(message).__name__


def _pvalue(pvalue: PValue) -> str:
    return f"slot {pvalue.slot}: {spell(pvalue.value)} by {pvalue.ballot}"


def sentence(actor: Actor, sender: NodeId, message: AnyMessage, acts: Acts) -> str:
    """What `actor` did about `message`, and why: `acts` are its answers."""
    name = actor.name
    refusal = _answer(acts, Reject)
    match message:
        case Prepare() | Accept() | Heartbeat() if refusal is not None:
            return _refused(name, refusal)
        case Prepare(ballot=ballot):
            return (
                f"{name} has promised nothing above {ballot}: it promises, on disk before it answers, and tells what "
                "it has accepted (rules 1 and 8)."
            )
        case Accept() if isinstance(actor, LearnerActor):
            return f"{name} holds it, and does not know yet whether it is chosen. Its vote would not count."
        case Accept(ballot=ballot):
            return f"No promise above {ballot} stands against it: {name} accepts, on disk before it answers (rule 1)."
        case Chosen(upto=upto) if isinstance(actor, ProposerActor):
            return f"{name} need not ask for the slots up to {upto}: if it ever prepares, then from behind them on."
        case Chosen():
            return f"{name} holds the value under this very ballot, so it knows that this is the chosen one (rule 12)."
        case Reject(ballot=ballot, promised=promised) if promised < ballot:
            return f"{sender} will promise later: for now it may have granted a lease."
        case Promise() | Accepted() | Reject() if isinstance(actor, ProposerActor):
            return _of_proposers(actor, sender, message, acts)
        case _:
            return _of_replicas(name, sender, message, acts)


def _answer(acts: Acts, kind: type[M]) -> M | None:
    """The first message of this kind among them."""
    return next((act.message for act in acts if isinstance(act.message, kind)), None)


def _refused(name: NodeId, refusal: Reject) -> str:
    if refusal.promised > refusal.ballot:
        return f"{name} has promised {refusal.promised}, so nothing below it: it refuses, and says why (rule 8)."
    return f"{name} may have granted a lease: until that is over it promises nobody else (rules 16 and 17)."


def _of_proposers(proposer: ProposerActor, sender: NodeId, message: Promise | Accepted | Reject, acts: Acts) -> str:
    name, phase1 = proposer.name, proposer.phase1
    if phase1 is None or message.ballot != phase1.ballot:
        return f"It belongs to a ballot that {name} has given up: it does not count (rule 9)."
    match message:
        case Reject(ballot=ballot, promised=promised):
            return (
                f"No vote of {sender} for {ballot} any more: without a majority of the others {name} has to try again, "
                f"above {promised} and after a while (rule 14)."
            )
        case Accepted(ballot=ballot, slot=slot):
            if slot not in proposer.chosen:
                return f"{name} counts by name, and needs a majority (rule 9)."
            if not proposer.notes:
                return f"Slot {slot} is chosen already: one more changes nothing."
            return f"A majority has accepted slot {slot} under {ballot}: it is chosen, for ever."
        case _:
            return _promised(proposer, phase1.recovered(), acts)


def _promised(proposer: ProposerActor, recovered: list[bytes], acts: Acts) -> str:
    name = proposer.name
    if proposer.pipeline is None:
        return f"{name} needs promises of a majority: any two majorities have an acceptor in common."
    if not acts:
        return f"{name} has had its majority already: this one changes nothing."
    if recovered:
        values = ", ".join(map(spell, recovered))
        return (
            f"A majority has promised. Some have accepted a value: {name} must go on with that of the highest ballot, "
            f"{values} (rule 10)."
        )
    return f"A majority has promised, and none of them has accepted anything: {name} is free to propose its own value."


def _of_replicas(name: NodeId, sender: NodeId, message: AnyMessage, acts: Acts) -> str:
    match message:
        case Promise() | Accepted():
            return f"{name} counts the answers of a majority, by name (rule 9)."
        case Propose():
            return f"{name} leads: it puts what {sender} was asked for into the next slot."
        case Fetch():
            return f"{name} sends what of it is chosen, each slot with the ballot under which it holds it (rule 12)."
        case Learn():
            return f"{name} takes it as chosen, and has no gap any more (rule 12)."
        case _:
            return _of_leases(name, sender, message, acts)


def _of_leases(name: NodeId, sender: NodeId, message: AnyMessage, acts: Acts) -> str:
    match message:
        case PreVote():
            return f"{name} tells whether it would promise. That changes nothing and deposes nobody (rule 13)."
        case PreVoteReply(willing=True):
            return f"{sender} would promise: {name} prepares when a majority would (rule 13)."
        case PreVoteReply():
            return f"{sender} has granted a lease and would not promise: {name} needs a majority that would (rule 13)."
        case Heartbeat() if (ack := _answer(acts, HeartbeatAck)) is not None and not ack.granted:
            return f"{name} answers, and grants nothing: what it has granted to another is not over (rule 16)."
        case Heartbeat():
            return f"{name} grants: for one lease from now it promises to nobody else (rules 15 and 16)."
        case HeartbeatAck(granted=True):
            return f"With a majority of grants the lease of {name} runs from when it has asked (rule 15)."
        case HeartbeatAck():
            return f"{sender} follows, and has granted nothing: for its lease {name} needs others (rule 16)."
        case Reject(ballot=ballot, promised=promised):
            return f"{promised} outbids {ballot}: {name} does not lead, whatever it thought, and has to ask who does."
        case ReadIndex() if _answer(acts, ReadIndexReply) is not None:
            return f"{name} leads: with its lease it knows how far whoever reads must have applied, and asks nobody."
        case ReadIndexReply():
            return f"{name} may answer its reads as soon as it has applied that slot."
        case ReleaseLease():
            return f"{sender} leads no more and gives its grants back: {name} need not wait for their end."
        case _:
            return f"{name} takes note."
