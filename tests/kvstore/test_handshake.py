from collections.abc import Callable
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore import handshake
from kvstore.frames import FrameReader
from kvstore.handshake import MAX_HANDSHAKE_BYTES, Dialer, LinkRefused, Listener, Local, Reason, refusal
from paxos import wire

SECRET = b"a long and random secret"
MEMBERS = {"n1", "n2", "n3"}


def local(
    node: str,
    *,
    cluster: str = "c",
    incarnation: int = 7,
    secret: bytes = SECRET,
    peers: set[str] | None = None,
    terms: str = "lease_ms=500",
) -> Local:
    return Local(cluster, node, incarnation, secret, frozenset(peers or MEMBERS - {node}), terms)


def dialer(who: Local | None = None, peer: str = "n2", nonce: bytes = b"d" * 32) -> Dialer:
    return Dialer(who or local("n1"), peer, nonce)


def listener(who: Local | None = None, nonce: bytes = b"l" * 32) -> Listener:
    return Listener(who or local("n2"), nonce)


def play(one: Dialer, other: Listener) -> list[bytes]:
    """Let two ends talk until neither has more to say; all that was said."""
    said = [one.hello()]
    ends: list[Dialer | Listener] = [other, one]
    while (answer := ends[0].receive(said[-1])) is not None:
        said.append(answer)
        ends.reverse()
    return said


def refused(one: Dialer, other: Listener) -> LinkRefused:
    """The refusal with which two ends part."""
    with pytest.raises(LinkRefused) as caught:
        play(one, other)
    assert not one.done
    assert not other.done
    return caught.value


def test_two_members_with_one_secret_welcome_each_other_and_know_who_it_is() -> None:
    here, there = local("n1", incarnation=11), local("n2", incarnation=22)
    one, other = dialer(here), listener(there)
    said = play(one, other)
    assert len(said) == 4
    assert one.done
    assert other.done
    assert other.peer == "n1"
    assert (here.seen, there.seen) == ({"n2": 22}, {"n1": 11})


@pytest.mark.parametrize(
    ("one", "other", "reason", "text"),
    [
        (
            dialer(local("n1", cluster="blue")),
            listener(),
            Reason.CLUSTER,
            "'n1' is in cluster 'blue', 'n2' in cluster 'c'",
        ),
        (dialer(local("n9")), listener(), Reason.UNKNOWN_NODE, "'n9' is not a member for 'n2', which knows n1, n3"),
        (
            dialer(local("n1", terms="lease_ms=50")),
            listener(),
            Reason.TERMS,
            "'n1' goes by lease_ms=50; 'n2' by lease_ms=",
        ),
        (dialer(local("n2")), listener(), Reason.OWN_ID, "'n2' was dialled by 'n2': give every replica an id"),
        (dialer(), listener(local("n3")), Reason.WRONG_NODE, "'n2' was dialled, but 'n3' answers: correct the address"),
        (dialer(local("n1", secret=b"x")), listener(), Reason.PROOF, "'n1' and 'n2' have different secrets"),
    ],
    ids=lambda value: value.value if isinstance(value, Reason) else "",
)
def test_whoever_does_not_belong_is_refused_with_the_reason(
    one: Dialer, other: Listener, reason: Reason, text: str
) -> None:
    refusal = refused(one, other)
    assert refusal.reason is reason
    assert text in refusal.text
    assert not refusal.by_peer


def test_a_dialer_without_the_secret_is_refused_by_the_listener_too() -> None:
    other = listener()
    other.receive(dialer().hello())
    with pytest.raises(LinkRefused, match="different secrets") as caught:
        other.receive(msgspec.msgpack.encode(handshake.Proof(bytes(32))))
    assert caught.value.reason is Reason.PROOF
    assert not other.done


def test_another_version_is_named_even_when_its_hello_is_longer() -> None:
    hello = [*msgspec.msgpack.decode(dialer().hello()), "a field of the future"]
    hello[1] = wire.VERSION + 1
    with pytest.raises(LinkRefused, match=rf"'n1' speaks version {wire.VERSION + 1}, 'n2' version") as caught:
        listener().receive(msgspec.msgpack.encode(hello))
    assert caught.value.reason is Reason.VERSION


@pytest.mark.parametrize("wiped", ["n1", "n2"])
def test_a_peer_with_other_data_than_before_is_refused_at_either_end(wiped: str) -> None:
    here, there = local("n1"), local("n2")
    play(dialer(here), listener(there))
    if wiped == "n1":
        here = local("n1", incarnation=8)
    else:
        there = local("n2", incarnation=8)
    refusal = refused(dialer(here), listener(there))
    assert refusal.reason is Reason.INCARNATION
    assert f"'{wiped}' has other data than before (incarnation 8, was 7)" in refusal.text


def test_an_unproved_incarnation_is_not_remembered() -> None:
    here, there = local("n1"), local("n2")
    refused(dialer(local("n1", incarnation=8, secret=b"x")), listener(there))
    refused(dialer(here), listener(local("n2", incarnation=8, secret=b"x")))
    play(dialer(here), listener(there))


def test_a_recorded_handshake_proves_nothing_on_another_link() -> None:
    hello, _, proof, _ = play(dialer(), listener())
    other = listener(nonce=b"L" * 32)
    other.receive(hello)
    with pytest.raises(LinkRefused, match="different secrets"):
        other.receive(proof)


def test_a_listeners_own_proof_sent_back_proves_nothing() -> None:
    other = listener()
    challenge = handshake._decode(other.receive(dialer().hello()))
    assert isinstance(challenge, handshake.Challenge)
    with pytest.raises(LinkRefused, match="different secrets"):
        other.receive(msgspec.msgpack.encode(handshake.Proof(challenge.proof)))


def replay(script: list[bytes]) -> None:
    """Hand each end what the script says that it heard."""
    one, other = dialer(), listener()
    hello, challenge, proof, welcome = script
    other.receive(hello)
    one.receive(challenge)
    other.receive(proof)
    one.receive(welcome)


def test_no_bit_of_a_handshake_can_change_on_the_way() -> None:
    script = play(dialer(), listener())
    for step, payload in enumerate(script):
        for bit in range(len(payload) * 8):
            changed = bytearray(payload)
            changed[bit // 8] ^= 1 << bit % 8
            with pytest.raises(LinkRefused):
                replay([*script[:step], bytes(changed), *script[step + 1 :]])


def test_the_script_itself_is_accepted() -> None:
    replay(play(dialer(), listener()))


def test_messages_out_of_turn_are_refused() -> None:
    hello, challenge, proof, welcome = play(dialer(), listener())
    for early in (challenge, proof, welcome):
        assert _reason(listener(), early) is Reason.GARBAGE
    for early in (hello, proof, welcome):
        assert _reason(dialer(), early) is Reason.GARBAGE
    one, other = dialer(), listener()
    play(one, other)
    for late in (hello, challenge, proof, welcome):
        assert _reason(one, late) is Reason.GARBAGE
        assert _reason(other, late) is Reason.GARBAGE


def _reason(end: Dialer | Listener, payload: bytes) -> Reason:
    with pytest.raises(LinkRefused) as caught:
        end.receive(payload)
    return caught.value.reason


@pytest.mark.parametrize("end", [dialer, listener])
def test_a_refusal_tells_the_other_side_why(end: Callable[[], Dialer | Listener]) -> None:
    told = LinkRefused(Reason.CLUSTER, "correct\nthe name" + "\N{CRAB}" * 999)
    payload = refusal(told)
    assert len(payload) <= MAX_HANDSHAKE_BYTES
    with pytest.raises(LinkRefused, match=r"^correct\?the name\N{CRAB}+$") as caught:
        end().receive(payload)
    assert caught.value.by_peer
    assert caught.value.reason is Reason.CLUSTER


def test_a_reason_of_a_later_release_is_heard_as_other() -> None:
    with pytest.raises(LinkRefused, match="do this") as caught:
        dialer().receive(msgspec.msgpack.encode(["Refusal", "reason-of-tomorrow", "do this"]))
    assert caught.value.reason is Reason.OTHER


def test_the_longest_names_fit_the_longest_handshake_frame() -> None:
    wide = "\N{CRAB}"
    here = local(wide * 32, cluster=wide * 128, incarnation=2**64 - 1, peers={"é" * 32})
    there = local("é" * 32, cluster=wide * 128, incarnation=2**64 - 1, peers={wide * 32})
    said = play(dialer(here, peer="é" * 32), listener(there))
    assert max(map(len, said)) <= MAX_HANDSHAKE_BYTES


def test_a_cluster_name_that_no_handshake_could_carry_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="use at most 128"):
        local("n1", cluster="c" * 129)


def test_terms_that_no_handshake_could_carry_are_refused_at_once() -> None:
    with pytest.raises(ValueError, match="use at most 256"):
        local("n1", terms="t" * 257)


def test_the_secret_is_in_no_text() -> None:
    assert SECRET.decode() not in repr(local("n1"))


@given(st.lists(st.binary(max_size=200)))
def test_random_bytes_end_in_a_refusal_or_in_silence(chunks: list[bytes]) -> None:
    for end in (dialer(), listener()):
        reader = FrameReader(MAX_HANDSHAKE_BYTES)
        with suppress(LinkRefused):
            for chunk in chunks:
                for payload in reader.feed(chunk):
                    end.receive(payload)
        assert not end.done


_plain = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=40) | st.binary(max_size=40)
_handshakes = st.tuples(st.sampled_from(["Hello", "Challenge", "Proof", "Welcome", "Refusal"]), st.lists(_plain))


@given(_handshakes)
def test_handshakes_with_random_fields_end_in_a_refusal(fields: tuple[str, list[object]]) -> None:
    tag, rest = fields
    payload = msgspec.msgpack.encode([tag, *rest])
    for end in (dialer(), listener()):
        with pytest.raises(LinkRefused):
            end.receive(payload)
        assert not end.done
