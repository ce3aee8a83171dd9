"""`kvstore restore`."""

import secrets
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from kvstore.backup.file import Backup, BackupError, MisuseError
from kvstore.backup.renumbering import RestoredState, default_above
from kvstore.backup.restore import refuse_used, restore_node
from kvstore.cli.exit_status import ExitStatus, fail
from kvstore.cli.output import count_of_keys
from kvstore.cli.parameters import revision_number, whole_number
from kvstore.server.config import ENV_PREFIX, ConfigError, Settings
from kvstore.server.config_sources import load
from kvstore.testing.cluster_directory import ClusterDirectory
from storage.base import StorageError

PORT, PEER_PORT = 8001, 9001


def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File made by `kvstore backup`.")],
    *,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", envvar=ENV_PREFIX + "CONFIG", help="TOML file with settings, as for `kvstore serve`."
        ),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Directory to create; it must not exist.")] = None,
    cluster: Annotated[str | None, typer.Option(help="Name of the new cluster, different from the old name.")] = None,
    node: Annotated[str | None, typer.Option(help="Name of the member whose data is created.")] = None,
    members: Annotated[str | None, typer.Option(help="All members, the same for each run: n1=host:port,n2=...")] = None,
    nodes: Annotated[
        int | None,
        typer.Option(
            parser=whole_number(1, 15), metavar="N", help="Create data of this many members, for `kvstore cluster`."
        ),
    ] = None,
    above: Annotated[
        int | None,
        typer.Option(
            parser=revision_number,
            metavar="REVISION",
            help="Revision above which all new numbers lie, the same for each member. The default follows the clock.",
        ),
    ] = None,
) -> None:
    """Create the data of a new cluster from a backup.

    Run it once for each member, with the settings that its `kvstore serve` will have; the first run prints the --above
    for the others. --nodes, with --data and --cluster only, creates a directory for `kvstore cluster` instead.

    The new cluster has the keys and values of the backup, at new revisions and versions, which are above all that the
    old cluster, or an earlier restore, has given out. Keys with a lease, locks and idempotency keys are left out.
    Exit status 1: the backup is damaged, or the data cannot be written. 2: wrong usage.
    """
    try:
        if nodes is None:
            settings = _settings({"data": data, "cluster": cluster, "node": node, "members": members}, config)
            state = _restore(file, settings, above)
            where = f"{settings.data} is node {settings.node} of cluster {settings.cluster}"
            next_step = f"{_others(settings, state.above)}run `kvstore serve` with these settings"
        else:
            state = _restore_all(file, data, cluster, nodes, above, others=bool(config or node or members))
            where = f"{data} is cluster {cluster}"
            next_step = f"run `kvstore cluster --nodes {nodes} --data {data}`"
    except MisuseError as error:
        fail(error, ExitStatus.USAGE)
    except ConfigError as error:
        fail("\nkvstore: ".join(error.problems), ExitStatus.USAGE)
    except (BackupError, StorageError) as error:
        fail(error, ExitStatus.FAILED)
    sys.stdout.write(f"{where}: {_summary(state)}\nnext: {next_step}\n")


def _summary(state: RestoredState) -> str:
    info = state.info
    left_out = f", without {count_of_keys(state.left_out)} that had a lease" if state.left_out else ""
    return (
        f"{count_of_keys(state.records)} of cluster {info.cluster} at revision {info.revision:,}, taken "
        f"{info.taken_at}{left_out}\nrevisions continue after {state.revision:,}; entity tags, leases, fencing "
        "tokens and watch positions from before are refused"
    )


def _settings(flags: dict[str, object], config: Path | None) -> Settings:
    """Return the settings as `kvstore serve` reads them, with a random secret, which a restore does not use."""
    return load({**flags, "secret": secrets.token_hex(16)}, config)


def _restore(file: Path, settings: Settings, above: int | None) -> RestoredState:
    refuse_used(settings.data)
    with Backup(file) as backup:
        state = _state(backup, above)
        restore_node(state, settings.data, settings.cluster, settings.node, settings.members)
        return state


def _restore_all(
    file: Path, directory: Path | None, cluster: str | None, nodes: int, above: int | None, *, others: bool
) -> RestoredState:
    if directory is None or cluster is None or others:
        raise MisuseError("--nodes needs --data and --cluster, and excludes --config, --node and --members")
    _settings({"cluster": cluster}, None)  # raises ConfigError for an invalid name
    refuse_used(directory)
    local = ClusterDirectory(directory, nodes, PORT, PEER_PORT, {"cluster": cluster})
    try:
        with Backup(file) as backup:
            state = _state(backup, above)
            for replica in local.replicas.values():
                restore_node(state, replica.data, cluster, replica.name, local.replicas)
            local.write_settings()
            return state
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise


def _state(backup: Backup, above: int | None) -> RestoredState:
    return RestoredState(backup, default_above(backup.info, datetime.now(UTC)) if above is None else above)


def _others(settings: Settings, above: int) -> str:
    names = ", ".join(name for name in settings.members if name != settings.node)
    return f"do the same for {names} with --above {above}, then " if names else ""
