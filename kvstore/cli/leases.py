"""`kvstore lease grant | keepalive | revoke | list | show`: what keys and locks may hang on."""

import asyncio
from contextlib import suppress
from typing import Annotated

import msgspec
import typer
from rich.text import Text

from kvstore.cli.output import Json, keys_in_words, show, shown, table, write_json
from kvstore.cli.talking import DEFAULT, Endpoints, talk
from kvstore.client import Client, ClientError
from kvstore.client.caller import Repeat, Request

lease = typer.Typer(no_args_is_help=True, help="Leases: what hangs on one goes with it, unless it is kept alive.")

Number = Annotated[int, typer.Argument(min=1, metavar="ID", help="The lease's number.")]


class _Granted(msgspec.Struct):
    id: int
    ttl_s: float


class _Key(msgspec.Struct):
    key: str | msgspec.UnsetType = msgspec.UNSET
    key_base64: bytes | msgspec.UnsetType = msgspec.UNSET

    @property
    def name(self) -> bytes:
        return self.key_base64 or b"" if self.key is msgspec.UNSET else self.key.encode()


class _Lease(_Granted):
    """`left_s` is None where nobody that leads was asked; `keys` are not there in a list."""

    left_s: float | None
    key_count: int
    keys: list[_Key] | msgspec.UnsetType = msgspec.UNSET


class _Leases(msgspec.Struct):
    leases: list[_Lease]
    more: bool


class _Ended(msgspec.Struct):
    revision: int
    deleted: int


@lease.command()
def grant(
    ttl: Annotated[float, typer.Argument(metavar="SECONDS", help="It lives so long, unless it is kept alive.")],
    endpoints: Endpoints = DEFAULT,
    *,
    json: Json = False,
) -> None:
    """Make a lease and write its number, for `kvstore put --lease` and `kvstore lease keepalive`."""

    async def ask(client: Client) -> _Granted:
        granted = await client.lease(ttl)
        return _Granted(granted.id, granted.ttl_s)

    granted = talk(endpoints, ask)
    if json:
        write_json(granted)
    else:
        show(str(granted.id))


@lease.command()
def keepalive(
    number: Number,
    endpoints: Endpoints = DEFAULT,
    *,
    every: Annotated[bool, typer.Option("--every", help="Again and again, until Ctrl-C.")] = False,
    json: Json = False,
) -> None:
    """Have a lease live for its whole length from now on. Exit status 1: it is over."""

    async def once(client: Client) -> _Granted:
        request = Request("POST", f"/leases/{number}/keepalive", repeat=Repeat.HARMLESS)
        return msgspec.json.decode((await client.ask(request)).body, type=_Granted)

    async def again(client: Client) -> None:
        while True:
            kept = await once(client)
            await asyncio.sleep(kept.ttl_s / 3)

    if every:
        try:
            talk(endpoints, again)
        except KeyboardInterrupt:
            raise typer.Exit from None
    kept = talk(endpoints, once)
    if json:
        write_json(kept)
    else:
        show(f"lease {kept.id} lives for {kept.ttl_s:g} s from now on")


@lease.command()
def revoke(number: Number, endpoints: Endpoints = DEFAULT, *, json: Json = False) -> None:
    """End a lease, with all keys and locks that hang on it. Exit status 1: it is over already."""

    async def ask(client: Client) -> _Ended:
        request = Request("DELETE", f"/leases/{number}", repeat=Repeat.HARMLESS)
        return msgspec.json.decode((await client.ask(request)).body, type=_Ended)

    ended = talk(endpoints, ask)
    if json:
        write_json(ended)
    else:
        show(f"revision {ended.revision}, deleted {keys_in_words(ended.deleted)}")


@lease.command("list")
def list_leases(endpoints: Endpoints = DEFAULT, *, json: Json = False) -> None:
    """Show all leases. How long each has left is known where the leader is among the endpoints."""
    found = talk(endpoints, _all)
    if json:
        write_json({"leases": found})
        return
    rows = table("lease", "length", "left", "keys")
    for each in found:
        rows.add_row(str(each.id), _seconds(each.ttl_s), _seconds(each.left_s), f"{each.key_count:,}")
    show(rows)


@lease.command("show")
def show_lease(number: Number, endpoints: Endpoints = DEFAULT, *, json: Json = False) -> None:
    """Show a lease and its keys. Exit status 1: there is no such one."""
    found = talk(endpoints, lambda client: _one(client, number))
    if json:
        write_json(found)
        return
    left = f", {_seconds(found.left_s)} left" if found.left_s is not None else ""
    show(f"lease {found.id} of {_seconds(found.ttl_s)}{left}", soft_wrap=True)
    for key in found.keys or ():
        show(Text(f"  {shown(key.name)}"), soft_wrap=True)


async def _all(client: Client) -> list[_Lease]:
    leader = await _leader(client)
    found: list[_Lease] = []
    more = True
    while more:
        after = found[-1].id if found else 0
        answer = await client.ask(Request("GET", f"/leases?after={after}"), leader)
        page = msgspec.json.decode(answer.body, type=_Leases)
        found += page.leases
        more = page.more
    return found


async def _one(client: Client, number: int) -> _Lease:
    answer = await client.ask(Request("GET", f"/leases/{number}"), await _leader(client))
    return msgspec.json.decode(answer.body, type=_Lease)


async def _leader(client: Client) -> str | None:
    """Its endpoint, if it is one of them: it alone counts the time."""
    for endpoint in client.endpoints:
        with suppress(ClientError):
            if (await client.status(endpoint)).role == "leader":
                return endpoint
    return None


def _seconds(found: float | None) -> str:
    return "" if found is None else f"{found:g} s"
