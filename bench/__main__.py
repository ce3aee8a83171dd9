"""`python -m bench`."""

import typer

from bench.batch import BATCH
from bench.command import run_app
from bench.compare.command import COMPARE
from bench.endurance import ENDURANCE
from bench.failover import FAILOVER
from bench.load.command import LOAD
from bench.neighbours.command import NEIGHBOURS
from bench.profile import PROFILE
from bench.restart import RESTART
from bench.snapshot import SNAPSHOT
from bench.watch.command import WATCH

app = typer.Typer(
    name="bench",
    help="Measure the store with real processes. Only ratios within one run on one machine are meaningful.",
    epilog="Exit status: 0 when all limits are met, 1 when one is exceeded or the measurement failed.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for commands in (LOAD, BATCH, COMPARE, FAILOVER, ENDURANCE, RESTART, SNAPSHOT, WATCH, NEIGHBOURS, PROFILE):
    app.add_typer(commands)


if __name__ == "__main__":
    run_app(app)
