"""The handshake by which two replicas authenticate each other before they decode any message. Pure: it does no I/O.

Each replica dials every other replica twice, once for each channel, and sends only on the links that it dialled. Every
link opens with four messages:

      dialer                          listener
        | Hello                          |      identity, versions, settings, channel, nonce
        |------------------------------->|      same cluster, a member, common version, equal settings?
        |                      Challenge |      identity, version to use, nonce, proof
        |<-------------------------------|
        | Proof                          |      the dialled node, a valid proof, an admissible identity?
        |------------------------------->|      a valid proof, an admissible identity?
        |                        Welcome |
        |<-------------------------------|

If the answer to a question is no, that end sends Refusal with the reason, which the other end logs, and closes.

A proof is the HMAC-SHA256, keyed with the shared secret of the cluster, of the role of its sender and of all bytes of
the messages up to its own (with zeros in place of the proofs), including fields that only a later release can read. The
two nonces make each proof unique, so a recorded proof is worthless on another link. The role makes the proofs of the
two ends different, so a proof that is reflected to its sender is invalid. The handshake authenticates the ends; it
encrypts nothing. An attacker who can listen or dial can test guesses of the secret offline, so the secret must be long
and random.

A replica whose data was wiped, copied or restored has forgotten votes, and must not vote again under its name.
Therefore both ends prove a ProcessIdentity: the incarnation of the data, the number of starts on that data, and the
random number of the start. A peer must have the incarnation that the cluster has enrolled or, while none is enrolled,
the incarnation that the peer proved first. A replica also keeps the newest start that it has seen on the data of each
peer. The start is durable before the link is used, so it is known after a restart, too:

      fewer starts                       the peer runs on an older copy of its data, which lacks votes: refused
      as many starts, another number     two processes were started from the same state of the data: refused
      more starts                        the peer has restarted; links to its earlier processes are dropped

In the last case the data may still be a copy, made before the start that was seen, and started again since. Therefore
Challenge and Proof tell the peer which start was seen. Only the peer has the numbers of all its starts: it refuses the
link if its data does not include the start.
"""

import hashlib
import hmac
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from kvstore.peers.compatibility import RESTORED, differing
from kvstore.peers.handshake_messages import (
    MAX_CLUSTER_CHARS,
    MAX_COMPATIBILITY_CHARS,
    NO_START,
    Challenge,
    Channel,
    Hello,
    LinkRefusal,
    LinkRefused,
    ProcessIdentity,
    Proof,
    Start,
    Welcome,
    any_hello_decoder,
    decode,
    encode,
)
from paxos import wire

_NO_PROOF = bytes(32)


@dataclass(slots=True)  # not a msgspec.Struct, whose repr would show the secret
class LocalEnd:
    """The identity of this replica and its knowledge of its peers, shared by all links.

    Raises ValueError if the cluster name or the compatibility string is too long for a handshake.
    """

    cluster: str
    node: str
    identity: ProcessIdentity
    secret: bytes = field(repr=False)
    peers: frozenset[str]
    """Names of the other members."""
    compatibility: str = ""
    """Settings that must be equal on both ends, see `kvstore.peers.compatibility`."""
    replaces: int = 0
    """Incarnation of this replica's former, damaged data; 0 for none."""
    enrolled: dict[str, int] = field(default_factory=dict)
    """Enrolled incarnation of each peer, from the membership."""
    unverified: frozenset[str] = frozenset()
    """Peers that were added or replaced and have not proved their new data yet."""
    replacement_requests: dict[str, int] = field(default_factory=dict)
    """Former, damaged incarnation of each peer that asks to be replaced."""
    versions: wire.Versions = field(default_factory=wire.supported)
    """Message versions that this release speaks."""
    last_proved: dict[str, ProcessIdentity] = field(default_factory=dict)
    """Newest identity that each peer proved to this process."""
    seen: dict[int, Start] = field(default_factory=dict)
    """Newest start that was seen of the data of each incarnation, also by earlier processes of this replica."""
    includes: Callable[[int, int], bool] = lambda _boot, _life: True
    """Function that returns False if the data of this replica does not come from the start of this boot and life."""
    binds: bool = True
    """True if a peer without an enrolled incarnation must keep the incarnation that it proved first. False before this
    replica knows a membership: a peer that has no data either may still lose its empty disk."""

    def __post_init__(self) -> None:
        if len(self.cluster) > MAX_CLUSTER_CHARS:
            raise ValueError(f"cluster name of {len(self.cluster)} characters: use at most {MAX_CLUSTER_CHARS}")
        if len(self.compatibility) > MAX_COMPATIBILITY_CHARS:
            text = f"compatibility string of {len(self.compatibility)} characters"
            raise ValueError(f"{text}: use at most {MAX_COMPATIBILITY_CHARS}")

    def set_peers(self, peers: Iterable[str]) -> None:
        """Replace the names of the other members, and forget the identities of removed members."""
        self.peers = frozenset(peers)
        self.last_proved = {peer: identity for peer, identity in self.last_proved.items() if peer in self.peers}

    def enrol(self, incarnations: Mapping[str, int], unverified: Collection[str] = ()) -> None:
        """Replace the enrolled incarnations and the set of unverified peers.

        Forgets the last proved identity of a peer that contradicts its enrolled incarnation, that lost its enrolment,
        or that became unverified. The next identity that such a peer proves counts as the first one.
        """
        withdrawn = (self.enrolled.keys() - incarnations.keys()) | (set(unverified) - self.unverified)
        self.enrolled, self.unverified = dict(incarnations), frozenset(unverified)
        self.last_proved = {
            peer: identity
            for peer, identity in self.last_proved.items()
            if peer not in withdrawn and self._expected_incarnation(peer, identity) == identity.incarnation
        }

    def seen_of(self, identity: ProcessIdentity) -> Start:
        """Return the newest start that was seen of the data of `identity`."""
        return self.seen.get(identity.incarnation, NO_START)

    def recognise(self, peer: str, identity: ProcessIdentity, told: Start) -> None:
        """Record the identity that `peer` proved. The peer has been `told` the newest start that was seen of its data.

        Raises LinkRefused if its data or process is not the newest.
        """
        self.verify(peer, identity)
        if self.seen_of(identity) not in {told, identity.start}:
            text = (
                f"another process of {peer!r} was linked during this handshake; the next one will tell which is newer"
            )
            raise LinkRefused(LinkRefusal.USED_TWICE, text)
        self.last_proved[peer] = identity
        self.seen[identity.incarnation] = identity.start

    def verify(self, peer: str, identity: ProcessIdentity) -> None:
        """Raise LinkRefused if the data of `peer` is not its own, or older than the newest start that was seen."""
        known = self.last_proved.get(peer, identity)
        if not self.binds and known.incarnation != identity.incarnation:
            known = identity
        expected = self._expected_incarnation(peer, known)
        replace = f"run `kvstore member replace {peer}`"
        if identity.incarnation != expected:
            text = f"{peer!r} has other data than before (incarnation {identity.incarnation:x}, expected {expected:x})"
            advice = f"restore its own data directory or, if that is lost, {replace}"
            raise LinkRefused(LinkRefusal.INCARNATION, f"{text}: {advice}")
        seen = self.seen_of(identity)
        if identity.boot < seen.boot:
            raise _older_copy(peer, f"start {identity.boot}, was {seen.boot}")
        if identity.boot == seen.boot and identity.life != seen.life:
            text = f"two processes ran as {peer!r} from one state of its data (start {identity.boot})"
            advice = f"stop one of them, and remove its data if it is a copy; if only copies are left, {replace}"
            raise LinkRefused(LinkRefusal.USED_TWICE, f"{text}: {advice}")

    def verify_lineage(self, seen: Start) -> None:
        """Raise LinkRefused if the data of this replica does not include the start that a peer has `seen` of it. The
        peer itself refuses data with fewer starts, or as many."""
        boot = self.identity.boot
        if seen.boot < boot and not self.includes(*seen):
            raise _older_copy(self.node, f"start {boot}, without start {seen.boot} that was seen")

    def _expected_incarnation(self, peer: str, known: ProcessIdentity) -> int:
        return self.enrolled.get(peer, known.incarnation)


class Dialer:
    """The dialling end of one link to `peer`.

    `proved` is the identity that the peer has proved, or None. `done` is true once the peer has sent Welcome; from then
    on messages are encoded in `version`.
    """

    def __init__(self, local: LocalEnd, peer: str, channel: Channel, nonce: bytes) -> None:
        self.peer = peer
        self.channel = channel
        self.proved: ProcessIdentity | None = None
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
            local.compatibility,
            boot,
            life,
            channel,
            local.replaces,
            local.versions.lowest,
        )
        self._hello = encode(hello)
        self._challenge: Challenge | None = None
        self._told = NO_START

    def hello(self) -> bytes:
        """Return the payload that opens the link."""
        return self._hello

    def receive(self, payload: bytes) -> bytes | None:
        """Process one payload and return the answer to send, if any. Raises LinkRefused."""
        match decode(payload):
            case Challenge() as challenge if self._challenge is None:
                self._challenge = challenge
                # Only the proof is replaced: a payload with the same 32 bytes elsewhere has no valid proof.
                return self._answer(challenge, payload.replace(challenge.proof, _NO_PROOF))
            case Welcome() if self._challenge is not None and not self.done:
                self._local.recognise(self.peer, self._challenge.identity, self._told)
                self.proved = self._challenge.identity
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
        agreed = wire.Versions(challenge.version, challenge.version)
        self.version = _common_version(self._local, self.peer, agreed)
        self._local.verify(self.peer, challenge.identity)
        self._local.verify_lineage(challenge.seen)
        self._told = self._local.seen_of(challenge.identity)
        answer = Proof(_NO_PROOF, self._told)
        proof = _prove(self._local, "dialer", self._hello, unproved, encode(answer))
        return encode(msgspec.structs.replace(answer, proof=proof))


class Listener:
    """The listening end of one link.

    Until `done`, `peer` and `channel` are unproved claims of the dialer. From then on `proved` is its identity, and its
    messages are encoded in `version`.
    """

    def __init__(self, local: LocalEnd, nonce: bytes) -> None:
        self.peer = ""
        self.channel = Channel.MESSAGES
        self.proved: ProcessIdentity | None = None
        self.done = False
        self.version = 0
        self._local = local
        self._nonce = nonce
        self._hello: Hello | None = None
        self._transcript: tuple[bytes, ...] = ()
        """The messages so far, with zeros in place of their proofs, once Hello was answered."""
        self._told = NO_START

    def receive(self, payload: bytes) -> bytes:
        """Process one payload and return the answer to send. Raises LinkRefused."""
        try:
            message = decode(payload)
        except LinkRefused as refused:
            if self._hello is None and not refused.by_peer:
                _refuse_other_release(self._local, payload)
            raise
        match message:
            case Hello() as hello if self._hello is None:
                self._hello = hello
                self.peer = hello.node
                self.channel = hello.channel
                self._check_hello(hello)
                return self._challenge(payload, hello.identity)
            case Proof() as answer if self._hello is not None and self._transcript and not self.done:
                self._transcript += (payload.replace(answer.proof, _NO_PROOF),)
                return self._admit(answer, self._hello)
            case _:
                raise _unexpected(message)

    def _check_hello(self, hello: Hello) -> None:
        local = self._local
        self.version = _common_version(local, hello.node, hello.versions)
        if hello.cluster != local.cluster:
            text = f"{hello.node!r} is in cluster {hello.cluster!r}, {local.node!r} in cluster {local.cluster!r}"
            raise LinkRefused(
                LinkRefusal.CLUSTER, f"{text}: correct the setting `cluster`, or the address that was dialled"
            )
        if hello.node == local.node:
            text = f"{local.node!r} was dialled by {local.node!r}: give every replica its own name"
            raise LinkRefused(
                LinkRefusal.OWN_ID, f"{text}, and check that no peer has the address of {local.node!r} in the settings"
            )
        if hello.node not in local.peers:
            members = ", ".join(sorted(local.peers))
            text = f"{hello.node!r} is not a member known to {local.node!r}, which knows {members}"
            advice = f"add it with `kvstore member add {hello.node} ADDRESS`, or stop it if it was removed"
            raise LinkRefused(LinkRefusal.UNKNOWN_NODE, f"{text}: {advice}")
        conflicts = differing(hello.compatibility, local.compatibility)
        if conflicts:
            text = f"{hello.node!r} has {hello.compatibility}; {local.node!r} has {local.compatibility}"
            advice = "stop all replicas and start them with equal settings"
            if RESTORED in conflicts:
                theirs, ours = conflicts[RESTORED]
                text = f"{hello.node!r} was restored as {theirs}, {local.node!r} as {ours}"
                advice = (
                    "they belong to different clusters: stop the one that is wrong here and move its data directory "
                    f"away; if it is a member of this cluster, run `kvstore member replace {hello.node}`"
                )
            raise LinkRefused(LinkRefusal.COMPATIBILITY, f"{text}: {advice}")

    def _challenge(self, hello: bytes, dialer: ProcessIdentity) -> bytes:
        local = self._local
        incarnation, boot, life = local.identity
        self._told = local.seen_of(dialer)
        challenge = Challenge(local.node, incarnation, self._nonce, _NO_PROOF, boot, life, self.version, self._told)
        unproved = encode(challenge)
        self._transcript = hello, unproved
        return encode(msgspec.structs.replace(challenge, proof=_prove(local, "listener", hello, unproved)))

    def _admit(self, answer: Proof, hello: Hello) -> bytes:
        if not hmac.compare_digest(answer.proof, _prove(self._local, "dialer", *self._transcript)):
            raise _wrong_secret(self._local.node, hello.node)
        if hello.replaces:
            self._local.replacement_requests[hello.node] = hello.replaces
        self._local.verify_lineage(answer.seen)
        self._local.recognise(hello.node, hello.identity, self._told)
        self.proved = hello.identity
        self.done = True
        return encode(Welcome())


def _prove(local: LocalEnd, role: str, *transcript: bytes) -> bytes:
    """Return the proof of one role: for the messages up to its own, with zeros in place of their proofs."""
    # msgpack encodes the length of each part, so different transcripts never have the same bytes.
    return hmac.digest(local.secret, encode((f"kvstore peer link, {role}", *transcript)), hashlib.sha256)


def _older_copy(node: str, starts: str) -> LinkRefused:
    text = f"{node!r} runs on an older copy of its data ({starts})"
    advice = "restore the newest data or, if that is lost, run `kvstore member replace"
    return LinkRefused(LinkRefusal.OLDER_COPY, f"{text}: {advice} {node}`")


def _common_version(local: LocalEnd, peer: str, theirs: wire.Versions) -> int:
    common = local.versions.common(theirs)
    if common is None:
        text = f"{peer!r} speaks {theirs}, {local.node!r} speaks {local.versions}"
        raise LinkRefused(LinkRefusal.VERSION, f"{text}: run releases that share a version on all replicas")
    return common


def _refuse_other_release(local: LocalEnd, payload: bytes) -> None:
    """Raise LinkRefused if the unreadable `payload` is the Hello of a release that shares no version."""
    try:
        hello = any_hello_decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return
    _common_version(local, hello.node, wire.Versions(hello.version, hello.version))


def _wrong_secret(node: str, peer: str) -> LinkRefused:
    return LinkRefused(
        LinkRefusal.PROOF, f"{node!r} and {peer!r} have different secrets: give all replicas the same `secret`"
    )


def _unexpected(message: object) -> LinkRefused:
    return LinkRefused(LinkRefusal.GARBAGE, f"{type(message).__name__} out of order: only replicas may connect here")
