"""The command line `kvstore`. Each command, or group of commands, has a module of its own.

Imports the server, the client and `kvstore.testing`; only `kvstore.__main__` imports it.
"""

from importlib import import_module
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

from kvstore import __version__


class CommandEntry(NamedTuple):
    """A command in the help: its panel, its summary, and its function or group as `module:attribute`."""

    panel: str
    summary: str
    target: str


_KEYS, _CLUSTER, _DATA, _RUN = "Keys", "Cluster", "Data", "Replicas"
COMMANDS = {
    "get": CommandEntry(_KEYS, "Write the value of a key to standard output.", "keys:get"),
    "put": CommandEntry(_KEYS, "Set a key.", "keys:put"),
    "delete": CommandEntry(_KEYS, "Delete a key, or all keys with a prefix.", "keys:delete"),
    "list": CommandEntry(_KEYS, "List keys and their values.", "keys:list_"),
    "watch": CommandEntry(_KEYS, "Print changes of keys as they happen.", "watch:watch"),
    "txn": CommandEntry(_KEYS, "Apply a transaction and print its result.", "txn:txn"),
    "lock": CommandEntry(_KEYS, "Run a command while holding a lock.", "lock:lock"),
    "lease": CommandEntry(_KEYS, "Grant, renew, revoke and show leases.", "lease:lease"),
    "status": CommandEntry(_CLUSTER, "Show the state of every replica.", "status:status"),
    "top": CommandEntry(_CLUSTER, "Show roles, progress and load of the replicas, live.", "top:top"),
    "members": CommandEntry(_CLUSTER, "List the members of the cluster.", "member:list_members"),
    "member": CommandEntry(_CLUSTER, "List, add, remove, replace and promote members.", "member:member"),
    "export": CommandEntry(_DATA, "Write keys to a file, one line of JSON for each.", "export:export"),
    "import": CommandEntry(_DATA, "Set the keys in an exported file.", "import_:import_"),
    "backup": CommandEntry(_DATA, "Write all keys, as of one moment, to an SQLite file.", "backup:backup"),
    "restore": CommandEntry(_DATA, "Create the data of a new cluster from a backup.", "restore:restore"),
    "check": CommandEntry(_DATA, "Verify the data directory of a stopped replica.", "check:check"),
    "cluster": CommandEntry(_RUN, "Run a cluster on this machine until Ctrl-C.", "cluster:cluster"),
    "serve": CommandEntry(_RUN, "Run one replica until SIGTERM or Ctrl-C.", "serve:serve"),
}


def load_command(name: str) -> Any:
    """Import the command `name` and return it as a TyperCommand or a TyperGroup."""
    module, _, attribute = COMMANDS[name].target.partition(":")
    found = getattr(import_module(f"{__name__}.{module}"), attribute)
    if isinstance(found, typer.Typer):
        return typer.main.get_command(found)
    single = typer.Typer(add_completion=False, rich_markup_mode="markdown")
    single.command(name)(found)
    return typer.main.get_command(single)


class CommandGroup(TyperGroup):
    """The group of all commands. A command is imported when it runs, because importing all of them takes a second."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, entry in COMMANDS.items():
            self.commands[name] = TyperCommand(name, help=entry.summary, rich_help_panel=entry.panel)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Import the command that `args` names before it is resolved."""
        if args and args[0] in COMMANDS:
            self.commands[args[0]] = load_command(args[0])
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name="kvstore",
    cls=CommandGroup,
    help="A replicated, linearizable key-value store. `kvstore cluster` starts a cluster on this machine.",
    epilog="Exit status: 0 done; 1 the key, lease, lock holder or member does not exist, or the command failed; "
    "2 wrong usage or settings, or the cluster rejected the request; 3 not done, safe to repeat; 4 a write that may "
    "have been applied; 5 the condition does not hold.",
    no_args_is_help=True,
    rich_markup_mode="markdown",  # joins the lines of a docstring's paragraph to the width of the terminal
    pretty_exceptions_enable=False,
)


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
    """Accept the options that precede the command."""


def main() -> None:
    """Run the command line: the entry point of the script and of `python -m kvstore`."""
    app()
