"""The text of the diagrams: a label for each message, and a sentence that explains how the receiver processed it."""

from typing import TypeVar

from paxos.lecture.actors import Actor, LearnerActor, Outgoing, ProposerActor, spell
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
    """Return the text at the arrow of a message."""
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
            return _replica_label(message)


def _replica_label(message: AnyMessage) -> str:
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
            return "ReadIndex: which slot must I apply?"
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


def sentence(actor: Actor, sender: NodeId, message: AnyMessage, outgoing: Outgoing) -> str:
    """Return a sentence that says what `actor` did with `message` and why. `outgoing` are the messages that it sent."""
    name = actor.name
    refusal = _first_of(outgoing, Reject)
    match message:
        case Prepare() | Accept() | Heartbeat() if refusal is not None:
            return _refusal_sentence(name, refusal)
        case Prepare(ballot=ballot):
            return (
                f"{name} has promised no ballot above {ballot}: it promises, stores the promise before it answers, and "
                "reports the values that it has accepted (rules 1 and 8)."
            )
        case Accept() if isinstance(actor, LearnerActor):
            return f"{name} stores the value and does not know yet whether it is chosen. A learner has no vote."
        case Accept(ballot=ballot):
            return f"{name} has promised no ballot above {ballot}: it stores the value, then answers (rule 1)."
        case Chosen(upto=upto) if isinstance(actor, ProposerActor):
            return f"{name} need not prepare the slots up to {upto} if it tries to lead later."
        case Chosen():
            return f"{name} holds a value of the same ballot, so it holds the chosen value (rule 12)."
        case Reject(ballot=ballot, promised=promised) if promised < ballot:
            return f"{sender} does not promise now, because it may have granted a lease."
        case Promise() | Accepted() | Reject() if isinstance(actor, ProposerActor):
            return _proposer_sentence(actor, sender, message, outgoing)
        case _:
            return _replica_sentence(name, sender, message, outgoing)


def _first_of(outgoing: Outgoing, kind: type[M]) -> M | None:
    """Return the first message of this kind, None if there is none."""
    return next((act.message for act in outgoing if isinstance(act.message, kind)), None)


def _refusal_sentence(name: NodeId, refusal: Reject) -> str:
    if refusal.promised > refusal.ballot:
        return f"{name} has promised {refusal.promised}: it refuses the lower ballot and reports its promise (rule 8)."
    return f"{name} may have granted a lease: until that ends it promises to no other candidate (rules 16 and 17)."


def _proposer_sentence(
    proposer: ProposerActor, sender: NodeId, message: Promise | Accepted | Reject, outgoing: Outgoing
) -> str:
    name, phase1 = proposer.name, proposer.phase1
    if phase1 is None or message.ballot != phase1.ballot:
        return f"The message belongs to a ballot that {name} has given up: it does not count (rule 9)."
    match message:
        case Reject(ballot=ballot, promised=promised):
            return (
                f"{sender} no longer votes for {ballot}: without a majority of the others, {name} must try again after "
                f"a random delay, with a ballot above {promised} (rule 14)."
            )
        case Accepted(ballot=ballot, slot=slot):
            if slot not in proposer.chosen:
                return f"{name} counts each acceptor once and needs a majority (rule 9)."
            if not proposer.notes:
                return f"Slot {slot} is chosen already: a further vote changes nothing."
            return f"A majority has accepted slot {slot} under {ballot}: the value is chosen and will never change."
        case _:
            return _promise_sentence(proposer, phase1.recovered(), outgoing)


def _promise_sentence(proposer: ProposerActor, recovered: list[bytes], outgoing: Outgoing) -> str:
    name = proposer.name
    if proposer.pipeline is None:
        return f"{name} needs promises of a majority, because any two majorities have an acceptor in common."
    if not outgoing:
        return f"{name} has a majority already: a further promise changes nothing."
    if recovered:
        values = ", ".join(map(spell, recovered))
        return (
            f"A majority has promised, and some of its acceptors have accepted a value: {name} must propose the value "
            f"of the highest ballot, {values} (rule 10)."
        )
    return f"A majority has promised, and none of its acceptors has accepted a value: {name} may propose its own value."


def _replica_sentence(name: NodeId, sender: NodeId, message: AnyMessage, outgoing: Outgoing) -> str:
    match message:
        case Promise() | Accepted():
            return f"{name} counts each sender once and needs a majority (rule 9)."
        case Propose():
            return f"{name} leads: it proposes the command of {sender} in the next slot."
        case Fetch():
            return f"{name} sends the chosen slots, each with the ballot under which it holds the value (rule 12)."
        case Learn():
            return f"{name} takes the values as chosen, which closes the gap in its log (rule 12)."
        case _:
            return _lease_sentence(name, sender, message, outgoing)


def _lease_sentence(name: NodeId, sender: NodeId, message: AnyMessage, outgoing: Outgoing) -> str:
    match message:
        case PreVote():
            return f"{name} says whether it would promise. This changes nothing and deposes nobody (rule 13)."
        case PreVoteReply(willing=True):
            return f"{sender} would promise. {name} prepares once a majority would (rule 13)."
        case PreVoteReply():
            return f"{sender} would not promise: it may have granted a lease. {name} needs a majority (rule 13)."
        case Heartbeat() if (ack := _first_of(outgoing, HeartbeatAck)) is not None and not ack.granted:
            return f"{name} answers without a grant, because its grant to another leader has not ended (rule 16)."
        case Heartbeat():
            return f"{name} grants a lease: until it ends, {name} promises to no other candidate (rules 15 and 16)."
        case HeartbeatAck(granted=True):
            return f"The lease of {name} counts from the time its heartbeat left, if a majority grants it (rule 15)."
        case HeartbeatAck():
            return f"{sender} follows {name} but grants no lease: {name} needs grants of other acceptors (rule 16)."
        case Reject(ballot=ballot, promised=promised):
            return f"{promised} is above {ballot}: {name} no longer leads, and must find the new leader."
        case ReadIndex() if _first_of(outgoing, ReadIndexReply) is not None:
            return f"{name} leads: under its lease it answers with its chosen prefix, without asking another replica."
        case ReadIndexReply():
            return f"{name} may answer its reads once it has applied that slot."
        case ReleaseLease():
            return f"{sender} stops leading and releases its lease: the grant of {name} to {sender} ends at once."
        case _:
            return f"{name} takes note."
