"""`kvstore member list | add | remove | replace | promote`."""

import asyncio
import shlex
import sys
import time
from contextlib import suppress
from typing import Annotated

import typer
from rich.console import Console

from kvstore.api.address import loopback_warnings, parse_address
from kvstore.api.membership import MemberRole
from kvstore.api.status import MembersStatus, MemberStatus
from kvstore.cli.connect import DEFAULT, Endpoints, client_of, with_client
from kvstore.cli.exit_status import ExitStatus, fail
from kvstore.cli.output import Json, write_json, write_text
from kvstore.cli.parameters import wait_seconds
from kvstore.cli.terminal import show_table, table
from kvstore.client import Client, ClientError, Unavailable

POLL_S = 0.2
COMPLETION_MS = 1000
"""Timeout of the shell completion of a name."""

NewName = Annotated[str, typer.Argument(help="Name of the member.", metavar="NAME")]
Force = Annotated[
    bool, typer.Option("--force", help="Make the change even if the connected members are no majority afterwards.")
]
Wait = Annotated[bool, typer.Option("--wait", help="Wait until the member has caught up and has its final role.")]
WaitTimeout = Annotated[
    float, typer.Option("--timeout-s", parser=wait_seconds, metavar="S", help="Limit of --wait in seconds.")
]


def member_names(context: typer.Context, incomplete: str) -> list[str]:
    """Return the names of members that begin with `incomplete`; none if no replica answers in time."""
    endpoints = context.params.get("endpoints") or DEFAULT

    async def ask() -> list[str]:
        async with client_of(endpoints, timeout_ms=COMPLETION_MS) as client:
            return [each.name for each in (await client.members()).members]

    with suppress(ClientError, ValueError):
        return [name for name in asyncio.run(ask()) if name.startswith(incomplete)]
    return []


Name = Annotated[str, typer.Argument(help="Name of the member.", metavar="NAME", autocompletion=member_names)]

member = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="List, add, remove, replace and promote members.\n\nThe cluster serves requests while its membership changes.",
)


@member.command("list")
def list_members(endpoints: Endpoints = DEFAULT, *, json: Json = False) -> None:
    """List the members of the cluster.

    The report is that of the leader, if the leader is among the endpoints. Exit status 3: no replica answers.
    """
    _show(with_client(endpoints, _newest_members), json=json)


@member.command()
def add(
    name: NewName,
    address: Annotated[str, typer.Argument(help="host:port of its peer listener.", metavar="ADDRESS")],
    role: Annotated[
        MemberRole,
        typer.Option(help="`witness`: votes, but has no records. `learner`: has the records, but does not vote."),
    ] = MemberRole.VOTER,
    endpoints: Endpoints = DEFAULT,
    *,
    wait: Wait = False,
    timeout_s: WaitTimeout = 600.0,
    json: Json = False,
) -> None:
    """Add a member, and print the command that starts its replica.

    A voter votes once it has caught up. It is safe to repeat the command with the same arguments. Exit status 2: the
    change was rejected, for instance because the name is taken. 3: not done, or the member did not catch up in time.
    """
    added, cluster = with_client(endpoints, lambda client: _add(client, name, address, role))
    if json:
        _show(added, json=True)
    else:
        write_text(
            f"{name} is a member, and becomes a {role} once it has caught up. Start it with an empty data directory "
            f"DATA:\n\n  {_start_command(added, name, cluster)}\n\n"
            "Replace CLIENTS by the host:port for clients. All members use the same secret, lease_ms and "
            "clock_drift_ppm."
        )
    for warning in loopback_warnings(
        {each.name: parse_address(each.address) for each in added.members if each.address}
    ):
        sys.stderr.write(f"kvstore: warning: {warning}\n")
    if wait:
        _wait(endpoints, name, timeout_s)


@member.command()
def remove(name: Name, endpoints: Endpoints = DEFAULT, *, force: Force = False, json: Json = False) -> None:
    """Remove a member. A leader hands over its leadership first.

    The process of the removed replica keeps running until it is stopped.

    Exit status 1: there is no such member. 2: the change was rejected, for instance because too few other members are
    connected.
    """
    _show(with_client(endpoints, lambda client: client.remove_member(name, force=force)), json=json)


@member.command()
def replace(
    name: Name,
    address: Annotated[str | None, typer.Argument(help="New host:port, if it changes.", metavar="ADDRESS")] = None,
    endpoints: Endpoints = DEFAULT,
    *,
    force: Force = False,
    wait: Wait = False,
    timeout_s: WaitTimeout = 600.0,
    json: Json = False,
) -> None:
    """Readmit a member whose data is lost or is an old copy.

    Stop its process first. Afterwards start it with an empty data directory and its former settings: it gets the data
    from the other members, and its former role.
    """
    _show(with_client(endpoints, lambda client: client.replace_member(name, address, force=force)), json=json)
    if wait:
        _wait(endpoints, name, timeout_s)


@member.command()
def promote(
    name: Name,
    endpoints: Endpoints = DEFAULT,
    *,
    wait: Wait = False,
    timeout_s: WaitTimeout = 600.0,
    json: Json = False,
) -> None:
    """Make a learner a voter, which votes once it has caught up."""
    _show(with_client(endpoints, lambda client: client.promote_member(name)), json=json)
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


async def _newest_members(client: Client) -> MembersStatus:
    """Return the newest membership that an endpoint reports, preferably the report of the leader.

    Raises Unavailable if no replica answers.
    """
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
    title = f"membership version {status.version}, {state}, as {status.id} reports it"
    rows = table("member", "role", "address", "incarnation", "connected", "slots behind", title=title)
    for each in status.members:
        name = each.name if each.name != status.leader else f"{each.name} [green]leader[/green]"
        connected = "yes" if each.connected else "[red]no[/red]"
        behind = "" if each.lag is None else f"{each.lag:,}"
        incarnation = "not seen" if each.incarnation == "0" else each.incarnation
        rows.add_row(name, _role(each), each.address, incarnation, connected, behind)
    show_table(rows, optional=("incarnation", "slots behind", "connected"))


def _role(each: MemberStatus) -> str:
    return f"{each.role}, becomes {each.becomes}" if each.joining else str(each.role)


def _start_command(status: MembersStatus, name: str, cluster: str) -> str:
    members = ",".join(f"{each.name}={each.address}" for each in status.members)
    identity = ["--join", "true", "--node", name, "--cluster", cluster, "--members", members]
    files = ["--listen", "CLIENTS", "--data", "DATA", "--secret-file", "SECRET"]
    return shlex.join(["kvstore", "serve", *identity, *files])


def _wait(endpoints: str, name: str, timeout_s: float) -> None:
    try:
        message = with_client(endpoints, lambda client: _until_ready(client, name, timeout_s))
    except TimeoutError:
        fail(
            f"{name} has not caught up within {timeout_s:g} s, but continues to: see `kvstore member list`, or wait "
            "longer with --timeout-s",
            ExitStatus.UNAVAILABLE,
        )
    sys.stderr.write(f"{message}\n")


async def _until_ready(client: Client, name: str, timeout_s: float) -> str:
    deadline = time.monotonic() + timeout_s
    with Console(stderr=True).status(f"{name} ...") as line:
        while time.monotonic() < deadline:
            try:
                status = await _newest_members(client)
            except Unavailable:
                line.update("no replica answers")
            else:
                each = next((each for each in status.members if each.name == name), None)
                if each is None:
                    raise Unavailable(f"{name} is no longer a member: another client has removed it")
                if not each.joining and each.incarnation != "0" and each.connected and not each.lag:
                    return f"{name} is a {each.role} and has caught up"
                line.update(_progress(each))
            await asyncio.sleep(POLL_S)
    raise TimeoutError


def _progress(each: MemberStatus) -> str:
    if not each.connected:
        return f"{each.name} is not connected: start it with --join true and an empty data directory"
    if each.lag:
        return f"{each.name} is catching up: {each.lag:,} slots behind"
    return f"{each.name} is connected"
