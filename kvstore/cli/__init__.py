"""The command `kvstore`: one replica, a cluster on this machine, and a client."""

import typer

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
    epilog="Exit status: 0 done, 1 the key or member is absent, or a replica failed, 2 wrong usage or settings, "
    "3 not done and safe to repeat, 4 a write that may have been done, 5 its condition does not hold.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for _command in (cluster, serve, get, put, delete, txn, watch, status, top, backup, restore, check):
    app.command()(_command)
app.command("list")(list_)
app.command()(export)
app.command("import")(import_)
app.command("members")(list_members)
app.command()(lock)
app.add_typer(lease, name="lease")
app.add_typer(member, name="member")


def main() -> None:
    """Entry point of the script and of `python -m kvstore`."""
    app()
