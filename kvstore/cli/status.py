"""`kvstore status`."""

import asyncio

from rich.table import Table

from kvstore.api.status import Standing, Status
from kvstore.cli.connect import DEFAULT, NO_REPLICA_ANSWERS, Endpoints, with_client
from kvstore.cli.exit_status import ExitStatus, fail
from kvstore.cli.output import Json, write_json
from kvstore.cli.terminal import show_table, table
from kvstore.client import Client, ClientError


def status(endpoints: Endpoints = DEFAULT, *, json: Json = False) -> None:
    """Show the state of every replica.

    Each replica reports its own state. Exit status 3: no replica answers.
    """
    answers = with_client(endpoints, _ask_all)
    if json:
        write_json({where: answer if isinstance(answer, Status) else {"error": str(answer)}
                    for where, answer in answers.items()})  # fmt: skip
    else:
        show_table(_table(answers), optional=("keys", "lease", "peers", "ballot"))
    if not any(isinstance(answer, Status) for answer in answers.values()):
        fail(NO_REPLICA_ANSWERS, ExitStatus.UNAVAILABLE)


async def _ask_all(client: Client) -> dict[str, Status | ClientError]:
    """Return, for each endpoint, the status or the error."""

    async def ask(endpoint: str) -> Status | ClientError:
        try:
            return await client.status(endpoint)
        except ClientError as error:
            return error

    return dict(zip(client.endpoints, await asyncio.gather(*map(ask, client.endpoints)), strict=True))


def _table(answers: dict[str, Status | ClientError]) -> Table:
    rows = table("replica", "role", "ballot", "lease", "applied", "keys", "peers", "endpoint")
    for endpoint, answer in answers.items():
        where = endpoint.removeprefix("http://")
        if isinstance(answer, ClientError):
            rows.add_row("", "[red]unreachable[/red]", "", "", "", "", "", where)
            continue
        others = [member for member in answer.members if member.name != answer.id]
        connected = sum(member.connected for member in others)
        rows.add_row(
            answer.id,
            role_of(answer),
            answer.ballot,
            "" if answer.lease_left_ms is None else f"{answer.lease_left_ms:.0f} ms",
            str(answer.applied),
            str(answer.keys),
            f"{connected} of {len(others)}" if answer.members else "",
            where,
        )
    return rows


def role_of(status: Status) -> str:
    """Return the current role of a replica, in colour."""
    role = status.role if status.standing is Standing.VOTER else str(status.standing)
    if not status.ready:
        return f"[red]{role}, not ready[/red]"
    return f"[green]{role}[/green]" if role == "leader" else role
