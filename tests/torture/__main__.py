"""`python -m tests.torture`."""

import typer

from bench.command import run_app
from tests.torture.churn import CHURN
from tests.torture.counter import COUNTER
from tests.torture.crashes import CRASHES
from tests.torture.damage import DAMAGE
from tests.torture.faults.command import FAULTS
from tests.torture.full_speed import FULL_SPEED
from tests.torture.fuzz.command import FUZZ
from tests.torture.histories.command import HISTORIES
from tests.torture.listing import LIST
from tests.torture.watching.command import WATCH

app = typer.Typer(
    name="torture",
    help="Check with real processes that the store keeps its guarantees while replicas fail.",
    epilog="Exit status: 0 when every guarantee and limit is met, 1 otherwise.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for commands in (FAULTS, CRASHES, CHURN, DAMAGE, COUNTER, WATCH, HISTORIES, LIST, FULL_SPEED, FUZZ):
    app.add_typer(commands)


if __name__ == "__main__":
    run_app(app)
