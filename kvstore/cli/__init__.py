"""The command `kvstore`: one replica, a cluster on this machine, and a client."""

from typing import Annotated

import typer

from kvstore import __version__
from kvstore.cli.backup import backup
from kvstore.cli.check import check
from kvstore.cli.cluster import cluster
from kvstore.cli.exporting import export
from kvstore.cli.importing import import_
from kvstore.cli.keys import delete, get, put
from kvstore.cli.leases import lease
from kvstore.cli.locks import lock
from kvstore.cli.members import list_members, member
from kvstore.cli.restore import restore
from kvstore.cli.serve import serve
from kvstore.cli.spans import list_, txn, watch
from kvstore.cli.status import status
from kvstore.cli.top import top

app = typer.Typer(
    name="kvstore",
    help="A replicated, linearizable key-value store. `kvstore cluster` starts one to try on this machine.",
    epilog="Exit status: 0 done, 1 the key, lease or member is absent, or a replica failed, 2 wrong usage or settings, "
    "3 not done and safe to repeat, 4 a write that may have been done, 5 its condition does not hold.",
    no_args_is_help=True,
    rich_markup_mode="markdown",  # the lines of a docstring are no lines of a terminal
    pretty_exceptions_enable=False,
)
_KEYS, _CLUSTER, _DATA, _RUN = "Keys", "The cluster", "Data", "Run it"
for _panel, _name, _command in (
    (_KEYS, "get", get),
    (_KEYS, "put", put),
    (_KEYS, "delete", delete),
    (_KEYS, "list", list_),
    (_KEYS, "watch", watch),
    (_KEYS, "txn", txn),
    (_KEYS, "lock", lock),
    (_CLUSTER, "status", status),
    (_CLUSTER, "top", top),
    (_CLUSTER, "members", list_members),
    (_DATA, "export", export),
    (_DATA, "import", import_),
    (_DATA, "backup", backup),
    (_DATA, "restore", restore),
    (_DATA, "check", check),
    (_RUN, "cluster", cluster),
    (_RUN, "serve", serve),
):
    app.command(_name, rich_help_panel=_panel)(_command)
app.add_typer(lease, name="lease", rich_help_panel=_KEYS)
app.add_typer(member, name="member", rich_help_panel=_CLUSTER)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"kvstore {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version of kvstore.")
    ] = False,
) -> None:
    """Take the options that stand before a command."""


def main() -> None:
    """Entry point of the script and of `python -m kvstore`."""
    app()
