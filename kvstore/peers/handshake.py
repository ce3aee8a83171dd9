"""How two replicas make sure of each other before any message is decoded: pure, bytes in and bytes out.

Each replica dials each other one twice, once for each channel, and only sends on the links that it dialled. Every link
opens with:

      dialer                          listener
        | Hello                          |      who I am, what I speak, what the link is for, and a nonce
        |------------------------------->|      a common version? same cluster? a member, and not myself?
        |                      Challenge |      who I am, the version to speak, my nonce, and my proof
        |<-------------------------------|
        | Proof                          |      is it whom I dialled? is the proof right? is it that life? then mine
        |------------------------------->|      is the proof right? is it that life?
        |                        Welcome |
        |<-------------------------------|

Whoever answers "no" sends Refusal, with the reason for the other side's log, and closes.

A proof is HMAC-SHA256 under the cluster's shared secret over everything that both sides said, byte by byte: whoever
does not know a field of a later release proves it nevertheless. The two nonces make it fresh: a recorded proof is
worthless on another link. The role in it makes the proofs of the two ends different: one sent back to its maker proves
nothing. All this shows who opened the link; it encrypts nothing. And whoever can listen, or dial, may try secrets
against a proof at home, so the secret must be long and random.

A disk that was wiped, copied or put back must not vote in the name of the one that it replaced. So both ends prove
their Identity: the incarnation of their data, how often a process has started on it, and a number of this very process.
A peer has to be of the incarnation that the cluster has enrolled, or, as long as it has enrolled none, of the one that
it proved first. The newest life that it proved is remembered for as long as this process lives:

      fewer starts than it had       an older copy of the data has been put in the place of the newer: it forgot votes
      as many, in another process    one state of the data was started twice: only one of them can be the replica
      more                           it has restarted, and its earlier lives are over
"""

import hashlib
import hmac
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, NamedTuple

import msgspec

from paxos import wire
from paxos.types import NodeId

NONCE_BYTES = 32
MAX_HANDSHAKE_BYTES = 1024
"""Longest frame on a link whose other end has not proved itself."""

LIFE_BITS = 62
"""Random bits that tell two processes from each other, drawn when one starts."""

MAX_CLUSTER_CHARS = 128
MAX_TERMS_CHARS = 256
_MAX_TEXT_CHARS = 240  # fits MAX_HANDSHAKE_BYTES at 4 bytes each

_Nonce = Annotated[bytes, msgspec.Meta(min_length=NONCE_BYTES, max_length=NONCE_BYTES)]
_Digest = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
_Count = Annotated[int, msgspec.Meta(ge=0)]
_Boot = Annotated[int, msgspec.Meta(ge=1)]


class Channel(StrEnum):
    """What a link is for. Each has a connection of its own, so that what is long never stands before what is urgent."""

    MESSAGES = "messages"
    BULK = "bulk"
    """Pages of the log and of snapshots."""


class Identity(NamedTuple):
    """One life of one replica: the `incarnation` of its data, the durable count of the starts on that data, from 1 and
    with this one, and the LIFE_BITS of the process."""

    incarnation: int
    boot: int
    life: int


class LinkRefusal(StrEnum):
    """Why a link was refused; the label of the metric that counts refusals."""

    VERSION = "version"
    CLUSTER = "wrong-cluster"
    UNKNOWN_NODE = "unknown-node"
    OWN_ID = "own-id"
    TERMS = "other-terms"
    WRONG_NODE = "wrong-node"
    PROOF = "wrong-secret"
    INCARNATION = "other-incarnation"
    OLDER_COPY = "older-copy"
    USED_TWICE = "used-twice"
    TOO_LONG = "frame-too-long"
    GARBAGE = "garbage"
    TIMEOUT = "handshake-timeout"
    BUSY = "too-many-connections"
    OTHER = "other"
    """A peer of a later release gave a reason that this one has no name for."""

    @classmethod
    def _missing_(cls, value: object) -> "LinkRefusal":  # noqa: ARG003 - the enum's interface
        return cls.OTHER


class LinkRefused(Exception):
    """The link must end. `by_peer`: the other side refused it; otherwise send it `refusal` before closing."""

    def __init__(self, reason: LinkRefusal, text: str, *, by_peer: bool = False) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text
        self.by_peer = by_peer


class _Handshake(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Base of the handshake's messages. Fields that a later version appends are skipped, so that it can be named."""


class Hello(_Handshake, frozen=True):
    """Dialer to listener, first: the versions in which it can send messages, `lowest` to `version`, who it is, by which
    settings it goes that must be the same everywhere, and what it wants the link for. `replaces`: the incarnation of
    its former data, which was damaged: it asks to be given a place with the new one."""

    version: Annotated[int, msgspec.Meta(ge=0)]
    cluster: Annotated[str, msgspec.Meta(max_length=MAX_CLUSTER_CHARS)]
    node: NodeId
    incarnation: _Count
    nonce: _Nonce
    terms: Annotated[str, msgspec.Meta(max_length=MAX_TERMS_CHARS)]
    boot: _Boot
    life: _Count
    channel: Channel
    replaces: _Count = 0
    lowest: _Count = 0

    @property
    def versions(self) -> wire.Versions:
        """What the dialer can send."""
        return wire.Versions(self.lowest or self.version, self.version)

    @property
    def identity(self) -> Identity:
        """What the dialer will have to prove."""
        return Identity(self.incarnation, self.boot, self.life)


class _AnyHello(_Handshake, frozen=True, tag="Hello"):
    """How the Hello of every release begins, for ever, so that its version can be named."""

    version: _Count
    cluster: str
    node: NodeId


class Challenge(_Handshake, frozen=True):
    """Listener to dialer: who answers, which version messages shall have, and the proof that it knows the secret."""

    node: NodeId
    incarnation: _Count
    nonce: _Nonce
    proof: _Digest
    boot: _Boot
    life: _Count
    version: _Count = 0

    @property
    def identity(self) -> Identity:
        """What the proof is for."""
        return Identity(self.incarnation, self.boot, self.life)


class Proof(_Handshake, frozen=True):
    """Dialer to listener: its own proof."""

    proof: _Digest


class Welcome(_Handshake, frozen=True):
    """Listener to dialer: messages may follow."""


class Refusal(_Handshake, frozen=True):
    """Either side, at any time, last: why the link ends and what to do about it."""

    reason: LinkRefusal
    text: Annotated[str, msgspec.Meta(max_length=_MAX_TEXT_CHARS)]


_NO_PROOF = bytes(32)

_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(Hello | Challenge | Proof | Welcome | Refusal)
_any_hello_decoder = msgspec.msgpack.Decoder(_AnyHello)


@dataclass(slots=True)
class LocalEnd:
    """This replica as its links present it, and what it knows of its peers (a dataclass, because its repr can leave the
    secret out).

    `peers`: the other members. `terms`: what all members must agree on, as pairs `name=value` with spaces between them;
    safety rests on it. What only one side names is no conflict.
    `enrolled`: the incarnation of each peer that has one by the word of the cluster; `newcomers` have none yet. `seen`:
    the newest that each peer proved. `replacement_requests`: the incarnation that each peer has lost to damage, and wants replaced
    by another. Raises ValueError on a cluster name or terms that no handshake could carry. `versions`: of messages,
    that are spoken here.
    """

    cluster: str
    node: str
    identity: Identity
    secret: bytes = field(repr=False)
    peers: frozenset[str]
    terms: str = ""
    replaces: int = 0
    enrolled: dict[str, int] = field(default_factory=dict)
    newcomers: frozenset[str] = frozenset()
    replacement_requests: dict[str, int] = field(default_factory=dict)
    versions: wire.Versions = field(default_factory=wire.spoken)
    seen: dict[str, Identity] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.cluster) > MAX_CLUSTER_CHARS:
            raise ValueError(f"cluster name of {len(self.cluster)} characters: use at most {MAX_CLUSTER_CHARS}")
        if len(self.terms) > MAX_TERMS_CHARS:
            raise ValueError(f"terms of {len(self.terms)} characters: use at most {MAX_TERMS_CHARS}")

    def set_peers(self, peers: Iterable[str]) -> None:
        """Other members from now on. What was seen of one that is none any more is forgotten."""
        self.peers = frozenset(peers)
        self.seen = {peer: identity for peer, identity in self.seen.items() if peer in self.peers}

    def enrol(self, incarnations: Mapping[str, int], newcomers: Collection[str] = ()) -> None:
        """The cluster's word from now on; `newcomers` are the members that come with data which nobody has seen. What
        was seen of a peer is forgotten where it contradicts that word, and where it was before the peer became a
        newcomer, or the cluster took its word back: then the next proof is the first one."""
        taken_back = (self.enrolled.keys() - incarnations.keys()) | (set(newcomers) - self.newcomers)
        self.enrolled, self.newcomers = dict(incarnations), frozenset(newcomers)
        self.seen = {
            peer: identity
            for peer, identity in self.seen.items()
            if peer not in taken_back and self._awaited(peer, identity) == identity.incarnation
        }

    def recognise(self, peer: str, identity: Identity) -> None:
        """Remember what `peer` proved. Raises LinkRefused unless it is the peer's newest life on the peer's disk."""
        known = self.seen.get(peer, identity)
        awaited = self._awaited(peer, known)
        replace = f"run `kvstore member replace {peer}`"
        if identity.incarnation != awaited:
            text = f"{peer!r} has other data than before (incarnation {identity.incarnation:x}, was {awaited:x})"
            advice = f"give it its own data directory back, or, if that is lost, {replace}"
            raise LinkRefused(LinkRefusal.INCARNATION, f"{text}: {advice}")
        if identity.boot < known.boot:
            text = f"{peer!r} runs on an older copy of its data (boot {identity.boot}, was {known.boot})"
            advice = f"it has forgotten votes: give it the newer data back, or, if that is lost, {replace}"
            raise LinkRefused(LinkRefusal.OLDER_COPY, f"{text}; {advice}")
        if identity.boot == known.boot and identity.life != known.life:
            text = f"two processes were started as {peer!r} from one state of its data (boot {identity.boot})"
            advice = f"stop one, and remove its data if that is a copy; if only a copy is left, {replace}"
            raise LinkRefused(LinkRefusal.USED_TWICE, f"{text}: {advice}")
        self.seen[peer] = identity

    def _awaited(self, peer: str, known: Identity) -> int:
        return self.enrolled.get(peer, known.incarnation)


class Dialer:
    """The dialling end of one link, to `peer`. `proved` is set once that has proved itself, `done` once it has welcomed
    us; messages go in `version` then."""

    def __init__(self, local: LocalEnd, peer: str, channel: Channel, nonce: bytes) -> None:
        self.peer = peer
        self.channel = channel
        self.proved: Identity | None = None
        self.done = False
        self.version = 0
        self._local = local
        incarnation, boot, life = local.identity
        hello = Hello(
            local.versions.highest,
            local.cluster,
            local.node,
            incarnation,
            nonce,
            local.terms,
            boot,
            life,
            channel,
            local.replaces,
            local.versions.lowest,
        )
        self._hello = _encode(hello)
        self._challenge: Challenge | None = None

    def hello(self) -> bytes:
        """The payload that opens the link."""
        return self._hello

    def receive(self, payload: bytes) -> bytes | None:
        """Take one payload; the answer to send, if there is one. Raises LinkRefused."""
        match _decode(payload):
            case Challenge() as challenge if self._challenge is None:
                self._challenge = challenge
                # Whoever could choose a nonce that is its own proof would know the proof.
                return self._answer(challenge, payload.replace(challenge.proof, _NO_PROOF))
            case Welcome() if self._challenge is not None and not self.done:
                self.done = True
                return None
            case message:
                raise _unexpected(message)

    def _answer(self, challenge: Challenge, unproved: bytes) -> bytes:
        if challenge.node != self.peer:
            text = f"{self.peer!r} was dialled, but {challenge.node!r} answers: correct the address of {self.peer!r}"
            raise LinkRefused(LinkRefusal.WRONG_NODE, text)
        if not hmac.compare_digest(challenge.proof, _prove(self._local, "listener", self._hello, unproved)):
            raise _wrong_secret(self._local.node, self.peer)
        listened = wire.Versions(challenge.version, challenge.version)
        self.version = _common_version(self._local, self.peer, listened)
        self._local.recognise(self.peer, challenge.identity)
        self.proved = challenge.identity
        return _encode(Proof(_prove(self._local, "dialer", self._hello, unproved)))


class Listener:
    """The listening end of one link. `peer` is who the other end claims to be, `channel` what for; `proved` and `done`
    once it has proved that; messages come in `version` then."""

    def __init__(self, local: LocalEnd, nonce: bytes) -> None:
        self.peer = ""
        self.channel = Channel.MESSAGES
        self.proved: Identity | None = None
        self.done = False
        self.version = 0
        self._local = local
        self._nonce = nonce
        self._hello: Hello | None = None
        self._awaited = b""

    def receive(self, payload: bytes) -> bytes:
        """Take one payload; the answer to send. Raises LinkRefused."""
        try:
            message = _decode(payload)
        except LinkRefused as refused:
            if self._hello is None and not refused.by_peer:
                _refuse_other_release(self._local, payload)
            raise
        match message:
            case Hello() as hello if self._hello is None:
                self._hello = hello
                self.peer = hello.node
                self.channel = hello.channel
                self._refuse_stranger(hello)
                return self._challenge(payload)
            case Proof(proof) if self._hello is not None and self._awaited and not self.done:
                return self._admit(proof, self._hello)
            case _:
                raise _unexpected(message)

    def _refuse_stranger(self, hello: Hello) -> None:
        local = self._local
        self.version = _common_version(local, hello.node, hello.versions)
        if hello.cluster != local.cluster:
            text = f"{hello.node!r} is in cluster {hello.cluster!r}, {local.node!r} in cluster {local.cluster!r}"
            raise LinkRefused(LinkRefusal.CLUSTER, f"{text}: correct the cluster name, or the address that was dialled")
        if hello.node == local.node:
            text = f"{local.node!r} was dialled by {local.node!r}: give every replica an id of its own"
            raise LinkRefused(
                LinkRefusal.OWN_ID, f"{text}, and check that no peer's address leads back to the replica itself"
            )
        if hello.node not in local.peers:
            text = f"{hello.node!r} is not a member for {local.node!r}, which knows {', '.join(sorted(local.peers))}"
            advice = f"`kvstore member add {hello.node}` makes it one; stop it if it was removed"
            raise LinkRefused(LinkRefusal.UNKNOWN_NODE, f"{text}: {advice}")
        if _conflict(hello.terms, local.terms):
            text = f"{hello.node!r} goes by {hello.terms}; {local.node!r} by {local.terms}"
            raise LinkRefused(LinkRefusal.TERMS, f"{text}: stop all replicas, and start them with the same settings")

    def _challenge(self, hello: bytes) -> bytes:
        local = self._local
        incarnation, boot, life = local.identity
        challenge = Challenge(local.node, incarnation, self._nonce, _NO_PROOF, boot, life, self.version)
        unproved = _encode(challenge)
        self._awaited = _prove(local, "dialer", hello, unproved)
        return _encode(msgspec.structs.replace(challenge, proof=_prove(local, "listener", hello, unproved)))

    def _admit(self, proof: bytes, hello: Hello) -> bytes:
        if not hmac.compare_digest(proof, self._awaited):
            raise _wrong_secret(self._local.node, hello.node)
        if hello.replaces:
            self._local.replacement_requests[hello.node] = hello.replaces
        self._local.recognise(hello.node, hello.identity)
        self.proved = hello.identity
        self.done = True
        return _encode(Welcome())


def refusal(refused: LinkRefused) -> bytes:
    """The payload that tells the other side why the link ends."""
    return _encode(Refusal(refused.reason, refused.text[:_MAX_TEXT_CHARS]))


def _decode(payload: bytes) -> Hello | Challenge | Proof | Welcome:
    try:
        message: Hello | Challenge | Proof | Welcome | Refusal = _decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise LinkRefused(LinkRefusal.GARBAGE, f"not a handshake ({error}): only replicas may connect here") from error
    if isinstance(message, Refusal):
        printable = "".join(char if char.isprintable() else "?" for char in message.text)  # it goes to the log
        raise LinkRefused(message.reason, printable, by_peer=True)
    return message


def _prove(local: LocalEnd, role: str, hello: bytes, unproved: bytes) -> bytes:
    """`unproved` is the Challenge with zeros in the place of its proof."""
    # As msgpack every part carries its own length: no two transcripts have the same bytes.
    return hmac.digest(local.secret, _encode((f"kvstore peer link, {role}", hello, unproved)), hashlib.sha256)


def _common_version(local: LocalEnd, peer: str, theirs: wire.Versions) -> int:
    common = local.versions.common(theirs)
    if common is None:
        text = f"{peer!r} speaks {theirs}, {local.node!r} {local.versions}"
        raise LinkRefused(LinkRefusal.VERSION, f"{text}: run releases that share a version on all replicas")
    return common


def _refuse_other_release(local: LocalEnd, payload: bytes) -> None:
    """`payload` cannot be read. Raises LinkRefused if it is the Hello of a release that shares no version."""
    try:
        hello = _any_hello_decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return
    _common_version(local, hello.node, wire.Versions(hello.version, hello.version))


def _conflict(theirs: str, ours: str) -> bool:
    """Whether both name something in `name=value` pairs, and differ in it."""
    here, there = (dict(pair.split("=", 1) for pair in terms.split() if "=" in pair) for terms in (ours, theirs))
    return any(there[name] != here[name] for name in there.keys() & here.keys())


def _wrong_secret(node: str, peer: str) -> LinkRefused:
    return LinkRefused(
        LinkRefusal.PROOF, f"{node!r} and {peer!r} have different secrets: give all replicas the same one"
    )


def _unexpected(message: object) -> LinkRefused:
    return LinkRefused(LinkRefusal.GARBAGE, f"{type(message).__name__} out of turn: only replicas may connect here")
