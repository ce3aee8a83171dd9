from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.api.framing import FrameReader, FrameTooLongError
from kvstore.peers import handshake_messages
from kvstore.peers.handshake import Dialer, Listener, LocalEnd
from kvstore.peers.handshake_messages import (
    MAX_HANDSHAKE_BYTES,
    NO_START,
    Channel,
    LinkRefusal,
    LinkRefused,
    ProcessIdentity,
    Start,
    refusal,
)
from paxos import wire

SECRET = b"a long and random secret"
MEMBERS = {"n1", "n2", "n3"}


def local(
    node: str,
    *,
    cluster: str = "c",
    incarnation: int = 7,
    boot: int = 5,
    life: int = 55,
    secret: bytes = SECRET,
    peers: set[str] | None = None,
    compatibility: str = "lease_ms=500",
) -> LocalEnd:
    identity = ProcessIdentity(incarnation, boot, life)
    return LocalEnd(cluster, node, identity, secret, frozenset(peers or MEMBERS - {node}), compatibility)


def dialer(
    who: LocalEnd | None = None, peer: str = "n2", nonce: bytes = b"d" * 32, channel: Channel = Channel.MESSAGES
) -> Dialer:
    return Dialer(who or local("n1"), peer, channel, nonce)


def listener(who: LocalEnd | None = None, nonce: bytes = b"l" * 32) -> Listener:
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
    assert (
        (one.proved, other.proved)
        == (there.identity, here.identity)
        == (ProcessIdentity(22, 5, 55), ProcessIdentity(11, 5, 55))
    )
    assert (here.last_proved, there.last_proved) == ({"n2": there.identity}, {"n1": here.identity})


@pytest.mark.parametrize("channel", Channel)
def test_the_listener_knows_what_the_link_is_for(channel: Channel) -> None:
    one, other = dialer(channel=channel), listener()
    play(one, other)
    assert one.channel is other.channel is channel


@pytest.mark.parametrize(
    ("one", "other", "reason", "text"),
    [
        (
            dialer(local("n1", cluster="blue")),
            listener(),
            LinkRefusal.CLUSTER,
            "'n1' is in cluster 'blue', 'n2' in cluster 'c'",
        ),
        (
            dialer(local("n9")),
            listener(),
            LinkRefusal.UNKNOWN_NODE,
            "'n9' is not a member known to 'n2', which knows n1, n3",
        ),
        (
            dialer(local("n1", compatibility="lease_ms=50")),
            listener(),
            LinkRefusal.COMPATIBILITY,
            "'n1' has lease_ms=50; 'n2' has lease_ms=",
        ),
        (
            dialer(local("n1", compatibility="members=n1,n2 lease_ms=500")),
            listener(local("n2", compatibility="members=n1,n2,n3 lease_ms=500")),
            LinkRefusal.COMPATIBILITY,
            "'n1' has members=n1,n2 lease_ms=500; 'n2' has members=n1,n2,n3",
        ),
        (
            dialer(local("n1", compatibility="lease_ms=500 restored=7:a")),
            listener(local("n2", compatibility="lease_ms=500 restored=8:b")),
            LinkRefusal.COMPATIBILITY,
            "'n1' was restored as 7:a, 'n2' as 8:b: they belong to different clusters: stop",
        ),
        (
            dialer(local("n2")),
            listener(),
            LinkRefusal.OWN_ID,
            "'n2' was dialled by 'n2': give every replica its own name",
        ),
        (
            dialer(),
            listener(local("n3")),
            LinkRefusal.WRONG_NODE,
            "'n2' was dialled, but 'n3' answers: correct the address",
        ),
        (dialer(local("n1", secret=b"x")), listener(), LinkRefusal.PROOF, "'n1' and 'n2' have different secrets"),
    ],
    ids=lambda value: value.value if isinstance(value, LinkRefusal) else "",
)
def test_whoever_does_not_belong_is_refused_with_the_reason(
    one: Dialer, other: Listener, reason: LinkRefusal, text: str
) -> None:
    refusal = refused(one, other)
    assert refusal.reason is reason
    assert text in refusal.text
    assert not refusal.by_peer


@pytest.mark.parametrize("compatibility", ["", "lease_ms=500", "lease_ms=500 members=n1", "new=1", "no pairs"])
def test_terms_that_only_one_side_names_are_no_conflict(compatibility: str) -> None:
    one, other = (
        dialer(local("n1", compatibility=compatibility)),
        listener(local("n2", compatibility="lease_ms=500 old=1")),
    )
    play(one, other)
    assert one.done


def test_a_dialer_without_the_secret_is_refused_by_the_listener_too() -> None:
    other = listener()
    other.receive(dialer().hello())
    with pytest.raises(LinkRefused, match="different secrets") as caught:
        other.receive(msgspec.msgpack.encode(handshake_messages.Proof(bytes(32))))
    assert caught.value.reason is LinkRefusal.PROOF
    assert not other.done


def speaking(who: LocalEnd, lowest: int, highest: int) -> LocalEnd:
    who.versions = wire.Versions(lowest, highest)
    return who


@pytest.mark.parametrize(
    ("dials", "listens", "spoken"),
    [((2, 2), (2, 3), 2), ((2, 3), (2, 2), 2), ((2, 3), (2, 3), 3), ((2, 5), (3, 4), 4), ((4, 5), (1, 4), 4)],
)
def test_a_link_has_the_highest_version_that_both_ends_speak(
    dials: tuple[int, int], listens: tuple[int, int], spoken: int
) -> None:
    one, other = dialer(speaking(local("n1"), *dials)), listener(speaking(local("n2"), *listens))
    play(one, other)
    assert (one.version, other.version) == (spoken, spoken)


@pytest.mark.parametrize(
    ("dials", "listens", "text"),
    [
        ((3, 4), (2, 2), "'n1' speaks versions 3 to 4, 'n2' speaks version 2: run releases that share a version"),
        ((2, 2), (3, 4), "'n1' speaks version 2, 'n2' speaks versions 3 to 4: run releases that share a version"),
    ],
)
def test_ends_without_a_common_version_name_both(dials: tuple[int, int], listens: tuple[int, int], text: str) -> None:
    refusal = refused(dialer(speaking(local("n1"), *dials)), listener(speaking(local("n2"), *listens)))
    assert refusal.reason is LinkRefusal.VERSION
    assert text in refusal.text


def test_a_version_that_the_dialer_does_not_speak_is_not_chosen_for_it() -> None:
    here, there = local("n1"), local("n2")
    hello = dialer(here).hello()
    hello_of_future = dialer(speaking(local("n1"), 2, 9), nonce=b"d" * 32)
    answer = listener(speaking(there, 9, 9)).receive(hello_of_future.hello())
    one = dialer(here)
    one._hello = hello_of_future.hello()
    assert hello != one._hello
    with pytest.raises(LinkRefused, match="'n2' speaks version 9, 'n1' speaks version 2"):
        one.receive(answer)


HELLO_1 = ["Hello", 1, "c", "n1", 7, b"d" * 32, "lease_ms=500"]
"""As the releases before the first one had it."""


@pytest.mark.parametrize(
    ("hello", "text"),
    [
        (HELLO_1, "'n1' speaks version 1, 'n2' speaks version 2"),
        (["Hello", 9, "c", "n1", "another kind of field"], "'n1' speaks version 9, 'n2' speaks version 2"),
        ([*HELLO_1, 1, 2, "messages", 0, 1, "a field of the future"], "'n1' speaks version 1, 'n2' speaks version 2"),
    ],
)
def test_another_version_is_named_whatever_its_hello_has_besides(hello: list[object], text: str) -> None:
    with pytest.raises(LinkRefused, match=text) as caught:
        listener().receive(msgspec.msgpack.encode(hello))
    assert caught.value.reason is LinkRefusal.VERSION


def test_a_field_that_a_later_release_adds_is_proved_by_whoever_does_not_know_it() -> None:
    one, other = dialer(), listener()
    one._hello = msgspec.msgpack.encode([*msgspec.msgpack.decode(one.hello()), "a field of the future"])
    play(one, other)
    assert one.done
    assert other.done


@pytest.mark.parametrize("wiped", ["n1", "n2"])
def test_a_peer_with_other_data_than_before_is_refused_at_either_end(wiped: str) -> None:
    here, there = local("n1"), local("n2")
    play(dialer(here), listener(there))
    if wiped == "n1":
        here = local("n1", incarnation=8)
    else:
        there = local("n2", incarnation=8)
    refusal = refused(dialer(here), listener(there))
    assert refusal.reason is LinkRefusal.INCARNATION
    assert f"'{wiped}' has other data than before (incarnation 8, expected 7)" in refusal.text
    assert f"run `kvstore member replace {wiped}`" in refusal.text


@pytest.mark.parametrize("wiped", ["n1", "n2"])
def test_before_the_cluster_is_founded_a_peer_may_lose_its_empty_disk(wiped: str) -> None:
    here, there = local("n1"), local("n2")
    here.binds = there.binds = False
    play(dialer(here), listener(there))
    if wiped == "n1":
        here = local("n1", incarnation=8)
    else:
        there = local("n2", incarnation=8)
    here.binds = there.binds = False
    play(dialer(here), listener(there))
    assert {**here.last_proved, **there.last_proved}[wiped].incarnation == 8


@pytest.mark.parametrize(("boot", "life"), [(4, 44), (5, 99)], ids=["older copy", "second process"])
def test_rule_28_before_the_cluster_is_founded_a_copy_of_the_data_is_refused_all_the_same(boot: int, life: int) -> None:
    there = local("n2")
    there.binds = False
    play(dialer(), listener(there))
    expected = LinkRefusal.OLDER_COPY if boot < 5 else LinkRefusal.USED_TWICE
    assert refused(dialer(local("n1", boot=boot, life=life)), listener(there)).reason is expected


COPIES: list[tuple[dict[str, Any], LinkRefusal, str]] = [
    ({"boot": 4, "life": 44}, LinkRefusal.OLDER_COPY, "'{}' runs on an older copy of its data (start 4, was 5)"),
    ({"boot": 5, "life": 99}, LinkRefusal.USED_TWICE, "two processes ran as '{}' from one state of its data"),
]


@pytest.mark.parametrize("at_fault", ["n1", "n2"])
@pytest.mark.parametrize(("life", "reason", "text"), COPIES)
def test_a_copy_of_the_data_of_a_peer_is_refused_at_either_end(
    at_fault: str, life: dict[str, Any], reason: LinkRefusal, text: str
) -> None:
    lives = {name: local(name) for name in ("n1", "n2")}
    genuine = dict(lives)
    play(dialer(lives["n1"]), listener(lives["n2"]))
    lives[at_fault] = local(at_fault, **life)
    refusal = refused(dialer(lives["n1"]), listener(lives["n2"]))
    assert refusal.reason is reason
    assert text.format(at_fault) in refusal.text
    assert f"run `kvstore member replace {at_fault}`" in refusal.text
    play(dialer(genuine["n1"]), listener(genuine["n2"]))


@pytest.mark.parametrize("restarted", ["n1", "n2"])
def test_a_restart_replaces_the_life_before_it_and_nothing_brings_that_back(restarted: str) -> None:
    lives = {name: local(name) for name in ("n1", "n2")}
    earlier = lives[restarted]
    play(dialer(lives["n1"]), listener(lives["n2"]))
    lives[restarted] = local(restarted, boot=9, life=3)
    play(dialer(lives["n1"]), listener(lives["n2"]))
    lives[restarted] = earlier
    assert refused(dialer(lives["n1"]), listener(lives["n2"])).reason is LinkRefusal.OLDER_COPY


@pytest.mark.parametrize("enrolled", ["n1", "n2"])
def test_a_peer_with_other_data_than_was_enrolled_is_refused_though_it_is_the_first(enrolled: str) -> None:
    here, there = local("n1"), local("n2")
    (there if enrolled == "n1" else here).enrol({enrolled: 8})
    refusal = refused(dialer(here), listener(there))
    assert refusal.reason is LinkRefusal.INCARNATION
    assert f"'{enrolled}' has other data than before (incarnation 7, expected 8)" in refusal.text
    assert here.last_proved.keys() | there.last_proved.keys() <= {"n1", "n2"} - {enrolled}


def test_enrolled_data_takes_the_place_of_what_was_seen_with_boots_of_its_own() -> None:
    here, there = local("n1"), local("n2")
    play(dialer(here), listener(there))
    there.enrol({"n1": 8, "n2": 7, "n3": 9})
    assert there.last_proved == {}
    assert refused(dialer(here), listener(there)).reason is LinkRefusal.INCARNATION
    play(dialer(local("n1", incarnation=8, boot=1)), listener(there))
    assert there.last_proved == {"n1": ProcessIdentity(8, 1, 55)}


def test_what_was_seen_stays_while_the_cluster_says_the_same_and_goes_when_it_takes_its_word_back() -> None:
    here, there = local("n1"), local("n2")
    play(dialer(here), listener(there))
    for word in ({}, {"n3": 1}, {"n1": 7, "n3": 1}, {"n1": 7}):
        there.enrol(word)
        assert there.last_proved == {"n1": here.identity}
    there.enrol({})
    assert there.last_proved == {}


def test_whoever_was_replaced_before_anybody_enrolled_it_may_come_with_other_data() -> None:
    here, there = local("n1"), local("n2")
    play(dialer(here), listener(there))
    replaced = local("n1", incarnation=8)
    there.enrol({"n3": 1})
    assert refused(dialer(replaced), listener(there)).reason is LinkRefusal.INCARNATION
    there.enrol({"n3": 1}, unverified=["n1"])
    play(dialer(replaced), listener(there))
    there.enrol({"n3": 2}, unverified=["n1"])
    assert there.last_proved == {"n1": replaced.identity}


def test_a_node_that_is_a_peer_no_more_is_refused_and_forgotten() -> None:
    here, there = local("n1"), local("n2")
    play(dialer(here), listener(there))
    there.set_peers(["n3"])
    assert refused(dialer(here), listener(there)).reason is LinkRefusal.UNKNOWN_NODE
    there.set_peers(["n1", "n3"])
    play(dialer(local("n1", incarnation=8)), listener(there))


def test_rule_28_a_new_peer_leaves_what_was_seen_of_the_others() -> None:
    there = local("n2")
    play(dialer(), listener(there))
    there.set_peers(["n1", "n3", "n4"])
    assert refused(dialer(local("n1", boot=4, life=44)), listener(there)).reason is LinkRefusal.OLDER_COPY


@pytest.mark.parametrize(
    "identity", [ProcessIdentity(2**64 - 2, 2, 3), ProcessIdentity(2**64 - 1, 1, 3), ProcessIdentity(2**64 - 1, 2, 4)]
)
def test_what_to_do_about_a_disk_reaches_the_other_side_however_long_its_name(identity: ProcessIdentity) -> None:
    here = local("n1")
    here.recognise("n" * 32, ProcessIdentity(2**64 - 1, 2, 3), NO_START)
    with pytest.raises(LinkRefused) as here_refused:
        here.recognise("n" * 32, identity, NO_START)
    with pytest.raises(LinkRefused) as there_refused:
        dialer().receive(refusal(here_refused.value))
    assert there_refused.value.text == here_refused.value.text


def test_what_to_do_about_a_copy_reaches_the_other_side_however_long_its_name() -> None:
    here = local("n" * 32, boot=10**12)
    here.includes = lambda _boot, _life: False
    with pytest.raises(LinkRefused) as here_refused:
        here.verify_lineage(Start(10**12 - 1, 3))
    with pytest.raises(LinkRefused) as there_refused:
        dialer().receive(refusal(here_refused.value))
    assert there_refused.value.text == here_refused.value.text


def test_an_unproved_incarnation_is_not_remembered() -> None:
    here, there = local("n1"), local("n2")
    refused(dialer(local("n1", incarnation=8, secret=b"x")), listener(there))
    refused(dialer(here), listener(local("n2", incarnation=8, secret=b"x")))
    play(dialer(here), listener(there))


def test_rule_28_a_listener_does_not_remember_a_start_that_was_claimed_without_the_secret() -> None:
    """Otherwise a stranger could have the real peer refused as an older copy."""
    there = local("n2")
    other = listener(there)
    other.receive(dialer(local("n1", boot=99)).hello())
    with pytest.raises(LinkRefused) as caught:
        other.receive(handshake_messages.encode(handshake_messages.Proof(bytes(32))))
    assert caught.value.reason is LinkRefusal.PROOF
    play(dialer(), listener(there))


def test_a_recorded_handshake_proves_nothing_on_another_link() -> None:
    hello, challenge, proof, _ = play(dialer(), listener())
    other = listener(nonce=b"L" * 32)
    other.receive(hello)
    with pytest.raises(LinkRefused, match="different secrets"):
        other.receive(proof)
    with pytest.raises(LinkRefused, match="different secrets"):
        dialer(nonce=b"D" * 32).receive(challenge)


def test_a_proof_for_one_channel_or_life_is_none_for_another() -> None:
    hello, _, proof, _ = play(dialer(), listener())
    for changed in (dialer(channel=Channel.BULK), dialer(local("n1", boot=6)), dialer(local("n1", life=56))):
        assert changed.hello() != hello
        other = listener()
        other.receive(changed.hello())
        with pytest.raises(LinkRefused, match="different secrets"):
            other.receive(proof)


def test_a_listeners_own_proof_sent_back_proves_nothing() -> None:
    other = listener()
    challenge = handshake_messages.decode(other.receive(dialer().hello()))
    assert isinstance(challenge, handshake_messages.Challenge)
    with pytest.raises(LinkRefused, match="different secrets"):
        other.receive(msgspec.msgpack.encode(handshake_messages.Proof(challenge.proof)))


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
        assert _reason(listener(), early) is LinkRefusal.GARBAGE
    for early in (hello, proof, welcome):
        assert _reason(dialer(), early) is LinkRefusal.GARBAGE
    one, other = dialer(), listener()
    play(one, other)
    for late in (hello, challenge, proof, welcome):
        assert _reason(one, late) is LinkRefusal.GARBAGE
        assert _reason(other, late) is LinkRefusal.GARBAGE


def _reason(end: Dialer | Listener, payload: bytes) -> LinkRefusal:
    with pytest.raises(LinkRefused) as caught:
        end.receive(payload)
    return caught.value.reason


@pytest.mark.parametrize("end", [dialer, listener])
def test_a_refusal_tells_the_other_side_why(end: Callable[[], Dialer | Listener]) -> None:
    told = LinkRefused(LinkRefusal.CLUSTER, "correct\nthe name" + "\N{CRAB}" * 999)
    payload = refusal(told)
    assert len(payload) <= MAX_HANDSHAKE_BYTES
    with pytest.raises(LinkRefused, match=r"^correct\?the name\N{CRAB}+$") as caught:
        end().receive(payload)
    assert caught.value.by_peer
    assert caught.value.reason is LinkRefusal.CLUSTER


def test_a_reason_of_a_later_release_is_heard_as_other() -> None:
    with pytest.raises(LinkRefused, match="do this") as caught:
        dialer().receive(msgspec.msgpack.encode(["Refusal", "reason-of-tomorrow", "do this"]))
    assert caught.value.reason is LinkRefusal.OTHER


def test_the_longest_names_fit_the_longest_handshake_frame() -> None:
    wide = "\N{CRAB}"
    widest: dict[str, Any] = {"incarnation": 2**64 - 1, "boot": 2**64 - 1, "life": 2**64 - 1}
    here = local(wide * 32, cluster=wide * 128, **widest, peers={"é" * 32}, compatibility="t" * 256)
    there = local("é" * 32, cluster=wide * 128, **widest, peers={wide * 32}, compatibility="t" * 256)
    said = play(dialer(here, "é" * 32, channel=Channel.MESSAGES), listener(there))
    assert max(map(len, said)) <= MAX_HANDSHAKE_BYTES


def test_a_cluster_name_that_no_handshake_could_carry_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="use at most 128"):
        local("n1", cluster="c" * 129)


def test_terms_that_no_handshake_could_carry_are_refused_at_once() -> None:
    with pytest.raises(ValueError, match="use at most 256"):
        local("n1", compatibility="t" * 257)


def test_the_secret_is_in_no_text() -> None:
    assert SECRET.decode() not in repr(local("n1"))


@given(st.lists(st.binary(max_size=200)))
def test_random_bytes_end_in_a_refusal_or_in_silence(chunks: list[bytes]) -> None:
    for end in (dialer(), listener()):
        reader = FrameReader(MAX_HANDSHAKE_BYTES)
        with suppress(LinkRefused, FrameTooLongError):
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
