"""`kvstore lease grant | keepalive | revoke | list | show`."""

import asyncio
from contextlib import suppress
from typing import Annotated

import typer

from kvstore.api.json.documents import LeaseDocument, LeaseGrantedDocument, LeasePageDocument, RangeDeletedDocument
from kvstore.cli.connect import DEFAULT, Endpoints, Subject, with_client
from kvstore.cli.outage import Outage
from kvstore.cli.output import Json, count_of_keys, printable, write_json, write_text
from kvstore.cli.parameters import revision_number, ttl_seconds
from kvstore.cli.terminal import show, table
from kvstore.client import Client, ClientError, Unavailable, UnknownOutcome
from kvstore.client.caller import Repeat, Request
from kvstore.server.output import install

lease = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Grant, renew, revoke and show leases.\n\nThe end of a lease deletes the keys and releases the locks attached "
    "to it.",
)

LeaseId = Annotated[int, typer.Argument(parser=revision_number, metavar="ID", help="ID of the lease.")]


@lease.command()
def grant(
    ttl: Annotated[
        float,
        typer.Argument(parser=ttl_seconds, metavar="SECONDS", help="TTL of the lease, which each renewal restarts."),
    ],
    endpoints: Endpoints = DEFAULT,
    *,
    json: Json = False,
) -> None:
    """Grant a lease and print its ID, for `kvstore put --lease` and `kvstore lease keepalive`."""

    async def ask(client: Client) -> LeaseGrantedDocument:
        granted = await client.lease(ttl)
        return LeaseGrantedDocument(id=granted.id, ttl_s=granted.ttl_s)

    granted = with_client(endpoints, ask)
    if json:
        write_json(granted)
    else:
        write_text(str(granted.id))


@lease.command()
def keepalive(
    lease_id: LeaseId,
    endpoints: Endpoints = DEFAULT,
    *,
    every: Annotated[bool, typer.Option("--every", help="Keep renewing the lease until Ctrl-C.")] = False,
    json: Json = False,
) -> None:
    """Renew a lease: its whole TTL starts again. Exit status 1: the lease does not exist.

    With --every, a message says so if no replica answers, and the lease is renewed as soon as one does.
    """

    async def renew(client: Client) -> LeaseGrantedDocument:
        request = Request("POST", f"/leases/{lease_id}/keepalive", repeat=Repeat.HARMLESS)
        return (await client.ask(request)).decode(LeaseGrantedDocument)

    async def renew_forever(client: Client) -> None:
        outage = Outage()
        while True:
            try:
                kept = await renew(client)
            except (Unavailable, UnknownOutcome) as error:
                outage.report(error)
                await outage.pause()
            else:
                outage.report(None)
                await asyncio.sleep(kept.ttl_s / 3)

    if every:
        install("stderr")  # a message that nobody reads must not keep the lease from being renewed
        try:
            with_client(endpoints, renew_forever, subject=Subject(lease=lease_id))
        except KeyboardInterrupt:
            raise typer.Exit from None
    kept = with_client(endpoints, renew, subject=Subject(lease=lease_id))
    if json:
        write_json(kept)
    else:
        write_text(f"lease {kept.id} renewed for {kept.ttl_s:g} s")


@lease.command()
def revoke(lease_id: LeaseId, endpoints: Endpoints = DEFAULT, *, json: Json = False) -> None:
    """End a lease, delete its keys and release its locks. Exit status 1: the lease does not exist."""

    async def ask(client: Client) -> RangeDeletedDocument:
        request = Request("DELETE", f"/leases/{lease_id}", repeat=Repeat.HARMLESS)
        return (await client.ask(request)).decode(RangeDeletedDocument)

    revoked = with_client(endpoints, ask, subject=Subject(lease=lease_id))
    if json:
        write_json(revoked)
    else:
        write_text(f"revision {revoked.revision}, deleted {count_of_keys(revoked.deleted)}")


@lease.command("list")
def list_leases(endpoints: Endpoints = DEFAULT, *, json: Json = False) -> None:
    """Show all leases. The time left is known only if the leader is among the endpoints."""
    found = with_client(endpoints, _all)
    if json:
        write_json({"leases": found})
        return
    rows = table("lease", "length", "left", "keys")
    for each in found:
        rows.add_row(str(each.id), _seconds(each.ttl_s), _seconds(each.left_s), f"{each.key_count:,}")
    show(rows)


@lease.command("show")
def show_lease(lease_id: LeaseId, endpoints: Endpoints = DEFAULT, *, json: Json = False) -> None:
    """Show a lease and its keys. Exit status 1: the lease does not exist."""
    found = with_client(endpoints, lambda client: _one(client, lease_id), subject=Subject(lease=lease_id))
    if json:
        write_json(found)
        return
    left = f", {_seconds(found.left_s)} left" if found.left_s is not None else ""
    write_text(f"lease {found.id} of {_seconds(found.ttl_s)}{left}")
    for key in found.keys or ():
        write_text(f"  {printable(key.key_bytes)}")


async def _all(client: Client) -> list[LeaseDocument]:
    leader = await _leader(client)
    found: list[LeaseDocument] = []
    more = True
    while more:
        after = found[-1].id if found else 0
        answer = await client.ask(Request("GET", f"/leases?after={after}"), leader)
        page = answer.decode(LeasePageDocument)
        found += page.leases
        more = page.more
    return found


async def _one(client: Client, lease_id: int) -> LeaseDocument:
    answer = await client.ask(Request("GET", f"/leases/{lease_id}"), await _leader(client))
    return answer.decode(LeaseDocument)


async def _leader(client: Client) -> str | None:
    """Return the endpoint of the leader, or None. Only the leader knows the time left of a lease."""
    for endpoint in client.endpoints:
        with suppress(ClientError):
            if (await client.status(endpoint)).role == "leader":
                return endpoint
    return None


def _seconds(found: float | None) -> str:
    return "" if found is None else f"{found:g} s"
