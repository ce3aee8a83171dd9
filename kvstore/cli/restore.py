"""`kvstore restore`: a backup becomes the data of a new cluster, node by node or all at once."""

import secrets
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from kvstore.backup.file import About, Backup, BackupError, MisuseError
from kvstore.cli.talking import end
from kvstore.server.config import ENV_PREFIX, ConfigError, Settings
from kvstore.server.config_sources import load
from kvstore.testing.cluster_directory import ClusterDirectory
from storage.base import StorageError

FAILED = 1
USAGE = 2
PORT, PEER_PORT = 8001, 9001


def restore(
    file: Annotated[Path, typer.Argument(help="A file that `kvstore backup` made.")],
    *,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", envvar=ENV_PREFIX + "CONFIG", help="TOML file with settings, as for `serve`."),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="The directory to make; there must be nothing yet.")] = None,
    cluster: Annotated[str | None, typer.Option(help="Name of the new cluster, another than that of the old.")] = None,
    node: Annotated[str | None, typer.Option(help="Which of the members this is.")] = None,
    members: Annotated[str | None, typer.Option(help="All of them, the same for each: n1=host:port,n2=...")] = None,
    nodes: Annotated[
        int | None, typer.Option(min=1, max=15, help="Make all of so many, for `kvstore cluster --data` of the same.")
    ] = None,
) -> None:
    """Make the data of a new cluster out of a backup. Run it once for each member, before `kvstore serve` there.

    The settings are those of `serve`, which has to get the same ones. With --nodes it makes a directory for
    `kvstore cluster` instead. Exit status 1: the backup is damaged or the data cannot be written; 2: wrong usage.
    """
    try:
        if nodes is None:
            settings = _settings({"data": data, "cluster": cluster, "node": node, "members": members}, config)
            about = _restore(file, settings)
            where = f"{settings.data} is node {settings.node} of cluster {settings.cluster}"
            next_step = f"do the same for {_others(settings)}, then run `kvstore serve` with these settings"
        else:
            about = _restore_all(file, data, cluster, nodes, others=bool(config or node or members))
            where = f"{data} is cluster {cluster}"
            next_step = f"run `kvstore cluster --nodes {nodes} --data {data}`"
    except MisuseError as error:
        end(error, USAGE)
    except ConfigError as error:
        sys.stderr.write("".join(f"kvstore: {problem}\n" for problem in error.problems))
        raise typer.Exit(USAGE) from error
    except (BackupError, StorageError) as error:
        end(error, FAILED)
    sys.stdout.write(
        f"{where}: {about.records:,} keys of cluster {about.cluster} at revision {about.revision:,}, taken "
        f"{about.taken_at}\nnext: {next_step}\n"
    )


def _settings(flags: dict[str, object], config: Path | None) -> Settings:
    """As `serve` would read them. The secret is none of them: whoever restores talks to nobody."""
    return load({**flags, "secret": secrets.token_hex(16)}, config)


def _restore(file: Path, settings: Settings) -> About:
    from kvstore.backup.restore import refuse_used, restore_node  # noqa: PLC0415 - as in `serve`

    refuse_used(settings.data)
    with Backup(file) as backup:
        restore_node(backup, settings.data, settings.cluster, settings.node, settings.members)
        return backup.about


def _restore_all(file: Path, directory: Path | None, cluster: str | None, nodes: int, *, others: bool) -> About:
    if directory is None or cluster is None or others:
        raise MisuseError("--nodes goes with --data and --cluster, and with no other setting")
    _settings({"cluster": cluster}, None)  # is that a name?

    from kvstore.backup.restore import refuse_used, restore_node  # noqa: PLC0415 - as above

    refuse_used(directory)
    local = ClusterDirectory(directory, nodes, PORT, PEER_PORT, {"cluster": cluster})
    try:
        with Backup(file) as backup:
            for place in local.replicas.values():
                restore_node(backup, place.data, cluster, place.name, local.replicas)
            local.write_settings()
            return backup.about
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise


def _others(settings: Settings) -> str:
    return ", ".join(name for name in settings.members if name != settings.node) or "nobody else"
