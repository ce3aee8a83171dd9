"""The leader of a local cluster, reasons for not being ready, and exit statuses of processes."""

import signal
from collections.abc import Mapping

from kvstore.api.status import Status
from kvstore.client import Client, ClientError
from kvstore.testing.cluster_directory import LocalReplica


async def status_of(client: Client, replica: LocalReplica) -> Status | None:
    """Return the status of `replica`; None if it does not answer in time, or another program answers on its port."""
    try:
        return await client.status(replica.url)
    except (ClientError, UnicodeDecodeError):  # msgspec raises the latter for JSON text that is not UTF-8
        return None


def leader_of(statuses: Mapping[str, Status | None]) -> str | None:
    """Return the replica with the highest ballot among those that claim to lead; the others have not noticed yet that
    they were replaced. Return None when no replica claims to lead."""
    leaders = [status for status in statuses.values() if status is not None and status.role == "leader"]
    return max(leaders, key=lambda status: int(status.ballot.partition(".")[0])).id if leaders else None


def what_is_missing(statuses: Mapping[str, Status | None]) -> str:
    """Return, in words, why a cluster with these statuses is not ready."""
    reasons = [
        f"{name} does not answer yet: it may be replaying its log" if status is None else f"{name} is catching up"
        for name, status in statuses.items()
        if status is None or not status.ready
    ]
    return ", ".join(reasons) or "there is no leader"


def describe_exit(code: int | None) -> str:
    """Return, in words, how a process ended: `killed by SIGKILL`, `exit status 1`."""
    if code is None:
        return "running"
    if code >= 0:
        return f"exit status {code}"
    names = {number.value: number.name for number in signal.Signals}
    return f"killed by {names.get(-code, f'signal {-code}')}"
