"""`kvstore restore`."""

import secrets
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from kvstore.backup.file import Backup, BackupError, BackupInfo, MisuseError
from kvstore.backup.restore import refuse_used, restore_node
from kvstore.cli.exit_status import ExitStatus, fail
from kvstore.cli.parameters import whole_number
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
) -> None:
    """Create the data of a new cluster from a backup.

    Run it once for each member, with the settings that its `kvstore serve` will have. --nodes, with --data and
    --cluster only, creates a directory for `kvstore cluster` instead. Exit status 1: the backup is damaged, or the data
    cannot be written. 2: wrong usage.
    """
    try:
        if nodes is None:
            settings = _settings({"data": data, "cluster": cluster, "node": node, "members": members}, config)
            info = _restore(file, settings)
            where = f"{settings.data} is node {settings.node} of cluster {settings.cluster}"
            next_step = f"{_others(settings)}run `kvstore serve` with these settings"
        else:
            info = _restore_all(file, data, cluster, nodes, others=bool(config or node or members))
            where = f"{data} is cluster {cluster}"
            next_step = f"run `kvstore cluster --nodes {nodes} --data {data}`"
    except MisuseError as error:
        fail(error, ExitStatus.USAGE)
    except ConfigError as error:
        fail("\nkvstore: ".join(error.problems), ExitStatus.USAGE)
    except (BackupError, StorageError) as error:
        fail(error, ExitStatus.FAILED)
    sys.stdout.write(
        f"{where}: {info.records:,} keys of cluster {info.cluster} at revision {info.revision:,}, taken "
        f"{info.taken_at}\nnext: {next_step}\n"
    )


def _settings(flags: dict[str, object], config: Path | None) -> Settings:
    """Return the settings as `kvstore serve` reads them, with a random secret, which a restore does not use."""
    return load({**flags, "secret": secrets.token_hex(16)}, config)


def _restore(file: Path, settings: Settings) -> BackupInfo:
    refuse_used(settings.data)
    with Backup(file) as backup:
        restore_node(backup, settings.data, settings.cluster, settings.node, settings.members)
        return backup.info


def _restore_all(file: Path, directory: Path | None, cluster: str | None, nodes: int, *, others: bool) -> BackupInfo:
    if directory is None or cluster is None or others:
        raise MisuseError("--nodes needs --data and --cluster, and excludes --config, --node and --members")
    _settings({"cluster": cluster}, None)  # raises ConfigError for an invalid name
    refuse_used(directory)
    local = ClusterDirectory(directory, nodes, PORT, PEER_PORT, {"cluster": cluster})
    try:
        with Backup(file) as backup:
            for replica in local.replicas.values():
                restore_node(backup, replica.data, cluster, replica.name, local.replicas)
            local.write_settings()
            return backup.info
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise


def _others(settings: Settings) -> str:
    names = ", ".join(name for name in settings.members if name != settings.node)
    return f"do the same for {names}, then " if names else ""
