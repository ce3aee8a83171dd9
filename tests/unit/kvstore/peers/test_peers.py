"""Who the peers are, and which data and life of each counts, while it changes: over loopback sockets."""

import asyncio
from collections.abc import Callable

import pytest

from kvstore.api.framing import frame
from kvstore.peers import transport as module
from kvstore.peers.handshake import Dialer
from kvstore.peers.handshake_messages import NONCE_BYTES, Channel, LinkRefusal
from kvstore.peers.transport import Address
from paxos import wire
from paxos.messages import AnyMessage, Fetch
from tests.unit.kvstore.peers.actors import (
    HOST,
    IDENTITY,
    Lines,
    PeerNode,
    Run,
    Stranger,
    free_port,
    good_link,
    strange_listener,
    stranger,
    welcome_both,
    who,
    works,
)

RESTARTED = IDENTITY._replace(boot=6, life=66)
REPLACED = IDENTITY._replace(incarnation=8, boot=1)


async def ended(links: dict[Channel, Stranger]) -> None:
    """Both links are no more."""
    assert [await link.read() for link in links.values()] == [None, None]


# Lives


def test_a_new_life_ends_all_links_with_the_one_before_it(run: Run) -> None:
    async def story() -> None:
        async with strange_listener() as (address, callers), PeerNode("n2", {"n3": address}) as n2:
            dialled = await welcome_both(callers, who("n3"))
            assert await n2.changes.get() == ("n3", True)
            async with stranger(n2.address) as one, stranger(n2.address) as other, stranger(n2.address) as newer:
                await one.pose_as(who("n3"), "n2")
                await other.pose_as(who("n3"), "n2", Channel.BULK)
                await newer.pose_as(who("n3", identity=RESTARTED), "n2")
                await ended(dialled)
                await ended({Channel.MESSAGES: one, Channel.BULK: other})
                assert await n2.changes.get() == ("n3", False)
                await welcome_both(callers, who("n3", identity=RESTARTED))
                assert await n2.changes.get() == ("n3", True)
                assert n2.transport.stats.refused == {}

    run(story())


def test_a_new_life_that_is_found_ends_the_links_of_the_one_before_it(run: Run, nowhere: Address) -> None:
    async def story() -> None:
        port = free_port()
        async with PeerNode("n2", {"n3": (HOST, port)}) as n2, stranger(n2.address) as earlier:
            await earlier.pose_as(who("n3"), "n2")
            async with PeerNode("n3", {"n2": nowhere}, port, identity=RESTARTED):
                assert await n2.changes.get() == ("n3", True)
                assert await earlier.read() is None

    run(story())


# Enrolment


def test_what_a_linked_peer_runs_on_is_known_whoever_dialled(run: Run, nowhere: Address) -> None:
    async def story() -> None:
        async with PeerNode("n2", {"n1": nowhere}) as n2:
            assert n2.transport.incarnations == {}
            async with PeerNode("n1", {"n2": n2.address}, identity=REPLACED) as n1:
                assert await n1.changes.get() == ("n2", True)
                await works(n1, "n1", n2, "n2")
                assert n1.transport.incarnations == {"n2": 7}
                assert n2.transport.incarnations == {"n1": 8}
            while n2.transport.incarnations:  # noqa: ASYNC110 - the loss of an incoming link sets no event
                await asyncio.sleep(0)

    run(story())


def test_whoever_has_other_data_than_was_enrolled_is_refused_even_the_first_time(
    run: Run, nowhere: Address, lines: Lines
) -> None:
    async def story() -> None:
        async with PeerNode("n2", {"n3": nowhere}) as n2:
            n2.transport.enrol({"n2": 7, "n3": 8})
            async with PeerNode("n3", {"n2": n2.address}) as n3:
                await lines.wait_for(
                    "link from 'n3'", "this replica refused", "other data", "(incarnation 7, expected 8)"
                )
                assert n3.changes.empty()
            async with PeerNode("n3", {"n2": n2.address}, identity=REPLACED) as n3:
                assert await n3.changes.get() == ("n2", True)
                await works(n3, "n3", n2, "n2")

    run(story())


def test_whoever_is_found_with_other_data_than_was_enrolled_is_refused(
    run: Run, nowhere: Address, lines: Lines
) -> None:
    async def story() -> None:
        async with PeerNode("n3", {"n2": nowhere}) as n3:
            n2 = PeerNode("n2", {"n3": n3.address})
            n2.transport.enrol({"n3": 8})
            async with n2:
                await lines.wait_for(
                    "link to 'n3'", "this replica refused", "other data", "(incarnation 7, expected 8)"
                )
                assert n2.changes.empty()

    run(story())


def test_an_enrolment_ends_the_links_of_other_data_and_no_others(run: Run, nowhere: Address) -> None:
    async def story() -> None:
        async with (
            strange_listener() as (address, callers),
            PeerNode("n2", {"n1": nowhere, "n3": address}) as n2,
            PeerNode("n1", {"n2": n2.address}) as n1,
            stranger(n2.address) as one,
            stranger(n2.address) as other,
        ):
            assert await n1.changes.get() == ("n2", True)
            dialled = await welcome_both(callers, who("n3"))
            assert await n2.changes.get() == ("n3", True)
            await one.pose_as(who("n3"), "n2")
            await other.pose_as(who("n3"), "n2", Channel.BULK)
            n2.transport.enrol({"n1": 7, "n3": 7})
            assert n2.transport.incarnations == {"n1": 7, "n3": 7}
            n2.transport.enrol({"n1": 7, "n3": 8})
            assert n2.transport.incarnations == {"n1": 7}
            await ended(dialled)
            await ended({Channel.MESSAGES: one, Channel.BULK: other})
            assert await n2.changes.get() == ("n3", False)
            await welcome_both(callers, who("n3", identity=REPLACED))
            assert await n2.changes.get() == ("n3", True)
            await works(n1, "n1", n2, "n2")
            assert n1.changes.empty()

    run(story())


# Members that come, go and move


def test_a_new_peer_is_dialled_and_may_dial(run: Run, nowhere: Address, lines: Lines) -> None:
    async def story() -> None:
        async with PeerNode("n1", {"n3": nowhere}) as n1, PeerNode("n2", {"n1": n1.address}) as n2:
            await lines.wait_for("link from 'n2'", "this replica refused", "'n2' is not a member known to 'n1'")
            n1.transport.set_peers({"n2": n2.address, "n3": nowhere})
            assert await n1.changes.get() == ("n2", True)
            assert await n2.changes.get() == ("n1", True)
            await works(n1, "n1", n2, "n2")
            await works(n2, "n2", n1, "n1")

    run(story())


def test_a_peer_that_is_gone_loses_its_links_and_is_refused(run: Run, nowhere: Address, lines: Lines) -> None:
    async def story() -> None:
        port = free_port()
        async with (
            PeerNode("n1", {"n2": (HOST, port), "n3": nowhere}) as n1,
            PeerNode("n2", {"n1": n1.address}, port) as n2,
        ):
            assert await n1.changes.get() == ("n2", True)
            assert await n2.changes.get() == ("n1", True)
            n1.transport.set_peers({"n3": nowhere})
            assert n1.transport.incarnations == {}
            assert await n1.changes.get() == ("n2", False)
            assert await n2.changes.get() == ("n1", False)
            await lines.wait_for("link from 'n2'", "this replica refused", "'n2' is not a member known to 'n1'")
            n1.transport.send("n2", b"late")
            n1.transport.send("n2", b"late", Channel.BULK)
            assert n1.transport.stats.dropped_frames == 2
            assert n1.transport.stats.refused.keys() == {LinkRefusal.UNKNOWN_NODE}
            assert n1.changes.empty()

    run(story())


def test_who_is_no_peer_any_more_cannot_end_the_handshake_that_it_began(run: Run, nowhere: Address) -> None:
    async def story() -> None:
        async with good_link(nowhere) as (n2, _), stranger(n2.address) as other:
            dialer = Dialer(who("n3"), "n2", Channel.MESSAGES, bytes(NONCE_BYTES))
            other.write(dialer.hello())
            proof = dialer.receive(await other.read() or b"")
            n2.transport.set_peers({})
            other.write(proof or b"")
            assert await other.read() is None
            assert n2.transport.incarnations == {}

    run(story())


def test_nothing_of_a_peer_is_heard_behind_the_message_that_ended_its_membership(run: Run, nowhere: Address) -> None:
    async def story() -> None:
        async with good_link(nowhere) as (n2, _), stranger(n2.address) as other:
            await other.pose_as(who("n3"), "n2")
            heard: list[AnyMessage] = []

            def obey(_: str, message: AnyMessage) -> None:
                heard.append(message)
                n2.transport.set_peers({"n1": nowhere})

            n2.transport.on_message = obey
            other.writer.write(b"".join(frame(wire.encode(Fetch(slot))) for slot in range(3)))
            assert await other.read() is None
            assert heard == [Fetch(0)]

    run(story())


def test_a_peer_that_has_moved_is_dialled_where_it_is_now(run: Run) -> None:
    async def story() -> None:
        async with (
            strange_listener() as (first, callers),
            strange_listener() as (second, later_callers),
            PeerNode("n1", {"n2": first}) as n1,
            stranger(n1.address) as other,
        ):
            dialled = await welcome_both(callers, who("n2"))
            assert await n1.changes.get() == ("n2", True)
            await other.pose_as(who("n2"), "n1")
            n1.transport.set_peers({"n2": second})
            await ended(dialled)
            assert await other.read() is None
            assert await n1.changes.get() == ("n2", False)
            await welcome_both(later_callers, who("n2"))
            assert await n1.changes.get() == ("n2", True)
            assert callers.empty()

    run(story())


def test_a_peer_that_cannot_be_reached_is_dialled_at_once_where_it_moves(
    run: Run, nowhere: Address, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_RETRY_MIN_S", 3600)
    monkeypatch.setattr(module, "_RETRY_MAX_S", 3600)

    async def story() -> None:
        async with PeerNode("n2", {"n1": nowhere}) as n2, PeerNode("n1", {"n2": nowhere}) as n1:
            await lines.wait_for("cannot reach n2 at 127.0.0.1")
            n1.transport.set_peers({"n2": ("no..host", 1)})
            await lines.wait_for("cannot reach n2 at no..host:1")
            n1.transport.set_peers({"n2": n2.address})
            assert await n1.changes.get() == ("n2", True)

    run(story())


def test_the_same_peers_again_disturb_no_link(run: Run) -> None:
    async def story() -> None:
        port = free_port()
        async with PeerNode("n1", {"n2": (HOST, port)}) as n1, PeerNode("n2", {"n1": n1.address}, port) as n2:
            assert await n1.changes.get() == ("n2", True)
            assert await n2.changes.get() == ("n1", True)
            n1.transport.set_peers({"n2": (HOST, port)})
            await works(n1, "n1", n2, "n2")
            await works(n2, "n2", n1, "n1")
            assert n1.changes.empty()
            assert n2.changes.empty()

    run(story())


def test_peers_that_are_set_before_the_start_are_dialled_from_it_on(run: Run) -> None:
    async def story() -> None:
        async with strange_listener() as (address, callers):
            n1 = PeerNode("n1", {})
            n1.transport.set_peers({"n2": address})
            async with n1:
                await welcome_both(callers, who("n2"))
                assert await n1.changes.get() == ("n2", True)

    run(story())


CHANGES: list[Callable[[Address], dict[str, Address]]] = [
    lambda _: {},
    lambda other: {"n2": other},
    lambda other: {"n3": other},
]


@pytest.mark.parametrize("change", CHANGES, ids=["gone", "moved", "another"])
@pytest.mark.parametrize("stop_first", [False, True])
def test_a_stop_while_peers_change_leaves_nothing_behind(
    run: Run, change: Callable[[Address], dict[str, Address]], stop_first: bool
) -> None:
    async def story() -> None:
        async with strange_listener() as (address, callers), strange_listener() as (other, later_callers):
            n1 = PeerNode("n1", {"n2": address})
            await n1.transport.start()
            await (await callers.get()).welcome(who("n2"))
            tasks = set(n1.transport._tasks)
            if stop_first:
                stopping = asyncio.create_task(n1.transport.stop())
                await asyncio.sleep(0)
                n1.transport.set_peers(change(other))
            else:
                n1.transport.set_peers(change(other))
                stopping = asyncio.create_task(n1.transport.stop())
            await stopping
            assert not n1.transport._links
            assert not n1.transport._tasks
            assert tasks
            assert all(task.done() for task in tasks)
            if stop_first:
                assert later_callers.empty()

    run(story())


def test_peers_may_be_set_by_what_a_link_tells(run: Run, nowhere: Address) -> None:
    async def story() -> None:
        async with PeerNode("n2", {"n1": nowhere}) as n2:
            n1 = PeerNode("n1", {"n2": n2.address})
            told: asyncio.Queue[bool] = asyncio.Queue()

            def change(_: str, connected: bool) -> None:
                n1.transport.set_peers({})
                told.put_nowait(connected)

            n1.transport._on_change = change
            async with n1:
                assert [await told.get(), await told.get()] == [True, False]
                assert not n1.transport.connected("n2")

    run(story())
