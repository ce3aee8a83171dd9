"""`kvstore member list | add | remove | replace | promote`: who belongs to the cluster."""

import asyncio
import shlex
import sys
import time
from contextlib import suppress
from typing import Annotated

import typer
from rich.console import Console

from kvstore.api.membership import MemberRole
from kvstore.api.status import MembersStatus, MemberStatus
from kvstore.cli.output import Json, show, table, write_json
from kvstore.cli.talking import DEFAULT, UNAVAILABLE, Endpoints, client_of, end, talk
from kvstore.client import Client, ClientError, Unavailable

LOOK_S = 0.2
COMPLETION_MS = 1000
"""Nobody waits longer for a name to be completed."""

NewName = Annotated[str, typer.Argument(help="The member's name.", metavar="NAME")]
Force = Annotated[bool, typer.Option("--force", help="Also where that leaves no majority connected.")]
Wait = Annotated[bool, typer.Option("--wait", help="Until the member has caught up, and votes if it shall.")]
Patience = Annotated[float, typer.Option("--timeout-s", min=0, metavar="S", help="How long --wait waits.")]


def member_names(context: typer.Context, incomplete: str) -> list[str]:
    """For the shell, which completes a name; none when no replica answers soon."""
    endpoints = context.params.get("endpoints") or DEFAULT

    async def ask() -> list[str]:
        async with client_of(endpoints, timeout_ms=COMPLETION_MS) as client:
            return [each.name for each in (await client.members()).members]

    with suppress(ClientError, ValueError):
        return [name for name in asyncio.run(ask()) if name.startswith(incomplete)]
    return []


Name = Annotated[str, typer.Argument(help="The member's name.", metavar="NAME", autocompletion=member_names)]

member = typer.Typer(no_args_is_help=True, help="Show and change who belongs to the cluster, while it serves.")


@member.command("list")
def list_members(endpoints: Endpoints = DEFAULT, *, json: Json = False) -> None:
    """Show the members, as the leader knows them where it is among the endpoints."""
    _show(talk(endpoints, _ask_leader), json=json)


@member.command()
def add(
    name: NewName,
    address: Annotated[str, typer.Argument(help="host:port at which its peers will reach it.", metavar="ADDRESS")],
    role: Annotated[
        MemberRole, typer.Option(help="voter; witness: votes and has no data; learner: has the data and never votes.")
    ] = MemberRole.VOTER,
    endpoints: Endpoints = DEFAULT,
    *,
    wait: Wait = False,
    timeout_s: Patience = 600.0,
    json: Json = False,
) -> None:
    """Make NAME a member, and say how to start it. It votes, if it shall, once it has caught up.

    To repeat it does no harm. Exit status 2: refused, for instance because the name is taken. 3: not done, or not yet.
    """
    added, cluster = talk(endpoints, lambda client: _add(client, name, address, role))
    if json:
        _show(added, json=True)
    else:
        say = Console(soft_wrap=True, markup=False, highlight=False).print
        say(f"{name} is a member; it becomes a {role} once it has caught up. Start it with an empty directory DATA:\n")
        say(f"  {_start_command(added, name, cluster)}\n")
        say("The secret, lease_ms and clock_drift_ppm have to be those of the others. Replace CLIENTS by host:port.")
    if wait:
        _wait(endpoints, name, timeout_s)


@member.command()
def remove(name: Name, endpoints: Endpoints = DEFAULT, *, force: Force = False, json: Json = False) -> None:
    """Make NAME a member no more, the leader too. Its process goes on until you stop it.

    Exit status 1: there is no such member. 2: refused, for instance because too few of the others are connected.
    """
    _show(talk(endpoints, lambda client: client.remove_member(name, force=force)), json=json)


@member.command()
def replace(
    name: Name,
    address: Annotated[str | None, typer.Argument(help="host:port, if that is another one.", metavar="ADDRESS")] = None,
    endpoints: Endpoints = DEFAULT,
    *,
    force: Force = False,
    wait: Wait = False,
    timeout_s: Patience = 600.0,
    json: Json = False,
) -> None:
    """Take NAME back with a new disk: its data is lost, or is an old copy.

    Stop it before, and start it afterwards with an empty data directory and the settings that it had. It is given the
    data, and becomes again what it was.
    """
    _show(talk(endpoints, lambda client: client.replace_member(name, address, force=force)), json=json)
    if wait:
        _wait(endpoints, name, timeout_s)


@member.command()
def promote(
    name: Name, endpoints: Endpoints = DEFAULT, *, wait: Wait = False, timeout_s: Patience = 600.0, json: Json = False
) -> None:
    """Have the learner NAME vote, as soon as it has caught up."""
    _show(talk(endpoints, lambda client: client.promote_member(name)), json=json)
    if wait:
        _wait(endpoints, name, timeout_s)


async def _add(client: Client, name: str, address: str, role: MemberRole) -> tuple[MembersStatus, str]:
    added = await client.add_member(name, address, role)
    for endpoint in client.endpoints:
        try:
            return added, (await client.status(endpoint)).cluster
        except Unavailable:
            continue
    return added, "CLUSTER"


async def _ask_leader(client: Client) -> MembersStatus:
    """Raises ClientError when nobody answers."""
    found = await asyncio.gather(*map(client.members_at, client.endpoints), return_exceptions=True)
    answers = [answer for answer in found if isinstance(answer, MembersStatus)]
    errors = [error for error in found if isinstance(error, BaseException)]
    if not answers:
        raise next(
            (error for error in errors if not isinstance(error, ClientError)), Unavailable("; ".join(map(str, errors)))
        )
    return max(answers, key=lambda answer: (answer.version, answer.leader == answer.id))


def _show(status: MembersStatus, *, json: bool) -> None:
    if json:
        write_json(status)
        return
    state = "in force" if status.in_force else "not in force yet"
    title = f"version {status.version}, {state}, as {status.id} knows it"
    rows = table("member", "role", "address", "data", "connected", "slots behind", title=title)
    for each in status.members:
        leads = " [green]leads[/green]" if each.name == status.leader else ""
        connected = "yes" if each.connected else "[red]no[/red]"
        behind = "" if each.lag is None else f"{each.lag:,}"
        data = "not seen" if each.incarnation == "0" else each.incarnation
        rows.add_row(each.name + leads, _role(each), each.address, data, connected, behind)
    show(rows)


def _role(each: MemberStatus) -> str:
    return f"{each.role}, becomes {each.becomes}" if each.joining else str(each.role)


def _start_command(status: MembersStatus, name: str, cluster: str) -> str:
    members = ",".join(f"{each.name}={each.address}" for each in status.members)
    what = ["--join", "true", "--node", name, "--cluster", cluster, "--members", members]
    where = ["--listen", "CLIENTS", "--data", "DATA", "--secret-file", "SECRET"]
    return shlex.join(["kvstore", "serve", *what, *where])


def _wait(endpoints: str, name: str, timeout_s: float) -> None:
    try:
        said = talk(endpoints, lambda client: _until_ready(client, name, timeout_s))
    except TimeoutError:
        why = f"{name} has not caught up within {timeout_s:g} s; `kvstore member list` shows it, waiting goes on there"
        end(TimeoutError(why), UNAVAILABLE)
    sys.stderr.write(f"{said}\n")


async def _until_ready(client: Client, name: str, timeout_s: float) -> str:
    deadline = time.monotonic() + timeout_s
    with Console(stderr=True).status(f"{name} ...") as line:
        while time.monotonic() < deadline:
            try:
                status = await _ask_leader(client)
            except Unavailable:
                line.update("no replica answers")
            else:
                each = next((each for each in status.members if each.name == name), None)
                if each is None:
                    raise Unavailable(f"{name} is not a member any more: somebody has removed it")
                if not each.joining and each.incarnation != "0" and each.connected and not each.lag:
                    return f"{name} is a {each.role}, and has caught up"
                line.update(_progress(each))
            await asyncio.sleep(LOOK_S)
    raise TimeoutError


def _progress(each: MemberStatus) -> str:
    if not each.connected:
        return f"{each.name} is not connected: start it, with --join true and an empty data directory"
    if each.lag:
        return f"{each.name} catches up: {each.lag:,} slots behind"
    return f"{each.name} is connected"
