"""Messages in the words of the lecture, and which rule was applied to each."""

from paxos.lecture.actors import Actor, Acts, LearnerActor, ProposerActor, spell
from paxos.messages import (
    Accept,
    Accepted,
    AnyMessage,
    Canvass,
    CanvassReply,
    Chosen,
    Heartbeat,
    HeartbeatAck,
    Prepare,
    Promise,
    Propose,
    ReadIndex,
    ReadIndexReply,
    Reject,
    Release,
)
from paxos.types import NodeId, PValue


def label(message: AnyMessage) -> str:
    """What stands at its arrow."""
    match message:
        case Prepare(ballot=ballot):
            return f"Prepare({ballot})"
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
        case Canvass():
            return "Canvass: would you promise?"
        case CanvassReply(willing=willing):
            return f"CanvassReply({'yes' if willing else 'no'})"
        case Propose(payloads=payloads):
            return f"Propose({', '.join(payload.decode() for payload in payloads)})"
        case ReadIndex():
            return "ReadIndex: how far must I be?"
        case ReadIndexReply(slot=slot):
            return f"ReadIndexReply(slot {slot})"
        case Release(ballot=ballot, successor=successor):
            return f"Release({ballot}, next: {successor})"
        case _:
            return type(message).__name__


def _pvalue(pvalue: PValue) -> str:
    return f"slot {pvalue.slot}: {spell(pvalue.value)} by {pvalue.ballot}"


def sentence(actor: Actor, sender: NodeId, message: AnyMessage, acts: Acts) -> str:
    """What `actor` did about `message`, and why: `acts` are its answers."""
    name = actor.name
    refused = next((act.message for act in acts if isinstance(act.message, Reject)), None)
    match message:
        case Prepare() | Accept() if refused is not None:
            return f"{name} has promised {refused.promised}, so nothing below it: it refuses, and says why (rule 8)."
        case Prepare(ballot=ballot):
            return (
                f"{name} has promised nothing above {ballot}: it promises, on disk before it answers, and tells what "
                "it has accepted (rules 1 and 8)."
            )
        case Accept() if isinstance(actor, LearnerActor):
            return f"{name} holds it, and does not know yet whether it is chosen. Its vote would not count."
        case Accept(ballot=ballot):
            return f"No promise above {ballot} stands against it: {name} accepts, on disk before it answers (rule 1)."
        case Promise() | Accepted() if isinstance(actor, ProposerActor):
            return _counted(actor, message, acts)
        case Chosen():
            return f"{name} holds the value under this very ballot, so it knows that this is the chosen one (rule 12)."
        case Reject(promised=promised):
            return f"{name} is outbid by {promised}: it cannot win under its ballot any more (rule 7)."
        case _:
            return _of_replicas(name, sender, message)


def _counted(proposer: ProposerActor, message: Promise | Accepted, acts: Acts) -> str:
    name, campaign, pipeline = proposer.name, proposer.campaign, proposer.pipeline
    if campaign is None or message.ballot != campaign.ballot:
        return f"It belongs to a ballot that {name} has given up: it does not count (rule 9)."
    if isinstance(message, Accepted):
        if message.slot in proposer.chosen:
            return f"A majority has accepted slot {message.slot} under {message.ballot}: it is chosen, for ever."
        return f"{name} counts by name, and needs a majority (rule 9)."
    if pipeline is None:
        return f"{name} needs promises of a majority: any two majorities have an acceptor in common."
    if not acts:
        return f"{name} has had its majority already: this one changes nothing."
    recovered = campaign.recovered()
    if recovered:
        values = ", ".join(map(spell, recovered))
        return (
            f"A majority has promised. Some have accepted a value: {name} must go on with that of the highest ballot, "
            f"{values} (rule 10)."
        )
    return f"A majority has promised, and none of them has accepted anything: {name} is free to propose its own value."


def _of_replicas(name: NodeId, sender: NodeId, message: AnyMessage) -> str:
    match message:
        case Promise() | Accepted():
            return f"{name} counts the answers of a majority, by name (rule 9)."
        case Propose():
            return f"{name} leads: it puts what {sender} was asked for into the next slot."
        case Canvass():
            return f"{name} tells whether it would promise. That changes nothing and deposes nobody (rule 13)."
        case CanvassReply(willing=willing):
            return (
                f"{sender} {'would promise' if willing else 'would not promise'}: {name} prepares with a majority only."
            )
        case Heartbeat():
            return f"{name} grants: for one lease from now it promises to nobody else (rules 15 and 16)."
        case HeartbeatAck():
            return f"With a majority of grants the lease of {name} runs from when it has asked (rule 15)."
        case ReadIndex():
            return f"{name} leads: with its lease it knows how far whoever reads must have applied, and asks nobody."
        case ReadIndexReply():
            return f"{name} may answer its reads as soon as it has applied that slot."
        case Release():
            return f"{sender} leads no more and gives its grants back: {name} need not wait for their end."
        case _:
            return f"{name} takes note."
